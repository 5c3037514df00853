"""Runs in the store: started in one process, and polled from any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmkit.store.owner import owner
from llmkit.store.text import as_json, places, starting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.store.database import Connection

RUNNING = "IN_PROGRESS"
_RUN = "id, model, name, status, owner, expires, response, created_at, ended_at, served_to"
_BEGIN = """
INSERT INTO llmkit_runs (id, model, name, status, owner, expires, cancelled, created_at, served_to)
VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?)"""


def begin(
    connection: Connection, run_id: str, model: str, name: str, now: float, lease_s: float, served_to: str | None
) -> None:
    """Add a run of this process."""
    connection.run(_BEGIN, run_id, model, name, RUNNING, owner(), now + lease_s, now, served_to)


def beat(connection: Connection, ids: Sequence[str], until: float) -> list[str]:
    """Renew the leases of runs; return the ids of those to be cancelled."""
    connection.run(f"UPDATE llmkit_runs SET expires = ? WHERE id IN ({places(ids)})", until, *ids)
    return connection.column(f"SELECT id FROM llmkit_runs WHERE id IN ({places(ids)}) AND cancelled = 1", *ids)


def end(connection: Connection, run_id: str, response: Mapping[str, Any], now: float) -> None:
    """Store the outcome of a run; one that has ended stays as it is."""
    connection.run(
        "UPDATE llmkit_runs SET status = ?, response = ?, ended_at = ? WHERE id = ? AND status = ?",
        response["status"],
        as_json(response, str),
        now,
        run_id,
        RUNNING,
    )


def find(connection: Connection, run_id: str) -> Any:
    """Return the row of a run, or None if there is none."""
    return connection.row(f"SELECT {_RUN} FROM llmkit_runs WHERE id = ?", run_id)


def latest(connection: Connection, limit: int) -> list[Any]:
    """Return the rows of runs, the latest first."""
    return connection.rows(f"SELECT {_RUN} FROM llmkit_runs ORDER BY created_at DESC LIMIT ?", limit)


def beginning(connection: Connection, text: str) -> list[str]:
    """Return the ids that start with *text*, three at most."""
    return connection.column("SELECT id FROM llmkit_runs WHERE id LIKE ? ESCAPE '/' LIMIT 3", starting(text))


def cancel(connection: Connection, run_id: str) -> None:
    """Request the cancellation of a run."""
    connection.run("UPDATE llmkit_runs SET cancelled = 1 WHERE id = ?", run_id)


def prune(connection: Connection, before: float) -> int:
    """Delete runs that ended before a moment, and return how many there were."""
    return connection.run("DELETE FROM llmkit_runs WHERE ended_at < ?", before)
