"""One HTML page about rows of a ledger: what was asked, what it cost, how long it took and what failed.

Here are its numbers and what they are called; `usage.html.j2` makes a page of them that loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import math
from datetime import date, datetime, timedelta, timezone
from functools import cache
from typing import TYPE_CHECKING, Any

from llmkit.money import report
from llmkit.money.charts import NOTHING, Series, environment, style, ticks, usd

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

GROUPINGS = (("model",), ("day", "model"), ("attempt", "status"))
"""The groupings whose sums the page shows."""
COLOURS = 6
"""How many models have a colour of their own; "c0" is for the rest."""
LISTED = 12
"""How many models are in the chart of latency."""
USUAL = 30
"""How many days are shown at least where no limits are given."""
DAILY, WEEKLY = 120, 840
"""Up to how many days a column is for a day, and up to how many it is for a week; it is for a month beyond."""
LAST_TRY = "5"
"""The last attempt that is counted by itself; the store adds later ones to it."""
_MOMENT_S = 1e-3  # an end is exclusive: midnight is none of the day that it begins


def usage_page(
    sums: Sequence[Sequence[report.Line]],
    *,
    now: float,
    since: float | None = None,
    until: float | None = None,
    whose: str = "",
) -> str:
    """Return the page, whole; it is to be written as UTF-8.

    Args:
        sums: the lines of `report.summarise` for `GROUPINGS`.
        now: when the page is made, in seconds since 1970.
        since: the start of the sums, in seconds since 1970, or None for no limit.
        until: their end, exclusive.
        whose: the rows are about, if not about all.
    """
    (*models, total), (*by_day, _), (*tries, _) = sums
    since = since if since is None else max(since, 0.0)  # `--since 999999w` begins before the years that have a name
    models.sort(key=lambda line: (-(line.cost_usd or 0.0), -line.prompt_tokens - line.completion_tokens, line.key))
    limits = [f"{word} {_moment(at)}" for word, at in (("from", since), ("before", until)) if at is not None]
    values: dict[str, Any] = {"models": models, "total": total, "limits": limits, "made": _moment(now), "whose": whose}
    values |= {"style": _style(), "policy": policy()}
    if by_day:
        first, last = _shown(_date(by_day[0]), _date(by_day[-1]), now=now, since=since, until=until)
        unit, columns = _columns(by_day, first, last)
        values |= {"unit": unit, "names": [_name(day, unit) for day in columns]}
        values |= {"labels": [_name(day, "month" if unit == "month" else "day") for day in columns]}
        values |= {"cost": _cost(list(columns.values()), models), "tokens": _tokens(list(columns.values()))}
        values |= {"span": [first, last], "latency": _latency(models), **_attempts(tries)}
    made = environment()
    made.filters |= {"seconds": _seconds, "share": _share, "name": _name}
    return made.get_template("usage.html.j2").render(values)


@cache
def _style() -> str:
    return style("charts.css") + style("usage.css")


@cache
def policy() -> str:
    """Return the content security policy of the page: its own style, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:"


# -- what the charts show ---------------------------------------------------------------------------------------------


def _shown(first: date, last: date, *, now: float, since: float | None, until: float | None) -> tuple[date, date]:
    """Return the first and the last day of the axes, for rows between two days.

    The time that was asked for is shown whole, days without a call too. Where it is long, or has no beginning, the axes
    begin with the first call, and have no less than the usual number of days.
    """
    end = max(last, _day(now if until is None else min(now, until - _MOMENT_S)))
    usual = min(first, end - timedelta(days=USUAL - 1))
    if since is None:
        return usual, end
    begin = min(first, _day(since))
    return (begin if (end - begin).days < DAILY else max(begin, usual)), end


def _columns(by_day: Sequence[report.Line], first: date, last: date) -> tuple[str, dict[date, list[report.Line]]]:
    """Return the unit of the columns, and the lines of each column by its first day, empty columns too."""
    span = (last - first).days + 1
    unit = "day" if span <= DAILY else "week" if span <= WEEKLY else "month"
    columns: dict[date, list[report.Line]] = {}

    def begin(day: date) -> date:
        return {"day": day, "week": day - timedelta(days=day.weekday()), "month": day.replace(day=1)}[unit]

    for ahead in range(span):
        columns.setdefault(begin(first + timedelta(days=ahead)), [])
    for line in by_day:
        columns[begin(_date(line))].append(line)
    return unit, columns


def _cost(columns: Sequence[Sequence[report.Line]], models: Sequence[report.Line]) -> dict[str, Any]:
    names = [line.key[0] for line in models if line.cost_usd][:COLOURS]
    hidden = [line.key[0] for line in models if line.key[0] not in names]
    shown: dict[str, list[list[report.Line]]] = {name: [[] for _ in columns] for name in names}
    others: list[list[report.Line]] = [[] for _ in columns]
    for index, column in enumerate(columns):
        for line in column:
            shown.get(line.key[1], others)[index].append(line)
    series = [_costs(name, f"c{look}", groups) for look, (name, groups) in enumerate(shown.items(), start=1)]
    if hidden and any(line.cost_usd or line.unpriced for line in itertools.chain(*others)):
        rest = hidden[0] if len(hidden) == 1 else f"{len(hidden)} other models" if names else "all models"
        series.append(_costs(rest, "c0", others))
    every = _costs("all", "", columns)
    unknown = [any(line.unpriced for line in column) for column in columns]
    return {"series": [*series, every], "unknown": unknown, "scale": ticks(max(every.values))}


