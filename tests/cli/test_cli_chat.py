"""`llmkit chat`, `llmkit -c` and `llmkit sessions`, as a user at a terminal has them."""

from __future__ import annotations

import json
import re

import commands
import pytest
from server import Answer, Status
from terminal import Terminal


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command line in a folder of settings of its own."""
    monkeypatch.setenv("LLMKIT_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path / "data"))

    def run(*args, text="", code=0):
        done = commands.run(args, text=text)
        assert done.returncode == code, done.stderr
        return done

    return run


@pytest.fixture
def preset(server, tmp_path, monkeypatch):
    """A preset that asks the scriptable server."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-tests")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    (tmp_path / "presets").mkdir()
    for name, text in (("here", "Be brief."), ("other", "Be long.")):
        (tmp_path / "presets" / f"{name}.yaml").write_text(
            f"model: openai/gpt-4o\nsystem: {text}\nretry: {{tries: 1}}\n"
        )
    return "here"


def said(request):
    return [(message["role"], message["content"]) for message in request.body["messages"]]


def test_a_question_is_gone_on_with(run, preset, server):
    run("-p", preset, "one")
    run("-c", "two")
    run("-c", "-p", "other", "three")
    run("-n", "-p", preset, "four")

    answer = ("assistant", "Hello from the server.")
    assert said(server.requests[1]) == [("system", "Be brief."), ("user", "one"), answer, ("user", "two")]
    assert said(server.requests[2])[0] == ("system", "Be long.")
    assert len(said(server.requests[2])) == 6
    listed = json.loads(run("sessions", "list", "--json").stdout)
    assert [(entry["preset"], entry["count"]) for entry in listed] == [("other", 6), ("here", 4)]


def test_one_of_several_is_gone_on_with_by_the_beginning_of_its_id(run, preset, server):
    run("-p", preset, "--no-stream", "one")
    run("-p", preset, "--json", "two")
    first = json.loads(run("sessions", "search", "one", "--json").stdout)[0]["id"]

    out = json.loads(run("--session", first[:6], "--json", "three").stdout)

    assert out["text"] == "Hello from the server."
    assert [text for role, text in said(server.requests[2]) if role == "user"] == ["one", "three"]
    assert "there is no session" in run("--session", "nothing", "x", code=1).stderr


def test_nothing_is_kept_where_that_is_not_wanted_and_a_store_that_fails_costs_nothing(run, preset, tmp_path):
    run("config", "set", "cli.keep", "false")
    run("-p", preset, "one")
    assert not (tmp_path / "data" / "llmkit.db").exists()
    assert "there is no session yet" in run("-c", "x", code=1).stderr

    run("config", "set", "cli.keep", "true")
    run("config", "set", "database", f"sqlite:///{tmp_path}")
    done = run("-p", preset, "one")
    assert done.stdout == "Hello from the server.\n"
    assert "this is not kept" in done.stderr


def test_a_question_that_failed_is_asked_again_and_stands_there_once(run, preset, server):
    run("-p", preset, "one")
    server.script = [Status(400)] * 2 + [Answer("two!")]

    for code in (1, 1, 0):
        run("-c", "two", code=code)

    told = [message["content"] for message in server.requests[-1].body["messages"] if message["role"] == "user"]
    assert told == ["one", "two"]


def test_the_commands_of_sessions(run, preset, tmp_path):
    run("-p", preset, "what about owls?")
    (owls,) = json.loads(run("sessions", "list", "--json").stdout)
    short = owls["id"][:8]

    run("sessions", "rename", short, "About owls")
    assert re.fullmatch(rf"{short}  [-0-9]+ [:0-9]+  here  2  About owls\n", run("sessions", "list").stdout)
    shown = run("sessions", "show", short).stdout
    assert shown.startswith(f"# About owls\n{owls['id']}, openai/gpt-4o, 0.00")
    assert "## user\nwhat about owls?\n" in shown
    assert "[owls]" in run("sessions", "search", "owls").stdout
    assert run("sessions", "search", "eagles", code=1).stdout == ""

    fork = run("sessions", "fork", short, "--at", "1").stdout.strip()
    assert json.loads(run("sessions", "search", "owls", "--json").stdout)[0]["forked_from"] == owls["id"]
    assert "cannot be forked at 9" in run("sessions", "fork", short, "--at", "9", code=2).stderr
    run("sessions", "delete", fork)
    for command in (["delete", ""], ["rename", " ", "x"], ["show", ""]):  # an unset variable of the shell is no session
        assert "id is empty" in run("sessions", *command, code=2).stderr

    markdown = run("sessions", "export", short).stdout
    assert "Markdown is for people only" in run("sessions", "import", "-", text=markdown, code=2).stderr
    for form in ("json", "jsonl"):
        text = run("sessions", "export", short, "-f", form).stdout
        new = run("sessions", "import", "-", text=text).stdout.strip()
        run("sessions", "export", new, "-f", form, "-o", str(tmp_path / "out"))
        assert (tmp_path / "out").read_text().replace(new, owls["id"]) == text
    assert "no session that llmkit exported" in run("sessions", "import", "-", text="{}", code=2).stderr
    there = tmp_path / "no" / "folder"
    refused = run("sessions", "export", short, "-o", str(there), code=2).stderr
    assert refused == f"llmkit: --output '{there}' cannot be written: No such file or directory\n"
    assert "there is no format 'pdf'" in run("sessions", "export", short, "-f", "pdf", code=2).stderr

    rerun = run("sessions", "rerun", short, "-p", "other").stdout.splitlines()
    assert [line.split()[0] for line in rerun] == ["before", "other", "session"]
    assert rerun[0].split()[1] == rerun[1].split()[1]


