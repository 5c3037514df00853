"""A GGUF file as an OpenAI-compatible server on loopback, inside this process.

Nothing here calls a model or knows about deployments: `serve` returns an address and a key, and the
rest of llmkit treats them like any other provider. llama.cpp comes with the extra `local` and is
imported when the first server starts; it prints nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import http.client
import json
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmkit.errors import LocalModelError
from llmkit.providers.local import weights
from llmkit.providers.model_info import LOCAL_WINDOW

EMBEDDED = "smollm2"
EMBEDDED_SLOTS = 2
SILENT, ERRORS_ONLY = -1, 1

# The template of the file itself, but for two things: its default system message makes the model
# answer in other languages at random, and a message without content is no error.
TEMPLATE = """\
{% for message in messages %}{% if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful assistant.<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + (message['content'] or '') + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""

# Run in a child with the parent's own search path, so that the same llmkit and llama.cpp are tried.
TRIAL = "import sys; sys.path[:] = sys.argv[2:]; from llmkit.providers.local import _try_file; _try_file(sys.argv[1])"
TRIAL_TIMEOUT_S = 600.0
PATIENCE_S = 10.0

# What C calls when the process exits, with the status. glibc has it, others have not.
ON_EXIT = getattr(ctypes.CDLL(None), "on_exit", None) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running server: the base address (ending in /v1), its key, and the name of its model."""

    url: str
    key: str = field(repr=False)
    model: str


_lock = threading.Lock()
_running: dict[tuple[str, Path], tuple[LocalServer, Any]] = {}
_kept: list[Any] = []  # servers that stay until the process ends
_forked_while_running = False


def serve(name: str) -> LocalServer:
    """Return the server of model *name*, starting it on first use; it runs until `stop` or exit.

    *name* is "smollm2", the embedded model, whose weights are fetched if they are missing, or the
    path of a .gguf file. Every process has servers of its own, one for each file.

    Raises:
        LocalModelError: there is no such model, or it cannot be fetched, read or started.
    """
    llama = _llama()
    file = weights.path() if name == EMBEDDED else _gguf(name)
    key = (EMBEDDED if name == EMBEDDED else "", file)
    with _lock:
        if key not in _running:
            if name == EMBEDDED:
                weights.ensure()
            else:
                _prove(file)
            _running[key] = _start(llama, file, name)
            if _forked_while_running:
                _keep(_running[key][1])
        return _running[key][0]


def stop() -> None:
    """Stop every server of this process; the next `serve` starts anew.

    Requests under way get some seconds to finish. A server that is busy after that stays until the
    process ends, as it does in a process that was forked while its parent had a server.
    """
    with _lock:
        while _running and not _forked_while_running:
            _, (server, handle) = _running.popitem()
            deadline = time.monotonic() + PATIENCE_S
            while (busy := _is_busy(server)) and time.monotonic() < deadline:
                time.sleep(0.05)
            if busy:
                _keep(handle)
            del handle  # llama.cpp stops a server when its object is deleted


def _llama() -> Any:
    try:
        import xllamacpp
    except ImportError as error:
        message = f"a local model needs xllamacpp, which cannot be imported ({error}); {weights.INSTALL}"
        raise LocalModelError(message) from error
    return xllamacpp


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


def _params(llama: Any, file: Path, key: str) -> Any:
    """Return the settings of a server for any file: loopback, a port chosen by the kernel, nothing printed."""
    params = llama.CommonParams()
    params.model.path = str(file)
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [key]
    params.ui = False
    params.endpoint_metrics = True
    params.verbosity = SILENT
    # One request at a time, the others wait. With several slots over one window (kv_unified) requests
    # that are fine alone fail together, "Context size has been exceeded", when they come at once; a
    # window for each slot is gigabytes for a larger model. On a CPU several slots are no quicker.
    params.n_parallel, params.n_ctx, params.kv_unified = 1, LOCAL_WINDOW, False
    # llama.cpp's threads wait for one another by spinning. With one for each core, three processes at once on
    # two cores fall from 95 tokens a second to 0.6; with half as many they keep 43 each, one alone has 70.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = max(1, _cores() // 2)
    params.cache_ram_mib = 0  # left alone, old prompts are kept in up to 8 GB of the program's memory
    return params


def _cores() -> int:
    """Return how many cores this process may use; a container often has fewer than the machine."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _start(llama: Any, file: Path, name: str) -> tuple[LocalServer, Any]:
    key = secrets.token_urlsafe(24)
    params = _params(llama, file, key)
    model = EMBEDDED if name == EMBEDDED else file.stem
    params.model_alias = {model}
    if name == EMBEDDED:
        _tune(params)
    try:
        handle = llama.Server(params)
    except (RuntimeError, UnicodeError) as error:
        raise LocalModelError(f"{file}: llama.cpp cannot start it ({error})") from error
    server = LocalServer(url=f"{handle.listening_address}/v1", key=key, model=model)
    # The port listens before the loop behind it runs, and a server that is stopped in between never
    # ends. What the loop answers proves that it runs.
    try:
        _slots(server, timeout_s=60)
    except (OSError, ValueError) as error:
        _keep(handle)
        raise LocalModelError(f"{file}: llama.cpp started and does not answer ({error})") from error
    return server, handle


def _slots(server: LocalServer, *, timeout_s: float) -> Any:
    """Return what the server is working on; http.client, unlike urllib, goes through no proxy."""
    address = server.url.removeprefix("http://").removesuffix("/v1")
    with contextlib.closing(http.client.HTTPConnection(address, timeout=timeout_s)) as connection:
        connection.request("GET", "/slots", headers={"Authorization": f"Bearer {server.key}"})
        return json.loads(connection.getresponse().read())


def _is_busy(server: LocalServer) -> bool:
    """Return whether a request is under way: freeing a busy server would freeze the whole process."""
    try:
        return any(slot["is_processing"] for slot in _slots(server, timeout_s=1))
    except OSError:
        return True  # it is working on a long prompt


def _tune(params: Any) -> None:
    """Set the defaults with which a bare request gets a sensible, short and repeatable answer."""
    # Small enough for two whole windows of 190 MB each, so that a long answer does not hold up a short
    # one. An 8-bit cache would halve that, but with it the model says that Paris is "la Maison".
    params.n_parallel, params.n_ctx = EMBEDDED_SLOTS, EMBEDDED_SLOTS * LOCAL_WINDOW
    params.chat_template = TEMPLATE
    # Where more tokens are read at once, llama.cpp takes another path through the attention; a beginning that is
    # kept from such a prompt makes the next answer begin with "La femme de France". It is no slower this way.
    params.n_ubatch = 32
    params.sampling.temp = 0.0
    # At temperature 0 so small a model falls into loops; 1.1 ended nearly all, without harm to facts.
    params.sampling.penalty_repeat = 1.1
    params.n_predict = 1024  # the rest of the loops end here
    params.fit_params = False  # loads the file twice to fit it to a GPU; this one fits everywhere


def _prove(file: Path) -> None:
    """Load the file in a child process first: some damaged ones make llama.cpp abort the whole process."""
    command = [sys.executable, "-I", "-c", TRIAL, str(file), *sys.path]
    env = {**os.environ, "GGML_NO_BACKTRACE": "1"}  # else an abort attaches a debugger and prints pages
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=env, timeout=TRIAL_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise LocalModelError(f"{file}: does not load within {TRIAL_TIMEOUT_S:.0f} s") from error
    if done.returncode:
        output = done.stderr.decode("utf-8", "replace")
        raise LocalModelError(f"{file}: llama.cpp cannot load it ({_reason(output)}); fetch the file again")


def _try_file(file: str) -> None:
    """Load *file* and exit at once: the child's side of `_prove`."""
    llama = _llama()
    params = _params(llama, Path(file), secrets.token_urlsafe(24))
    params.verbosity, params.warmup = ERRORS_ONLY, False
    try:
        # Kept until the process is gone: stopped so soon after its start it would wait for ever.
        handle = llama.Server(params)
    except (RuntimeError, UnicodeError) as error:
        os.write(2, f"{error}\n".encode())
        os._exit(1)
    os._exit(0 if handle else 1)


def _reason(output: str) -> str:
    """Return the first error that llama.cpp printed, without clock and function name."""
    error = re.search(r"^\S+ E (?:\w+: )+?(?:error loading model: )?(.+)$", output, re.MULTILINE)
    aborted = re.search(r"GGML_ASSERT\(.*\) failed.*", output)
    lines = output.strip().splitlines()
    reason = error[1] if error else aborted[0] if aborted else lines[-1] if lines else "no reason given"
    return reason[:200]


def _keep(handle: Any) -> None:
    """Let a server live until the process is gone; freeing it now would wait forever."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(handle))  # else Python frees it at its own end
    _kept.append(handle)
    # Leave with the status that exit() was given, after all that Python does at its end and before
    # the end-of-process code of llama.cpp, which waits for its threads, too.
    if ON_EXIT is not None:
        ON_EXIT(ctypes.CDLL(None)._exit, None)  # noqa: SLF001 - its name in C


def _at_exit() -> None:
    """End the process at once, whatever the servers are doing."""
    if ON_EXIT is None:
        stop()
        return
    for _, handle in _running.values():
        _keep(handle)
    if _kept:
        ctypes.CDLL(None).fflush(None)  # _exit would not


def _forget_parent() -> None:
    """Start a forked child without servers: their threads exist in the parent only.

    llama.cpp has global threads too, and joins them when a server stops and when the process exits.
    In such a child that ends in an abort or waits for ever, so the child does neither.
    """
    global _lock, _forked_while_running  # noqa: PLW0603 - what the child inherits has to be replaced
    _lock = threading.Lock()  # another thread may have held it
    _forked_while_running = _forked_while_running or bool(_running or _kept)
    for _, handle in _running.values():
        _keep(handle)
    _running.clear()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_parent)
atexit.register(_at_exit)
