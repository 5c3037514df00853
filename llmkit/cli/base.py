"""What all commands share: their group and their options, tables, the editor."""

from __future__ import annotations

import sys
from functools import cached_property
from inspect import cleandoc
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup
from typer.main import get_command

from llmkit.cli import completing
from llmkit.cli.terminal import exits
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from typer.models import CommandInfo

_GROUP_OPTIONS = frozenset({"--version", "--debug", "--help", "-h", "--install-completion", "--show-completion"})

_ELSEWHERE = {
    **dict.fromkeys(("templates", "template", "roles", "fragments", "schemas"), "presets"),
    **dict.fromkeys(("logs", "history", "threads", "conversations"), "sessions"),
    **dict.fromkeys(("alias", "aliases", "providers", "default"), "models"),
    **dict.fromkeys(("login", "auth", "secrets"), "keys"),
    **dict.fromkeys(("version", "status", "check", "plugins", "tools"), "doctor"),
    **dict.fromkeys(("settings", "set", "get"), "config"),
    **dict.fromkeys(("cost", "costs", "spend", "stats"), "usage"),
    **dict.fromkeys(("list", "commands", "install", "uninstall", "upgrade"), "--help"),
    **dict.fromkeys(("repl", "shell"), "chat"),
    **dict.fromkeys(("proxy", "server", "web"), "serve"),
}
"""Commands of programs like this one, and where llmkit has what they do."""

