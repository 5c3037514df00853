"""One HTML page about rows of a ledger: what was asked, what it cost, how long it took and what failed.

The page needs nothing else: no script, no font, no picture, no network. What comes from the ledger is escaped.
"""

from __future__ import annotations

import itertools
from datetime import date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, TypeAlias

from llmkit.money import charts as _charts
from llmkit.money import report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from llmkit.money.ledger import Ledger

LISTED = 12
"""How many models are in the chart of latency."""
DAILY, WEEKLY = 120, 840
"""Up to how many days a column is for a day, and up to how many it is for a week; it is for a month beyond."""
LAST_TRY = "5"
"""The last attempt that is counted by itself; the store adds later ones to it."""
_NUMBERS = ("calls", "attempts", "errors", "prompt_tokens", "completion_tokens", "cached_tokens")
_Columns: TypeAlias = "Sequence[Sequence[report.Line]]"


def usage_page(ledger: Ledger, *, now: float, since: float | None = None, until: float | None = None) -> str:
    """Return the page, whole; it is to be written as UTF-8.

    Args:
        ledger: what it is about.
        now: when the page is made, seconds since 1970.
        since: from when on rows were looked for, seconds since 1970; None without a limit.
        until: before when.
    """
    groupings = (("model",), ("day", "model"), ("attempt", "status"))
    sums = report.summarise(ledger, *groupings, since=since, until=until)
    (*models, total), by_day, tries = sums[0], sums[1][:-1], sums[2][:-1]
    models.sort(key=lambda line: (-(line.cost_usd or 0.0), -line.prompt_tokens - line.completion_tokens, line.key))
    if by_day:
        times, columns = _columns(by_day)
        body = [_tiles(total), _cost(times, columns, models, total), _tokens(times, columns, total)]
        body += [_latency(models), _failures(tries, total), _models(models, total)]
    else:
        told = "Nothing in the ledger" + (" for this time" if (since, until) != (None, None) else "")
        hint = "Each call that llmkit makes is written down there; make this page again after the next one."
        body = [f'<section class="wide none"><h2>{told}</h2><p>{hint}</p></section>']
    lines = "\n".join(body)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>llmkit usage</title>
