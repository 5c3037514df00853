"""What a session returns: the reply to a run, whole or in pieces, its settings, and a rerun."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmkit.core.types import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.core.types import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatReply:
    """The outcome of a run; a run never raises.

    Attributes:
        error: whether it failed.
        error_log: why, or None if it did not.
        exception: the error itself.
        reply: the whole `Reply`, or None after an error.
        partial: what had arrived of a streamed answer before an error.
        detail: `name`, `model`, `version`, `version_uuid` of the preset, and `log_uuid` of this run.
        warnings: what went wrong without spoiling the answer, one sentence each.
    """

    error: bool
    error_log: str | None = None
    exception: Exception | None = None
    reply: Reply | None = None
    partial: str = ""
    detail: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def content(self) -> str | None:
        """The text of the answer, or None after an error or if the model only calls a function."""
        return (self.reply.text or None) if self.reply is not None else None

    @property
    def raw_output(self) -> str | None:
        """The same as `content`."""
        return self.content

    @property
    def function_call(self) -> dict[str, Any] | None:
        """The function the model calls: `name`, `args` (None if they are not JSON), `arguments` as they came."""
        called = self.message.get("function_call")
        if called is None:
            calls = self.message.get("tool_calls") or ()
            called = calls[0]["function"] if calls else None
        if called is None:
            return None
        return {"name": called["name"], "args": _object(called["arguments"]), "arguments": called["arguments"]}

    @property
    def tool_calls(self) -> Sequence[Mapping[str, Any]]:
        """The complete tool calls: `id`, `type`, `function` with `name` and `arguments` as they came."""
        calls: Sequence[Mapping[str, Any]] = self.message.get("tool_calls") or ()
        return calls

    @property
    def message(self) -> Mapping[str, Any]:
        """The whole message of the assistant, OpenAI-style; empty after an error."""
        return self.reply.messages[-1] if self.reply is not None and self.reply.messages else {}

    @property
    def usage(self) -> Usage:
        """Tokens and price."""
        return self.reply.usage if self.reply is not None else Usage()

    @property
    def latency_s(self) -> float:
        """Seconds from sending the request to the end of the answer."""
        return self.reply.latency_s if self.reply is not None else 0.0

    @property
    def finish_reason(self) -> str | None:
        """Why the answer ended."""
        return self.reply.finish_reason if self.reply is not None else None

    @property
    def parsed(self) -> Any:
        """The object that `schema=` requested."""
        return self.reply.parsed if self.reply is not None else None

    @property
    def api_response(self) -> Any:
        """The provider's answer as decoded JSON."""
        return self.reply.raw if self.reply is not None else None

    def __str__(self) -> str:
        """Return the text of the answer, or the error if there is none."""
        return self.error_log or "" if self.error else self.content or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatPiece:
    """One item of a streamed run.

    Attributes:
        content: new text, or "" in items that carry none.
        tool_calls: OpenAI-style deltas of tool calls.
        log_uuid: the same in all items of a run.
        whole: the `ChatReply` of the run, in the last item only.
    """

    content: str = ""
    tool_calls: Sequence[Any] = ()
    log_uuid: str = ""
    whole: ChatReply | None = None

    @property
    def error(self) -> bool:
        """Whether the run failed; known with the last item."""
        return self.whole is not None and self.whole.error

    @property
    def error_log(self) -> str | None:
        """Why it failed."""
        return self.whole.error_log if self.whole is not None else None

    @property
    def exception(self) -> Exception | None:
        """The error itself."""
        return self.whole.exception if self.whole is not None else None

    @property
    def message(self) -> Mapping[str, Any] | None:
        """The complete message of the assistant, in the last item."""
        return self.whole.message if self.whole is not None else None

    @property
    def function_call(self) -> dict[str, Any] | None:
        """The complete call of a function, in the last item."""
        return self.whole.function_call if self.whole is not None else None

    @property
    def usage(self) -> Usage | None:
        """Tokens and price, in the last item."""
        return self.whole.usage if self.whole is not None else None

    @property
    def latency_s(self) -> float | None:
        """Seconds from sending the request to the end of the answer, in the last item."""
        return self.whole.latency_s if self.whole is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatModelConfig:
    """The settings and messages of a session.

    Attributes:
        name: the preset's name.
        model: LiteLLM's `provider/model`.
        system_prompt: the system message, or "" if there is none.
        version: the preset's version, or None if it has none; `version_uuid` identifies exactly this content of it.
        version_detail: `model`, `uuid`, `version` and `name` in one mapping.
        message_logs: the messages, without the system message; an answer that was cut has `"interrupted": True`.
    """

    name: str
    model: str
    system_prompt: str
    version: int | None
    version_uuid: str
    version_detail: dict[str, Any]
    message_logs: list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rerun:
    """A session answered again by another preset.

    Attributes:
        session: the fork with the new answers.
        cost_before: the cost of the answers in the first session in US dollars, or None if it is not known.
        cost: the cost of those in the fork.
        error_log: why it ended early, or None if it did not.
    """

    session: Any
    cost_before: float | None
    cost: float | None
    error_log: str | None


def _object(arguments: Any) -> Any:
    try:
        return json.loads(arguments or "{}")
    except (TypeError, ValueError):
        return None
