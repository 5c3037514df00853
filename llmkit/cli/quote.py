"""`llmkit quote`: what a question would cost, before it is asked."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from llmkit.cli import OVER_BUDGET, app
from llmkit.cli.ask import WithOptions, joined, pair


@app.command(cls=WithOptions)
def quote(
    *,
    prompt: Annotated[str, typer.Argument(help="The question; what comes from stdin is put before it.")] = "",
    model: Annotated[str | None, typer.Option("-m", "--model", help="provider/model.")] = None,
    preset: Annotated[str | None, typer.Option("-p", "--preset", "-t", help="Name or path of a preset.")] = None,
    system: Annotated[str | None, typer.Option("-s", "--system", help="The system message.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("-o", "--option", metavar="KEY VALUE", help="A model's parameter; KEY=VALUE is the same."),
    ] = None,
    budget: Annotated[list[str] | None, typer.Option("--budget", metavar="NAME", help="A budget of the store.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what a question would cost; nothing is sent. Exits with 3 when a budget would refuse it.

    Example: llmkit quote -m openai/gpt-4o -o max_tokens 200 "Name a colour."
    """
    import llmkit

    options: dict[str, Any] = dict(map(pair, option or ()))
    options |= {"budget": budget} if budget else {}
    found = llmkit.quote(joined(prompt), model=model, preset=preset, system=system, **options)
    if as_json:
        print(json.dumps(asdict(found)))
    else:
        room = "unknown window" if found.window is None else f"window {found.window}"
        fits = {True: "fits", False: "does not fit", None: "may fit"}[found.fits]
        print(f"{found.model}: {found.prompt_tokens} tokens, {room}, {fits}; answer up to {found.answer_tokens} tokens")
        prices = (("least", found.least_usd), ("expected", found.expected_usd), ("most", found.most_usd))
        print(", ".join(f"{name} {'unknown' if usd is None else f'{usd:.6f} USD'}" for name, usd in prices))
        if found.refused:
            print(found.refused)
    if found.refused:
        raise typer.Exit(OVER_BUDGET)
