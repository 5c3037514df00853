"""Where a user's model.py runs: an event loop on a thread of its own.

What `init` makes belongs to one loop, whichever caller: the server or a run. An async function that blocks holds up its
own model, and not the server. anyio's portals would do, except that closing one waits for a blocked loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import threading
import time
from typing import TYPE_CHECKING, Any

from llmkit.core.background import background

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

_CLOSE_S = 5.0


class ModelLoop:
    """An event loop in a daemon thread, started on first use.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Future[None] | None = None
        self._waits_since: float | None = None

    @property
    def blocked_s(self) -> float:
        """For how many seconds the loop has not started its next task."""
        since = self._waits_since
        return 0.0 if since is None else time.monotonic() - since

    def get(self) -> asyncio.AbstractEventLoop:
        """Return the loop, started if necessary.

        Raises:
            RuntimeError: it is closed.
        """
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = background(self._live, name=self._name)
        if self._loop.is_closed():
            raise RuntimeError("the model is stopped")
        return self._loop

    def submit(self, work: Callable[[], Any]) -> Future[Any]:
        """Call *work*, sync or async, on the loop, and return its future; cancelling that cancels what is awaited."""
        loop = self.get()
        if self._waits_since is None:
            self._waits_since = time.monotonic()
        loop.call_soon_threadsafe(self._note_that_it_runs)
        return asyncio.run_coroutine_threadsafe(_ordinarily(work), loop)

    async def run(self, work: Callable[[], Any]) -> Any:
        """Return the result of *work* on the loop; cancelling this cancels it, without waiting for its end."""
        return await asyncio.wrap_future(self.submit(work))

    async def close(self) -> None:
        """End the loop and its tasks; a loop that stays blocked is abandoned after a while."""
        if self._loop is None or self._thread is None:
            return
        with contextlib.suppress(RuntimeError):  # it is closed already
            self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.wait({asyncio.wrap_future(self._thread)}, timeout=_CLOSE_S)

    def _live(self) -> None:
        loop = self._loop
        assert loop is not None  # noqa: S101 - made before the thread is
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

    def _note_that_it_runs(self) -> None:
        self._waits_since = None


async def _ordinarily(work: Callable[[], Any]) -> Any:
    """Return the result of *work*; its exceptions are converted to ordinary ones."""
    try:
        result = work()
        return await result if inspect.isawaitable(result) else result
    except BaseException as error:  # a task that is cancelled ends here, and nobody looks at its result
        if (converted := ordinary(error)) is error:
            raise
        raise converted from error


def ordinary(error: BaseException) -> Exception:
    """Return an exception that loops and futures accept: no StopIteration, cancellation or exit."""
    odd = StopIteration | StopAsyncIteration | concurrent.futures.CancelledError
    if isinstance(error, Exception) and not isinstance(error, odd):
        return error
    made = RuntimeError(f"it raised {type(error).__name__}")
    made.__cause__ = error
    return made
