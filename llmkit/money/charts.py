"""Charts as SVG and HTML, tables, and numbers in words for a page that loads nothing; no ledger is known here.

Every text that is given is escaped here, and only here. Places are percents of the width, so that a chart fits any
screen and its letters keep their size.
"""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import date

COLOURS = 6
"""How many series have a colour of their own; "c0" is for the rest."""
LONGEST = 120
"""How many characters of a name are shown."""
NOTHING = "\u2013"
_MANY, _LABELS, _EDGE = 90, 7, 4
_LEAST = 1e-9
_TOP, _FLOOR, _BOTTOM = 26.0, 206.0, 258
_SQUARE = '<rect class="{}" width="12" height="12" rx="2"/>'
_ROUND = '<circle class="{}" cx="6" cy="6" r="{}"/>'
_SHAPES = {
    "dot": _ROUND.format("c1", 5),
    "ring": _ROUND.format("hollow", 5),
    "open": _ROUND.format("open", 3),
    "hollow": '<rect class="hollow" x="1" y="1" width="10" height="10"/>',
}
_THOUSANDS = ("", "k", "M", "B", "T")
_THOUSAND = 1000
_Texts: TypeAlias = "Sequence[str]"

STYLE = """
*{box-sizing:border-box}
:root{color-scheme:light dark;--bg:#f4f6f8;--card:#fff;--ink:#161b22;--soft:#586271;--line:#e1e6ec;--hover:#0b5cad12;
--c1:#0b5cad;--c2:#c67c00;--c3:#00896b;--c4:#b0468f;--c5:#3d97d8;--c6:#8c2d04;--c0:#87919f}
@media(prefers-color-scheme:dark){:root{--bg:#0e1217;--card:#171c23;--ink:#e8ecf1;--soft:#9aa5b3;--line:#2a323c;
--hover:#b4dcff14;--c1:#3d8ae0;--c2:#f2b035;--c3:#19a583;--c4:#e08cc4;--c5:#b4dcff;--c6:#cf4f1f;--c0:#6f7a89}}
body{margin:0;background:var(--bg);color:var(--ink);-webkit-text-size-adjust:100%;
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:20px;max-width:1160px;margin:auto;
padding:clamp(20px,4vw,44px) clamp(14px,4vw,32px)}
header,.tiles,.wide{grid-column:1/-1}
h1{margin:0;font-size:28px;line-height:1.2;letter-spacing:-.02em}
h2{margin:0;font-size:17px;line-height:1.3;letter-spacing:-.01em}h3{margin:22px 0 2px;font-size:14px}
p{margin:4px 0 0;color:var(--soft)}.sub{font-size:14px}
section{min-width:0;padding:20px clamp(14px,2.5vw,24px);background:var(--card);border:1px solid var(--line);
border-radius:12px}
.tiles{display:grid;grid-template-columns:repeat(6,minmax(0,1fr));gap:1px;margin:0;overflow:hidden;
background:var(--line);border:1px solid var(--line);border-radius:12px}
.tiles div{padding:14px 16px;background:var(--card);min-width:0}
dt{font-size:13px;color:var(--soft)}dd{margin:0}.big{font-size:24px;font-weight:650;line-height:1.3;
letter-spacing:-.02em;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}.small{font-size:12.5px;
line-height:1.4;color:var(--soft)}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;margin:14px 0 0;padding:0;list-style:none;font-size:13px}
.legend li{display:flex;gap:7px;align-items:center;min-width:0;overflow-wrap:anywhere}
.legend svg{flex:none;width:12px;height:12px}
.plot{display:block;margin:14px 0 0 60px;width:calc(100% - 60px);overflow:visible}
text{font-size:12px;fill:var(--soft);font-variant-numeric:tabular-nums}.end{text-anchor:end}.mid{text-anchor:middle}
.grid{stroke:var(--line)}.hit{fill:transparent}g:hover>.hit{fill:var(--hover)}
.c0{fill:var(--c0)}.c1{fill:var(--c1)}.c2{fill:var(--c2)}.c3{fill:var(--c3)}.c4{fill:var(--c4)}.c5{fill:var(--c5)}
.c6{fill:var(--c6)}.seg{stroke:var(--card);stroke-width:.5}.thin .seg{stroke:none}
.hollow{fill:var(--card);stroke:var(--c1);stroke-width:2}.red .hollow{stroke:var(--c6)}
.open{fill:none;stroke:var(--ink);stroke-width:1.4}
.span{stroke:var(--c1);stroke-width:4;stroke-linecap:round;opacity:.45}
.rows{margin-top:12px;font-size:13px}
.row{display:grid;grid-template-columns:minmax(0,1fr) auto;gap:0 12px;padding:5px 0}
.name{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}.value{font-variant-numeric:tabular-nums;
color:var(--soft)}.row svg{grid-column:1/-1;display:block;width:100%;overflow:visible}
details{margin-top:16px;font-size:14px}summary{cursor:pointer;color:var(--soft);width:fit-content}
summary:hover{color:var(--ink)}:focus-visible{outline:2px solid var(--c1);outline-offset:2px}
.scroll{overflow-x:auto;margin-top:10px}
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
caption{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
th,td{padding:7px 0 7px 16px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
thead th{color:var(--soft);font-weight:500}tbody th{font-weight:400}tfoot th,tfoot td{font-weight:650;border:0}
th:first-child{position:sticky;left:0;min-width:min(38vw,200px);max-width:340px;padding:7px 8px 7px 0;text-align:left;
background:var(--card);white-space:normal;overflow-wrap:anywhere}
.none{padding:56px 20px;text-align:center}
@media(max-width:820px){main{grid-template-columns:minmax(0,1fr);gap:14px}.tiles{grid-template-columns:1fr 1fr}
.alt{display:none}.seg{stroke:none}.plot .open{r:1.6px;stroke-width:1}.plot{margin-left:50px;width:calc(100% - 50px)}}
@media print{body{background:none}section{break-inside:avoid}}
"""


