"""A Dask cluster that asks the rows of a job. Its tasks join the job and do nothing else: the truth is in the store.

A task that ends with its worker is started again, as often as it takes.
"""

from __future__ import annotations

import pickle
import threading
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from llmkit.core.background import background
from llmkit.errors import ConfigError, LlmkitError, StoreError
from llmkit.jobs.asking import Tally
from llmkit.jobs.job import Job
from llmkit.jobs.workers.crew import pickled
from llmkit.jobs.workers.join import joined, run
from llmkit.store import Store
from llmkit.store import jobs as rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmkit.jobs.workers.orders import Orders
    from llmkit.store.url import Url

LOOK_S, COUNT_S = 0.2, 2.0
"""How often tasks are looked at, and how often rows are counted."""
CONNECT_S = 5.0


class DaskCrew:
    """The workers of a Dask cluster, which ask the rows of a job until none is left.

    Args:
        orders: the job.
        address: the scheduler's, as `tcp://head:8786`; None for a cluster on this machine.
        number: of workers of a cluster on this machine.
        on_settled: called now and then.

    Raises:
        ConfigError: Dask is not installed.
    """

    trouble = ""

    def __init__(self, orders: Orders, address: str | None, number: int, on_settled: Callable[[], object]) -> None:
        try:
            import distributed
        except ImportError as error:
            raise ConfigError("the engine dask needs the package distributed: pip install 'llmkit[dask]'") from error
        self._dask: Any = distributed
        self._job = Job(Store(orders.url, lease_s=orders.lease_s), orders.id, orders.name)
        asks_at = orders.settings.address  # the user has begun the job, and named it
        self._task = (orders.url, orders.lease_s, orders.id, orders.name, asks_at)
        self._address, self._number, self._on_settled = address, number, on_settled
        self._ended = threading.Event()
        self._before, self._counted_at = self._counts(), 0.0
        self._tally = Tally()

    @property
    def tally(self) -> Tally:
        """What was done since this began, by all who ask the job's rows."""
        if time.monotonic() - self._counted_at > COUNT_S:
            with suppress(StoreError):
                now, before, tally = self._counts(), self._before, Tally()
                tally.done, tally.failed = now.done - before.done, now.failed - before.failed
                tally.cost_usd = now.cost_usd - before.cost_usd
                self._tally, self._counted_at = tally, time.monotonic()
        return self._tally

    def run(self) -> None:
        """Ask.

        Raises:
            ConfigError: the scheduler cannot be reached.
            LlmkitError: what a task ended with.
        """
        with ExitStack() as stack:
            client = self._client(stack)
            tasks: set[Any] = set()
            while not self._ended.is_set():
                wanted = max(1, len(client.nthreads()))
                ended = {task for task in tasks if task.done()}
                if any(list(map(self._is_done, ended))):
                    break
                tasks -= ended
                tasks |= {client.submit(_join, *self._task, pure=False) for _ in range(wanted - len(tasks))}
                self._on_settled()
                self._ended.wait(LOOK_S)
            self._dask.wait(list(tasks))
            for task in tasks:
                self._is_done(task)

    def stop(self) -> None:
        """Let all of them end with the answers under way, on other hosts too."""
        self._ended.set()
        background(self._stop, name="llmkit-map-stop")

    drop = stop

    def _stop(self) -> None:
        with suppress(StoreError):
            self._job.stop()

    def _counts(self) -> rows.Counts:
        with self._job.store.database.reading() as connection:
            return rows.counts(connection, self._job.id)

    def _client(self, stack: ExitStack) -> Any:
        """Return a client of the cluster, which is closed with *stack*."""
        where: Any = self._address
        if where is None:
            where = stack.enter_context(
                self._dask.LocalCluster(n_workers=self._number, threads_per_worker=1, dashboard_address=":0")
            )
        try:
            return stack.enter_context(self._dask.Client(where, timeout=CONNECT_S))
        except OSError as error:
            raise ConfigError(f"no Dask scheduler answers at {self._address}: {error}") from error

    def _is_done(self, task: Any) -> bool:
        """Return whether a task found no row left; one that was killed is started again.

        Raises:
            LlmkitError: what it ended with.
        """
        if task.status == "finished":
            error = task.result()
            if error is not None:
                raise pickle.loads(error)  # noqa: S301 - made by `_join`
            return True
        if task.status == "error" and not isinstance(task.exception(), self._dask.KilledWorker):
            raise LlmkitError(f"a task of the map failed: {task.exception()}")
        return False


def _join(url: Url, lease_s: float, job: str, name: str, asks_at: str | None) -> bytes | None:
    """Ask rows in a worker until none is left; return the error that this ends with, if any."""
    try:
        run(joined(Job(Store(url, lease_s=lease_s), job, name), api_base=asks_at))
    except LlmkitError as error:
        return pickled(error)
    return None
