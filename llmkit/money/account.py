"""Tracks what a client spends: the gate before a call, the charge after it. No I/O of its own."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any

from llmkit.core.fork import Lock
from llmkit.core.types import Invoke, Usage
from llmkit.errors import BudgetExceededError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmkit.core.types import Flow, Kind, Reply

log = logging.getLogger("llmkit")
PATIENCE_S = 5.0
KEPT_CHARGES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One paid answer.

    Attributes:
        model: the logical name of the model that answered.
        answered_by: the provider's name for it.
        kind: chat, embed, transcribe, speak or image.
        usage: tokens and price; `usage.cost_usd` is None if no price is known.
        latency_s: seconds from sending the request to the end of the answer.
    """

    model: str
    answered_by: str
    kind: Kind
    usage: Usage
    latency_s: float


class UsageTracker:
    """Tracks what one client spends, and calls back. Safe to share between threads and loops.

    An async call waits *patience_s* for a callback, then returns its answer with a warning; a sync call runs the
    callback on the caller's own thread, as databases like SQLite need it, and waits.
    """

    def __init__(
        self,
        increment_usage: Callable[[float, str], Any] | None = None,
        get_usage: Callable[[], Any] | None = None,
        max_usage: float | None = None,
        patience_s: float = PATIENCE_S,
    ) -> None:
        for name, function in (("increment_usage", increment_usage), ("get_usage", get_usage)):
            if function is not None and not callable(function):
                raise ConfigError(f"{name} must be a function, not {type(function).__name__}")
        if max_usage is not None and not isinstance(max_usage, Real):
            raise ConfigError(f"max_usage must be a number, not {max_usage!r:.80}")
        self._increment_usage = increment_usage
        self._get_usage = get_usage
        self._max_usage = max_usage
        self._patience_s = patience_s
        self._lock = Lock()
        self.charges: deque[Charge] = deque(maxlen=KEPT_CHARGES)
        self.total_usd = 0.0

    def gate(self) -> Flow[None]:
        """Refuse the call if the user's `get_usage` says so; nothing has been sent yet.

        Raises:
            BudgetExceededError: it returned False, or a number that is not below `max_usage`, or it failed.
        """
        used: Any = self.total_usd
        if self._get_usage is not None:
            try:
                used = yield Invoke(self._get_usage)
            except Exception as error:
                raise BudgetExceededError(f"get_usage failed: {type(error).__name__}: {error}") from error
        used = _plain(used)
        if used is False:
            raise BudgetExceededError("get_usage says that no call may be made")
        if self._max_usage is None or used is True:
            return
        if not isinstance(used, Real):
            raise BudgetExceededError(f"get_usage must return a number or a boolean, not {used!r:.80}")
        if not used < self._max_usage:
            raise BudgetExceededError(
                f"{used:g} of {self._max_usage:g} is used; no call may be made",
                limit=self._max_usage,
                spent=float(used),
            )

    def charge(self, reply: Reply, kind: Kind = "chat") -> Flow[Reply]:
        """Record a paid answer and call `increment_usage`; whatever fails here, the answer is returned."""
        cost_usd = reply.usage.cost_usd
        with self._lock:
            self.total_usd += cost_usd or 0.0
            self.charges.append(
                Charge(
                    model=reply.name,
                    answered_by=reply.model,
                    kind=kind,
                    usage=reply.usage,
                    latency_s=reply.latency_s,
                )
            )
        if self._increment_usage is None:
            return reply
        if cost_usd is None:
            return _warned(reply, f"increment_usage was not called: no price is known for {reply.name}")
        try:
            allowed = yield Invoke(self._increment_usage, (cost_usd, reply.name), patience_s=self._patience_s)
        except Exception as error:  # noqa: BLE001 - a paid answer is never lost to the user's callback
            return _warned(reply, f"increment_usage failed: {type(error).__name__}: {error}")
        return replace(reply, over_limit=True) if _plain(allowed) is False else reply


def _plain(value: Any) -> Any:
    """Return numpy's boolean as Python's: `is False` holds for that alone."""
    return bool(value) if type(value).__name__ in {"bool", "bool_"} else value


def _warned(reply: Reply, warning: str) -> Reply:
    log.warning(warning)
    return replace(reply, warnings=(*reply.warnings, warning))