<link rel="icon" href="data:,">
<style>{_charts.STYLE}</style>
</head>
<body>
<main>
<header><h1>Usage</h1><p>{_when(by_day, now, since, until)}</p></header>
{lines}
</main>
</body>
</html>
"""


# -- the parts of the page --------------------------------------------------------------------------------------------


def _when(by_day: Sequence[report.Line], now: float, since: float | None, until: float | None) -> str:
    found = dict.fromkeys(_named(_date(line)) for line in (by_day[0], by_day[-1])) if by_day else ()
    limits = [f"{word} {_moment(at)}" for word, at in (("from", since), ("before", until)) if at is not None]
    asked = [f"rows {' '.join(limits)} UTC"] if limits else []
    return " · ".join([*([f" {_charts.NOTHING} ".join(found)] if found else []), *asked, f"made {_moment(now)} UTC"])


def _tiles(total: report.Line) -> str:
    short, counted = _charts.short, _charts.counted
    priced = f"without {counted(total.unpriced, 'answer')} of unknown price" if total.unpriced else "US dollars"
    priced = "no price is known" if total.cost_usd is None else priced
    tiles = (
        ("Cost", _charts.usd(total.cost_usd), priced),
        ("Calls", f"{total.calls:,}", "with all their attempts"),
        ("Attempts", f"{total.attempts:,}", f"{total.attempts - total.calls:,} more than calls"),
        ("Errors", f"{total.errors:,}", f"{_charts.share(total.errors, total.attempts)} of the attempts"),
        (
            "Tokens",
            short(total.prompt_tokens + total.completion_tokens),
            f"{short(total.prompt_tokens)} prompt, {short(total.completion_tokens)} completion",
        ),
        ("Unpriced", f"{total.unpriced:,}", "answers of unknown price"),
    )
    cells = (
        f'<div><dt>{head}</dt><dd class="big">{value}</dd><dd class="small">{note}</dd></div>'
        for head, value, note in tiles
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def _cost(times: _charts.Times, columns: _Columns, models: Sequence[report.Line], total: report.Line) -> str:
    names = [line.key[0] for line in models if line.cost_usd][: _charts.COLOURS]
    hidden = [line.key[0] for line in models if line.key[0] not in names]
    shown: dict[str, list[list[report.Line]]] = {name: [[] for _ in columns] for name in names}
    others: list[list[report.Line]] = [[] for _ in columns]
    for index, column in enumerate(columns):
        for line in column:
            shown.get(line.key[1], others)[index].append(line)
    series = [_priced(name, f"c{look}", groups) for look, (name, groups) in enumerate(shown.items(), start=1)]
    if hidden:
        rest = hidden[0] if len(hidden) == 1 else f"{len(hidden)} other models" if names else "all models"
        series.append(_priced(rest, "c0", others))
    every = _priced("all", "", columns)
    most = max(range(len(columns)), key=every.values.__getitem__)
    told = f"{_charts.usd(total.cost_usd)} in all; most: {_charts.usd(every.values[most])} ({times.names[most]})."
    if total.unpriced and total.cost_usd is not None:
        told += f" Without {_charts.counted(total.unpriced, 'answer')} of unknown price."
    if not any(every.values):
        told = "No price is known." if total.unpriced else "Nothing was charged."
    title = f"Cost by {times.unit} and model"
    return _charts.timeline("cost", title, told, times, [*series, every], ("USD", _charts.usd_axis))


def _priced(name: str, look: str, columns: _Columns) -> _charts.Series:
    lines = [report.added(column) for column in columns]
    whole = report.added(list(itertools.chain(*columns)))
    values = [max(line.cost_usd or 0.0, 0.0) for line in lines]
    short = [line.unpriced > 0 for line in lines]
    return _charts.Series(name, look, values, [_paid(line) for line in lines], _paid(whole), short)


def _tokens(times: _charts.Times, columns: _Columns, total: report.Line) -> str:
    lines = [report.added(column) for column in columns]

    def series(name: str, look: str, count: Callable[[report.Line], int]) -> _charts.Series:
        told = [f"{count(line):,}" for line in lines]
        values = [float(count(line)) for line in lines]
        return _charts.Series(name, look, values, told, f"{count(total):,}", [False] * len(lines))

    stacked = [
        series("prompt", "c1", lambda line: line.prompt_tokens),
        series("completion", "c2", lambda line: line.completion_tokens),
        series("all", "", lambda line: line.prompt_tokens + line.completion_tokens),
    ]
    cached = f"{_charts.share(total.cached_tokens, total.prompt_tokens)} of them cached"
    told = f"{stacked[0].whole} in prompts, {cached}; {stacked[1].whole} in completions."
    axis = ("tokens", lambda tokens, _: _charts.short(tokens))
    return _charts.timeline("tokens", f"Tokens by {times.unit}", told, times, stacked, axis)


def _latency(models: Sequence[report.Line]) -> str:
    title, told = "Latency by model", "Half of the attempts took p50 at the most, 95 % took p95 at the most."
    timed = sorted((line for line in models if line.p95_s is not None), key=lambda line: (-line.attempts, line.key))
    if not timed:
        return _charts.card("latency", title, "No latency is known.")
    if len(timed) > LISTED:
        told += f" Shown are the {LISTED} models with the most attempts; the table below has all."
    listed = sorted(timed[:LISTED], key=lambda line: (line.p50_s or 0.0, line.key))
    scale = _charts.ticks(max(line.p95_s or 0.0 for line in listed))
    bars, cells = [], []
    for line in listed:
        low, high = (f"{100 * (value or 0.0) / scale[-1]:.2f}%" for value in (line.p50_s, line.p95_s))
        p50, p95 = _charts.seconds(line.p50_s), _charts.seconds(line.p95_s)
        marks = f'<line class="span" x1="{low}" x2="{high}" y1="11" y2="11"/>'
        marks += f'<circle class="hollow" cx="{high}" cy="11" r="5"/><circle class="c1" cx="{low}" cy="11" r="5"/>'
        bars.append(_charts.Bar(line.key[0], f"{p50} {_charts.NOTHING} {p95}", f"p50 {p50}, p95 {p95}", marks))
        cells.append((line.key[0], f"{line.attempts:,}", p50, p95))
    data = _charts.numbers(title, ("model", "attempts", "p50", "p95"), cells)
    legend = _charts.legend([("p50", "dot"), ("p95", "ring")])
    return _charts.card(
        "latency", title, told, legend, _charts.rows("latency", title, told, bars, scale, "seconds"), data
    )


def _failures(tries: Sequence[report.Line], total: report.Line) -> str:
    title, retries = "Errors and retries", [line for line in tries if line.key[0] != "1"]
    count = report.added(retries).attempts
    told = (
        f"{_charts.share(total.errors, total.attempts)} of the attempts failed ({total.errors:,} of "
        f"{total.attempts:,}); {_charts.share(count, total.attempts)} were retries ({count:,})."
    )
    again = {status: line.attempts for status, line in _by(retries, 1).items()}
    ended = sorted(_by(tries, 1).items(), key=lambda item: (-item[1].attempts, item[0]))
    failed = [
        (status, line.attempts - again.get(status, 0), again.get(status, 0)) for status, line in ended if status != "ok"
    ]
    helped = [
        (f"attempt {number}" + " and later" * (number == LAST_TRY), line.attempts - line.errors, line.errors)
        for number, line in sorted(_by(retries, 0).items())
    ]
    charts = [
        _pairs("errors", "Attempts without a whole answer", failed, ("first attempts", "retries"), "red"),
        _pairs("retries", "How retries ended", helped, ("answered", "failed again"), "blue"),
    ]
    return _charts.card("failures", title, told, *charts)


def _pairs(key: str, title: str, counts: Sequence[tuple[str, int, int]], names: tuple[str, str], look: str) -> str:
    """Return a chart of rows in which two numbers follow each other, the second one hollow, and its table."""
    if not counts:
        return f"<h3>{title}</h3><p>None.</p>"
    scale = _charts.ticks(max(first + second for _, first, second in counts), whole=True)
    solid = "c6" if look == "red" else "c1"
    bars, cells = [], []
    for name, first, second in counts:
        begin, width = 100 * first / scale[-1], 100 * second / scale[-1]
        marks = f'<rect class="{solid}" y="4" height="14" width="{begin:.2f}%"/>' if first else ""
        marks += f'<rect class="hollow" x="{begin:.2f}%" y="5" height="12" width="{width:.2f}%"/>' if second else ""
        hover = f"{first:,} {names[0]}, {second:,} {names[1]}"
        bars.append(_charts.Bar(name, f"{first + second:,}", hover, marks))
        cells.append((name, f"{first:,}", f"{second:,}", f"{first + second:,}"))
    chart = _charts.rows(key, title, f"Attempts: {names[0]} and {names[1]}.", bars, scale, "attempts")
    legend = _charts.legend([(names[0], solid), (names[1], "hollow")])
    data = _charts.numbers(title, ("status" if look == "red" else "attempt", *names, "all"), cells)
    return f'<div class="{look}"><h3>{title}</h3>{legend}{chart}{data}</div>'


def _models(models: Sequence[report.Line], total: report.Line) -> str:
    heads = ("model", "calls", "attempts", "errors", "prompt", "completion", "cached", "cost", "unpriced", "p50", "p95")
    cells = [
        (
            "Total" if line is total else line.key[0],
            *(f"{getattr(line, name):,}" for name in _NUMBERS),
            *(
                _charts.usd(line.cost_usd),
                f"{line.unpriced:,}",
                _charts.seconds(line.p50_s),
                _charts.seconds(line.p95_s),
            ),
        )
        for line in (*models, total)
    ]
    told = "Prompt, completion and cached count tokens; p50 and p95 are of the attempts' latency."
    return _charts.card("models", "Models", told, _charts.table("Models", heads, cells[:-1], cells[-1]), wide=True)


def _by(lines: Iterable[report.Line], place: int) -> dict[str, report.Line]:
    """Return what the lines add up to that have the same text at a place of their keys."""
    groups: dict[str, list[report.Line]] = {}
    for line in lines:
        groups.setdefault(line.key[place], []).append(line)
    return {text: report.added(group) for text, group in groups.items()}


def _columns(by_day: Sequence[report.Line]) -> tuple[_charts.Times, list[list[report.Line]]]:
    """Return the columns from the first day to the last one, also those without rows, and the lines of each."""
    first, last = _date(by_day[0]), _date(by_day[-1])
    span = (last - first).days + 1
    unit = "day" if span <= DAILY else "week" if span <= WEEKLY else "month"
    columns: dict[date, list[report.Line]] = {}

    def begin(day: date) -> date:
        return {"day": day, "week": day - timedelta(days=day.weekday()), "month": day.replace(day=1)}[unit]

    for ahead in range(span):
        columns.setdefault(begin(first + timedelta(days=ahead)), [])
    for line in by_day:
        columns[begin(_date(line))].append(line)
    names = {"day": "{0.day} {0:%b %Y}", "week": "week of {0.day} {0:%b %Y}", "month": "{0:%b %Y}"}[unit]
    return _charts.Times(unit, list(columns), [names.format(day) for day in columns]), list(columns.values())


def _paid(line: report.Line) -> str:
    """Return what a group cost, "unknown" where no price is known, and a dash where nothing was asked."""
    if not line.attempts:
        return _charts.NOTHING
    more = " + unknown" if line.unpriced and line.cost_usd is not None else ""
    return _charts.usd(line.cost_usd) + more


def _date(line: report.Line) -> date:
    return date.fromisoformat(line.key[0])


def _named(day: date) -> str:
    return f"{day.day} {day:%b %Y}"


def _moment(at: float) -> str:
    moment = datetime.fromtimestamp(at, tz=timezone.utc)
    return f"{_named(moment)}, {moment:%H:%M}"
