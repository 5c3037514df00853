"""Jobs in the store: many rows to ask, each claimed by one process at a time, with their answers.

A row is waiting, then claimed under a lease by who asks it, then done or failed. Only who holds a row settles it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from llmkit.errors import InvalidRequestError
from llmkit.store import budgets, quotas
from llmkit.store.owner import is_here, lives, owner
from llmkit.store.text import as_json, places, starting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.store.database import Connection

WAITING, CLAIMED, DONE, FAILED, SAME = "waiting", "claimed", "done", "failed", "same"
_JOB = "id, name, input, settings, rows, stopped, written, owner, expires, created_at, ended_at, orders"
_BEGIN = f"""
INSERT INTO llmkit_jobs ({_JOB}) VALUES (?, ?, '', ?, 0, 0, '', ?, ?, ?, NULL, '') ON CONFLICT (name) DO NOTHING"""
_ROW = ("job", "number", "key", "asked", "question", "same_as", "status")
_OPEN = """
SELECT number, question FROM llmkit_job_rows WHERE job = ? AND status = 'waiting' AND number >= ?
ORDER BY number LIMIT ? FOR UPDATE SKIP LOCKED"""
_CLAIMS = """
SELECT number, question, owner, expires FROM llmkit_job_rows
WHERE job = ? AND status = 'claimed' FOR UPDATE SKIP LOCKED"""
_SETTLE = """
UPDATE llmkit_job_rows SET status = ?, answer = ?, cost_usd = coalesce(cost_usd, 0) + ?, owner = NULL
WHERE job = ? AND number = ? AND status = 'claimed' AND owner = ?"""
_NOTHING = {"rows": 0, "bytes": 0, "checksum": 0}
_RESULTS = """
SELECT r.number, r.key, r.status, r.same_as, r.cost_usd, coalesce(s.status, r.status) AS outcome,
coalesce(s.answer, r.answer) AS answer FROM llmkit_job_rows r
LEFT JOIN llmkit_job_rows s ON s.job = r.job AND s.number = r.same_as
WHERE r.job = ? AND r.number > ? ORDER BY r.number LIMIT ?"""


class Row(NamedTuple):
    """A row to add: its key, the hash of what it asks, and that itself; key and question are JSON."""

    key: str
    asked: str
    question: str


class Settled(NamedTuple):
    """What became of a claimed row: `status` is WAITING if it was not asked; `answer` is JSON."""

    status: str
    answer: str | None
    cost_usd: float
    number: int


class Counts(NamedTuple):
    """How many rows of a job are in which state, and what they cost in US dollars."""

    waiting: int
    claimed: int
    done: int
    failed: int
    same: int
    cost_usd: float


def begin(connection: Connection, job: str, name: str, settings: Mapping[str, Any], now: float, lease_s: float) -> bool:
    """Add a job of this process, whose rows are still read; return whether the name was free."""
    return connection.run(_BEGIN, job, name, as_json(settings), owner(), now + lease_s, now) > 0


def of(connection: Connection, job: str, *, locked: bool = False) -> Any:
    """Return the row of a job by its whole id, locked until the transaction ends if that is wanted.

    Raises:
        InvalidRequestError: it was removed.
    """
    lock = "FOR UPDATE" if locked else ""
    row = connection.row(f"SELECT {_JOB} FROM llmkit_jobs WHERE id = ? {lock}", job)
    if row is None:
        raise InvalidRequestError(f"the job {job} was removed")
    return row


def named(connection: Connection, name: str) -> Any:
    """Return the row of the job that has this name, or None."""
    return connection.row(f"SELECT {_JOB} FROM llmkit_jobs WHERE name = ?", name)


def find(connection: Connection, name: str) -> Any:
    """Return the row of the job that somebody means by a name, an id or the beginning of an id, or None."""
    row = named(connection, name)
    if row is None and name:
        rows = connection.rows(f"SELECT {_JOB} FROM llmkit_jobs WHERE id LIKE ? ESCAPE '/' LIMIT 2", starting(name))
        row = rows[0] if len(rows) == 1 else None
    return row


def settings_of(row: Any) -> dict[str, Any]:
    """Return what a job began with."""
    return dict(json.loads(row.settings))


def latest(connection: Connection, limit: int) -> list[Any]:
    """Return the rows of jobs, the latest first."""
    return connection.rows(f"SELECT {_JOB} FROM llmkit_jobs ORDER BY created_at DESC LIMIT ?", limit)


class Taken(NamedTuple):
    """The process that writes a job's output, until when it is believed to live, and whether that is all one knows."""

    owner: str
    expires: float
    is_far: bool


