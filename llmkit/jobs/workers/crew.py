"""Processes on this machine that share a job. Each is `python -m llmkit.jobs`, told on its stdin what to ask.

A process says on its stdout, as JSON lines, what it has done; one that dies is started again. It ends when its stdin
does, so that none is left over where their parent is killed.
"""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from base64 import b64decode, b64encode
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from llmkit.api import real_backend
from llmkit.core.background import background
from llmkit.errors import InvalidRequestError, LlmkitError
from llmkit.jobs.asking import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmkit.jobs.asking import Asking
    from llmkit.jobs.workers.orders import Orders

SAID_S = 0.2
"""How often a process says what it has done."""
_TOO_SOON_S, _TOO_OFTEN = 5.0, 5


class Crew:
    """Processes that ask the rows of a job until none is left.

    Args:
        orders: what they are told.
        number: of processes.
        on_settled: called on any thread when answers were stored.

    Raises:
        InvalidRequestError: what is asked cannot be handed to another process.
    """

    trouble = ""

    def __init__(self, orders: Orders, number: int, on_settled: Callable[[], object]) -> None:
        try:
            self._told = b64encode(pickle.dumps(orders)) + b"\n"
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise InvalidRequestError(f"this cannot be handed to other processes: {error}") from error
        self._number, self._on_settled = number, on_settled
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._said: dict[tuple[int, int], Sequence[float]] = {}
        self._stopping = False
        self._fatal: LlmkitError | None = None

    @property
    def tally(self) -> Tally:
        """What all of them have done."""
        whole = Tally()
        for done, failed, cost_usd in list(self._said.values()):
            whole.done += int(done)
            whole.failed += int(failed)
            whole.cost_usd += cost_usd
        return whole

    def run(self) -> None:
        """Ask.

        Raises:
            LlmkitError: what a process ended with.
        """
        members = [background(partial(self._member, place), name="llmkit-map") for place in range(self._number)]
        for member in members:
            member.result()
        if self._fatal is not None:
            raise self._fatal

    def stop(self) -> None:
        """Let all of them end with the answers under way."""
        self._stopping = True
        for process in list(self._processes.values()):
            if process.stdin is not None:
                with suppress(OSError):
                    process.stdin.close()

    def drop(self) -> None:
        """Let them give up what is under way."""
        self.stop()
        for process in list(self._processes.values()):
            process.send_signal(signal.SIGTERM)

    def _member(self, place: int) -> None:
        """Keep one process going until it ends by itself."""
        soon = 0
        for life in range(10**6):
            began = time.monotonic()
            if self._stopping or self._lives(place, life):
                return
            soon = soon + 1 if time.monotonic() - began < _TOO_SOON_S else 0
            if soon >= _TOO_OFTEN:
                self._end(LlmkitError(f"a process of the map ended {soon} times at once; see what it said on stderr"))

    def _lives(self, place: int, life: int) -> bool:
        """Start one process and read what it says; return whether it ended by itself."""
        command = [sys.executable, "-m", "llmkit.jobs"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            self._processes[place] = process
            if process.stdin is None or process.stdout is None:
                raise AssertionError("both were asked for")
            with suppress(OSError):
                process.stdin.write(self._told)
                process.stdin.flush()
            if self._stopping:
                self.stop()
            for line in process.stdout:
                with suppress(ValueError):  # half a line of one that was killed
                    said: dict[str, Any] = json.loads(line)
                    self._said[place, life] = said["tally"]
                    self._on_settled()
                    if said["error"]:
                        self._end(pickle.loads(b64decode(said["error"])))  # noqa: S301 - our own process
            with suppress(OSError):
                process.stdin.close()
        return process.returncode == 0

    def _end(self, error: LlmkitError) -> None:
        self._fatal = self._fatal or error
        self.stop()


def work() -> None:
    """Do what stdin says, in a process of a crew."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    orders: Orders = pickle.loads(b64decode(sys.stdin.buffer.readline()))  # noqa: S301 - our own parent
    asking = orders.asking(real_backend())
    signal.signal(signal.SIGTERM, lambda *_: asking.drop())
    background(lambda: _until_the_end(asking), name="llmkit-map-stdin")
    ended = threading.Event()
    saying = background(lambda: _say(asking, ended), name="llmkit-map-stdout")
    error: LlmkitError | None = None
    try:
        asyncio.run(asking.run())
    except LlmkitError as raised:
        error = raised
    ended.set()
    saying.result()
    _print(asking, error)
    os._exit(0)  # its reader of stdin would hold up a usual end; what is in the ledger was settled with the rows


def _until_the_end(asking: Asking) -> None:
    sys.stdin.buffer.read()
    asking.stop()


def _say(asking: Asking, ended: threading.Event) -> None:
    before = (-1, 0)
    while not ended.wait(SAID_S):
        now = (asking.tally.done, asking.tally.failed)
        if now != before:
            _print(asking, None)
            before = now


def _print(asking: Asking, error: LlmkitError | None) -> None:
    tally = asking.tally
    raised = "" if error is None else b64encode(pickled(error)).decode()
    line = json.dumps({"tally": [tally.done, tally.failed, tally.cost_usd], "error": raised})
    with suppress(OSError):  # the parent was killed
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def pickled(error: LlmkitError) -> bytes:
    """Return an error for another process; one that cannot be handed over goes by its text."""
    try:
        made = pickle.dumps(error)
        pickle.loads(made)  # noqa: S301 - just made
    except Exception:  # noqa: BLE001 - whatever its parts raise
        return pickle.dumps(LlmkitError(str(error)))
    return made
