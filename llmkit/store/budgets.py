"""Budgets in the store: what is settled, what calls under way may still cost, and both against the limit."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Column, Float, ForeignKey, Integer, Table, Text, delete, func, insert, select, update

from llmkit.store.owner import lives, owner
from llmkit.store.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Row

budgets = Table(
    "llmkit_budgets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("rule", Text, nullable=False),  # limit, period, scope, …, JSON
)
spent = Table(
    "llmkit_spent",
    metadata,
    Column("budget", Text, ForeignKey(budgets.c.name, ondelete="CASCADE"), primary_key=True),
    Column("span", Text, primary_key=True),  # which day, week, month
    Column("settled", Float, nullable=False),
    Column("calls", Integer, nullable=False),
    Column("unpriced", Integer, nullable=False),
)
holds = Table(
    "llmkit_holds",
    metadata,
    Column("id", Text, primary_key=True),
    Column("budget", Text, ForeignKey(budgets.c.name, ondelete="CASCADE"), nullable=False, index=True),
    Column("span", Text, nullable=False),
    Column("amount", Float, nullable=False),
    Column("owner", Text, nullable=False),
    Column("expires", Float, nullable=False),
    Column("state", Text, nullable=False, server_default="reserved"),  # or "possibly": it may have been paid
)
RESERVED, POSSIBLY = "reserved", "possibly"
TOTAL_S = 30 * 24 * 3600.0
"""What may have been paid counts for so long where the period never ends."""


def put(connection: Connection, name: str, rule: Mapping[str, Any]) -> None:
    """Make a budget, or change its rule; what was spent of it stays."""
    text = json.dumps(rule, sort_keys=True)
    found = lock(connection, name)
    if found is None:
        connection.execute(insert(budgets).values(name=name, rule=text))
    elif found != text:
        connection.execute(update(budgets).where(budgets.c.name == name).values(rule=text))


def lock(connection: Connection, name: str) -> str | None:
    """Return a budget's rule, and keep others from it until the transaction ends."""
    found: str | None = connection.scalar(select(budgets.c.rule).where(budgets.c.name == name).with_for_update())
    return found


def names(connection: Connection) -> list[str]:
    """Return the names of all budgets."""
    return list(connection.scalars(select(budgets.c.name).order_by(budgets.c.name)))


def remove(connection: Connection, name: str) -> bool:
    """Forget a budget and what was spent of it; tell whether there was one."""
    reset(connection, name)
    return bool(connection.execute(delete(budgets).where(budgets.c.name == name)).rowcount)


def reset(connection: Connection, name: str) -> None:
    """Forget what was spent of a budget."""
    connection.execute(delete(spent).where(spent.c.budget == name))
    connection.execute(delete(holds).where(holds.c.budget == name))


class Used(NamedTuple):
    """How much of a budget is used in a span, in US dollars; `row` is its row of `spent`."""

    settled: float
    reserved: float
    possibly: float
    row: Row[Any] | None

    @property
    def all(self) -> float:
        """All of it, which is never more than the limit."""
        return self.settled + self.reserved + self.possibly


def used(connection: Connection, name: str, span: str, now: float, ends_at: float | None) -> Used:
    """Return what is used; what a dead process had reserved may have been paid, and what was long ago is forgotten."""
    for row in connection.execute(select(holds).where(holds.c.budget == name)).all():
        if row.state == POSSIBLY and row.expires <= now:
            connection.execute(delete(holds).where(holds.c.id == row.id))
        elif row.state == RESERVED and not lives(row.owner, row.expires, now):
            doubt(connection, row.id, now, ends_at if row.span == span else now)
    of_span = connection.execute(select(spent).where(spent.c.budget == name, spent.c.span == span)).first()
    summed = select(holds.c.state, func.sum(holds.c.amount)).where(holds.c.budget == name, holds.c.span == span)
    sums = {row[0]: row[1] for row in connection.execute(summed.group_by(holds.c.state))}
    settled = of_span.settled if of_span else 0.0
    return Used(settled, float(sums.get(RESERVED, 0.0)), float(sums.get(POSSIBLY, 0.0)), of_span)


def doubt(connection: Connection, hold_id: str, now: float, ends_at: float | None) -> None:
    """Take a reservation for money that may have been paid, until the period ends or somebody releases it."""
    until = now + TOTAL_S if ends_at is None else ends_at
    connection.execute(update(holds).where(holds.c.id == hold_id).values(state=POSSIBLY, expires=until))


def forgive(connection: Connection, name: str) -> float:
    """Forget what may have been paid, and return how much it was; calls under way keep their reservations."""
    wanted = (holds.c.budget == name) & (holds.c.state == POSSIBLY)
    amount = connection.scalar(select(func.sum(holds.c.amount)).where(wanted))
    connection.execute(delete(holds).where(wanted))
    return float(amount or 0.0)


def hold(connection: Connection, name: str, span: str, amount: float, expires: float) -> str:
    """Reserve an amount, and return the reservation's id."""
    made = uuid.uuid4().hex
    values = {"id": made, "budget": name, "span": span, "amount": amount, "owner": owner(), "expires": expires}
    connection.execute(insert(holds).values(**values))
    return made


def release(connection: Connection, hold_id: str) -> None:
    """Give a reservation back."""
    connection.execute(delete(holds).where(holds.c.id == hold_id))


def settle(connection: Connection, name: str, span: str, hold_id: str, cost_usd: float | None) -> None:
    """Put the real cost in the place of a reservation."""
    if lock(connection, name) is None:
        return  # it was removed meanwhile
    release(connection, hold_id)
    added = {
        "settled": spent.c.settled + (cost_usd or 0.0),
        "calls": spent.c.calls + 1,
        "unpriced": spent.c.unpriced + int(cost_usd is None),
    }
    changed = update(spent).where(spent.c.budget == name, spent.c.span == span).values(**added)
    if not connection.execute(changed).rowcount:
        connection.execute(
            insert(spent).values(
                budget=name, span=span, settled=cost_usd or 0.0, calls=1, unpriced=int(cost_usd is None)
            )
        )
