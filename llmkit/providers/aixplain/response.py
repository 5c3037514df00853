"""What `LLM` gives back: a `ModelResponse`, whatever happened, and the chunks of a stream."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
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
    """How far a run is: the one status type of run, run_async, poll and streams."""

    IN_PROGRESS = "IN_PROGRESS"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"

    def __str__(self) -> str:
        """Return the value, as in JSON."""
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelResponse:
    """What became of a run. A failure is one too; `response["data"]`, `"data" in response` and `get` work as on a dict.

    Attributes:
        status: SUCCESS, FAILED or IN_PROGRESS.
        data: the text of the answer; after a failure what had arrived of it.
        completed: whether nothing more will come.
        error_message: why it failed and what to do, or "" if it did not.
        error_code: the kind of the failure: "authentication", "billing", "rate_limit", "timeout", "cancelled", …
        status_code: the HTTP status of a failure, or None if there was none.
        retryable: whether the same run can succeed another time.
        cause: the error itself, where it happened in this process.
        usage: tokens and price.
        used_credits: the price in US dollars, or in the remote service's credits, or None if it is not known.
        run_time: seconds.
        finish_reason: "stop", "length", "tool_calls", …; `truncated` says whether it is "length".
        url: what `poll` takes, or "" if there is no job.
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
        """Return an attribute by its name, or the name it has in the JSON of such services (`usedCredits`)."""
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
        """Return it as JSON can have it; the cause is left out, its message is in `error_message`."""
        found = {name: self[name] for name in _NAMES if name != "cause"}
        usage = None if self.usage is None else asdict(self.usage)
        return found | {"status": self.status.value, "usage": usage, "warnings": list(self.warnings)}


_NAMES = tuple(each.name for each in fields(ModelResponse))


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamChunk:
    """A piece of a streamed run.

    Attributes:
        status: IN_PROGRESS; of the last one SUCCESS or FAILED.
        data: text, or "" if the piece has none.
        finish_reason: why the answer ended, where this piece says so.
        error_message: why the run failed.
    """

    status: ResponseStatus = ResponseStatus.IN_PROGRESS
    data: str = ""
    finish_reason: str | None = None
    error_message: str = ""


def from_dict(found: Mapping[str, Any]) -> ModelResponse:
    """Return what `to_dict` was made of."""
    known = {name: found[name] for name in _NAMES if name in found}
    usage = found.get("usage")
    return ModelResponse(
        **known
        | {
            "status": ResponseStatus(found["status"]),
            "usage": None if usage is None else Usage(**usage),
            "warnings": tuple(found.get("warnings") or ()),
        }
    )


def of_reply(reply: Reply, run_time: float) -> ModelResponse:
    """Return what a reply is as the response of a run."""
    return ModelResponse(
        status=ResponseStatus.SUCCESS,
        data=reply.text,
        usage=reply.usage,
        used_credits=reply.usage.cost_usd,
        run_time=run_time,
        finish_reason=reply.finish_reason,
        details=[_choice(choice) for choice in reply.choices],
        warnings=reply.warnings,
    )


def of_error(error: BaseException, run_time: float, *, url: str = "") -> ModelResponse:
    """Return what an error is as the response of a run."""
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
    """Return a failure that no error tells."""
    return ModelResponse(
        status=ResponseStatus.FAILED,
        error_code=code,
        error_message=message,
        url=url,
        run_time=run_time,
        completed=completed,
    )


def at(url: str, response: ModelResponse) -> ModelResponse:
    """Return the response with the address of its job."""
    return replace(response, url=url)


def _choice(choice: Any) -> dict[str, Any]:
    dump = getattr(choice, "model_dump", None)
    if dump is not None:
        found: dict[str, Any] = dump(exclude_none=True)
        return found
    message = getattr(choice, "message", None)
    return {
        "index": getattr(choice, "index", 0),
        "message": {"role": "assistant", "content": getattr(message, "content", None)},
        "finish_reason": getattr(choice, "finish_reason", None),
    }
