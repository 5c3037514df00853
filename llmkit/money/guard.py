"""`BudgetGuard`: what budgets do before and after each attempt of a call, as flows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmkit.core.types import Invoke
from llmkit.errors import BudgetExceededError, InvalidRequestError, LlmkitError
from llmkit.money.budgets import Budget, Budgets, MaxCost
from llmkit.money.estimate import estimate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmkit.core.types import CallLabels, Flow, Reply, Request
    from llmkit.money.budgets import Ended, Reservation
    from llmkit.money.estimate import Estimate
    from llmkit.store import Store
    from llmkit.store.database import Connection

_SLACK_S = 60.0


class BudgetGuard:
    """Reserves what an attempt can cost in every budget that applies to it, and settles the real cost."""

    def __init__(self, budgets: Budgets, wanted: Sequence[Budget | str]) -> None:
        self._budgets = budgets
        self._wanted = tuple(wanted)

    def reserve(self, request: Request, labels: CallLabels | None) -> Flow[list[Reservation]]:
        """Reserve what an attempt can cost; of one that is cancelled meanwhile nothing stays reserved."""
        held: list[Reservation] = yield Invoke(
            self._reserve, (request, labels), is_brief=True, undo=lambda held: self._budgets.end(held, "given back")
        )
        return held

    def _reserve(self, request: Request, labels: CallLabels | None) -> list[Reservation]:
        """Reserve; a tokenizer is loaded only where a budget refuses without one."""
        lease_s = request.timeout_s + _SLACK_S
        bounds = estimate(request)
        try:
            return self._budgets.reserve(self._wanted, labels, _max_cost(bounds), lease_s)
        except BudgetExceededError:
            closer = bounds.by_tokenizer()
            if closer.prompt_most == bounds.prompt_most:
                raise
            return self._budgets.reserve(self._wanted, labels, _max_cost(closer), lease_s)

    def reserve_each(
        self, connection: Connection, attempts: Sequence[tuple[Request, CallLabels | None]]
    ) -> tuple[list[list[Reservation]], BudgetExceededError | None]:
        """Reserve for attempts, in an open transaction, up to the first that is refused; return why it is too."""
        held: list[list[Reservation]] = []
        bounds = [(labels, estimate(request)) for request, labels in attempts]
        counted = -1  # the one that is bounded by its tokenizer: that is done once
        lease_s = max((request.timeout_s for request, _ in attempts), default=0.0) + _SLACK_S
        while len(held) < len(bounds):
            costs = [(labels, _max_cost(each)) for labels, each in bounds[len(held) :]]
            more, refusal = self._budgets.reserve_each(connection, self._wanted, costs, lease_s)
            held += more
            if refusal is None:
                break
            labels, refused = bounds[len(held)]
            closer = refused.by_tokenizer()
            if counted == len(held) or closer.prompt_most == refused.prompt_most:
                return held, refusal
            counted = len(held)
            bounds[counted] = labels, closer
        return held, None

    def end_each(self, connection: Connection, ended: Iterable[Ended]) -> None:
        """End reservations in an open transaction."""
        self._budgets.end_each(connection, ended)

    def let_go(self, held: Sequence[Reservation], *, may_be_paid: bool) -> Flow[None]:
        """End the reservations of an attempt without an answer; if the store fails, they end with their lease."""
        try:
            outcome = "possibly paid" if may_be_paid else "given back"
            yield Invoke(self._budgets.end, (held, outcome), is_brief=True)
        except LlmkitError:
            return

    def settle(self, held: Sequence[Reservation], reply: Reply) -> Flow[Reply]:
        """Settle the real cost; if the store fails, the answer is still returned."""
        try:
            warnings = yield Invoke(self._budgets.settle, (held, reply.usage.cost_usd), is_brief=True)
        except LlmkitError as error:
            warnings = [f"the budget is not settled: {error}"]
        return replace(reply, warnings=(*reply.warnings, *warnings)) if warnings else reply


def guard_of(wanted: Any, store: Store | str | None = None) -> BudgetGuard | None:
    """Return the guard of budgets given as one or several names or Budgets, or None if there are none.

    Raises:
        InvalidRequestError: one of them is neither.
    """
    found = several(wanted)
    return BudgetGuard(Budgets(store), found) if found else None


def several(wanted: Any) -> list[Budget | str]:
    """Return budgets given as one or several names or Budgets, or as None, as a list.

    Raises:
        InvalidRequestError: one of them is neither.
    """
    found = list(wanted) if isinstance(wanted, list | tuple | set) else [] if wanted is None else [wanted]
    for item in found:
        if not isinstance(item, str | Budget):
            raise InvalidRequestError(f"a budget is a name or a Budget, not {item!r}")
    return found


def _max_cost(bounds: Estimate) -> MaxCost:
    request = bounds.request
    user = str(request.params.get("user") or "")
    usd = bounds.most_usd()
    return MaxCost(request.name or request.model, user, usd, "" if usd is not None else bounds.why())
