"""Budgets in the store: what is settled, what calls under way may still cost, and both against the limit."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Float, ForeignKey, Integer, Table, Text, delete, func, insert, select, update

from llmkit.store._owner import lives, owner
from llmkit.store._schema import metadata

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
)


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


def used(connection: Connection, name: str, span: str, now: float) -> tuple[float, float, Row[Any] | None]:
    """Return what is settled and what is reserved in a span; reservations of dead processes are gone."""
    for row in connection.execute(select(holds).where(holds.c.budget == name)).all():
        if not lives(row.owner, row.expires, now):
            connection.execute(delete(holds).where(holds.c.id == row.id))
    of_span = connection.execute(select(spent).where(spent.c.budget == name, spent.c.span == span)).first()
    reserved = connection.scalar(select(func.sum(holds.c.amount)).where(holds.c.budget == name, holds.c.span == span))
    return (of_span.settled if of_span else 0.0), float(reserved or 0.0), of_span


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
