"""How many rows of a job are asked at a time, and when.

Nothing here waits for the store: `asking` brings what other processes say, in the transaction that claims rows.
"""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from llmkit.core.engine import Backend
from llmkit.core.messages import whole_number
from llmkit.errors import InvalidRequestError, RateLimitError
from llmkit.store.quotas import LONGEST_PAUSE_S

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llmkit.core.types import AsyncSource, Reply, Request, Source

AtOnce: TypeAlias = "int | Literal['auto']"
MOST = 10_000
AHEAD_S = 0.5
"""How long before its time a row is claimed, so that a place in the rate is not lost to the store."""
_WAITS = 10
_FIRST, _MOST = 8, 256
_BETTER, _WORSE, _FADED = 1.2, 0.9, 0.97
_ROUNDS, _STEP = 2, 0.05
_LATE_S = 0.03
_SPARE = 8
"""A row is claimed ahead for so many places: a place that is free is taken at once, not when the store was asked."""


def at_once_of(given: Any) -> AtOnce:
    """Return how many rows are asked at a time, checked.

    Raises:
        InvalidRequestError: it is neither "auto" nor a whole number from 1 to `MOST`.
    """
    if given == "auto":
        return "auto"
    if (number := whole_number("at_once", given)) > MOST:
        raise InvalidRequestError(f"at_once is {MOST} at most, not {number}")
    return number


@dataclass(frozen=True, slots=True)
class Refusal:
    """A 429 whose provider wants a pause: when its request was sent, on the monotonic clock, and for how long."""

    sent_at: float
    retry_after_s: float


