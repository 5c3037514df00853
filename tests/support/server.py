"""Servers on loopback: llmkit's own `ScriptedServer`, and one that answers what a function returns."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from llmkit.testing import Answer, Drop, Raw, ScriptedServer, Status
from llmkit.testing.wire import ANSWER, USAGE

__all__ = ["ANSWER", "USAGE", "Answer", "Drop", "FunctionServer", "Raw", "ScriptedServer", "Status", "auntil", "until"]

LONGEST_S = 60.0
"""How long a test waits for what must come; a busy machine takes its time."""


def until(condition: Any, within_s: float = LONGEST_S) -> None:
    """Wait for a condition, or fail."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"it did not come true within {within_s:g} s"
        time.sleep(0.01)


async def auntil(condition: Any, within_s: float = LONGEST_S) -> None:
    """Wait for a condition below an event loop, or fail."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"it did not come true within {within_s:g} s"
        await asyncio.sleep(0.01)


class FunctionServer:
    """A server that answers what a function of path and body returns; a context manager.

    The function returns a dict for JSON or bytes for plain text, or a tuple: status, one of these, and the content type
    where it is another one. `requests` has method, path, headers and body of what came.
    """

    def __init__(self, answer: Any) -> None:
        self.requests: list[tuple[str, str, dict[str, str], Any]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("content-length") or 0))
                body = json.loads(raw) if raw else None
                headers = {name.lower(): value for name, value in self.headers.items()}
                server.requests.append((self.command, self.path, headers, body))
                found = answer(self.path, body)
                status, found, *kind = found if isinstance(found, tuple) else (200, found)
                data = found if isinstance(found, bytes) else json.dumps(found).encode()
                usual = "text/plain" if isinstance(found, bytes) else "application/json"
                self.send_response(status)
                self.send_header("content-type", kind[0] if kind else usual)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.address = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Any:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
