"""Asks the rows of a job on one event loop: claims as many as have a place, and stores what became of them.

A row keeps its place until its answer is in the store, so that no more than `places` rows can be asked twice if the
process is killed. What ended meanwhile is settled, and the next rows are claimed, in one transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

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
from llmkit.jobs.results import answered, failed
from llmkit.money.ledger import row_of_attempt, row_of_lost
from llmkit.store import jobs as rows
from llmkit.store import ledger as stored
from llmkit.store.jobs import DONE, FAILED, WAITING, Settled

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmkit.core.engine import Backend
    from llmkit.core.types import CallLabels, Flow, Reply, Request
    from llmkit.jobs.job import Job
    from llmkit.jobs.pace import Pace
    from llmkit.jobs.settings import Asked
    from llmkit.store.database import Connection

log = logging.getLogger("llmkit")
IDLE_S, LOOK_S = 0.25, 2.0
"""How often a process without work looks for some, and one with work at what others do."""
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
        pace: how many at a time.
        on_settled: called on any thread when answers were stored.

    Attributes:
        tally: what was done.
        trouble: why the store cannot be reached just now, or "".
    """

    def __init__(
        self, job: Job, asked: Asked, backend: Backend, pace: Pace, on_settled: Callable[[], object] = lambda: None
    ) -> None:
        self.tally = Tally()
        self.trouble = ""
        self._job, self._asked, self._pace, self._on_settled = job, asked, pace, on_settled
        self._backend = pace.over(backend)
        self._flight: dict[int, asyncio.Task[None]] = {}
        self._ended: list[Settled] = []
        self._attempts: list[dict[str, Any]] = []
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = self._dropping = False
        self._refusal: BudgetExceededError | None = None
        self._fatal: BaseException | None = None
        self._failures = 0
        self._from, self._looked_at, self._renewed_at = 1, 0.0, time.monotonic()

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
        try:
            while await self._round():
                pass
        finally:
            await self._give_up()
        if self._fatal is not None:
            raise self._fatal

    async def _round(self) -> bool:
        """Settle and claim; return whether there is more to do."""
        self._wake.clear()
        if self._dropping:
            return False
        room = 0 if self._stopping else self._room()
        found = await self._exchange(room)
        if found.stopped:
            self._stopping = True
        for row in found.claimed:
            self._flight[row.number] = asyncio.ensure_future(self._ask(row.number, row.question))
        if self._ended:
            return True
        if not self._flight and (self._stopping or (room and not found.claimed and not found.open)):
            return False
        if not self._flight and self._refusal is not None and not self._waits_for_others(self._refusal):
            self._fatal, self._stopping = self._refusal, True
            return True
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._wake.wait(), LOOK_S if self._flight else IDLE_S)
        if not self._flight:
            self._refusal = None
        return True

    def _room(self) -> int:
        """Return how many rows can be claimed now."""
        if self._refusal is not None or self._pace.is_paused():
            return 0
        return max(0, self._pace.places() - len(self._flight))

    def _waits_for_others(self, refusal: BudgetExceededError) -> bool:
        """Return whether the budget may have room for another row when others' calls have ended."""
        if refusal.asked is None or refusal.limit is None or refusal.spent is None:
            return False
        return refusal.reserved > 0 and refusal.limit - refusal.spent >= refusal.asked

    async def _ask(self, number: int, question: str) -> None:
        recorder = _Recorder(self._attempts)
        status, kept = WAITING, None
        try:
            reply = await adrive(answer(self._asked.turn(question, recorder)), self._backend)
        except asyncio.CancelledError:
            pass
        except LlmkitError as error:
            if not self._waits(error, number):
                status, kept = FAILED, failed(error)
        except BaseException as error:  # noqa: BLE001 - raised by `run`, when the other rows have ended
            self._end(error)
        else:
            status, kept = DONE, answered(reply)
            self._refusal, self._failures = None, 0
        self._ended.append(Settled(status, kept, recorder.cost_usd, number))
        self._wake.set()

    def _waits(self, error: LlmkitError, number: int) -> bool:
        """Return whether a row waits after an error that is not its own: it is asked later, or when all goes on."""
        if isinstance(error, BudgetExceededError):
            self._refusal = error
            self._pace.most = max(1, len(self._flight) - 1)
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

    def _end(self, error: BaseException) -> None:
        """Claim no more, and raise this at the end."""
        self._fatal, self._stopping = self._fatal or error, True

    async def _give_up(self) -> None:
        """Cancel what is under way, and store what became of everything."""
        for task in self._flight.values():
            task.cancel()
        if self._flight:
            await asyncio.wait(self._flight.values())
        while self._ended or self._attempts:
            await self._exchange(0)

    # -- the store ------------------------------------------------------------------------------------------------

    async def _exchange(self, room: int) -> _Found:
        """Store what has ended, and claim *room* rows; if the store is away, wait for it."""
        ended, self._ended = self._ended, []
        attempts = self._attempts[:]
        del self._attempts[: len(attempts)]
        wait_s = IDLE_S
        while True:
            try:
                found = await asyncio.to_thread(self._exchanged, ended, attempts, room)
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
        for each in ended:
            self._flight.pop(each.number, None)
            self._from = min(self._from, each.number) if each.status == WAITING else self._from
            self.tally.done += each.status == DONE
            self.tally.failed += each.status == FAILED
            self.tally.cost_usd += each.cost_usd
        if ended:
            self._on_settled()
        return found

    def _exchanged(self, ended: list[Settled], attempts: list[dict[str, Any]], room: int) -> _Found:
        job, database, moment = self._job.id, self._job.store.database, time.monotonic()
        with database.writing() as connection:
            now = database.now(connection)
            expires = now + self._job.store.lease_s
            if ended:
                rows.settle(connection, job, ended)
            if attempts:
                stored.add_rows(connection, attempts)
            state = rows.state(connection, job)
            stopped = state is None or bool(state.stopped)
            claimed = [] if stopped else self._claimed(connection, room, expires)
            others = 0
            if len(claimed) < room or moment - self._looked_at > LOOK_S:
                mine = [*self._flight.keys() - {each.number for each in ended}, *(row.number for row in claimed)]
                lost, others = rows.reclaim(connection, job, now, mine)
                stored.add_rows(connection, [self._lost(row.question) for row in lost])
                self._from = 1 if lost else self._from
                others, self._looked_at = others + len(lost), moment
            if moment - self._renewed_at > self._job.store.lease_s / 4:
                rows.renew(connection, job, expires)
                self._renewed_at = moment
        return _Found(claimed, others, stopped)

    def _claimed(self, connection: Connection, room: int, expires: float) -> list[Any]:
        """Claim rows, after the last one at first: what was claimed stands in the index for a while."""
        claimed = rows.claim(connection, self._job.id, room, self._from, expires) if room else []
        if len(claimed) < room and self._from > 1:
            claimed += rows.claim(connection, self._job.id, room - len(claimed), 1, expires)
        self._from = claimed[-1].number + 1 if claimed else self._from
        return claimed

    def _lost(self, question: str) -> dict[str, Any]:
        """Return the ledger's row of a question that a killed process may have sent."""
        plan = self._asked.turn(question).plan
        if plan.labels is None:
            raise AssertionError("a plan of `prepare` has labels")
        return row_of_lost(plan.routes[0][0], plan.labels)


class _Found(NamedTuple):
    """What the store had: claimed rows, how many more are open or held by others, and whether the job was stopped."""

    claimed: list[Any]
    open: int
    stopped: bool


class _Recorder:
    """Collects the ledger's rows of one row's attempts, and sums their cost."""

    def __init__(self, attempts: list[dict[str, Any]]) -> None:
        self._attempts = attempts
        self.cost_usd = 0.0

    def note(
        self, request: Request, labels: CallLabels, outcome: Reply | BaseException, *, whole: bool = True
    ) -> Flow[None]:
        """Record an attempt."""
        row = yield from row_of_attempt(request, labels, outcome, whole=whole)
        self.cost_usd += row["cost_usd"] or 0.0
        self._attempts.append(row)
