"""`llmkit ask`, the default command: one question, one answer; `quote`, its cost beforehand; `run`, a template."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from llmkit.cli.asking import question
from llmkit.cli.base import (
    AsJson,
    Attachment,
    BudgetNames,
    Command,
    Database,
    GoOn,
    Key,
    Model,
    NoLog,
    NoStream,
    Option,
    PresetName,
    Prompt,
    Session,
    ShowUsage,
    System,
    Timeout,
    Tool,
    Var,
    app,
)
from llmkit.cli.terminal import OVER_BUDGET


class WithOptions(Command):
    """A command with `-o KEY VALUE` or `-o KEY=VALUE`; Typer itself knows only the latter."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Convert the first form into the second."""
        given, joined = iter(args), []
        for arg in given:
            joined.append(arg)
            if arg == "--":
                joined += given
            elif arg in {"-o", "--option"} and (key := next(given, None)) is not None:
                value = None if "=" in key else next(given, None)
                joined.append(key if value is None else f"{key}={value}")
        ctx.allow_extra_args = True
        parsed: list[str] = super().parse_args(ctx, joined)
        if ctx.args and not ctx.resilient_parsing:
            ctx.fail(f"the text has to stand in quotes: {' '.join(ctx.args)!r} is left over")
        return parsed


@app.command(cls=WithOptions)
def ask(
    *,
    prompt: Prompt = "",
    model: Model = None,
    preset: PresetName = None,
    system: System = None,
    option: Option = None,
    attachment: Attachment = None,
    var: Var = None,
    schema: Annotated[
        str | None,
        typer.Option("--schema", help="The answer's form: JSON Schema, its file, or 'name, age int'."),
    ] = None,
    tool: Tool = None,
    go_on: GoOn = False,
    session: Session = None,
    no_log: NoLog = False,
    database: Database = None,
    budget: BudgetNames = None,
    no_stream: NoStream = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: text, model, usage, cost.")] = False,
    extract: Annotated[bool, typer.Option("-x", "--extract", help="Print the first block of code only.")] = False,
    usage: ShowUsage = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the request and its price; send nothing.")] = False,
    save: Annotated[str | None, typer.Option("--save", metavar="PRESET", help="Write all this to a preset.")] = None,
    key: Key = None,
    timeout: Timeout = None,
) -> None:
    """Ask a question and print the answer.

    Example: llmkit -m openai/gpt-4o -o temperature 0 "Name a colour."

    Example: llmkit --schema 'name, age int' "Invent a dog."
    """
    given = locals()
    question.ask(question.Question(**{name: value for name, value in given.items() if value is not None}))


@app.command(cls=WithOptions)
def quote(
    *,
    prompt: Prompt = "",
    model: Model = None,
    preset: PresetName = None,
    system: System = None,
    option: Option = None,
    budget: BudgetNames = None,
    as_json: AsJson = False,
) -> None:
    """Print what a question would cost; nothing is sent. Exits with 3 if a budget would refuse it.

    Example: llmkit quote -m openai/gpt-4o -o max_tokens 200 "Name a colour."
    """
    import llmkit

    options = question.pairs(option or ())
    options |= {"budget": budget} if budget else {}
    cost = llmkit.quote(question.joined(prompt), model=model, preset=preset, system=system, **options)
    if as_json:
        print(json.dumps(asdict(cost)))
    else:
        room = "unknown window" if cost.window is None else f"window {cost.window}"
        fits = {True: "fits", False: "does not fit", None: "may fit"}[cost.fits]
        longest = f"answer up to {cost.answer_tokens} tokens" if cost.answer_tokens else "answer of unknown length"
        print(f"{cost.model}: {cost.prompt_tokens} tokens, {room}, {fits}; {longest}")
        prices = (("least", cost.least_usd), ("expected", cost.expected_usd), ("most", cost.most_usd))
        print(", ".join(f"{name} {'unknown' if usd is None else f'{usd:.6f} USD'}" for name, usd in prices))
        if cost.refused:
            print(cost.refused)
    if cost.refused:
        raise typer.Exit(OVER_BUDGET)


@app.command()
def run(
    template: Annotated[str, typer.Argument(help="A prompt file, or the name of one of your templates.")],
    *,
    var: Var = None,
    preset: PresetName = None,
    no_stream: NoStream = False,
    usage: ShowUsage = False,
) -> None:
    """Send a template's prompt, and print the answer.

    Example: llmkit run explain.md --var word=entropy
    """
    from llmkit import ApiBackend
    from llmkit.presets import templates

    bot = ApiBackend(backend=question.backend())
    overrides = {"preset": preset} if preset else {}
    streamed = {} if no_stream else {"print_stream": True}
    answer = bot.run_template(template, templates.pairs(var or ()), {**overrides, **streamed})
    if bot.last_error is not None:
        raise bot.last_error
    if no_stream:
        print(answer.response)
    if bot.last_reply is not None:
        question.report(bot.last_reply, usage=usage)
