"""What `LLM` returns: a `ModelResponse`, whatever happened, and the chunks of a stream."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import TYPE_CHECKING, Any

from llmkit import errors
from llmkit.core.types import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmkit.core.types import Reply

_ALIASES = {
    "usedCredits": "used_credits",
    "runTime": "run_time",
    "errorMessage": "error_message",
    "finishReason": "finish_reason",
}


class ResponseStatus(str, Enum):
    """The status of a run: the one status type of run, run_async, poll and streams."""

    IN_PROGRESS = "IN_PROGRESS"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"

    def __str__(self) -> str:
        """Return the value, as in JSON."""
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelResponse:
    """The outcome of a run, also of a failed one; `response["data"]`, `"data" in response` and `get` work as on a dict.

    Attributes:
        status: SUCCESS, FAILED or IN_PROGRESS.
        data: the text of the answer; after a failure, what had arrived of it.
        completed: whether nothing more will come.
        error_message: why it failed and what to do, or "" if it did not.
        error_code: the kind of the failure: "authentication", "billing", "rate_limit", "timeout", "cancelled", …
        status_code: the HTTP status of a failure, or None if there was none.
        retryable: whether the same run can succeed another time.
        cause: the error itself, if it happened in this process.
        usage: tokens and price.
        used_credits: the price in US dollars, or in the remote service's credits, or None if it is not known.
        run_time: seconds.
        finish_reason: "stop", "length", "tool_calls", …; `truncated` says whether it is "length".
        url: the address for `poll`, or "" if the run cannot be polled.
        details: OpenAI-style choices.
        warnings: what went wrong without spoiling the answer, one sentence each.
    """

    status: ResponseStatus
    data: str = ""
    completed: bool = True
    error_message: str = ""
    error_code: str = ""
    status_code: int | None = None
    retryable: bool = False
    cause: BaseException | None = field(default=None, compare=False)
    usage: Usage | None = None
    used_credits: float | None = None
    run_time: float = 0.0
    finish_reason: str | None = None
    url: str = ""
    details: list[dict[str, Any]] = field(default_factory=list)
    warnings: tuple[str, ...] = ()

    @property
    def truncated(self) -> bool:
        """Whether the answer was cut at its length limit."""
        return self.finish_reason == "length"

    def __getitem__(self, key: str) -> Any:
        """Return an attribute by its name, or by its name in the JSON of such services (`usedCredits`)."""
        name = _ALIASES.get(key, key)
        if name not in _NAMES:
            raise KeyError(key)
        return getattr(self, name)

    def get(self, key: str, default: Any = None) -> Any:
        """Return an attribute by its name, or a default."""
        return self[key] if key in self else default  # noqa: SIM401 - this is that `get`

    def __contains__(self, key: object) -> bool:
        """Return whether there is an attribute of this name."""
        return isinstance(key, str) and _ALIASES.get(key, key) in _NAMES

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the attributes."""
        return iter(_NAMES)

    def keys(self) -> tuple[str, ...]:
        """Return the names of the attributes, so that `dict(response)` works."""
        return _NAMES

    def __str__(self) -> str:
        """Return the text of the answer."""
        return self.data

    def to_dict(self) -> dict[str, Any]:
        """Return a dict for JSON; the cause is left out, its message is in `error_message`."""
        values = {name: self[name] for name in _NAMES if name != "cause"}
        usage = None if self.usage is None else asdict(self.usage)
        return values | {"status": self.status.value, "usage": usage, "warnings": list(self.warnings)}


_NAMES = tuple(field.name for field in fields(ModelResponse))


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamChunk:
    """One chunk of a streamed run.

    Attributes:
        status: IN_PROGRESS; SUCCESS or FAILED in the last chunk.
        data: text, or "" if the chunk has none.
        finish_reason: why the answer ended, in the chunk that ends it.
        error_message: why the run failed.
    """

    status: ResponseStatus = ResponseStatus.IN_PROGRESS
    data: str = ""
    finish_reason: str | None = None
    error_message: str = ""


def from_dict(stored: Mapping[str, Any]) -> ModelResponse:
    """Return the response that `to_dict` was called on."""
    known = {name: stored[name] for name in _NAMES if name in stored}
    usage = stored.get("usage")
    return ModelResponse(
        **known
        | {
            "status": ResponseStatus(stored["status"]),
            "usage": None if usage is None else Usage(**usage),
            "warnings": tuple(stored.get("warnings") or ()),
        }
    )


def of_reply(reply: Reply, run_time: float) -> ModelResponse:
    """Return a reply as the response of a run."""
    return ModelResponse(
        status=ResponseStatus.SUCCESS,
        data=reply.text,
        usage=reply.usage,
        used_credits=reply.usage.cost_usd,
        run_time=run_time,
        finish_reason=reply.finish_reason,
        details=[choice.model_dump(exclude_none=True) for choice in reply.choices],
        warnings=reply.warnings,
    )


def of_error(error: BaseException, run_time: float, *, url: str = "") -> ModelResponse:
    """Return an error as the response of a run."""
    return ModelResponse(
        status=ResponseStatus.FAILED,
        data=getattr(error, "partial", ""),
        error_message=errors.explain(error),
        error_code=_code_of(error),
        status_code=getattr(error, "status_code", None),
        retryable=bool(getattr(error, "retryable", False)),
        cause=error,
        run_time=run_time,
        url=url,
    )


def _code_of(error: BaseException) -> str:
    if isinstance(error, errors.LlmkitError):
        return error.code
    return "timeout" if isinstance(error, TimeoutError) else errors.LlmkitError.code


def failed(code: str, message: str, *, url: str = "", run_time: float = 0.0, completed: bool = True) -> ModelResponse:
    """Return a failed response for a failure without an exception."""
    return ModelResponse(
        status=ResponseStatus.FAILED,
        error_code=code,
        error_message=message,
        url=url,
        run_time=run_time,
        completed=completed,
    )
