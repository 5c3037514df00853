"""Background work: daemon threads, batched writes and heartbeats.

Futures and logs are imported where they are used: they take 7 ms, and most commands need neither.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from llmkit.core.fork import Lock, in_each_process

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from concurrent.futures import Future

T = TypeVar("T")


def background(function: Callable[[], T], *, name: str) -> Future[T]:
    """Run *function* on a daemon thread, which never keeps the process alive, and return its future."""
    from concurrent.futures import Future

    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - handed to whoever reads the result
            future.set_exception(error)

    _thread(work, name=name)
    return future


def _thread(function: Callable[[], Any], *, name: str) -> threading.Thread:
    """Run *function* on a daemon thread, in the caller's context."""
    thread = threading.Thread(target=contextvars.copy_context().run, args=(function,), name=name, daemon=True)
    thread.start()
    return thread


def _warn(text: str, *values: Any) -> None:
    import logging

    logging.getLogger("llmkit").warning(text, *values)


class Batch:
    """Collects items and writes them in batches on a background thread; the rest when Python exits.

    Args:
        write: writes a list of items, all or none.
        seconds: how long an item waits for others to join its batch.
        name: of the thread.
    """

    def __init__(self, write: Callable[[list[Any]], None], seconds: float, *, name: str) -> None:
        self._write = write
        self._seconds = seconds
        self._name = name
        self._items: list[Any] = []
        self._lock = Lock()
        self._writing = Lock()
        self._thread: threading.Thread | None = None
        in_each_process(self)
        _batches.add(self)

    def begin_anew(self) -> None:
        """Drop the unwritten items: they belong to the parent process."""
        self._items, self._thread = [], None

    def add(self, item: Any) -> None:
        """Add an item, to be written soon."""
        with self._lock:
            self._items.append(item)
            if self._thread is None or not self._thread.is_alive():
                self._thread = _thread(self._work, name=self._name)

    def add_now(self, item: Any) -> None:
        """Add an item and write it before returning; if that fails, it is written later."""
        self.add(item)
        with contextlib.suppress(Exception):
            self.flush()

    def flush(self) -> None:
        """Write the pending items; if that fails, they stay pending."""
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
        """Write until nothing is pending; the next item starts another thread."""
        wait_s = self._seconds
        while True:
            time.sleep(wait_s)
            try:
                self.flush()
            except Exception as error:  # noqa: BLE001 - whatever the writer raises
                _warn("%s: cannot write, and tries again: %s", self._name, error)
                wait_s = min(wait_s * 2, 30.0)
            with self._lock:
                if not self._items:
                    self._thread = None
                    return

    def last(self) -> None:
        """Write the pending items as the process exits; log how many are lost."""
        try:
            self.flush()
        except Exception as error:  # noqa: BLE001 - whatever the writer raises
            _warn("%s: %d items are lost: %s", self._name, len(self._items), error)


_batches: weakref.WeakSet[Batch] = weakref.WeakSet()  # one with items is kept by the thread that writes them


@atexit.register
def _write_what_waits() -> None:
    for batch in list(_batches):
        batch.last()


class Heartbeat:
    """Calls a function again and again on a thread, from `start` to `stop` or until it raises.

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
        """Start calling."""
        background(self._work, name=self._name)

    def stop(self) -> None:
        """Stop calling, without waiting for a call under way."""
        self._ended.set()

    def _work(self) -> None:
        while not self._ended.wait(self._seconds):
            self._function()


def forget(task: asyncio.Future[Any]) -> None:
    """Retrieve a task's late failure, so that asyncio does not complain about it."""
    if not task.cancelled():
        task.exception()
