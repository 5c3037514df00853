"""Runs the command line: each command is a fork of one process that has imported what takes seconds, LiteLLM too.

`run` waits for its end, and `Started` is one that goes on; `program` is Python code instead. What is about its own
start, what its interpreter does at its end, or keys at a terminal, is run with `subprocess` instead.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from functools import cache
from pathlib import Path

MODULE = [sys.executable, "-m", "llmkit"]


def run(args, *, text="", timeout=100, cwd=None, **environment):
    """Return what `llmkit ARGS` did, as `subprocess.run` does; *text* is its stdin, None for none at all."""
    order = {"args": list(map(str, args)), "cwd": str(cwd or Path.cwd()), "environment": {**os.environ, **environment}}
    return _done(order, ["llmkit", *order["args"]], text, timeout)


def program(code, *args, timeout=100):
    """Return what `python -c CODE ARGS` did, in a process that has imported LiteLLM as llmkit does."""
    order = {"code": textwrap.dedent(code), "args": list(map(str, args)), "cwd": str(Path.cwd())}
    return _done({**order, "environment": dict(os.environ)}, ["python", "-c", code, *order["args"]], "", timeout)


def _done(order, command, text, timeout):
    with contextlib.ExitStack() as opened:
        streams = [opened.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
        streams[0].write(text.encode() if isinstance(text, str) else text or b"")
        streams[0].seek(0)
        if text is None:
            streams[0] = opened.enter_context(Path(os.devnull).open("rb"))
        door = opened.enter_context(_ordered(order, [stream.fileno() for stream in streams]))
        door.settimeout(timeout)
        try:
            status = int(door.recv(9))
        except TimeoutError:  # the other end sees that nobody waits any more, and ends it
            raise subprocess.TimeoutExpired(command, timeout) from None
        for stream in streams[1:]:
            stream.seek(0)
        out, err = (stream.read().decode() for stream in streams[1:])
    return subprocess.CompletedProcess(command, status, out, err)


class Started:
    """A command that goes on, as `subprocess.Popen` has it, in a process group of its own.

    Its stderr is a pipe, or the file that is given; with *terminal* all three streams are that.
    """

    def __init__(self, args, *, cwd=None, stderr=None, terminal=None, **environment):
        reading, writing = os.pipe() if stderr is terminal is None else (None, stderr and stderr.fileno())
        self.args, self.returncode = ["llmkit", *map(str, args)], None
        self.stderr = None if reading is None else os.fdopen(reading, encoding="utf-8")
        order = {"args": self.args[1:], "cwd": str(cwd or Path.cwd()), "environment": {**os.environ, **environment}}
        with Path(os.devnull).open("r+b") as nothing:
            streams = [nothing.fileno(), nothing.fileno(), writing] if terminal is None else [terminal] * 3
            self._door = _ordered({**order, "apart": True}, streams)
        if reading is not None:
            os.close(writing)
        self.pid = int(self._door.makefile("rb", buffering=0).readline())

    def poll(self):
        """Return how it ended, or None."""
        return self._status(0)

    def wait(self, timeout=100):
        """Return how it ended, when it has."""
        if self._status(timeout) is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def communicate(self, timeout=100):
        """Return None and what is on its stderr, when it has ended."""
        told = None
        if self.stderr is not None:
            with self.stderr:
                told = self.stderr.read()
        self.wait(timeout)
        return None, told

    def send_signal(self, number):
        """Send a signal to it, but for one that has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def _status(self, seconds):
        if self.returncode is None and readable(self._door, seconds):
            self.returncode = int(self._door.recv(9))
            self._door.close()
        return self.returncode


def surroundings(folder, url, **more):
    """Return the environment of commands that have folders of their own, and OpenAI's address at a server."""
    return {
        "LLMKIT_CONFIG_DIR": str(folder / "config"),
        "LLMKIT_DATA_DIR": str(folder / "data"),
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": "sk-local-0123456789",
        **more,
    }


def readable(file, seconds):
    """Wait until there is something to read, and return whether there is; for any number, which `select` is not."""
    waiting = select.poll()
    waiting.register(file, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))


def on_terminal(*args, typed="", code=0):
    """Run the command line at a terminal; return what it wrote there, with plain line ends."""
    ours, theirs = pty.openpty()
    process = Started(args, terminal=theirs)
    os.close(theirs)
    seen, deadline = b"", time.monotonic() + 100
    os.write(ours, typed.encode())
    while time.monotonic() < deadline:
        if readable(ours, 0.1):
            try:
                read = os.read(ours, 65536)
            except OSError:
                break
            if not read:
                break
            seen += read
        elif process.poll() is not None:
            break
    os.close(ours)
    assert process.wait(10) == code, seen
    return seen.decode().replace("\r\n", "\n")


