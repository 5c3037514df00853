"""What the calls of a test cost, and whether that is more than it may be."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llmkit.core import call
from llmkit.providers import model_info

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmkit.core.types import Reply, Request


@dataclass
class Spent:
    """What was spent: the attempts in order, with their models and costs in US dollars, None if that is unknown."""

    attempts: list[tuple[str, float | None]] = field(default_factory=list)

    @property
    def calls(self) -> int:
        """How many requests were sent."""
        return len(self.attempts)

    @property
    def usd(self) -> float:
        """The sum of the costs that are known."""
        return sum(usd or 0.0 for _, usd in self.attempts)


@contextlib.contextmanager
def assert_cost(*, max_usd: float | None = None, max_calls: int | None = None) -> Iterator[Spent]:
    """Check what all calls of this process inside the block cost; yield what is spent so far.

    Every request counts, tries and fallbacks too, in all threads. Answers without a price get the one of their model's
    name, so that a fake has a cost.

    Args:
        max_usd: US dollars at most; an answer whose price is not known is a failure too.
        max_calls: requests at most.

    Raises:
        AssertionError: it was more; the message lists the requests.
    """
    spent, lock = Spent(), threading.Lock()

    def watch(request: Request, outcome: Reply | BaseException) -> None:
        with lock:
            spent.attempts.append((request.model, _cost(request, outcome)))

    call.WATCHERS.append(watch)
    try:
        yield spent
    finally:
        call.WATCHERS.remove(watch)
    listed = "".join(
        f"\n  {model}: {'price unknown' if usd is None else f'{usd:.6f} USD'}" for model, usd in spent.attempts
    )
    if max_calls is not None and spent.calls > max_calls:
        raise AssertionError(f"{spent.calls} requests were sent, {max_calls} were allowed:{listed}")
    if max_usd is not None and any(usd is None for _, usd in spent.attempts):
        raise AssertionError(f"the price of a request is not known:{listed}")
    if max_usd is not None and not spent.usd <= max_usd:
        raise AssertionError(f"the requests cost {spent.usd:.6f} USD, {max_usd:g} were allowed:{listed}")


def _cost(request: Request, outcome: Reply | BaseException) -> float | None:
    """Return the cost of an attempt; a refused one costs nothing."""
    if isinstance(outcome, BaseException):
        return 0.0
    if outcome.usage.cost_usd is not None:
        return outcome.usage.cost_usd
    counted = {
        "prompt_tokens": outcome.usage.prompt_tokens,
        "completion_tokens": outcome.usage.completion_tokens,
        "total_tokens": outcome.usage.total_tokens,
    }
    return model_info.cost(request.priced_as or request.model, counted)
