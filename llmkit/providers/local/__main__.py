"""The process of one model: llama.cpp's OpenAI-compatible server on loopback, and a door where it proves who it is.

`python -m llmkit.providers.local NAME FILE KEEP_S PLACE` is started by `local.serve`, and tells on stdout where it is;
from then on it holds nothing of who started it but stdin. With a PLACE it leaves its address there, and ends when
nobody has asked for KEEP_S; without, it ends with stdin, which is a pipe that nobody writes to.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import socketserver
import sys
import threading
import time
from pathlib import Path
from typing import Any

from llmkit.config import private
from llmkit.providers.local import EMBEDDED, START_S, address
from llmkit.providers.local.address import LocalServer
from llmkit.providers.model_info import LOCAL_WINDOW

EMBEDDED_SLOTS = 2
ERRORS_ONLY = 1

# The template of the file itself, but for two things: its default system message makes the model
# answer in other languages at random, and a message without content is no error.
TEMPLATE = """\
{% for message in messages %}{% if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful assistant.<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + (message['content'] or '') + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %}"""


def main(name: str, file: str, keep_s: str, place: str) -> None:
    """Serve the file until nobody needs it."""
    if hasattr(os, "fork") and os.fork():
        os._exit(0)  # nobody has to wait for the process that is left
    if hasattr(signal, "alarm"):
        signal.alarm(START_S)
    told = os.dup(1)
    os.dup2(2, 1)  # whatever llama.cpp prints is read as the reason if it fails
    key = secrets.token_urlsafe(32)
    handle = _llama(name, Path(file), key)
    door = _Door(key)
    model = EMBEDDED if name == EMBEDDED else Path(file).stem
    server = LocalServer(f"{handle.listening_address}/v1", key, model, door.server_address[1], os.getpid())
    if hasattr(signal, "alarm"):
        signal.alarm(0)
    if place:
        private.write(Path(place), server.as_json())
    os.write(told, f"{server.as_json()}\n".encode())
    os.close(told)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2) if place else (1, 2):
        os.dup2(nothing, stream)
    if place:
        _wait_for_idleness(server, door, float(keep_s))
        Path(place).unlink(missing_ok=True)
    else:
        sys.stdin.buffer.read()


class _Door(socketserver.ThreadingTCPServer):
    """Proves to whoever asks that this process knows the key, and notes when somebody asked."""

    daemon_threads = True

    def __init__(self, key: str) -> None:
        super().__init__(("127.0.0.1", 0), _Proof)
        self.key = key
        self.used = time.monotonic()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Proof(socketserver.BaseRequestHandler):
    server: _Door

    def handle(self) -> None:
        self.request.settimeout(address.PATIENCE_S)
        nonce = self.request.recv(address.NONCE, socket.MSG_WAITALL)
        self.server.used = time.monotonic()
        self.request.sendall(address.proof(self.server.key, nonce))


def _wait_for_idleness(server: LocalServer, door: _Door, keep_s: float) -> None:
    while (left := keep_s - (time.monotonic() - door.used)) > 0:
        time.sleep(min(left, 3600))
        if _is_busy(server):
            door.used = time.monotonic()


def _is_busy(server: LocalServer) -> bool:
    """Return whether a request is under way; http.client, unlike urllib, goes through no proxy."""
    import http.client  # 20 ms, not before the first answer

    where = server.url.removeprefix("http://").removesuffix("/v1")
    with contextlib.closing(http.client.HTTPConnection(where, timeout=1)) as connection:
        try:
            connection.request("GET", "/slots", headers={"Authorization": f"Bearer {server.key}"})
            return any(slot["is_processing"] for slot in json.loads(connection.getresponse().read()))
        except OSError:
            return True  # it is working on a long prompt


def _llama(name: str, file: Path, key: str) -> Any:
    """Start llama.cpp's server: loopback, a port chosen by the kernel, nothing printed but errors."""
    import xllamacpp as llama

    params = llama.CommonParams()
    params.model.path = str(file)
    params.model_alias = {EMBEDDED if name == EMBEDDED else file.stem}
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [key]
    params.ui = False
    params.endpoint_metrics = True
    params.verbosity = ERRORS_ONLY
    # One request at a time, the others wait. With several slots over one window (kv_unified) requests
    # that are fine alone fail together, "Context size has been exceeded", when they come at once; a
    # window for each slot is gigabytes for a larger model. On a CPU several slots are no quicker.
    params.n_parallel, params.n_ctx, params.kv_unified = 1, LOCAL_WINDOW, False
    # llama.cpp's threads wait for one another by spinning. With one for each core, three processes at once on
    # two cores fall from 95 tokens a second to 0.6; with half as many they keep 43 each, one alone has 70.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = max(1, _cores() // 2)
    # After a batch the server looks what else there is to do, and tells how much it has read. The usual 2,048 take
    # half a minute on a slow machine, and are no quicker.
    params.n_batch = params.n_ubatch
    params.cache_ram_mib = 0  # left alone, old prompts are kept in up to 8 GB of memory
    if name == EMBEDDED:
        _tune(params)
    return llama.Server(params)


def _tune(params: Any) -> None:
    """Set the defaults with which a bare request gets a sensible, short and repeatable answer."""
    # Small enough for two whole windows of 190 MB each, so that a long answer does not hold up a short
    # one. An 8-bit cache would halve that, but with it the model says that Paris is "la Maison".
    params.n_parallel, params.n_ctx = EMBEDDED_SLOTS, EMBEDDED_SLOTS * LOCAL_WINDOW
    params.chat_template = TEMPLATE
    # Where more tokens are read at once, llama.cpp takes another path through the attention; a beginning that is
    # kept from such a prompt makes the next answer begin with "La femme de France". It is no slower this way.
    params.n_ubatch, params.n_batch = 32, 64
    params.sampling.temp = 0.0
    # At temperature 0 so small a model falls into loops; 1.1 ended nearly all, without harm to facts.
    params.sampling.penalty_repeat = 1.1
    params.n_predict = 1024  # the rest of the loops end here
    params.fit_params = False  # loads the file twice to fit it to a GPU; this one fits everywhere


def _cores() -> int:
    """Return how many cores this process may use; a container often has fewer than the machine."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except BaseException as error:  # noqa: BLE001 - whatever it is, who started this is waiting for it
        os.write(2, f"{error}\n".encode(errors="replace"))
    finally:
        os._exit(0)  # llama.cpp's own end of a process waits for its threads, at times for ever
