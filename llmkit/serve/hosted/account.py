"""The calls of a model.py in the ledger, a row for each, and under the budgets of keys."""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING, Any

from llmkit._flow import drive
from llmkit.api import real_backend
from llmkit.budgets import Budgets, MaxCost
from llmkit.errors import BudgetExceededError
from llmkit.ledger import Marks, ledger_of
from llmkit.serve._errors import ServeError
from llmkit.types import Reply, Request, Usage

if TYPE_CHECKING:
    from llmkit.serve.served import Caller
    from llmkit.store import Store

_LEASE_S = 3600.0
PREFIX = "model.py/"


class Accounts:
    """Where the calls of one model.py are written down.

    Args:
        name: under which it is served.
        store: of ledger and budgets; None to write nothing down.
    """

    def __init__(self, name: str, store: Store | None) -> None:
        self.name = name
        self._store = store

    async def begin(self, caller: Caller | None) -> Account:
        """Begin a call.

        Raises:
            BudgetExceededError: the key's budget is spent.
        """
        budget = caller.budget if caller is not None else None
        held: Any = ()
        if self._store is not None and budget is not None:
            held = await asyncio.to_thread(self._reserve, self._store, budget)
        return Account(self.name, self._store, caller.name if caller is not None else "", held)

    def _reserve(self, store: Store, name: str) -> Any:
        """Reserve nothing: what such a call costs is known when it has told. A budget without anything left refuses."""
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
                asked=None,
                frees_at=state.ends_at,
            )
        return budgets.reserve([name], None, MaxCost(self.name, "", 0.0), _LEASE_S)


class Account:
    """One call, from its begin to its row in the ledger."""

    def __init__(self, name: str, store: Store | None, key: str, held: Any) -> None:
        self._name = name
        self._store = store
        self._key = key
        self._held = held
        self._began = time.monotonic()
        self._is_open = True
        self.first_token_s: float | None = None

    @property
    def elapsed_s(self) -> float:
        """Seconds since the call began."""
        return time.monotonic() - self._began

    def note_piece(self) -> None:
        """Take note of a piece of a stream."""
        if self.first_token_s is None:
            self.first_token_s = self.elapsed_s

    async def end(self, outcome: Usage | BaseException, *, whole: bool = True) -> None:
        """Write the call down, once: what it used, or why it failed."""
        if not self._is_open or self._store is None:
            return
        self._is_open = False
        request = Request(
            model=PREFIX + self._name, name=self._name, call=str(uuid.uuid4()), attempt=1, price_source="model.py"
        )
        marks = Marks(tags=(f"key:{self._key}",) if self._key else ())
        cost_usd = None
        found: Reply | BaseException
        if isinstance(outcome, Usage):
            cost_usd, timed = outcome.cost_usd, (self.elapsed_s, self.first_token_s)
            found = Reply(text="", model=self._name, usage=outcome, latency_s=timed[0], first_token_s=timed[1])
        else:  # what the client is told has the reason as its cause
            found = outcome.__cause__ if isinstance(outcome, ServeError) and outcome.__cause__ else outcome
        drive(ledger_of(self._store).note(request, marks, found, whole=whole), real_backend())
        if self._held:
            await asyncio.shield(asyncio.to_thread(Budgets(self._store).settle, self._held, cost_usd))

    async def drop(self) -> None:
        """Forget a call that did not begin."""
        if self._is_open and self._held and self._store is not None:
            await asyncio.shield(asyncio.to_thread(Budgets(self._store).give_back, self._held))
        self._is_open = False


def usage_of(result: Any) -> Usage:
    """Return what a model.py tells of its use: `input_tokens`, `output_tokens` and `cost_usd` of what it returns."""
    told = result if isinstance(result, dict) else getattr(result, "__dict__", {})
    prompt, completion = (_count(told.get(name)) for name in ("input_tokens", "output_tokens"))
    cost: Any = told.get("cost_usd")
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
