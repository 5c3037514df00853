"""What a conversation of `ApiBackend` is made of: its messages, one request on its way, its length and its title."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from llmkit._turn import answer
from llmkit.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmkit._turn import Turn
    from llmkit.presets import Preset
    from llmkit.types import Flow, Message, Usage

OVERRIDES = (
    "system_message",
    "preset",
    "activate_preset",
    "preset_overrides",
    "title",
    "stream",
    "print_stream",
    "stream_callback",
    "files",
)
"""What `request_overrides` may say."""
_TITLE = "Give this conversation a title of at most six words. Answer with the title only."
_LONGEST_TITLE = 80


class Answer(NamedTuple):
    """What became of a request.

    Attributes:
        success: whether there is an answer.
        response: its text; the parsed object where the preset has a schema, the calls where a tool is to be called by
            the program. None, or the text that had arrived, where there is no answer.
        message: who answered, or why there is no answer and what to do.
    """

    success: bool
    response: Any
    message: str


@dataclass
class Conversation:
    """A conversation in memory.

    Attributes:
        id: what `switch_to_conversation` knows it by.
        title: None until it has one.
        messages: OpenAI-style, without the system message.
        preset: the preset that was active when it was left; None for the default one.
    """

    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    title: str | None = None
    messages: list[Message] = field(default_factory=list)
    preset: str | None = None


@dataclass(frozen=True, slots=True)
class BackendUsage:
    """Tokens and price of the last call, and of all calls of a backend."""

    last: Usage
    total: Usage


@dataclass
class Asked:
    """One request on its way.

    Attributes:
        said: the new messages.
        history: the messages before them.
        preset: what it is asked with, its variables put in.
        model: who is asked.
        system: the system message, or nothing.
        limit: how many tokens are sent at the most.
        title: the title that the conversation gets.
        emit: who gets the pieces; None where the answer comes whole.
        conversation: where the answer is kept.
        text: what has arrived of a stream.
        turn: what is sent, once that is known.
    """

    said: Sequence[Message]
    history: Sequence[Message]
    preset: Preset | None
    model: str
    system: Sequence[Message]
    limit: int | None
    title: str | None
    emit: Callable[[str], Any] | None
    conversation: Conversation
    text: str = ""
    turn: Turn | None = None


def ready(turn: Turn) -> Flow[Turn]:
    """Return a turn that needs no preparation."""
    yield from ()
    return turn


def titled(turn: Turn, said: Sequence[Message]) -> Flow[str]:
    """Ask the model in use, and no other, for a title."""
    asked = replace(turn, messages=[*said, {"role": "user", "content": _TITLE}], schema=None)
    asked = replace(asked, toolbox=type(turn.toolbox)((), {}))
    reply = yield from answer(asked)
    return reply.text.strip().strip('"').splitlines()[0][:_LONGEST_TITLE] if reply.text.strip() else ""


def checked(overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return *overrides*, or raise an InvalidRequestError that names the unknown one."""
    for name in overrides:
        if name not in OVERRIDES:
            from llmkit.presets import near

            raise InvalidRequestError(f"unknown request override {name!r}; {near(str(name), list(OVERRIDES))}")
    return overrides
