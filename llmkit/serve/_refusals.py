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
_FAILED = (errors.ProviderError, 502, "upstream_failed", None)
_PROVIDER: tuple[tuple[type[errors.ProviderError], int, str, str | None], ...] = (
    (errors.RateLimitError, 429, "rate_limit_exceeded", None),
    (errors.UnknownProviderError, 500, "configuration", None),
    (errors.ContextWindowExceededError, 400, "context_length_exceeded", "messages"),
    (errors.ContentPolicyViolationError, 400, "content_filter", "messages"),
    (errors.BadRequestError, 400, "upstream_refused", None),
    (errors.UnprocessableEntityError, 400, "upstream_refused", None),
    (errors.NotFoundError, 404, "upstream_not_found", None),
    (errors.Timeout, 504, "upstream_timeout", None),
    (errors.ServiceUnavailableError, 503, "upstream_unavailable", None),
    (errors.SchemaError, 502, "schema_mismatch", None),
    # the key is the server's, and not the client's to mend
    (errors.AuthenticationError, 502, "upstream_refused_key", None),
    (errors.PermissionDeniedError, 502, "upstream_refused_key", None),
    (errors.PaymentRequiredError, 502, "upstream_refused_key", None),
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


def refusal(error: Exception, request_id: str = "") -> Refusal:
    """Return what a client is told of an error; what nobody foresaw is logged, and told without its reason."""
    if isinstance(error, ServeError):
        return Refusal(error.status, error.message, error.code, error.param, headers=error.headers)
    if isinstance(error, errors.ProviderError):
        return _of_provider(error)
    if isinstance(error, errors.BudgetExceededError):
        wait = {"retry-after": _whole(error.frees_at - time.time())} if error.frees_at is not None else {}
        return Refusal(429, str(error), "budget_exceeded", None, "insufficient_quota", wait | _NEVER_AGAIN)
    if isinstance(error, errors.InvalidRequestError):
        return Refusal(400, str(error))
    if isinstance(error, errors.SessionBusyError):
        return Refusal(409, str(error), "session_busy")
    if isinstance(error, errors.UnknownSessionError):
        return Refusal(404, str(error), "session_not_found")
    if isinstance(error, errors.LocalModelError):
        return Refusal(503, str(error), "model_unavailable")
    if isinstance(error, errors.LlmkitError):
        log.error("request %s: %s: %s", request_id, type(error).__name__, error)
        return Refusal(500, str(error), "configuration" if isinstance(error, errors.ConfigError) else "")
    log.error("request %s failed", request_id, exc_info=error)
    return Refusal(500, f"internal error; the server's log has more under request {request_id}", "internal_error")


_PLACES = frozenset({"body", "query", "path", "header", "cookie"})


def validation(found: Any) -> Refusal:
    """Return what a client is told of fields that do not fit; the first one is `param`.

    Args:
        found: the list of a pydantic error's `errors()`.
    """
    if found and found[0]["type"] == "json_invalid":
        return Refusal(400, f"the body is no JSON: {found[0].get('ctx', {}).get('error', '')}", "invalid_json")
    if found and tuple(found[0]["loc"]) == ("body",):
        return Refusal(400, "the body must be a JSON object, sent as application/json", "invalid_value")
    said = [(_field(item["loc"]), str(item["msg"])) for item in found]
    told = "; ".join(f"{field}: {message}" if field else message for field, message in said[:5])
    code = "unknown_field" if found and found[0]["type"] == "extra_forbidden" else "invalid_value"
    return Refusal(400, told, code, said[0][0] or None if said else None)


def _field(where: Any) -> str:
    """Return the dotted name of a field, without the place and the branches of a union (`body`, `list[str]`) in it."""
    where = where[1:] if where and where[0] in _PLACES else where
    named = (part for part in where if isinstance(part, int) or not _BRANCH.search(part))
    return ".".join(map(str, named))


def of_status(status: int, path: str) -> Refusal:
    """Return what a client is told of a path or method that there is not."""
    if status == 404:  # noqa: PLR2004
        return Refusal(404, f"there is nothing at {path}", "not_found")
    if status == 405:  # noqa: PLR2004
        return Refusal(405, f"{path} does not take this method", "method_not_allowed")
    return Refusal(status, "the request cannot be read" if status < _FIRST_SERVER_ERROR else "internal error")


def _of_provider(error: errors.ProviderError) -> Refusal:
    message = str(error)
    if isinstance(error, errors.QuotaExceededError):
        return Refusal(429, message, "insufficient_quota", None, "insufficient_quota", dict(_NEVER_AGAIN))
    _, status, code, param = next((said for said in _PROVIDER if isinstance(error, said[0])), _FAILED)
    wait = {"retry-after": _whole(error.retry_after_s)} if status in {429, 503} else {}
    return Refusal(status, message, code, param, headers=wait)


def _whole(seconds: float | None) -> str:
    """Return seconds for `Retry-After`, which has no fractions."""
    return str(max(1, math.ceil(seconds or 1)))
