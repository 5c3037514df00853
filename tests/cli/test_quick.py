"""A plain question is read without Typer, and as Typer reads it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import typer.main
from commands import run
from databases import LONG

from llmkit import __version__
from llmkit.cli import app, quick

SLOW = ("asyncio", "pydantic", "jinja2", "rich", "litellm", "openai", "httpx", "aiohttp", "typer", "yaml", "shutil")


@pytest.fixture(scope="module")
def group():
    return typer.main.get_command(app)


def read_by_typer(group, args):
    context = group.commands["ask"].make_context("ask", args[1:] if args[:1] == ["ask"] else list(args))
    return {name: value for name, value in context.params.items() if value not in (None, False, ())}


def test_it_knows_the_options_of_a_question(group):
    options = [param for param in group.commands["ask"].params if param.param_type_name == "option"]
    kinds = {name: param for param in options for name in param.opts}
    flags = {name: param.name for name, param in kinds.items() if param.is_flag}
    lists = {name: param.name for name, param in kinds.items() if param.multiple}

    assert flags == quick.FLAGS
    assert lists == quick.LISTS
    assert {name: kinds[name].name for name in quick.TEXTS} == quick.TEXTS
    assert kinds.keys() - flags.keys() - lists.keys() - quick.TEXTS.keys() == {"--timeout"}


@pytest.mark.parametrize(
    "args",
    [
        ["hi there"],
        ["why?"],
        ["ask", "hi"],
        ["ask", "chat"],
        ["-m", "openai/gpt-4o", "hi"],
        ["--model", "a/b", "-p", "x", "-t", "y", "--preset", "z", "-s", "Be brief.", "--system", "", "hi there"],
        ["hi!", "-c", "-n", "-u", "--no-stream", "--json"],
        ["--continue", "--no-log", "--usage", "--session", "1", "--key", "sk-x", "hi"],
        ["-o", "temperature", "0", "-o", "stop=END", "--option", "seed", "-1", "-o", "a=b", "hi"],
        ["-a", "x.png", "--attachment", "https://x.y/z", "--var", "a=b", "--var", "c=", "--budget", "team"],
        ["-m", "x/y", "ask"],
        ["-u"],
        [""],
    ],
)
def test_it_reads_what_typer_reads(group, args):
    assert {"prompt": "", **quick.arguments(args)} == read_by_typer(group, args)


def test_a_command_is_left_to_typer(group):
    assert [name for name in group.commands if name != "ask" and quick.arguments([name]) is not None] == []


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["hi"],
        ["presets", "list"],
        ["--help", "hi"],
        ["ask", "-h"],
        ["--debug", "hi"],
        ["--version", "hi"],
        ["two words", "more"],
        ["--", "-x"],
        ["--model=x/y", "hi"],
        ["-mx/y", "hi"],
        ["-cn", "hi"],
        ["--mdoel", "x/y", "hi"],
        ["-a", "-", "hi"],
        ["-m", "-s", "hi"],
        ["hi!", "-m"],
        ["hi!", "-o"],
        ["hi!", "-o", "temperature"],
        ["--timeout", "5", "hi"],
    ],
)
def test_everything_else_is_left_to_typer(args):
    assert quick.arguments(args) is None
    assert not quick.done(args)


def test_the_version_is_printed(capsys):
    assert quick.done(["--version"])
    assert capsys.readouterr().out == f"llmkit {__version__}\n"


def test_a_plain_question_imports_nothing_slow(tmp_path):
    code = f"""
import sys
from llmkit.cli import quick
from llmkit.testing import ScriptedBackend
assert quick.done(["-m", "openai/gpt-4o", "-s", "Be brief.", "hi"], sender=ScriptedBackend("Hello there."))
print([name for name in {SLOW!r} if name in sys.modules])
"""
    environment = {"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}

    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    (last,) = json.loads(run(["sessions", "list", "--json"], **environment).stdout)
    kept = run(["sessions", "show", last["id"]], **environment)

    assert (done.stdout, done.stderr) == ("Hello there.\n[]\n", "")
    assert kept.stdout.endswith("openai/gpt-4o, price unknown\n\n## user\nhi\n\n## assistant\nHello there.\n")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("llmkit bud", ["budget"]),
        ("llmkit budget re", ["reset", "release", "remove"]),
        ("llmkit --ver", ["--version"]),
        ("llmkit -p transl", ["translate"]),
        ("llmkit -m openai/gpt-4o-mini-2", ["openai/gpt-4o-mini-2024-07-18"]),
    ],
)
def test_a_tab_after_a_command_imports_nothing_slow(tmp_path, words, offered):
    ours, terminal = pty.openpty()  # in a pipe, a line without words is a question
    asked = {"_LLMKIT_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}

    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "importtime",
            "-c",
            "import sys; sys.argv = ['llmkit']; from llmkit import cli; cli.main()",
        ],
        env={"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path), **asked},
        stdin=terminal,
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(ours)
    os.close(terminal)

    assert done.stdout.split() == offered
    assert "pydantic" not in done.stderr


def test_help_is_what_typer_says(capsys, monkeypatch):
    said = {}
    for columns in (79, 80, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        line = [sys.executable, "-m", "llmkit", "help"]
        said[columns] = subprocess.check_output(line, text=True).replace("python -m llmkit", "llmkit")
        for word in ("--help", "-h"):
            assert quick.done([word]) is (columns > 79)
            assert capsys.readouterr().out == (said[columns] if columns > 79 else "")

    assert said[79] != said[80], "`make docs` writes the text of wide terminals; here it would be cut"


@pytest.mark.parametrize("word", ["--version", "--help"])
def test_nobody_has_to_read_what_it_says_of_itself(tmp_path, word):
    ours, theirs = os.pipe()
    os.close(ours)

    line = [sys.executable, "-m", "llmkit", word]
    done = subprocess.run(line, stdout=theirs, stderr=subprocess.PIPE, text=True, check=False)

    os.close(theirs)
    assert (done.returncode, done.stderr) == (1, "")


def test_help_imports_nothing_that_sends(tmp_path):
    code = """
import sys
from llmkit import cli
try:
    cli.main()
finally:
    slow = ("llmkit.core.types", "llmkit.providers", "pydantic", "rich", "typer")
    print([name for name in slow if name in sys.modules])
"""
    line = [sys.executable, "-c", code, "--help"]
    environment = {"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}

    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.startswith("Usage: ")
    assert done.stdout.endswith("\n[]\n")


def test_many_questions_at_the_same_time_on_a_fresh_home(server, tmp_path):
    """Processes, 8 at a time, make the store between them: all answer, all are kept, all are counted."""
    number = 24 if LONG else 12
    home = tmp_path / "home"
    home.mkdir()
    address = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": "none"}
    environment = {**os.environ, **address, "HOME": str(home)}
    program = [sys.executable, "-m", "llmkit"]

    def asked(_: int) -> subprocess.CompletedProcess[str]:
        line = [*program, "-m", "openai/gpt-4o", "What is the capital of France?"]
        return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(asked, range(number)))
    listed = [*program, "sessions", "list", "--limit", "100"]
    kept = subprocess.run(listed, env=environment, capture_output=True, text=True, check=True).stdout
    usage = [*program, "usage", "--json"]
    counted = json.loads(subprocess.run(usage, env=environment, capture_output=True, text=True, check=True).stdout)

    assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * number
    assert all(one.stdout.strip() for one in done)
    assert len(kept.splitlines()) == number
    assert [(row["calls"], row["errors"]) for row in counted] == [(number, 0)]
