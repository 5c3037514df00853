"""Quotas in the store: when requests may start, for all who send under the same name, in any process, on any host.

A quota has a pause that a provider asked for, and a rate that was learned from that. It may limit requests and tokens a
minute too, evenly, or so that a whole minute's may go at once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from llmkit.store.text import places

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmkit.store.database import Connection

MINUTE_S = 60.0
LONGEST_PAUSE_S = 600.0
TOKENS_AHEAD_S = 2.0
"""How many seconds' tokens may be used at once where they are spread evenly."""
_REMEMBERED_S = 600.0
_SAFE = 0.95
"""How far below the rate that a provider took one stays."""
_DOUBLED, _GROWTH = 3.5, 1e-4
"""In how many windows the rate doubles until it is refused again, and how it grows after that: slowly at first, and to
twice as much after 83 windows."""
_COLUMNS = "name, paused_until, next_at, tokens_at, rate, rate_at, refusals, window_s"
_ADD = f"INSERT INTO llmkit_quotas ({_COLUMNS}) VALUES (?, 0, 0, 0, 0, 0, 0, 1) ON CONFLICT (name) DO NOTHING"
_USE = ("quota", "at", "tokens")


class Quota(NamedTuple):
    """A quota: its name, and how many requests and tokens a minute; `is_even` if they are spread over it."""

    name: str
    requests: float | None = None
    tokens: float | None = None
    is_even: bool = False


def offered(
    connection: Connection, quotas: Sequence[Quota], now: float, most: int, ahead_s: float = math.inf
) -> tuple[list[float], float]:
    """Return when up to *most* requests may start, within *ahead_s*, and seconds until there may be more.

    The places are free until the transaction ends; `take` takes them.
    """
    starts, again_s = [now] * most, 0.0
    for quota in sorted(quotas):
        free = _free_places(connection, quota, now, most)
        again_s = max(again_s, free[0] - now) if free else again_s
        starts = [max(each) for each in zip(starts, free, strict=False)]
    return [start for start in starts if start <= now + ahead_s], again_s


def take(connection: Connection, quotas: Sequence[Quota], starts: Sequence[float], now: float) -> None:
    """Take places that were offered."""
    for quota in sorted(quotas) if starts else ():
        state = _state(connection, quota)
        if interval_s := _interval_s(quota, state, now):
            next_at = starts[-1] + interval_s
            connection.run("UPDATE llmkit_quotas SET next_at = ? WHERE name = ?", next_at, quota.name)
        if state.rate or (quota.requests is not None and not quota.is_even):
            connection.run("DELETE FROM llmkit_quota_uses WHERE quota = ? AND at < ?", quota.name, now - MINUTE_S)
            connection.add("llmkit_quota_uses", _USE, [(quota.name, start, 0) for start in starts])


def use(connection: Connection, quota: Quota, tokens: int, now: float) -> None:
    """Count tokens that were used."""
    if quota.tokens is None or not tokens:
        return
    if not quota.is_even:
        connection.add("llmkit_quota_uses", _USE, [(quota.name, now, tokens)])
        return
    tokens_at = max(_state(connection, quota).tokens_at, now) + tokens * MINUTE_S / quota.tokens
    connection.run("UPDATE llmkit_quotas SET tokens_at = ? WHERE name = ?", tokens_at, quota.name)


def heard(connection: Connection, quotas: Sequence[Quota], now: float) -> tuple[float, bool]:
    """Return for how many seconds nothing may be sent, and whether a provider has lately taught a rate."""
    names = [quota.name for quota in quotas]
    row = connection.row(
        f"SELECT max(paused_until) AS until, max(CASE WHEN rate > 0 THEN rate_at ELSE 0 END) AS taught "
        f"FROM llmkit_quotas WHERE name IN ({places(names)})",
        *names,
    )
    return max(0.0, float(row.until or 0.0) - now), now - float(row.taught or 0.0) < _REMEMBERED_S


def pause(connection: Connection, quota: Quota, until: float) -> None:
    """Let nobody send before a moment."""
    _state(connection, quota)
    connection.run(
        "UPDATE llmkit_quotas SET paused_until = ? WHERE name = ? AND paused_until < ?", until, quota.name, until
    )


