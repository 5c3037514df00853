"""Output to a terminal, questions to its user, and how a command ends: its last line and its exit code."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from llmkit.config import trust
from llmkit.errors import BudgetExceededError, ConfigError, InvalidRequestError, LlmkitError, explain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llmkit.config.trust import Claim

FAILURE, WRONG_USAGE, OVER_BUDGET, INTERRUPTED = 1, 2, 3, 130
_ESCAPES = [*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0)]  # C0 but tab and newline, DEL, C1
_DIRECTIONS = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]  # they make a text look like another one
_CONTROLS = dict.fromkeys(_ESCAPES + _DIRECTIONS)
_SHOWN = 30


def plain(text: str) -> str:
    """Return a text without anything that controls a terminal, except tabs and newlines."""
    return text.translate(_CONTROLS)


class Terminal:
    """A stream to a terminal that passes on plain text only, wherever it came from.

    Attributes:
        raw: the stream itself, for what llmkit draws.
    """

    def __init__(self, stream: Any) -> None:
        self.raw = stream

    def write(self, text: str) -> int:
        """Write a text without control sequences."""
        self.raw.write(plain(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts without control sequences."""
        for line in lines:
            self.write(line)

    @property
    def buffer(self) -> _Bytes:
        """The binary layer of the stream."""
        return _Bytes(self)

    def __getattr__(self, name: str) -> Any:
        """Return all other attributes of the stream."""
        return getattr(self.raw, name)


class _Bytes:
    """The binary layer of a `Terminal`."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def write(self, data: bytes) -> int:
        self._terminal.write(bytes(data).decode(errors="replace"))
        return len(data)

    def flush(self) -> None:
        self._terminal.flush()


def open_missing() -> None:
    """Give the place of each standard stream that is closed to /dev/null: what reads or writes there needs no check."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in the order of their numbers
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - as long as all


def _is_terminal(stream: Any) -> bool:
    return stream is not None and bool(stream.isatty())


def guard_terminals() -> None:
    """Put a `Terminal` in front of stdout and stderr if they are one; a file or a pipe gets each byte as it is."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if _is_terminal(stream):
            setattr(sys, name, Terminal(stream))


def drawing(stream: Any) -> Any:
    """Return the stream for llmkit's own drawings, with colours."""
    return getattr(stream, "raw", stream)


def is_used_by_hand() -> bool:
    """Return whether somebody types commands and reads their answers: not in a pipe, a program or CI."""
    return not os.environ.get("CI") and all(_is_terminal(stream) for stream in (sys.stdin, sys.stdout))


class User:
    """The user who is asked for trust: somebody at a terminal, or nobody."""

    def agrees(self, claim: Claim) -> bool:
        """Ask for trust if somebody can answer; a server's requests do not wait for an answer."""
        if not _somebody_is_there():
            return False
        lines = [str(want) for want in claim.wants] + [f"code: {module.path}" for module in claim.code.values()]
        if len(lines) > _SHOWN:
            return False  # what matters would scroll away; the command to trust it shows all
        self.tell(f"{claim} came with this folder, and says more than texts and numbers:")
        for line in lines:
            print(f"  {line}", file=sys.stderr)
        return bool(is_asked("do you trust it? You are asked once, until one of its files changes"))

    def tell(self, text: str) -> None:
        """Print a text on stderr."""
        print(f"llmkit: {text}", file=sys.stderr)


def piped(advice: str = "") -> str:
    """Return the text on stdin.

    Raises:
        InvalidRequestError: it is none.
    """
    try:
        return str(sys.stdin.read())
    except UnicodeDecodeError:
        raise InvalidRequestError(f"stdin is not text{advice}") from None


def is_asked(question: str) -> bool | None:
    """Return what the user answers, no by default, or None if nobody is at a terminal.

    Where something is piped in, the answer is read from the terminal itself.
    """
    if not _is_terminal(sys.stderr):
        return None
    print(f"llmkit: {question} [y/N] ", end="", file=sys.stderr, flush=True)
    if _is_terminal(sys.stdin):
        return sys.stdin.readline().strip().lower() in {"y", "yes"}
    try:
        with open("/dev/tty", encoding="utf-8") as terminal:  # noqa: PTH123 - a device
            return terminal.readline().strip().lower() in {"y", "yes"}
    except OSError:
        return False


_MANY_OBJECTS = 20_000
"""New objects after which garbage is looked for: what some sixty calls hold while they are under way is none. Python's
own 700 costs a server a fifth of its time."""


def live_long() -> None:
    """Collect garbage from now on, which the command line does not: for commands that go on for more than a while."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_MANY_OBJECTS)
    gc.enable()


def _somebody_is_there() -> bool:
    import asyncio

    if threading.current_thread() is not threading.main_thread():
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return all(_is_terminal(stream) for stream in (sys.stdin, sys.stderr))
    return False


@contextlib.contextmanager
def exits(*, debug: bool = False) -> Iterator[None]:
    """Run a command: an error becomes one line and an exit code; no traceback reaches a user unless *debug* is set."""
    try:
        with trust.watched(User()):
            yield
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        _silence(sys.stdout)
        raise SystemExit(FAILURE) from None
    except OSError as error:
        if debug:
            raise
        _silence(sys.stdout)
        _tell_last(_failed(error))
        raise SystemExit(FAILURE) from None
    except UnicodeEncodeError:  # only here: as the name of a file such an argument is right
        if debug or not (broken := [word for word in sys.argv[1:] if not _is_text(word)]):
            raise
        _tell_last(f"{broken[0]!r} is not text")
        raise SystemExit(WRONG_USAGE) from None
    except LlmkitError as error:
        if debug:
            raise
        _tell_last(explain(error))
        if isinstance(error, BudgetExceededError):
            raise SystemExit(OVER_BUDGET) from None
        wrong_usage = isinstance(error, InvalidRequestError | ConfigError)
        raise SystemExit(WRONG_USAGE if wrong_usage else FAILURE) from None


def _is_text(word: str) -> bool:
    return word.encode(errors="ignore").decode() == word


_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF}


def _failed(error: OSError) -> str:
    """Return what failed; an error that has no file's name is one of a stream."""
    reason = error.strerror or error
    if error.filename is not None:
        return f"{error.filename}: {reason}"
    return f"the output cannot be written: {reason}" if error.errno in _OF_WRITING else f"{reason}"


def _tell_last(text: str) -> None:
    try:
        print(f"llmkit: {text}", file=sys.stderr, flush=True)
    except OSError:  # nobody can be told; the exit code says it
        _silence(sys.stderr)


def _silence(stream: Any) -> None:
    """Let what was not written of a stream go nowhere, or the flush at exit would fail too."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
