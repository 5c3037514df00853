"""Errors on the wire, in OpenAI's shape; what a provider says of the server's own key is not the client's to mend."""

from __future__ import annotations

import json
import logging
import math
import re
import time
from dataclasses import dataclass, field
from typing import Any

from llmkit import errors
from llmkit.serve._errors import ServeError

log = logging.getLogger("llmkit.serve")
_NEVER_AGAIN = {"x-should-retry": "false"}  # OpenAI's SDKs would send a 429 twice more
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 504: "timeout_error"}
_FIRST_SERVER_ERROR = 500
_BRANCH = re.compile(r"^(str|dict|literal|constrained)\b|\[|^[A-Z]")
_MORE = "; the server's log has more under request {id}"
_FAILED = (errors.ProviderError, 502, "upstream_failed", None, "the provider failed")
_PROVIDER: tuple[tuple[type[errors.ProviderError], int, str, str | None, str], ...] = (
    (errors.QuotaExceededError, 429, "insufficient_quota", None, "the provider's quota is used up"),
    (errors.RateLimitError, 429, "rate_limit_exceeded", None, "the provider takes no more requests for now"),
    (errors.UnknownProviderError, 500, "configuration", None, "the server is not set up for this model"),
    (errors.UnsupportedParamsError, 400, "unsupported_parameter", None, "the model does not take these parameters"),
    (errors.ContextWindowExceededError, 400, "context_length_exceeded", "messages", ""),
    (errors.ContentPolicyViolationError, 400, "content_filter", "messages", ""),
    (errors.BadRequestError, 400, "upstream_refused", None, ""),
    (errors.UnprocessableEntityError, 400, "upstream_refused", None, ""),
    (errors.NotFoundError, 404, "upstream_not_found", None, "the provider does not have the model"),
    (errors.Timeout, 504, "upstream_timeout", None, "the provider did not answer in time"),
    (errors.ServiceUnavailableError, 503, "upstream_unavailable", None, "the provider is not available"),
    (errors.SchemaError, 502, "schema_mismatch", None, "the answer does not fit the schema"),
    (errors.IncompleteStreamError, 502, "upstream_failed", None, "the provider broke off in the middle of the answer"),
    (errors.APIConnectionError, 502, "upstream_failed", None, "the provider cannot be reached"),
    # the key is the server's, and not the client's to mend
    (errors.AuthenticationError, 502, "upstream_refused_key", None, "the provider refused the server's key"),
    (errors.PermissionDeniedError, 502, "upstream_refused_key", None, "the provider refused the server's key"),
    (errors.PaymentRequiredError, 502, "upstream_refused_key", None, "the provider wants to be paid first"),
)
"""Status, code and field of a provider's failures, and what a client is told: "" for the provider's own words, which
it has for what the client can mend. The words of all others are for the log: addresses, accounts and keys are in them.
"""
_OURS: tuple[tuple[type[errors.LlmkitError], int, str, str], ...] = (
    (errors.LocalModelError, 503, "model_unavailable", "the model cannot be started"),
    (errors.StoreError, 503, "store_unavailable", "the server cannot reach its store"),
    (errors.LlmkitError, 500, "configuration", "the server is not set up for this"),
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that says no.

    Attributes:
        status: of the HTTP answer.
        message: what happened; `code` and `param` as in `ServeError`, `kind` is OpenAI's `type`.
        headers: that go with it.
    """

    status: int
    message: str
    code: str = ""
    param: str | None = None
    kind: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        """Return the JSON."""
        usual = "server_error" if self.status >= _FIRST_SERVER_ERROR else "invalid_request_error"
        kind = self.kind or _TYPES.get(self.status, usual)
        said = {"message": self.message, "type": kind, "param": self.param, "code": self.code or None}
        return json.dumps({"error": said}).encode()


def refusal(error: BaseException, request_id: str = "") -> Refusal:
    """Return what a client is told of an error: no path, no name and no argument of the server's own.

    What the client cannot mend is logged under the request's id, and told without its reason.
    """
    if isinstance(error, ServeError):
        return Refusal(error.status, error.message, error.code, error.param, headers=error.headers)
    if isinstance(error, errors.ProviderError):
        return _of_provider(error, request_id)
    if isinstance(error, errors.BudgetExceededError):
        wait = {"retry-after": _whole(error.frees_at - time.time())} if error.frees_at is not None else {}
        return Refusal(429, str(error), "budget_exceeded", None, "insufficient_quota", wait | _NEVER_AGAIN)
    if isinstance(error, errors.InvalidRequestError):
        return Refusal(400, str(error))
    for kind, status, code, message in _OURS:
        if isinstance(error, kind):
            log.error("request %s: %s: %s", request_id, type(error).__name__, error)
            return Refusal(status, message + _MORE.format(id=request_id), code)
    log.error("request %s failed", request_id, exc_info=error)
    return Refusal(500, "internal error" + _MORE.format(id=request_id), "internal_error")


_PLACES = frozenset({"body", "query", "path", "header", "cookie"})


def validation(found: Any) -> Refusal:
    """Return what a client is told of fields that do not fit; the first one is `param`.

    Args:
        found: the list of a pydantic error's `errors()`.
    """
    if found and tuple(found[0]["loc"]) == ("body",):
        return Refusal(400, "the body must be a JSON object, sent as application/json", "invalid_value")
    fields = [_field(item) for item in found]
    # of a field that may be one thing or another, what is said of its inner fields is the nearer
    told = [
        (field, item)
        for field, item in zip(fields, found, strict=True)
        if not any(other.startswith(f"{field}.") for other in fields)
    ]
    message = "; ".join(f"{field}: {_message(item)}".removeprefix(": ") for field, item in told[:5])
    code = "unknown_field" if told and told[0][1]["type"] == "extra_forbidden" else "invalid_value"
    return Refusal(400, message, code, told[0][0] or None if told else None)


def _message(item: Any) -> str:
    """Return what is wrong with a field, without the names of our classes and of pydantic's."""
    if item["type"] in {"model_type", "model_attributes_type"}:
        return "Input should be an object"
    return str(item["msg"]).removeprefix("Value error, ")


def _field(item: Any) -> str:
    """Return the dotted name of a field, without the place and the branches of a union (`body`, `list[str]`) in it."""
    where = list(item["loc"])
    where = where[1:] if where and where[0] in _PLACES else where
    unknown = [str(where.pop())[:100]] if item["type"] == "extra_forbidden" else []  # whatever it is called
    named = [part for part in where if isinstance(part, int) or not _BRANCH.search(part)]
    return ".".join(map(str, named + unknown))


def of_status(status: int, path: str) -> Refusal:
    """Return what a client is told of a path or method that there is not."""
    if status == 404:  # noqa: PLR2004
        return Refusal(404, f"there is nothing at {path}", "not_found")
    if status == 405:  # noqa: PLR2004
        return Refusal(405, f"{path} does not take this method", "method_not_allowed")
    return Refusal(status, "the request cannot be read" if status < _FIRST_SERVER_ERROR else "internal error")


def _of_provider(error: errors.ProviderError, request_id: str) -> Refusal:
    _, status, code, param, message = next((each for each in _PROVIDER if isinstance(error, each[0])), _FAILED)
    if not message:
        return Refusal(status, str(error), code, param)
    log.warning("request %s: %s: %s", request_id, type(error).__name__, error)
    headers = {"retry-after": _whole(error.retry_after_s)} if status in {429, 503} else {}
    kind = ""
    if isinstance(error, errors.QuotaExceededError):
        headers, kind = dict(_NEVER_AGAIN), "insufficient_quota"
    return Refusal(status, message + _MORE.format(id=request_id), code, param, kind, headers)


def _whole(seconds: float | None) -> str:
    """Return seconds for `Retry-After`, which has no fractions."""
    return str(max(1, math.ceil(seconds or 1)))
