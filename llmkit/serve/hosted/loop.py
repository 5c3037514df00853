"""Where somebody's model.py runs: on an event loop and on threads of its own.

What it makes in `init` belongs to one loop, whoever asks: the server or a run. An async function that blocks holds up
its own model, and not the server; whatever either kind raises leaves as an ordinary exception.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import inspect
import logging
import queue
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from llmkit._work import background

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
log = logging.getLogger("llmkit.serve")
_END: Any = object()
_CLOSE_S = 5.0


class PoolFullError(Exception):
    """No thread became free in time."""


class ModelLoop:
    """An event loop in a thread that does not hold the process up when it ends; it begins when it is first needed.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Future[None] | None = None
        self._asked_at: float | None = None

    @property
    def blocked_s(self) -> float:
        """For how many seconds the loop has let something wait that it was asked."""
        asked_at = self._asked_at
        return 0.0 if asked_at is None else time.monotonic() - asked_at

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Call *work* on the loop, plain or async, and return its future; cancelling that cancels what is awaited."""
        if (loop := self._running()).is_closed():
            raise RuntimeError("the model is stopped")
        if self._asked_at is None:
            self._asked_at = time.monotonic()
        self.call(self._answer)
        return asyncio.run_coroutine_threadsafe(_ordinarily(work), loop)

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Have a function called on the loop, where that still runs, and do not wait for it."""
        with contextlib.suppress(RuntimeError):
            self._running().call_soon_threadsafe(function, *args)

    async def run(self, work: Callable[[], Any]) -> Any:
        """Return what *work* returns on the loop; whoever waits no longer cancels it, and does not wait for its end."""
        return await asyncio.wrap_future(self.submit(work))

    async def close(self) -> None:
        """End the loop and what is left on it; one that is blocked is left alone after a while."""
        with self._lock:
            loop, thread = self._loop, self._thread
        if loop is None or thread is None:
            return
        with contextlib.suppress(RuntimeError):  # it is closed already
            loop.call_soon_threadsafe(loop.stop)
        await asyncio.wait({asyncio.wrap_future(thread)}, timeout=_CLOSE_S)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = background(self._live, name=self._name)
            return self._loop

    def _live(self) -> None:
        loop = self._running()
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    def _answer(self) -> None:
        self._asked_at = None


class Pool:
    """Threads for functions that block, so many at the most; they do not hold the process up when it ends.

    A function that does not end keeps its thread: Python cannot end one. Its place is given to others after
    *lost_after_s*, as often as there are places; after that the model is stuck until the process begins anew.

    Args:
        size: how many functions run at once; threads are started when they are needed, and stay.
        name: of the threads.
        lost_after_s: seconds after which a function is believed not to end.
    """

    def __init__(self, size: int, *, name: str, lost_after_s: float = 600.0) -> None:
        self.size = size
        self._name = name
        self._lost_after_s = lost_after_s
        self._slots = asyncio.Semaphore(size)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = self._busy = self._overdue = self._given_away = 0

    @property
    def is_stuck(self) -> bool:
        """Whether no thread can be had any more."""
        return self._overdue >= 2 * self.size

    async def run(self, function: Callable[[], T], *, patience_s: float | None = None) -> T:
        """Return what a function returns that is called on a thread.

        A caller that is cancelled leaves the function to its end, and its thread is taken as long.

        Raises:
            PoolFullError: no thread became free in *patience_s*; None waits as long as it takes.
        """
        try:
            await asyncio.wait_for(self._slots.acquire(), patience_s)
        except asyncio.TimeoutError as error:
            raise PoolFullError from error
        loop, job = asyncio.get_running_loop(), _Job(function)
        clock = loop.call_later(self._lost_after_s, self._lose, job)

        def end(_: Any) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self._free, job, clock)

        job.future.add_done_callback(end)
        self._busy += 1
        if self._threads < self._busy:
            self._threads += 1
            background(self._work, name=self._name)
        self._jobs.put(job)
        result: T = await asyncio.wrap_future(job.future)
        return result

    def close(self) -> None:
        """Let the threads end, each when it is free."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _lose(self, job: _Job) -> None:
        job.is_overdue = True
        self._overdue += 1
        log.error("%s: a call goes on after %g s; its thread cannot be ended", self._name, self._lost_after_s)
        if self._given_away < self.size:
            job.gave_place = True
            self._given_away += 1
            self._slots.release()

    def _free(self, job: _Job, clock: asyncio.TimerHandle) -> None:
        clock.cancel()
        self._busy -= 1
        self._overdue -= job.is_overdue
        if job.gave_place:
            self._given_away -= 1
        else:
            self._slots.release()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if job.future.set_running_or_notify_cancel():
                try:
                    job.future.set_result(job.context.run(job.function))
                except BaseException as error:  # noqa: BLE001 - handed to whoever asked
                    job.future.set_exception(ordinary(error))
            del job  # nothing of a request is kept until the next one


class _Job:
    """A function on its way to a thread."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.context = contextvars.copy_context()
        self.future: Future[Any] = Future()
        self.is_overdue = self.gave_place = False


