"""Sums over the rows of a ledger: calls, tokens, money and latency by model, preset, day and more."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import re
from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from llmkit.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from llmkit.money.ledger import Ledger

BAR = 20
"""How many characters the longest bar of a plot has."""
_AGE = re.compile(r"([0-9]{1,6})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_EIGHTHS: tuple[str, ...] = ("", *"▏▎▍▌▋▊▉")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The sums over the rows of one group.

    Attributes:
        key: what the rows have in common, one text for each name in `by`, or "" if a row has none.
        calls: how many different calls; a call that was retried counts once.
        attempts: how many rows.
        errors: how many of them ended with an error; interrupted answers are not errors.
        prompt_tokens, completion_tokens, cached_tokens: sums; cached tokens are part of the prompt's.
        cost_usd: US dollars, as far as prices are known, or None if there are answers and no price of any is known.
        unpriced: how many answers have no known price; while it is not 0, `cost_usd` is too small.
        p50_s, p95_s: seconds that half and 95 % of the attempts took at most, failed ones too, interpolated
            between neighbours, or None if no latency is known.
        possibly_usd: the most that attempts of unknown outcome may have cost in addition, in US dollars.
    """

    key: tuple[str, ...]
    calls: int
    attempts: int
    errors: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost_usd: float | None
    unpriced: int
    p50_s: float | None
    p95_s: float | None
    possibly_usd: float


_NUMBERS = tuple(field.name for field in fields(Line) if field.name != "key")
_SUMMED = ("calls", "attempts", "errors", "prompt_tokens", "completion_tokens", "cached_tokens", "unpriced")
_SPARE = ("attempts", "p95_s", "cached_tokens", "unpriced", "errors", "p50_s")
"""Numbers that a narrow terminal does without, first those at the front."""
_SHORTEST = 12
_HEADS = {"prompt_tokens": "prompt", "completion_tokens": "completion", "cached_tokens": "cached", "cost_usd": "usd"}
_HEADS |= {"possibly_usd": "possibly usd"}
GROUPS = ("model", "preset", "day", "session", "tag", "status")
"""The names by which rows can be grouped; by "tag", a row is in as many groups as it has tags."""


def grouping(text: str) -> tuple[str, ...]:
    """Return the names in a text like "model,day", each once, or () for an empty one.

    Raises:
        InvalidRequestError: rows cannot be grouped by one of them; the message lists all that are possible.
    """
    names = tuple(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))
    for name in names:
        if name not in GROUPS:
            raise InvalidRequestError(f"usage cannot be grouped by {name!r}; there are: {', '.join(GROUPS)}")
    return names


def moment(text: str, *, now: float) -> float:
    """Return a moment in seconds since 1970.

    Args:
        text: a date or an ISO moment, in UTC if it has no offset, or an age like 30m, 24h, 7d or 2w. A date is its
            beginning.
        now: the moment from which an age counts, in seconds since 1970.

    Raises:
        InvalidRequestError: it is none of these.
    """
    if age := _AGE.fullmatch(text.strip()):
        return now - timedelta(**{_UNITS[age[2]]: int(age[1])}).total_seconds()
    try:
        parsed = datetime.fromisoformat(re.sub(r"[zZ]$", "+00:00", text.strip()))
    except ValueError:
        known = "a date (2026-11-21), an ISO moment (2026-11-21T08:30:00Z) or an age (30m, 24h, 7d, 2w)"
        raise InvalidRequestError(f"{text!r} is no moment; it may be {known}") from None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).timestamp()


def summarise(
    ledger: Ledger,
    *groupings: Sequence[str],
    since: float | None = None,
    until: float | None = None,
    tag: str | None = None,
) -> list[list[Line]]:
    """Return the sums over the rows of a ledger, for each grouping.

    Args:
        ledger: the ledger.
        groupings: tuples of names in `GROUPS`, or of "attempt"; several names make a group for each combination that
            occurs, and () makes one group of all rows.
        since: the start, in seconds since 1970.
        until: the end, exclusive.
        tag: only rows that have it.

    Returns:
        For each grouping a line for each group, sorted by key, and last the total with the key (). A row in two groups,
        or a call whose attempts are in two, is in the total once.
    """
    from llmkit.store import ledger as stored

    ledger.flush()
    with ledger.store.database.reading() as connection:
        calls = stored.calls(connection, since, until, tag)
        names = [["tags" if name == "tag" else name for name in by] for by in groupings]
        return [_lines(by, stored.sums(connection, by, since, until, tag), calls) for by in names]


def added(lines: Sequence[Line]) -> Line:
    """Return the sum of lines, without latencies; a call that is in several of them is counted in each."""
    costs = [line.cost_usd for line in lines if line.cost_usd is not None]
    return _summed((), lines, costs, [line.possibly_usd for line in lines], [])


