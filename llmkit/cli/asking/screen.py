"""An answer on a terminal as it arrives: Markdown, each line once, however long it is.

Blocks that are complete are printed and never touched again; only the last one is drawn anew with each piece, and if it
is higher than the screen its end is shown until it is complete.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from typing import TYPE_CHECKING, Any

from llmkit.cli.terminal import drawing, plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console
    from rich.markdown import Markdown

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ITEM = re.compile(r" {0,3}(?:[-*+]|\d{1,9}[.)])\s")


@contextlib.contextmanager
def shown(*, waiting: bool) -> Iterator[Callable[[str], None]]:
    """Return a function that prints pieces: as Markdown at a terminal, as they are elsewhere.

    With *waiting* there is a sign until the first piece comes.
    """
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        yield _write
        print(flush=True)
        return
    from rich.console import Console

    answer = _Answer(Console(file=drawing(sys.stdout)), waiting=waiting)
    try:
        yield answer.show
    finally:
        answer.end()


def complete(text: str) -> int:
    """Return how much of a text is blocks of Markdown that nothing that follows can change."""
    end = at = 0
    fence, is_list, was_blank = "", False, False
    for line in text.splitlines(keepends=True):
        if not line.endswith("\n"):
            break  # what it is shows at its end
        mark = _FENCE.match(line)
        if fence:
            fence = "" if mark and mark[1].startswith(fence) and not line[mark.end() :].strip() else fence
        elif line.strip():
            is_item = _ITEM.match(line) is not None
            if was_blank and not line.startswith((" ", "\t")) and not (is_item and is_list):
                end = at
                is_list = is_item
            elif not at:
                is_list = is_item
            fence = mark[1] if mark else ""
        was_blank = not fence and not line.strip()
        at += len(line)
    return end


class _Answer:
    """The part of an answer that is not printed for good."""

    def __init__(self, console: Console, *, waiting: bool) -> None:
        from rich.spinner import Spinner

        self._console = console
        self._text, self._is_first = "", True
        self._live: Any = None
        if waiting:
            self._draw(Spinner("dots"))

    def show(self, piece: str) -> None:
        """Show one more piece."""
        if not piece:
            return
        self._text += plain(piece)
        if end := complete(self._text):
            self._print(self._text[:end])
            self._text = self._text[end:]
        self._draw(_End(self._text))

    def end(self) -> None:
        """Print what is left."""
        self._erase()
        if self._text:
            self._print(self._text)

    def _draw(self, what: Any) -> None:
        if self._live is not None:
            self._live.update(what)
            return
        from rich.live import Live

        keeps: dict[str, Any] = {"redirect_stdout": False, "redirect_stderr": False, "transient": True}
        self._live = Live(what, console=self._console, refresh_per_second=8, **keeps)
        self._live.start()

    def _erase(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None  # another one would go up over what has been printed since

    def _print(self, text: str) -> None:
        self._erase()
        if not self._is_first:
            self._console.print()
        self._is_first = False
        self._console.print(_markdown(text))


class _End:
    """The last lines of a block, as many as the screen has room for."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from rich.segment import Segment

        lines = console.render_lines(_markdown(self._text), options.update(height=None), pad=False)
        for number, line in enumerate(lines[-max(console.height - 2, 1) :]):
            if number:
                yield Segment.line()
            yield from line


def _markdown(text: str) -> Markdown:
    """Return Markdown in which HTML and references are text like any other: rich leaves both out without a word."""
    from markdown_it import MarkdownIt
    from rich.markdown import Markdown

    shown = Markdown("", hyperlinks=False)  # a link is written out: it shows where it leads
    parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable("reference")
    shown.parsed = parser.parse(text)
    return shown


def _write(piece: str) -> None:
    sys.stdout.write(piece)
    sys.stdout.flush()
