"""A TAB in bash, zsh and fish, as a user has it after `llmkit --install-completion`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from terminal import Terminal

from llmkit import Budget, Budgets, ChatModel, presets

SHELLS = {"bash": ["--noprofile", "-i"], "zsh": ["-i"], "fish": ["-i"]}
READY = "ready> "


@pytest.fixture(scope="module", params=sorted(SHELLS))
def installed(request, tmp_path_factory, clean_environment):
    """The name of a shell, and a home with the completion that llmkit installed there."""
    name = request.param
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    home = tmp_path_factory.mktemp(name)
    (home / ".config" / "fish").mkdir(parents=True)
    (home / ".bashrc").write_text(f"PS1='{READY}'; bind 'set bell-style none'; bind 'set show-all-if-ambiguous on'\n")
    (home / ".zshrc").write_text(f"PS1='{READY}'; unsetopt beep\n")
    (home / ".config" / "fish" / "config.fish").write_text(
        f"function fish_prompt; echo '{READY}'; end; set -g fish_greeting\nset -g fish_autosuggestion_enabled 0\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        at_home(patch, home)
        with started(name) as terminal:
            terminal.type("llmkit --install-completion\r")
            terminal.wait_for("completion installed")
            terminal.type("exit\r")
            terminal.wait()
    return name, home


def at_home(patch, home):
    patch.setenv("HOME", str(home))
    patch.setenv("PATH", f"{Path(sys.executable).parent}:/usr/bin:/bin")


def started(name):
    terminal = Terminal(command=(name, *SHELLS[name]), columns=120, lines=40)
    terminal.wait_for("ready>")
    if name == "zsh":  # the first TAB of a shell only loads Typer's script there
        terminal.type("llmkit \t\x15")
    return terminal


@pytest.fixture
def shell(installed, monkeypatch):
    """What starts a shell with the completion, in its home."""
    name, home = installed
    at_home(monkeypatch, home)
    return lambda: started(name)


WORDS = [
    ("pres", "presets"),
    ("-p transl", "-p translate"),
    ("presets show transl", "presets show translate"),
    ("-m openai/gpt-4o-mini-2", "-m openai/gpt-4o-mini-2024-07-18"),
    ("-m hyperbo", "-m hyperbolic/"),
    ("keys set hyperbo", "keys set hyperbolic"),
    ("config get debug.log.file", "config get debug.log.filepath"),
    ("ask --no-lo", "ask --no-log"),
]


def test_a_tab_completes_commands_and_what_they_want(shell):
    with shell() as terminal:
        for typed, completed in WORDS:
            terminal.type(f"llmkit {typed}\t")
            terminal.wait_for(f"ready> llmkit {completed}")
            terminal.type("\x15")


def test_a_tab_offers_no_name_that_a_shell_would_run(shell, tmp_path):
    (tmp_path / "presets").mkdir()
    for name in ("zz$(touch pwned)", "zz\\$(touch pwned)", "zz`touch pwned`", "zz;ls", "zz\nx", "zzright"):
        (tmp_path / "presets" / f"{name}.yaml").write_text("model: openai/gpt-4o\n")

    with shell() as terminal:
        terminal.type("llmkit -p zz\t")
        terminal.wait_for("ready> llmkit -p zzright")

    assert not (tmp_path / "pwned").exists()


def test_a_tab_completes_what_the_store_has(shell):
    chat = ChatModel(presets.Preset(model="openai/gpt-4o"))
    chat.add_messages([{"role": "user", "content": "hi"}])
    Budgets().set(Budget(name="a-team", limit_usd=5))

    with shell() as terminal:
        for typed, completed in (
            ("--budget a-t", "--budget a-team"),
            (f"--session {chat.session_uuid[:4]}", f"--session {chat.session_uuid[:8]}"),
        ):
            terminal.type(f"llmkit {typed}\t")
            terminal.wait_for(f"ready> llmkit {completed}")
            terminal.type("\x15")
