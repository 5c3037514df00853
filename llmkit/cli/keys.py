"""`llmkit serve keys`: add, list, remove."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import Annotated, Any

import typer

from llmkit.cli import table

keys = typer.Typer(no_args_is_help=True, help="Keys of the server: who may ask it, which presets, for how much.")
Name = Annotated[str, typer.Argument(help="Name of the key.")]


@keys.command()
def add(
    name: Name,
    *,
    budget: Annotated[float | None, typer.Option("--budget", min=0, help="US dollars in a period.")] = None,
    period: Annotated[str, typer.Option("--period", help="day, week, month or total.")] = "month",
    presets: Annotated[str | None, typer.Option("--presets", help="It may ask these only, as in a,b.")] = None,
) -> None:
    """Make a key and print it, once.

    Example: llmkit serve keys add anna --budget 5 --presets fast,careful
    """
    from llmkit.serve.keys import Keys

    asked = None if presets is None else [part for each in presets.split(",") if (part := each.strip())]
    chosen: Any = period  # it is checked with the rest
    print(Keys().add(name, budget, chosen, asked))
    print("llmkit: this key is not shown again; clients send it as a bearer token", file=sys.stderr)


@keys.command("list")
def list_(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List all keys: name, how it begins, used, limit, period, presets, since when."""
    from llmkit.serve.keys import Keys

    found = Keys().list()
    if as_json:
        print(json.dumps([asdict(each) for each in found], ensure_ascii=False))
        return
    table(
        (
            each.name,
            f"{each.prefix}…",
            f"{each.budget.settled:.6f}" if each.budget else "",
            f"of {each.budget.budget.limit_usd:g} USD" if each.budget else "no limit",
            each.budget.budget.period if each.budget else "",
            "all presets" if each.models is None else ",".join(each.models),
            time.strftime("since %Y-%m-%d", time.gmtime(each.created_at)),
        )
        for each in found
    )


@keys.command()
def remove(name: Name) -> None:
    """Forget a key with its budget; servers refuse it two seconds later.

    Where it was the last one, nobody may ask them from then on.
    """
    from llmkit.serve.keys import Keys

    keys = Keys()
    keys.remove(name)
    if not keys.any():
        print("llmkit: that was the last key; servers of this store let nobody in until there is one", file=sys.stderr)
