"""Every error llmkit raises: one class for each thing the caller can do about it.

    LlmkitError
    ├── InvalidRequestError (also ValueError)    mend the arguments; nothing was sent
    ├── ConfigError (also ValueError)            mend the file or the setting that is named
    │   ├── PresetError                          mend the preset
    │   └── UnknownPresetError (also KeyError)   choose one of the presets that are named
    ├── BudgetExceededError                      raise the limit, or wait; nothing was sent
    ├── StoreError                               the store cannot be opened, read or written
    │   ├── UnknownSessionError (also KeyError)  no such session
    │   └── SessionBusyError                     another run of this session is under way
    ├── LocalModelError                          the embedded model cannot be fetched or started
    └── ProviderError (also ValueError)          the provider, or the way to it, failed
        ├── BadRequestError                      400: mend the request
        │   ├── ContextWindowExceededError       send less, or choose a model with a larger window
        │   ├── ContentPolicyViolationError      the provider refused the content
        │   ├── UnsupportedParamsError           leave the parameter out, or allow it to be dropped
        │   └── UnknownProviderError             no such provider or model prefix
        ├── AuthenticationError                  401: set or mend the key
        ├── PaymentRequiredError                 402: pay the provider
        ├── PermissionDeniedError                403: ask for access
        ├── NotFoundError                        404: no such model or address
        ├── UnprocessableEntityError             422: mend the request
        ├── RateLimitError                       429: wait (retryable)
        │   └── QuotaExceededError               429: waiting will not help; raise the quota
        ├── ConflictError                        409: try again (retryable)
        ├── Timeout (also TimeoutError)          no answer in time (retryable)
        ├── APIConnectionError                   no connection, or it broke (retryable)
        │   └── IncompleteStreamError            the answer stopped in the middle; see `partial`
        ├── InternalServerError                  500 and other 5xx: try again (retryable)
        │   ├── BadGatewayError                  502
        │   └── ServiceUnavailableError          503
        ├── ResponseError                        the provider answered something unreadable
        │   └── SchemaError                      the answer does not fit the schema; see `partial`
        └── APIError                             anything else the provider said

Names follow LiteLLM and the OpenAI SDK. Nothing in this module imports either: the one place that
translates their errors is `llmkit.providers.failures`. A ProviderError is a ValueError too, because that is
what the users of llmax catch when all tries are spent.
"""

from __future__ import annotations


class LlmkitError(Exception):
    """The base of every error raised by llmkit; `str(error)` says what happened, `advice` what to do.

    Attributes:
        sent: whether a connection to a provider was tried.
        may_be_paid: whether the provider may bill the attempt: it was sent, and nobody knows what became of it.
    """

    advice = ""
    sent: bool = False
    may_be_paid: bool = False


class InvalidRequestError(LlmkitError, ValueError):
    """The arguments cannot be sent; no request was made."""


class ConfigError(LlmkitError, ValueError):
    """A setting or a configuration file is wrong; the message names it."""


class PresetError(ConfigError):
    """A preset file is wrong; the message names file, line and key."""


class UnknownPresetError(PresetError, KeyError):
    """No preset has this name; the message names near ones."""

    __str__ = Exception.__str__  # KeyError would put the message in quotation marks


class BudgetExceededError(LlmkitError):
    """A limit forbids the call; no request was made.

    Attributes:
        limit: the limit in US dollars, None when a callback refused without naming one.
        spent: what is used of it.
        name: the budget's name, "" for a client's own limit.
        reserved: what calls that are under way may still use of it.
        asked: what this call could cost at the most.
        frees_at: when the budget begins anew, seconds since 1970; None when it never does.
    """

    advice = "raise the limit, or wait"

    def __init__(
        self,
        message: str,
        *,
        limit: float | None = None,
        spent: float | None = None,
        name: str = "",
        reserved: float = 0.0,
        asked: float | None = None,
        frees_at: float | None = None,
    ) -> None:
        super().__init__(message)
        self.limit = limit
        self.spent = spent
        self.name = name
        self.reserved = reserved
        self.asked = asked
        self.frees_at = frees_at


class StoreError(LlmkitError):
    """The store of sessions cannot be opened, read or written."""


class UnknownSessionError(StoreError, KeyError):
    """No session has this id."""

    __str__ = Exception.__str__  # KeyError would put the message in quotation marks


class SessionBusyError(StoreError):
    """Another run of this session is under way, in this process or another."""

    advice = "try again when it has ended"


