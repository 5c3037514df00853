"""`llmkit runs`: list, show and cancel the jobs of the store."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmkit.cli.base import FAILURE, app, table

if TYPE_CHECKING:
    from llmkit.runs import RunInfo

runs = typer.Typer(no_args_is_help=True, help="Jobs of LLM.run_async and of llmkit serve: look at them, cancel them.")
app.add_typer(runs, name="runs")
Id = Annotated[str, typer.Argument(metavar="ID", help="A run, by the beginning of its id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_SHORT = 8


@runs.command("list")
def list_(
    *,
    limit: Annotated[int, typer.Option("-l", "--limit", min=1, help="How many at the most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the runs, the last one first: id, time, model, status, label."""
    from llmkit import Runs

    found = Runs().all(limit=limit)
    if as_json:
        print(json.dumps([_record(each) for each in found]))
        return
    table(
        (
            each.id[:_SHORT],
            time.strftime("%Y-%m-%d %H:%M", time.localtime(each.created_at)),
            each.model,
            each.response.status.value,
            each.name or "-",
        )
        for each in found
    )


@runs.command()
def show(run: Id, *, as_json: AsJson = False) -> None:
    """Print the answer of a run; exits with 1 where it failed, and says why."""
    from llmkit import ResponseStatus, Runs

    found = Runs().get(run)
    if as_json:
        print(json.dumps(_record(found)))
    elif found.response.data:
        print(found.response.data)
    if found.response.status is ResponseStatus.FAILED:
        print(f"llmkit: {found.response.error_message}", file=sys.stderr)
        raise typer.Exit(FAILURE)
    if not found.response.completed:
        print("llmkit: it goes on", file=sys.stderr)


@runs.command()
def cancel(run: Id) -> None:
    """End a run, in whatever process it goes on."""
    from llmkit import Runs

    found = Runs()
    run_id = found.get(run).id
    response = found.cancel(run_id)
    print(f"{run_id[:_SHORT]}  {response.error_code or response.status.value}")


def _record(found: RunInfo) -> dict[str, Any]:
    known = {name: getattr(found, name) for name in ("id", "model", "name", "created_at", "ended_at")}
    return known | {"response": found.response.to_dict()}