def _costs(name: str, look: str, columns: Sequence[Sequence[report.Line]]) -> Series:
    lines = [report.added(column) for column in columns]
    values = [max(line.cost_usd or 0.0, 0.0) for line in lines]
    return Series(name, look, values, list(map(_paid, lines)), _paid(report.added(list(itertools.chain(*columns)))))


def _tokens(columns: Sequence[Sequence[report.Line]]) -> dict[str, Any]:
    def series(name: str, look: str, *kinds: str) -> Series:
        counts = [sum(getattr(line, kind) for line in column for kind in kinds) for column in columns]
        return Series(name, look, counts, [f"{count:,}" for count in counts], f"{sum(counts):,}")

    stacked = [series("prompt", "c1", "prompt_tokens"), series("completion", "c2", "completion_tokens")]
    every = series("all", "", "prompt_tokens", "completion_tokens")
    return {"series": [*stacked, every], "unknown": [False] * len(columns), "scale": ticks(max(every.values))}


def _latency(models: Sequence[report.Line]) -> dict[str, Any]:
    timed = sorted((line for line in models if line.p95_s is not None), key=lambda line: (-line.attempts, line.key))
    listed = sorted(timed[:LISTED], key=lambda line: (line.p50_s or 0.0, line.key))
    scale = ticks(max((line.p95_s or 0.0 for line in listed), default=0.0))
    return {"lines": listed, "scale": scale, "hidden": len(timed) - len(listed)}


def _attempts(tries: Sequence[report.Line]) -> dict[str, Any]:
    """Return how attempts ended without a whole answer, first ones and retries, and how retries ended."""
    retries = [line for line in tries if line.key[0] != "1"]
    again = {status: line.attempts for status, line in _by(retries, 1).items()}
    ended = sorted(_by(tries, 1).items(), key=lambda item: (-item[1].attempts, item[0]))
    failed = [
        (status, line.attempts - again.get(status, 0), again.get(status, 0)) for status, line in ended if status != "ok"
    ]
    helped = [
        (f"attempt {number}" + " and later" * (number == LAST_TRY), line.attempts - line.errors, line.errors)
        for number, line in sorted(_by(retries, 0).items())
    ]
    return {"retries": sum(line.attempts for line in retries), "failed": _pairs(failed), "helped": _pairs(helped)}


def _pairs(counts: Sequence[tuple[str, int, int]]) -> dict[str, Any]:
    most = max((first + second for _, first, second in counts), default=0)
    return {"counts": counts, "scale": ticks(most, whole=True)}


def _by(lines: Iterable[report.Line], place: int) -> dict[str, report.Line]:
    """Return the sums of the lines that have the same text at a place of their keys."""
    groups: dict[str, list[report.Line]] = {}
    for line in lines:
        groups.setdefault(line.key[place], []).append(line)
    return {text: report.added(group) for text, group in groups.items()}


# -- numbers and names in words ---------------------------------------------------------------------------------------


def _paid(line: report.Line) -> str:
    """Return the cost of a group, "unknown" if no price is known, or a dash if there were no attempts."""
    if not line.attempts:
        return NOTHING
    return usd(line.cost_usd) + (" + unknown" if line.unpriced and line.cost_usd is not None else "")


def _seconds(duration: float | None) -> str:
    """Return a duration in three digits, in milliseconds if it is below a second."""
    if duration is None:
        return "unknown"
    if duration < 1:
        return f"{duration * 1000:.0f} ms"
    return f"{duration:,.{max(0, 2 - math.floor(math.log10(duration)))}f} s"


def _share(part: int, whole: int) -> str:
    """Return a part in percent; one that is not 0 never reads as 0."""
    text = f"{100 * part / whole if whole else 0:.1f}"
    return "<0.1 %" if part and text == "0.0" else f"{text.removesuffix('.0')} %"


def _date(line: report.Line) -> date:
    return date.fromisoformat(line.key[0])


def _day(at: float) -> date:
    return datetime.fromtimestamp(at, tz=timezone.utc).date()


def _name(day: date, unit: str = "day") -> str:
    """Return the name of the day, week or month that begins then."""
    return f"{day:%Y-%m}" if unit == "month" else f"{'week of ' * (unit == 'week')}{day:%Y-%m-%d}"


def _moment(at: float) -> str:
    moment = datetime.fromtimestamp(at, tz=timezone.utc)
    return f"{_name(moment)} {moment:%H:%M}"
