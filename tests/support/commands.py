"""Runs the command line: each command is a fork of one process that has imported what takes seconds.

A command that is about its own start, its end or a terminal is run with `subprocess` instead.
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
import threading
import time
from functools import cache
from pathlib import Path

MODULE = [sys.executable, "-m", "llmkit"]


def run(args, *, text="", timeout=100, cwd=None, **environment):
    """Return what `llmkit ARGS` did, as `subprocess.run` does; *text* is its stdin, None for none at all."""
    return _runner().run([str(arg) for arg in args], text, timeout, cwd, environment)


def on_terminal(*args, typed="", code=0):
    """Run the command line at a terminal; return what it wrote there, with plain line ends."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*MODULE, *args], stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True)
    os.close(theirs)
    seen, deadline = b"", time.monotonic() + 100
    os.write(ours, typed.encode())
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
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
    sys.exit(door.recv(1)[0])
"""


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
    """Be each command that comes, several at once if they are in a pipe; `script` writes what sends them."""
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
        _become(order, files)
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    connection.send(bytes([status if status >= 0 else 128 - status]))
    os._exit(0)


class _Runner:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        atexit.register(self._end)

    def run(self, args, text, timeout, cwd, environment):
        with tempfile.TemporaryDirectory() as folder, self._lock:
            files = [Path(folder) / name for name in ("stdin", "stdout", "stderr")]
            files[0].write_bytes(text.encode() if isinstance(text, str) else text or b"")
            order = {
                "args": args,
                "files": [str(files[0]) if text is not None else os.devnull, str(files[1]), str(files[2])],
                "cwd": str(cwd or Path.cwd()),
                "environment": {**os.environ, **environment},
                "timeout": timeout,
            }
            self._process.stdin.write(json.dumps(order) + "\n")
            status = json.loads(self._process.stdout.readline())
            out, err = (file.read_bytes() for file in files[1:])
        if status is None:
            raise subprocess.TimeoutExpired(["llmkit", *args], timeout, out, err)
        return subprocess.CompletedProcess(["llmkit", *args], status, out.decode(), err.decode())

    def _end(self) -> None:
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


@cache
def _runner() -> _Runner:
    return _Runner()


def _import_all() -> None:
    from llmkit import cli
    from llmkit.providers.litellm import sdk

    sdk.load()
    assert cli.app
    gc.collect()
    gc.freeze()


def _serve() -> None:
    _import_all()
    for line in sys.stdin:
        order = json.loads(line)
        process = os.fork()
        if process == 0:
            flags = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT)
            _become(order, [os.open(path, flag) for path, flag in zip(order["files"], flags, strict=True)])
        deadline = time.monotonic() + order["timeout"]
        while not (ended := os.waitpid(process, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                break
            time.sleep(0.005)
        print(json.dumps(os.waitstatus_to_exitcode(ended[1]) if ended[0] else None), flush=True)


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
    sys.argv = ["llmkit", *order["args"]]
    from llmkit.cli import main

    try:
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
    if sys.argv[1:]:
        _listen(sys.argv[1])
    else:
        _serve()
