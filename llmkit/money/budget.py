"""`Budget`: the rule of a limit in US dollars; `money.budgets` keeps to it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from llmkit.errors import ConfigError
from llmkit.providers.model_info import full_name

if TYPE_CHECKING:
    from llmkit.core.types import CallLabels

Period = Literal["day", "week", "month", "total"]
PERIODS = ("day", "week", "month", "total")
SCOPES = ("preset", "model", "tag", "user")


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A spending limit.

    Attributes:
        name: its name in the store.
        limit_usd: US dollars per period.
        period: "day", "week" (from Monday), "month", or "total" for ever.
        scope: the calls it limits, by "preset", "model" (the logical name), "tag" and "user" (that of the call's
            parameters); all if empty.
        warn_at: the share of the limit from which replies carry a warning.
        unpriced: "refuse" calls whose price is unknown or whose cost has no bound (a hosted search, a file, no
            longest answer), or "allow" and count them.
        zone: the time zone in which days, weeks and months begin.

    Raises:
        ConfigError: a value is invalid; it is named.
    """

    name: str
    limit_usd: float
    period: Period = "month"
    scope: Mapping[str, str] = field(default_factory=dict)
    warn_at: float = 0.8
    unpriced: Literal["refuse", "allow"] = "refuse"
    zone: str = "UTC"

    def __post_init__(self) -> None:
        """Check the values."""
        number = isinstance(self.limit_usd, int | float) and not isinstance(self.limit_usd, bool)
        wrong = {
            "name": not isinstance(self.name, str) or not self.name.strip() or not self.name.isprintable(),
            "limit_usd": not number or not 0 <= self.limit_usd < float("inf"),
            "period": self.period not in PERIODS,
            "scope": not isinstance(self.scope, Mapping)
            or not set(self.scope) <= set(SCOPES)
            or not all(isinstance(wanted, str) and wanted for wanted in self.scope.values()),
            "warn_at": not 0 <= self.warn_at <= 1,
            "unpriced": self.unpriced not in {"refuse", "allow"},
        }
        choices = {
            "period": PERIODS,
            "scope": [f"a text for {each}" for each in SCOPES],
            "unpriced": ("refuse", "allow"),
        }
        for key, is_wrong in wrong.items():
            if is_wrong:
                can = f"; it can be {', '.join(choices[key])}" if key in choices else ""
                raise ConfigError(f"budget {self.name!r}: {key} cannot be {getattr(self, key)!r}{can}")
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
            raise ConfigError(f"budget {self.name!r}: there is no time zone {self.zone!r}") from None

    def span(self, now: float) -> tuple[str, float | None]:
        """Return the day, week or month of a moment, and when it ends (seconds since 1970, or None for never)."""
        moment = dt.datetime.fromtimestamp(now, ZoneInfo(self.zone))
        day = moment.replace(hour=0, minute=0, second=0, microsecond=0)
        if self.period == "total":
            return "total", None
        if self.period == "day":
            begin, end = day, day + dt.timedelta(days=1)
        elif self.period == "week":
            begin = day - dt.timedelta(days=day.weekday())
            end = begin + dt.timedelta(days=7)
        else:
            begin = day.replace(day=1)
            end = (begin + dt.timedelta(days=32)).replace(day=1)
        return begin.date().isoformat(), end.timestamp()

    def binds(self, labels: CallLabels | None, model: str, user: str = "") -> bool:
        """Return whether a call is in the scope."""
        preset, tags = (labels.preset, labels.tags) if labels is not None else ("", ())
        have = {"preset": {preset}, "model": {model}, "tag": set(tags), "user": {user}}
        return all(
            wanted in have[key] or (key == "model" and full_name(wanted) == model) for key, wanted in self.scope.items()
        )
