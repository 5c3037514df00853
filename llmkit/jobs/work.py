"""A job at work: it is opened, quoted, asked, and its results are read in order, blocking or awaited."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.api import real_backend
from llmkit.core.background import Heartbeat, background
from llmkit.core.fork import fresh_id, in_each_process
from llmkit.core.messages import whole_number
from llmkit.core.params import JOB
from llmkit.errors import InvalidRequestError, LlmkitError, StoreError
from llmkit.jobs.asking import Asking
from llmkit.jobs.inputs import Input
from llmkit.jobs.job import Jobs, name_of
from llmkit.jobs.output import Output
from llmkit.jobs.pace import at_once_of
from llmkit.jobs.quote import quote_of_rest
from llmkit.jobs.results import result_of
from llmkit.jobs.settings import Asked, settings_of
from llmkit.jobs.workers.crew import Crew
from llmkit.jobs.workers.join import run
from llmkit.jobs.workers.orders import orders_of
from llmkit.money.budgets import Budget, Budgets
from llmkit.money.guard import several
from llmkit.prepare.limits import quota_of
from llmkit.store import jobs as rows
from llmkit.store.quotas import Quota

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping

    from llmkit.core.engine import Backend
    from llmkit.jobs.inputs import Rows
    from llmkit.jobs.job import Job
    from llmkit.jobs.pace import AtOnce
    from llmkit.jobs.quote import MapQuote
    from llmkit.jobs.results import MapResult
    from llmkit.jobs.settings import Settings
    from llmkit.jobs.workers.dask import DaskCrew
    from llmkit.jobs.workers.orders import Orders
    from llmkit.presets import Preset

CHUNK, PAUSE_S, BEAT_S = 200, 0.05, 5.0
"""How many results are read at a time, and how long is waited for more; how often a job says that it lives."""
_REFUSED = ("ledger", "session", "attachments", "stream", "messages")


class Work:
    """A job that this process works on, until it is closed.

    Attributes:
        job: the job.
        output: what writes its output, or None.
        asking: what asks its rows, while it does.
        is_mine: whether this process began to work on it; a child of that one has neither what asks nor what is open.
    """

    def __init__(self, job: Job, orders: Orders, backend: Backend, options: Mapping[str, Any], schema: Any) -> None:
        self.job = job
        self.asking: Asking | Crew | DaskCrew | None = None
        self._orders, self._backend, self._schema = orders, backend, schema
        self._asked = orders.asked(job.store)
        self._workers, self._engine, self._address = (options.get(name) for name in ("workers", "engine", "address"))
        self._is_kept = options.get("out") is not None or options.get("job") is not None
        self._beat = Heartbeat(BEAT_S, self._keep, name="llmkit-map")
        self._closed, self._stops, self.is_mine = False, 0, True
        in_each_process(self)
        try:
            if options.get("retry_errors"):
                with job.store.database.writing() as connection:
                    rows.retry(connection, job.id)
            out = options.get("out")
            self.output = None if out is None else Output(job, Path(out).absolute())
        except BaseException:
            job.abandon()
            raise
        self.rows = job.info().rows
        self._beat.start()

    def begin_anew(self) -> None:
        """Leave the job to the parent process."""
        self.is_mine = False

    def quote(self) -> MapQuote:
        """Return what the rows that wait would cost; nothing is sent."""
        return quote_of_rest(self.job, self._asked, self._orders, self._backend)

    # -- results --------------------------------------------------------------------------------------------------

    def results(self, *, after: int = 0) -> Iterator[MapResult[Any]]:
        """Ask, and yield the results after number *after*, in order, as they come; whoever leaves ends it.

        Raises:
            LlmkitError: it cannot go on; what was answered is in the store.
        """
        settled = threading.Event()
        asking = self.asking = self._made(settled.set)
        working = background(lambda: run(asking), name="llmkit-map")
        working.add_done_callback(lambda _: settled.set())
        try:
            while True:
                is_last = working.done()
                ready = self._next(after)
                yield from ready
                if not self.is_mine:
                    raise LlmkitError("the results of a map are read by the process that began it, not by its forks")
                after += len(ready)
                if len(ready) < CHUNK:
                    if is_last:
                        break
                    time.sleep(PAUSE_S)
                    settled.wait(1.0)
                    settled.clear()
            working.result()
            self._end(after)
        finally:
            if self.is_mine:
                asking.stop()
                with suppress(Exception):
                    working.result()
                self.close()

    async def aresults(self, *, after: int = 0) -> AsyncGenerator[MapResult[Any], None]:
        """Async version of `results`."""
        settled, loop = asyncio.Event(), asyncio.get_running_loop()
        asking = self.asking = self._made(lambda: loop.call_soon_threadsafe(settled.set))
        working = asyncio.ensure_future(asking.run() if isinstance(asking, Asking) else asyncio.to_thread(asking.run))
        working.add_done_callback(lambda _: settled.set())
        try:
            while True:
                is_last = working.done()
                ready = await asyncio.to_thread(self._next, after)
                for result in ready:
                    yield result
                after += len(ready)
                if len(ready) < CHUNK:
                    if is_last:
                        break
                    await asyncio.sleep(PAUSE_S)
                    with suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(settled.wait(), 1.0)
                    settled.clear()
            working.result()
            await asyncio.to_thread(self._end, after)
        finally:
            asking.stop()
            try:
                await asyncio.wait({working})
            finally:  # also where the loop is about to end
                await asyncio.to_thread(self.close)

    def _made(self, on_settled: Callable[[], object]) -> Asking | Crew | DaskCrew:
        """Return what asks the rows: this process, or others."""
        orders = self._orders
        if self._engine is not None:
            from llmkit.jobs.workers.dask import DaskCrew

            return DaskCrew(orders, self._address, self._workers or os.cpu_count() or 1, on_settled)
        if self._workers:
            return Crew(orders, self._workers, on_settled)
        return Asking(
            self.job, self._asked, self._backend, at_once=orders.at_once, limits=orders.limits, on_settled=on_settled
        )

    def _next(self, after: int) -> list[MapResult[Any]]:
        """Return the next results, written if there is an output; if the store is away, none."""
        try:
            with self.job.store.database.reading() as connection:
                found = rows.results(connection, self.job.id, after, CHUNK)
            ready = [result_of(row, self._schema) for row in found]
            if self.output is not None:
                self.output.add([result for result in ready if result.number > self.output.written.rows])
        except StoreError:
            if self.asking is None or not self.asking.trouble:  # else it waits for the store
                time.sleep(PAUSE_S)
            return []
        return ready

    def _end(self, after: int) -> None:
        """Put the output in its place."""
        if after < self.rows:
            if self._stops:
                return
            raise LlmkitError(f"the job {self.job.name} was stopped; start it again to go on")
        if self.output is not None and not self.output.is_whole:
            self.output.end()

    def stop(self) -> None:
        """End with the answers that are under way, all who work on the job; a second time, give them up too."""
        self._stops += 1  # first, since a signal may come in the middle of another one
        if self._stops == 1:
            background(self._stop_others, name="llmkit-map-stop")  # this thread may be in the middle of a transaction
        if self.asking is not None:
            (self.asking.drop if self._stops > 1 else self.asking.stop)()

    def close(self) -> None:
        """Leave the job; one without a name is forgotten."""
        if self._closed or not self.is_mine:
            return
        self._closed = True
        self._beat.stop()
        if self.output is not None:
            self.output.close()
        with suppress(StoreError):
            self.job.leave()
            if not self._is_kept:
                self.job.remove()

    def _stop_others(self) -> None:
        with suppress(StoreError):
            self.job.stop()

    def _keep(self) -> None:
        with suppress(StoreError):
            self.job.keep()


def opened_work(
    given: Rows,
    preset: str | Preset | None,
    model: str | None,
    system: str | None,
    schema: Any,
    backend: Backend | None,
    options: Mapping[str, Any],
) -> Work:
    """Return the job of an output or a name, with all rows read.

    Raises:
        InvalidRequestError: a row is wrong, or the job began with something else.
        ConfigError: a preset or the configuration is wrong, or the output cannot be written.
    """
    own = {name: options[name] for name in JOB if name in options}
    call = {name: value for name, value in options.items() if name not in JOB}
    for name in _REFUSED:
        if name in call:
            raise InvalidRequestError(f"{name} cannot be given to a map")
    at_once = _checked(own)
    if backend is not None and ("workers" in own or "engine" in own):
        raise InvalidRequestError("workers are other processes, which cannot have this one's backend")
    jobs = Jobs(own.get("store"))
    name = own.get("job") or (fresh_id() if own.get("out") is None else name_of(own["out"]))
    if isinstance(preset, str) and "@" not in preset and (version := jobs.version_of(name, preset)) is not None:
        preset = f"{preset}@{version}"
    if schema is not None:
        call["schema"] = schema
    settings = settings_of(
        preset,
        model,
        system=system,
        options=call,
        template=own.get("prompt"),
        column=own.get("column"),
        key=own.get("key"),
        variables=call.pop("variables", None),
    )
    Asked(settings, None, ()).check()
    job = jobs.begin(name, settings, Input(given))
    try:
        orders = _orders(job, settings, at_once, own, call.get("budget"))
    except BaseException:
        job.abandon()
        raise
    return Work(job, orders, backend or real_backend(), own, schema)


def _orders(job: Job, settings: Settings, at_once: AtOnce, own: Mapping[str, Any], budget: Any) -> Orders:
    """Return the orders of a job, which are in the store from now on."""
    budgets = _budgets(job, settings.preset, budget, own.get("max_usd"))
    orders = orders_of(job, settings, budgets=budgets, at_once=at_once, limits=_limits(job, settings, own))
    orders.store(job.store)
    return orders


def _checked(own: Mapping[str, Any]) -> AtOnce:
    """Check the numbers, and return how many rows are asked at a time."""
    whole_number("workers", own.get("workers", 1))
    if (engine := own.get("engine")) not in {None, "dask"}:
        raise InvalidRequestError(f"the engine is dask or none, not {engine!r}")
    if own.get("address") is not None and engine is None:
        raise InvalidRequestError("an address is that of an engine's scheduler: say engine dask too")
    for name in ("rpm", "tpm"):
        limit = own.get(name)
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or not limit > 0):
            raise InvalidRequestError(f"{name} must be a number above 0, not {limit!r}")
    return at_once_of(own.get("at_once", "auto"))


def _limits(job: Job, settings: Settings, own: Mapping[str, Any]) -> list[Quota]:
    """Return the quotas of a job: that of all who ask its model, its own, and its preset's."""
    key = {**settings.preset.set_params(), **settings.options}.get("api_key")
    who = hashlib.blake2b(repr([settings.address, key]).encode(), digest_size=8)
    limits = [Quota(f"model:{settings.preset.model}:{who.hexdigest()}")]
    rpm, tpm = own.get("rpm"), own.get("tpm")
    if rpm is not None or tpm is not None:
        limits.append(Quota(f"map:{job.id}", rpm, tpm, is_even=True))
    of_preset = quota_of(settings.preset)
    return limits if of_preset is None else [*limits, of_preset]


def _budgets(job: Job, preset: Preset, given: Any, max_usd: float | None) -> list[Budget | str]:
    """Return the budgets of a job; its own is one of them."""
    budgets = several(preset.budget if given is None else given)
    for name in budgets:
        if isinstance(name, str):
            Budgets(job.store).get(name)  # one that there is not is told before anything is asked
    if max_usd is not None:
        own = Budget(name=f"map:{job.id}", limit_usd=max_usd, period="total", warn_at=1.0)
        Budgets(job.store).set(own)
        budgets.append(own)
    return budgets