Prompt = Annotated[str, typer.Argument(help="The question; text from stdin is put before it.")]
Model = Annotated[
    str | None,
    typer.Option("-m", "--model", help="provider/model, or local/PATH.gguf.", autocompletion=completing.models),
]
Provider = Annotated[
    str,
    typer.Argument(
        metavar="PROVIDER", help="A provider, as in openai/gpt-4o: openai.", autocompletion=completing.providers
    ),
]
PresetName = Annotated[
    str | None,
    typer.Option("-p", "--preset", "-t", help="Name or path of a preset.", autocompletion=completing.presets),
]
System = Annotated[str | None, typer.Option("-s", "--system", help="The system message.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Option = Annotated[
    list[str] | None,
    typer.Option("-o", "--option", metavar="KEY VALUE", help="A model's parameter; KEY=VALUE is the same."),
]
Attachment = Annotated[
    list[str] | None, typer.Option("-a", "--attachment", metavar="PATH|URL|-", help="An image, audio, PDF or text.")
]
Var = Annotated[list[str] | None, typer.Option("--var", metavar="NAME=VALUE", help="A variable of the preset.")]
GoOn = Annotated[bool, typer.Option("-c", "--continue", help="Continue the last conversation.")]
Session = Annotated[
    str | None,
    typer.Option(
        "--session", "--cid", metavar="ID", help="Continue this conversation.", autocompletion=completing.sessions
    ),
]
Database = Annotated[str | None, typer.Option("-d", "--database", metavar="URL", help="Keep it in this database.")]
NoLog = Annotated[bool, typer.Option("-n", "--no-log", help="Keep nothing of it.")]
Key = Annotated[str | None, typer.Option("--key", help="The provider's API key; other users see it in `ps`.")]
Timeout = Annotated[float | None, typer.Option("--timeout", metavar="SECONDS", help="Give up after this.")]
Tool = Annotated[
    list[str] | None,
    typer.Option("-T", "--tool", metavar="FILE[:NAME]", help="Python functions that the model may call."),
]
BudgetNames = Annotated[
    list[str] | None,
    typer.Option("--budget", metavar="NAME", help="A budget to keep to.", autocompletion=completing.budgets),
]
NoStream = Annotated[bool, typer.Option("--no-stream", help="Print the answer when it is complete.")]
ShowUsage = Annotated[bool, typer.Option("-u", "--usage", help="Print tokens and price on stderr.")]


class _Unread:
    """A command or group that reads its options without their values for a TAB: Typer takes pydantic for those."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the options."""
        if not ctx.resilient_parsing:
            parsed: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
            return parsed
        values, rest, _ = self.make_parser(ctx).parse_args(args=args)  # type: ignore[attr-defined]
        ctx.params.update(values)
        ctx.args = rest
        ctx._opt_prefixes.update("-")  # noqa: SLF001 - what an option begins with, as Typer's own method has it
        return list(ctx.args)


class Command(_Unread, TyperCommand):
    """A command."""


class _Group(_Unread, TyperGroup):
    """A group of commands."""


def with_own_class(commands: Iterable[CommandInfo]) -> None:
    """Make commands that are declared without a class `Command`s."""
    for command in commands:
        command.cls = Command if command.cls is TyperCommand else command.cls


class Cli(_Group):
    """The group of all commands: `ask` is the default, and errors become one line and an exit code."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        single = {command.name or "": command for command in map(_LaterCommand, _commands)}
        self.commands = {**single, **self.commands, **{name: _Later(name, group) for name, group in _groups.items()}}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Let `llmkit "prompt"` mean `llmkit ask "prompt"`, but not where the prompt is a mistyped command."""
        first = next((index for index, arg in enumerate(args) if arg not in _GROUP_OPTIONS), None)
        if args[first:] == ["help"]:
            args = ["--help"]
        elif first is not None and args[first] not in self.commands:
            is_alone = len(args) == first + 1 and sys.stdin.isatty()
            if not ctx.resilient_parsing and (command := self._meant(args[first], is_alone=is_alone)):
                ctx.fail(f"there is no command {args[first]!r}; see `llmkit {command}`, or `llmkit ask {args[first]}`")
            args = [*args[:first], "ask", *args[first:]]
        elif not args and not ctx.resilient_parsing and not sys.stdin.isatty():
            args = ["ask"]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed

    def _meant(self, word: str, *, is_alone: bool) -> str:
        """Return where to look for what a single word was meant to be, or "" if it is a question.

        One that is typed alone is none, whatever it is: nothing is paid for a slip.
        """
        if word.startswith("-") or not word.replace("-", "").isalpha():
            return ""
        import difflib

        near = difflib.get_close_matches(word.lower(), self.commands, n=1, cutoff=0.8)
        return near[0] if near else _ELSEWHERE.get(word.lower(), "--help" if is_alone else "")

    def invoke(self, ctx: Any) -> Any:
        """Run a command; no traceback reaches a user unless `--debug` is given."""
        with exits(debug=bool(ctx.params.get("debug"))):
            return super().invoke(ctx)


class WithDefault(_Group):
    """A group with a command that is meant where none stands."""

    default = "run"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put in its name where no command stands."""
        takes_words = any(isinstance(param, TyperArgument) for param in self.commands[self.default].params)
        is_option = bool(args) and args[0].startswith("-") and args[0] not in _GROUP_OPTIONS
        if ctx.resilient_parsing:
            pass  # a TAB offers the commands
        elif not args or is_option or (takes_words and args[0] not in {*self.commands, *_GROUP_OPTIONS}):
            args = [self.default, *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


class Lists(WithDefault):
    """A group whose name alone lists what it has: `llmkit keys` means `llmkit keys list`."""

    default = "list"


class _Later(TyperGroup):
    """A group of commands by its name and its help; Typer is told its commands, which takes time, when it is used."""

    def __init__(self, name: str, group: typer.Typer) -> None:
        callback = group.registered_callback
        text = group.info.help if callback is None or callback.callback is None else callback.callback.__doc__
        super().__init__(name=name, help=cleandoc(text or ""))
        self._group = group

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Return the context of the whole group, which runs it from there."""
        above = typer.Typer(rich_markup_mode=None)
        own = self._group.info.cls
        with_own_class(self._group.registered_commands)
        above.add_typer(self._group, name=self.name, cls=own if isinstance(own, type) else _Group)
        whole: Any = get_command(above)
        return whole.commands[self.name].make_context(info_name, args, parent=parent, **extra)


class _LaterCommand(TyperCommand):
    """A command by its name and its help; Typer reads its options, which takes time, when it is used."""

    def __init__(self, info: CommandInfo) -> None:
        self._info = info
        name = info.name or getattr(info.callback, "__name__", "").replace("_", "-")
        super().__init__(name=name, help=info.help or cleandoc(info.callback.__doc__ or ""), hidden=info.hidden)

    @cached_property
    def _whole(self) -> Any:
        alone = typer.Typer(rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False)
        alone.registered_commands.append(self._info)
        return get_command(alone)

    @property
    def params(self) -> Any:
        """The options and arguments."""
        return self._whole.params

    @params.setter
    def params(self, _: Any) -> None:
        """Leave them out, as long as nobody asks for them."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Return the context of the whole command, which runs it from there."""
        return self._whole.make_context(info_name, args, parent=parent, **extra)


_commands: list[CommandInfo] = []
_groups: dict[str, typer.Typer] = {}


def put_off() -> None:
    """Have the options of the commands that stand alone read when one is used."""
    with_own_class(app.registered_commands)
    _commands.extend(app.registered_commands)
    app.registered_commands.clear()


def add_group(group: typer.Typer, name: str) -> None:
    """Add a group of commands to the command line."""
    _groups[name] = group


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


def table(rows: Iterable[Sequence[str]]) -> None:
    """Print rows, one per line, in columns as wide as they need to be."""
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
