"""`llmkit chat`: a conversation at the terminal, stored as it goes.

What makes folders and checks messages is imported where it is used: every command imports this module.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.cli import files
from llmkit.cli.asking.ask import WithOptions
from llmkit.cli.asking.question import Question, backend, options_of, pairs
from llmkit.cli.asking.screen import shown
from llmkit.cli.asking.typed import Typed
from llmkit.cli.base import (
    Attachment,
    BudgetNames,
    Database,
    GoOn,
    Key,
    Model,
    NoLog,
    Option,
    PresetName,
    Session,
    System,
    Timeout,
    Tool,
    Var,
    app,
    edit,
)
from llmkit.errors import InvalidRequestError, LlmkitError

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmkit import ChatModel

_HELP = """\
/file PATH     attach a file or a URL to the next question
/model NAME    go on with another model; alone it says which
/preset NAME   go on with another preset; alone it says which
/system TEXT   another system message
/retry         answer the last question again
/edit          change the last question
/fork [N]      go on in a copy, of N messages
/cost          what the conversation cost
/save FILE     write it as Markdown (.json, .jsonl)
/help          this
/exit          leave; exit, quit and Ctrl-D do too
Ctrl-C stops an answer and keeps what came of it.
A line that ends in \\ goes on; \"\"\" begins and ends many lines."""
_LEAVE = frozenset({"/exit", "/quit", "exit", "quit"})


@app.command(cls=WithOptions)
def chat(
    *,
    preset: PresetName = None,
    model: Model = None,
    system: System = None,
    option: Option = None,
    attachment: Attachment = None,
    var: Var = None,
    tool: Tool = None,
    go_on: GoOn = False,
    session: Session = None,
    no_log: NoLog = False,
    database: Database = None,
    budget: BudgetNames = None,
    key: Key = None,
    timeout: Timeout = None,
) -> None:
    """Talk with a model; /help lists the commands.

    Example: llmkit chat -m openai/gpt-4o -o temperature 0
    """
    from llmkit.config import Config

    given = {name: value for name, value in locals().items() if value is not None and name != "Config"}
    attached = given.pop("attachment", ())
    asked = Question(**given)
    options = {name: value for name, value in options_of(asked, keep=True).items() if name in _OF_EACH_TURN}
    import tempfile

    with tempfile.TemporaryDirectory(prefix="llmkit-") as folder:
        store = str(Path(folder) / "chat.db") if no_log else database
        talk = _Talk(_conversation(asked, store), options, [*attached])
        talk.go_on(Typed(None if no_log else Config().data_dir / "chat_history"))


_OF_EACH_TURN = ("budget", "timeout", "tools")


def _conversation(asked: Question, store_url: str | None) -> ChatModel:
    from llmkit import ChatModel, presets
    from llmkit.presets import templates
    from llmkit.store import opened

    changes: dict[str, Any] = {"model": asked.model, "system": asked.system}
    changes = {name: value for name, value in changes.items() if value is not None}
    changes |= {"params": params} if (params := pairs(asked.option)) else {}
    changes |= {"variables": templates.pairs(asked.var)} if asked.var else {}
    access: dict[str, Any] = {"backend": backend(), "api_key": asked.key, "ledger": not asked.no_log}
    store = opened(store_url)
    if not asked.is_in_session:
        chosen = presets.load(asked.preset) if asked.preset is not None else _usual(asked.model)
        return ChatModel(presets.changed(chosen, changes), store=store, **access)
    info = store.session(store.resolve(asked.session or ""))
    session = ChatModel(info.preset, info.id, store=store, **access)
    if asked.preset is None and not changes:
        return session
    chosen = session.preset if asked.preset is None else presets.load(asked.preset)
    return session.fork(preset=presets.changed(chosen, changes))


def _usual(model: str | None) -> Any:
    from llmkit import config, presets

    name = config.default_choice()[1] if model is None else None
    return presets.load(name) if name is not None else presets.Preset()


