"""What a provider's words mean where it refuses: in an error status, in a status of success, or in a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmkit import errors
from llmkit.providers.transport import http

if TYPE_CHECKING:
    from llmkit.providers.transport.http import Wire

NO_MORE_QUOTA = (
    "insufficient_quota",
    "exceeded your current quota",
    "billing_hard_limit",
    "credit balance is too low",
)
_TOO_LONG = (
    "context_length_exceeded",
    "exceed context limit",
    "maximum context length is",
    "maximum context limit",
    "longer than the model's context length",
    "input tokens exceed the configured limit",
    "exceeds the available context size",
    "exceeds the maximum number of tokens allowed",
    "prompt is too long",
    "`inputs` tokens + `max_new_tokens` must be",
)
_NOT_ALLOWED = (
    "content_policy_violation",
    "content_filter_policy",
    "responsibleaipolicyviolation",
    "content management policy",
    "rejected as a result of our safety system",
)


_JUDGED_BYTES = 10_000
_BY_WORD = {
    "authentication_error": 401,
    "insufficient_quota": 429,
    "invalid_request_error": 400,
    "not_found_error": 404,
    "overloaded_error": 529,
    "permission_error": 403,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "request_too_large": 413,
}
"""HTTP statuses for the words of providers that fail after a status of success."""


def refined(wire: Wire) -> type[errors.ProviderError] | None:
    """Return the class of error that a refusal's words mean, or None if they have no class of their own."""
    text = b"".join(wire.parts)[:_JUDGED_BYTES].decode("utf-8", "replace").lower()
    if any(mark in text for mark in _TOO_LONG):
        return errors.ContextWindowExceededError
    return errors.ContentPolicyViolationError if any(mark in text for mark in _NOT_ALLOWED) else None


def refusal_of(wire: Wire) -> Any:
    """Return the error inside an answer with a status of success, or None if there is none."""
    if isinstance(wire.fault, http.StreamedRefusalError):
        return wire.fault.refusal
    return None if wire.status is None or wire.failed_status is not None else refusal_in(wire.data)


def refusal_in(body: Any) -> Any:
    """Return the error that a body has in the place of an answer, or None if there is none."""
    return body["error"] if isinstance(body, dict) and body.get("error") and not body.get("choices") else None


def status_of(refusal: Any) -> int:
    """Return the HTTP status that an error in the place of an answer stands for."""
    words = [refusal.get(name) for name in ("code", "status", "type")] if isinstance(refusal, dict) else []
    for word in words:
        if isinstance(word, int | str) and str(word).isdecimal() and 400 <= int(word) < 600:  # noqa: PLR2004
            return int(word)
        if isinstance(word, str) and word in _BY_WORD:
            return _BY_WORD[word]
    return 500
