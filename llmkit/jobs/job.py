"""`Job`: many rows in the store, by the path of its output or by a name; begun once, and gone on with after that."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.core.fork import fresh_id
from llmkit.errors import InvalidRequestError
from llmkit.jobs.settings import differing
from llmkit.store import Store, opened
from llmkit.store import jobs as rows
from llmkit.store.owner import lives

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from llmkit.jobs.inputs import Input
    from llmkit.jobs.settings import Settings

BATCH = 500
"""How many rows are read into the store in one transaction."""
_ID = 12
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class JobInfo:
    """How far a job is.

    Attributes:
        id: for `llmkit map status`; `name` is the path of its output, or the name that it was given.
        rows: how many there are; `same` of them are answered with an earlier one that asks the same.
        waiting, under_way, done, failed: how many are in which state, without those.
        cost_usd: what they cost so far, as far as prices are known.
        owner: the process that works on it (host:process:start), or None.
        stopped: whether somebody stopped it.
        created_at, ended_at: seconds since 1970; `ended_at` is None until all rows are answered and written.
    """

    id: str
    name: str
    rows: int
    same: int
    waiting: int
    under_way: int
    done: int
    failed: int
    cost_usd: float
    owner: str | None
    stopped: bool
    created_at: float
    ended_at: float | None


@dataclass(frozen=True, slots=True)
class Job:
    """A job of a store; `name` is the path of its output, or the name that it was given."""

    store: Store
    id: str
    name: str

    def info(self) -> JobInfo:
        """Return how far it is.

        Raises:
            InvalidRequestError: it was removed.
        """
        database = self.store.database
        with database.reading() as connection:
            row, now = rows.of(connection, self.id), database.now(connection)
            return _info(row, rows.counts(connection, self.id), now)

    def stop(self) -> None:
        """Let the process that works on it claim no more rows; it ends with the answers that are under way."""
        with self.store.database.writing() as connection:
            rows.stop(connection, self.id)

    def retry(self) -> int:
        """Let the failed rows wait again, and return how many there are.

        Raises:
            InvalidRequestError: a process works on the job.
        """
        with self.store.database.writing() as connection:
            self._take(connection)
            changed = rows.retry(connection, self.id)
            rows.leave(connection, self.id)
        return changed

    def remove(self) -> None:
        """Delete the job with its rows, its budget and what was begun of its output; a whole output stays as it is.

        Raises:
            InvalidRequestError: a process works on it.
        """
        with self.store.database.writing() as connection:
            self._take(connection)
            written = json.loads(rows.of(connection, self.id).written or "{}")
            rows.remove(connection, self.id)
        place = written.get("place") if written.get("part") is not None else None
        if place is not None and not Path(place).is_symlink():
            with suppress(OSError):
                Path(place).unlink()

    def take(self) -> None:
        """Become the one process that writes its output; one of another host that may be dead has its lease to tell.

        Raises:
            InvalidRequestError: another one does.
        """
        expired_at = None
        while (other := self._taken()) is not None:
            if not other.is_far or (expired_at is not None and other.expires > expired_at):
                raise self._busy(other)
            expired_at = other.expires
            time.sleep(_LOOK_S)

    def leave(self) -> None:
        """Let another process take it."""
        with self.store.database.writing() as connection:
            rows.leave(connection, self.id)

    def abandon(self) -> None:
        """Leave it since it cannot be worked on, and delete it if nothing is lost with it."""
        self.leave()
        if not (info := self.info()).done + info.failed:
            self.remove()

    def keep(self) -> None:
        """Renew the lease of this process."""
        with self.store.database.writing() as connection:
            rows.keep(connection, self.id, self.store.database.now(connection) + self.store.lease_s)

    def _taken(self) -> rows.Taken | None:
        with self.store.database.writing() as connection:
            return rows.take(connection, self.id, self.store.database.now(connection), self.store.lease_s)

    def _take(self, connection: Any) -> None:
        now = self.store.database.now(connection)
        if other := rows.take(connection, self.id, now, self.store.lease_s):
            raise self._busy(other)

    def _busy(self, other: rows.Taken) -> InvalidRequestError:
        return InvalidRequestError(f"another process works on the job {self.name} ({other.owner}); stop it first")


class Jobs:
    """The jobs of a store.

    Args:
        store: a Store, its URL or path; the configured one if None.
    """

    def __init__(self, store: Store | str | os.PathLike[str] | None = None) -> None:
        self.store = store if isinstance(store, Store) else opened(None if store is None else str(store))

    def get(self, name: str | os.PathLike[str]) -> Job:
        """Return the job of an output file, of a name, or with an id that begins so.

        Raises:
            InvalidRequestError: there is none.
        """
        with self.store.database.reading() as connection:
            row = rows.find(connection, name_of(name)) or rows.find(connection, str(name))
        if row is None:
            raise InvalidRequestError(f"there is no job {str(name)!r} in the store {self.store.url}")
        return Job(self.store, row.id, row.name)

    def all(self, *, limit: int = 20) -> list[JobInfo]:
        """Return the jobs, latest first."""
        database = self.store.database
        with database.reading() as connection:
            now = database.now(connection)
            return [_info(row, rows.counts(connection, row.id), now) for row in rows.latest(connection, limit)]

    def version_of(self, name: str, preset: str) -> int | None:
        """Return the version of a preset that a job began with, which is drawn once, or None."""
        with self.store.database.reading() as connection:
            row = rows.named(connection, name)
        stored = {} if row is None else rows.settings_of(row)["preset"]
        version: int | None = stored["version"] if stored and stored["name"] == preset else None
        return version

    def begin(self, name: str, settings: Settings, given: Input) -> Job:
        """Return the job of a name, taken by this process: the one there is, or a new one with all rows read.

        Raises:
            InvalidRequestError: a row is wrong, the job began with something else, or another process works on it.
        """
        stored, read, database = settings.stored(), settings.reader(), self.store.database
        with database.writing() as connection:
            now = database.now(connection)
            row = rows.named(connection, name)
            if row is not None and not row.input and not _is_alive(row, now):
                rows.remove(connection, row.id)  # it died while it read
                row = None
            is_new = row is None and rows.begin(connection, fresh_id()[:_ID], name, stored, now, self.store.lease_s)
            row = row or rows.named(connection, name)  # another process may have begun it in the meantime
        job = Job(self.store, row.id, name)
        if is_new:
            _read(job, read, given)
            return job
        if different := differing(rows.settings_of(row), stored):
            raise InvalidRequestError(f"the job {name} began with {different}; {_ANEW}")
        job.take()
        try:
            is_same = (given.hashed(), given.count) == (row.input, row.rows)
        except BaseException:
            job.leave()
            raise
        if not is_same:
            job.leave()
            raise InvalidRequestError(f"the job {name} began with another input; {_ANEW}")
        return job


_ANEW = "choose another output, or forget it with `llmkit map remove`"


def name_of(out: str | os.PathLike[str]) -> str:
    """Return the name of the job that writes a file."""
    return str(Path(out).resolve())


def _read(job: Job, read: Callable[[str, Mapping[str, Any]], rows.Row], given: Input) -> None:
    """Read all rows into the store; if one is wrong, nothing of the job is left."""
    database = job.store.database
    made, number = (read(place, row) for place, row in given), 1
    try:
        while batch := list(islice(made, BATCH)):
            with database.writing() as connection:
                rows.add(connection, job.id, number, batch)
                rows.keep(connection, job.id, database.now(connection) + job.store.lease_s)
            number += len(batch)
        if given.count:
            with database.writing() as connection:
                rows.begun(connection, job.id, given.digest(), given.count)
    except BaseException:
        with database.writing() as connection:
            rows.remove(connection, job.id)
        raise
    if not given.count:
        with database.writing() as connection:
            rows.remove(connection, job.id)
        raise InvalidRequestError("there are no rows to ask")


def _is_alive(row: Any, now: float) -> bool:
    return row.owner is not None and lives(row.owner, row.expires, now)


def _info(row: Any, counts: rows.Counts, now: float) -> JobInfo:
    return JobInfo(
        id=row.id,
        name=row.name,
        rows=row.rows,
        same=counts.same,
        waiting=counts.waiting,
        under_way=counts.claimed,
        done=counts.done,
        failed=counts.failed,
        cost_usd=counts.cost_usd,
        owner=row.owner if _is_alive(row, now) else None,
        stopped=bool(row.stopped),
        created_at=row.created_at,
        ended_at=row.ended_at,
    )
