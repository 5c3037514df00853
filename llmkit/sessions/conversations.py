"""What a conversation of `ApiBackend` is made of: its messages, one request on its way, its length and its title."""

from __future__ import annotations

import contextlib
import sys
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from llmkit.core.tool_loop import answer
from llmkit.errors import InvalidRequestError, UnknownSessionError
from llmkit.sessions.run import details_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmkit.core.tool_loop import Turn
    from llmkit.core.types import Flow, Message, Reply, Usage
    from llmkit.presets import Preset

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
        stored: how many of its messages the store has.
    """

    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    title: str | None = None
    messages: list[Message] = field(default_factory=list)
    preset: str | None = None
    stored: int = 0


class Shelf:
    """Where conversations are kept: in this process, and in the store where that is wanted."""

    def __init__(self) -> None:
        self._here: dict[str, Conversation] = {}

    def put(self, conversation: Conversation) -> None:
        """Keep a conversation in this process."""
        self._here[conversation.id] = conversation

    def find(self, conversation_id: str, url: str | None, *, stored: bool) -> Conversation:
        """Return a conversation.

        Raises:
            InvalidRequestError: there is none with this id.
            StoreError: the store cannot be read.
        """
        if conversation_id in self._here:
            return self._here[conversation_id]
        if stored:
            from llmkit.store import opened

            with contextlib.suppress(UnknownSessionError):
                info = opened(url).session(conversation_id)
                said: list[Message] = list(opened(url).messages(conversation_id))
                self.put(Conversation(info.id, info.title, said, info.preset or None, stored=len(said)))
                return self._here[conversation_id]
        raise InvalidRequestError(f"there is no conversation {conversation_id!r}")

    def listed(self, url: str | None, *, stored: bool) -> list[Conversation]:
        """Return all conversations, newest first."""
        if stored:
            from llmkit.store import opened

            for info in reversed(opened(url).sessions()):
                self.find(info.id, url, stored=True)
        return list(reversed(self._here.values()))

    def drop(self, conversation: Conversation, url: str | None) -> None:
        """Forget a conversation, in the store too."""
        del self._here[conversation.id]
        if conversation.stored:
            from llmkit.store import opened

            opened(url).delete(conversation.id)

    def store(self, conversation: Conversation, preset: Preset, reply: Reply, url: str | None) -> list[str]:
        """Write to the store what a conversation has and it has not; return the keys of secrets that are left out."""
        from llmkit.store import opened

        store = opened(url)
        lost: list[str] = []
        if not conversation.stored:
            snapshot, lost = preset.snapshot()
            store.create(conversation.id, preset=preset.name, version=preset.version, snapshot=snapshot)
        new = conversation.messages[conversation.stored :]
        answer = reply.messages
        store.record(conversation.id, new[: len(new) - len(answer)], answer, details_of(reply))
        if conversation.title is not None:
            store.rename(conversation.id, conversation.title)
        conversation.stored = len(conversation.messages)
        return lost


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
        activate: the preset that is in use from now on, where it can be.
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
    activate: Preset | None = None
    text: str = ""
    turn: Turn | None = None

    def kept(self) -> Preset:
        """Return the preset as it is kept with the conversation."""
        from llmkit.presets import Preset

        said = {"model": self.model, "system": self.system[0]["content"] if self.system else None}
        return (self.preset or Preset()).changed(**said)


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


def emitter(wanted: Mapping[str, Any], *, streaming: bool) -> Callable[[str], Any] | None:
    """Return who gets the pieces of a stream; None where the answer comes whole."""
    callback = wanted.get("stream_callback")
    if not (streaming or wanted.get("stream") or wanted.get("print_stream") or callback):
        return None
    if callback is not None:
        if not callable(callback):
            raise InvalidRequestError(f"stream_callback must be a function, not {callback!r}")
        emit: Callable[[str], Any] = callback
        return emit
    return print_piece if streaming or wanted.get("print_stream") else _nothing


def print_piece(text: str) -> None:
    """Print a piece of an answer as it comes."""
    sys.stdout.write(text)
    sys.stdout.flush()


def _nothing(_: str) -> None:
    pass
