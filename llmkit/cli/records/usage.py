"""`llmkit usage`: calls, tokens and costs from the ledger; `prune` deletes old rows."""

from __future__ import annotations

import shutil
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from llmkit.cli.base import add_group
from llmkit.cli.files import write
from llmkit.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

usage = typer.Typer()
add_group(usage, "usage")
_BY = "model"
_WHEN = "a date (UTC), an ISO moment, or an age like 7d, 24h, 30m"


@usage.callback(invoke_without_command=True)
def show(
    ctx: typer.Context,
    *,
    by: Annotated[
        str,
        typer.Option(
            "--by", metavar="model|preset|day|session|tag|status[,…]", help="What to group by; '' for one line."
        ),
    ] = _BY,
    since: Annotated[str | None, typer.Option("--since", metavar="WHEN", help=f"From then on: {_WHEN}.")] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="WHEN", help="Before then.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of objects, without the total.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, without the total.")] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Add a bar for the cost of each group.")] = False,
    html: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="Write a page with charts to this file; - is stdout.")
    ] = None,
) -> None:
    """Print what was used and what it cost: calls, attempts, errors, tokens, US dollars, latency in seconds.

    Answers of unknown price are counted as unpriced, and are not in the sum.

    Example: llmkit usage --by model,day --since 7d

    Example: llmkit usage --since 30d --html usage.html
    """
    if ctx.invoked_subcommand is not None:
        if any((since, until, as_json, as_csv, plot, html is not None, by != _BY)):
            raise InvalidRequestError(f"options of usage have no effect on {ctx.invoked_subcommand}")
        return
    from llmkit.money import report
    from llmkit.money.ledger import Ledger

    _only_one(as_json=as_json, as_csv=as_csv, plot=plot, html=html is not None, by=by)
    names, now = report.grouping(by), time.time()
    first, end = _span(since, until, now)
    lines, *more = report.summarise(Ledger(), *_groupings(names, html=html is not None), since=first, until=end)
    if not lines[-1].attempts:
        print("nothing in the ledger" + (" for this time" if since or until else ""), file=sys.stderr)
    if html is not None:
        from llmkit.money.usage_page import usage_page

        _put(usage_page([lines, *more], now=now, since=first, until=end), html)
    elif as_csv:
        sys.stdout.buffer.write(report.as_csv(lines, names).encode(errors="replace"))  # CRLF on every platform
    elif as_json:
        sys.stdout.write(report.as_json(lines, names))
    elif lines[-1].attempts:
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        sys.stdout.write(report.as_text(lines, names, plot=plot, columns=columns))


def _span(since: str | None, until: str | None, now: float) -> tuple[float | None, float | None]:
    from llmkit.money import report

    first, end = (None if when is None else report.moment(when, now=now) for when in (since, until))
    if first is not None and end is not None and first >= end:
        raise InvalidRequestError(f"--since {since} is not before --until {until}")
    return first, end


def _groupings(names: Sequence[str], *, html: bool) -> Sequence[Sequence[str]]:
    """Return what rows are grouped by: as asked for, or all that the page needs, which begins with the models."""
    if not html:
        return [names]
    from llmkit.money.usage_page import GROUPINGS

    return GROUPINGS


def _only_one(*, as_json: bool, as_csv: bool, plot: bool, html: bool, by: str) -> None:
    if as_json + as_csv + plot > 1:
        raise InvalidRequestError("only one of --json, --csv and --plot can be given")
    if html and (as_json or as_csv or plot or by != _BY):
        raise InvalidRequestError("--html cannot be given with --json, --csv, --plot or --by")


def _put(page: str, file: str) -> None:
    """Write a page, whole or not at all, and print where it is."""
    if file == "-":
        sys.stdout.buffer.write(page.encode())
        return
    write(page, file, option="--html")
    print(file)


@usage.command()
def prune(
    *, before: Annotated[str, typer.Option("--before", metavar="WHEN", help=f"Delete what is older: {_WHEN}.")]
) -> None:
    """Delete rows of the ledger, and print how many there were."""
    from llmkit.money import report
    from llmkit.money.ledger import Ledger

    print(Ledger().prune(report.moment(before, now=time.time())))


@usage.command(hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def reprice() -> None:
    """Say where this command went."""
    raise InvalidRequestError("`llmkit usage reprice` went: a row keeps the price of its day; see `llmkit usage --csv`")
