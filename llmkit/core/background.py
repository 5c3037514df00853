"""Work beside the caller's: threads that hold nothing up, and rows that are written in batches."""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import logging
import threading
import time
import weakref
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from llmkit.core.fork import Lock, in_each_process

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

T = TypeVar("T")
log = logging.getLogger("llmkit")


def background(function: Callable[[], T], *, name: str) -> Future[T]:
    """Start *function* on a thread that does not hold the process up, and return its future."""
    future: Future[T] = Future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            future.set_result(context.run(function))
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            future.set_exception(error)

    threading.Thread(target=work, name=name, daemon=True).start()
    return future


class Batch:
    """Collects items and writes those of a short time together, on a thread of its own; the rest when Python ends.

    Args:
        write: writes a list of items, all or none.
        seconds: how long an item waits for others.
        name: of the thread.
    """

    def __init__(self, write: Callable[[list[Any]], None], seconds: float, *, name: str) -> None:
        self._write = write
        self._seconds = seconds
        self._name = name
        self._items: list[Any] = []
        self._lock = Lock()
        self._writing = Lock()
        self._thread: Future[None] | None = None
        in_each_process(self)
        _batches.add(self)

    def begin_anew(self) -> None:
        """Leave to the parent process what it had not written yet."""
        self._items, self._thread = [], None

    def add(self, item: Any) -> None:
        """Take an item; it is written soon."""
        with self._lock:
            self._items.append(item)
            if self._thread is None or self._thread.done():
                self._thread = background(self._work, name=self._name)

    def add_now(self, item: Any) -> None:
        """Take an item and write it before this returns; where that fails it is written later."""
        self.add(item)
        with contextlib.suppress(Exception):
            self.flush()

    def flush(self) -> None:
        """Write what waits; where that fails it goes on waiting."""
        with self._writing:
            with self._lock:
                items, self._items = self._items, []
            if not items:
                return
            try:
                self._write(items)
            except BaseException:
                with self._lock:
                    self._items = items + self._items
                raise

    def _work(self) -> None:
        """Write until nothing waits; the next item starts another thread."""
        wait_s = self._seconds
        while True:
            time.sleep(wait_s)
            try:
                self.flush()
            except Exception as error:  # noqa: BLE001 - whatever the writer raises
                log.warning("%s: cannot write, and tries again: %s", self._name, error)
                wait_s = min(wait_s * 2, 30.0)
            with self._lock:
                if not self._items:
                    self._thread = None
                    return

    def last(self) -> None:
        """Write what waits at the end of the process; what cannot be written is lost, and told."""
        try:
            self.flush()
        except Exception as error:  # noqa: BLE001 - whatever the writer raises
            log.warning("%s: %d items are lost: %s", self._name, len(self._items), error)


_batches: weakref.WeakSet[Batch] = weakref.WeakSet()  # one with items is kept by the thread that writes them


@atexit.register
def _write_what_waits() -> None:
    for batch in list(_batches):
        batch.last()


class Heartbeat:
    """Calls a function again and again on a thread, between `start` and `stop`; what it raises ends that.

    Args:
        seconds: between two calls.
        function: what is called.
        name: of the thread.
    """

    def __init__(self, seconds: float, function: Callable[[], Any], *, name: str) -> None:
        self._seconds = seconds
        self._function = function
        self._name = name
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin."""
        background(self._work, name=self._name)

    def stop(self) -> None:
        """End; a call under way is not waited for."""
        self._ended.set()

    def _work(self) -> None:
        while not self._ended.wait(self._seconds):
            self._function()


def forget(task: asyncio.Future[Any]) -> None:
    """Take note of a late failure, so that asyncio does not complain about it."""
    if not task.cancelled():
        task.exception()
