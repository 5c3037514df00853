"""`llmkit runs`: list, show and cancel the runs of the store."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmkit.cli.base import AsJson, Lists, add_group, table
from llmkit.cli.terminal import FAILURE

if TYPE_CHECKING:
    from llmkit.runs import RunInfo

runs = typer.Typer(cls=Lists, help="Runs of LLM.run_async and of llmkit serve: list, show, cancel.")
add_group(runs, "runs")
Id = Annotated[str, typer.Argument(metavar="ID", help="A run, by the beginning of its id.")]
_SHORT = 8


@runs.command("list")
def list_(
    *,
    limit: Annotated[int, typer.Option("-l", "--limit", min=1, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List the runs, latest first: id, time, model, status, label."""
    from llmkit import Runs

    infos = Runs().all(limit=limit)
    if as_json:
        print(json.dumps([_record(info) for info in infos]))
        return
    table(
        (
            info.id[:_SHORT],
            time.strftime("%Y-%m-%d %H:%M", time.localtime(info.created_at)),
            info.model,
            info.response.status.value,
            info.name or "-",
        )
        for info in infos
    )


@runs.command()
def show(run: Id, *, as_json: AsJson = False) -> None:
    """Print the answer of a run; exits with 1 if it failed, and says why."""
    from llmkit import ResponseStatus, Runs

    info = Runs().get(run)
    if as_json:
        print(json.dumps(_record(info)))
    elif info.response.data:
        print(info.response.data)
    if info.response.status is ResponseStatus.FAILED:
        print(f"llmkit: {info.response.error_message}", file=sys.stderr)
        raise typer.Exit(FAILURE)
    if not info.response.completed:
        print("llmkit: it goes on", file=sys.stderr)


@runs.command()
def cancel(run: Id) -> None:
    """Cancel a run, in whatever process it goes on."""
    from llmkit import Runs

    runs_of_store = Runs()
    run_id = runs_of_store.get(run).id
    response = runs_of_store.cancel(run_id)
    print(f"{run_id[:_SHORT]}  {response.error_code or response.status.value}")


def _record(info: RunInfo) -> dict[str, Any]:
    known = {name: getattr(info, name) for name in ("id", "model", "name", "created_at", "ended_at")}
    return known | {"response": info.response.to_dict()}
