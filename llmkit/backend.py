"""`ApiBackend`: ask, and get (success, response, message); the conversation goes on."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.api import real_backend
from llmkit.config import EMBEDDED_MODEL, Config
from llmkit.core import messages as shapes
from llmkit.core.engine import adrive, drive, invoke
from llmkit.core.streams import AsyncStream, Stream
from llmkit.core.tool_loop import Course, answer, ready
from llmkit.core.types import Invoke, Usage
from llmkit.errors import InvalidRequestError, LlmkitError, explain
from llmkit.money.account import Account
from llmkit.prepare import prepare
from llmkit.prepare.check import usable
from llmkit.presets import templates
from llmkit.providers.debug_log import traced
from llmkit.sessions.conversations import (
    Answer,
    Asked,
    BackendUsage,
    Conversation,
    Shelf,
    checked,
    emitter,
    print_piece,
    titled,
)
from llmkit.sessions.run import trimmed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.core.engine import Backend
    from llmkit.core.tool_loop import Turn
    from llmkit.core.types import Flow, Message, Reply
    from llmkit.money.ledger import Ledger
    from llmkit.presets import Preset


class ApiBackend:
    """A conversation with a model, chosen by preset; asking never raises for what happens at run time.

    Making one sends nothing, prints nothing, writes nothing and needs no key.

    Args:
        config: the settings; the user's own where it is None.
        ledger: where each attempt is written down: a Ledger, a store's URL, or True for the configured store.
        backend: who sends the requests; for tests, see `llmkit.testing`.

    Attributes:
        config: the settings.
        conversation: the one that `ask` continues.
        last_reply: the whole `Reply` of the last answer, None before.
        last_error: what the last request failed with, None after an answer.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        ledger: Ledger | bool | str | None = None,
        backend: Backend | None = None,
    ) -> None:
        self.config = Config() if config is None else config
        self.conversation = Conversation()
        self.last_reply: Reply | None = None
        self.last_error: Exception | None = None
        self._shelf = Shelf()
        self._shelf.put(self.conversation)
        self._active: Preset | None = None
        self._system: str | None = None
        self._account = Account()
        self._given = backend
        self._ledger = ledger

    # -- asking ---------------------------------------------------------------------------------------------------

    def ask(self, input: str | Sequence[Message], request_overrides: Mapping[str, Any] | None = None) -> Answer:  # noqa: A002 - LWE's name
        """Ask, and continue the conversation with the answer.

        Args:
            input: the question; a list of messages is sent as it is, without system message and history.
            request_overrides: what is different for this request: `system_message` (a text or an alias), `preset`,
                `activate_preset` (keep that preset), `preset_overrides` (keys of a preset, or LWE's sections),
                `files` (paths, URLs, message parts), `title`, `stream`, `print_stream`, `stream_callback`.

        With `model.streaming` the pieces go to `stream_callback`, or to stdout, as they come.
        """
        return self._ask(input, request_overrides, {})

    async def aask(self, input: str | Sequence[Message], request_overrides: Mapping[str, Any] | None = None) -> Answer:  # noqa: A002
        """Ask, awaited. Arguments as for `ask`; `stream_callback` may be async."""
        return await self._aask(input, request_overrides, {})

    def ask_stream(self, input: str | Sequence[Message], request_overrides: Mapping[str, Any] | None = None) -> Answer:  # noqa: A002
        """Ask for a stream: `stream_callback` gets each piece as text; the full text is returned."""
        return self._ask(input, request_overrides, {"stream": True})

    async def aask_stream(
        self,
        input: str | Sequence[Message],  # noqa: A002
        request_overrides: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Ask for a stream, awaited. Arguments as for `ask_stream`."""
        return await self._aask(input, request_overrides, {"stream": True})

    def run_template(
        self,
        name: str | Path,
        template_vars: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Ask what a template says; see `llmkit.templates`. *overrides* win over the template's."""
        return self._ask(lambda: self._template(name, template_vars, overrides), None, {})

    async def arun_template(
        self,
        name: str | Path,
        template_vars: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Ask what a template says, awaited."""
        return await self._aask(lambda: self._template(name, template_vars, overrides), None, {})

    # -- what is asked with ---------------------------------------------------------------------------------------

    def activate_preset(self, name: str) -> Answer:
        """Ask with another preset from now on; where it cannot be used, nothing changes."""
        try:
            preset = self._load(name)
            usable(preset, self._model_of(preset))
        except LlmkitError as error:
            return self._failed(error)
        self._activate(preset)
        return Answer(True, name, f"preset {name!r} is active")

    def set_system_message(self, text: str = "default") -> Answer:
        """Use a system message from now on: a text, or an alias of `get_system_message_aliases`."""
        try:
            self._system = self._resolved(text)
        except LlmkitError as error:
            return self._failed(error)
        return Answer(True, self._system, "the system message is set")

    def get_system_message_aliases(self) -> dict[str, str]:
        """Return the aliases and their texts."""
        return self.config.system_messages()

    @property
    def system_message(self) -> str | None:
        """The system message of the next request, as far as it is known before it."""
        if self._system is not None:
            return self._system
        if self._active is not None and self._active.system is not None:
            return self._active.system
        return self._resolved(self.config.get("model.default_system_message"))

    @property
    def active_preset_name(self) -> str | None:
        """The name of the preset in use, None where there is none."""
        return self._active.name if self._active is not None else self.config.get("model.default_preset")

    @property
    def usage(self) -> BackendUsage:
        """Tokens and price of the last call and in total; a price that is not known counts as nothing in the total."""
        charges = self._account.charges
        total = Usage()
        for number, charge in enumerate(charges):
            total = charge.usage if number == 0 else total + charge.usage
        return BackendUsage(self.last_reply.usage if self.last_reply else Usage(), total)

    # -- conversations --------------------------------------------------------------------------------------------

    def new_conversation(self) -> Answer:
        """Begin a conversation without history."""
        self.conversation.preset = self._active.name if self._active else None
        self.conversation = Conversation()
        self._shelf.put(self.conversation)
        return Answer(True, self.conversation.id, "a new conversation")

    def switch_to_conversation(self, conversation_id: str) -> Answer:
        """Go on with an earlier conversation, and with the preset it had; where there is none, nothing changes."""
        try:
            found = self._found(conversation_id)
            preset = self._load(found.preset) if found.preset else None
        except LlmkitError as error:
            return self._failed(error)
        self.conversation.preset = self._active.name if self._active else None
        self.conversation, self._active = found, preset
        return Answer(True, found.id, f"conversation of {len(found.messages)} messages")

    def get_conversation(self, conversation_id: str | None = None) -> Answer:
        """Return a conversation, the current one where none is named."""
        try:
            return Answer(True, self._found(conversation_id or self.conversation.id), "found")
        except LlmkitError as error:
            return self._failed(error)

    def get_history(self) -> Answer:
        """Return the conversations, newest first; with `backend.persist` those in the store too."""
        try:
            return Answer(True, self._shelf.listed(self._url, stored=self._persists), "found")
        except LlmkitError as error:
            return self._failed(error)

    def set_title(self, title: str) -> Answer:
        """Give the current conversation a title."""
        self.conversation.title = title
        return Answer(True, title, "the title is set")

    def delete_conversation(self, conversation_id: str | None = None) -> Answer:
        """Forget a conversation; after the current one a new one begins."""
        try:
            found = self._found(conversation_id or self.conversation.id)
            self._shelf.drop(found, self._url)
        except LlmkitError as error:
            return self._failed(error)
        if found is self.conversation:
            self.new_conversation()
        return Answer(True, found.id, "the conversation is forgotten")

    # -- from arguments to answers --------------------------------------------------------------------------------

    def _ask(self, said: Any, overrides: Any, forced: dict[str, Any]) -> Answer:
        asked = None
        try:
            asked = self._understood(said, overrides, forced)
            turn = drive(self._turn(asked), self._work)
            if asked.emit is None:
                return drive(self._finished(asked, drive(answer(turn), self._work)), self._work)
            with Stream(Course(ready(turn)), self._work) as pieces:
                for piece in pieces:
                    asked.text += piece.content
                    if piece.content:
                        invoke(Invoke(asked.emit, (piece.content,)))  # plain or async
            return drive(self._finished(asked, pieces.reply), self._work)
        except Exception as error:  # noqa: BLE001 - asking tells, and does not raise
            return self._failed(error, asked)

    async def _aask(self, said: Any, overrides: Any, forced: dict[str, Any]) -> Answer:
        asked = None
        try:
            asked = self._understood(said, overrides, forced)
            turn = await adrive(self._turn(asked), self._work)
            if asked.emit is None:
                return await adrive(self._finished(asked, await adrive(answer(turn), self._work)), self._work)
            async with AsyncStream(Course(ready(turn)), self._work) as pieces:
                async for piece in pieces:
                    asked.text += piece.content
                    emitted = asked.emit(piece.content) if piece.content else None
                    if inspect.isawaitable(emitted):
                        await emitted
            return await adrive(self._finished(asked, pieces.reply), self._work)
        except Exception as error:  # noqa: BLE001 - asking tells, and does not raise
            return self._failed(error, asked)

    def _understood(self, said: Any, overrides: Mapping[str, Any] | None, forced: dict[str, Any]) -> Asked:
        """Turn arguments into what is asked; nothing of this backend changes."""
        if callable(said):
            said, overrides = said()
        wanted = {**checked(overrides or {}), **forced}
        named = wanted.get("preset")
        default = self.config.get("model.default_preset")
        preset = self._load(named) if named else self._active or (self._load(default) if default else None)
        activate = preset if named and wanted.get("activate_preset") else None
        if "preset_overrides" in wanted:
            preset = self._changed(preset, wanted["preset_overrides"])
        preset = preset.filled() if preset else None
        of_preset = preset.system if preset else None
        candidates = [
            self._resolved(wanted.get("system_message")),
            of_preset if named else None,
            self._system,
            of_preset,
            self._resolved(self.config.get("model.default_system_message")),
        ]
        alone = isinstance(said, str)
        system = next((text for text in candidates if text is not None), None) if alone else None
        if preset is not None:  # the system message is in the request already; a list of messages goes as it is
            hidden: dict[str, Any] = {"system": None} if alone else {"system": None, "examples": []}
            preset = preset.changed(**hidden)
        return Asked(
            said=shapes.build(said, attachments=wanted.get("files") or ()),
            history=tuple(self.conversation.messages) if alone else (),
            preset=preset,
            model=self._model_of(preset),
            activate=activate,
            system=() if system is None else ({"role": "system", "content": system},),
            limit=(preset.max_input_tokens if preset else None) or self.config.get("model.max_submission_tokens"),
            title=wanted.get("title"),
            emit=emitter(wanted, streaming=self.config.get("model.streaming")),
            conversation=self.conversation,
        )

    def _turn(self, asked: Asked) -> Flow[Turn]:
        """Build the turn, with as much of the history as fits; a preset that stays is looked at before."""
        if asked.activate is not None:
            yield Invoke(usable, (asked.activate, self._model_of(asked.activate)))
            self._activate(asked.activate)
        sent = [*asked.system, *asked.history, *asked.said]
        if asked.limit is not None:
            sent = yield from trimmed(sent, asked.model, asked.limit)
        turn = prepare(
            sent, asked.model, asked.preset, None, {"ledger": self._ledger, "session": asked.conversation.id}
        )
        asked.turn = replace(turn, plan=replace(turn.plan, account=self._account))
        return asked.turn

    def _finished(self, asked: Asked, reply: Reply) -> Flow[Answer]:
        """Keep what was said, and give the conversation a title where it is to have one."""
        if asked.emit is print_piece and not asked.text.endswith("\n"):
            print_piece("\n")
        conversation = asked.conversation
        first = not conversation.messages
        conversation.messages += [*asked.said, *reply.messages]
        self.last_reply, self.last_error = reply, None
        told = [f"answered by {reply.name}", *reply.warnings]
        if asked.title is not None:
            conversation.title = asked.title
        elif first and conversation.title is None and asked.turn and self.config.get("backend.generate_title"):
            try:
                conversation.title = yield from titled(asked.turn, conversation.messages)
            except LlmkitError as error:
                told.append(f"no title: {error}")
        if self._persists:
            try:
                lost = yield Invoke(self._shelf.store, (conversation, asked.kept(), reply, self._url))
                told += [f"the store does not keep {key}, a secret" for key in lost]
            except LlmkitError as error:
                told.append(f"not in the store: {error}")
        response = reply.parsed if reply.parsed is not None else reply.text or list(reply.tool_calls) or ""
        return Answer(True, response, "; ".join(told))

    def _failed(self, error: Exception, asked: Asked | None = None) -> Answer:
        self.last_error = error
        reason = explain(error) if isinstance(error, LlmkitError) else f"{type(error).__name__}: {error}"
        return Answer(False, (asked.text if asked else "") or None, reason)

    # -- small things ---------------------------------------------------------------------------------------------

    @property
    def _work(self) -> Backend:
        """Who does the steps: with a log of them where the settings say so."""
        return traced(self._given or real_backend(), self.config)

    def _template(
        self, name: str | Path, variables: Mapping[str, Any] | None, overrides: Mapping[str, Any] | None
    ) -> tuple[str, dict[str, Any]]:
        folders = [Path(item).expanduser() for item in self.config.get("directories.templates")]
        here = Path("templates")
        searched = [*folders, here, self.config.config_dir / "templates"]
        template = templates.load(name, searched, came_along=[here])
        chosen = {"preset": template.preset} if template.preset else {}
        return template.render(variables), {**chosen, **template.overrides, **(overrides or {})}

    def _load(self, name: str) -> Preset:
        from llmkit import presets

        return presets.load(name)

    def _changed(self, preset: Preset | None, changes: Mapping[str, Any]) -> Preset:
        from llmkit import presets

        if preset is None:
            raise InvalidRequestError("preset_overrides need a preset, and none is active")
        return presets.changed(preset, changes)

    def _activate(self, preset: Preset) -> None:
        self._active, self._system = preset, None

    def _model_of(self, preset: Preset | None) -> str:
        return (preset.model if preset else None) or self.config.get("model.default_model") or EMBEDDED_MODEL

    def _resolved(self, text: str | None) -> str | None:
        """Return the text of an alias, any other text as it is."""
        if text is not None and not isinstance(text, str):
            raise InvalidRequestError(f"a system message is a text or an alias, not {text!r}")
        return text if text is None else self.config.system_messages().get(text, text)

    def _found(self, conversation_id: str) -> Conversation:
        return self._shelf.find(conversation_id, self._url, stored=self._persists)

    @property
    def _persists(self) -> bool:
        return bool(self.config.get("backend.persist"))

    @property
    def _url(self) -> str:
        return self.config.get("database") or str(self.config.data_dir / "llmkit.db")