def window_s(retry_after_s: float) -> float:
    """Return over how many seconds a provider that asks for such a pause seems to count."""
    return min(max(retry_after_s, 1.0), MINUTE_S)


def slow_down(connection: Connection, quota: Quota, sent_at: float, answered: int, window: float, now: float) -> None:
    """Begin with what a provider took in the last *window* seconds, and grow from there.

    Until requests have places, that is not known: then it is the *answered* ones, fewer than it took. A refusal of a
    request that was sent before the pause after the last one has ended says nothing new.
    """
    state = _state(connection, quota)
    if sent_at < max(state.rate_at, state.paused_until):
        return
    taken = answered
    if state.refusals:
        started = "SELECT count(*) FROM llmkit_quota_uses WHERE quota = ? AND at > ? AND at <= ?"
        taken = int(connection.value(started, quota.name, now - window, now)) - 1
    if taken > 0:
        connection.run(
            "UPDATE llmkit_quotas SET rate = ?, rate_at = ?, refusals = refusals + 1, window_s = ?, next_at = 0 "
            "WHERE name = ?",
            *(_SAFE * taken / window, now, window, quota.name),
        )


def remove(connection: Connection, name: str) -> None:
    """Forget a quota."""
    connection.run("DELETE FROM llmkit_quotas WHERE name = ?", name)
    connection.run("DELETE FROM llmkit_quota_uses WHERE quota = ?", name)


def _state(connection: Connection, quota: Quota) -> Any:
    """Return the row of a quota, locked."""
    statement = f"SELECT {_COLUMNS} FROM llmkit_quotas WHERE name = ? FOR UPDATE"
    row = connection.row(statement, quota.name)
    if row is None:
        connection.run(_ADD, quota.name)
        row = connection.row(statement, quota.name)
    return row


def _free_places(connection: Connection, quota: Quota, now: float, most: int) -> list[float]:
    """Return when requests may start; fewer than *most* if a minute has no more."""
    state = _state(connection, quota)
    first = max(now, state.paused_until)
    interval_s = _interval_s(quota, state, now)
    if interval_s:
        first = max(first, state.next_at)
    if quota.tokens is not None:
        free_at = state.tokens_at - TOKENS_AHEAD_S if quota.is_even else _free_of_tokens(connection, quota, now)
        first = max(first, free_at)
    starts = [first + number * interval_s for number in range(most)]
    if quota.requests is None or quota.is_even:
        return starts
    number = int(quota.requests)
    most = min(most, number)
    earlier = connection.column(
        "SELECT at FROM llmkit_quota_uses WHERE quota = ? AND tokens = 0 ORDER BY at DESC LIMIT ? OFFSET ?",
        *(quota.name, most, number - most),
    )
    free = [at + MINUTE_S for at in earlier] + [-math.inf] * (most - len(earlier))  # for the last request, …, the first
    return [max(each) for each in zip(starts, reversed(free), strict=False)]


def _interval_s(quota: Quota, state: Any, now: float) -> float:
    """Return how many seconds are between two requests."""
    even_s = MINUTE_S / quota.requests if quota.requests is not None and quota.is_even else 0.0
    return max(even_s, 1 / _rate(state, now)) if state.rate else even_s


def _rate(state: Any, now: float) -> float:
    """Return how many requests a second may start, as far as a provider has taught."""
    windows = max(0.0, now - max(state.rate_at, state.paused_until)) / state.window_s
    if state.refusals == 1:
        return float(state.rate * 2 ** min(windows / _DOUBLED, 50.0))
    return float(state.rate * math.exp(min(_GROWTH * windows**2, 50.0)))


def _free_of_tokens(connection: Connection, quota: Quota, now: float) -> float:
    """Return when less than a minute's tokens were used in the last minute."""
    uses = connection.rows(
        "SELECT at, tokens FROM llmkit_quota_uses WHERE quota = ? AND tokens > 0 AND at > ? ORDER BY at",
        *(quota.name, now - MINUTE_S),
    )
    used, free_at = sum(use.tokens for use in uses), now
    for each in uses:
        if quota.tokens is None or used < quota.tokens:
            break
        used -= each.tokens
        free_at = each.at + MINUTE_S
    return float(free_at)
