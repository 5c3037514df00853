"""Concurrent work with results in order, on threads or as asyncio tasks; and a progress bar.

Items are taken from an iterable as there is room, so it may be endless. Leaving early stops the rest.
"""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Sized
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYetError
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from llmkit.core.background import background
from llmkit.providers.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterable, Iterator

T = TypeVar("T")
R = TypeVar("R")
F = TypeVar("F")
AHEAD = 4
"""How many items may be started and not yet returned, per unit of concurrency: one slow answer stops no other."""
PATIENCE_S = 2.0
"""A progress bar is shown if the work takes longer than this."""


class _Ahead(Generic[T, F]):
    """Work that is started and whose results are not yet returned, oldest first."""

    def __init__(self, items: Iterable[T], room: int, start: Callable[[T], F]) -> None:
        self._items = iter(items)
        self._room = room
        self._start = start
        self._error: BaseException | None = None
        self._ended = False
        self.started: deque[F] = deque()

    def fill(self) -> bool:
        """Start as much as there is room for; return whether any work is left.

        An error of the iterable is raised after the results before it.
        """
        while not self._ended and len(self.started) < self._room:
            try:
                item = next(self._items)
            except StopIteration:
                self._ended = True
            except Exception as error:  # noqa: BLE001 - whatever the caller's iterable raises
                self._ended, self._error = True, error
            else:
                self.started.append(self._start(item))
        if not self.started and self._error is not None:
            raise self._error
        return bool(self.started)


class ProgressBar:
    """A progress bar on stderr, shown if the work takes longer than `PATIENCE_S` and stderr is a terminal.

    Args:
        items: the work; for items without a length the bar only counts.
        progress: True to show it at once and wherever stderr leads, False for no bar.
    """

    def __init__(self, items: Iterable[Any], progress: bool | None) -> None:  # noqa: FBT001 - as the caller gave it
        on_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._total = len(items) if isinstance(items, Sized) else None
        self._shown = (on_terminal if progress is None else progress) and sys.stderr is not None
        self._due = time.monotonic() + (0.0 if progress else PATIENCE_S)
        self._bar: Any = None
        self._task: Any = None
        self._done = 0

    def patience_s(self) -> float | None:
        """Return in how many seconds the bar is due, or None if it is not (any more)."""
        return None if self._bar is not None or not self._shown else max(0.0, self._due - time.monotonic())

    def show(self) -> None:
        """Show the bar."""
        self._bar = progress_bar("asking")
        self._task = self._bar.add_task("", total=self._total, completed=self._done)
        self._bar.start()

    def step(self) -> None:
        """Count one more finished item."""
        self._done += 1
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)

    @contextmanager
    def open(self) -> Iterator[None]:
        """Remove the bar at the end; one that was asked for is there from the beginning."""
        try:
            if self.patience_s() == 0:
                self.show()
            yield
        finally:
            if self._bar is not None:
                self._bar.stop()


class _Crew(Generic[T, R]):
    """Threads that work on the items given to them: as many as needed, up to *size*."""

    def __init__(self, work: Callable[[T, threading.Event], R], size: int) -> None:
        self._work = work
        self._size = size
        self._threads = 0
        self._stopped = threading.Event()
        self._jobs: queue.SimpleQueue[tuple[T, Future[R]] | None] = queue.SimpleQueue()

    def start(self, item: T) -> Future[R]:
        """Return the future result for an item."""
        future: Future[R] = Future()
        self._jobs.put((item, future))
        if self._threads < self._size:
            self._threads += 1
            background(self._serve, name="llmkit-map")
        return future

    def stop(self) -> None:
        """Start nothing more, and end the threads."""
        self._stopped.set()
        for _ in range(self._threads):
            self._jobs.put(None)

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            item, future = job
            if self._stopped.is_set():
                continue
            try:
                future.set_result(self._work(item, self._stopped))
            except BaseException as error:  # noqa: BLE001 - handed to whoever reads the result
                future.set_exception(error)


def ordered(
    items: Iterable[T],
    work: Callable[[T, threading.Event], R],
    concurrency: int,
    progress: bool | None,  # noqa: FBT001 - as the caller gave it
) -> Generator[R, None, None]:
    """Yield what *work* returns for each item, in order; *concurrency* items at once, on threads.

    *work* also gets an event, which is set when nobody waits for the result any more.
    """
    crew = _Crew(work, concurrency)
    ahead, bar = _Ahead(items, AHEAD * concurrency, crew.start), ProgressBar(items, progress)
    try:
        with bar.open():
            while ahead.fill():
                future = ahead.started[0]
                try:
                    future.result(bar.patience_s())
                except NotYetError:
                    if not future.done():
                        bar.show()
                result = future.result()
                ahead.started.popleft()
                bar.step()
                yield result
    finally:
        crew.stop()


async def aordered(
    items: Iterable[T],
    work: Callable[[T], Coroutine[Any, Any, R]],
    concurrency: int,
    progress: bool | None,  # noqa: FBT001 - as the caller gave it
) -> AsyncGenerator[R, None]:
    """Yield what *work* returns for each item, in order; *concurrency* items at once, as tasks."""
    room = asyncio.Semaphore(concurrency)

    async def limited(item: T) -> R:
        async with room:
            return await work(item)

    def start(item: T) -> asyncio.Task[R]:
        return asyncio.create_task(limited(item))

    ahead, bar = _Ahead(items, AHEAD * concurrency, start), ProgressBar(items, progress)
    try:
        with bar.open():
            while ahead.fill():
                task = ahead.started[0]
                done, _ = await asyncio.wait({task}, timeout=bar.patience_s())
                if not done:
                    bar.show()
                result = await task
                ahead.started.popleft()
                bar.step()
                yield result
    finally:
        for task in ahead.started:
            task.cancel()
        await asyncio.gather(*ahead.started, return_exceptions=True)
