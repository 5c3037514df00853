"""Rate limits: how long a request waits to keep within its requests and tokens per minute."""

from __future__ import annotations

import time
from collections import deque
from functools import lru_cache

from llmkit.core.fork import Lock

MINUTE_S = 60.0


class Limiter:
    """Counts the requests and tokens of the last minute. Safe for threads and event loops.

    Args:
        name: what it limits, for messages.
        requests: how many may be sent per minute, or None for no limit.
        tokens: how many may be used per minute before the next request waits, or None for no limit.
    """

    def __init__(self, name: str, requests: int | None, tokens: int | None) -> None:
        self.name = name
        self._requests = requests
        self._tokens = tokens
        self._lock = Lock()
        self._sent: deque[float] = deque()
        self._used: deque[tuple[float, int]] = deque()

    def take(self) -> float:
        """Take a place, and return how many seconds to wait for it."""
        now = time.monotonic()
        with self._lock:
            while self._sent and self._sent[0] <= now - MINUTE_S:
                self._sent.popleft()
            while self._used and self._used[0][0] <= now - MINUTE_S:
                self._used.popleft()
            start = now
            if self._requests is not None and len(self._sent) >= self._requests:
                start = self._sent[-self._requests] + MINUTE_S
            if self._tokens is not None:
                start = max(start, self._free_of_tokens(now, self._tokens))
            self._sent.append(start)
        return start - now

    def use(self, tokens: int) -> None:
        """Count the tokens of a reply."""
        with self._lock:
            self._used.append((time.monotonic(), tokens))

    def _free_of_tokens(self, now: float, limit: int) -> float:
        used = sum(tokens for _, tokens in self._used)
        for moment, tokens in self._used:
            if used < limit:
                return now
            used -= tokens
            now = moment + MINUTE_S
        return now


@lru_cache(maxsize=256)
def limiter_of(name: str, requests: int | None, tokens: int | None) -> Limiter | None:
    """Return the limiter called *name*, shared by all calls of this process, or None if there is no limit."""
    return None if requests is None and tokens is None else Limiter(name, requests, tokens)
