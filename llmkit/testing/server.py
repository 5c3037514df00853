"""A provider on loopback that plays a script, faults included, and keeps what was sent to it.

It answers each request with the next entry of its script, and with a plain answer when the script is empty.
The wire format follows the path: OpenAI's (also Azure's and Mistral's), Anthropic's, Gemini's (also Vertex', with
Google's token), and without streams Bedrock's and OpenAI's for sound, pictures and vectors.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from llmkit.testing.wire import (
    Answer,
    Drop,
    Raw,
    Status,
    anthropic_body,
    anthropic_events,
    gemini_events,
    openai_body,
    openai_events,
    other_body,
    wants_usage,
)

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass
class Recorded:
    """One request as it arrived: its path, headers by lower-case name, body (JSON decoded), and moment."""

    path: str
    headers: dict[str, str]
    body: Any
    time: float


class ScriptedServer:
    """A provider on loopback that plays a script; a context manager.

    Args:
        script: for each request a text, an `Answer`, `Status`, `Drop` or `Raw`, or a function of its body that
            returns one.

    Attributes:
        url: its address, without a path.
        script: what is left of it; entries can be added at any time.
        requests: what came, in order.
        connections: how many sockets there were.
        broken: set when a client goes away in the middle.
    """

    def __init__(self, *script: Any) -> None:
        self.script = list(script)
        self.requests: list[Recorded] = []
        self.connections = 0
        self.broken = threading.Event()
        self._lock = threading.Lock()
        server = self

        class Handler(_Handler):
            owner = server

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that go away are expected
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        """Start to answer."""
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()

    def next(self, recorded: Recorded) -> Any:
        """Keep a request, and return the entry that answers it."""
        with self._lock:
            self.requests.append(recorded)
            return self.script.pop(0) if self.script else Answer()


class _Handler(BaseHTTPRequestHandler):
    """Plays the entries."""

    owner: ScriptedServer
    protocol_version = "HTTP/1.1"
    wbufsize = 0

    def setup(self) -> None:
        super().setup()
        self.owner.connections += 1
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            body = json.loads(raw)
        except ValueError:
            body = raw
        headers = {name.lower(): value for name, value in self.headers.items()}
        entry = self.owner.next(Recorded(self.path, headers, body, time.monotonic()))
        try:
            self._play(entry, body if isinstance(body, dict) else {})
        except (BrokenPipeError, ConnectionResetError):
            self.owner.broken.set()
            self.close_connection = True

    do_GET = do_POST  # noqa: N815 - http.server wants this name

    def _play(self, entry: Any, body: dict[str, Any]) -> None:
        if callable(entry):
            entry = entry(body)
        if isinstance(entry, str):
            entry = Answer(entry)
        if isinstance(entry, Drop):
            time.sleep(entry.delay_s)
            self._reset()
        elif isinstance(entry, Status):
            self._whole(entry.code, entry.payload(), entry.headers)
        elif isinstance(entry, Raw):
            self._whole(200, entry.body, {"content-type": entry.content_type})
        elif other := other_body(self.path.partition("?")[0], entry, body):
            time.sleep(entry.delay_s)
            self._whole(200, other if isinstance(other, bytes) else json.dumps(other).encode(), {})
        else:
            anthropic = self.path.endswith("/messages")
            if ":streamGenerateContent" in self.path:
                self._stream(entry, gemini_events(entry), 1)
            elif body.get("stream") and anthropic:
                self._stream(entry, anthropic_events(entry), 3)
            elif body.get("stream"):
                self._stream(entry, openai_events(entry, body), 2 + bool(entry.usage and wants_usage(body)))
            else:
                time.sleep(entry.delay_s)
                make = anthropic_body if anthropic else openai_body
                self._whole(200, json.dumps(make(entry, body)).encode(), {})

    def _whole(self, code: int, payload: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {"content-type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def _stream(self, entry: Answer, events: list[bytes], tail: int) -> None:
        """Send the events of a stream, of which the last ones are its end."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        head, end = events[:-tail], events[-tail:]
        for event in head:
            self._chunk(event)
            if entry.end == "slow":
                time.sleep(entry.delay_s)
        if entry.end in {"hang", "reset"}:  # what was sent before is read by then
            time.sleep(entry.delay_s)
        if entry.end == "reset":
            self._reset()
            return
        if entry.end == "garbage":
            self._chunk(b'data: {"choices": [{"del\n\n')
        if entry.end != "eof":
            for event in end:
                self._chunk(event)
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True
