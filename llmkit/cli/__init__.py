"""The command line. A command is: read the arguments, one library call, print.

Answers go to stdout, everything else to stderr. The one place that catches errors is `Cli.invoke`.
Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from llmkit import _trust
from llmkit.cli._terminal import User, guard_terminals
from llmkit.errors import BudgetExceededError, ConfigError, InvalidRequestError, LlmkitError, explain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

FAILURE, WRONG_USAGE, OVER_BUDGET, INTERRUPTED = 1, 2, 3, 130
_GROUP_OPTIONS = frozenset({"--version", "--debug", "--help", "-h", "--install-completion", "--show-completion"})


class Cli(TyperGroup):
    """The group of all commands: `ask` is the default, and errors become one line and an exit code."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Let `llmkit "prompt"` mean `llmkit ask "prompt"`."""
        first = next((index for index, arg in enumerate(args) if arg not in _GROUP_OPTIONS), None)
        if first is not None and args[first] not in self.commands:
            args = [*args[:first], "ask", *args[first:]]
        elif not args and not sys.stdin.isatty():
            args = ["ask"]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed

    def invoke(self, ctx: Any) -> Any:
        """Run a command; no traceback reaches a user unless `--debug` is given."""
        try:
            with _trust.watched(User()):
                return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the flush at exit must not fail too
            raise typer.Exit(FAILURE) from None
        except LlmkitError as error:
            if ctx.params.get("debug"):
                raise
            print(f"llmkit: {explain(error)}", file=sys.stderr)
            if isinstance(error, BudgetExceededError):
                raise typer.Exit(OVER_BUDGET) from None
            wrong_usage = isinstance(error, InvalidRequestError | ConfigError)
            raise typer.Exit(WRONG_USAGE if wrong_usage else FAILURE) from None


app = typer.Typer(
    cls=Cli,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(*, wanted: bool) -> None:
    if wanted:
        from llmkit import __version__

        print(f"llmkit {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=lambda value: _version(wanted=value), is_eager=True
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Ask language models: `llmkit "quick question"`, `cat log | llmkit -s "what failed?"`."""


_imports: list[Any] = []


def backend() -> Any:
    """Return who sends the requests, and begin to import LiteLLM while the arguments are read."""
    from llmkit._litellm import load
    from llmkit._trace import traced
    from llmkit._work import background
    from llmkit.api import real_backend
    from llmkit.config import Config

    def warm() -> None:
        load()
        import llmkit.store  # noqa: F401 - wanted at the end

    _imports.append(background(warm, name="llmkit-import"))
    return traced(real_backend(), Config())


def table(rows: Iterable[Sequence[str]]) -> None:
    """Print rows in columns as wide as they need to be, each in a line."""
    listed = [[" ".join(cell.split("\n")) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*listed, strict=True)][:-1] if listed else []
    for row in listed:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip())


def edit(file: Path) -> None:
    """Open a file in the user's editor: `VISUAL`, `EDITOR`, or the platform's usual one."""
    import click

    try:
        click.edit(filename=str(file))
    except click.ClickException as error:
        raise ConfigError(f"the editor cannot be run: {error}; set EDITOR") from error


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"llmkit: {message}", file=sys.stderr)


def main() -> None:
    """Run the command line."""
    from llmkit.cli import ask, budget, chat, config, presets, quote, run, runs, serve, sessions, usage  # noqa: F401 - they register their commands

    warnings.showwarning = _warn

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows a question mark
    guard_terminals()
    gc.disable()  # the import of LiteLLM makes half a million objects that all stay; collecting costs a second
    try:
        app()
    except SystemExit as end:
        if any(not each.done() for each in _imports):  # so nothing was sent; an import that is broken off can crash
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(end.code if isinstance(end.code, int) else 0 if end.code is None else FAILURE)
        raise
    finally:
        gc.freeze()  # and another one at the end