def test_chat_reads_its_lines_from_a_pipe_too(run, preset, server, tmp_path):
    lines = 'one\n/cost\n"""two\nlines"""\nthree \\\nand more\n/retry\n/system Be kind.\n/model\n/nothing\n'
    done = run("chat", "-p", preset, text=f"{lines}/save {tmp_path}/t.md\n/fork 2\nfour\n/exit\nnever\n")

    assert done.stdout == "Hello from the server.\n" * 5
    asked = [said(request)[-1][1] for request in server.requests]
    assert asked == ["one", "two\nlines", "three \nand more", "three \nand more", "four"]
    assert said(server.requests[4])[0] == ("system", "Be kind.")
    assert len(said(server.requests[4])) == 4
    assert "0.000077 USD" in done.stderr
    assert "llmkit: openai/gpt-4o\n" in done.stderr
    assert "there is no command /nothing" in done.stderr
    assert "two\nlines" in (tmp_path / "t.md").read_text()


def test_chat_goes_on_and_tells_what_the_provider_does(run, preset, server, monkeypatch, tmp_path):
    from server import Status

    run("chat", "-p", preset, text="one\n")
    server.script = [Status(401)]
    done = run("chat", "-c", text="two\n/retry\n")

    assert "the key came from " in done.stderr
    users = [text for role, text in said(server.requests[2]) if role == "user"]
    assert users == ["one", "two"]
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nprintf 'mended' > \"$1\"\n")
    editor.chmod(0o755)
    monkeypatch.setenv("EDITOR", str(editor))
    run("chat", "-c", text="/edit\n")
    assert said(server.requests[3])[-1] == ("user", "mended")

    editor.write_text("#!/bin/sh\nprintf 'na\\357ve' > \"$1\"\n")
    done = run("chat", "-c", text="/edit\nstill here\n")
    assert "the editor did not write UTF-8" in done.stderr
    assert said(server.requests[4])[-1] == ("user", "still here")


def test_at_a_terminal_markdown_is_shown_ctrl_c_keeps_the_answer_and_lines_are_edited(run, preset, server):
    server.script = [Answer("**bold** words"), Answer("slow words come here", end="hang", delay_s=30), Answer("last")]
    with Terminal("chat", "-p", preset) as terminal:
        terminal.wait_for("\n>")
        terminal.type("quesiton\x1b[D\x1b[D\x1b[D\x1b[D\x1b[Dt\x1b[3~\x1b[Ci\r")  # moves about in the line
        terminal.wait_for("bold words")
        terminal.wait_for("\n>", 2)
        terminal.type("another\r")
        terminal.wait_for("slow words")
        terminal.type("\x03")
        terminal.wait_for("stopped; what came is kept")
        terminal.wait_for("\n>", 3)
        terminal.type("\x1b[A\r")  # the line before
        terminal.wait_for("last")
        terminal.type("\x04")
        assert terminal.wait() == 0

    assert b"\x1b[1mbold" in terminal.raw
    assert len(server.requests) == 3, terminal.text()
    users = [text for role, text in said(server.requests[2]) if role == "user"]
    assert users[1:] == ["another", "another"]
    assert said(server.requests[2])[4][1].startswith("slow words")
    (info,) = json.loads(run("sessions", "list", "--json").stdout)
    assert "(interrupted)\nslow words" in run("sessions", "show", info["id"]).stdout
