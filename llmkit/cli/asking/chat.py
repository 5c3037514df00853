"""`llmkit chat`: a conversation at the terminal, stored as it goes."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.cli.asking.question import backend
from llmkit.cli.base import GoOn, Model, PresetName, Session, System, app, edit
from llmkit.cli.terminal import drawing, plain
from llmkit.errors import InvalidRequestError, LlmkitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from llmkit import ChatModel

_HELP = """\
/preset NAME   go on with another preset       /model NAME    go on with another model
/system TEXT   another system message          /retry         answer the last question again
/edit          change the last question        /fork [N]      go on in a copy, of N messages
/cost          what the conversation cost      /save FILE     write it as Markdown (.json, .jsonl)
/exit          leave; Ctrl-D does too          /help          this
Ctrl-C stops an answer and keeps what came of it. A line that ends in \\ goes on; \"\"\" begins and ends many lines."""
_BLOCK = '"""'


@app.command()
def chat(
    *,
    preset: PresetName = None,
    model: Model = None,
    system: System = None,
    go_on: GoOn = False,
    session: Session = None,
) -> None:
    """Talk with a model; /help lists the commands."""
    talk = _Talk(_conversation(preset, model, system, session if session is not None else "" if go_on else None))
    with _line_editing():
        talk.go_on()


def _conversation(preset: str | None, model: str | None, system: str | None, begin: str | None) -> ChatModel:
    from llmkit import ChatModel, presets
    from llmkit.store import opened

    changes = {key: value for key, value in (("model", model), ("system", system)) if value is not None}
    doer = backend()
    if begin is None:
        chosen = presets.load(preset) if preset is not None else _usual(model)
        return ChatModel(presets.changed(chosen, changes), backend=doer)
    store = opened()
    info = store.session(store.resolve(begin))
    session = ChatModel(info.preset, info.id, store=store, backend=doer)
    if preset is None and not changes:
        return session
    return session.fork(preset=presets.changed(session.preset if preset is None else presets.load(preset), changes))


def _usual(model: str | None) -> Any:
    from llmkit import config, presets

    name = config.default_choice()[1] if model is None else None
    return presets.load(name) if name is not None else presets.Preset()


class _Talk:
    """A conversation and the commands that change it."""

    def __init__(self, session: ChatModel) -> None:
        self.session = session
        self._commands: dict[str, Callable[[str], Any]] = {
            "help": lambda _: print(_HELP),
            "preset": self._preset,
            "model": lambda name: self._changed({"model": name}, name),
            "system": lambda text: self._changed({"system": text}, text),
            "retry": lambda _: self._answer(again=True),
            "edit": self._edit,
            "fork": self._fork,
            "cost": self._cost,
            "save": self._save,
        }

    def go_on(self) -> None:
        """Read and answer until the user leaves."""
        _tell(f"{self.session.get_config().model}, session {self.session.session_uuid[:8]}; /help tells the commands")
        while True:
            try:
                line = _read()
            except KeyboardInterrupt:
                print()
                continue
            if line is None or line.strip() in {"/exit", "/quit"}:
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
            self.session.add_messages([{"role": "user", "content": line}])
            self._answer()

    def _answer(self, *, again: bool = False) -> None:
        stream = self.session.retry(stream=True) if again else self.session.run(stream=True)
        try:
            with stream, _shown() as show:
                for piece in stream:
                    show(piece.content)
        except KeyboardInterrupt:
            _tell("stopped; what came is kept")
            return
        if stream.result.error:
            _tell(stream.result.error_log or "")
        for warning in stream.result.warnings:
            _tell(warning)

    def _preset(self, name: str) -> None:
        self._use(self.session.fork(preset=name))

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
        import tempfile

        logs = self.session.get_config().message_logs
        at = max((index for index, message in enumerate(logs) if message["role"] == "user"), default=None)
        if at is None or not isinstance(logs[at]["content"], str):
            raise InvalidRequestError("there is no question to edit")
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "question.md"
            file.write_text(logs[at]["content"], encoding="utf-8")
            edit(file)
            text = file.read_text(encoding="utf-8").strip()
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
        try:
            Path(name).expanduser().write_bytes(self.session.export(form).encode())
        except OSError as error:
            raise InvalidRequestError(f"cannot write {name}: {error.strerror}") from error
        _tell(f"written to {name}")

    def _use(self, session: ChatModel) -> None:
        self.session = session
        _tell(f"{session.get_config().model}, session {session.session_uuid[:8]}")


def _read() -> str | None:
    """Return what the user types, or None at the end."""
    asks = sys.stdin.isatty()
    try:
        line = input("> " if asks else "")
        if line.startswith(_BLOCK):
            return "\n".join(_block(line[len(_BLOCK) :], asks=asks))
        while line.endswith("\\"):
            line = f"{line[:-1]}\n{input('. ' if asks else '')}"
    except EOFError:
        if asks:
            print()
        return None
    return line


def _block(first: str, *, asks: bool) -> Iterable[str]:
    """Yield the lines up to the closing marks."""
    line = first
    while not line.endswith(_BLOCK):
        if line:
            yield line
        line = input(". " if asks else "")
    yield line[: -len(_BLOCK)]


@contextlib.contextmanager
def _line_editing() -> Any:
    """Enable line editing with a history, if the terminal supports it."""
    try:
        import readline
    except ImportError:  # Windows
        yield
        return
    from llmkit.config import Config

    file = Config().data_dir / "chat_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(file, os.O_CREAT, 0o600))
            readline.set_history_length(1000)
            readline.write_history_file(file)


@contextlib.contextmanager
def _shown() -> Any:
    """Return a function that prints pieces: as Markdown at a terminal, as they are elsewhere."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        yield _write
        print(flush=True)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.markdown import Markdown

    text = ""
    console = Console(file=drawing(sys.stdout))
    looks: dict[str, Any] = {"refresh_per_second": 8, "vertical_overflow": "visible"}
    live = Live(console=console, redirect_stdout=False, redirect_stderr=False, **looks)
    with contextlib.ExitStack() as ending:

        def show(piece: str) -> None:
            nonlocal text
            if piece and not text:
                ending.enter_context(live)  # not before: until then the line may say what is being read
            text += plain(piece)
            live.update(Markdown(text, hyperlinks=False))  # a link is written out: it shows where it leads

        yield show


def _write(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()


def _tell(text: str) -> None:
    print(f"llmkit: {text}", file=sys.stderr)
