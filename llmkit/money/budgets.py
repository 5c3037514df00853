"""`Budgets`: limits in US dollars that hold across threads, processes and hosts.

An attempt reserves what it can cost at most, in one transaction; its real cost replaces the reservation when it
ends, and an attempt of unknown outcome becomes possibly paid. What is settled, possibly paid and reserved never
exceeds the limit together.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from llmkit.errors import BudgetExceededError, ConfigError
from llmkit.money.budget import PERIODS, SCOPES, Budget, Period
from llmkit.store import Store, opened
from llmkit.store import budgets as rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmkit.core.types import CallLabels
    from llmkit.store.database import Connection

__all__ = ["PERIODS", "SCOPES", "Budget", "BudgetState", "Budgets", "Ended", "MaxCost", "Period", "Reservation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """A budget and how much of it is used in this period.

    Attributes:
        budget: the rule.
        settled: US dollars spent; `reserved` is what calls under way may still cost; `possibly_paid` is the most that
            attempts of unknown outcome can have cost: timed out or cancelled after they were sent, or their process was
            killed. It counts until the period ends (30 days if it is total), or `Budgets.release`.
        calls: how many calls were settled; `unpriced` how many of them had no price.
        span: the first day of the period, or "total"; `ends_at` is when it ends.
    """

    budget: Budget
    settled: float
    reserved: float
    calls: int
    unpriced: int
    span: str
    ends_at: float | None
    possibly_paid: float = 0.0


@dataclass(frozen=True, slots=True)
class Reservation:
    """What one budget reserves for one attempt."""

    budget: Budget
    span: str
    ends_at: float | None
    id: str


class Ended(NamedTuple):
    """How reservations end: "settled" for a cost, "possibly paid", or "given back"."""

    held: Sequence[Reservation]
    outcome: Literal["settled", "possibly paid", "given back"]
    cost_usd: float | None = None


@dataclass(frozen=True, slots=True)
class MaxCost:
    """The most an attempt can cost; `usd` is None if that is unknown, and `why` is the reason."""

    model: str
    user: str
    usd: float | None
    why: str = ""


class Budgets:
    """The budgets of a store.

    Args:
        store: a Store, its URL or path; the configured one if None.
    """

    def __init__(self, store: Store | str | None = None) -> None:
        self._database = (store if isinstance(store, Store) else opened(store)).database

    def set(self, budget: Budget) -> None:
        """Create a budget, or change its rule; what was spent of it stays."""
        with self._database.writing() as connection:
            rows.put(connection, budget.name, _rule(budget))

    def get(self, name: str) -> BudgetState:
        """Return a budget and how much of it is used.

        Raises:
            ConfigError: there is none of this name; the message lists those there are.
        """
        with (
            self._database.writing() as connection
        ):  # a transaction that writes: reservations of dead processes become possibly paid
            budget = self._budget(connection, name)
            now = self._database.now(connection)
            span, ends_at = budget.span(now)
            used = rows.used(connection, name, span, now, ends_at)
        return BudgetState(
            budget=budget,
            settled=used.settled,
            reserved=used.reserved,
            possibly_paid=used.possibly,
            calls=used.calls,
            unpriced=used.unpriced,
            span=span,
            ends_at=ends_at,
        )

    def all(self) -> list[BudgetState]:
        """Return all budgets, by name."""
        with self._database.reading() as connection:
            names = rows.names(connection)
        return [self.get(name) for name in names]

    def remove(self, name: str) -> None:
        """Delete a budget and what was spent of it."""
        with self._database.writing() as connection:
            self._budget(connection, name)
            rows.remove(connection, name)

    def reset(self, name: str) -> None:
        """Forget what was spent of a budget."""
        with self._database.writing() as connection:
            self._budget(connection, name)
            rows.reset(connection, name)

    def release(self, name: str) -> float:
        """Delete what attempts of unknown outcome may have cost, and return how much that was in US dollars.

        Reservations of calls under way stay.
        """
        with self._database.writing() as connection:
            budget = self._budget(connection, name)
            now = self._database.now(connection)
            rows.used(connection, name, budget.span(now)[0], now, budget.span(now)[1])
            return rows.forgive(connection, name)

    def reserve(
        self, wanted: Sequence[Budget | str], labels: CallLabels | None, most: MaxCost, lease_s: float
    ) -> list[Reservation]:
        """Reserve in every budget that applies to the attempt, or in none.

        Raises:
            BudgetExceededError: one of them does not have enough left, or the cost has no bound.
        """
        with self._database.writing() as connection:
            held, refusal = self.reserve_each(connection, wanted, [(labels, most)], lease_s)
            if refusal is not None:
                raise refusal
        return held[0]

    def reserve_each(
        self,
        connection: Connection,
        wanted: Sequence[Budget | str],
        attempts: Iterable[tuple[CallLabels | None, MaxCost]],
        lease_s: float,
    ) -> tuple[list[list[Reservation]], BudgetExceededError | None]:
        """Reserve for attempts, in an open transaction, up to the first that is refused; return why it is too."""
        now = self._database.now(connection)
        names = sorted(wanted, key=lambda item: item if isinstance(item, str) else item.name)
        budgets = [self._wanted(connection, each) for each in names]
        spans = [budget.span(now) for budget in budgets]
        used = [
            rows.used(connection, budget.name, span, now, ends_at)
            for budget, (span, ends_at) in zip(budgets, spans, strict=True)
        ]
        held: list[list[Reservation]] = []
        for labels, most in attempts:
            bound = [at for at, budget in enumerate(budgets) if budget.binds(labels, most.model, most.user)]
            try:
                for at in bound:
                    _check_room(budgets[at], used[at], most, spans[at][1])
            except BudgetExceededError as error:
                return held, error
            amount, reserved = most.usd or 0.0, []
            for at in bound:
                span, ends_at = spans[at]
                held_id = rows.hold(connection, budgets[at].name, span, amount, now + lease_s)
                reserved.append(Reservation(budgets[at], span, ends_at, held_id))
                used[at] = used[at]._replace(reserved=used[at].reserved + amount)
            held.append(reserved)
        return held, None

    def end_each(self, connection: Connection, ended: Iterable[Ended]) -> None:
        """End reservations in an open transaction."""
        now = self._database.now(connection)
        for reservations, outcome, cost_usd in ended:
            for each in reservations:
                if outcome == "settled":
                    rows.settle(connection, each.budget.name, each.span, each.id, cost_usd)
                elif outcome == "possibly paid":
                    rows.doubt(connection, each.id, now, each.ends_at)
                else:
                    rows.release(connection, each.id)

    def end(self, held: Sequence[Reservation], outcome: Literal["possibly paid", "given back"]) -> None:
        """End the reservations of an attempt whose cost is not known."""
        with self._database.writing() as connection:
            self.end_each(connection, [Ended(held, outcome)])

    def settle(self, held: Sequence[Reservation], cost_usd: float | None) -> list[str]:
        """Replace reservations by the real cost; return warnings for budgets that are nearly used up."""
        warnings = []
        with self._database.writing() as connection:
            now = self._database.now(connection)
            for reserved in held:
                rows.settle(connection, reserved.budget.name, reserved.span, reserved.id, cost_usd)
                gone = rows.gone(connection, reserved.budget.name, reserved.span, now)
                if gone >= reserved.budget.warn_at * reserved.budget.limit_usd:
                    warnings.append(
                        f"budget {reserved.budget.name!r}: {gone:.6f} of {reserved.budget.limit_usd:g} USD are used"
                    )
                if cost_usd is None:
                    warnings.append(f"budget {reserved.budget.name!r}: a call without a price was counted")
        return warnings

    def _wanted(self, connection: Any, wanted: Budget | str) -> Budget:
        """Return a budget, locked until the transaction ends; one that is given as an object is created or changed."""
        if isinstance(wanted, str):
            return self._budget(connection, wanted)
        rule = rows.lock(connection, wanted.name)
        if rule is None or _of_rule(wanted.name, rule) != wanted:
            rows.put(connection, wanted.name, _rule(wanted))
        return wanted

    def _budget(self, connection: Any, name: str) -> Budget:
        rule = rows.lock(connection, name)
        if rule is None:
            known = ", ".join(rows.names(connection)) or "none"
            raise ConfigError(f"there is no budget {name!r}; there are: {known}")
        return _of_rule(name, rule)


@lru_cache(maxsize=256)
def _of_rule(name: str, rule: str) -> Budget:
    return Budget(name=name, **json.loads(rule))


def _check_room(budget: Budget, used: Any, most: MaxCost, ends_at: float | None) -> None:
    if most.usd is None and budget.unpriced == "refuse":
        raise BudgetExceededError(
            f"budget {budget.name!r} refuses this call: {most.why}", **_facts(budget, used, None, ends_at)
        )
    amount = most.usd or 0.0
    if used.all + amount > budget.limit_usd:
        doubted = f" ({used.possibly:.6f} of it possibly paid)" if used.possibly else ""
        raise BudgetExceededError(
            f"budget {budget.name!r} has {max(0.0, budget.limit_usd - used.all):.6f} USD left of "
            f"{budget.limit_usd:g}{doubted}, and this call can cost {amount:.6f}",
            **_facts(budget, used, amount, ends_at),
        )


def _rule(budget: Budget) -> dict[str, Any]:
    rule = asdict(budget)
    del rule["name"]
    return rule


def _facts(budget: Budget, used: Any, max_usd: float | None, frees_at: float | None) -> dict[str, Any]:
    return {
        "name": budget.name,
        "limit": budget.limit_usd,
        "spent": used.settled + used.possibly,
        "reserved": used.reserved,
        "asked": max_usd,
        "frees_at": frees_at,
    }