class Stepped:
    """A generator as one of another loop's: a plain one step by step on threads, an async one within one task.

    Args:
        pieces: what somebody's function has returned.
        loop: where it runs.
        pool: the threads.
    """

    def __init__(self, pieces: Any, loop: ModelLoop, pool: Pool) -> None:
        self._pieces = pieces
        self._is_async = hasattr(pieces, "__anext__")
        self._loop = loop
        self._pool = pool
        self._lock = threading.Lock()  # a step that nobody waits for any more ends before the generator is closed
        self._steps: asyncio.Queue[Future[Any] | None] = asyncio.Queue()
        self._driver: Future[Any] | None = None
        self._task: asyncio.Task[Any] | None = None

    def __aiter__(self) -> Stepped:
        """Return itself."""
        return self

    async def __anext__(self) -> Any:
        """Return what the next step yields."""
        if self._is_async:
            piece = await self._next()
        else:
            piece = await self._loop.run(lambda: self._pool.run(self._step))
        if piece is _END:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Close the generator, when the step under way has ended."""
        if not self._is_async:
            await self._loop.run(lambda: self._pool.run(self._close))
        elif self._driver is not None:
            self._loop.call(self._steps.put_nowait, None)
            await asyncio.wrap_future(self._driver)
        elif (close := getattr(self._pieces, "aclose", None)) is not None:
            await self._loop.run(close)

    async def _next(self) -> Any:
        if self._driver is None:
            self._driver = self._loop.submit(self._drive)
        step: Future[Any] = Future()
        self._loop.call(self._steps.put_nowait, step)
        try:
            return await asyncio.wrap_future(step)
        except asyncio.CancelledError:
            self._loop.call(self._give_up)
            raise

    async def _drive(self) -> None:
        """Take the steps that are asked for, in one task: scopes of the generator's may be open between two."""
        self._task = asyncio.current_task()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                while (step := await self._steps.get()) is not None:
                    await self._take(step)
        finally:
            if (close := getattr(self._pieces, "aclose", None)) is not None:
                await close()

    async def _take(self, step: Future[Any]) -> None:
        try:
            piece = await anext(self._pieces, _END)
        except BaseException as error:  # noqa: BLE001 - handed to whoever asked
            if step.set_running_or_notify_cancel():
                step.set_exception(ordinary(error))
        else:
            if step.set_running_or_notify_cancel():
                step.set_result(piece)

    def _give_up(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _step(self) -> Any:
        with self._lock:
            return next(self._pieces, _END)

    def _close(self) -> None:
        with self._lock:
            if (close := getattr(self._pieces, "close", None)) is not None:
                close()


async def _ordinarily(work: Callable[[], Any]) -> Any:
    """Return what *work* returns; what it raises is an ordinary exception."""
    try:
        result = work()
        return await result if inspect.isawaitable(result) else result
    except BaseException as error:  # a task that is cancelled ends here, and nobody looks at its result
        if (converted := ordinary(error)) is error:
            raise
        raise converted from error


def ordinary(error: BaseException) -> Exception:
    """Return an exception that loops and futures take as one: no StopIteration, no cancellation, no end of Python."""
    odd = StopIteration | StopAsyncIteration | concurrent.futures.CancelledError
    if isinstance(error, Exception) and not isinstance(error, odd):
        return error
    made = RuntimeError(f"it raised {type(error).__name__}")
    made.__cause__ = error
    return made