class Pace:
    """How many rows are asked at a time; a provider that wants a pause gets it from all of them.

    With "auto" it finds the number by itself: twice as many while that brings more answers a second, then one more at a
    time, and half as many after a 429. One that says when to come back is about how many a second: see `store.quotas`.

    Args:
        at_once: rows at a time.
        on_pause: called when a provider asks for one.

    Attributes:
        most: how many may be claimed at the most.
        is_spaced: whether requests have places in a rate: one that was given, or one that a provider has taught.
        refusals: what the store does not know yet.
    """

    is_spaced = False

    def __init__(self, at_once: AtOnce, on_pause: Callable[[], object] = lambda: None) -> None:
        self._is_fixed = at_once != "auto"
        self.most = sys.maxsize
        self._limit = float(_FIRST if at_once == "auto" else at_once)
        self._on_pause = on_pause
        self._resumes_at = 0.0
        self.refusals: list[Refusal] = []
        self._sending, self._stopped, self._freed = 0, False, asyncio.Condition()
        self._waited: dict[int, int] = {}
        self._doubles = True
        self._best = 0.0
        self._halved_at = 0.0
        self._begin()

    def places(self) -> int:
        """Return how many requests may be under way."""
        return max(1, min(self.most, int(self._limit)))

    def rows(self) -> int:
        """Return how many rows may be claimed: a few wait for a place, or for a moment in the rate."""
        places = self.places()
        return places if self.is_spaced else min(self.most, places + places // _SPARE)

    async def take_place(self, *, is_first: bool) -> None:
        """Take one of the places, as soon as one is free.

        Raises:
            asyncio.CancelledError: `stop` was called before the first request of a row had a place.
        """
        if self._sending >= self.places() or self._stopped:
            async with self._freed:
                await self._freed.wait_for(lambda: (self._stopped and is_first) or self._sending < self.places())
            if self._stopped and is_first:
                raise asyncio.CancelledError
        self._sending += 1

    async def leave_place(self) -> None:
        """Let somebody else have the place."""
        self._sending -= 1
        async with self._freed:
            self._freed.notify(max(1, self.places() - self._sending))

    async def stop(self) -> None:
        """Send no row that waits for a place."""
        self._stopped = True
        async with self._freed:
            self._freed.notify_all()

    def pause_s(self) -> float:
        """Return for how many more seconds nothing may be sent."""
        return max(0.0, self._resumes_at - time.monotonic())

    def pause(self, seconds: float) -> None:
        """Send nothing for so long."""
        self._resumes_at = max(self._resumes_at, time.monotonic() + min(seconds, LONGEST_PAUSE_S))

    def may_wait(self, number: int) -> bool:
        """Return whether a row that the provider takes not now is asked later."""
        self._waited[number] = self._waited.get(number, 0) + 1
        return self._waited[number] <= _WAITS

    async def turn(self, start_at: float = 0.0) -> None:
        """Wait until a request may be sent, *start_at* (on the monotonic clock) at the earliest."""
        while (wait_s := max(start_at, self._resumes_at) - time.monotonic()) > 0:  # noqa: ASYNC110 - it may become longer
            await asyncio.sleep(wait_s)

    def refused(self, error: RateLimitError, sent_at: float) -> None:
        """Take a 429 into account; those of requests that were sent before the last one say nothing new."""
        if error.retry_after_s is not None:
            self.pause(error.retry_after_s)
            self.refusals.append(Refusal(sent_at, error.retry_after_s))
            self.is_spaced = True
            self._on_pause()
        elif not self._is_fixed and sent_at > self._halved_at:
            self._limit, self._doubles = max(1.0, self._limit / 2), False
            self._halved_at, self._best = time.monotonic(), 0.0
            self._begin()

    def answered(self, reply: Reply, sent_at: float) -> None:
        """Take an answer to a request into account that was sent at a moment."""
        if self._is_fixed:
            return
        left = reply.rate_limits.get("x-ratelimit-remaining-requests", "")
        if left.isdecimal() and int(left) < self._limit:
            self._limit, self._doubles = max(1.0, float(left)), False
            self._begin()
            return
        if sent_at < self._since:  # with another number under way
            return
        now = time.monotonic()
        self._answers += 1
        self._waited_s += now - sent_at
        spent_s = now - self._since
        # answers come in bursts: a rate is that of two rounds of them at the least
        if self._answers < _ROUNDS * self._limit or spent_s < _ROUNDS * self._waited_s / self._answers:
            return
        rate, step = self._answers / spent_s, max(1.0, self._limit * _STEP)
        if self.is_spaced:  # the quota decides how many a second; places are all that is needed for that
            self._limit += step
        elif self._doubles:
            self._doubles = rate > self._best * _BETTER
            self._limit = self._limit * 2 if self._doubles else self._limit / 2
        else:
            self._limit += step if rate > self._best * _WORSE else -step
        self._limit = min(max(self._limit, 1.0), float(_MOST))
        self._best = max(rate, self._best * _FADED)
        self._begin()

    def _begin(self) -> None:
        """Begin to measure a rate."""
        self._since, self._answers, self._waited_s = time.monotonic(), 0, 0.0


class Paced(Backend):
    """Sends the requests of one row when the pace allows it.

    Args:
        backend: sends.
        pace: the pace.
        start_at: the place of the first request, on the monotonic clock.
        place: returns the place of a further one.
    """

    def __init__(self, backend: Backend, pace: Pace, start_at: float, place: Callable[[], Awaitable[float]]) -> None:
        self._backend, self._pace, self._start_at, self._place = backend, pace, start_at, place
        self._is_first = True

    async def asend(self, request: Request) -> Reply:
        """Send once."""
        try:
            await self._wait()
        except asyncio.CancelledError as error:
            error.sent = error.may_be_paid = False  # type: ignore[attr-defined]  # for the flow, as errors have them
            raise
        sent_at = time.monotonic()
        try:
            reply = await self._backend.asend(request)
        except RateLimitError as error:
            self._pace.refused(error, sent_at)
            raise
        finally:
            await self._pace.leave_place()
        self._pace.answered(reply, sent_at)
        return reply

    async def _wait(self) -> None:
        """Wait for a place, and for the moment to send."""
        is_first, self._is_first = self._is_first, False
        if not is_first and self._pace.is_spaced:
            self._start_at = await self._place()
        await self._pace.take_place(is_first=is_first)
        try:
            await self._pace.turn(self._start_at)
            while self._pace.is_spaced and time.monotonic() - self._start_at > _LATE_S:  # others have had theirs since
                self._start_at = await self._place()
                await self._pace.turn(self._start_at)
        except BaseException:
            await self._pace.leave_place()
            raise

    async def asleep(self, seconds: float) -> None:
        """Wait."""
        await self._backend.asleep(seconds)

    def send(self, _: Request) -> Reply:
        """Refuse: a job awaits its answers."""
        raise AssertionError("a job awaits its answers")

    def open(self, _: Request) -> Source:
        """Refuse: a job wants whole answers."""
        raise AssertionError("a job wants whole answers")

    async def aopen(self, _: Request) -> AsyncSource:
        """Refuse: a job wants whole answers."""
        raise AssertionError("a job wants whole answers")
