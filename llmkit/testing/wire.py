"""What a `ScriptedServer` answers: the entries of its script, in the formats of OpenAI, Anthropic and others."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

USAGE = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
ANSWER = "Hello from the server."


@dataclass
class Status:
    """Answer with an error status: its code, headers, and the body as JSON, bytes, or None for a usual one."""

    code: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None

    def payload(self) -> bytes:
        """Return the body."""
        body = {"error": {"message": f"scripted {self.code}", "type": "scripted"}} if self.body is None else self.body
        return body if isinstance(body, bytes) else json.dumps(body).encode()


@dataclass
class Answer:
    """Answer with a text.

    `message` and `deltas` say what OpenAI's answer and stream have instead, such as tool calls. `end` says how a stream
    ends: "stop" as it should, "eof" without a finish reason, "reset" by breaking the connection after `delay_s`,
    "garbage" with a chunk that is not JSON, "hang" by silence for `delay_s`, "slow" with so much between two chunks.
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


def wants_usage(body: dict[str, Any]) -> bool:
    """Mistral reports usage in every stream, OpenAI where it is asked for."""
    return "mistral" in body.get("model", "") or bool((body.get("stream_options") or {}).get("include_usage"))


def openai_body(entry: Answer, body: dict[str, Any]) -> dict[str, Any]:
    """Return an answer in OpenAI's format."""
    message = entry.message or {"role": "assistant", "content": entry.text}
    made = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body.get("model", "scripted"),
        "choices": [{"index": 0, "message": message, "finish_reason": entry.finish_reason}],
    }
    return made if entry.usage is None else {**made, "usage": entry.usage}


def words(text: str) -> list[str]:
    """Return the words of a text, each with the space before it."""
    return [word if index == 0 else f" {word}" for index, word in enumerate(text.split(" "))]


def event(data: Any, name: str = "") -> bytes:
    """Return a server-sent event."""
    line = f"event: {name}\n" if name else ""
    return f"{line}data: {json.dumps(data)}\n\n".encode()


def openai_events(entry: Answer, body: dict[str, Any]) -> list[bytes]:
    """Return the events of a stream in OpenAI's format."""

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body.get("model")}
        return event({**head, "choices": [choice]})

    deltas = entry.deltas if entry.deltas is not None else [{"content": word} for word in words(entry.text)]
    events = [chunk({"role": "assistant", "content": ""}), *map(chunk, deltas), chunk({}, entry.finish_reason)]
    if entry.usage and wants_usage(body):
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": body.get("model")}
        events.append(event({**head, "choices": [], "usage": entry.usage}))
    return [*events, b"data: [DONE]\n\n"]


def anthropic_body(entry: Answer, body: dict[str, Any]) -> dict[str, Any]:
    """Return an answer in Anthropic's format."""
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


def anthropic_events(entry: Answer) -> list[bytes]:
    """Return the events of a stream in Anthropic's format."""
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
        for word in words(entry.text)
    ]
    end: list[dict[str, Any]] = [
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": usage["completion_tokens"]},
        },
        {"type": "message_stop"},
    ]
    events: list[dict[str, Any]] = [start, block, *deltas, *end]
    return [event(data, data["type"]) for data in events]


def gemini_body(text: str, usage: dict[str, Any] | None, reason: str | None = "STOP") -> dict[str, Any]:
    """Return an answer, or an event of a stream, in Gemini's format."""
    ended = {} if reason is None else {"finishReason": reason}
    usage = usage or {"prompt_tokens": 0, "completion_tokens": 0}
    counts = {
        "promptTokenCount": usage["prompt_tokens"],
        "candidatesTokenCount": usage["completion_tokens"],
        "totalTokenCount": usage["prompt_tokens"] + usage["completion_tokens"],
    }
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, **ended, "index": 0}
    return {"candidates": [candidate], "usageMetadata": counts}


def gemini_events(entry: Answer) -> list[bytes]:
    """Return the events of a stream in Gemini's format."""
    texts = [event(gemini_body(word, entry.usage, None)) for word in words(entry.text)]
    return [*texts, event(gemini_body("", entry.usage))]


def other_body(path: str, entry: Answer, body: dict[str, Any]) -> Any:
    """Return what is answered at the paths that have no stream here, None at every other."""
    usage = entry.usage or {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    prompt, completion = usage["prompt_tokens"], usage["completion_tokens"]
    if path.endswith(":generateContent"):
        return gemini_body(entry.text, usage)
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
