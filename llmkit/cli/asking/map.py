"""`llmkit map`: many rows through one preset into one file; and how far such jobs are."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from llmkit.cli.asking import many
from llmkit.cli.base import (
    AsJson,
    BudgetNames,
    Database,
    Model,
    PresetName,
    System,
    Timeout,
    Var,
    WithDefault,
    add_group,
    table,
)

if TYPE_CHECKING:
    from llmkit.jobs import JobInfo

map_ = typer.Typer(
    cls=WithDefault,
    help="A question for each row of a file: `llmkit map ROWS.jsonl -p PRESET -o OUT.jsonl`; see `llmkit map run -h`.",
)
add_group(map_, "map")
Name = Annotated[str, typer.Argument(metavar="JOB", help="A job: its output file, or the beginning of its id.")]
Rows = Annotated[str, typer.Argument(help="JSON lines, CSV, Parquet, or a question a line.")]
Out = Annotated[str, typer.Option("-o", "--out", metavar="FILE", help="The output: a line of JSON for each row.")]
AtOnce = Annotated[str, typer.Option("-j", "--at-once", metavar="N|auto", help="How many rows at a time.")]
Rpm = Annotated[float | None, typer.Option("--rpm", help="Requests a minute, at most.")]
Tpm = Annotated[float | None, typer.Option("--tpm", help="Tokens a minute, at most.")]
Workers = Annotated[int | None, typer.Option("-w", "--workers", min=1, help="So many processes ask, each -j rows.")]
Engine = Annotated[str | None, typer.Option("--engine", metavar="dask", help="A cluster asks: Dask's.")]
Address = Annotated[str | None, typer.Option("--address", metavar="URL", help="Its scheduler [one on this machine].")]
Text = Annotated[
    str | None, typer.Option("--prompt", metavar="TEXT", help="The question, with {{ column }} for what a row has.")
]
Column = Annotated[str | None, typer.Option("--column", metavar="NAME", help="The column that is it [prompt].")]
KeyColumn = Annotated[str | None, typer.Option("--key", metavar="NAME", help="The column that names a row [number].")]
Params = Annotated[list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="A model's parameter.")]
Schema = Annotated[
    str | None, typer.Option("--schema", help="The answers' form: JSON Schema, its file, or 'name, age int'.")
]
MaxUsd = Annotated[float | None, typer.Option("--max-usd", min=0, help="The most that the job may cost.")]
Again = Annotated[bool, typer.Option("--retry-errors", help="Ask again what failed.")]
Plot = Annotated[
    str | None,
    typer.Option("--plot", metavar="FILE.svg", help="At the end, draw rate, failures and cost over the time."),
]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Begin without a question.")]
ApiKey = Annotated[str | None, typer.Option("--api-key", help="The provider's API key; other users see it in `ps`.")]


@map_.command()
def run(
    rows: Rows,
    *,
    out: Out,
    preset: PresetName = None,
    model: Model = None,
    system: System = None,
    at_once: AtOnce = "auto",
    workers: Workers = None,
    engine: Engine = None,
    address: Address = None,
    rpm: Rpm = None,
    tpm: Tpm = None,
    prompt: Text = None,
    column: Column = None,
    key: KeyColumn = None,
    option: Params = None,
    var: Var = None,
    schema: Schema = None,
    max_usd: MaxUsd = None,
    budget: BudgetNames = None,
    retry_errors: Again = False,
    plot: Plot = None,
    yes: Yes = False,
    as_json: AsJson = False,
    database: Database = None,
    api_key: ApiKey = None,
    timeout: Timeout = None,
) -> None:
    """Ask a question for each row, many at a time, and write the answers in order.

    Started again it goes on: what was answered is not asked again.

    Example: llmkit map reviews.csv -p brief --prompt 'Positive or negative? {{ text }}' -o out.jsonl --max-usd 2
    """
    given = locals()
    if database is not None:
        os.environ["LLMKIT_DATABASE"] = database  # for this command, which is the whole process
    many.ask(rows, given)


@map_.command()
def join(
    job: Name,
    *,
    store: Annotated[
        str | None, typer.Option("-d", "--store", "--database", metavar="URL", help="The store that has the job.")
    ] = None,
    at_once: Annotated[
        str | None, typer.Option("-j", "--at-once", metavar="N|auto", help="How many rows at a time [as it began].")
    ] = None,
    workers: Workers = None,
    api_base: Annotated[
        str | None, typer.Option("--api-base", metavar="URL", help="The job's address, if it has one of its own.")
    ] = None,
    api_key: ApiKey = None,
) -> None:
    """Ask rows of a job that was begun elsewhere, until none is left; on as many hosts as you like.

    The keys of providers come from this host; to an address of the job's own they go if you name it. Ctrl-C and SIGTERM
    wait for the answers under way.

    Example: llmkit map join out.jsonl --store postgresql://db.example.com/llmkit
    """
    many.join(job, store, at_once=at_once, workers=workers, api_key=api_key, api_base=api_base)


@map_.command()
def status(
    job: Annotated[str, typer.Argument(metavar="[JOB]", help="A job; all of them if none is named.")] = "",
    *,
    as_json: AsJson = False,
) -> None:
    """Print how far jobs are: id, state, rows done, failed, cost, output."""
    from llmkit.jobs import Jobs

    infos = [Jobs().get(job).info()] if job else Jobs().all()
    if as_json:
        print(json.dumps([asdict(info) for info in infos]))
        return
    table(
        (
            info.id,
            _state(info),
            f"{info.done + info.failed + info.same} of {info.rows}",
            f"{info.failed} failed",
            many.usd(info.cost_usd),
            info.name,
        )
        for info in infos
    )


@map_.command()
def stop(job: Name) -> None:
    """Let a job that goes on elsewhere end with the answers that are under way."""
    from llmkit.jobs import Jobs

    Jobs().get(job).stop()


@map_.command()
def retry(job: Name) -> None:
    """Let the rows that failed be asked again when the job is started again."""
    from llmkit.jobs import Jobs

    print(f"{Jobs().get(job).retry()} rows will be asked again when the job is started")


@map_.command()
def remove(job: Name) -> None:
    """Forget a job and its answers; its output stays as it is."""
    from llmkit.jobs import Jobs

    Jobs().get(job).remove()


def _state(info: JobInfo) -> str:
    if info.ended_at is not None:
        return "done"
    return "stopping" if info.owner and info.stopped else "under way" if info.owner else "waiting"