@dataclass(frozen=True, slots=True)
class Times:
    """What the columns of a chart are for: "day", "week" or "month" in UTC, their first days and their names."""

    unit: str
    days: list[date]
    names: list[str]


@dataclass(frozen=True, slots=True)
class Series:
    """What is stacked: a value for each column, how it is told, and how the sum is; where a part is not known."""

    name: str
    look: str
    values: list[float]
    told: list[str]
    whole: str
    short: list[bool]


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of a chart of rows: its name, what stands at its right, what it tells when pointed at, its marks."""

    name: str
    value: str
    hover: str
    marks: str


# -- charts and tables ------------------------------------------------------------------------------------------------


def card(key: str, title: str, told: str, *body: str, wide: bool = False) -> str:
    """Return a part of the page: title, a sentence, and what is given as HTML."""
    return (
        f'<section{" class=wide" * wide} aria-labelledby="{key}"><h2 id="{key}">{title}</h2>'
        f'<p class="sub">{_e(told)}</p>{"".join(body)}</section>'
    )


def timeline(
    key: str, title: str, told: str, times: Times, series: Sequence[Series], axis: tuple[str, Callable[..., str]]
) -> str:
    """Return a card with columns over time, in which all series but the last, their sum, are stacked.

    Args:
        key: for ids in the page.
        title: name of the chart.
        told: its description, a sentence.
        times: what the columns are for.
        series: what they show.
        axis: what the values are, and what writes one of them when it is given the distance of two as well.
    """
    *stacked, every = series
    cells = [(name, *(one.told[index] for one in series)) for index, name in enumerate(times.names)]
    foot = ("Total", *(one.whole for one in series))
    data = numbers(title, (times.unit, *(one.name for one in series)), cells, foot)
    if not any(every.values):
        return card(key, title, told, data, wide=True)
    looks = [(one.name, one.look) for one in stacked]
    if any(every.short):
        looks.append(("the price of some answers is unknown", "open"))
    scale = ticks(max(every.values))
    grid = "".join(
        f'<line class="grid" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="end" x="-8" y="{y + 4:.1f}">{label}</text>'
        for y, label in ((_height(tick, scale), axis[1](tick, scale[1])) for tick in scale)
    )
    stacks = "".join(_stack(times, stacked, every, scale, index) for index in range(len(times.days)))
    svg = (
        f'<svg class="plot{" thin" if len(times.days) > _MANY else ""}" role="img" height="{_BOTTOM}" '
        f'aria-labelledby="{key}-t" aria-describedby="{key}-d"><title id="{key}-t">{title}</title>'
        f'<desc id="{key}-d">{_e(told)}</desc><text x="-8" y="8" class="end">{axis[0]}</text>{grid}{stacks}'
        f'{_dates(times)}<text class="mid" x="50%" y="{_BOTTOM - 2}">{times.unit} (UTC)</text></svg>'
    )
    return card(key, title, told, legend(looks), svg, data, wide=True)


def _stack(times: Times, stacked: Sequence[Series], every: Series, scale: Sequence[float], index: int) -> str:
    """Return one column: a hover over its whole height, its parts from the bottom up, a ring where some is unknown."""
    slot = 100 / len(times.days)
    width = min(slot * 0.78, 6.0)
    middle = slot * (index + 0.5)
    parts, below = "", 0.0
    for one in stacked:
        if value := one.values[index]:
            top, bottom = _height(below + value, scale), _height(below, scale)
            place = f'x="{middle - width / 2:.3f}%" width="{width:.3f}%" y="{top:.2f}" height="{bottom - top:.2f}"'
            parts += f'<rect class="seg {one.look}" {place}/>'
            below += value
    if every.short[index]:
        parts += f'<circle class="open" cx="{middle:.3f}%" cy="{_FLOOR + 8}" r="2.5"/>'
    told = [f"{times.names[index]}: {every.told[index]}"]
    told += [f"{_cut(one.name)}: {one.told[index]}" for one in stacked if one.told[index] not in {NOTHING, "0"}]
    hit = f'<rect class="hit" x="{slot * index:.3f}%" width="{slot:.3f}%" y="{_TOP}" height="{_FLOOR - _TOP}"/>'
    return f"<g><title>{_e(chr(10).join(told))}</title>{hit}{parts}</g>"


def _height(value: float, ticks: Sequence[float]) -> float:
    return _FLOOR - (_FLOOR - _TOP) * value / ticks[-1]


def _dates(times: Times) -> str:
    """Return the labels below the columns: seven at the most, on a small screen every second one."""
    years = times.days[0].year != times.days[-1].year
    found = ""
    for count, index in enumerate(range(0, len(times.days), math.ceil(len(times.days) / _LABELS))):
        x, day = 100 * (index + 0.5) / len(times.days), times.days[index]
        end = "mid" if _EDGE < x < 100 - _EDGE else "end" if index else ""
        text = f"{day:%b %Y}" if times.unit == "month" else f"{day.day} {day:%b}" + f" {day:%Y}" * years
        found += f'<text class="{end}{" alt" if count % 2 else ""}" x="{x:.2f}%" y="{_FLOOR + 30}">{text}</text>'
    return found


def rows(key: str, title: str, told: str, bars: Sequence[Bar], scale: Sequence[float], unit: str) -> str:
    """Return a chart with a row for each bar: name and value above the marks, so that both have room on a phone."""
    places = [(100 * tick / scale[-1], short(tick)) for tick in scale]
    grid = "".join(f'<line class="grid" x1="{x:.2f}%" x2="{x:.2f}%" y2="22"/>' for x, _ in places)
    found = "".join(
        f'<div class="row"><span class="name" title="{name}">{name}</span><span class="value">{_e(bar.value)}</span>'
        f'<svg height="22"><g><title>{_e(bar.hover)}</title><rect class="hit" width="100%" height="22"/>{grid}'
        f"{bar.marks}</g></svg></div>"
        for bar, name in ((bar, _e(_cut(bar.name))) for bar in bars)
    )
    ends = {0: "", len(scale) - 1: "end"}
    labels = "".join(
        f'<text class="{ends.get(index, "mid")}" x="{x:.2f}%" y="12">{label}</text>'
        for index, (x, label) in enumerate(places)
    )
    axis = f'<svg height="34">{labels}<text class="mid" x="50%" y="30">{unit}</text></svg>'
    return (
        f'<div class="rows" role="img" aria-label="{title}" aria-describedby="{key}-d">'
        f'<p id="{key}-d" hidden>{_e(told)}</p>{found}<div class="row">{axis}</div></div>'
    )


def legend(names: Iterable[tuple[str, str]]) -> str:
    """Return a legend of names and looks."""
    items = (
        f'<li><svg aria-hidden="true">{_SHAPES.get(look, _SQUARE.format(look))}</svg>{_e(_cut(name))}</li>'
        for name, look in names
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def numbers(title: str, heads: _Texts, cells: Sequence[_Texts], foot: _Texts = ()) -> str:
    """Return the table of a chart, to be unfolded."""
    return f"<details><summary>{title}: the numbers</summary>{table(title, heads, cells, foot)}</details>"


def table(title: str, heads: _Texts, cells: Sequence[_Texts], foot: _Texts = ()) -> str:
    """Return a table that scrolls by itself where it is too wide; the first column stays."""
    head = "".join(f'<th scope="col">{_e(_cut(text))}</th>' for text in heads)
    body = "".join(f"<tr>{_row(row)}</tr>" for row in cells)
    last = f"<tfoot><tr>{_row(foot)}</tr></tfoot>" if foot else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{title}, table"><table><caption>{title}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>{last}</table></div>"
    )


def _row(cells: _Texts) -> str:
    return f'<th scope="row">{_e(_cut(cells[0]))}</th>' + "".join(f"<td>{_e(cell)}</td>" for cell in cells[1:])


def ticks(most: float, *, whole: bool = False) -> list[float]:
    """Return round numbers from 0 to *most* or the next one, at least two and about five."""
    most = most if most > _LEAST else 1.0
    power = 10.0 ** math.floor(math.log10(most / 4))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= most / 4 * (1 - 1e-9))
    if whole:
        step = max(math.ceil(step), 1)
    return [index * step for index in range(math.ceil(most / step - 1e-9) + 1)]


# -- numbers and names ------------------------------------------------------------------------------------------------


def usd(amount: float | None) -> str:
    """Return US dollars with cents, or with two digits that count where that is less than a dollar."""
    if amount is None:
        return "unknown"
    small = 0 < abs(amount) < 1
    digits = max(4, 1 - math.floor(math.log10(abs(amount)))) if small else 2
    text = f"{abs(amount):,.{digits}f}"
    cents = text.index(".") + 3
    return ("-$" if amount < 0 else "$") + text[:cents] + text[cents:].rstrip("0")


def usd_axis(amount: float, step: float) -> str:
    """Return US dollars as short as numbers that are *step* apart can be."""
    if step >= _THOUSAND:
        return f"${short(amount)}"
    digits = next((digits for digits in range(9) if math.isclose(round(step, digits), step)), 9)
    return f"${amount:,.{2 if digits == 1 else digits}f}"


def short(number: float) -> str:
    """Return a number in three digits or so: 999, 1.23k, 45M."""
    place = 0
    while round(number) >= _THOUSAND and place < len(_THOUSANDS) - 1:
        number, place = number / _THOUSAND, place + 1
    return f"{number:.4g}" if not place else f"{float(f'{number:.3g}'):g}{_THOUSANDS[place]}"


def seconds(duration: float | None) -> str:
    """Return a duration in three digits, in milliseconds where it is below a second."""
    if duration is None:
        return "unknown"
    if duration < 1:
        return f"{duration * 1000:.0f} ms"
    return f"{duration:,.{max(0, 2 - math.floor(math.log10(duration)))}f} s"


def share(part: int, whole: int) -> str:
    """Return a part in percent; one that is not 0 never reads as 0."""
    text = f"{100 * part / whole if whole else 0:.1f}"
    return "<0.1 %" if part and text == "0.0" else f"{text.removesuffix('.0')} %"


def counted(number: int, one: str) -> str:
    """Return a number of things, the word in its plural where it has to be."""
    return f"{number:,} {one}{'s' * (number != 1)}"


def _cut(name: str) -> str:
    """Return a name that no browser obeys, in a length that can be shown; a dash for none."""
    name = "".join(character if character.isprintable() else "?" for character in name) or NOTHING
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"


def _e(text: str) -> str:
    return html.escape(text, quote=True)
