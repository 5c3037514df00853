"""`dask_map`: the rows of a Dask bag or DataFrame, asked where they are, a partition at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmkit.core.params import refuse
from llmkit.errors import ConfigError, InvalidRequestError
from llmkit.jobs.work import opened_work

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmkit.jobs.results import MapResult
    from llmkit.presets import Preset

ANSWER, ERROR, COST = "answer", "error", "cost_usd"
"""The columns that a DataFrame gets."""
_OF_THE_WHOLE = {
    "max_usd": "budget=NAME holds over all partitions",
    "rpm": "`limits:` of a preset hold over all partitions",
    "tpm": "`limits:` of a preset hold over all partitions",
    "out": "the collection that is returned can be written",
    "workers": "the cluster has them",
    "engine": "it is Dask already",
    "address": "the collection's own client is used",
    "backend": "the rows are asked in other processes",
}


def dask_map(
    rows: Any,
    *,
    preset: str | Preset | None = None,
    job: str | None = None,
    model: str | None = None,
    system: str | None = None,
    schema: Any = None,
    **options: Any,
) -> Any:
    """Return a Dask collection with the answers; like every one of Dask's, it is computed when it is used.

    Each partition is a job of the store, `JOB/NUMBER`: where it is computed again, since a worker died or since the
    same program runs again, the rows that were answered are not asked again.

    Args:
        rows: a bag of texts and mappings; its answers are `MapResult`s. Or a DataFrame, which gets three more columns:
            `answer` (text), `error` (text, or None) and `cost_usd`.
        preset: as for `llmkit.map`.
        job: the name of the jobs; by default one that the same rows and arguments have again.
        model: as there.
        system: as there.
        schema: as there.
        options: those of `llmkit.map` that make sense for a partition; the store must be one that all workers reach.

    Raises:
        InvalidRequestError: the rows are neither, or an option cannot be given here.
        ConfigError: Dask is not installed.
    """
    refuse(options, _OF_THE_WHOLE, "to dask_map")
    dask = _dask()
    kind = f"{type(rows).__module__}.{type(rows).__name__}"
    asked = {"preset": preset, "model": model, "system": system, "schema": schema}
    if not hasattr(rows, "to_delayed"):
        raise InvalidRequestError(f"rows are a Dask bag or DataFrame, not {kind}")
    is_bag = kind.startswith("dask.bag")
    job = job or f"dask/{dask.base.tokenize(rows, asked, options)}"
    ask = dask.delayed(_bag if is_bag else _frame)
    done = [ask(part, f"{job}/{number}", asked, options) for number, part in enumerate(rows.to_delayed())]
    if is_bag:
        from dask.bag import from_delayed

        return from_delayed(done)
    from dask.dataframe import from_delayed as from_frames

    meta = rows._meta.assign(**{ANSWER: "", ERROR: "", COST: 0.0})  # noqa: SLF001 - Dask's name for an empty frame
    return from_frames(done, meta=meta.astype({ANSWER: object, ERROR: object, COST: float}))


def _dask() -> Any:
    try:
        import dask
    except ImportError as error:
        raise ConfigError("dask_map needs Dask: pip install 'llmkit[dask]'") from error
    return dask


def _bag(rows: Any, job: str, asked: Mapping[str, Any], options: Mapping[str, Any]) -> list[MapResult[Any]]:
    """Return the results of a partition."""
    given = list(rows)
    if not given:
        return []
    work = opened_work(
        given, asked["preset"], asked["model"], asked["system"], asked["schema"], None, {**options, "job": job}
    )
    return list(work.results())


def _frame(rows: Any, job: str, asked: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Return a partition with its answers."""
    given = [{str(name): value for name, value in row.items()} for row in rows.to_dict("records")]
    results = _bag(given, job, asked, options)
    columns = {
        ANSWER: [result.text for result in results],
        ERROR: [result.error for result in results],
        COST: [float("nan") if result.cost_usd is None else result.cost_usd for result in results],
    }
    return rows.assign(**columns).astype({ANSWER: object, ERROR: object, COST: float})
