"""A program in a real terminal: what is typed, what stands on the screen, and what has scrolled away above it."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING

import pexpect
import pyte

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE_S = 30


class Terminal:
    """A terminal in which `llmkit ARGS`, or another *command*, runs; use it as a context.

    Args:
        args: of llmkit, or the whole command with *command*.
        columns, lines: its size.
        env: variables besides those of the test.
    """

    def __init__(
        self,
        *args: str,
        columns: int = 80,
        lines: int = 24,
        command: Sequence[str] = (sys.executable, "-m", "llmkit"),
        **env: str,
    ) -> None:
        self.screen = pyte.HistoryScreen(columns, lines, history=5000, ratio=0.5)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        around = {**os.environ, "TERM": "xterm-256color", **env}
        self._child = pexpect.spawn(
            command[0],
            [*command[1:], *args],
            env=around,
            dimensions=(lines, columns),
            timeout=PATIENCE_S,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # a suite may run below `nohup`
        )

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.close(force=True)

    @property
    def pid(self) -> int:
        """The process."""
        return int(self._child.pid)

    def type(self, text: str) -> None:
        """Type a text; "\\r" is Enter, "\\x03" Ctrl-C, "\\t" the tabulator."""
        self._child.send(text)

    def resize(self, columns: int, lines: int) -> None:
        """Change the size."""
        self._child.setwinsize(lines, columns)
        self.screen.resize(lines, columns)

    def wait_for(self, text: str, times: int = 1) -> str:
        """Read until a text has come so often, and return all that is shown."""
        ends = time.monotonic() + PATIENCE_S
        while self.text().count(text) < times:
            assert time.monotonic() < ends, f"{text!r} has not come {times} times:\n{self.text()}"
            self._read(0.1)
        return self.text()

    def wait(self) -> int:
        """Read to the end, and return the exit code."""
        ends = time.monotonic() + PATIENCE_S
        while self._child.isalive() or self._read(0.05):
            assert time.monotonic() < ends, f"it does not end:\n{self.text()}"
            self._read(0.05)
        return int(self._child.exitstatus if self._child.exitstatus is not None else -self._child.signalstatus)

    def text(self) -> str:
        """Return all lines, those that have scrolled away first, without the spaces at their ends."""
        above = ["".join(line[at].data for at in range(self.screen.columns)) for line in self.screen.history.top]
        return "\n".join(line.rstrip() for line in [*above, *self.screen.display]).rstrip()

    def _read(self, seconds: float) -> bool:
        try:
            data = self._child.read_nonblocking(65536, timeout=seconds)
        except (pexpect.TIMEOUT, pexpect.EOF):
            return False
        self.raw += data
        self._stream.feed(data)
        return True
