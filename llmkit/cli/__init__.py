"""The command line. A command reads its arguments, makes one library call, and prints.

Answers go to stdout, everything else to stderr. The one place that catches errors is `terminal.exits`.
Nothing heavy is imported before a command needs it, and Typer is heavy: `quick` reads a plain question without it.
To add a command: write a module in one of the folders here; all of them are imported, and register their commands.
"""

from __future__ import annotations

import gc
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typer import Typer

__all__ = ["app", "main"]

_FOLDERS = ("asking", "setup", "records")


def __getattr__(name: str) -> Typer:
    """Return `app`, with the commands of all modules here."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    from pkgutil import iter_modules

    for place in __path__:
        for folder in _FOLDERS:
            for module in iter_modules([f"{place}/{folder}"]):
                import_module(f"{__name__}.{folder}.{module.name}")
    import_module(f"{__name__}.serve")
    from llmkit.cli.base import app, put_off

    put_off()
    return app


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"llmkit: {message}", file=sys.stderr)


def main() -> None:
    """Run the command line."""
    try:
        _main()
    except KeyboardInterrupt:  # while the modules are imported that end a command better
        raise SystemExit(130) from None


def _main() -> None:
    from llmkit.cli.terminal import exits, guard_terminals, open_missing

    warnings.showwarning = _warn
    open_missing()
    # a terminal that cannot show a character shows a question mark; bytes on stdin that are no text are told everywhere
    for stream, errors in ((sys.stdin, "strict"), (sys.stdout, "replace"), (sys.stderr, "replace")):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=errors)
    guard_terminals()
    gc.disable()  # the import of LiteLLM makes half a million objects that all stay; collecting costs a second
    try:
        with exits(debug="--debug" in sys.argv):  # what Typer says itself, as the help, ends like a command
            _run()
    finally:
        if (sender := sys.modules.get("llmkit.providers.routes.backend")) is not None:
            from contextlib import suppress  # which is loaded by then

            with suppress(KeyboardInterrupt):  # the answer is out
                sender.wait_for_learning(1.0)
        gc.freeze()  # and another one at the end


def _run() -> None:
    from llmkit.cli import quick

    try:
        if not quick.done(sys.argv[1:]):
            __getattr__("app")()
    finally:
        sys.stdout.flush()  # here a full disk can be told
