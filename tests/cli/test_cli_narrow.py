"""The command line in narrow windows, without colour, and into a pipe that is closed early."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from ledgers import filled, row
from server import Status
from terminal import Terminal

from llmkit.store import Store

ANSI = "\x1b["


@pytest.fixture
def used(tmp_path, monkeypatch):
    """A store with calls of two models."""
    file = tmp_path / "used.db"
    store = Store(file)
    filled(store, [row(asked="openai/gpt-4o", answered="gpt-4o"), row(asked="anthropic/claude-sonnet-4-5")])
    store.close()
    monkeypatch.setenv("LLMKIT_DATABASE", str(file))


@pytest.mark.parametrize(("columns", "kept"), [(200, "p95_s"), (80, "usd"), (60, "calls")])
def test_usage_fits_the_window(used, columns, kept):
    with Terminal("usage", columns=columns, lines=20) as terminal:
        assert terminal.wait() == 0
    lines = terminal.text().splitlines()

    assert len(lines) == 4
    assert kept in lines[0]
    assert lines[-1].startswith("total")


def test_explain_fits_the_window():
    with Terminal("presets", "explain", "translate", columns=120, lines=30) as terminal:
        assert terminal.wait() == 0

    assert "system" in terminal.text()
    assert all(
        line.startswith(("description", "system", "params", "variables")) for line in terminal.text().splitlines()
    )


def test_usage_in_a_pipe_has_all_columns(used):
    done = subprocess.run([sys.executable, "-m", "llmkit", "usage"], capture_output=True, text=True, check=True)

    assert "p95_s" in done.stdout.splitlines()[0]


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_chat_without_colour_is_plain(server, tmp_path, variables):
    access = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": "sk-x", "LLMKIT_DATA_DIR": str(tmp_path)}
    with Terminal("chat", "-m", "openai/gpt-4o", **access, **variables) as terminal:
        terminal.wait_for("\n>")
        terminal.type("hi\r")
        terminal.wait_for("Hello from the server.")
        before = terminal.raw
        terminal.type("exit\r")
        assert terminal.wait() == 0

    assert b"\x1b[1m" not in before
    assert b"\x1b[3" not in before


def test_a_wait_is_told_on_a_terminal(server):
    server.script = [Status(503, headers={"retry-after": "1"})]
    access = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": "sk-x"}

    with Terminal("-m", "openai/gpt-4o", "hi", **access) as terminal:
        assert terminal.wait() == 0

    assert "llmkit: waiting 1 s\nHello from the server." in terminal.text()


@pytest.mark.parametrize("args", [["models", "--all"], ["presets"], ["usage"], ["--help"]])
def test_a_pipe_that_is_closed_early_is_quiet(used, args):
    command = f"{sys.executable} -m llmkit {' '.join(args)} | head -c 3"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)

    assert (done.stderr, len(done.stdout)) == ("", 3)


def test_a_program_reads_no_escapes(used):
    for args in (["usage"], ["models", "gpt-4o-mini"], ["doctor", "--no-ask"], ["keys"]):
        done = subprocess.run([sys.executable, "-m", "llmkit", *args], capture_output=True, text=True, check=False)
        assert ANSI not in done.stdout + done.stderr
    listed = subprocess.run([sys.executable, "-m", "llmkit", "models", "--json"], capture_output=True, check=True)
    assert json.loads(listed.stdout)
