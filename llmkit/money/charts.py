"""What all charts have in common: their axes, their numbers in words, and the template of columns over time.

`columns.svg.j2` draws the columns and `charts.css` says how they look, in the light and in the dark.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from llmkit.money.report import one_line

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST = 120
"""How many characters of a name are shown."""
NOTHING = "\u2013"
_HERE = Path(__file__).parent
_THOUSAND, _THOUSANDS = 1000, ("", "k", "M", "B", "T")
_NEGLIGIBLE = 1e-9


@dataclass(frozen=True, slots=True)
class Series:
    """The data of one colour: a value for each column, the same as texts, and their sum as text."""

    name: str
    look: str
    values: Sequence[float]
    texts: list[str]
    total: str


def environment(folder: Path = _HERE) -> Environment:
    """Return what makes pages and pictures of the templates in a folder and in this one; all texts are escaped."""
    made = Environment(
        loader=FileSystemLoader([folder, _HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"n": "{:,}".format, "usd": usd, "usd_axis": usd_axis, "short": short, "cut": cut}
    return made


@cache
def style(name: str) -> str:
    """Return a style of this folder."""
    return (_HERE / name).read_text(encoding="utf-8")


def ticks(most: float, *, whole: bool = False) -> list[float]:
    """Return round numbers from 0 to *most* or the next one, at least two and about five."""
    most = most if most > _NEGLIGIBLE else 1.0
    power = 10.0 ** math.floor(math.log10(most / 4))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= most / 4 * (1 - _NEGLIGIBLE))
    if whole:
        step = max(math.ceil(step), 1)
    return [index * step for index in range(math.ceil(most / step - _NEGLIGIBLE) + 1)]


def usd(amount: float | None) -> str:
    """Return US dollars with cents, and below a dollar with as many digits as it needs."""
    if amount is None:
        return "unknown"
    digits = max(4, 1 - math.floor(math.log10(abs(amount)))) if 0 < abs(amount) < 1 else 2
    dollars, cents = f"{abs(amount):,.{digits}f}".split(".")
    return f"{'-' * (amount < 0)}${dollars}.{cents.rstrip('0').ljust(2, '0')}"


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


def cut(name: str) -> str:
    """Return a name without control characters, in a length that can be shown, or a dash if it is empty."""
    name = one_line(name) or NOTHING
    return name if len(name) <= LONGEST else name[: LONGEST - 1] + "…"
