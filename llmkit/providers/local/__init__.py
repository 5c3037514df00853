"""A GGUF file as an OpenAI-compatible server on loopback, in a process of its own.

Nothing here calls a model or knows about deployments: `serve` returns an address and a key, and the
rest of llmkit treats them like any other provider. The process is `__main__`; llama.cpp, which comes
with the extra `local`, is imported there only.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llmkit.config import private
from llmkit.core.fork import Lock
from llmkit.errors import LocalModelError
from llmkit.providers.local import address, weights
from llmkit.providers.local.address import LocalServer

EMBEDDED = "smollm2"
START_S = 600
_ROOT = str(Path(__file__).parents[3])

_lock = Lock()
_known: dict[tuple[str, Path], tuple[LocalServer, int | None]] = {}
"""The servers that this process uses. One that it started ends when the pipe with this number is closed, here and in
all children of this process; they use it too."""


def serve(name: str, keep_s: float | None = None) -> LocalServer:
    """Return the server of model *name*, which has just proven that it is there; it is started on first use.

    *name* is "smollm2", the embedded model, whose weights are fetched if they are missing, or the path of a .gguf
    file. By default the server is this process's own, and ends with it. With *keep_s* one that another process left
    is used, and one that is started is left until nobody has asked for so many seconds; with 0 it ends with this one.

    Raises:
        LocalModelError: there is no such model, or it cannot be fetched, read or started.
    """
    file = weights.path() if name == EMBEDDED else _gguf(name)
    at = (EMBEDDED if name == EMBEDDED else str(file), file)
    with _lock:
        if at in _known and not _known[at][0].proves():
            _, hold = _known.pop(at)
            if hold is not None:
                os.close(hold)
        if at not in _known:
            _known[at] = _found_or_started(*at, keep_s)
        return _known[at][0]


def _found_or_started(name: str, file: Path, keep_s: float | None) -> tuple[LocalServer, int | None]:
    if find_spec("xllamacpp") is None:
        raise LocalModelError(f"a local model needs xllamacpp, which cannot be imported; {weights.INSTALL}")
    if name == EMBEDDED:
        weights.ensure()
    place = None if keep_s is None else address.file_of(name, file)
    if place is None:
        return _started(name, file)
    if (server := address.found(place)) is not None:
        return server, None
    if not keep_s or keep_s < 0:
        return _started(name, file)
    with private.locked(place.with_name("lock")):
        address.clear(place.parent)
        server = address.found(place)  # another command may have started it meanwhile
        return _started(name, file, keep_s, place) if server is None else (server, None)


def _started(name: str, file: Path, keep_s: float = 0, place: Path | None = None) -> tuple[LocalServer, int | None]:
    """Start a server; without a *place*, return the number of a pipe with it as well."""
    command = [sys.executable, "-m", __name__, name, str(file), str(keep_s), str(place or "")]
    watched, hold = os.pipe()
    try:
        with tempfile.TemporaryFile() as errors:
            line = _first_line(command, stdin=watched, stderr=errors)
            if not line:
                errors.seek(0)
                raise _refused(name, file, errors.read().decode("utf-8", "replace"))  # noqa: TRY301
    except BaseException:
        os.close(hold)
        raise
    finally:
        os.close(watched)
    if place is not None:
        os.close(hold)
    return LocalServer(**json.loads(line)), None if place else hold


def _first_line(command: list[str], **streams: Any) -> bytes:
    """Run a program that goes on by itself, and return what it says first, or nothing if it ends before that."""
    # The same llmkit and llama.cpp as here, and nothing of the folder that this process happens to be in. An abort
    # of llama.cpp would attach a debugger and print pages.
    path = os.pathsep.join([*map(os.path.abspath, filter(None, sys.path)), _ROOT])
    env = {**os.environ, "PYTHONPATH": path, "GGML_NO_BACKTRACE": "1"}
    read, written = os.pipe()
    try:
        process = subprocess.Popen(command, stdout=written, cwd=os.sep, env=env, start_new_session=True, **streams)
    finally:
        os.close(written)
    with os.fdopen(read, "rb") as stream:
        line = stream.readline()
    if hasattr(os, "fork"):
        process.wait()  # it has left a child; on Windows it is itself what goes on
    return line


def _refused(name: str, file: Path, output: str) -> LocalModelError:
    """Return the error with the first reason that llama.cpp printed, without clock and function name."""
    error = re.search(r"^\S+ E (?:\w+: )+?(?:error loading model: )?(.+)$", output, re.MULTILINE)
    aborted = re.search(r"GGML_ASSERT\(.*\) failed.*", output)
    lines = output.strip().splitlines()
    killed = f"it was ended while it loaded: too little memory, or more than {START_S} s"
    reason = error[1] if error else aborted[0] if aborted else lines[-1] if lines else killed
    advice = "" if name == EMBEDDED else "; fetch the file again"
    return LocalModelError(f"{file}: llama.cpp cannot load it ({reason[:200]}){advice}")


def _gguf(name: str) -> Path:
    """Return the resolved path of a file that begins as a GGUF file does."""
    try:
        file = Path(name).expanduser().resolve()
        if not name or (not file.exists() and not name.endswith(".gguf")):
            raise LocalModelError(
                f"no local model {name!r}: use local/{EMBEDDED}, the embedded one, or local/PATH.gguf, a file"
            )
        with file.open("rb") as stream:
            magic = stream.read(4)
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LocalModelError(f"{name}: cannot be read ({reason}); local/PATH.gguf wants a GGUF file") from error
    if magic != b"GGUF":
        raise LocalModelError(f"{name}: is not a GGUF file; local/PATH.gguf wants one")
    return file
