"""Errors over HTTP, in OpenAI's format.

Status and code of a library error are attributes of its class, in `llmkit.errors`: the client cannot fix a refusal of
the server's own key, so the details are logged and the client is only told where to look.
"""

from __future__ import annotations

import json
import logging
import math
import re
import time
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from starlette.responses import Response

from llmkit import errors

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger("llmkit.serve")
_NEVER_AGAIN = {"x-should-retry": "false"}  # OpenAI's SDKs would send a 429 twice more
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 504: "timeout_error"}
_NO_MONEY = frozenset({"insufficient_quota", "budget_exceeded"})
_OF_THE_MESSAGES = (errors.ContextWindowExceededError, errors.ContentPolicyViolationError)
_FIRST_SERVER_ERROR = 500
_BRANCH = re.compile(r"^(str|dict|literal|constrained)\b|\[|^[A-Z]")
_NOT_PLAIN = re.compile(r"[^ -~]")


class ErrorDetail(BaseModel):
    """The details of an error."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(BaseModel):
    """The body of every error of this server."""

    error: ErrorDetail


class ServeError(Exception):
    """A request that is answered with an error.

    Attributes:
        status: the HTTP status.
        message: what happened, for the client: no secret, no path, no traceback.
        code: a short word for programs, such as `model_not_found`, or "".
        param: the invalid field of the request, or None.
        headers: headers of the answer, such as `Retry-After`.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = "",
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = {name: header_value(str(value)) for name, value in (headers or {}).items()}  # also a model.py's

    def body(self) -> bytes:
        """Return the JSON of the answer."""
        usual = "server_error" if self.status >= _FIRST_SERVER_ERROR else "invalid_request_error"
        kind = "insufficient_quota" if self.code in _NO_MONEY else _TYPES.get(self.status, usual)
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code or None}
        return json.dumps({"error": error}).encode()

    def response(self) -> Response:
        """Return the whole answer."""
        return Response(self.body(), self.status, self.headers, media_type="application/json")


def header_value(text: str) -> str:
    """Return a text of somebody else's as the value of a header: what cannot stand in one becomes a question mark."""
    return text if text.isascii() and text.isprintable() else _NOT_PLAIN.sub("?", text)


def to_serve_error(error: BaseException, request_id: str) -> ServeError:
    """Return an error as the client may see it: without paths, names and arguments of the server's own.

    Errors the client cannot fix are logged under the request's id, and sent without their reason.
    """
    if isinstance(error, ServeError):
        return error
    more = f"; the server's log has more under request {request_id}"
    if not isinstance(error, errors.LlmkitError):
        log.error("request %s failed", request_id, exc_info=error)
        return ServeError(500, f"internal error{more}", code="internal_error")
    status, code, message = error.answer
    param = "messages" if isinstance(error, _OF_THE_MESSAGES) else None
    if not message:
        return ServeError(status, str(error), code=code, param=param, headers=_wait(error, status))
    level = logging.WARNING if isinstance(error, errors.ProviderError) else logging.ERROR
    log.log(level, "request %s: %s: %s", request_id, type(error).__name__, error)
    return ServeError(status, message + more, code=code, headers=_wait(error, status))


def _wait(error: errors.LlmkitError, status: int) -> dict[str, str]:
    """Return the headers that say when to retry, if at all."""
    if isinstance(error, errors.BudgetExceededError):
        frees = {} if error.frees_at is None else {"retry-after": _whole(error.frees_at - time.time())}
        return frees | _NEVER_AGAIN
    if isinstance(error, errors.QuotaExceededError):
        return dict(_NEVER_AGAIN)
    if isinstance(error, errors.ProviderError) and status in {429, 503}:
        return {"retry-after": _whole(error.retry_after_s)}
    return {}


def _whole(seconds: float | None) -> str:
    """Return seconds for `Retry-After`, rounded up."""
    return str(max(1, math.ceil(seconds or 1)))


def invalid_fields(problems: Sequence[Any]) -> ServeError:
    """Return the error for invalid fields; the first one is `param`.

    Args:
        problems: the list of a pydantic error's `errors()`.
    """
    names = [_field(problem) for problem in problems]
    # if a field may be one thing or another, the errors of its inner fields say more
    inner = [
        (name, problem)
        for name, problem in zip(names, problems, strict=True)
        if not any(other.startswith(f"{name}.") for other in names)
    ]
    message = "; ".join(f"{name}: {_message(problem)}".removeprefix(": ") for name, problem in inner[:5])
    code = "unknown_field" if inner and inner[0][1]["type"] == "extra_forbidden" else "invalid_value"
    return ServeError(400, message, code=code, param=inner[0][0] or None if inner else None)


def _message(problem: Any) -> str:
    """Return what is wrong with a field, without the names of our classes and of pydantic's."""
    if problem["type"] in {"model_type", "model_attributes_type"}:
        return "Input should be an object"
    return str(problem["msg"]).removeprefix("Value error, ")


def _field(problem: Any) -> str:
    """Return the dotted name of a field, without the branches of a union (`list[str]`)."""
    where = list(problem["loc"])
    unknown = [str(where.pop())[:100]] if problem["type"] == "extra_forbidden" else []  # whatever it is called
    named = [part for part in where if isinstance(part, int) or not _BRANCH.search(part)]
    return ".".join(map(str, named + unknown))


def nothing_at(path: str, *, allowed: str = "") -> ServeError:
    """Return the error for a path that does not exist, or takes the method *allowed* only."""
    if not allowed or not path.isprintable():  # a route for a whole path takes no line break in it, another one does
        return ServeError(404, f"there is nothing at {path}", code="not_found")
    why = f"{path} does not take this method"
    return ServeError(405, why, code="method_not_allowed", headers={"allow": allowed})
