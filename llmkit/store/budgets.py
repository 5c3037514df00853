"""Budgets in the store: what is settled, what calls under way may still cost, and both against the limit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from llmkit.core.fork import fresh_id
from llmkit.store.owner import lives, owner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmkit.store.database import Connection

RESERVED, POSSIBLY = "reserved", "possibly"
TOTAL_S = 30 * 24 * 3600.0
"""How long possibly paid amounts count if the period never ends."""
_RULE = "SELECT rule FROM llmkit_budgets WHERE name = ? FOR UPDATE"
_HELD = """
SELECT span, owner, state, sum(amount) AS amount, min(expires) AS expires FROM llmkit_holds WHERE budget = ?
GROUP BY span, owner, state"""
_HOLDS = "SELECT id, span, owner, expires, state FROM llmkit_holds WHERE budget = ?"
_SPENT = "SELECT settled, calls, unpriced FROM llmkit_spent WHERE budget = ? AND span = ?"
_GONE = """
SELECT coalesce((SELECT settled FROM llmkit_spent WHERE budget = ? AND span = ?), 0) + coalesce((SELECT sum(amount)
FROM llmkit_holds WHERE budget = ? AND span = ? AND state = ? AND expires > ?), 0)"""
_HOLD = "INSERT INTO llmkit_holds (id, budget, span, amount, owner, expires, state) VALUES (?, ?, ?, ?, ?, ?, ?)"
_RELEASE = "DELETE FROM llmkit_holds WHERE id = ?"
_SETTLE = """
INSERT INTO llmkit_spent AS old (budget, span, settled, calls, unpriced) VALUES (?, ?, ?, 1, ?)
ON CONFLICT (budget, span) DO UPDATE SET settled = old.settled + excluded.settled, calls = old.calls + 1,
unpriced = old.unpriced + excluded.unpriced"""


def put(connection: Connection, name: str, rule: Mapping[str, Any]) -> None:
    """Create a budget, or change its rule; what was spent of it stays."""
    text = json.dumps(rule, sort_keys=True)
    before = lock(connection, name)
    if before is None:
        connection.run("INSERT INTO llmkit_budgets (name, rule) VALUES (?, ?)", name, text)
    elif before != text:
        connection.run("UPDATE llmkit_budgets SET rule = ? WHERE name = ?", text, name)


def lock(connection: Connection, name: str) -> str | None:
    """Return a budget's rule, and lock it until the transaction ends."""
    rule: str | None = connection.value(_RULE, name)
    return rule


def names(connection: Connection) -> list[str]:
    """Return the names of all budgets."""
    return connection.column("SELECT name FROM llmkit_budgets ORDER BY name")


def remove(connection: Connection, name: str) -> bool:
    """Delete a budget and what was spent of it; return whether there was one."""
    reset(connection, name)
    return connection.run("DELETE FROM llmkit_budgets WHERE name = ?", name) > 0


def reset(connection: Connection, name: str) -> None:
    """Forget what was spent of a budget."""
    connection.run("DELETE FROM llmkit_spent WHERE budget = ?", name)
    connection.run("DELETE FROM llmkit_holds WHERE budget = ?", name)


class Used(NamedTuple):
    """How much of a budget is used in a span, in US dollars; `calls` were settled, `unpriced` of them without price."""

    settled: float
    reserved: float
    possibly: float
    calls: int
    unpriced: int

    @property
    def all(self) -> float:
        """The sum, which is never more than the limit."""
        return self.settled + self.reserved + self.possibly


def used(connection: Connection, name: str, span: str, now: float, ends_at: float | None) -> Used:
    """Return what is used; reservations of dead processes become possibly paid, and expired amounts are deleted."""
    held = connection.rows(_HELD, name)
    if any(_is_over(row, now) for row in held):
        for row in filter(lambda row: _is_over(row, now), connection.rows(_HOLDS, name)):
            if row.state == POSSIBLY:
                release(connection, row.id)
            else:
                doubt(connection, row.id, now, ends_at if row.span == span else now)
        held = connection.rows(_HELD, name)
    sums = {RESERVED: 0.0, POSSIBLY: 0.0}
    for row in held:
        if row.span == span:
            sums[row.state] += row.amount
    settled, calls, unpriced = connection.row(_SPENT, name, span) or (0.0, 0, 0)
    return Used(settled, sums[RESERVED], sums[POSSIBLY], calls, unpriced)


def gone(connection: Connection, name: str, span: str, now: float) -> float:
    """Return what is settled and what is possibly paid in a span, in US dollars."""
    amount: float = connection.value(_GONE, name, span, name, span, POSSIBLY, now)
    return amount


def _is_over(row: Any, now: float) -> bool:
    """Return whether a possibly paid amount counts no more, or whoever reserved one is gone."""
    return row.expires <= now if row.state == POSSIBLY else not lives(row.owner, row.expires, now)


def doubt(connection: Connection, hold_id: str, now: float, ends_at: float | None) -> None:
    """Mark a reservation as possibly paid, until the period ends or somebody releases it."""
    until = now + TOTAL_S if ends_at is None else ends_at
    connection.run("UPDATE llmkit_holds SET state = ?, expires = ? WHERE id = ?", POSSIBLY, until, hold_id)


def forgive(connection: Connection, name: str) -> float:
    """Delete what may have been paid, and return how much it was; calls under way keep their reservations."""
    these = "FROM llmkit_holds WHERE budget = ? AND state = ?"
    amount = connection.value(f"SELECT sum(amount) {these}", name, POSSIBLY)
    connection.run(f"DELETE {these}", name, POSSIBLY)
    return float(amount or 0.0)


def hold(connection: Connection, name: str, span: str, amount: float, expires: float) -> str:
    """Reserve an amount, and return the reservation's id."""
    hold_id = fresh_id()
    connection.run(_HOLD, hold_id, name, span, amount, owner(), expires, RESERVED)
    return hold_id


def release(connection: Connection, hold_id: str) -> None:
    """Give a reservation back."""
    connection.run(_RELEASE, hold_id)


def settle(connection: Connection, name: str, span: str, hold_id: str, cost_usd: float | None) -> None:
    """Replace a reservation by the real cost."""
    if lock(connection, name) is None:
        return  # it was removed meanwhile
    release(connection, hold_id)
    connection.run(_SETTLE, name, span, cost_usd or 0.0, int(cost_usd is None))
