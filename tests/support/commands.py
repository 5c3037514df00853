"""Runs the command line: each command is a fork of one process that has imported what takes seconds.

A command that is about its own start, its end or a terminal is run with `subprocess` instead.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pty
import select
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


def _serve() -> None:
    import signal

    from llmkit.providers.litellm import sdk

    sdk.load()
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        order = json.loads(line)
        process = os.fork()
        if process == 0:
            _become(order)
            return
        deadline = time.monotonic() + order["timeout"]
        while not (ended := os.waitpid(process, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
                break
            time.sleep(0.005)
        print(json.dumps(os.waitstatus_to_exitcode(ended[1]) if ended[0] else None), flush=True)


def _become(order) -> None:
    """Be the command, to the end of the interpreter."""
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["environment"])
    for number, (path, flags) in enumerate(
        zip(order["files"], (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT), strict=True)
    ):
        os.dup2(os.open(path, flags), number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as the interpreter has it
    sys.path[0] = order["cwd"]  # as `python -m` has it
    importlib.invalidate_caches()
    sys.argv = ["llmkit", *order["args"]]
    from llmkit.cli import main

    main()


if __name__ == "__main__":
    _serve()
