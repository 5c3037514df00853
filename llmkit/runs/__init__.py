"""`Runs`: background runs that are started here and polled, from any process that shares the store."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llmkit.core.background import background
from llmkit.core.fork import in_each_process
from llmkit.errors import InvalidRequestError, LlmkitError
from llmkit.providers.aixplain.response import ModelResponse, ResponseStatus, failed, from_dict
from llmkit.store import Store, opened
from llmkit.store import runs as rows
from llmkit.store.owner import lives

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable
    from concurrent.futures import Future
    from pathlib import Path

    Work = Callable[[], Coroutine[Any, Any, ModelResponse]]

SCHEME = "llmkit://runs/"
BEAT_S = 1.0
_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """A run and its outcome.

    Attributes:
        id: the id for `llmkit runs`; `response.url` is the address for `poll`.
        model: the model that answers; `name` is the caller's label.
        response: its state, and its outcome at the end.
        created_at, ended_at: seconds since 1970; `ended_at` is None while it goes on.
        served_to: the id of the caller a server runs it for, or "" if the server needs no keys; None for a local run.
    """

    id: str
    model: str
    name: str
    response: ModelResponse
    created_at: float
    ended_at: float | None
    served_to: str | None = None


class Runs:
    """The runs of a store.

    Args:
        store: a Store, its URL or path; the configured one if None.
    """

    def __init__(self, store: Store | str | Path | None = None) -> None:
        self.store = store if isinstance(store, Store) else opened(None if store is None else str(store))

    def start(
        self,
        work: Work,
        *,
        model: str,
        name: str,
        served_to: str | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> str:
        """Start a run on the worker of this process and return its address at once.

        Args:
            work: returns the outcome.
            model: the model that answers.
            name: the caller's label.
            served_to: the id of the caller a server runs it for.
            on_end: called once, on the worker's thread, when the run has ended, however it did.

        Raises:
            StoreError: the store cannot be written; nothing was started.
        """
        run_id = str(uuid.uuid4())
        with self.store.database.writing() as connection:
            now = self.store.database.now(connection)
            rows.begin(connection, run_id, model, name, now, self.store.lease_s, served_to)
        worker().start(self, run_id, work, on_end or (lambda: None))
        return SCHEME + run_id

    def poll(self, url: str) -> ModelResponse:
        """Return the state of a run; one whose process is gone has failed.

        Raises:
            StoreError: the store cannot be read.
        """
        run_id = url.removeprefix(SCHEME)
        run = self.find(run_id) if url.startswith(SCHEME) else None
        if run is None:
            return failed("not_found", f"there is no run {url!r} in this store", url=url)
        return run.response

    def get(self, begin: str) -> RunInfo:
        """Return the run whose id starts with *begin*.

        Raises:
            InvalidRequestError: no id starts like this, or several do.
        """
        begin = begin.removeprefix(SCHEME)
        with self.store.database.reading() as connection:
            ids = rows.beginning(connection, begin) if begin else []
        run = self.find(ids[0]) if len(ids) == 1 else None
        if run is None:
            raise InvalidRequestError(
                f"{'several runs begin' if ids else 'there is no run that begins'} with {begin!r}"
            )
        return run

    def all(self, *, limit: int = 20) -> list[RunInfo]:
        """Return the runs, latest first."""
        with self.store.database.reading() as connection:
            now = self.store.database.now(connection)
            return [_info(row, now) for row in rows.latest(connection, limit)]

    def cancel(self, begin: str) -> ModelResponse:
        """Cancel a run, in whatever process it goes on; its request to the provider is dropped within a second or so.

        Raises:
            InvalidRequestError: no id starts with *begin*, or several do.
        """
        run = self.get(begin)
        if run.response.completed:
            return run.response
        ended = failed("cancelled", "the run was cancelled", url=SCHEME + run.id, run_time=time.time() - run.created_at)
        with self.store.database.writing() as connection:
            rows.cancel(connection, run.id)
            rows.end(connection, run.id, ended.to_dict(), self.store.database.now(connection))
        return ended

    def prune(self, before: float) -> int:
        """Delete runs that ended before a moment (seconds since 1970), and return how many there were."""
        with self.store.database.writing() as connection:
            return rows.prune(connection, before)

    def end(self, run_id: str, response: ModelResponse) -> None:
        """Store the outcome of a run."""
        with self.store.database.writing() as connection:
            rows.end(connection, run_id, response.to_dict(), self.store.database.now(connection))

    def beat(self, ids: Iterable[str]) -> list[str]:
        """Renew the leases of runs; return the ids of those to be cancelled."""
        with self.store.database.writing() as connection:
            return rows.beat(connection, list(ids), self.store.database.now(connection) + self.store.lease_s)

    def find(self, run_id: str) -> RunInfo | None:
        """Return a run by its whole id, or None if there is none."""
        with self.store.database.reading() as connection:
            row = rows.find(connection, run_id)
            return None if row is None else _info(row, self.store.database.now(connection))


class Worker:
    """Executes the runs of this process, some at a time, on an event loop in a daemon thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._tasks: dict[Store, dict[str, asyncio.Task[None]]] = {}
        self._beats: set[asyncio.Task[None]] = set()
        background(self._loop.run_forever, name="llmkit-runs")

    def submit(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Start a coroutine on the loop; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def start(self, runs: Runs, run_id: str, work: Work, on_end: Callable[[], None]) -> None:
        """Start a run."""
        self.submit(self._begin(runs, run_id, work, on_end))

    async def _begin(self, runs: Runs, run_id: str, work: Work, on_end: Callable[[], None]) -> None:
        if runs.store not in self._tasks:
            self._tasks[runs.store] = {}
            beat = asyncio.ensure_future(self._beat(runs))
            self._beats.add(beat)
            beat.add_done_callback(self._beats.discard)
        task = self._tasks[runs.store][run_id] = asyncio.ensure_future(self._work(runs, run_id, work))
        task.add_done_callback(lambda _: on_end())

    async def _work(self, runs: Runs, run_id: str, work: Work) -> None:
        try:
            async with self._places:
                response = replace(await work(), url=SCHEME + run_id)
            await asyncio.to_thread(_write, runs, run_id, response)
        except asyncio.CancelledError:  # the outcome was written by `cancel`
            return
        except RuntimeError:  # Python exits, and the run with it
            return
        finally:
            del self._tasks[runs.store][run_id]

    async def _beat(self, runs: Runs) -> None:
        await asyncio.sleep(0)  # let the first run start
        while mine := self._tasks[runs.store]:
            try:
                given_up = await asyncio.to_thread(runs.beat, list(mine))
            except LlmkitError:
                given_up = []  # the store may be back the next time
            except RuntimeError:  # Python exits
                return
            for run_id in given_up:
                if run_id in mine:
                    mine[run_id].cancel()
            await asyncio.sleep(BEAT_S)
        del self._tasks[runs.store]


def _write(runs: Runs, run_id: str, response: ModelResponse) -> None:
    """Store the outcome of a run; if the store fails, try again until it works."""
    while True:
        try:
            return runs.end(run_id, response)
        except LlmkitError:
            time.sleep(BEAT_S)


class _Here:
    """The worker of this process, if it has one yet."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        self.worker: Worker | None = None
        self.lock = threading.Lock()


_here = _Here()
in_each_process(_here)


def worker() -> Worker:
    """Return the worker of this process."""
    with _here.lock:
        _here.worker = _here.worker or Worker()
        return _here.worker


def _info(row: Any, now: float) -> RunInfo:
    url = SCHEME + row.id
    if row.response is not None:
        response = from_dict(json.loads(row.response))
    elif row.status == rows.RUNNING and not lives(row.owner, row.expires, now):
        response = failed("process_died", "the process that worked on it is gone", url=url)
    else:
        response = ModelResponse(
            status=ResponseStatus.IN_PROGRESS, completed=False, url=url, run_time=max(0.0, now - row.created_at)
        )
    return RunInfo(
        id=row.id,
        model=row.model,
        name=row.name,
        response=response,
        created_at=row.created_at,
        ended_at=row.ended_at,
        served_to=row.served_to,
    )
