"""The ledger in the store: a row for each attempt of a call, and sums of rows."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from llmkit.store.text import clean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.store.database import Connection

COLUMNS = (
    *("at", "call", "attempt", "kind", "status", "asked", "answered", "deployment", "preset", "session", "tags"),
    *("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "cost_usd", "source", "price_source"),
    *("latency_s", "first_token_s", "request_id", "possibly_usd"),
)
_ANSWERED = "status IN ('ok', 'interrupted')"
_LAST_TRY = 5
_TOO_LARGE = 2**31


def add_rows(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows, all or none."""
    connection.add("llmkit_ledger", COLUMNS, [[_value(row[name]) for name in COLUMNS] for row in rows])


def rows_of(connection: Connection, since: float | None, until: float | None) -> list[Any]:
    """Return rows, oldest first."""
    where, values = _between(since, until)
    return connection.rows(f"SELECT {', '.join(COLUMNS)} FROM llmkit_ledger {where} ORDER BY id", *values)


def total(connection: Connection, since: float | None, until: float | None) -> float:
    """Return what was spent in US dollars, as far as prices are known."""
    where, values = _between(since, until)
    return float(connection.value(f"SELECT sum(cost_usd) FROM llmkit_ledger {where}", *values) or 0.0)


def sums(
    connection: Connection, by: Sequence[str], since: float | None, until: float | None, tag: str | None = None
) -> list[Any]:
    """Return sums of rows, for each combination of values that occurs.

    Args:
        connection: in a transaction.
        by: model, preset, day, session, status, tags (the JSON list of all), or attempt (retries count as one).
        since: the start, in seconds since 1970.
        until: the end, exclusive.
        tag: only rows that have it.

    Returns:
        Rows that begin with a value for each name in *by*; then come the columns of `llmkit.money.report.Line`, but all
        numbers of costs, possible costs and latencies, these sorted.
    """
    dialect, (where, values) = connection.dialect, _between(since, until, tag)
    groups = {
        "model": "asked",
        "preset": "coalesce(preset, '')",
        "day": dialect.day.format("at"),
        "session": "coalesce(session, '')",
        "tags": "coalesce(tags, '[]')",
        "status": "status",
        "attempt": f"CASE WHEN attempt < {_LAST_TRY} THEN attempt ELSE {_LAST_TRY} END",
    }
    keys = [f"{groups[name]} AS {name}_" for name in by]
    statement = f"""
        SELECT {"".join(f"{key}, " for key in keys)}
            {dialect.distinct.format("call")} AS calls,
            count(*) AS attempts,
            count(CASE WHEN {_ANSWERED} THEN NULL ELSE 1 END) AS errors,
            coalesce(sum(prompt_tokens), 0) AS prompt_tokens,
            coalesce(sum(completion_tokens), 0) AS completion_tokens,
            coalesce(sum(cached_tokens), 0) AS cached_tokens,
            count(CASE WHEN cost_usd IS NULL AND {_ANSWERED} THEN 1 END) AS unpriced,
            {dialect.numbers.format("cost_usd")} AS costs,
            {dialect.numbers.format("possibly_usd")} AS possible_costs,
            {dialect.numbers.format("latency_s")} AS latencies
        FROM llmkit_ledger {where} {"GROUP BY " + ", ".join(f"{name}_" for name in by) if by else ""}"""
    numbers = dialect.numbers_of
    return [
        row._replace(
            costs=numbers(row.costs),
            possible_costs=numbers(row.possible_costs),
            latencies=sorted(numbers(row.latencies)),
        )
        for row in connection.rows(statement, *values)
    ]


def calls(connection: Connection, since: float | None, until: float | None, tag: str | None = None) -> int:
    """Return how many different calls the rows belong to."""
    where, values = _between(since, until, tag)
    return int(
        connection.value(f"SELECT {connection.dialect.distinct.format('call')} FROM llmkit_ledger {where}", *values)
    )


def answered(connection: Connection, since: float, model: str) -> int:
    """Return how many requests to a model were answered since a moment."""
    statement = f"SELECT count(*) FROM llmkit_ledger WHERE at >= ? AND asked = ? AND {_ANSWERED}"
    return int(connection.value(statement, since, model))


def span(connection: Connection, tag: str, since: float) -> tuple[float, float] | None:
    """Return when the first attempt that has a tag began and the last one ended, or None if there is none."""
    where, values = _between(since, None, tag)
    row = connection.row(
        f"SELECT min(at - coalesce(latency_s, 0)) AS began, max(at) AS ended FROM llmkit_ledger {where}", *values
    )
    return None if row.began is None else (row.began, row.ended)


def over_time(connection: Connection, tag: str, first: float, step_s: float) -> list[Any]:
    """Return sums of the rows that have a tag, from a moment on, for each step of so many seconds.

    Returns:
        Rows of step (from 0), status, attempts, is_answer, unpriced (answers without a price), cost_usd, possibly_usd.
    """
    where, values = _between(first, None, tag)
    step = connection.dialect.whole.format("(at - ?) / ?")
    return connection.rows(
        f"""
        SELECT {step} AS step, status, count(*) AS attempts,
            count(CASE WHEN {_ANSWERED} THEN 1 END) > 0 AS is_answer,
            count(CASE WHEN cost_usd IS NULL AND {_ANSWERED} THEN 1 END) AS unpriced,
            coalesce(sum(cost_usd), 0) AS cost_usd, coalesce(sum(possibly_usd), 0) AS possibly_usd
        FROM llmkit_ledger {where} GROUP BY step, status ORDER BY step, status""",
        *(first, step_s),
        *values,
    )


def prune(connection: Connection, before: float) -> int:
    """Delete the rows before a moment, and return how many there were."""
    return connection.run("DELETE FROM llmkit_ledger WHERE at < ?", before)


def _between(since: float | None, until: float | None, tag: str | None = None) -> tuple[str, list[Any]]:
    # the tags are a JSON list: within it a quotation mark that is not escaped begins or ends a whole tag
    quoted = None if tag is None else json.dumps(tag)
    given = (("at >= ?", since), ("at < ?", until), ("replace(tags, ?, '') <> tags", quoted))
    limits = [(limit, value) for limit, value in given if value is not None]
    where = " AND ".join(limit for limit, _ in limits)
    return f"WHERE {where}" if where else "", [value for _, value in limits]


def _value(value: Any) -> Any:
    """Return a value that every database takes, so that no row is in the way of others; what is none is left out."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list | tuple):
        return json.dumps(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if type(value) is int and abs(value) < _TOO_LARGE else None
