"""The limits of a preset: how long a call waits to keep within its requests and tokens a minute, of all processes."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from llmkit.core.types import Invoke
from llmkit.errors import RateLimitError, StoreError
from llmkit.store import opened, quotas
from llmkit.store.quotas import Quota

if TYPE_CHECKING:
    from llmkit.core.types import Flow, Reply
    from llmkit.presets import Preset
    from llmkit.store import Store


class Limiter:
    """Takes places in a quota of the store, for one call after the other.

    Args:
        store: the store that all processes share.
        quota: the quota.
    """

    def __init__(self, store: Store, quota: Quota) -> None:
        self._store = store
        self._quota = quota

    def take(self) -> Flow[float]:
        """Take a place, and return how many seconds to wait for it."""
        wait_s: float = yield Invoke(self._take, is_brief=True)
        return wait_s

    def note(self, outcome: Reply | BaseException) -> Flow[None]:
        """Count the tokens of a reply; a provider that asks for a pause gets it from all who use the quota.

        If the store fails, the outcome is returned all the same.
        """
        with suppress(StoreError):
            if isinstance(outcome, RateLimitError):
                if outcome.retry_after_s is not None:
                    yield Invoke(self._pause, (outcome.retry_after_s,), is_brief=True)
            elif not isinstance(outcome, BaseException) and self._quota.tokens is not None:
                yield Invoke(self._use, (outcome.usage.total_tokens,), is_brief=True)

    def _take(self) -> float:
        with self._store.database.writing() as connection:
            now = self._store.database.now(connection)
            starts, _ = quotas.offered(connection, [self._quota], now, 1)
            quotas.take(connection, [self._quota], starts, now)
        return starts[0] - now

    def _use(self, tokens: int) -> None:
        with self._store.database.writing() as connection:
            quotas.use(connection, self._quota, tokens, self._store.database.now(connection))

    def _pause(self, seconds: float) -> None:
        with self._store.database.writing() as connection:
            until = self._store.database.now(connection) + min(seconds, quotas.LONGEST_PAUSE_S)
            quotas.pause(connection, self._quota, until)


def quota_of(preset: Preset | None) -> Quota | None:
    """Return the quota that a preset's limits are, or None if it sets none."""
    limits = preset.plain("limits") if preset else None
    if preset is None or limits is None:
        return None
    requests, tokens = limits.get("requests_per_minute"), limits.get("tokens_per_minute")
    return (
        None
        if requests is None and tokens is None
        else Quota(f"preset:{preset.name or preset.model}", requests, tokens)
    )


def limiter_of(preset: Preset | None) -> Limiter | None:
    """Return what keeps the calls of a preset within its limits, or None if it sets none."""
    quota = quota_of(preset)
    return None if quota is None else Limiter(opened(), quota)
