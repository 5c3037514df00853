"""The conversations of an `ApiBackend`: begin, continue, list, name and delete them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from llmkit import presets
from llmkit.errors import InvalidRequestError, LlmkitError
from llmkit.sessions.conversations import Conversation, Conversations
from llmkit.sessions.requests import Answer

if TYPE_CHECKING:
    from llmkit.config import Config
    from llmkit.presets import Preset


class ConversationShelf(ABC):
    """What an `ApiBackend` does with its conversations.

    Attributes:
        config: the settings.
        conversation: the current one.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.conversation = Conversation()
        self._conversations = Conversations()
        self._conversations.put(self.conversation)
        self._active: Preset | None = None

    @abstractmethod
    def _failed(self, error: Exception) -> Answer:
        """Return the answer that an error is."""

    def new_conversation(self) -> Answer:
        """Start a conversation without history."""
        self.conversation.preset = self._active.name if self._active else None
        self.conversation = Conversation()
        self._conversations.put(self.conversation)
        return Answer(True, self.conversation.id, "a new conversation")

    def switch_to_conversation(self, conversation_id: str) -> Answer:
        """Continue an earlier conversation, with the preset it had; if there is none, nothing changes."""
        try:
            conversation = self._find_conversation(conversation_id)
            preset = presets.load(conversation.preset) if conversation.preset else None
        except LlmkitError as error:
            return self._failed(error)
        self.conversation.preset = self._active.name if self._active else None
        self.conversation, self._active = conversation, preset
        return Answer(True, conversation.id, f"conversation of {len(conversation.messages)} messages")

    def get_conversation(self, conversation_id: str | None = None) -> Answer:
        """Return a conversation, by default the current one."""
        try:
            return Answer(True, self._find_conversation(conversation_id or self.conversation.id), "found")
        except LlmkitError as error:
            return self._failed(error)

    def get_history(self, limit: int | None = None, offset: int = 0) -> Answer:
        """Return conversations, newest first; with `backend.persist` also those in the store.

        Args:
            limit: how many at most; all if None.
            offset: how many of the newest to leave out.
        """
        try:
            for name, number in (("limit", limit), ("offset", offset)):
                if number is not None and not isinstance(number, int):
                    raise InvalidRequestError(f"{name} must be a whole number, not {number!r:.80}")
            found = self._conversations.listed(self._url, stored=self._persists)
        except LlmkitError as error:
            return self._failed(error)
        return Answer(True, found[offset:][:limit], "found")

    @property
    def conversation_id(self) -> str:
        """The id of the current conversation, by which it can be continued."""
        return self.conversation.id

    def get_current_conversation_title(self) -> str | None:
        """Return the title of the current conversation, or None if it has none."""
        return self.conversation.title

    def set_title(self, title: str) -> Answer:
        """Give the current conversation a title."""
        if title is not None and not isinstance(title, str):
            return self._failed(InvalidRequestError(f"a title must be a text, not {title!r:.80}"))
        self.conversation.title = title
        return Answer(True, title, "the title is set")

    def delete_conversation(self, conversation_id: str | None = None) -> Answer:
        """Delete a conversation; after the current one, a new one starts."""
        try:
            conversation = self._find_conversation(conversation_id or self.conversation.id)
            self._conversations.drop(conversation, self._url)
        except LlmkitError as error:
            return self._failed(error)
        if conversation is self.conversation:
            self.new_conversation()
        return Answer(True, conversation.id, "the conversation is forgotten")

    def _find_conversation(self, conversation_id: str) -> Conversation:
        return self._conversations.find(conversation_id, self._url, stored=self._persists)

    @property
    def _persists(self) -> bool:
        return bool(self.config.get("backend.persist"))

    @property
    def _url(self) -> str:
        return self.config.get("database") or str(self.config.data_dir / "llmkit.db")
