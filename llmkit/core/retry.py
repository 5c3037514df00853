"""When to send again, and how long to wait before. Pure policy: nothing here waits or sends."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from llmkit.errors import InvalidRequestError, ProviderError

JITTER_BASE_S = 0.5
"""The random part of a wait starts at up to this many seconds when no delay is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often a call may be sent, and the waits between. All times are in seconds.

    Attributes:
        tries: HTTP requests at most, the first one included.
        delay_s: the least wait before the second try.
        backoff: each further wait is this many times longer than the one before.
        max_delay_s: no computed wait is longer, jitter included.
        deadline_s: no try starts and no wait ends later than this after the first try started; None for no limit.
        jitter: add a random part to each wait, so that many clients do not come back at once; None for "if no
            delay is set".
        max_retry_after_s: if a provider asks for a longer wait than this, the call is not retried.
    """

    tries: int = 3
    delay_s: float = 0.5
    backoff: float = 2.0
    max_delay_s: float = 8.0
    deadline_s: float | None = None
    jitter: bool | None = None
    max_retry_after_s: float = 60.0

    def __post_init__(self) -> None:
        """Check the fields; the error names the wrong one."""
        if isinstance(self.tries, bool) or not isinstance(self.tries, int) or self.tries < 1:
            raise InvalidRequestError(f"tries must be a whole number from 1 up, not {self.tries!r}")
        for name in ("delay_s", "max_delay_s", "max_retry_after_s"):
            _check(name, getattr(self, name), least=0.0)
        _check("backoff", self.backoff, least=1.0)
        if self.deadline_s is not None:
            _check("deadline_s", self.deadline_s, least=0.0)
            if self.deadline_s == 0:
                raise InvalidRequestError("deadline_s must be above 0; None is for no limit")
        if self.jitter is not None and not isinstance(self.jitter, bool):
            raise InvalidRequestError(f"jitter must be True, False or None, not {self.jitter!r}")

    @classmethod
    def of(cls, retry: Retry | int) -> Retry:
        """Return a Retry as it is, and a number of tries as a Retry."""
        return retry if isinstance(retry, Retry) else cls(tries=retry)

    def wait_s(self, attempt: int, error: ProviderError, *, spent_s: float, chance: float) -> float | None:
        """Return how long to wait after try number *attempt* failed, or None to give up.

        *spent_s* is the time since the first try started, *chance* a random number from 0 to 1.
        """
        if attempt >= self.tries or not error.retryable:
            return None
        growth = self.backoff ** (attempt - 1)
        wait_s = self.delay_s * growth
        if self.jitter or (self.jitter is None and self.delay_s == 0):
            wait_s += chance * (self.delay_s or JITTER_BASE_S) * growth
        wait_s = min(wait_s, self.max_delay_s)
        if error.retry_after_s is not None:
            if error.retry_after_s > self.max_retry_after_s:
                return None
            wait_s = max(wait_s, error.retry_after_s)
        if self.deadline_s is not None and spent_s + wait_s >= self.deadline_s:
            return None
        return wait_s


def _check(name: str, value: float, *, least: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value) or value < least:
        raise InvalidRequestError(f"{name} must be a number from {least:g} up, not {value!r}")


ONCE = Retry(tries=1)
"""Send once, never again."""

USUAL = Retry()
"""The policy of a call that sets none."""


_LONGEST_S = 8.0  # between the tries of a call with a delay


def of_call(delay: float | None, tries: int | None, retry: Retry | int | None) -> Retry | int | None:
    """Return what a call says of its retries, a policy or a fixed delay in seconds and a number of tries, or None.

    Raises:
        InvalidRequestError: it says both.
    """
    if delay is None and tries is None:
        return retry
    if retry is not None:
        raise InvalidRequestError("delay and tries are one way to say how often, retry is another: give one")
    delay_s = 0.0 if delay is None else delay
    longest = max(_LONGEST_S, delay_s) if isinstance(delay_s, int | float) else _LONGEST_S
    return Retry(tries=1 if tries is None else tries, delay_s=delay_s, backoff=1.0, max_delay_s=longest)
