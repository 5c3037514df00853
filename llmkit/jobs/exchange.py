"""The one transaction of a map: it settles what has ended, with its ledger rows and budgets, and claims more rows.

All of it is kept together or not at all. Nothing here waits for anything but the store.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from llmkit.errors import BudgetExceededError, LlmkitError, StoreError
from llmkit.jobs.pace import AHEAD_S
from llmkit.money import budgets
from llmkit.money.ledger import row_of_attempt, row_of_lost
from llmkit.store import jobs as rows
from llmkit.store import ledger as stored
from llmkit.store import quotas
from llmkit.store.jobs import WAITING, Settled

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from llmkit.core.tool_loop import Turn
    from llmkit.core.types import CallLabels, Flow, Reply, Request
    from llmkit.jobs.job import Job
    from llmkit.jobs.pace import Pace
    from llmkit.jobs.settings import Asked
    from llmkit.money.budgets import Reservation
    from llmkit.money.guard import BudgetGuard
    from llmkit.store.database import Connection
    from llmkit.store.quotas import Quota

LOOK_S = 2.0
"""How often a process with work looks at what others do."""


class Account:
    """What one row costs: a recorder and a guard of its calls, whose entries are stored when the row ends.

    Args:
        guard: the budgets, or None.
        held: what is reserved for the first attempt.

    Attributes:
        attempts: the ledger's rows.
        spent: how reservations ended.
        cost_usd: of all attempts, as far as prices are known.
    """

    def __init__(self, guard: BudgetGuard | None, held: list[Reservation] | None) -> None:
        self._guard, self._held = guard, held
        self.attempts: list[dict[str, Any]] = []
        self.spent: list[budgets.Ended] = []
        self.cost_usd = 0.0

    def note(
        self, request: Request, labels: CallLabels, outcome: Reply | BaseException, *, whole: bool = True
    ) -> Flow[None]:
        """Record an attempt."""
        row = yield from row_of_attempt(request, labels, outcome, whole=whole)
        self.cost_usd += row["cost_usd"] or 0.0
        self.attempts.append(row)

    def reserve(self, request: Request, labels: CallLabels | None) -> Flow[list[Reservation]]:
        """Return what is reserved for the first attempt, and reserve for a further one."""
        if self._held is not None:
            held, self._held = self._held, None
            return held
        return [] if self._guard is None else (yield from self._guard.reserve(request, labels))

    def let_go(self, held: Sequence[Reservation], *, may_be_paid: bool) -> Flow[None]:
        """End the reservations of an attempt without an answer."""
        self.spent.append(budgets.Ended(held, "possibly paid" if may_be_paid else "given back"))
        yield from ()

    def settle(self, held: Sequence[Reservation], reply: Reply) -> Flow[Reply]:
        """Settle the real cost."""
        self.spent.append(budgets.Ended(held, "settled", reply.usage.cost_usd))
        yield from ()
        return reply

    def close(self) -> None:
        """Give back what no attempt has used."""
        if self._held is not None:
            self.spent.append(budgets.Ended(self._held, "given back"))
            self._held = None


class Claim(NamedTuple):
    """A row to ask: its turn, or why there can be none; its account; and when it starts, on the monotonic clock."""

    number: int
    turn: Turn | LlmkitError
    account: Account
    start_at: float

    def turn_for(self, account: Account) -> Turn:
        """Return the turn, paid from an account; raise why there is none."""
        if isinstance(self.turn, LlmkitError):
            raise self.turn
        guard = None if self.turn.plan.guard is None else account
        return replace(self.turn, plan=replace(self.turn.plan, ledger=account, guard=guard))


class Ended(NamedTuple):
    """A row that has ended, and its account."""

    settled: Settled
    account: Account


class Found(NamedTuple):
    """What the store had.

    Attributes:
        claimed: the rows to ask.
        open: how many more there may be, here or with other processes.
        stopped: whether somebody stopped the job.
        again_s: when there may be places for more.
        refusal: why a budget has no room for one more row.
    """

    claimed: list[Claim]
    open: int
    stopped: bool
    again_s: float
    refusal: BudgetExceededError | None


class Exchange:
    """Settles and claims rows of a job.

    Args:
        job: the job.
        asked: makes the turns.
        pace: is told what other processes know of pauses, and tells them.
        limits: the quotas of all who ask the model, of the job and of its preset.
    """

    def __init__(self, job: Job, asked: Asked, pace: Pace, limits: Sequence[Quota]) -> None:
        self._job, self._asked, self._pace, self._limits = job, asked, pace, limits
        self._from, self._looked_at, self._renewed_at = 1, 0.0, time.monotonic()
        pace.is_spaced = any(quota.requests or quota.tokens for quota in limits)

    def __call__(self, ended: Sequence[Ended], room: int, under_way: Collection[int]) -> Found:
        """Store what has ended, and claim *room* rows; *under_way* are the numbers of the others."""
        job, database = self._job.id, self._job.store.database
        with database.writing() as connection:
            now, moment = database.now(connection), time.monotonic()
            expires = now + self._job.store.lease_s
            rows.settle(connection, job, [each.settled for each in ended])
            attempts = [row for each in ended for row in each.account.attempts]
            stored.add_rows(connection, attempts)
            if (stopped := rows.is_stopped(connection, job)) is None:
                return Found([], 0, stopped=True, again_s=0.0, refusal=None)
            self._spend(connection, ended)
            self._use(connection, attempts, now)
            starts, again_s = self._places(connection, now, 0 if stopped else room)
            claimed, refusal = self._reserved(connection, self._claimed(connection, len(starts), expires))
            quotas.take(connection, self._spaced(), starts[: len(claimed)], now)
            claims = [Claim(*each, start - now + moment) for each, start in zip(claimed, starts, strict=False)]
            more = room - len(starts) if not stopped and len(claimed) == len(starts) else 0  # the rate has no place
            if len(claimed) < len(starts) or moment - self._looked_at > LOOK_S:
                more += self._reclaimed(connection, now, [*under_way, *(claim.number for claim in claims)])
                self._looked_at = moment
            if moment - self._renewed_at > self._job.store.lease_s / 4:
                rows.renew(connection, job, expires)
                self._renewed_at = moment
        if any(each.settled.status == WAITING for each in ended):
            self._from = min(self._from, *(each.settled.number for each in ended))
        return Found(claims, more, stopped, again_s, refusal)

    def place(self) -> float:
        """Take the next place for a further request of a row, and return when that is, on the monotonic clock."""
        database = self._job.store.database
        with database.writing() as connection:
            now, moment = database.now(connection), time.monotonic()
            starts, _ = quotas.offered(connection, self._limits, now, 1)
            quotas.take(connection, self._limits, starts, now)
        return starts[0] - now + moment

    def look(self) -> None:
        """Tell all who use the quotas what a provider refused, and learn of the pauses of others."""
        database, refusals = self._job.store.database, list(self._pace.refusals)
        if not refusals:
            with database.reading() as connection:
                self._hear(connection, database.now(connection))
            return
        with database.writing() as connection:
            now, moment = database.now(connection), time.monotonic()
            for refusal in refusals:
                window = quotas.window_s(refusal.retry_after_s)
                answered = stored.answered(connection, now - window, self._asked.model)
                quotas.slow_down(connection, self._limits[0], refusal.sent_at - moment + now, answered, window, now)
            for quota in self._limits:
                quotas.pause(connection, quota, now + self._pace.pause_s())
            self._hear(connection, now)
        del self._pace.refusals[: len(refusals)]

    def _hear(self, connection: Connection, now: float) -> None:
        pause_s, is_slowed = quotas.heard(connection, self._limits, now)
        if pause_s:
            self._pace.pause(pause_s)
        self._pace.is_spaced = self._pace.is_spaced or is_slowed

    def _spaced(self) -> Sequence[Quota]:
        """Return the quotas that give places; without one the store is not asked."""
        return self._limits if self._pace.is_spaced else ()

    def _spend(self, connection: Connection, ended: Sequence[Ended]) -> None:
        if (guard := self._asked.guard) is not None:
            guard.end_each(connection, [spent for each in ended for spent in each.account.spent])

    def _use(self, connection: Connection, attempts: Sequence[dict[str, Any]], now: float) -> None:
        tokens = sum((row["prompt_tokens"] or 0) + (row["completion_tokens"] or 0) for row in attempts)
        for quota in self._limits:
            quotas.use(connection, quota, tokens, now)

    def _places(self, connection: Connection, now: float, room: int) -> tuple[list[float], float]:
        """Return when so many rows may start, fewer if the quotas have no places, and seconds until there are more."""
        self._hear(connection, now)
        if pause_s := self._pace.pause_s():
            return [], pause_s
        return quotas.offered(connection, self._spaced(), now, room, AHEAD_S)

    def _claimed(self, connection: Connection, most: int, expires: float) -> list[Any]:
        """Claim rows, after the last one at first: what was claimed stands in the index for a while."""
        claimed = rows.claim(connection, self._job.id, most, self._from, expires) if most else []
        if len(claimed) < most and self._from > 1:
            claimed += rows.claim(connection, self._job.id, most - len(claimed), 1, expires)
        self._from = claimed[-1].number + 1 if claimed else self._from
        return claimed

    def _reserved(
        self, connection: Connection, claimed: Sequence[Any]
    ) -> tuple[list[tuple[int, Turn | LlmkitError, Account]], BudgetExceededError | None]:
        """Return the rows with what their first attempts can cost; those that do not fit wait again."""
        guard, refusal = self._asked.guard, None
        turns = [(row.number, self._turn(row.question)) for row in claimed]
        if guard is None:
            return [(number, turn, Account(None, None)) for number, turn in turns], None
        asked = [(number, turn) for number, turn in turns if not isinstance(turn, LlmkitError)]
        held, refusal = guard.reserve_each(
            connection, [(turn.plan_for(turn.messages).routes[0][0], turn.plan.labels) for _, turn in asked]
        )
        reserved = {number: each for (number, _), each in zip(asked, held, strict=False)}
        refused = [number for number, _ in asked[len(held) :]]
        rows.settle(connection, self._job.id, [Settled(WAITING, None, 0.0, number) for number in refused])
        if refused:
            self._from = min(refused)
        return [
            (number, turn, Account(guard, reserved.get(number))) for number, turn in turns if number not in refused
        ], refusal

    def _turn(self, question: str) -> Turn | LlmkitError:
        try:
            return self._asked.turn(question)
        except StoreError:
            raise
        except LlmkitError as error:
            return error

    def _reclaimed(self, connection: Connection, now: float, mine: list[int]) -> int:
        """Let rows of killed processes wait again, possibly paid; return how many others are open."""
        lost, held = rows.reclaim(connection, self._job.id, now, mine)
        stored.add_rows(connection, [entry for row in lost for entry in self._lost(row.question)])
        self._from = 1 if lost else self._from
        return len(lost) + held

    def _lost(self, question: str) -> list[dict[str, Any]]:
        """Return the ledger's row of a question that a killed process may have sent; none if it cannot be sent."""
        try:
            plan = self._asked.turn(question).plan
        except LlmkitError:
            return []
        return [] if plan.labels is None else [row_of_lost(plan.routes[0][0], plan.labels)]