class LocalModelError(LlmkitError):
    """The embedded model cannot be fetched, read or started."""


class ProviderError(LlmkitError, ValueError):
    """The provider refused or failed; the original error is `__cause__`.

    Attributes:
        status_code: HTTP status the provider answered with; None when there was no answer.
        provider: LiteLLM's name of the provider, "" when unknown.
        model: the model that was asked.
        retryable: whether the same request can succeed when it is sent again.
        retry_after_s: seconds the provider asked to wait, None when it did not say.
        partial: text that had arrived before the failure; "" outside of streams.
        elapsed_s: seconds the failed attempt took.
    """

    status: int | None = None
    retry_helps: bool = False
    sent: bool = True

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        provider: str = "",
        model: str = "",
        retryable: bool | None = None,
        retry_after_s: float | None = None,
        partial: str = "",
        elapsed_s: float = 0.0,
    ) -> None:
        """Build an error; what is not given is the usual value of the class."""
        super().__init__(message)
        self.status_code = self.status if status_code is None else status_code
        self.provider = provider
        self.model = model
        self.retryable = self.retry_helps if retryable is None else retryable
        self.retry_after_s = retry_after_s
        self.partial = partial
        self.elapsed_s = elapsed_s

    def __reduce__(self) -> tuple[object, ...]:
        """Make the error survive pickling, as process pools need."""
        return (type(self), (str(self),), self.__dict__)


class BadRequestError(ProviderError):
    """The provider says that the request is wrong (400)."""

    status: int | None = 400


class ContextWindowExceededError(BadRequestError):
    """The messages and the answer do not fit the model's context window."""

    advice = "send less, or choose a model with a larger window"


class ContentPolicyViolationError(BadRequestError):
    """The provider's content policy refused the request."""

    advice = "ask in other words, or another model"


class UnsupportedParamsError(BadRequestError):
    """This provider or model does not take one of the parameters."""

    advice = "leave the parameter out, or pass drop_params=True"


class UnknownProviderError(BadRequestError):
    """The model string names no provider that LiteLLM knows."""

    status = None


class AuthenticationError(ProviderError):
    """The key is missing or wrong (401)."""

    advice = "set or mend the key"
    status = 401


class PaymentRequiredError(ProviderError):
    """The provider wants to be paid first (402)."""

    advice = "pay the provider"
    status = 402


class PermissionDeniedError(ProviderError):
    """The key may not do this (403)."""

    advice = "ask the provider for access"
    status = 403


class NotFoundError(ProviderError):
    """No such model, deployment or address (404)."""

    advice = "check the model's name and the address"
    status = 404


class ConflictError(ProviderError):
    """The provider reports a conflict, usually a passing one (409)."""

    status = 409
    retry_helps = True


class UnprocessableEntityError(ProviderError):
    """The provider understood the request and cannot do it (422)."""

    status = 422


class RateLimitError(ProviderError):
    """Too many requests for now (429)."""

    advice = "wait, or try more often with a delay"
    status = 429
    retry_helps = True


class QuotaExceededError(RateLimitError):
    """The account's quota or credit is used up (429); waiting does not help."""

    advice = "raise the quota or the credit"
    retry_helps = False


class Timeout(ProviderError, TimeoutError):  # noqa: N818 - LiteLLM's and OpenAI's users know this name
    """No answer arrived in time (408, or a client-side limit)."""

    may_be_paid = True

    advice = "try again, or give it more time with timeout"
    status = 408
    retry_helps = True


class APIConnectionError(ProviderError):
    """The connection was refused, could not be made, or broke before an answer."""

    advice = "check the network and the address"
    retry_helps = True


class IncompleteStreamError(APIConnectionError):
    """A streamed answer stopped before its end; `partial` has the text that came."""

    may_be_paid = True

    advice = "ask again; the text so far is kept"


class InternalServerError(ProviderError):
    """The provider failed (5xx)."""

    advice = "try again later, or choose another model"
    status = 500
    retry_helps = True


class BadGatewayError(InternalServerError):
    """A gateway before the provider failed (502)."""

    status = 502


class ServiceUnavailableError(InternalServerError):
    """The provider is overloaded or down (503)."""

    status = 503


class ResponseError(ProviderError):
    """The provider's answer cannot be read or does not have the promised shape."""

    may_be_paid = True


class SchemaError(ResponseError):
    """The answer does not fit the schema, asked twice; `partial` has its text."""


class APIError(ProviderError):
    """The provider reported something that has no class of its own."""