def as_text(lines: Sequence[Line], by: Sequence[str], *, plot: bool = False, columns: int | None = None) -> str:
    """Return the lines of `summarise` as a table with the total last; with *plot*, a bar for the cost of each group.

    Where it is wider than so many *columns*, it does without the numbers that matter least.
    """
    *groups, total = lines
    groups = groups if by else []
    shown = list(_NUMBERS if total.possibly_usd else _NUMBERS[:-1])
    spare = sorted(_SPARE, key=lambda name: bool(getattr(total, name)))  # what is nowhere goes first
    table = _table(groups, total, by, shown)
    while columns is not None and (excess := sum(_widths(table)) + 2 * len(table[0]) - 2 - columns) > 0:
        if not spare:
            longest = max(_widths(table)[0] - excess, _SHORTEST)
            table = [[_shortened(first, longest), *rest] for first, *rest in table]
            break
        shown.remove(spare.pop(0))
        table = _table(groups, total, by, shown)
    most = max((line.cost_usd or 0.0 for line in groups), default=0.0)
    bars = ["", *(_bar(line.cost_usd or 0.0, most) if plot else "" for line in groups), ""]
    return "".join(
        f"{_joined(row, _widths(table), len(by))}  {bar}".rstrip() + "\n" for row, bar in zip(table, bars, strict=True)
    )


def _table(groups: Sequence[Line], total: Line, by: Sequence[str], shown: Sequence[str]) -> list[list[str]]:
    head = [*by, *(_HEADS.get(name, name) for name in shown)]
    body = [[*map(_printable, line.key), *_cells(line, shown)] for line in groups]
    return [head, *body, [*("total", *[""] * len(by))[: len(by)], *_cells(total, shown)]]


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _widths(table: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*table, strict=True)]


def as_json(lines: Sequence[Line], by: Sequence[str]) -> str:
    """Return the groups of `summarise`, without the total, as a list of JSON objects; null means "not known"."""
    return json.dumps([_record(line, by) for line in lines[:-1]], ensure_ascii=False) + "\n"


def as_csv(lines: Sequence[Line], by: Sequence[str]) -> str:
    """Return the groups of `summarise`, without the total, as RFC 4180 CSV: a header, CRLF, "" means "not known".

    Names are one line without control characters; one that a spreadsheet would run as a formula gets an apostrophe.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, [*by, *_NUMBERS], lineterminator="\r\n")
    writer.writeheader()
    for line in lines[:-1]:
        writer.writerow(_record(line, by) | dict(zip(by, map(_inert, line.key), strict=True)))
    return text.getvalue()


def one_line(text: str) -> str:
    """Return a text as one line without control characters, for terminals, spreadsheets and pages."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _lines(names: Sequence[str], sums: Sequence[Any], calls: int) -> list[Line]:
    """Return a line for each group, and the total of so many calls."""
    groups: dict[tuple[str, ...], list[Any]] = {}
    sums = [row for row in sums if row.attempts]
    for row in sums:
        for key in itertools.product(*(_keys(name, value) for name, value in zip(names, row, strict=False))):
            groups.setdefault(key, []).append(row)
    total = replace(_line((), sums), calls=calls)
    return [*(_line(key, groups[key]) for key in sorted(groups)), total]


def _keys(name: str, value: Any) -> Collection[str]:
    """Return the groups of a value; all attempts of a call have the same tags, so that none is counted twice."""
    return dict.fromkeys(json.loads(value)) or ("",) if name == "tags" else (str(value),)


def _line(key: tuple[str, ...], rows: Sequence[Any]) -> Line:
    """Return the line for sums of the store, no two of which share a call."""
    chained = itertools.chain.from_iterable
    costs = list(chained(row.costs for row in rows))
    latencies = sorted(chained(row.latencies for row in rows))
    return _summed(key, rows, costs, chained(row.possible_costs for row in rows), latencies)


def _summed(
    key: tuple[str, ...],
    rows: Sequence[Any],
    costs: Sequence[float],
    possible: Iterable[float],
    latencies: Sequence[float],
) -> Line:
    """Return the line for rows and what they cost; latencies are sorted."""
    sums = {name: sum(getattr(row, name) for row in rows) for name in _SUMMED}
    return Line(
        key=key,
        **sums,
        cost_usd=math.fsum(costs) if costs or not sums["unpriced"] else None,
        p50_s=_percentile(latencies, 0.5),
        p95_s=_percentile(latencies, 0.95),
        possibly_usd=math.fsum(possible),
    )


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    if not ordered:
        return None
    place = (len(ordered) - 1) * share
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _record(line: Line, by: Sequence[str]) -> dict[str, Any]:
    return dict(zip(by, line.key, strict=True)) | {name: getattr(line, name) for name in _NUMBERS}


def _cells(line: Line, shown: Sequence[str]) -> list[str]:
    digits = {"cost_usd": 6, "possibly_usd": 6, "p50_s": 3, "p95_s": 3}
    values = {name: getattr(line, name) for name in shown}
    return [
        "?" if value is None and name == "cost_usd" else "-" if value is None else f"{value:.{digits.get(name, 0)}f}"
        for name, value in values.items()
    ]


def _joined(row: Sequence[str], widths: Sequence[int], texts: int) -> str:
    """Return texts aligned left and numbers aligned right."""
    cells = zip(row, widths, strict=True)
    return "  ".join(
        cell.ljust(width) if index < texts else cell.rjust(width) for index, (cell, width) in enumerate(cells)
    )


def _printable(text: str) -> str:
    """Return a key as one line without control characters for terminals, or "-" if it is empty."""
    return one_line(text) or "-"


def _inert(text: str) -> str:
    """Return a key as one line that no spreadsheet takes for a formula."""
    return f"'{one_line(text)}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else one_line(text)


def _bar(cost: float, most: float) -> str:
    """Return blocks as long as the cost is; a cost that is not 0 is always visible."""
    if cost <= 0 or most <= 0:
        return ""
    length = max(1, round(cost / most * BAR * 8))
    return "█" * (length // 8) + _EIGHTHS[length % 8]
