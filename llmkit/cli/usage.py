"""`llmkit usage`: what was asked, what it used and what it cost, from the ledger; `prune` deletes old rows."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from llmkit.cli import app
from llmkit.errors import InvalidRequestError

usage = typer.Typer()
app.add_typer(usage, name="usage")
_BY = "model"
_WHEN = "a date (UTC), an ISO moment, or an age like 7d, 24h, 30m"


@usage.callback(invoke_without_command=True)
def show(
    ctx: typer.Context,
    *,
    by: Annotated[
        str,
        typer.Option(
            "--by", metavar="model|preset|day|session|tag|status[,…]", help="What a line is for; '' for one of all."
        ),
    ] = _BY,
    since: Annotated[str | None, typer.Option("--since", metavar="WHEN", help=f"From then on: {_WHEN}.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Before then.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of objects, without the total.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, without the total.")] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Add a bar for the cost of each group.")] = False,
) -> None:
    """Print what was asked and what it cost: calls, attempts, errors, tokens, US dollars, latency in seconds.

    Answers whose price is not known are counted as unpriced, and are not in the sum.

    Example: llmkit usage --by model,day --since 7d
    """
    if ctx.invoked_subcommand is not None:
        if any((since, until, as_json, as_csv, plot, by != _BY)):
            raise InvalidRequestError(f"options of usage have no effect on {ctx.invoked_subcommand}")
        return
    from llmkit import report
    from llmkit.ledger import Ledger

    if as_json + as_csv + plot > 1:
        raise InvalidRequestError("only one of --json, --csv and --plot can be given")
    names, now = report.grouping(by), time.time()
    first, end = (None if when is None else report.moment(when, now=now) for when in (since, until))
    if first is not None and end is not None and first >= end:
        raise InvalidRequestError(f"--since {since} is not before --until {until}")
    rows = Ledger().rows(first, end)
    lines = report.summarise(rows, names)
    if not rows:
        print("nothing in the ledger" + (" for this time" if since or until else ""), file=sys.stderr)
    if as_csv:
        sys.stdout.buffer.write(report.as_csv(lines, names).encode(errors="replace"))  # CRLF on every platform
    elif as_json:
        sys.stdout.write(report.as_json(lines, names))
    elif rows:
        sys.stdout.write(report.as_text(lines, names, plot=plot))


@usage.command()
def prune(
    *, before: Annotated[str, typer.Option("--before", metavar="WHEN", help=f"What is older goes: {_WHEN}.")]
) -> None:
    """Delete rows of the ledger, and print how many there were."""
    from llmkit import report
    from llmkit.ledger import Ledger

    print(Ledger().prune(report.moment(before, now=time.time())))


@usage.command()
def reprice(
    *,
    prices: Annotated[str | None, typer.Option("--prices", metavar="FILE", help="A table like prices.yaml.")] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="WHEN", help=f"From then on: {_WHEN}.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Before then.")] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Write the new costs; without it nothing is changed.")] = False,
) -> None:
    """Print what rows cost and would cost with today's prices, or those of a file, for each model that differs."""
    from llmkit import report
    from llmkit.cli import table
    from llmkit.ledger import Ledger

    now = time.time()
    first, end = (None if when is None else report.moment(when, now=now) for when in (since, until))
    found = Ledger().reprice(prices, since=first, until=end, apply=apply)
    if not found:
        print("no row has another cost", file=sys.stderr)
        return
    lines = [(each.model, str(each.rows), f"{each.was_usd:.6f}", f"{each.is_usd:.6f}") for each in found]
    table([("model", "rows", "was_usd", "is_usd"), *lines])
    if not apply:
        print("nothing is changed; --apply writes it", file=sys.stderr)
