"""`llmkit run`: ask what a template says."""

from __future__ import annotations

from typing import Annotated

import typer

from llmkit.cli import app, backend
from llmkit.cli.ask import report


@app.command()
def run(
    template: Annotated[str, typer.Argument(help="A prompt file, or the name of one of your templates.")],
    *,
    var: Annotated[list[str] | None, typer.Option("--var", metavar="NAME=VALUE", help="A variable.")] = None,
    preset: Annotated[str | None, typer.Option("-p", "--preset", "-t", help="Another preset than its own.")] = None,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Print the answer when it is complete.")] = False,
    usage: Annotated[bool, typer.Option("-u", "--usage", help="Print tokens and price on stderr.")] = False,
) -> None:
    """Ask what a template says, and print the answer.

    Example: llmkit run explain.md --var word=entropy
    """
    from llmkit import ApiBackend
    from llmkit.presets import templates

    bot = ApiBackend(backend=backend())
    overrides = {"preset": preset} if preset else {}
    streamed = {} if no_stream else {"print_stream": True}
    answer = bot.run_template(template, templates.pairs(var or ()), {**overrides, **streamed})
    if bot.last_error is not None:
        raise bot.last_error
    if no_stream:
        print(answer.response)
    if bot.last_reply is not None:
        report(bot.last_reply, usage=usage)