def usage_in(tmp_path, monkeypatch):
    """Return what runs `llmkit usage ARGS` with folders of its own, and looks at the exit code."""
    monkeypatch.setenv("LLMKIT_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")

    def usage(*args, code=0):
        done = run(["usage", *args], text=None)
        assert done.returncode == code, done.stderr
        return done

    return usage


def script(folder: Path) -> None:
    """Write a `llmkit` into a folder: for a shell it is the installed one, as a fork that has imported all."""
    file = folder / "llmkit"
    file.write_text(f"#!{sys.executable} -IS\nDOOR = {_door()!r}\n{_CALLER}", encoding="utf-8")
    file.chmod(0o755)


_CALLER = """
import json, os, socket, sys
order = {"args": sys.argv[1:], "cwd": os.getcwd(), "environment": dict(os.environ)}
order["folder"] = os.path.dirname(sys.argv[0])
with socket.socket(socket.AF_UNIX) as door:
    door.connect(DOOR)
    socket.send_fds(door, [b"."], [0, 1, 2])
    door.sendall(json.dumps(order).encode() + b"\\n")
    status = int(door.recv(9))
sys.exit(status if status >= 0 else 128 - status)
"""


def _ordered(order, files) -> socket.socket:
    """Have a command begun; how it ends is said there."""
    door = socket.socket(socket.AF_UNIX)
    door.connect(_door())
    socket.send_fds(door, [b"."], files)
    door.sendall(json.dumps(order).encode() + b"\n")
    return door


@cache
def _door() -> str:
    """Return where a process listens for commands; it ends with this one, whose end of its stdin is closed then."""
    folder = tempfile.mkdtemp(prefix="llmkit-door-")
    atexit.register(shutil.rmtree, folder)
    process = subprocess.Popen(
        [sys.executable, __file__, f"{folder}/door"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(process.communicate)
    assert process.stdout.readline() == "open\n"
    return f"{folder}/door"


def _listen(address: str) -> None:
    """Be each command that comes, several at once if they are in a pipe."""
    _import_all()
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen()
        print("open", flush=True)
        while sys.stdin not in select.select([door, sys.stdin], [], [])[0]:
            connection, _ = door.accept()
            if os.fork() == 0:
                _answer(connection)
            connection.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _answer(connection: socket.socket) -> None:
    files = socket.recv_fds(connection, 1, 3)[1]
    order = json.loads(connection.makefile().readline())
    process = os.fork()
    if process == 0:
        connection.close()
        if order.get("apart"):
            os.setsid()
        _become(order, files)
    for file in files:  # whoever reads a pipe sees its end
        os.close(file)
    if order.get("apart"):
        connection.send(f"{process}\n".encode())
    while not (ended := os.waitpid(process, os.WNOHANG))[0]:
        if readable(connection, 0.005):  # nobody waits for it any more
            os.kill(process, signal.SIGKILL)
            os._exit(0)
    connection.send(str(os.waitstatus_to_exitcode(ended[1])).encode())
    os._exit(0)


def _import_all() -> None:
    """Import what commands do, and read the table of the usual tokens; nothing else that a command finds out."""
    import jsonschema

    import llmkit
    from llmkit import cli
    from llmkit.cli import quick
    from llmkit.presets import checks
    from llmkit.providers import tokens
    from llmkit.providers.litellm import sdk
    from llmkit.providers.routes import backend, dialects

    sdk.load()
    assert all(getattr(llmkit, name) for name in llmkit.__all__)
    assert all((cli.app, quick, checks, backend, dialects, jsonschema))
    tokens.count_text("openai/gpt-4o", "")
    gc.collect()
    gc.freeze()


def _become(order, files) -> None:
    """Be the command; *files* become its stdin, stdout and stderr."""
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    # as the interpreter has them
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.path[0] = order.get("folder", order["cwd"])  # as a script has it, or `python -m`
    importlib.invalidate_caches()
    sys.argv = ["-c" if "code" in order else "llmkit", *order["args"]]
    from llmkit.cli import main

    try:
        if "code" in order:
            exec(order["code"], {"__name__": "__main__"})
        else:
            main()
    except SystemExit as end:
        if not isinstance(end.code, str):
            _end(int(end.code or 0))
        raise
    _end(0)


def _end(status: int) -> None:
    """End as the interpreter does, but for taking every object of LiteLLM apart, which takes a quarter of a second."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    _listen(sys.argv[1])
