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
from llmkit.jobs.pace import Pace, Paced
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
    from llmkit.jobs.pace import AtOnce, Rate
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
        at_once: how many at a time.
        rate: how many a minute, in all processes of the job together.
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
        rate: Rate | None = None,
        on_settled: Callable[[], object] = lambda: None,
    ) -> None:
        self.tally = Tally()
        self.trouble = ""
        self._job, self._asked, self._backend, self._on_settled = job, asked, backend, on_settled
        self._pace, self._rate, self._has_news = Pace(at_once, self._tell), rate, False
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
        for start_at, row in zip(found.starts, found.claimed, strict=True):
            self._flight[row.number] = asyncio.ensure_future(self._ask(row.number, row.question, start_at))
        if self._ended:
            return True
        if not self._flight and (self._stopping or (room and not found.claimed and not found.open)):
            return False
        if not self._flight and self._refusal is not None and not self._waits_for_others(self._refusal):
            self._fatal, self._stopping = self._refusal, True
            return True
        with contextlib.suppress(asyncio.TimeoutError):
            wait_s = min(LOOK_S if self._flight else IDLE_S, found.again_s or LOOK_S, self._pace.pause_s() or LOOK_S)
            await asyncio.wait_for(self._wake.wait(), wait_s)
        if not self._flight:
            self._refusal = None
        return True

    def _room(self) -> int:
        """Return how many rows can be claimed when what has ended is settled."""
        if self._refusal is not None or self._pace.pause_s():
            return 0
        if self._rate is not None and not (self.tally.done or self.tally.failed):
            return 1 - min(1, len(self._flight))  # the first request imports and connects: others would be late
        return max(0, self._pace.places() - len(self._flight) + len(self._ended))

    def _waits_for_others(self, refusal: BudgetExceededError) -> bool:
        """Return whether the budget may have room for another row when others' calls have ended."""
        if refusal.asked is None or refusal.limit is None or refusal.spent is None:
            return False
        return refusal.reserved > 0 and refusal.limit - refusal.spent >= refusal.asked

    async def _ask(self, number: int, question: str, start_at: float) -> None:
        backend = Paced(self._backend, self._pace, start_at, None if self._rate is None else self._place)
        recorder = _Recorder()
        status, kept = WAITING, None
        try:
            reply = await adrive(answer(self._asked.turn(question, recorder)), backend)
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
        self._attempts += recorder.attempts  # with the row, so that both are stored or none
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
            state = rows.state(connection, job, locked=self._rate is not None)
            stopped = state is None or bool(state.stopped)
            room = 0 if stopped else room
            places, again_s = self._places(state, now, room)
            claimed = self._claimed(connection, places, expires)
            starts = self._started(connection, state, now, len(claimed), attempts) if state is not None else []
            others = room - places if len(claimed) == places else 0  # the rate has no place for more, if there are any
            room = places
            if len(claimed) < room or moment - self._looked_at > LOOK_S:
                mine = [*self._flight.keys() - {each.number for each in ended}, *(row.number for row in claimed)]
                lost, held = rows.reclaim(connection, job, now, mine)
                stored.add_rows(connection, [self._lost(row.question) for row in lost])
                self._from = 1 if lost else self._from
                others, self._looked_at = others + held + len(lost), moment
            if moment - self._renewed_at > self._job.store.lease_s / 4:
                rows.renew(connection, job, expires)
                self._renewed_at = moment
        return _Found(claimed, starts, others, stopped, again_s)

    def _places(self, state: Any, now: float, room: int) -> tuple[int, float]:
        """Return how many rows may be claimed by what other processes say, and seconds until there may be more."""
        if state is None:
            return 0, 0.0
        if state.paused_until > now:
            self._pace.pause(state.paused_until - now)
        if self._pace.pause_s():
            return 0, self._pace.pause_s()
        if self._rate is None:
            return room, 0.0
        places, again_s = self._rate.room(state.next_at, state.tokens_at, now)
        return room if places is None else min(room, places), again_s

    def _started(
        self, connection: Connection, state: Any, now: float, number: int, attempts: list[dict[str, Any]]
    ) -> list[float]:
        """Take places in the rate for claimed rows; return when they start. Tell others of a pause."""
        if self._has_news:
            self._has_news = False
            rows.pause(connection, self._job.id, now + self._pace.pause_s())
        if self._rate is None:
            return [0.0] * number
        used = sum((row["prompt_tokens"] or 0) + (row["completion_tokens"] or 0) for row in attempts)
        first, interval_s = max(state.next_at, now), self._rate.interval_s
        if number or used:
            tokens_at = self._rate.used(state.tokens_at, used, now)
            rows.note_rate(connection, self._job.id, first + number * interval_s, tokens_at)
        moment = time.monotonic() - now
        return [first + moment + index * interval_s for index in range(number)]

    async def _place(self) -> float:
        """Return when the rate has a place for a further request of a row."""

        def taken() -> float:
            database = self._job.store.database
            with database.writing() as connection:
                state = rows.state(connection, self._job.id, locked=True)
                now = database.now(connection)
                return 0.0 if state is None else self._started(connection, state, now, 1, [])[0]

        return await asyncio.to_thread(taken)

    def _tell(self) -> None:
        """Tell the job's other processes of a pause at once."""
        self._has_news = True
        self._wake.set()

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
    """What the store had: claimed rows and when they start, whether there may be more, and when to look again."""

    claimed: list[Any]
    starts: list[float]
    open: int
    stopped: bool
    again_s: float


class _Recorder:
    """Collects the ledger's rows of one row's attempts, and sums their cost."""

    def __init__(self) -> None:
        self.attempts: list[dict[str, Any]] = []
        self.cost_usd = 0.0

    def note(
        self, request: Request, labels: CallLabels, outcome: Reply | BaseException, *, whole: bool = True
    ) -> Flow[None]:
        """Record an attempt."""
        row = yield from row_of_attempt(request, labels, outcome, whole=whole)
        self.cost_usd += row["cost_usd"] or 0.0
        self.attempts.append(row)
