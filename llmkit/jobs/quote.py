"""What the rest of a job would cost, by its first rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmkit.core.engine import drive
from llmkit.money.budgets import Budgets
from llmkit.money.quotes import quote_of
from llmkit.store import jobs as rows

if TYPE_CHECKING:
    from llmkit.core.engine import Backend
    from llmkit.jobs.job import Job
    from llmkit.jobs.settings import Asked
    from llmkit.jobs.workers.orders import Orders

QUOTED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MapQuote:
    """What the rest of a job would cost, by its first rows.

    Attributes:
        rows: how many are to be asked.
        expected_usd: if each answer has the length that the preset plans for, or None if it plans for none or no price
            is known; `most_usd` is the most that it can be, or None if that has no bound.
        left_usd: what the tightest budget has left, or None if there is none.
        refused: why a budget refuses the first row, or "".
    """

    rows: int
    expected_usd: float | None
    most_usd: float | None
    left_usd: float | None
    refused: str


def quote_of_rest(job: Job, asked: Asked, orders: Orders, backend: Backend) -> MapQuote:
    """Return what the rows that wait would cost; nothing is sent."""
    with job.store.database.reading() as connection:
        waiting = rows.counts(connection, job.id).waiting
        first = rows.waiting(connection, job.id, QUOTED)
    quotes = [drive(quote_of(asked.turn(each, guarded=each is first[0])), backend) for each in first]
    names = [each if isinstance(each, str) else each.name for each in orders.budgets]
    states = [Budgets(job.store).get(name) for name in names]
    left = [state.budget.limit_usd - state.settled - state.reserved - state.possibly_paid for state in states]
    return MapQuote(
        rows=waiting,
        expected_usd=_projected([quote.expected_usd for quote in quotes], waiting),
        most_usd=_projected([quote.most_usd for quote in quotes], waiting),
        left_usd=min(left, default=None),
        refused=quotes[0].refused if quotes else "",
    )


def _projected(costs: list[float | None], number: int) -> float | None:
    """Return what so many rows cost if they are like the first ones."""
    known = [cost for cost in costs if cost is not None]
    return sum(known) / len(known) * number if known and len(known) == len(costs) else None
