"""`ChatModel`: a session with a preset, kept in the store, that any process can continue. Arguments only."""

from __future__ import annotations

import json
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from llmkit.api import real_backend
from llmkit.core import messages as shapes
from llmkit.core.engine import adrive, drive
from llmkit.errors import InvalidRequestError, UnknownSessionError
from llmkit.money.ledger import ledger_of
from llmkit.sessions import transcript
from llmkit.sessions.keeping import details_of
from llmkit.sessions.replies import ChatModelConfig, ChatReply, Rerun
from llmkit.sessions.run import HistoryCache, SessionRun, fitted, needs_history
from llmkit.sessions.snapshot import DEPLOY, chosen, kept, snapshot_of
from llmkit.sessions.stream import AsyncChatStream, ChatStream
from llmkit.store import Store, opened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Unpack

    from llmkit.core.engine import Backend
    from llmkit.core.types import Message, Reply
    from llmkit.money.ledger import Ledger
    from llmkit.prepare.options import TurnOptions
    from llmkit.presets import Preset
    from llmkit.store import SessionInfo

_NAMESPACE = uuid.UUID("6f0f5a3c-9d0b-5c1e-8f43-2b7a0c6d1e55")


class ChatModel:
    """For conversations that survive the process: a session with one preset, kept in the store.

    Add messages, and `run` answers them.

    Args:
        name: the preset of a new session; for an existing one, the preset it was created with.
        session_uuid: the session to continue, or None for a new one, which keeps a snapshot of its preset.
        version: the preset's version for a new session: "deploy" (drawn by ratio), "latest" or a number.
        api_key: the provider's key; it is not stored.
        store: a Store, its URL or path; the configured one if None.
        create: create the session *session_uuid* if it does not exist.
        ledger: where each attempt is recorded; True for the session's store, False for nowhere.
        backend: what sends the requests; for tests, see `llmkit.testing`.

    Attributes:
        name: the preset's name.
        session_uuid: the id by which the session can be continued.

    Raises:
        UnknownPresetError: there is no such preset or version; the message lists those there are.
        UnknownSessionError: there is no such session.
        InvalidRequestError: the session was created with another preset or version.
        StoreError: the store cannot be opened.
    """

    def __init__(
        self,
        name: str | Preset,
        session_uuid: str | uuid.UUID | None = None,
        version: str | int = DEPLOY,
        api_key: str | None = None,
        store: Store | str | Path | None = None,
        *,
        create: bool = False,
        ledger: Ledger | bool = True,
        backend: Backend | None = None,
    ) -> None:
        self.session_uuid = str(session_uuid or uuid.uuid4())
        self._store = _opened(store)
        self._api_key = api_key
        self._backend = backend or real_backend()
        self._memory = HistoryCache()
        self._ledger = ledger_of(self._store) if ledger is True else ledger or None
        session = None
        if session_uuid is not None:
            try:
                session = self._store.session(self.session_uuid)
            except UnknownSessionError:
                if not create:
                    raise
        self._preset = chosen(name, version) if session is None else kept(session, name, version)
        self.name = self._preset.name
        if session is None:
            self._store.create(
                self.session_uuid,
                preset=self.name,
                version=self._preset.version,
                snapshot=snapshot_of(self._preset),
            )

    # -- talking --------------------------------------------------------------------------------------------------

    def add_messages(self, new_messages: Sequence[Message], metadata_list: Sequence[Any] = ()) -> None:
        """Add messages to the session, all or none; tool results get the name or id of the call they answer.

        Raises:
            InvalidRequestError: a message is invalid, or a result belongs to no call; the index is named.
            StoreError: the store cannot be written, or the session is gone.
        """
        del metadata_list
        shapes.check(new_messages)
        before = self._store.messages(self.session_uuid) if needs_history(new_messages) else []
        self._store.add(self.session_uuid, fitted(new_messages, before))

    @overload
    def run(
        self, functions: Any = None, tools: Any = None, *, stream: Literal[True], **options: Unpack[TurnOptions]
    ) -> ChatStream: ...
    @overload
    def run(
        self, functions: Any = None, tools: Any = None, stream: Literal[False] = False, **options: Unpack[TurnOptions]
    ) -> ChatReply: ...
    def run(
        self, functions: Any = None, tools: Any = None, stream: bool = False, **options: Unpack[TurnOptions]
    ) -> ChatReply | ChatStream:
        """Return the answer to the messages of the session; never raises for what happens at run time.

        Args:
            functions: OpenAI-style schemas of functions, without the outer `type`.
            tools: OpenAI-style schemas, whose calls are left to the caller, or Python functions, which are called.
            stream: return an iterator of pieces, the last of which has the whole answer.
            options: `tool_choice`, `schema`, `timeout`, `temperature` and so on, as for `llmkit.ask`.
        """
        given = self._options(functions, tools, options)
        return ChatStream(self._running(), self._backend, given) if stream else self._answered(given, again=False)

    @overload
    async def arun(
        self, functions: Any = None, tools: Any = None, *, stream: Literal[True], **options: Unpack[TurnOptions]
    ) -> AsyncChatStream: ...
    @overload
    async def arun(
        self, functions: Any = None, tools: Any = None, stream: Literal[False] = False, **options: Unpack[TurnOptions]
    ) -> ChatReply: ...
    async def arun(
        self, functions: Any = None, tools: Any = None, stream: bool = False, **options: Unpack[TurnOptions]
    ) -> ChatReply | AsyncChatStream:
        """Async version of `run`: same arguments."""
        given = self._options(functions, tools, options)
        return (
            AsyncChatStream(self._running(), self._backend, given)
            if stream
            else await self._aanswered(given, again=False)
        )

    @overload
    def retry(self, *, stream: Literal[True], **options: Unpack[TurnOptions]) -> ChatStream: ...
    @overload
    def retry(self, *, stream: Literal[False] = False, **options: Unpack[TurnOptions]) -> ChatReply: ...
    def retry(self, *, stream: bool = False, **options: Unpack[TurnOptions]) -> ChatReply | ChatStream:
        """Return a new answer to the same messages; it replaces the last answer, if there is one."""
        given = self._options(None, None, options)
        if stream:
            return ChatStream(self._running(), self._backend, given, again=True)
        return self._answered(given, again=True)

    @overload
    async def aretry(self, *, stream: Literal[True], **options: Unpack[TurnOptions]) -> AsyncChatStream: ...
    @overload
    async def aretry(self, *, stream: Literal[False] = False, **options: Unpack[TurnOptions]) -> ChatReply: ...
    async def aretry(self, *, stream: bool = False, **options: Unpack[TurnOptions]) -> ChatReply | AsyncChatStream:
        """Async version of `retry`."""
        given = self._options(None, None, options)
        if stream:
            return AsyncChatStream(self._running(), self._backend, given, again=True)
        return await self._aanswered(given, again=True)

    # -- looking --------------------------------------------------------------------------------------------------

    def get_config(self) -> ChatModelConfig:
        """Return the session's preset as it was stored, and its messages."""
        preset, detail = self._preset, self._detail()
        return ChatModelConfig(
            name=self.name,
            model=detail["model"],
            system_prompt=preset.system_text(),
            version=preset.version,
            version_uuid=detail["version_uuid"],
            version_detail={
                "model": detail["model"],
                "uuid": detail["version_uuid"],
                "version": preset.version,
                "name": self.name,
            },
            message_logs=self._store.messages(self.session_uuid),
        )

    def get_prompts(self) -> list[dict[str, Any]]:
        """Return the system message as a list; deprecated, use `get_config().system_prompt`."""
        warnings.warn("get_prompts is deprecated: use get_config().system_prompt", DeprecationWarning, stacklevel=2)
        return [{"role": "system", "content": self.get_config().system_prompt}]

    def get_messages(self) -> list[dict[str, Any]]:
        """Return system message and messages; deprecated, use `get_config().message_logs`."""
        warnings.warn("get_messages is deprecated: use get_config().message_logs", DeprecationWarning, stacklevel=2)
        settings = self.get_config()
        return [{"role": "system", "content": settings.system_prompt}, *settings.message_logs]

    @property
    def preset(self) -> Preset:
        """The preset as the session has stored it."""
        return self._preset

    @property
    def info(self) -> SessionInfo:
        """The session's title, preset and times."""
        return self._store.session(self.session_uuid)

    @property
    def cost(self) -> float | None:
        """The cost of the session's answers in US dollars, or None if a price is not known."""
        return self._store.cost(self.session_uuid)

    @classmethod
    def sessions(
        cls, query: str | None = None, *, store: Store | str | Path | None = None, limit: int = 50
    ) -> list[SessionInfo]:
        """Return sessions, last changed first; with *query*, those with a message that contains all its words."""
        return _opened(store).sessions(query, limit=limit)

    # -- the session as a whole -----------------------------------------------------------------------------------

    def rename(self, title: str) -> None:
        """Give the session a title."""
        self._store.rename(self.session_uuid, title)

    def delete(self) -> None:
        """Delete the session with all its messages."""
        self._store.delete(self.session_uuid)

    def record(self, messages: Sequence[Message], reply: Reply) -> None:
        """Add messages and an answer to them that came from outside this session."""
        self._store.record(self.session_uuid, shapes.check(messages), reply.messages, details_of(reply))

    def fork(self, at: int | None = None, *, preset: str | Preset | None = None) -> ChatModel:
        """Return a new session with the first *at* messages of this one, by default all.

        It has the same preset unless another is given.

        Raises:
            InvalidRequestError: the session has fewer messages.
        """
        logs = self._store.messages(self.session_uuid)
        if at is not None and not (isinstance(at, int) and 0 <= at <= len(logs)):
            raise InvalidRequestError(f"the session has {len(logs)} messages; it cannot be forked at {at!r:.80}")
        return self._fork(self._preset if preset is None else chosen(preset, DEPLOY), logs[:at])

    def rerun(self, preset: str | Preset) -> Rerun:
        """Return the answers of another preset to all questions of this session, in a fork; tools are not called."""
        fork = self._fork(chosen(preset, DEPLOY), [])
        failed = None
        questions = [message for message in self._store.messages(self.session_uuid) if message["role"] == "user"]
        for question in questions:
            fork.add_messages([question])
            answered = fork.run()
            if answered.error:
                failed = answered.error_log
                break
        return Rerun(session=fork, cost_before=self.cost, cost=fork.cost, error_log=failed)

    def export(self, format: Literal["md", "json", "jsonl"] = "md") -> str:  # noqa: A002 - the word users know
        """Return the whole session as text: "md" for people; `import_` restores it from "json" or "jsonl"."""
        return transcript.write(self.info, self._store.messages(self.session_uuid), format)

    @classmethod
    def import_(
        cls,
        source: str | Path,
        *,
        store: Store | str | Path | None = None,
        backend: Backend | None = None,
    ) -> ChatModel:
        """Create a session from what `export` wrote as JSON or JSON lines: its text, or the path of a file with it.

        Its preset came from somebody else, so it keeps texts, numbers and choices only; a warning names the rest.

        Raises:
            InvalidRequestError: the text is not such an export; the line is named.
        """
        try:
            text = source.read_bytes().decode() if isinstance(source, Path) else source
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequestError(f"cannot read {source}: {error}") from error
        opened = _opened(store)
        preset, session_id = transcript.restore(text, opened)
        return cls(preset, session_id, store=opened, backend=backend)

    # -- inside ---------------------------------------------------------------------------------------------------

    def _answered(self, options: dict[str, Any], *, again: bool) -> ChatReply:
        return drive(self._running().answered(options, again=again), self._backend)

    async def _aanswered(self, options: dict[str, Any], *, again: bool) -> ChatReply:
        return await adrive(self._running().answered(options, again=again), self._backend)

    def _options(self, functions: Any, tools: Any, options: Mapping[str, Any]) -> dict[str, Any]:
        own = {"ledger": self._ledger, "store": self._store, "session": self.session_uuid}
        given = {"functions": functions, "tools": tools, "api_key": self._api_key, **own}
        return {**{name: value for name, value in given.items() if value is not None}, **options}

    def _running(self) -> SessionRun:
        detail = {**self._detail(), "log_uuid": str(uuid.uuid4())}
        return SessionRun(self._store, self.session_uuid, self._preset, detail, self._memory)

    def _detail(self) -> dict[str, Any]:
        preset = self._preset
        content = json.dumps([preset.name, preset.version, preset.snapshot()[0]], sort_keys=True)
        return {
            "name": preset.name,
            "model": preset.model,
            "version": preset.version,
            "version_uuid": str(uuid.uuid5(_NAMESPACE, content)),
        }

    def _fork(self, preset: Preset, logs: Sequence[Message]) -> ChatModel:
        new = str(uuid.uuid4())
        self._store.create(
            new,
            preset=preset.name,
            version=preset.version,
            snapshot=snapshot_of(preset),
            title=self.info.title,
            forked_from=self.session_uuid,
            messages=logs,
        )
        return ChatModel(
            preset,
            new,
            api_key=self._api_key,
            store=self._store,
            ledger=self._ledger or False,
            backend=self._backend,
        )


def _opened(store: Store | str | Path | None) -> Store:
    return store if isinstance(store, Store) else opened(None if store is None else str(store))
