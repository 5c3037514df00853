"""The calls of a model.py in the ledger, one row each, and under the budgets of keys."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING, Any

from llmkit.api import real_backend
from llmkit.core.engine import drive
from llmkit.core.types import CallLabels, Reply, Request, Usage
from llmkit.errors import BudgetExceededError
from llmkit.money.budgets import Budgets, MaxCost
from llmkit.money.ledger import ledger_of
from llmkit.serve.errors import ServeError
from llmkit.serve.hosted.threads import PoolFullError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from llmkit.serve.context import Caller
    from llmkit.store import Store

_LEASE_S = 3600.0
PREFIX = "model.py/"


async def open_account(name: str, store: Store | None, caller: Caller | None) -> Account:
    """Return the account of a new call; without a store nothing is recorded.

    Raises:
        BudgetExceededError: the key's budget is spent.
    """
    reservation: Any = ()
    if store is not None and caller is not None and caller.budget is not None:
        reservation = await asyncio.to_thread(_reserve, name, store, caller.budget)
    return Account(name, store, caller.name if caller is not None else "", reservation)


def _reserve(model: str, store: Store, name: str) -> Any:
    """Reserve nothing, since the cost is known only afterwards; a budget that is used up refuses."""
    budgets = Budgets(store)
    state = budgets.get(name)
    used = state.settled + state.possibly_paid + state.reserved
    if used >= state.budget.limit_usd:
        raise BudgetExceededError(
            f"budget {name!r}: {used:.6f} of {state.budget.limit_usd:g} USD are used",
            name=name,
            limit=state.budget.limit_usd,
            spent=state.settled,
            reserved=state.reserved,
            frees_at=state.ends_at,
        )
    return budgets.reserve([name], None, MaxCost(model, "", 0.0), _LEASE_S)


class Account:
    """One call, from its start to its row in the ledger; `async with` ends it if the block fails."""

    def __init__(self, name: str, store: Store | None, key: str, reservation: Any) -> None:
        self._name = name
        self._store = store
        self._key = key
        self._reservation = reservation
        self._began = time.monotonic()
        self._is_open = store is not None
        self.first_token_s: float | None = None

    async def __aenter__(self) -> Self:
        """Return the account."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Record a failure; a call that got no thread never started, and is not recorded."""
        if isinstance(error, ServeError) and isinstance(error.__cause__, PoolFullError):
            if self._is_open and self._reservation:
                await self._in_budgets("end", self._reservation, "given back")
            self._is_open = False
        elif isinstance(error, GeneratorExit):
            await self.end(Usage(), whole=False)
        elif error is not None:
            await self.end(error)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the call began."""
        return time.monotonic() - self._began

    def note_piece(self) -> None:
        """Record that a piece of a stream arrived."""
        if self.first_token_s is None:
            self.first_token_s = self.elapsed_s

    async def end(self, outcome: Usage | BaseException, *, whole: bool = True) -> None:
        """Record the call, once: what it used, or why it failed."""
        if not self._is_open or self._store is None:
            return
        self._is_open = False
        request = Request(
            model=PREFIX + self._name, name=self._name, call=str(uuid.uuid4()), attempt=1, price_source="model.py"
        )
        labels = CallLabels(tags=(f"key:{self._key}",) if self._key else ())
        result: Reply | BaseException
        cost_usd = None
        if isinstance(outcome, Usage):
            cost_usd = outcome.cost_usd
            result = Reply(
                text="",
                model=self._name,
                usage=outcome,
                latency_s=self.elapsed_s,
                first_token_s=self.first_token_s,
            )
        else:  # the client's error has the reason as its cause
            result = outcome.__cause__ if isinstance(outcome, ServeError) and outcome.__cause__ else outcome
        drive(ledger_of(self._store).note(request, labels, result, whole=whole), real_backend())
        if self._reservation:
            await self._in_budgets("settle", self._reservation, cost_usd)

    async def _in_budgets(self, method: str, *arguments: Any) -> None:
        await asyncio.shield(asyncio.to_thread(getattr(Budgets(self._store), method), *arguments))


def usage_of(result: Any) -> Usage:
    """Return the usage that a model.py reports: `input_tokens`, `output_tokens` and `cost_usd` of its result."""
    fields = result if isinstance(result, dict) else getattr(result, "__dict__", {})
    prompt, completion = (_count(fields.get(name)) for name in ("input_tokens", "output_tokens"))
    cost: Any = fields.get("cost_usd")
    is_number = isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost < float("inf")
    cost_usd = float(cost) if is_number else None
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        cost_usd=cost_usd,
        source="unpriced" if cost_usd is None else "priced",
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