def take(connection: Connection, job: str, now: float, lease_s: float) -> Taken | None:
    """Become the one process that writes a job's output; return who else it is, or None if it is this one now.

    Raises:
        InvalidRequestError: the job was removed.
    """
    row = of(connection, job, locked=True)
    if row.owner is not None and lives(row.owner, row.expires, now):
        return Taken(str(row.owner), row.expires, not is_here(row.owner))
    connection.run(
        "UPDATE llmkit_jobs SET owner = ?, expires = ?, stopped = 0 WHERE id = ?", owner(), now + lease_s, job
    )
    return None


def leave(connection: Connection, job: str) -> None:
    """Let another process take the job."""
    connection.run("UPDATE llmkit_jobs SET owner = NULL WHERE id = ? AND owner = ?", job, owner())


def add(connection: Connection, job: str, first: int, rows: Sequence[Row]) -> None:
    """Add rows, numbered from *first*; those that ask the same as an earlier one are answered with it."""
    hashes = [row.asked for row in rows]
    known = {
        row.asked: row.number
        for row in connection.rows(
            f"SELECT asked, number FROM llmkit_job_rows WHERE job = ? AND same_as IS NULL AND asked IN "
            f"({places(hashes)})",
            job,
            *hashes,
        )
    }
    values = []
    for number, row in enumerate(rows, first):
        same_as = known.get(row.asked)
        known.setdefault(row.asked, number)
        question, status = (row.question, WAITING) if same_as is None else ("", SAME)
        values.append((job, number, row.key, row.asked, question, same_as, status))
    connection.add("llmkit_job_rows", _ROW, values)


def begun(connection: Connection, job: str, input_hash: str, rows: int) -> None:
    """Note that all rows were read."""
    connection.run("UPDATE llmkit_jobs SET input = ?, rows = ? WHERE id = ?", input_hash, rows, job)


def claim(connection: Connection, job: str, most: int, first: int, expires: float) -> list[Any]:
    """Claim waiting rows from number *first* on for this process, and return their numbers and questions."""
    rows = connection.rows(_OPEN, job, first, most)
    numbers = [row.number for row in rows]
    if numbers:
        connection.run(
            f"UPDATE llmkit_job_rows SET status = 'claimed', owner = ?, expires = ? "
            f"WHERE job = ? AND number IN ({places(numbers)})",
            owner(),
            expires,
            job,
            *numbers,
        )
    return rows


def renew(connection: Connection, job: str, expires: float) -> None:
    """Renew the leases of the rows that this process asks."""
    connection.run(
        "UPDATE llmkit_job_rows SET expires = ? WHERE job = ? AND status = 'claimed' AND owner = ?",
        expires,
        job,
        owner(),
    )


def keep(connection: Connection, job: str, expires: float) -> None:
    """Renew the lease of the process that writes a job's output."""
    connection.run("UPDATE llmkit_jobs SET expires = ? WHERE id = ? AND owner = ?", expires, job, owner())


def settle(connection: Connection, job: str, settled: Sequence[Settled]) -> None:
    """Store what became of rows, of those that this process still holds."""
    connection.run_each(
        _SETTLE, [(each.status, each.answer, each.cost_usd, job, each.number, owner()) for each in settled]
    )


