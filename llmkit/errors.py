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

Names follow LiteLLM and the OpenAI SDK. A ProviderError is a ValueError too: users of llmax catch that.
"""


class LlmkitError(Exception):
    """The base of every error raised by llmkit; `str(error)` says what happened.

    Attributes:
        code, advice: the kind of error in a word, and what to do about it, or "" if the message says so.
        answer: the response of `llmkit serve`: HTTP status, code and message, or "" for the error's own message.
        sent, may_be_paid: whether a connection to a provider was tried, and whether the provider may bill the attempt.
    """

    code = "error"
    advice = ""
    answer = (500, "configuration", "the server is not set up for this")
    sent, may_be_paid = False, False


class InvalidRequestError(LlmkitError, ValueError):
    """The arguments cannot be sent; no request was made."""

    code = "validation"
    answer = (400, "", "")


class ConfigError(LlmkitError, ValueError):
    """A setting or a configuration file is wrong; the message names it."""

    code = "configuration"


class PresetError(ConfigError):
    """A preset file is wrong; the message names file, line and key."""


class UnknownPresetError(PresetError, KeyError):
    """No preset has this name; the message suggests similar ones."""

    __str__ = Exception.__str__  # KeyError would put the message in quotation marks


class BudgetExceededError(LlmkitError):
    """A limit refuses the call; no request was made.

    Attributes:
        name: the budget's name, or "" for a client's own limit.
        limit, spent: the limit in US dollars, or None if a callback refused without naming one, and what is spent.
        reserved, asked: what calls under way may still spend of it, and what this call could cost at most.
        frees_at: when the budget resets, in seconds since 1970, or None if it never does.
    """

    code = "budget"
    advice = "raise the limit, or wait"
    answer = (429, "budget_exceeded", "")

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
        self.limit, self.spent, self.reserved, self.asked = limit, spent, reserved, asked
        self.name, self.frees_at = name, frees_at


class StoreError(LlmkitError):
    """The store of sessions cannot be opened, read or written."""

    code = "store"
    answer = (503, "store_unavailable", "the server cannot reach its store")


class UnknownSessionError(StoreError, KeyError):
    """No session has this id."""

    __str__ = Exception.__str__  # KeyError would put the message in quotation marks


class SessionBusyError(StoreError):
    """Another run of this session is under way, in this process or another."""

    advice = "try again when it has ended"


class LocalModelError(LlmkitError):
    """The embedded model cannot be fetched, read or started."""

    answer = (503, "model_unavailable", "the model cannot be started")


class ProviderError(LlmkitError, ValueError):
    """The provider refused or failed; the original error is `__cause__`.

    Attributes:
        status_code: HTTP status of the provider's answer, or None if there was no answer.
        provider, model: LiteLLM's name of the provider, or "" if unknown, and the model of the request.
        retryable: whether the same request can succeed if it is sent again.
        partial: text that had arrived before the failure; "" outside of streams.
        retry_after_s, elapsed_s: seconds the provider asked to wait (None: it did not say), and the attempt took.
    """

    code = "provider"
    answer = (502, "upstream_failed", "the provider failed")
    status_code: int | None = None
    retryable: bool = False
    sent = True

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
        super().__init__(message)
        self.status_code = self.status_code if status_code is None else status_code
        self.retryable = self.retryable if retryable is None else retryable
        self.provider, self.model, self.partial = provider, model, partial
        self.retry_after_s, self.elapsed_s = retry_after_s, elapsed_s

    def __reduce__(self) -> tuple[object, ...]:
        """Make the error survive pickling, as process pools need."""
        return (type(self), (str(self),), self.__dict__)


class BadRequestError(ProviderError):
    """The provider says that the request is wrong (400)."""

    code = "validation"
    status_code: int | None = 400
    answer = (400, "upstream_refused", "")


class ContextWindowExceededError(BadRequestError):
    """The messages and the answer do not fit the model's context window."""

    code = "context_window"
    advice = "send less, or choose a model with a larger window"
    answer = (400, "context_length_exceeded", "")


class ContentPolicyViolationError(BadRequestError):
    """The provider's content policy refused the request."""

    code = "content_policy"
    advice = "ask in other words, or another model"
    answer = (400, "content_filter", "")


