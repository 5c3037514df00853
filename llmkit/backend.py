"""`ApiBackend`: every call returns (success, response, message), and the conversation goes on."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit import presets
from llmkit.api import real_backend
from llmkit.config import EMBEDDED_MODEL, Config
from llmkit.config.secrets import masked
from llmkit.core import messages as shapes
from llmkit.core.call import handed
from llmkit.core.engine import adrive, drive
from llmkit.core.tool_loop import StreamedTurn, answer, ready
from llmkit.core.types import Invoke, Usage
from llmkit.errors import InvalidRequestError, LlmkitError, explain
from llmkit.money.account import UsageTracker
from llmkit.prepare.check import usable
from llmkit.presets import templates
from llmkit.providers.debug_log import with_log
from llmkit.providers.model_info import full_name
from llmkit.sessions.requests import Answer, BackendRequest, BackendUsage, atake, checked, emitter, take
from llmkit.sessions.shelf import ConversationShelf

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.core.engine import Backend
    from llmkit.core.tool_loop import Turn
    from llmkit.core.types import Flow, Message, Reply
    from llmkit.money.ledger import Ledger
    from llmkit.presets import Preset


class ApiBackend(ConversationShelf):
    """For scripts that want (success, response, message): a conversation that never raises at run time.

    Creating one sends, prints and writes nothing, and needs no key.

    Args:
        config: the settings; the user's own if None.
        ledger: where each attempt is recorded: a Ledger, a store's URL, or True for the configured store.
        backend: what sends the requests; for tests, see `llmkit.testing`.

    Attributes:
        config: the settings.
        conversation: the one that `ask` continues.
        last_reply: the whole `Reply` of the last answer, or None before the first.
        last_error: the error of the last request, or None after an answer.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        ledger: Ledger | bool | str | None = None,
        backend: Backend | None = None,
    ) -> None:
        super().__init__(Config() if config is None else config)
        self.last_reply: Reply | None = None
        self.last_error: Exception | None = None
        self._system: str | None = None
        self._account = UsageTracker()
        self._given = backend
        self._ledger = ledger

    # -- asking ---------------------------------------------------------------------------------------------------

    def ask(self, input: str | Sequence[Message], request_overrides: Mapping[str, Any] | None = None) -> Answer:  # noqa: A002 - LWE's name
        """Return the answer to a question, and continue the conversation with it.

        Args:
            input: the question; a list of messages is sent as it is, without system message and history.
            request_overrides: settings for this request only: `system_message` (a text or an alias), `preset`,
                `activate_preset` (keep that preset), `preset_overrides` (keys of a preset, or LWE's sections),
                `files` (paths, URLs, message parts), `title`, `stream`, `print_stream`, `stream_callback`.

        With `model.streaming` the pieces go to `stream_callback`, or to stdout, as they come.
        """
        return self._ask(input, request_overrides, {})

    async def aask(self, input: str | Sequence[Message], request_overrides: Mapping[str, Any] | None = None) -> Answer:  # noqa: A002
        """Async version of `ask`: same arguments; `stream_callback` may be async."""
        return await self._aask(input, request_overrides, {})

    def ask_stream(self, input: str | Sequence[Message], request_overrides: Mapping[str, Any] | None = None) -> Answer:  # noqa: A002
        """Return the full text of an answer whose pieces go to `stream_callback` as they arrive."""
        return self._ask(input, request_overrides, {"stream": True})

    async def aask_stream(
        self,
        input: str | Sequence[Message],  # noqa: A002
        request_overrides: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Async version of `ask_stream`: same arguments."""
        return await self._aask(input, request_overrides, {"stream": True})

    def run_template(
        self,
        name: str | Path,
        template_vars: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Return the answer to a template; see `llmkit.templates`. *overrides* win over the template's."""
        return self._ask(lambda: self._template(name, template_vars, overrides), None, {})

    async def arun_template(
        self,
        name: str | Path,
        template_vars: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Async version of `run_template`."""
        return await self._aask(lambda: self._template(name, template_vars, overrides), None, {})

    # -- settings of the next request --------------------------------------------------------------------------

    def activate_preset(self, name: str) -> Answer:
        """Use another preset from now on; if it cannot be used, nothing changes."""
        try:
            preset = presets.load(name)
            usable(preset, self._model_of(preset))
        except LlmkitError as error:
            return self._failed(error)
        self._activate(preset)
        return Answer(True, name, f"preset {name!r} is active")

    def set_system_message(self, text: str = "default") -> Answer:
        """Use a system message from now on: a text, or an alias from `get_system_message_aliases`."""
        try:
            self._system = self._resolved(text)
        except LlmkitError as error:
            return self._failed(error)
        return Answer(True, self._system, "the system message is set")

    def set_model(self, name: str) -> Answer:
        """Use another model from now on, without a preset's settings."""
        try:
            preset = presets.Preset(model=full_name(name))
            usable(preset, self._model_of(preset))
        except LlmkitError as error:
            return self._failed(error)
        self._activate(preset)
        return Answer(True, preset.model, f"{preset.model} answers")

    def set_max_submission_tokens(self, max_tokens: int | None = None) -> Answer:
        """Send at most so many tokens of a conversation; None for as many as the model takes."""
        try:
            self.config.set("model.max_submission_tokens", max_tokens or None)
        except LlmkitError as error:
            return self._failed(error)
        return Answer(True, max_tokens, "the limit is set")

    def get_runtime_config(self) -> str:
        """Return the settings in use, for people: folders, database, preset, model; no secrets."""
        settings = self.config
        lines = {
            "config file": settings.config_file,
            "data folder": settings.data_dir,
            "profile": settings.profile,
            "database": masked(self._url),
            "preset": self.active_preset_name or "none",
            "model": self._model_of(self._active),
        }
        return "\n".join(f"{name}: {value}" for name, value in lines.items())

    def get_system_message_aliases(self) -> dict[str, str]:
        """Return the aliases and their texts."""
        return self.config.system_messages()

    @property
    def system_message(self) -> str | None:
        """The system message of the next request, as far as it is known beforehand."""
        if self._system is not None:
            return self._system
        if self._active is not None and self._active.system is not None:
            return self._active.system
        return self._resolved(self.config.get("model.default_system_message"))

    @property
    def active_preset_name(self) -> str | None:
        """The name of the preset in use, or None if there is none."""
        return self._active.name if self._active is not None else self.config.get("model.default_preset")

    @property
    def usage(self) -> BackendUsage:
        """Tokens and price of the last call and in total; unknown prices count as nothing in the total."""
        charges = self._account.charges
        total = Usage()
        for number, charge in enumerate(charges):
            total = charge.usage if number == 0 else total + charge.usage
        return BackendUsage(self.last_reply.usage if self.last_reply else Usage(), total)

    # -- from arguments to answers --------------------------------------------------------------------------------

    def _ask(self, messages: Any, overrides: Any, forced: dict[str, Any]) -> Answer:
        try:
            backend = self._logged()
        except LlmkitError as error:
            return self._failed(error)
        return drive(self._answered(messages, overrides, forced, take), backend)

    async def _aask(self, messages: Any, overrides: Any, forced: dict[str, Any]) -> Answer:
        try:
            backend = self._logged()
        except LlmkitError as error:
            return self._failed(error)
        return await adrive(self._answered(messages, overrides, forced, atake), backend)

    def _answered(self, messages: Any, overrides: Any, forced: dict[str, Any], take: Any) -> Flow[Answer]:
        """Answer, pass the pieces of a stream on with *take*, and keep the result."""
        request = None
        try:
            request = self._request_of(messages, overrides, forced)
            if request.activate is not None:  # a preset that stays is checked first
                yield Invoke(usable, (request.activate, self._model_of(request.activate)))
                self._activate(request.activate)
            turn = yield from request.turn(self._ledger, self._account)
            if request.emit is None:
                return (yield from self._finished(request, turn, (yield from answer(turn))))
            course = StreamedTurn(ready(turn))
            yield from handed(course.flow(), partial(request.give, take))
            return (yield from self._finished(request, turn, course.whole))
        except Exception as error:  # noqa: BLE001 - the answer carries the error
            return self._failed(error, request)

    def _finished(self, request: BackendRequest, turn: Turn, reply: Reply) -> Flow[Answer]:
        """Keep the turn in the conversation, and return the answer."""
        self.last_reply, self.last_error = reply, None
        notes = [f"answered by {reply.name}", *reply.warnings]
        notes += yield from request.finish(reply, turn if self.config.get("backend.generate_title") else None)
        if self._persists:
            notes += yield from request.store(self._conversations, reply, self._url)
        response = reply.parsed if reply.parsed is not None else reply.text or list(reply.tool_calls) or ""
        return Answer(True, response, "; ".join(notes))

    def _request_of(self, messages: Any, overrides: Mapping[str, Any] | None, forced: dict[str, Any]) -> BackendRequest:
        """Return the request that the arguments mean; nothing of this backend changes."""
        if callable(messages):
            messages, overrides = messages()
        wanted = {**checked(overrides or {}), **forced}
        named = wanted.get("preset")
        default = self.config.get("model.default_preset")
        preset = presets.load(named) if named else self._active or (presets.load(default) if default else None)
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
        alone = isinstance(messages, str)
        system = next((text for text in candidates if text is not None), None) if alone else None
        if preset is not None:  # the system message is in the request already; a list of messages goes as it is
            hidden: dict[str, Any] = {"system": None} if alone else {"system": None, "examples": []}
            preset = preset.changed(**hidden)
        return BackendRequest(
            messages=shapes.build(messages, attachments=wanted.get("files") or ()),
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

    def _failed(self, error: Exception, request: BackendRequest | None = None) -> Answer:
        self.last_error = error
        reason = explain(error) if isinstance(error, LlmkitError) else f"{type(error).__name__}: {error}"
        return Answer(False, (request.text if request else "") or None, reason)

    # -- small things ---------------------------------------------------------------------------------------------

    def _logged(self) -> Backend:
        """Return the backend to send with; it logs its steps if the settings ask for that."""
        return with_log(self._given or real_backend(), self.config)

    def _template(
        self, name: str | Path, variables: Mapping[str, Any] | None, overrides: Mapping[str, Any] | None
    ) -> tuple[str, dict[str, Any]]:
        folders = [Path(item).expanduser() for item in self.config.get("directories.templates")]
        here = Path("templates")
        searched = [*folders, here, self.config.config_dir / "templates"]
        template = templates.load(name, searched, came_along=[here])
        chosen = {"preset": template.preset} if template.preset else {}
        return template.render(variables), {**chosen, **template.overrides, **(overrides or {})}

    def _changed(self, preset: Preset | None, changes: Mapping[str, Any]) -> Preset:
        if preset is None:
            raise InvalidRequestError("preset_overrides need a preset, and none is active")
        return presets.changed(preset, changes)

    def _activate(self, preset: Preset) -> None:
        self._active, self._system = preset, None

    def _model_of(self, preset: Preset | None) -> str:
        return (preset.model if preset else None) or self.config.get("model.default_model") or EMBEDDED_MODEL

    def _resolved(self, text: str | None) -> str | None:
        """Return the text of an alias, and any other text as it is."""
        if text is not None and not isinstance(text, str):
            raise InvalidRequestError(f"a system message is a text or an alias, not {text!r}")
        return text if text is None else self.config.system_messages().get(text, text)
