"""`map` and `amap`: many rows through one preset, in order, each answered once, and gone on with after a kill.

The rows are in the store: claimed in small groups, settled by who holds them. Nothing here sends: `prepare` makes the
turns, the core's flows ask them.
"""

from __future__ import annotations

import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llmkit.core.background import background
from llmkit.errors import LlmkitError
from llmkit.jobs.job import Job, JobInfo, Jobs
from llmkit.jobs.quote import MapQuote
from llmkit.jobs.results import MapResult
from llmkit.jobs.work import Work, opened_work

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from typing_extensions import Unpack

    from llmkit.core.engine import Backend
    from llmkit.core.types import Parsed
    from llmkit.jobs.inputs import Rows
    from llmkit.prepare.options import MapOptions
    from llmkit.presets import Preset

__all__ = ["Job", "JobInfo", "Jobs", "MapQuote", "MapResult", "Work", "amap", "map", "opened_work"]


def map(  # noqa: A001 - its users write llmkit.map
    rows: Rows,
    *,
    preset: str | Preset | None = None,
    model: str | None = None,
    system: str | None = None,
    schema: type[Parsed] | Mapping[str, Any] | None = None,
    backend: Backend | None = None,
    **options: Unpack[MapOptions],
) -> Iterator[MapResult[Parsed]]:
    """Ask a question for each row, many at a time, and return an iterator of the results in the order of the rows.

    All rows are read, into the store, before this returns; they are asked once the iterator is read. Whoever leaves
    the iterator ends the job after the answers that are under way.

    Args:
        rows: the path of a file (JSON lines, CSV, Parquet, or a question on each line), or texts and mappings.
        preset: the name of a preset, or a Preset; a row's columns fill its variables.
        model: as for `ask`, and so are the next three.
        system: the system message.
        schema: a pydantic class or a JSON schema that each answer must fit.
        backend: what sends the requests; for tests.
        options: those of `ask` (but `ledger`, `session` and `attachments`: every attempt is in the ledger of the job's
            store), and `prompt` (a template of the question, with `{{ column }}`) or `column` (the one that is the
            question, "prompt"), `key` (the column that names a row), `out` (a file of JSON lines that is written in
            order) or `job` (a name): with one of these two, the same call goes on after a kill, and answered rows are
            not asked again; `at_once` (rows at a time; "auto" finds the number), `rpm` and `tpm` (requests
            and tokens a minute, of all processes of the job together), `workers` (so many
            other processes ask, each `at_once` rows), `max_usd` (a limit of the job's own), `retry_errors` (ask again
            what failed), `store`.

    Raises:
        InvalidRequestError: a row or an argument is wrong, or the job began with other rows or another preset.
        ConfigError: a preset or the configuration is wrong.
        BudgetExceededError: while the results are read: the budget is used up; with a higher one the job goes on.
        LlmkitError: while the results are read: every row would fail with it; the rows that are left wait.
    """
    work = opened_work(rows, preset, model, system, schema, backend, options)
    results = work.results()
    weakref.finalize(results, _left_unread, work)
    return results


_PATIENCE_S = 1.0


def _left_unread(work: Work) -> None:
    """Leave a job of which nobody has read a result; a child of the process that has begun it leaves it alone."""
    if work.asking is None and work.is_mine:
        from concurrent.futures import TimeoutError as NotYetError  # another one in Python 3.10

        try:
            leaving = background(work.close, name="llmkit-map-left")
        except RuntimeError:  # Python ends
            work.close()
            return
        with suppress(LlmkitError, NotYetError):  # in the middle of a transaction it is done after that
            leaving.result(_PATIENCE_S)


def amap(
    rows: Rows,
    *,
    preset: str | Preset | None = None,
    model: str | None = None,
    system: str | None = None,
    schema: type[Parsed] | Mapping[str, Any] | None = None,
    backend: Backend | None = None,
    **options: Unpack[MapOptions],
) -> AsyncIterator[MapResult[Parsed]]:
    """Ask a question for each row, and return an async iterator of the results. Arguments and errors as for `map`."""
    return _awaited(rows, preset, model, system, schema, backend, options)


async def _awaited(*arguments: Any) -> AsyncIterator[MapResult[Any]]:
    import asyncio
    from contextlib import aclosing

    work = await asyncio.to_thread(opened_work, *arguments)
    async with aclosing(work.aresults()) as results:
        async for result in results:
            yield result
