"""The table of runs: jobs that go on in some process and are polled, also from others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Float, Integer, Table, Text, delete, insert, select, update

from llmkit.store._bodies import as_json
from llmkit.store.owner import lives, owner
from llmkit.store.tables import metadata

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Row

runs = Table(
    "llmkit_runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("model", Text, nullable=False),
    Column("name", Text, nullable=False),  # the caller's label
    Column("status", Text, nullable=False),
    Column("owner", Text, nullable=False),  # who works on it: host:process:start
    Column("expires", Float, nullable=False),  # until when the owner is believed to live
    Column("cancelled", Integer, nullable=False),
    Column("response", Text),  # JSON, when it has ended
    Column("created_at", Float, nullable=False, index=True),
    Column("ended_at", Float),
    Column("served_to", Text),  # the key a server runs it for, "" for nobody's; null for a run of our own
)
RUNNING = "IN_PROGRESS"


def begin(
    connection: Connection, run_id: str, model: str, name: str, now: float, lease_s: float, served_to: str | None
) -> None:
    """Add a run of this process."""
    row = {"id": run_id, "model": model, "name": name, "status": RUNNING, "owner": owner(), "cancelled": 0}
    connection.execute(insert(runs).values(**row, expires=now + lease_s, created_at=now, served_to=served_to))


def beat(connection: Connection, ids: Sequence[str], until: float) -> list[str]:
    """Say that runs go on; return those that are to be cancelled."""
    mine = runs.c.id.in_(ids)
    connection.execute(update(runs).where(mine).values(expires=until))
    return list(connection.scalars(select(runs.c.id).where(mine, runs.c.cancelled == 1)))


def end(connection: Connection, run_id: str, response: Mapping[str, Any], now: float) -> None:
    """Write what became of a run; one that has ended stays as it is."""
    goes_on = (runs.c.id == run_id) & (runs.c.status == RUNNING)
    values = {"status": response["status"], "response": as_json(response, str), "ended_at": now}
    connection.execute(update(runs).where(goes_on).values(**values))


def find(connection: Connection, run_id: str) -> Row[Any] | None:
    """Return a run, None where there is none."""
    return connection.execute(select(runs).where(runs.c.id == run_id)).first()


def latest(connection: Connection, limit: int) -> Sequence[Row[Any]]:
    """Return runs, the last one first."""
    return connection.execute(select(runs).order_by(runs.c.created_at.desc()).limit(limit)).all()


def beginning(connection: Connection, text: str) -> list[str]:
    """Return the ids that begin like this, three at the most."""
    return list(connection.scalars(select(runs.c.id).where(runs.c.id.startswith(text, autoescape=True)).limit(3)))


def cancel(connection: Connection, run_id: str) -> None:
    """Ask for the end of a run."""
    connection.execute(update(runs).where(runs.c.id == run_id).values(cancelled=1))


def prune(connection: Connection, before: float) -> int:
    """Delete runs that ended before a moment, and return how many there were."""
    return int(connection.execute(delete(runs).where(runs.c.ended_at < before)).rowcount)


def is_lost(row: Row[Any], now: float) -> bool:
    """Tell whether the process that works on a run is gone."""
    return row.status == RUNNING and not lives(row.owner, row.expires, now)


def response_of(row: Row[Any]) -> dict[str, Any] | None:
    """Return what became of a run, None while it goes on."""
    return None if row.response is None else dict(json.loads(row.response))
