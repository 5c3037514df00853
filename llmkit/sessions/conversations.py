"""The conversations of `ApiBackend`: in memory, and in the store if that is configured."""

from __future__ import annotations

import contextlib
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmkit.errors import InvalidRequestError, UnknownSessionError
from llmkit.sessions.keeping import details_of
from llmkit.store import opened

if TYPE_CHECKING:
    from llmkit.core.types import Message, Reply
    from llmkit.presets import Preset


@dataclass
class Conversation:
    """A conversation in memory.

    Attributes:
        id: its id for `switch_to_conversation`.
        title: its title, or None until it has one.
        messages: OpenAI-style, without the system message.
        preset: the preset that was active when it was left, or None for the default one.
        stored: how many of its messages are in the store.
    """

    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    title: str | None = None
    messages: list[Message] = field(default_factory=list)
    preset: str | None = None
    stored: int = 0


class Conversations:
    """The conversations of one backend, in this process and in the store if that is configured."""

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
        is_name = isinstance(conversation_id, str)
        if is_name and conversation_id in self._here:
            return self._here[conversation_id]
        if is_name and stored:
            with contextlib.suppress(UnknownSessionError):
                info = opened(url).session(conversation_id)
                messages: list[Message] = list(opened(url).messages(conversation_id))
                self.put(Conversation(info.id, info.title, messages, info.preset or None, stored=len(messages)))
                return self._here[conversation_id]
        raise InvalidRequestError(f"there is no conversation {conversation_id!r}")

    def listed(self, url: str | None, *, stored: bool) -> list[Conversation]:
        """Return all conversations, newest first."""
        if stored:
            for info in reversed(opened(url).sessions()):
                self.find(info.id, url, stored=True)
        return list(reversed(self._here.values()))

    def drop(self, conversation: Conversation, url: str | None) -> None:
        """Delete a conversation, in the store too."""
        del self._here[conversation.id]
        if conversation.stored:
            opened(url).delete(conversation.id)

    def store(self, conversation: Conversation, preset: Preset, reply: Reply, url: str | None) -> list[str]:
        """Write what is new in a conversation to the store; return the keys of secrets that are left out."""
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
