"""A server of llmkit's on loopback, as `llmkit serve` runs it: within a test, or as a process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import openai
import uvicorn
import web
from typer.testing import CliRunner

from llmkit.cli import serve as _registers_itself  # noqa: F401
from llmkit.cli.base import app as command_line
from llmkit.presets import Preset
from llmkit.serve import ServedPreset, create_app
from llmkit.serve.connection import server_config

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from llmkit.store import Store

LINE = (sys.executable, "-m", "llmkit", "serve")


class Address(str):
    """The address of a server, without a path, and ways to ask it."""

    __slots__ = ()

    @property
    def port(self) -> int:
        return int(self.rpartition(":")[2])

    def client(self, key: str = "none", **settings: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self}/v1", api_key=key, max_retries=0, http_client=web.client(), **settings)

    def post(self, body: Any, path: str = "/v1/chat/completions", **settings: Any) -> httpx.Response:
        return web.post(f"{self}{path}", json=body, **{"timeout": 30, **settings})


class _Server(uvicorn.Server):
    """uvicorn looks ten times a second whether it is to end, and then waits as long; this one ends when it is idle."""

    async def main_loop(self) -> None:
        ticks = itertools.count()
        while not await self.on_tick(next(ticks)):
            await asyncio.sleep(0.01)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)
            return
        for listening in (*self.servers, *(sockets or ())):
            listening.close()
        for server in self.servers:
            await server.wait_closed()
        await self.lifespan.shutdown()


@contextlib.contextmanager
def serving(app: Any, limits: Any = None, **settings: Any) -> Iterator[Address]:
    """Serve an application on a thread, and give the address."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    server = _Server(server_config(app, limits, timeout_graceful_shutdown=3, **settings))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        ends = time.monotonic() + 20
        while not server.started and thread.is_alive() and time.monotonic() < ends:
            time.sleep(0.01)
        assert server.started
        yield Address(f"http://127.0.0.1:{listening.getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
        assert not thread.is_alive()


@contextlib.contextmanager
def running(*served: Any, store: Store, limits: Any = None, **settings: Any) -> Iterator[Address]:
    """Serve presets and models, and give the address."""
    with serving(create_app(served, store=store, limits=limits, **settings), limits) as url:
        yield url


@contextlib.contextmanager
def command(*words: str, **environment: str) -> Iterator[tuple[Any, Address]]:
    """Run `llmkit serve`; give the process, with the lines that it said, and its address."""
    line = [*LINE, *words, "--port", "0"]
    process: Any = subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
    with process:
        try:
            process.lines = []
            while "serving at http://" not in (process.lines[-1] if process.lines else ""):
                process.lines.append(process.stderr.readline())
                assert process.lines[-1], process.lines
            yield process, Address(f"http://127.0.0.1:{Address(process.lines[-1].strip()).port}")
        finally:
            process.kill()


def refused(*words: str) -> tuple[int, str]:
    """Return with which code, and words, `llmkit serve` says that it does not start."""
    done = CliRunner().invoke(command_line, ["serve", *words])
    return done.exit_code, done.stderr


def preset(name: str, store: Store, upstream: str, **settings: Any) -> ServedPreset:
    """Return a preset that asks the scripted server at *upstream*."""
    params = {"api_base": f"{upstream}/v1", "api_key": "sk-of-the-upstream", **settings.pop("params", {})}
    backend = settings.pop("backend", None)
    described = Preset(**{"name": name, "model": "openai/gpt-4o", **settings, "params": params})
    return ServedPreset(name, described, store, backend)


def wait_for(condition: Any, seconds: float = 10.0) -> None:
    """Wait until something is true; a busy machine takes its time, and a hang is none."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, "it did not come true"
        time.sleep(0.01)


def error_of(response: httpx.Response) -> dict[str, Any]:
    """Return what an error says, in OpenAI's shape."""
    found = response.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert "Traceback" not in response.text
    return found
