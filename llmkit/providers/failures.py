"""Translates LiteLLM's errors into llmkit's, by cause: what the wire shows counts more than the class LiteLLM chose.

Nothing in this module imports LiteLLM; its exception classes are known by name, and a test fails if
LiteLLM has one that is in neither table.
"""

from __future__ import annotations

import os
import re
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from llmkit import errors
from llmkit.config.secrets import NAMES, redact, secrets_in
from llmkit.core.params import encodable
from llmkit.providers import refusals
from llmkit.providers.transport import http
from llmkit.providers.transport.addresses import TransportError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llmkit.core.types import Request
    from llmkit.providers.transport.http import Wire

CLASSES: dict[str, type[errors.ProviderError]] = {
    "APIConnectionError": errors.APIConnectionError,
    "APIError": errors.APIError,
    "APIResponseValidationError": errors.ResponseError,
    "AuthenticationError": errors.AuthenticationError,
    "BadGatewayError": errors.BadGatewayError,
    "BadRequestError": errors.BadRequestError,
    "ContentPolicyViolationError": errors.ContentPolicyViolationError,
    "ContextWindowExceededError": errors.ContextWindowExceededError,
    "ImageFetchError": errors.BadRequestError,
    "InternalServerError": errors.InternalServerError,
    "InvalidRequestError": errors.BadRequestError,
    "JSONSchemaValidationError": errors.ResponseError,
    "LiteLLMUnknownProvider": errors.UnknownProviderError,
    "MidStreamFallbackError": errors.IncompleteStreamError,
    "NotFoundError": errors.NotFoundError,
    "OpenAIError": errors.APIError,
    "PaymentRequiredError": errors.PaymentRequiredError,
    "PermissionDeniedError": errors.PermissionDeniedError,
    "RateLimitError": errors.RateLimitError,
    "RejectedRequestError": errors.BadRequestError,
    "ServiceUnavailableError": errors.ServiceUnavailableError,
    "Timeout": errors.Timeout,
    "UnprocessableEntityError": errors.UnprocessableEntityError,
    "UnsupportedParamsError": errors.UnsupportedParamsError,
}
"""The classes that LiteLLM's exception classes are translated to."""

_BROKEN = {"ReadError", "WriteError", "RemoteProtocolError", "ServerDisconnectedError", "ClientPayloadError"}
_BROKEN |= {"ConnectionResetError", "BrokenPipeError"}
_NEVER_MADE = {"ConnectError", "ConnectTimeout", "ClientConnectorError", "ConnectionRefusedError", "gaierror"}
NOT_FROM_CALLS = frozenset(
    {
        "BlockedPiiEntityError",  # proxy guardrails
        "BudgetExceededError",  # LiteLLM's own budgets, which llmkit does not use
        "GuardrailRaisedException",  # proxy guardrails
        "MockException",  # mock_response
        "ModelNotMappedError",  # price look-ups, which are not calls
        "ModifyResponseException",  # proxy guardrails
        "SensitiveDataRouteException",  # proxy guardrails
        "VectorStoreSearchError",  # vector stores, which llmkit does not call
    }
)
"""Exception classes of LiteLLM that a call through llmkit cannot raise, each with the reason."""

_BY_STATUS: dict[int, type[errors.ProviderError]] = {504: errors.Timeout} | {
    kind.status_code: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.ProviderError) and "status_code" in vars(kind)
    if kind.status_code is not None
}
_BY_TEN: dict[int, type[errors.ProviderError]] = {  # aiXplain's own: subscription, billing, supplier, validation
    46: errors.PermissionDeniedError,
    47: errors.PaymentRequiredError,
    48: errors.BadGatewayError,
    49: errors.BadRequestError,
}
_REFINED = (
    errors.ContextWindowExceededError,
    errors.ContentPolicyViolationError,
    errors.UnsupportedParamsError,
)
_TIMEOUT_NAMES = frozenset({"TimeoutException", "APITimeoutError", "Timeout", "TimeoutError", "DeadlineError"})
_CONNECTION_NAMES = frozenset({"NetworkError", "RemoteProtocolError", "ConnectionError", "ClientError", "gaierror"})
_PREFIX = re.compile(r"^(?:litellm\.)?(?:[A-Za-z]+(?:Error|Exception|Timeout)|Timeout):?\s*(?:-\s*)?")
_UNREAD = "Error converting to valid response block"
"""What LiteLLM says, as of a bad request, where it cannot read an answer of Google's."""
_SUFFIX = re.compile(
    r"\s*(?:Traceback \(most recent call last\).*|Handle with `litellm\.[A-Za-z]+`\.?"
    r"|To drop these, set `litellm\.drop_params.*|If you want to use these params dynamically.*)",
    re.DOTALL,
)


