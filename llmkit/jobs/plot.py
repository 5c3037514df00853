"""The picture of a job: answers a second, failures and US dollars over the time, as an SVG that loads nothing.

Its numbers are those of the ledger, where every attempt of a job has its tag, also of other processes and earlier runs.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.money.charts import Series, environment, short, style, ticks, usd
from llmkit.store import ledger as stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmkit.jobs.job import Job

COLUMNS = 60
"""How many columns there are at the most."""
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 28_800, 86_400)
_FAILURES = ("c6", "c2", "c4")
"""The colours of the failures that are told from each other; "c0" is for the rest."""
_CLOCKS_S = 3600.0
"""How much the clock of a process may be behind that of the store."""


def picture(job: Job) -> str:
    """Return the picture of a job so far; it is to be written as UTF-8.

    Raises:
        InvalidRequestError: the job was removed.
    """
    info, tag = job.info(), f"map:{job.id}"
    found: list[Any] = []
    first, step_s, number = 0.0, 1.0, 0
    with job.store.database.reading() as connection:
        if (span := stored.span(connection, tag, info.created_at - _CLOCKS_S)) is not None:
            first = span[0]
            step_s = _step_s(span[1] - first)
            found = stored.over_time(connection, tag, first, step_s)
            number = found[-1].step + 1
    names = [_after(step_s * index) for index in range(number)]
    made = environment(Path(__file__).parent)
    return made.get_template("plot.svg.j2").render(
        name=Path(info.name).name,
        info=info,
        style=style("charts.css"),
        began=f"{datetime.fromtimestamp(first, tz=timezone.utc):%Y-%m-%d %H:%M:%S}",
        step=_after(step_s),
        names=names,
        charts=[_answers(found, number, step_s), _failures(found, number), _cost(found, number)] if found else [],
    )


def _step_s(span_s: float) -> float:
    """Return how many seconds a column is for."""
    return next((float(step) for step in _STEPS_S if span_s < step * COLUMNS), span_s / (COLUMNS - 1))


def _answers(found: Sequence[Any], number: int, step_s: float) -> dict[str, Any]:
    counts = _sums(number, ((row.step, row.attempts) for row in found if row.is_answer))
    rates = [count / step_s for count in counts]
    total = round(sum(counts))
    chart = _chart("Answers a second", "1/s", [Series("answers", "c1", rates, [short(rate) for rate in rates], "")])
    return {**chart, "summary": f"{total:,} answers in {_after(number * step_s)}; most: {short(max(rates))} a second."}


def _failures(found: Sequence[Any], number: int) -> dict[str, Any]:
    totals: dict[str, int] = {}
    for row in found:
        if not row.is_answer:
            totals[row.status] = totals.get(row.status, 0) + row.attempts
    ranked = sorted(totals, key=lambda status: (-totals[status], status))
    kinds = [[status] for status in ranked[: len(_FAILURES)]]
    kinds += [ranked[len(_FAILURES) :]] if ranked[len(_FAILURES) :] else []
    series = []
    for statuses, look in zip(kinds, (*_FAILURES, "c0"), strict=False):
        counts = _sums(number, ((row.step, row.attempts) for row in found if row.status in statuses))
        name = statuses[0] if look != "c0" or len(statuses) == 1 else f"{len(statuses)} others"
        total = sum(totals[status] for status in statuses)
        series.append(Series(name, look, counts, [f"{count:,.0f}" for count in counts], f"{total:,}"))
    attempts = sum(row.attempts for row in found)
    summary = f"{sum(totals.values()):,} of {attempts:,} attempts failed." if totals else "None."
    return {**_chart("Failed attempts", "attempts", series), "summary": summary}


def _cost(found: Sequence[Any], number: int) -> dict[str, Any]:
    costs = _sums(number, ((row.step, row.cost_usd) for row in found))
    unpriced = _sums(number, ((row.step, row.unpriced) for row in found))
    possibly = sum(row.possibly_usd for row in found)
    chart = _chart("Cost", "USD", [Series("cost", "c3", costs, [usd(cost) for cost in costs], "")])
    words = [f"{usd(sum(costs))} in all"]
    words += [f"answers of unknown price: {sum(unpriced):,.0f}"] if any(unpriced) else []
    words += [f"attempts of unknown outcome: up to {usd(possibly)} more"] if possibly else []
    return {**chart, "unknown": [count > 0 for count in unpriced], "summary": "; ".join(words) + "."}


def _chart(title: str, axis: str, series: Sequence[Series]) -> dict[str, Any]:
    """Return what the template draws: the series and, last, their sum."""
    values = [sum(each) for each in zip(*(one.values for one in series), strict=True)]
    texts = series[0].texts if len(series) == 1 else [f"{value:,.0f}" for value in values]
    every = Series("all", "", values, texts, "")
    scale = ticks(max(values, default=0.0), whole=axis == "attempts")
    unknown = [False] * len(values)
    return {"title": title, "axis": axis, "series": [*series, every], "unknown": unknown, "scale": scale}


def _sums(number: int, each: Iterable[tuple[int, float]]) -> list[float]:
    """Return the sum of each column."""
    sums = [0.0] * number
    for index, value in each:
        sums[index] += value
    return sums


def _after(seconds: float) -> str:
    """Return a duration in words: 0:05:00."""
    return str(timedelta(seconds=round(seconds)))
