"""A server of llmkit's on loopback, as `llmkit serve` runs it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import uvicorn

from llmkit.presets import Preset
from llmkit.serve._app import create_app
from llmkit.serve._served import ServedPreset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmkit.store import Store


@contextlib.contextmanager
def running(*served: Any, store: Store, **settings: Any) -> Iterator[str]:
    """Serve, and give the address."""
    listening = socket.create_server(("127.0.0.1", 0))
    app = create_app(served, store=store, **settings)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()


def preset(name: str, store: Store, upstream: str, **settings: Any) -> ServedPreset:
    """Return a preset that asks the scripted server at *upstream*."""
    params = {"api_base": f"{upstream}/v1", "api_key": "sk-of-the-upstream"}
    return ServedPreset(name, Preset(name=name, model="openai/gpt-4o", params=params, **settings), store)
