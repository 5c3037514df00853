"""The recorded answers in Anthropic's format, whole and streamed, good and bad."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llmkit.providers.routes.learning.loopback import Canned
from llmkit.providers.routes.learning.observe import stream_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_COUNTS = {"input_tokens": 1200, "output_tokens": 340}
_MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-probe",
    "content": [{"type": "text", "text": "Rome is sunny."}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": _COUNTS,
}
_TEXT = {"type": "text", "text": "Rome is sunny."}
_TOOL = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Zürich"}}
_THOUGHT = {"type": "thinking", "thinking": "The user asks for Rome.", "signature": "EqQBCgIYAhIM"}
_REDACTED = {"type": "redacted_thinking", "data": "EmwKAhgBEgy3va3pzix"}
_CITED = {"type": "char_location", "cited_text": "sunny", "document_index": 0, "start_char_index": 0}
_SEARCH = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "Rome"}}
_FOUND = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
UNASKED = frozenset({"search", "ends with pause_turn"})
"""Answers to what no route covers: the tools that Anthropic calls itself."""
_REASONS = ("end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal", "compaction", "odd")


def _whole(*blocks: Any, reason: str | None = "end_turn", **more: Any) -> Canned:
    made = {**_MESSAGE, "content": list(blocks) or [_TEXT], "stop_reason": reason, **more}
    return Canned(json.dumps({name: value for name, value in made.items() if value != "left out"}).encode())


_COUNTED: Mapping[str, Mapping[str, Any]] = {
    "read from the cache": {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 900},
    "written to the cache": {"cache_creation_input_tokens": 700, "cache_read_input_tokens": 0},
    "written for the usual time": {
        "cache_creation_input_tokens": 700,
        "cache_read_input_tokens": 20,
        "cache_creation": {"ephemeral_5m_input_tokens": 700, "ephemeral_1h_input_tokens": 0},
    },
    "written for an hour": {
        "cache_creation_input_tokens": 700,
        "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 400},
    },
    "thought": {"output_tokens_details": {"thinking_tokens": 300}},
    "usual place": {"service_tier": "standard", "inference_geo": "global"},
    "another place": {"service_tier": "priority", "inference_geo": "us", "speed": "fast"},
    "searched": {"server_tool_use": {"web_search_requests": 2}},
    "in rounds": {"iterations": [_COUNTS, {**_COUNTS, "cache_read_input_tokens": 7}]},
    "nulls": {"cache_creation_input_tokens": None, "cache_read_input_tokens": None, "cache_creation": None},
}
WHOLE: Mapping[str, Canned] = {
    "plain": _whole(),
    "another model": _whole(model="claude-probe-20260101"),
    "two texts": _whole(_TEXT, {"type": "text", "text": " So is Pisa."}),
    "empty text": _whole({"type": "text", "text": ""}),
    "nothing": Canned(json.dumps({**_MESSAGE, "content": []}).encode()),
    "tool": _whole(_TOOL, reason="tool_use"),
    "tool and text": _whole(_TEXT, _TOOL, reason="tool_use"),
    "tool without input": _whole({**_TOOL, "input": {}}, reason="tool_use"),
    "two tools": _whole(_TOOL, {**_TOOL, "id": "toolu_2"}, reason="tool_use"),
    "tool and end": _whole(_TOOL),
    "thinking": _whole(_THOUGHT, _TEXT),
    "thinking twice": _whole(_THOUGHT, {**_THOUGHT, "signature": "other"}, _TEXT),
    "thinking unseen": _whole({**_THOUGHT, "thinking": ""}, _TEXT),
    "redacted thinking": _whole(_REDACTED, _TEXT),
    "thinking and tool": _whole(_THOUGHT, _REDACTED, _TOOL, reason="tool_use"),
    "citations": _whole({**_TEXT, "citations": [_CITED]}),
    "search": _whole(_SEARCH, _FOUND, _TEXT),
    "a new kind of block": _whole({"type": "hologram", "data": "?"}, _TEXT),
    **{f"ends with {reason}": _whole(reason=reason) for reason in _REASONS},
    "ends without a reason": _whole(reason=None),
    **{name: _whole(_TEXT, usage={**_COUNTS, **counts}) for name, counts in _COUNTED.items()},
    "zero usage": _whole(usage={"input_tokens": 0, "output_tokens": 0}),
    "impossible usage": _whole(usage={"input_tokens": -5, "output_tokens": 2}),
    "no usage": _whole(usage="left out"),
    "no content": _whole(content="left out"),
    "no reason": _whole(stop_reason="left out"),
    "another format": Canned(b'{"answer": "Rome is sunny."}'),
    "an error instead": Canned(b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}'),
    "no JSON": Canned(b"<html>hello</html>", headers=(("content-type", "text/html"),)),
    "half of it": Canned(json.dumps(_MESSAGE).encode()[:-20]),
}


def _refused(status: int, kind: str = "api_error", message: str = "no", **headers: str) -> Canned:
    body = {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}
    pairs = [("content-type", "application/json"), *((name.replace("_", "-"), text) for name, text in headers.items())]
    return Canned(json.dumps(body).encode(), status, pairs)


_STATUSES = (400, 401, 402, 403, 404, 405, 408, 409, 413, 418, 422, 429, 500, 502, 503, 504, 524, 529)
REFUSALS: Mapping[str, Canned] = {
    **{str(status): _refused(status) for status in _STATUSES},
    "key": _refused(401, "authentication_error", "invalid x-api-key"),
    "credit": _refused(400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
    "too long": _refused(400, "invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum"),
    "too large": _refused(413, "request_too_large", "Request exceeds the maximum size"),
    "no such model": _refused(404, "not_found_error", "model: claude-probe"),
    "with a wait": _refused(429, "rate_limit_error", "slow down", retry_after="7"),
    "never again": _refused(429, "rate_limit_error", "slow down", x_should_retry="false"),
    "overloaded": _refused(529, "overloaded_error", "Overloaded"),
    "500 as a page": Canned(b"<html>oops</html>", 500, (("content-type", "text/html"),)),
    "502 empty": Canned(b"", 502, ()),
    "moved": Canned(b"", 301, (("location", "https://elsewhere.invalid/"),)),
}


def _begun(**counts: Any) -> dict[str, Any]:
    usage = {"input_tokens": 1200, "output_tokens": 1, **counts}
    return {"type": "message_start", "message": {**_MESSAGE, "content": [], "stop_reason": None, "usage": usage}}


def _block(at: int, block: Mapping[str, Any], *deltas: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "content_block_start", "index": at, "content_block": block},
        *({"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": at},
    ]


def _text(*texts: str, at: int = 0) -> list[dict[str, Any]]:
    return _block(at, {"type": "text", "text": ""}, *({"type": "text_delta", "text": text} for text in texts))


def _tool(at: int, *parts: str) -> list[dict[str, Any]]:
    deltas = [{"type": "input_json_delta", "partial_json": part} for part in parts]
    return _block(at, {**_TOOL, "id": f"toolu_{at}", "input": {}}, *deltas)


def _thought(at: int, *texts: str, signature: str = "EqQB") -> list[dict[str, Any]]:
    deltas = [{"type": "thinking_delta", "thinking": text} for text in texts]
    signed = {"type": "signature_delta", "signature": signature}
    return _block(at, {"type": "thinking", "thinking": "", "signature": ""}, *deltas, signed)


def _ended(reason: str | None = "end_turn", **counts: Any) -> list[dict[str, Any]]:
    delta = {"stop_reason": reason, "stop_sequence": None}
    usage = {"output_tokens": 340, **counts}
    return [{"type": "message_delta", "delta": delta, "usage": usage}, {"type": "message_stop"}]


def _stream(*events: Any) -> Canned:
    return stream_of(*events, done=False)


_PING = {"type": "ping"}
_FAILED = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
STREAMS: Mapping[str, Canned] = {
    "plain": _stream(_begun(), _PING, *_text("Rome ", "is sunny."), *_ended()),
    "two texts": _stream(_begun(), *_text("Rome "), *_text("is sunny.", at=1), *_ended()),
    "empty": _stream(_begun(), *_text(), *_ended()),
    "no block": _stream(_begun(), *_ended()),
    **{f"ends with {reason}": _stream(_begun(), *_text("Rome"), *_ended(reason)) for reason in _REASONS},
    "tool": _stream(_begun(), *_tool(0, "", '{"city"', ': "Rome"}'), *_ended("tool_use")),
    "tool and text": _stream(_begun(), *_text("let me see"), *_tool(1, '{"city": "Rome"}'), *_ended("tool_use")),
    "two tools": _stream(_begun(), *_tool(0, '{"city": "Rome"}'), *_tool(1, "{}"), *_ended("tool_use")),
    "tool without input": _stream(_begun(), *_tool(0), *_tool(1, ""), *_ended("tool_use")),
    "thinking": _stream(_begun(), *_thought(0, "h", "m"), *_text("a", at=1), *_ended()),
    "thinking twice": _stream(_begun(), *_thought(0, "h"), *_thought(1, "m", signature="b"), *_text("a"), *_ended()),
    "thinking unseen": _stream(_begun(), *_thought(0), *_text("a", at=1), *_ended()),
    "thinking and tool": _stream(_begun(), *_thought(0, "hm"), *_tool(1, "{}"), *_ended("tool_use")),
    "redacted thinking": _stream(_begun(), *_block(0, _REDACTED), *_text("a", at=1), *_ended()),
    "search": _stream(_begun(), *_block(0, _SEARCH), *_block(1, _FOUND), *_text("a", at=2), *_ended()),
    "a new kind of block": _stream(_begun(), *_block(0, {"type": "hologram"}), *_text("a", at=1), *_ended()),
    "a new kind of event": _stream(_begun(), {"type": "hologram"}, *_text("a"), *_ended()),
    **{
        name: _stream(_begun(**counts), *_text("a"), *_ended())
        for name, counts in _COUNTED.items()
        if name not in {"thought", "in rounds"}
    },
    "thought": _stream(_begun(), *_text("a"), *_ended(output_tokens_details={"thinking_tokens": 300})),
    "counted at the end": _stream(_begun(input_tokens=0), *_text("a"), *_ended(input_tokens=9, output_tokens=8)),
    "cut in the text": _stream(_begun(), *_text("Rome")[:-1]),
    "cut before the end": _stream(_begun(), *_text("Rome")),
    "no reason": _stream(_begun(), *_text("Rome"), *_ended(None)),
    "without message_stop": _stream(_begun(), *_text("Rome"), _ended()[0]),
    "an error": _stream(_begun(), *_text("Rome")[:-1], _FAILED),
    "an error at once": _stream(_FAILED),
    "no JSON": _stream(_begun(), *_text("Rome"), '{"type": "mess'),
    "nothing": _stream(),
    "a whole answer": WHOLE["plain"],
}