class UnsupportedParamsError(BadRequestError):
    """This provider or model does not accept one of the parameters."""

    advice = "leave the parameter out, or pass drop_params=True"
    answer = (400, "unsupported_parameter", "the model does not take these parameters")


class UnknownProviderError(BadRequestError):
    """The model string names no provider that LiteLLM knows."""

    status_code = None
    answer = (500, "configuration", "the server is not set up for this model")


class AuthenticationError(ProviderError):
    """The key is missing or wrong (401)."""

    code = "authentication"
    advice = "set or mend the key"
    status_code = 401
    answer = (502, "upstream_refused_key", "the provider refused the server's key")


class PaymentRequiredError(ProviderError):
    """The provider wants to be paid first (402)."""

    code = "billing"
    advice = "pay the provider"
    status_code = 402
    answer = (502, "upstream_refused_key", "the provider wants to be paid first")


class PermissionDeniedError(ProviderError):
    """The key may not do this (403)."""

    code = "permission"
    advice = "ask the provider for access"
    status_code = 403
    answer = (502, "upstream_refused_key", "the provider refused the server's key")


class NotFoundError(ProviderError):
    """No such model, deployment or address (404)."""

    code = "not_found"
    advice = "check the model's name and the address"
    status_code = 404
    answer = (404, "upstream_not_found", "the provider does not have the model")


class ConflictError(ProviderError):
    """The provider reports a conflict, usually a passing one (409)."""

    code = "conflict"
    status_code = 409
    retryable = True


class UnprocessableEntityError(ProviderError):
    """The provider understood the request and cannot do it (422)."""

    code = "validation"
    status_code = 422
    answer = (400, "upstream_refused", "")


class RateLimitError(ProviderError):
    """Too many requests for now (429)."""

    code = "rate_limit"
    advice = "wait, or try more often with a delay"
    status_code = 429
    retryable = True
    answer = (429, "rate_limit_exceeded", "the provider takes no more requests for now")


class QuotaExceededError(RateLimitError):
    """The account's quota or credit is used up (429); waiting does not help."""

    advice = "raise the quota or the credit"
    retryable = False
    answer = (429, "insufficient_quota", "the provider's quota is used up")


class Timeout(ProviderError, TimeoutError):  # noqa: N818 - LiteLLM's and OpenAI's users know this name
    """No answer arrived in time (408, or a client-side limit)."""

    code = "timeout"
    may_be_paid = True
    advice = "try again, or give it more time with timeout"
    status_code = 408
    retryable = True
    answer = (504, "upstream_timeout", "the provider did not answer in time")


class APIConnectionError(ProviderError):
    """The connection was refused, could not be made, or broke before an answer."""

    code = "connection"
    advice = "check the network and the address"
    retryable = True
    answer = (502, "upstream_failed", "the provider cannot be reached")


class IncompleteStreamError(APIConnectionError):
    """A streamed answer stopped before its end; `partial` has the text that came."""

    may_be_paid = True
    advice = "ask again; the text so far is kept"
    answer = (502, "upstream_failed", "the provider broke off in the middle of the answer")


class InternalServerError(ProviderError):
    """The provider failed (5xx)."""

    code = "server"
    advice = "try again later, or choose another model"
    status_code = 500
    retryable = True


class BadGatewayError(InternalServerError):
    """A gateway before the provider failed (502)."""

    status_code = 502


class ServiceUnavailableError(InternalServerError):
    """The provider is overloaded or down (503)."""

    status_code = 503
    answer = (503, "upstream_unavailable", "the provider is not available")


class ResponseError(ProviderError):
    """The provider's answer cannot be read or does not have the promised shape."""

    may_be_paid = True


class SchemaError(ResponseError):
    """The second answer does not fit the schema either; `partial` has its text."""

    answer = (502, "schema_mismatch", "the answer does not fit the schema")


class APIError(ProviderError):
    """The provider reported something that has no class of its own."""


def explain(error: BaseException) -> str:
    """Return what happened and what to do about it, in a line: "reason; advice"."""
    return "; ".join(filter(None, (str(error) or type(error).__name__, getattr(error, "advice", ""))))
