"""Threads for the blocking functions of a model.py."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from llmkit.core.background import background
from llmkit.serve.hosted.loop import ordinary

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
log = logging.getLogger("llmkit.serve")


class PoolFullError(Exception):
    """No thread became free in time."""


class Threads:
    """A fixed number of daemon threads for blocking functions. For one event loop.

    anyio's own threads would keep the process alive if a function hangs: Python cannot stop one. Such a function is
    overdue after *lost_after_s*, and its thread is replaced, once for each thread; after that the model is stuck
    until the process restarts.

    Args:
        size: how many functions run at once.
        name: of the threads.
        lost_after_s: seconds after which a function counts as hanging.
    """

    def __init__(self, size: int, *, name: str, lost_after_s: float = 600.0) -> None:
        self.size = size
        self._name = name
        self._lost_after_s = lost_after_s
        self._places = anyio.CapacityLimiter(size)
        self._overdue: set[object] = set()

    @property
    def overdue(self) -> int:
        """How many functions hang."""
        return len(self._overdue)

    @property
    def is_stuck(self) -> bool:
        """Whether no thread is left."""
        return self.overdue >= 2 * self.size

    async def run(self, function: Callable[[], T], *, patience_s: float | None = None) -> T:
        """Return the result of a function that is called on a thread.

        If the caller is cancelled, the function runs to its end, and occupies its thread until then.

        Raises:
            PoolFullError: no thread became free in *patience_s*; None waits without limit.
        """
        call = object()
        try:
            with anyio.fail_after(patience_s):
                await self._places.acquire_on_behalf_of(call)
        except TimeoutError as error:
            raise PoolFullError from error
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[tuple[Any, Exception | None]] = loop.create_future()
        clock = loop.call_later(self._lost_after_s, self._lose, call)

        def end(ended: tuple[Any, Exception | None]) -> None:
            clock.cancel()
            self._places.release_on_behalf_of(call)
            self._overdue.discard(call)
            self._set_places()
            if not outcome.done():
                outcome.set_result(ended)

        def work() -> None:
            ended: tuple[Any, Exception | None]
            try:
                ended = function(), None
            except BaseException as error:  # noqa: BLE001 - handed to whoever reads the result
                ended = None, ordinary(error)
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(end, ended)

        background(work, name=self._name)
        result, failure = await outcome
        if failure is not None:
            raise failure
        return result  # type: ignore[no-any-return]

    def _lose(self, call: object) -> None:
        log.error("%s: a call goes on after %g s; its thread cannot be ended", self._name, self._lost_after_s)
        self._overdue.add(call)
        self._set_places()

    def _set_places(self) -> None:
        self._places.total_tokens = self.size + min(self.overdue, self.size)
