"""Reads the arguments of a plain question, `--version` and `--help`, without Typer.

Importing Typer with pydantic, and declaring forty commands to it, takes as long as all the rest of a question. What is
not in the tables here, every error included, is left to Typer; a test compares the tables with what `ask` declares. A
single word that comes first is left to it too, for it may be a command. What it says for `llmkit help` is kept in
`help.txt`, which `make docs` writes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit import __version__
from llmkit.cli.terminal import exits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmkit.core.engine import Backend

_HELP_COLUMNS = 80
"""From here on Typer's help is the same on every terminal."""
FLAGS = {
    **dict.fromkeys(("-c", "--continue"), "go_on"),
    **dict.fromkeys(("-n", "--no-log"), "no_log"),
    **dict.fromkeys(("-u", "--usage"), "usage"),
    "--no-stream": "no_stream",
    "--json": "as_json",
    **dict.fromkeys(("-x", "--extract"), "extract"),
    "--dry-run": "dry_run",
}
TEXTS = {
    **dict.fromkeys(("-m", "--model"), "model"),
    **dict.fromkeys(("-p", "--preset", "-t"), "preset"),
    **dict.fromkeys(("-s", "--system"), "system"),
    **dict.fromkeys(("--session", "--cid"), "session"),
    "--schema": "schema",
    "--save": "save",
    **dict.fromkeys(("-d", "--database"), "database"),
    "--key": "key",
}
LISTS = {
    **dict.fromkeys(("-o", "--option"), "option"),
    **dict.fromkeys(("-a", "--attachment"), "attachment"),
    **dict.fromkeys(("-T", "--tool"), "tool"),
    "--var": "var",
    "--budget": "budget",
}


def done(args: list[str], *, sender: Backend | None = None) -> bool:
    """Run the command line *args* if it is a plain question, or asks for version or help; return whether it was.

    *sender* sends the question; for tests.
    """
    if (text := _about(args)) is not None:
        with exits():
            print(text, end="", flush=True)
        return True
    if os.name == "nt" or (read := arguments(args)) is None:  # Typer expands wildcards there
        return False
    with exits():
        from llmkit.cli.asking import question

        question.ask(question.Question(**read), sender=sender)
    return True


def _about(args: list[str]) -> str | None:
    """Return the version or the help, if *args* ask for it."""
    if args == ["--version"]:
        return f"llmkit {__version__}\n"
    if args not in (["--help"], ["-h"]):
        return None
    from shutil import get_terminal_size  # some milliseconds, for which no question waits

    if get_terminal_size().columns >= _HELP_COLUMNS:
        return Path(__file__).with_name("help.txt").read_text(encoding="utf-8")
    return None


def arguments(args: list[str]) -> dict[str, Any] | None:
    """Return the arguments of `ask` by name, or None if Typer has to read them."""
    if args[:1] == ["ask"]:
        args = args[1:]
    elif not args or (args[0].replace("-", "a").isalnum() and not args[0].startswith("-")):
        return None
    words = iter(args)
    read: dict[str, Any] = {}
    for word in words:
        if word in FLAGS:
            read[FLAGS[word]] = True
        elif word in TEXTS or word in LISTS:
            value = _value(word, words)
            if value is None:
                return None
            if word in TEXTS:
                read[TEXTS[word]] = value
            else:
                read.setdefault(LISTS[word], []).append(value)
        elif word.startswith("-") or "prompt" in read:
            return None
        else:
            read["prompt"] = word
    return read


def _value(word: str, words: Iterator[str]) -> str | None:
    """Return the value that follows an option; `-o` has it in one word or in two."""
    value = next(words, "-")
    if value.startswith("-"):  # it looks like another option: a slip, or a name of stdin
        return None
    if LISTS.get(word) != "option" or "=" in value:
        return value
    setting = next(words, None)
    return None if setting is None else f"{value}={setting}"
