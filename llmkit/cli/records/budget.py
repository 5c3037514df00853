"""`llmkit budget`: set, list, show, reset, remove."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmkit.cli import completing
from llmkit.cli.base import AsJson, Lists, add_group, table

if TYPE_CHECKING:
    from llmkit import BudgetState

budget = typer.Typer(cls=Lists, help="Limits in US dollars that hold across processes and hosts.")
add_group(budget, "budget")
Name = Annotated[str, typer.Argument(help="Name of the budget.", autocompletion=completing.budgets)]


@budget.command("set")
def set_(
    name: Name,
    limit_usd: Annotated[float, typer.Argument(min=0, help="US dollars per period.")],
    *,
    period: Annotated[str, typer.Option("--period", help="day, week, month or total.")] = "month",
    preset: Annotated[str | None, typer.Option("-p", "--preset", help="Only for calls with this preset.")] = None,
    model: Annotated[str | None, typer.Option("-m", "--model", help="Only for calls of this model.")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Only for calls with this tag.")] = None,
    user: Annotated[str | None, typer.Option("--user", help="Only for calls of this user.")] = None,
    warn_at: Annotated[float, typer.Option("--warn-at", help="The share of the limit from which to warn.")] = 0.8,
    allow_unpriced: Annotated[bool, typer.Option("--allow-unpriced", help="Let calls without a price pass.")] = False,
    zone: Annotated[str, typer.Option("--zone", help="Time zone in which a period begins.")] = "UTC",
) -> None:
    """Create a budget or change its rule; what was spent of it stays."""
    from llmkit import Budget, Budgets

    wanted = {"preset": preset, "model": model, "tag": tag, "user": user}
    scope = {key: value for key, value in wanted.items() if value is not None}
    rule: dict[str, Any] = {"period": period, "unpriced": "allow" if allow_unpriced else "refuse"}
    Budgets().set(Budget(name=name, limit_usd=limit_usd, scope=scope, warn_at=warn_at, zone=zone, **rule))
    _print([Budgets().get(name)], as_json=False)


@budget.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List all budgets: name, used, limit, period, when it resets."""
    from llmkit import Budgets

    _print(Budgets().all(), as_json=as_json)


@budget.command()
def show(name: Name, *, as_json: AsJson = False) -> None:
    """Print one budget."""
    from llmkit import Budgets

    _print([Budgets().get(name)], as_json=as_json)


@budget.command()
def reset(name: Name) -> None:
    """Forget what was spent of a budget."""
    from llmkit import Budgets

    Budgets().reset(name)


@budget.command()
def release(name: Name) -> None:
    """Forget what calls of unknown outcome may have cost: timed out, cancelled, or their process was killed.

    Calls under way keep their reservations.
    """
    from llmkit import Budgets

    print(f"{Budgets().release(name):.6f} USD released")


@budget.command()
def remove(name: Name) -> None:
    """Delete a budget and what was spent of it."""
    from llmkit import Budgets

    Budgets().remove(name)


def _print(states: list[BudgetState], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([asdict(state) for state in states], ensure_ascii=False))
        return
    if not states:
        print("llmkit: there is no budget yet: llmkit budget set NAME USD", file=sys.stderr)
    table(
        (
            state.budget.name,
            f"{state.settled:.6f}",
            f"+ {state.reserved:.6f} reserved",
            f"+ {state.possibly_paid:.6f} possibly paid" if state.possibly_paid else "",
            f"of {state.budget.limit_usd:g} USD",
            state.budget.period if state.span == "total" else f"{state.budget.period} of {state.span}",
            f"{state.calls} calls",
            f"{state.unpriced} unpriced" if state.unpriced else "",
            "" if state.ends_at is None else time.strftime("until %Y-%m-%d %H:%M UTC", time.gmtime(state.ends_at)),
        )
        for state in states
    )