def keyless(advice: str, provider: str, request: Request) -> errors.AuthenticationError:
    """Return the error of a request that cannot be sent for want of a key."""
    error = errors.AuthenticationError(advice, provider=provider, model=request.model)
    error.advice = ""  # the message has it
    error.sent = False
    return error


def key_advice(provider: str, names: Sequence[str], request: Request) -> str:
    """Return which variable to set."""
    joint = " or " if all(name.endswith("_API_KEY") for name in names) else " and "
    stored = "" if len(names) > 1 and joint == " and " else f"`llmkit keys set {provider}`, or "
    variables = f"set {joint.join(names)}, or " if names else ""
    return f"no key for {provider}: {stored}{variables}pass api_key ({request.model})"


def key_source(provider: str, request: Request) -> str:
    """Return where the key of a request came from, or "" if that cannot be said."""
    from llmkit.config.credentials import set_variable, stored_keys
    from llmkit.providers.litellm import catalogue  # nobody else on this way needs it

    if request.api_key:
        try:
            return "`llmkit keys`" if stored_keys().of(provider) == request.api_key else "api_key"
        except errors.ConfigError:
            return "api_key"
    try:
        return set_variable(catalogue.key_variables(provider))
    except errors.ConfigError:
        return ""


class RefusedError(Exception):
    """A provider refuses; what it says is in the wire."""


def translate(error: Exception, request: Request, provider: str, wire: Wire, elapsed_s: float) -> errors.ProviderError:
    """Return llmkit's error for what LiteLLM raised; the caller raises it `from` the original."""
    headers = _headers(error, wire)
    kind = _kind(error, wire)
    text = encodable(_text(error, kind, request, wire))
    if kind is errors.RateLimitError and any(mark in text for mark in refusals.NO_MORE_QUOTA):
        kind = errors.QuotaExceededError
    status = _status(error, wire) or (None if wire.seen else getattr(error, "status_code", None))
    if issubclass(kind, errors.APIConnectionError):
        status = None
    retryable = False if headers.get("x-should-retry") == "false" or wire.redirects_to else None
    where = f" ({provider or 'unknown provider'}, {request.model})"
    ours = kind(
        text + where,
        status_code=status if isinstance(status, int) else None,
        provider=provider,
        model=request.model,
        retryable=retryable,
        retry_after_s=retry_after_s(headers),
        elapsed_s=elapsed_s,
    )
    if kind is errors.AuthenticationError and (source := key_source(provider, request)):
        ours.advice = f"the key came from {source}: mend it there"
    return ours


_BY_FAULT: dict[type[TransportError], type[errors.ProviderError]] = {
    http.MalformedStreamError: errors.IncompleteStreamError,
    http.DeadlineError: errors.Timeout,
    http.ConnectError: errors.APIConnectionError,
    http.MalformedResponseError: errors.ResponseError,
    TransportError: errors.BadRequestError,
}


def fault_class(fault: TransportError, wire: Wire) -> type[errors.ProviderError]:
    """Return the class of error for a fault of the transport."""
    if isinstance(fault, http.BrokenConnectionError):
        return errors.IncompleteStreamError if wire.status is not None else errors.APIConnectionError
    return next(kind for known, kind in _BY_FAULT.items() if isinstance(fault, known))


def fault_text(fault: TransportError, wire: Wire) -> str:
    """Return in one line what went wrong on the way."""
    if isinstance(fault, http.BrokenConnectionError) and wire.status is not None:
        return f"the connection to {wire.origin} broke in the middle of the answer"
    if isinstance(fault, http.ConnectError | http.BrokenConnectionError):
        return f"no connection to {wire.origin}: {fault}"
    return str(fault)


def _kind(error: Exception, wire: Wire) -> type[errors.ProviderError]:
    """Return the class of error: by the wire first, then the chain of causes, then LiteLLM's own class."""
    named = CLASSES.get(type(error).__name__, errors.APIError)
    if wire.fault is not None and not isinstance(wire.fault, http.StreamedRefusalError):
        return fault_class(wire.fault, wire)
    status = _status(error, wire)
    if status is not None:
        if status in {400, 413, 422}:
            return named if issubclass(named, _REFINED) else refusals.refined(wire) or class_of(status)
        return class_of(status)
    names = {name for link in _chain(error) for cls in type(link).__mro__ for name in [cls.__name__]}
    if names & _TIMEOUT_NAMES:
        return errors.Timeout
    if names & _CONNECTION_NAMES:
        return errors.IncompleteStreamError if wire.status is not None else errors.APIConnectionError
    if "LLM Provider NOT provided" in str(error):
        return errors.UnknownProviderError
    if wire.status is not None and (_UNREAD in str(error) or not issubclass(named, errors.BadRequestError)):
        return errors.ResponseError  # a status of success, and LiteLLM could not read the answer
    return named


