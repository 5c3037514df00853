"""LiteLLM and event loops: its slow or lingering work is kept off them, or closed after it."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import threading
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

from llmkit.core.background import forget

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")
_PREPARING_S = 2
_done: set[Callable[[], Any]] = set()


async def off_loop(function: Callable[[], T]) -> T:
    """Return the function's result without blocking the event loop; for functions that are slow only once."""
    if function in _done:
        return function()
    result = await asyncio.to_thread(function)
    _done.add(function)
    return result


async def unless_begun(work: Coroutine[Any, Any, T], has_begun: Callable[[], bool]) -> T:
    """Await *work*; if this is cancelled, cancel the work too, but not before it has begun.

    LiteLLM prepares a request on a thread, and returns an awaitable: cancelled in between, nobody would await it.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        for _ in range(_PREPARING_S * 200):
            if task.done() or has_begun():
                break
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait({task})
        forget(task)
        raise


class MainLoop:
    """The event loop that LiteLLM's sync calls make on the main thread and leave open: closed as Python exits.

    It is made before they do, so that it is known; a loop set by the program is only kept.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0

    def hold(self) -> None:
        """Make the main thread's loop, if this is the main thread and no loop is running."""
        if self._loop is not None or threading.current_thread() is not threading.main_thread():
            return
        with contextlib.suppress(RuntimeError), warnings.catch_warnings():  # Python 3.14 has no loop unless one is set
            warnings.simplefilter("ignore", DeprecationWarning)
            self._loop, self._process = asyncio.get_event_loop_policy().get_event_loop(), os.getpid()
            atexit.register(self._close)

    def _close(self) -> None:
        loop: Any = self._loop
        if loop is None or loop.is_running():
            return
        if self._process == os.getpid():
            loop.close()
        else:  # closing it in a child takes its files from the parent's selector, and Python closes what is open
            loop._closed = True  # noqa: SLF001


main_loop = MainLoop()
