"""The blocks of a page, run one after the other as a reader would run them, in a folder and a home of their own.

The first word after ``` is the language, the rest is for the tests:

    ```python                   runs; names stay for the next block, `await` may stand outside of functions
    ```sh                       runs in bash, and has to succeed; `exit=3`: has to end with 3
    ```console                  `$ COMMAND` lines run, and print the lines below them; `…` stands for anything
    ```yaml file=brief.yaml     is written to that file
    ```sh background            a server: it runs until the page ends; the next block begins when it serves
    ```python provider          OpenAI's and Anthropic's addresses are a scripted server's, with keys
    ```python not-run: REASON   does not run
    ```text                     is no code
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import os
import re
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import commands
import yaml
from server import LONGEST_S, Answer, Raw, ScriptedServer

from llmkit.providers import local
from llmkit.providers.local import address, weights

FENCE = re.compile(r"^```(\w+)[ \t]*(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
PORT = "8000"
"""The port of the pages' servers; a free one takes its place."""


@dataclass(frozen=True)
class Block:
    """A block of a page."""

    page: Path
    number: int
    language: str
    words: str
    code: str

    @property
    def reason(self) -> str:
        """Why it does not run, or ""."""
        return self.words.partition("not-run: ")[2]

    def says(self, word: str) -> str:
        """Return the value of `word=value`, `word` itself if it stands alone, or ""."""
        found = re.search(rf"(?:^| ){word}(?:=(\S+))?(?: |$)", self.words)
        return (found[1] or word) if found else ""

    def __str__(self) -> str:
        return f"{self.page.name}, block {self.number} ({self.language})"


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page, in order."""
    found = FENCE.findall(page.read_text(encoding="utf-8"))
    return [Block(page, number, *parts) for number, parts in enumerate(found, 1)]


class Provider(ScriptedServer):
    """A provider that knows one answer."""

    def next(self, recorded):
        answer = super().next(recorded)
        if recorded.path.endswith("/models"):
            return Raw(b'{"object": "list", "data": [{"id": "gpt-4o-mini", "object": "model"}]}')
        known = "capital of France" in json.dumps(recorded.body if isinstance(recorded.body, dict) else {})
        return Answer("The capital of France is Paris.") if known else answer


class Reader:
    """Runs the blocks of one page; a context manager."""

    def __init__(self, folder: Path, monkeypatch, capsys) -> None:
        self.folder, self._patch, self._capsys = folder, monkeypatch, capsys
        self._names = {"__name__": "__main__"}
        self._port = _free_port()
        self._provider = ""
        self._ends = ExitStack()

    def __enter__(self) -> Reader:
        provider = self._ends.enter_context(Provider())
        self._provider = provider.url
        home = self.folder / "home"
        home.mkdir()
        self._patch.setenv("HOME", str(home))
        self._patch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")
        installed, quick = Path(sys.executable).parent, self.folder / "home" / "bin"
        quick.mkdir()
        commands.script(quick)
        self._leave_a_model()
        self._patch.setenv("PATH", os.pathsep.join(map(str, (quick, installed, os.environ["PATH"]))))
        self._patch.setenv("COLUMNS", "120")
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def _leave_a_model(self) -> None:
        """Leave the embedded model running, as a reader's first command at a terminal does: this process's own."""
        file = address.file_of(local.EMBEDDED, weights.path())
        file.touch(mode=0o600)
        file.write_text(local.serve(local.EMBEDDED).as_json(), encoding="utf-8")

    def run(self, block: Block) -> str:
        """Run a block, and return what it printed."""
        if file := block.says("file"):
            target = self.folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.code, encoding="utf-8")
            return ""
        code = re.sub(rf"\b{PORT}\b", self._port, block.code)
        with self._patch.context() as patch:
            if block.says("provider"):
                for name, path in {"OPENAI": "/v1", "ANTHROPIC": ""}.items():
                    patch.setenv(f"{name}_BASE_URL", f"{self._provider}{path}")
                    patch.setenv(f"{name}_API_KEY", "none")
            return getattr(self, f"_{block.language}")(block, code)

    def _python(self, block: Block, code: str) -> str:
        made = compile(code, str(block), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        found = eval(made, self._names)
        if inspect.iscoroutine(found):
            asyncio.run(found)
        return self._capsys.readouterr().out

    def _sh(self, block: Block, code: str) -> str:
        if block.says("background"):
            self._serve(code)
            return ""
        done = self._bash(code)
        assert done.returncode == int(block.says("exit") or 0), f"{block}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def _console(self, block: Block, code: str) -> str:
        seen = []
        for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", code, re.MULTILINE):
            done = self._bash(command)
            shown = "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())
            pattern = ".*?".join(re.escape(part) for part in expected.strip().split("…"))
            assert re.fullmatch(pattern, shown, re.DOTALL), (
                f"{block}: $ {command}\n{shown}\n-- the page says\n{expected}"
            )
            assert "Traceback" not in shown
            seen.append(shown)
        assert seen, f"{block}: no line begins with $"
        return "\n".join(seen)

    def _yaml(self, _: Block, code: str) -> str:
        yaml.safe_load(code)
        return ""

    def _json(self, _: Block, code: str) -> str:
        json.loads(code)
        return ""

    def _bash(self, code: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )

    def _serve(self, code: str) -> None:
        line = ["bash", "-c", f"exec {Path(sys.executable).parent}/{code}"]  # it is ended with a signal
        process = subprocess.Popen(line, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._ends.callback(process.stdout.close)
        self._ends.callback(process.wait, 20)
        self._ends.callback(process.terminate)
        said = ""
        while "serving at " not in said:
            line = process.stdout.readline()
            assert line, f"the server of {code!r} did not start: {said}"
            said += line
        threading.Thread(target=process.stdout.read, daemon=True).start()


def _free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return str(listening.getsockname()[1])
