"""The ledger's table: a row for each attempt of a call."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Float, Integer, Table, Text, bindparam, case, delete, func, insert, select, update

from llmkit.store._bodies import clean
from llmkit.store.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Row, Select

ledger = Table(
    "llmkit_ledger",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False, index=True),
    Column("call", Text, nullable=False),  # the same for all attempts of one call
    Column("attempt", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False),  # ok, interrupted, cancelled, or the name of the error
    Column("asked", Text, nullable=False),
    Column("answered", Text),
    Column("deployment", Text, nullable=False),
    Column("preset", Text),
    Column("session", Text),
    Column("tags", Text),  # a JSON list
    Column("prompt_tokens", Integer),
    Column("completion_tokens", Integer),
    Column("cached_tokens", Integer),
    Column("reasoning_tokens", Integer),
    Column("cost_usd", Float),
    Column("source", Text),
    Column("price_source", Text),
    Column("latency_s", Float),
    Column("first_token_s", Float),
    Column("request_id", Text),
    Column("possibly_usd", Float),  # the most that an attempt of unknown outcome can have cost
)


def add_rows(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows, all or none."""
    connection.execute(insert(ledger), [{**row, "tags": json.dumps(row["tags"])} for row in map(_clean, rows)])


def rows_of(connection: Connection, since: float | None, until: float | None) -> Sequence[Row[Any]]:
    """Return rows, oldest first."""
    return connection.execute(_between(select(ledger), since, until).order_by(ledger.c.id)).all()


def total(connection: Connection, since: float | None, until: float | None) -> float:
    """Return what was spent in US dollars, as far as prices are known."""
    return float(
        connection.scalar(_between(select(func.coalesce(func.sum(ledger.c.cost_usd), 0.0)), since, until)) or 0
    )


def lengths(connection: Connection, asked: str, preset: str | None, most: int) -> list[tuple[int, int]]:
    """Return how long prompts and answers of the last chats with a model and a preset were, in tokens."""
    these = (ledger.c.asked == asked, ledger.c.preset == preset, ledger.c.kind == "chat", ledger.c.status == "ok")
    chosen = select(ledger.c.prompt_tokens, ledger.c.completion_tokens).where(*these)
    found = connection.execute(chosen.order_by(ledger.c.id.desc()).limit(most))
    return [(prompt or 0, completion or 0) for prompt, completion in found]


def put_costs(connection: Connection, costs: Mapping[int, float], price_source: str) -> None:
    """Write other costs, by the rows' ids."""
    source = case((ledger.c.source == "unpriced", "priced"), else_=ledger.c.source)
    change = update(ledger).where(ledger.c.id == bindparam("row"))
    change = change.values(cost_usd=bindparam("cost"), price_source=price_source, source=source)
    connection.execute(change, [{"row": row, "cost": cost} for row, cost in costs.items()])


def prune(connection: Connection, before: float) -> int:
    """Delete the rows before a moment, and return how many there were."""
    return int(connection.execute(delete(ledger).where(ledger.c.at < before)).rowcount)


def _between(chosen: Select[Any], since: float | None, until: float | None) -> Select[Any]:
    if since is not None:
        chosen = chosen.where(ledger.c.at >= since)
    return chosen if until is None else chosen.where(ledger.c.at < until)


def _clean(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: clean(value) if isinstance(value, str) else value for key, value in row.items()}
