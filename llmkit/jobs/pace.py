"""How many rows of a job are asked at a time, and when."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from llmkit.core.engine import Backend
from llmkit.errors import RateLimitError

if TYPE_CHECKING:
    from llmkit.core.types import AsyncSource, Reply, Request, Source

_LONGEST_PAUSE_S = 600.0
_WAITS = 10


class Pace:
    """How many rows are asked at a time; a provider that wants a pause gets it from all of them.

    Args:
        places: rows at a time.
    """

    def __init__(self, places: int) -> None:
        self.most = places
        self._resumes_at = 0.0
        self._waited: dict[int, int] = {}

    def places(self) -> int:
        """Return how many rows may be under way."""
        return self.most

    def is_paused(self) -> bool:
        """Return whether nothing may be sent just now."""
        return self._resumes_at > time.monotonic()

    def pause(self, seconds: float) -> None:
        """Send nothing for so long."""
        self._resumes_at = max(self._resumes_at, time.monotonic() + min(seconds, _LONGEST_PAUSE_S))

    def may_wait(self, number: int) -> bool:
        """Return whether a row that the provider takes not now is asked later."""
        self._waited[number] = self._waited.get(number, 0) + 1
        return self._waited[number] <= _WAITS

    def over(self, backend: Backend) -> Backend:
        """Return the backend with the pauses of this pace."""
        return _Paced(backend, self)

    async def turn(self) -> None:
        """Wait until a request may be sent."""
        while (wait_s := self._resumes_at - time.monotonic()) > 0:  # noqa: ASYNC110 - the pause may become longer
            await asyncio.sleep(wait_s)

    def refused(self, error: RateLimitError) -> None:
        """Take a 429 into account."""
        if error.retry_after_s is not None:
            self.pause(error.retry_after_s)

    def answered(self) -> None:
        """Take an answer into account."""


class _Paced(Backend):
    """Sends when the pace allows it."""

    def __init__(self, backend: Backend, pace: Pace) -> None:
        self._backend = backend
        self._pace = pace

    async def asend(self, request: Request) -> Reply:
        await self._pace.turn()
        try:
            reply = await self._backend.asend(request)
        except RateLimitError as error:
            self._pace.refused(error)
            raise
        self._pace.answered()
        return reply

    async def asleep(self, seconds: float) -> None:
        await self._backend.asleep(seconds)

    def send(self, _: Request) -> Reply:
        raise AssertionError("a job awaits its answers")

    def open(self, _: Request) -> Source:
        raise AssertionError("a job wants whole answers")

    async def aopen(self, _: Request) -> AsyncSource:
        raise AssertionError("a job wants whole answers")
