"""A scriptable HTTP server on loopback: it plays the part of a provider, with faults, and keeps count.

It answers each request with the next entry of its script, and with a plain answer when the script is empty.
The wire format follows the path: OpenAI's (also Azure's and Mistral's), Anthropic's, and without streams Gemini's
(also Vertex', with Google's token), Bedrock's and OpenAI's for sound, pictures and vectors.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

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


USAGE = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
ANSWER = "Hello from the server."


@dataclass
class Status:
    """Answer with an error status."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None

    def payload(self) -> bytes:
        body = {"error": {"message": f"scripted {self.code}", "type": "scripted"}} if self.body is None else self.body
        return body if isinstance(body, bytes) else json.dumps(body).encode()


@dataclass
class Answer:
    """Answer with a text.

    `end` says how a stream ends: "stop" as it should, "eof" without a finish reason, "reset" by breaking the
    connection after `delay_s`, "garbage" with a chunk that is not JSON, "hang" by silence for `delay_s`.
    """

    text: str = ANSWER
    usage: dict[str, Any] | None = field(default_factory=lambda: dict(USAGE))
    message: dict[str, Any] | None = None
    finish_reason: str = "stop"
    end: str = "stop"
    delay_s: float = 0.0
    deltas: list[dict[str, Any]] | None = None


@dataclass
class Drop:
    """Break the connection instead of answering; `delay_s` later."""

    delay_s: float = 0.0


@dataclass
class Raw:
    """Answer 200 with these bytes."""

    body: bytes
    content_type: str = "application/json"


@dataclass
class Recorded:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: Any
    time: float


class ScriptedServer:
    """The server; a context manager. `url` has no path, `requests` is what came, `connections` how many sockets."""

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

    def __enter__(self) -> ScriptedServer:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def next(self, recorded: Recorded) -> Any:
        with self._lock:
            self.requests.append(recorded)
            return self.script.pop(0) if self.script else Answer()


class _Handler(BaseHTTPRequestHandler):
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

    do_GET = do_POST

    def _play(self, entry: Any, body: dict[str, Any]) -> None:
        if callable(entry):
            entry = entry(body)
        if isinstance(entry, Drop):
            time.sleep(entry.delay_s)
            self._reset()
        elif isinstance(entry, Status):
            self._whole(entry.code, entry.payload(), entry.headers)
        elif isinstance(entry, Raw):
            self._whole(200, entry.body, {"content-type": entry.content_type})
        elif other := _other_body(self.path.partition("?")[0], entry, body):
            time.sleep(entry.delay_s)
            self._whole(200, other if isinstance(other, bytes) else json.dumps(other).encode(), {})
        else:
            anthropic = self.path.endswith("/messages")
            if body.get("stream"):
                self._stream(entry, body, anthropic=anthropic)
            else:
                time.sleep(entry.delay_s)
                make = _anthropic_body if anthropic else _openai_body
                self._whole(200, json.dumps(make(entry, body)).encode(), {})

    def _whole(self, code: int, payload: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {"content-type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def _stream(self, entry: Answer, body: dict[str, Any], *, anthropic: bool) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        events = _anthropic_events(entry) if anthropic else _openai_events(entry, body)
        tail = 3 if anthropic else 2 + bool(entry.usage and _wants_usage(body))
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


def _wants_usage(body: dict[str, Any]) -> bool:
    """Mistral reports usage in every stream, OpenAI where it is asked for."""
    return "mistral" in body.get("model", "") or bool((body.get("stream_options") or {}).get("include_usage"))


def _openai_body(entry: Answer, body: dict[str, Any]) -> dict[str, Any]:
    message = entry.message or {"role": "assistant", "content": entry.text}
    made = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body.get("model", "scripted"),
        "choices": [{"index": 0, "message": message, "finish_reason": entry.finish_reason}],
    }
    return made if entry.usage is None else {**made, "usage": entry.usage}


def _words(text: str) -> list[str]:
    return [word if index == 0 else f" {word}" for index, word in enumerate(text.split(" "))]


def _event(data: Any, name: str = "") -> bytes:
    line = f"event: {name}\n" if name else ""
    return f"{line}data: {json.dumps(data)}\n\n".encode()


def _openai_events(entry: Answer, body: dict[str, Any]) -> list[bytes]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body.get("model")}
        return _event({**head, "choices": [choice]})

    deltas = entry.deltas if entry.deltas is not None else [{"content": word} for word in _words(entry.text)]
    events = [chunk({"role": "assistant", "content": ""}), *map(chunk, deltas), chunk({}, entry.finish_reason)]
    if entry.usage and _wants_usage(body):
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body.get("model")}
        events.append(_event({**head, "choices": [], "usage": entry.usage}))
    return [*events, b"data: [DONE]\n\n"]


def _anthropic_body(entry: Answer, body: dict[str, Any]) -> dict[str, Any]:
    usage = entry.usage or {"prompt_tokens": 0, "completion_tokens": 0}
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body.get("model"),
        "content": [{"type": "text", "text": entry.text}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": usage["prompt_tokens"], "output_tokens": usage["completion_tokens"]},
    }


def _anthropic_events(entry: Answer) -> list[bytes]:
    usage = entry.usage or {"prompt_tokens": 0, "completion_tokens": 0}
    start = {
        "type": "message_start",
        "message": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "scripted",
            "content": [],
            "stop_reason": None,
            "usage": {"input_tokens": usage["prompt_tokens"], "output_tokens": 1},
        },
    }
    block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}}
        for word in _words(entry.text)
    ]
    end = [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": usage["completion_tokens"]},
        },
        {"type": "message_stop"},
    ]
    return [_event(data, data["type"]) for data in [start, block, *deltas, *end]]


def _other_body(path: str, entry: Answer, body: dict[str, Any]) -> Any:
    """Return what is answered at the paths that have no stream here, None at every other."""
    usage = entry.usage or {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    if path.endswith(":generateContent"):
        candidate = {"content": {"role": "model", "parts": [{"text": entry.text}]}, "finishReason": "STOP", "index": 0}
        counts = {
            "promptTokenCount": prompt,
            "candidatesTokenCount": completion,
            "totalTokenCount": prompt + completion,
        }
        return {"candidates": [candidate], "usageMetadata": counts}
    if path.endswith("/converse"):
        message = {"role": "assistant", "content": [{"text": entry.text}]}
        counts = {"inputTokens": prompt, "outputTokens": completion, "totalTokens": prompt + completion}
        return {"output": {"message": message}, "stopReason": "end_turn", "usage": counts, "metrics": {"latencyMs": 1}}
    if path.endswith("/audio/transcriptions"):
        return {"text": entry.text, "task": "transcribe", "language": "english", "duration": 61.2, "segments": []}
    if path.endswith("/audio/speech"):
        return entry.text.encode()
    if path.endswith("/images/generations"):
        return {"created": 1, "data": [{"b64_json": entry.text} for _ in range(body.get("n", 1))]}
    if path.endswith("/embeddings"):  # a text's vector is its length; the last comes first
        data = [
            {"object": "embedding", "index": index, "embedding": [float(len(text)), 0.5]}
            for index, text in enumerate(body["input"])
        ]
        counts = {"prompt_tokens": len(data), "total_tokens": len(data)}
        return {"object": "list", "model": body.get("model"), "data": data[::-1], "usage": counts}
    if path.endswith("/token"):
        return {"access_token": "a-token-of-google", "expires_in": 3600, "token_type": "Bearer"}
    return None


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
