"""Write docs/cli.md, the help of every command as the program itself gives it, and the file that it shows for --help.

CI checks that the files are current.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ENVIRONMENT = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}


def help_of(*command: str) -> str:
    """Return what `llmkit COMMAND --help` prints; without a command what Typer says, not the file of `--help`."""
    program = [sys.executable, "-m", "llmkit", *command, *(["--help"] if command else ["help"])]
    done = subprocess.run(program, capture_output=True, text=True, check=True, env=ENVIRONMENT)
    return done.stdout.replace("python -m llmkit", "llmkit")


def commands(text: str) -> list[str]:
    """Return the names of the commands that a help text lists."""
    _, found, listed = text.partition("Commands:\n")
    lines = listed.splitlines() if found else []
    return [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "]


def chapter(*command: str) -> str:
    """Return the chapter of a command and of those below it."""
    text = help_of(*command)
    own = f"## `{' '.join(('llmkit', *command))}`\n\n```text\n{text.rstrip()}\n```\n"
    return "\n".join([own, *(chapter(*command, name) for name in commands(text))])


(Path(__file__).parents[1] / "llmkit/cli/help.txt").write_text(help_of(), encoding="utf-8")
print("# The command line\n\nMade by `make docs` from the commands' own help.\n")
print('`llmkit "prompt"` is short for `llmkit ask "prompt"`.\n')
print(chapter(), end="")