class _Talk:
    """A conversation and the commands that change it."""

    def __init__(self, session: ChatModel, options: dict[str, Any], attachments: list[str]) -> None:
        self.session, self._options, self._attachments = session, options, attachments
        self._commands: dict[str, Callable[[str], Any]] = {
            "help": lambda _: print(_HELP),
            "file": self._file,
            "preset": self._preset,
            "model": self._model,
            "system": lambda text: self._changed({"system": text}, text),
            "retry": lambda _: self._answer(again=True),
            "edit": self._edit,
            "fork": self._fork,
            "cost": self._cost,
            "save": self._save,
        }

    def go_on(self, typed: Typed) -> None:
        """Read and answer until the user leaves."""
        _tell(f"{self.session.get_config().model}, session {self.session.session_uuid[:8]}; /help tells the commands")
        while True:
            try:
                line = typed.read()
            except KeyboardInterrupt:
                print()
                continue
            if line is None or line.strip() in _LEAVE:
                return
            try:
                self._do(line)
            except LlmkitError as error:
                _tell(str(error))

    def _do(self, line: str) -> None:
        if not line.strip():
            return
        word, _, rest = line.strip().partition(" ")
        if word.startswith("/") and word[1:] in self._commands:
            self._commands[word[1:]](rest.strip())
        elif word.startswith("/") and word[1:].isalpha():
            raise InvalidRequestError(f"there is no command {word}; /help tells which there are")
        else:
            from llmkit.core import messages

            attached, self._attachments = self._attachments, []
            self.session.add_messages(messages.build(line, attachments=attached))
            self._answer()

    def _answer(self, *, again: bool = False) -> None:
        ask = self.session.retry if again else self.session.run
        stream = ask(stream=True, **self._options)
        is_local = self.session.get_config().model.startswith("local/")  # which says itself what it does
        try:
            with stream, shown(waiting=not is_local) as show:
                for piece in stream:
                    show(piece.content)
        except KeyboardInterrupt:
            _tell("stopped; what came is kept")
            return
        if stream.result.error:
            _tell(stream.result.error_log or "")
        for warning in stream.result.warnings:
            _tell(warning)

    def _file(self, name: str) -> None:
        if not name:
            raise InvalidRequestError("/file wants a path or a URL")
        from llmkit.core import messages

        messages.attachment(name)
        self._attachments.append(name)
        _tell(f"goes with the next question: {', '.join(self._attachments)}")

    def _preset(self, name: str) -> None:
        if name:
            self._use(self.session.fork(preset=name))
        else:
            _tell(self.session.name or "no preset")

    def _model(self, name: str) -> None:
        if name:
            self._changed({"model": name}, name)
        else:
            _tell(self.session.get_config().model)

    def _changed(self, changes: dict[str, str], value: str) -> None:
        from llmkit import presets

        if not value:
            raise InvalidRequestError(f"/{next(iter(changes))} wants a value")
        self._use(self.session.fork(preset=presets.changed(self.session.preset, changes)))

    def _fork(self, at: str) -> None:
        if at and not at.isdecimal():
            raise InvalidRequestError("/fork wants the number of messages that are kept")
        self._use(self.session.fork(int(at) if at else None))

    def _edit(self, _: str) -> None:
        logs = self.session.get_config().message_logs
        at = max((index for index, message in enumerate(logs) if message["role"] == "user"), default=None)
        if at is None or not isinstance(logs[at]["content"], str):
            raise InvalidRequestError("there is no question to edit")
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "question.md"
            file.write_text(logs[at]["content"], encoding="utf-8")
            edit(file)
            try:
                text = file.read_text(encoding="utf-8").strip()
            except UnicodeDecodeError:
                raise InvalidRequestError("the editor did not write UTF-8; the question stays as it was") from None
        if text:
            self._use(self.session.fork(at))
            self._do(text)

    def _cost(self, _: str) -> None:
        cost = self.session.cost
        _tell("the price is not known" if cost is None else f"{cost:.6f} USD")

    def _save(self, name: str) -> None:
        if not name:
            raise InvalidRequestError("/save wants the name of a file")
        form: Any = Path(name).suffix[1:] if Path(name).suffix in {".json", ".jsonl"} else "md"
        files.write(self.session.export(form), str(Path(name).expanduser()), option="/save")
        _tell(f"written to {name}")

    def _use(self, session: ChatModel) -> None:
        self.session = session
        _tell(f"{session.get_config().model}, session {session.session_uuid[:8]}")


def _tell(text: str) -> None:
    print(f"llmkit: {text}", file=sys.stderr)
