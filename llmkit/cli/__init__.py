"""The command line. A command reads its arguments, makes one library call, and prints.

Answers go to stdout, everything else to stderr. The one place that catches errors is `base.Cli.invoke`.
Nothing heavy is imported before a command needs it. To add a command: write a module here; all of them are imported,
and register their commands.
"""

from __future__ import annotations

import gc
import os
import pkgutil
import sys
import warnings
from importlib import import_module
from typing import Any

from llmkit.cli.base import FAILURE, app, imports
from llmkit.cli.terminal import guard_terminals

__all__ = ["app", "main"]

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"llmkit: {message}", file=sys.stderr)


def main() -> None:
    """Run the command line."""
    warnings.showwarning = _warn

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character shows a question mark
    guard_terminals()
    gc.disable()  # the import of LiteLLM makes half a million objects that all stay; collecting costs a second
    try:
        app()
    except SystemExit as end:
        if any(not future.done() for future in imports):  # so nothing was sent; an import that is broken off can crash
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(end.code if isinstance(end.code, int) else 0 if end.code is None else FAILURE)
        raise
    finally:
        gc.freeze()  # and another one at the end
