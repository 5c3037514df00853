"""Asks the rows of a job on one event loop: claims as many as have a place, and stores what became of them.

What ended meanwhile is settled, and the next rows are claimed, in one transaction. A few more are claimed than have a
place, so that no place is empty for that long. No more than that many rows can be asked twice if the process is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from typing import TYPE_CHECKING

from llmkit.core.background import background
from llmkit.core.engine import adrive
from llmkit.core.tool_loop import answer
from llmkit.errors import (
    AuthenticationError,
    BudgetExceededError,
    ConfigError,
    LlmkitError,
    LocalModelError,
    NotFoundError,
    PaymentRequiredError,
    PresetError,
    ProviderError,
    QuotaExceededError,
    RateLimitError,
    StoreError,
)
from llmkit.jobs.exchange import LOOK_S, Ended, Exchange
from llmkit.jobs.pace import Pace, Paced
from llmkit.jobs.results import answered, failed
from llmkit.store.jobs import DONE, FAILED, WAITING, Settled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmkit.core.engine import Backend
    from llmkit.jobs.exchange import Claim, Found
    from llmkit.jobs.job import Job
    from llmkit.jobs.pace import AtOnce
    from llmkit.jobs.settings import Asked
    from llmkit.store.quotas import Quota

log = logging.getLogger("llmkit")
WATCH_S = 0.1
"""How often a process looks whether a provider has asked another one for a pause."""
IDLE_S = 0.25
"""How often a process without work looks for some."""
_ALL_FAIL = (
    *(AuthenticationError, PaymentRequiredError, NotFoundError, QuotaExceededError),
    *(ConfigError, LocalModelError),
)
"""Errors that every other row would have too."""
_IN_A_ROW = 20


class Tally:
    """What a process has done of a job: rows answered and failed, and US dollars."""

    def __init__(self) -> None:
        self.done = self.failed = 0
        self.cost_usd = 0.0


class Asking:
    """Asks the rows of a job until none is left, it is stopped, or all would fail.

    Args:
        job: the job.
        asked: makes the turns.
        backend: sends them.
        at_once: how many at a time.
        limits: the quotas that all processes keep to.
        on_settled: called on any thread when answers were stored.

    Attributes:
        tally: what was done.
        trouble: why the store cannot be reached just now, or "".
    """

    def __init__(
        self,
        job: Job,
        asked: Asked,
        backend: Backend,
        *,
        at_once: AtOnce,
        limits: Sequence[Quota],
        on_settled: Callable[[], object] = lambda: None,
    ) -> None:
        self.tally = Tally()
        self.trouble = ""
        self._asked, self._backend, self._on_settled = asked, backend, on_settled
        self._wake = asyncio.Event()
        self._over, self._refused = threading.Event(), threading.Event()
        self._pace = Pace(at_once, self._refused.set)
        self._flight: dict[int, asyncio.Task[None]] = {}
        self._ended: list[Ended] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = self._dropping = False
        self._refusal: BudgetExceededError | None = None
        self._fatal: BaseException | None = None
        self._failures = 0
        self._exchanging = Exchange(job, asked, self._pace, limits)

    # -- from other threads ---------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Claim no more rows; `run` returns when the answers under way are there."""
        self._stopping = True
        self._awaken()

    def drop(self) -> None:
        """Give up what is under way too; it may be paid."""
        self._stopping = self._dropping = True
        self._awaken()

    def _awaken(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._wake.set)

    # -- on the loop ----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Ask.

        Raises:
            BudgetExceededError: the budget refuses every row that is left.
            LlmkitError: what every row would fail with; the rows wait.
        """
        self._loop = asyncio.get_running_loop()
        self._backend.load(self._asked.model)  # else the first request would be late for its place, or for a pause
        watching = background(self._watch, name="llmkit-map-quotas")
        try:
            while await self._round():
                pass
        finally:
            self._over.set()
            self._refused.set()
            await self._give_up()
            watching.result()
        if self._fatal is not None:
            raise self._fatal

    async def _round(self) -> bool:
        """Settle and claim; return whether there is more to do."""
        self._wake.clear()
        if self._dropping:
            return False
        room = await self._room()
        found = await self._exchange(room)
        if found.refusal is not None:
            self._refuse(found.refusal, len(self._flight) + len(found.claimed))
        for claim in found.claimed:
            self._flight[claim.number] = asyncio.ensure_future(self._ask(claim))
        if self._ended:
            return True
        if not self._flight and self._stopping:
            return False
        if not self._flight and self._refusal is not None and not self._waits_for_others(self._refusal):
            self._fatal = self._refusal
            return False
        if not self._flight and self._refusal is None and room and not found.claimed and not found.open:
            return False
        with contextlib.suppress(asyncio.TimeoutError):
            wait_s = min(LOOK_S if self._flight else IDLE_S, found.again_s or LOOK_S, self._pace.pause_s() or LOOK_S)
            await asyncio.wait_for(self._wake.wait(), wait_s)
        if not self._flight:
            self._refusal = None
        return True

    async def _room(self) -> int:
        """Return how many rows can be claimed when what has ended is settled."""
        if self._stopping:
            await self._pace.stop()
            return 0
        if self._refusal is not None or self._pace.pause_s():
            return 0
        if self._pace.is_spaced and not (self.tally.done or self.tally.failed):
            return 1 - min(1, len(self._flight))  # the first request imports and connects: others would be late
        return max(0, self._pace.rows() - len(self._flight) + len(self._ended))

    def _waits_for_others(self, refusal: BudgetExceededError) -> bool:
        """Return whether the budget may have room for another row when others' calls have ended."""
        if refusal.asked is None or refusal.limit is None or refusal.spent is None:
            return False
        return refusal.reserved > 0 and refusal.limit - refusal.spent >= refusal.asked

    async def _ask(self, claim: Claim) -> None:
        account = claim.account
        backend = Paced(self._backend, self._pace, claim.start_at, self._place)
        status, kept = WAITING, None
        try:
            reply = await adrive(answer(claim.turn_for(account)), backend)
        except asyncio.CancelledError:
            pass
        except LlmkitError as error:
            if not self._waits(error, claim.number):
                status, kept = FAILED, failed(error)
        except BaseException as error:  # noqa: BLE001 - raised by `run`, when the other rows have ended
            self._end(error)
        else:
            status, kept = DONE, answered(reply)
            self._refusal, self._failures = None, 0
        account.close()
        self._ended.append(Ended(Settled(status, kept, account.cost_usd, claim.number), account))
        self._wake.set()

    def _waits(self, error: LlmkitError, number: int) -> bool:
        """Return whether a row waits after an error that is not its own: it is asked later, or when all goes on."""
        if isinstance(error, BudgetExceededError):
            self._refuse(error, len(self._flight) - 1)
        elif isinstance(error, StoreError):  # of a budget; nothing was sent
            self._pace.pause(IDLE_S)
        elif isinstance(error, RateLimitError) and error.retryable:
            return self._pace.may_wait(number)
        elif isinstance(error, _ALL_FAIL) and not isinstance(error, PresetError):  # that one has this row's variables
            self._end(error)
        else:
            if isinstance(error, ProviderError) and error.retryable:
                self._failures += 1
            if self._failures >= max(_IN_A_ROW, 2 * self._pace.places()):
                self._end(error)  # no provider is there
            return False
        return True

    def _refuse(self, refusal: BudgetExceededError, fitting: int) -> None:
        """Claim no more until something has ended, and then no more than fitted into the budget."""
        self._refusal = refusal
        self._pace.most = max(1, fitting)

    def _end(self, error: BaseException) -> None:
        """Claim no more, and raise this at the end."""
        self._fatal, self._stopping = self._fatal or error, True

    async def _give_up(self) -> None:
        """Cancel what is under way, and store what became of everything."""
        for task in self._flight.values():
            task.cancel()
        if self._flight:
            await asyncio.wait(self._flight.values())
        while self._ended:
            await self._exchange(0)

    # -- the store ------------------------------------------------------------------------------------------------

    async def _place(self) -> float:
        """Return when the quotas have a place for a further request of a row."""
        return await asyncio.to_thread(self._exchanging.place)

    def _watch(self) -> None:
        """Tell others of a pause at once, and learn soon of theirs; on a thread of its own, which nothing holds up."""
        while not self._over.is_set():
            with contextlib.suppress(StoreError):
                self._exchanging.look()
            self._refused.wait(WATCH_S)
            self._refused.clear()

    async def _exchange(self, room: int) -> Found:
        """Store what has ended, and claim *room* rows; if the store is away, wait for it."""
        ended, self._ended = self._ended, []
        under_way = self._flight.keys() - {each.settled.number for each in ended}
        wait_s = IDLE_S
        while True:
            try:
                found = await asyncio.to_thread(self._exchanging, ended, room, under_way)
                break
            except StoreError as error:
                if self._dropping:
                    raise
                if not self.trouble:
                    log.warning("%s; trying again, %d answers wait for it", error, len(ended))
                self.trouble = str(error)
                await asyncio.sleep(wait_s)
                wait_s = min(wait_s * 2, 5.0)
        self.trouble = ""
        if found.stopped:
            self._stopping = True
            await self._pace.stop()
        for each, _ in ended:
            self._flight.pop(each.number, None)
            self.tally.done += each.status == DONE
            self.tally.failed += each.status == FAILED
            self.tally.cost_usd += each.cost_usd
        if ended:
            self._on_settled()
        return found