def reclaim(connection: Connection, job: str, now: float, mine: Sequence[int]) -> tuple[list[Any], int]:
    """Let rows wait again whose process is gone, and own ones that are not among *mine*.

    Return the rows that a process that is gone may have sent, and how many others still hold.
    """
    rows = [row for row in connection.rows(_CLAIMS, job) if row.number not in mine]
    lost = [row for row in rows if not lives(row.owner, row.expires, now)]
    free = [row.number for row in rows if row in lost or row.owner == owner()]
    if free:
        connection.run(
            f"UPDATE llmkit_job_rows SET status = 'waiting', owner = NULL WHERE job = ? AND number IN ({places(free)})",
            job,
            *free,
        )
    return lost, len(rows) - len(free)


def results(connection: Connection, job: str, after: int, most: int) -> list[Any]:
    """Return the next rows with their outcomes, in order, up to the first that has none."""
    ready: list[Any] = []
    for row in connection.rows(_RESULTS, job, after, most):
        if row.outcome not in {DONE, FAILED} or row.number != after + 1 + len(ready):
            break
        ready.append(row)
    return ready


def counts(connection: Connection, job: str) -> Counts:
    """Return how many rows are in which state."""
    rows = connection.rows(
        "SELECT status, count(*) AS number, sum(cost_usd) AS cost FROM llmkit_job_rows WHERE job = ? GROUP BY status",
        job,
    )
    numbers = {row.status: row.number for row in rows}
    waiting, claimed, done, failed, same = (numbers.get(each, 0) for each in (WAITING, CLAIMED, DONE, FAILED, SAME))
    return Counts(waiting, claimed, done, failed, same, sum(row.cost or 0.0 for row in rows))


def waiting(connection: Connection, job: str, most: int) -> list[str]:
    """Return the questions of the first rows that wait."""
    return connection.column(
        "SELECT question FROM llmkit_job_rows WHERE job = ? AND status = 'waiting' ORDER BY number LIMIT ?", job, most
    )


def retry(connection: Connection, job: str) -> int:
    """Let the failed rows wait again, and return how many there are; the output is written anew."""
    changed = connection.run("UPDATE llmkit_job_rows SET status = 'waiting' WHERE job = ? AND status = 'failed'", job)
    if changed:
        written = json.loads(of(connection, job).written or "{}")
        note_written(connection, job, {**written, "part": written.get("part") and _NOTHING})
        connection.run("UPDATE llmkit_jobs SET ended_at = NULL WHERE id = ?", job)
    return changed


def note_orders(connection: Connection, job: str, orders: str) -> None:
    """Note what a process that joins is told, JSON."""
    connection.run("UPDATE llmkit_jobs SET orders = ? WHERE id = ?", orders, job)


def note_written(connection: Connection, job: str, written: Mapping[str, Any]) -> None:
    """Note how much of the output is written."""
    connection.run("UPDATE llmkit_jobs SET written = ? WHERE id = ?", json.dumps(written), job)


def end(connection: Connection, job: str, now: float) -> None:
    """Note that all rows are answered and written."""
    connection.run("UPDATE llmkit_jobs SET ended_at = ? WHERE id = ?", now, job)


def stop(connection: Connection, job: str) -> None:
    """Ask all processes of a job to claim no more rows."""
    connection.run("UPDATE llmkit_jobs SET stopped = 1 WHERE id = ?", job)


def is_stopped(connection: Connection, job: str) -> bool | None:
    """Return whether somebody stopped a job; None if it was removed."""
    stopped = connection.value("SELECT stopped FROM llmkit_jobs WHERE id = ?", job)
    return None if stopped is None else bool(stopped)


def remove(connection: Connection, job: str) -> None:
    """Delete a job with its rows, its quota and its budget."""
    quotas.remove(connection, f"map:{job}")
    budgets.remove(connection, f"map:{job}")
    connection.run("DELETE FROM llmkit_job_rows WHERE job = ?", job)
    connection.run("DELETE FROM llmkit_jobs WHERE id = ?", job)