def class_of(status: int) -> type[errors.ProviderError]:
    """Return the class of error for an HTTP status."""
    usual = errors.InternalServerError if status >= 500 else _BY_TEN.get(status // 10, errors.APIError)  # noqa: PLR2004
    return _BY_STATUS.get(status, usual)


def _status(error: Exception, wire: Wire) -> int | None:
    """Return the status the provider answered with, even if LiteLLM used a connection of its own."""
    if (refusal := refusals.refusal_of(wire)) is not None:
        return refusals.status_of(refusal)
    if wire.failed_status is not None or wire.requests:
        return wire.failed_status
    refused = (link for link in _chain(error) if any(cls.__name__ == "HTTPStatusError" for cls in type(link).__mro__))
    return next((int(link.response.status_code) for link in refused if hasattr(link, "response")), None)


def may_not_be_paid(wire: Wire) -> bool:
    """Return whether an attempt cannot have been billed: it was refused, or never reached anybody."""
    return (
        wire.failed_status is not None
        or isinstance(wire.fault, http.ConnectError)
        or (wire.requests > 0 and not wire.is_open)
        or refusals.refusal_of(wire) is not None
    )


def has_connected(error: BaseException) -> bool:
    """Return whether a connection that LiteLLM made with a client of its own was there, and broke."""
    names = {type(link).__name__ for link in _chain(error)}
    return bool(names & _BROKEN) and not names & _NEVER_MADE


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and everything that led to it."""
    seen: set[int] = set()
    pending = [error]
    while pending:
        link = pending.pop()
        if link is not None and id(link) not in seen:
            seen.add(id(link))
            yield link
            pending += [link.__cause__, link.__context__, getattr(link, "original_exception", None)]


def secrets_of(request: Request) -> list[str]:
    """Return the key and all other secrets of a request, and those of the environment, which LiteLLM may have sent."""
    around = [value for name, value in os.environ.items() if NAMES.search(name)]
    return [request.api_key or "", *secrets_in(dict(request.params)), *secrets_in(request.api_base), *around]


def _text(error: Exception, kind: type[errors.ProviderError], request: Request, wire: Wire) -> str:
    """Return what happened in one line, without secrets, in the provider's words if it has some."""
    if wire.redirects_to:
        return (
            f"{wire.origin} redirects to {wire.redirects_to}, which is not followed; "
            "use that address where it is the right one"
        )
    if wire.fault is not None and not isinstance(wire.fault, http.StreamedRefusalError):
        return redact(fault_text(wire.fault, wire), *secrets_of(request))
    if (lost := lost_package(error)) and request.model.startswith("vertex_ai"):
        return f"Vertex needs Google's packages ({lost}): pip install 'litellm[google]'"
    text = _body_text(wire) or _said(error, wire)
    text = _SUFFIX.sub("", text)
    while (shorter := _PREFIX.sub("", text)) != text:
        text = shorter
    text = " ".join(text.split()) or type(error).__name__
    if kind is errors.ResponseError:
        shown = " ".join(b"".join(wire.parts).decode("utf-8", "replace").split()) or text
        text = f"the answer cannot be read: {shown[:_SHOWN_BODY]}"
    return redact(text, *secrets_of(request))[:600]


_SHOWN_BODY = 300


def lost_package(error: Exception) -> str:
    """Return the package that could not be imported, or "" if that is not what went wrong."""
    names = [link.name for link in _chain(error) if isinstance(link, ModuleNotFoundError) and link.name]
    return names[0] if names else ""


def _said(error: Exception, wire: Wire) -> str:
    """Return what a library, or the body of a refusal without a message, says."""
    if not isinstance(error, RefusedError):
        return str(getattr(error, "message", "") or error)
    return b"".join(wire.parts).decode("utf-8", "replace") or f"status {wire.status}"


def _body_text(wire: Wire) -> str:
    """Return the provider's message in a refusal, or "" if it has none or was not read."""
    body = refusals.refusal_of(wire)
    if body is None and wire.failed_status is not None:
        body = wire.data
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message") if isinstance(error, dict) else error
    code = error.get("code") if isinstance(error, dict) else None
    text = message if isinstance(message, str) else ""
    return f"{text} [{code}]" if text and isinstance(code, str) and code not in text else text


def _headers(error: Exception, wire: Wire) -> Mapping[str, str]:
    if wire.failed_status is not None:
        return wire.headers
    headers: Any = getattr(error, "litellm_response_headers", None)
    return headers or {}


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds in `retry-after-ms` or `retry-after` (seconds or a date), or None if neither is set."""
    try:
        return max(0.0, float(headers["retry-after-ms"]) / 1000)
    except (KeyError, ValueError):
        pass
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
        when = when if when.tzinfo else when.replace(tzinfo=timezone.utc)
        return max(0.0, (when - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, OverflowError):
        return None
