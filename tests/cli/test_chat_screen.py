"""`llmkit chat` in a real terminal: what stands on the screen, and what a killed one leaves."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from server import Answer
from terminal import Terminal

from llmkit.cli.asking.screen import complete

SENTENCES = [f"This is sentence number {number} of the answer." for number in range(90)]
TABLE = "| name | age |\n|---|---|\n| Rex | 3 |\n| Ben | 5 |"
LONG = "\n\n".join([" ".join(SENTENCES), "# Heading", "- one\n- two", "```python\nprint('x')\n```", TABLE, "The end."])


@pytest.fixture
def chat(server, tmp_path):
    """Run `llmkit chat ARGS` against the scripted server."""
    access = {
        "OPENAI_BASE_URL": f"{server.url}/v1",
        "OPENAI_API_KEY": "sk-x",
        "LLMKIT_DATA_DIR": str(tmp_path / "data"),
    }

    def begin(*args, **kwargs):
        return Terminal("chat", "-m", "openai/gpt-4o", *args, **{**access, **kwargs})

    return begin


def spoken(text):
    """A stream of many pieces."""
    return Answer(deltas=[{"content": piece} for piece in re.findall(r"\S+\s*|\s+", text)])


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (100, 10), (40, 12)])
def test_an_answer_stands_once_on_the_screen_whatever_its_length(chat, server, columns, lines):
    server.script = [spoken(LONG)]

    with chat(columns=columns, lines=lines) as terminal:
        terminal.wait_for("\n>")
        terminal.type("tell me\r")
        terminal.wait_for("The end.")
        terminal.type("exit\r")
        assert terminal.wait() == 0
    flat = " ".join(terminal.text().split())

    assert [flat.count(sentence) for sentence in SENTENCES] == [1] * len(SENTENCES)
    assert [flat.count(word) for word in ("Heading", "print('x')", "Rex", "Ben", "The end.")] == [1] * 5


def late(_body):
    time.sleep(0.7)
    return Answer("late")


def test_there_is_a_sign_until_the_first_piece_comes(chat, server):
    server.script = [late]

    with chat() as terminal:
        terminal.wait_for("\n>")
        terminal.type("hi\r")
        terminal.wait_for("late")
        terminal.type("quit\r")
        assert terminal.wait() == 0

    assert any(sign in terminal.raw.decode() for sign in "⠋⠙⠹⠸")
    assert not any(sign in terminal.text() for sign in "⠋⠙⠹⠸")


@pytest.mark.parametrize("word", ["exit", "quit", "/exit", "/quit", "\x04"])
def test_words_that_leave(chat, server, word):
    with chat() as terminal:
        terminal.wait_for("\n>")
        terminal.type(f"{word}\r")
        assert terminal.wait() == 0

    assert server.requests == []


def test_the_options_of_ask_hold_for_every_turn(chat, server, tmp_path):
    (tmp_path / "note.txt").write_text("the note")
    with chat("-o", "temperature", "0", "-s", "Be brief.", "-a", "note.txt") as terminal:
        for number, question in enumerate(("first", "second"), 1):
            terminal.wait_for("\n>", number)
            terminal.type(f"{question}\r")
            terminal.wait_for("Hello from the server.", number)
        terminal.type("exit\r")
        assert terminal.wait() == 0
    first, second = (request.body for request in server.requests)

    assert (first["temperature"], second["temperature"]) == (0, 0)
    assert first["messages"][0]["content"] == "Be brief."
    assert "the note" in str(first["messages"][1])
    assert second["messages"][-1]["content"] == "second"


def test_a_file_is_attached_in_the_middle(chat, server, tmp_path):
    (tmp_path / "note.txt").write_text("the note")
    with chat() as terminal:
        terminal.wait_for("\n>")
        terminal.type("/file nothing.txt\r/file note.txt\rwhat is it?\r")
        terminal.wait_for("Hello from the server.")
        terminal.type("exit\r")
        assert terminal.wait() == 0

    assert "goes with the next question: note.txt" in terminal.text()
    assert "the note" in str(server.requests[0].body["messages"])


def test_nothing_is_kept_of_a_chat_without_log(chat, tmp_path):
    with chat("-n") as terminal:
        terminal.wait_for("\n>")
        terminal.type("a secret question\r")
        terminal.wait_for("Hello from the server.")
        terminal.type("exit\r")
        assert terminal.wait() == 0

    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"a secret question" not in kept


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_killed_chat_leaves_nothing_but_what_was_said(chat, tmp_path, number):
    with chat() as terminal:
        terminal.wait_for("\n>")
        terminal.type("one\r")
        terminal.wait_for("Hello from the server.")
        os.kill(terminal.pid, number)
        terminal.wait()

    history = tmp_path / "data" / "chat_history"
    assert history.read_text() == "one\n"
    assert {path.name for path in (tmp_path / "data").iterdir()} - {"routes"} <= {
        "chat_history",
        "llmkit.db",
        "llmkit.db-wal",
        "llmkit.db-shm",
    }


@pytest.mark.parametrize(
    "text",
    ["<div>\nanswer 42\n</div>", "Use List<String> here", "<think>why</think> Paris", "[x]: http://secret.example end"],
)
def test_nothing_of_an_answer_is_left_out(chat, server, text):
    server.script = [spoken(text)]
    with chat() as terminal:
        terminal.wait_for("\n>")
        terminal.type("hi\r")
        terminal.wait_for("\n>", 2)
        terminal.type("exit\r")
        terminal.wait()

    assert all(word in terminal.text() for word in text.split())


def test_help_fits_a_narrow_window(chat):
    with chat(columns=80) as terminal:
        terminal.wait_for("\n>")
        terminal.type("/help\r")
        terminal.wait_for("Ctrl-C stops")
        terminal.type("exit\r")
        terminal.wait()

    assert "/cost          what the conversation cost" in terminal.text()
    assert max(map(len, terminal.text().splitlines())) < 80


# -- blocks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "done"),
    [
        ("", ""),
        ("one", ""),
        ("one\n\n", ""),
        ("one\n\ntwo", ""),
        ("one\n\ntwo\n", "one\n\n"),
        ("- one\n\n- two\n\n", ""),
        ("- one\n\n  more\n\nend\n", "- one\n\n  more\n\n"),
        ("```\na\n\nb\n", ""),
        ("```\na\n\nb\n```\n\nend\n", "```\na\n\nb\n```\n\n"),
        ("~~~\n```\n\n~~~\n\nend\n", "~~~\n```\n\n~~~\n\n"),
        ("one\n\n    code\n\nend\n", "one\n\n    code\n\n"),
    ],
)
def test_what_is_complete(text, done):
    assert text[: complete(text)] == done


@given(st.lists(st.sampled_from(["one", "- a", "1. b", "```", "~~~", "", "    x", "# H", "| a |"]), max_size=12))
@settings(deadline=None)
def test_what_was_complete_stays_complete(lines):
    text = "\n".join(lines)
    ends = [complete(text[:at]) for at in range(len(text) + 1)]

    assert ends == sorted(ends)
