"""A server of llmkit's on loopback, as `llmkit serve` runs it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import uvicorn

from llmkit.presets import Preset
from llmkit.serve.app import create_app
from llmkit.serve.connection import server_config
from llmkit.serve.served import ServedPreset

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from llmkit.store import Store


@contextlib.contextmanager
def serving(app: Any, limits: Any = None, **settings: Any) -> Iterator[str]:
    """Serve an application on a thread, and give the address."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    server = uvicorn.Server(server_config(app, limits, timeout_graceful_shutdown=3, **settings))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        ends = time.monotonic() + 20
        while not server.started and thread.is_alive() and time.monotonic() < ends:
            time.sleep(0.01)
        assert server.started
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()
        assert not thread.is_alive()


@contextlib.contextmanager
def running(*served: Any, store: Store, limits: Any = None, **settings: Any) -> Iterator[str]:
    """Serve presets and models, and give the address."""
    with serving(create_app(served, store=store, limits=limits, **settings), limits) as url:
        yield url


def preset(name: str, store: Store, upstream: str, **settings: Any) -> ServedPreset:
    """Return a preset that asks the scripted server at *upstream*."""
    params = {"api_base": f"{upstream}/v1", "api_key": "sk-of-the-upstream", **settings.pop("params", {})}
    return ServedPreset(name, Preset(**{"name": name, "model": "openai/gpt-4o", **settings, "params": params}), store)


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
