"""The recorded answers that llmkit and LiteLLM are both given, whole and streamed, good and bad."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llmkit.providers.routes.learning.loopback import Canned
from llmkit.providers.routes.learning.observe import ANSWER, CHUNK, chunk, stream_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
_TEXT = {"role": "assistant", "content": "Rome is sunny."}
_COUNTS = {"prompt_tokens": 1200, "completion_tokens": 340, "total_tokens": 1540}


def _whole(message: Mapping[str, Any] | None = None, reason: str | None = "stop", **more: Any) -> Canned:
    choice = {"index": 0, "message": message or _TEXT, "finish_reason": reason}
    return Canned(json.dumps({**ANSWER, "choices": [choice], "usage": _COUNTS, **more}).encode())


def _asking(reason: str | None, content: str | None = None, calls: Any = (_CALL,)) -> Canned:
    return _whole({"role": "assistant", "content": content, "tool_calls": list(calls)}, reason)


def _counted(**details: Any) -> Canned:
    return _whole(usage={**_COUNTS, **details})


_SECOND = {"index": 1, "message": {"role": "assistant", "content": "Rome rains."}, "finish_reason": "length"}
_FIRST = {"index": 0, "message": _TEXT, "finish_reason": "stop"}
_CITED = {
    "type": "url_citation",
    "url_citation": {"url": "https://a.example", "title": "A", "start_index": 0, "end_index": 4},
}
UNASKED: frozenset[str] = frozenset()
"""Answers to what no route covers."""
WHOLE: Mapping[str, Canned] = {
    "plain": _whole(),
    "another model": _whole(model="probe-2026-01-01"),
    "no text": _whole({"role": "assistant", "content": None}),
    "empty text": _whole({"role": "assistant", "content": ""}),
    "two choices": _whole(choices=[_FIRST, _SECOND]),
    "tools": _asking("tool_calls"),
    "tools and stop": _asking("stop"),
    "tools and empty text": _asking("tool_calls", ""),
    "tools and text": _asking("tool_calls", "let me see"),
    "two tools": _asking("tool_calls", calls=[_CALL, {**_CALL, "id": "call_2"}]),
    "no tools": _asking("stop", "none", calls=()),
    "function call": _whole(
        {"role": "assistant", "content": None, "function_call": _CALL["function"]}, "function_call"
    ),
    "reasoning_content": _whole({**_TEXT, "reasoning_content": "hm"}),
    "reasoning": _whole({**_TEXT, "reasoning": "hm"}),
    "think": _whole({**_TEXT, "content": "<think>hm</think>Rome is sunny."}),
    "refusal": _whole({"role": "assistant", "content": None, "refusal": "I cannot."}),
    "citations": _whole({**_TEXT, "annotations": [_CITED]}, citations=["https://a.example"]),
    "log probabilities": _whole(
        choices=[
            {**_FIRST, "logprobs": {"content": [{"token": "Rome", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}}
        ]
    ),
    **{
        f"ends with {reason}": _whole(reason=reason)
        for reason in ("length", "content_filter", "eos", "end_turn", "odd")
    },
    "ends without a reason": _whole(reason=None),
    "cached": _counted(prompt_tokens_details={"cached_tokens": 1000}),
    "cached, as deepseek says": _counted(prompt_cache_hit_tokens=1000, prompt_cache_miss_tokens=200),
    "thought": _counted(completion_tokens_details={"reasoning_tokens": 300}),
    "cached and thought": _counted(
        prompt_tokens_details={"cached_tokens": 1000, "audio_tokens": 0},
        completion_tokens_details={"reasoning_tokens": 300, "audio_tokens": 0},
    ),
    "no usage": _whole(usage=None),
    "zero usage": _whole(usage={"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}),
    "no total": _whole(usage={"prompt_tokens": 1200, "completion_tokens": 340}),
    "impossible usage": _whole(usage={"prompt_tokens": -5, "completion_tokens": 2, "total_tokens": -3}),
    "no choices": _whole(choices=[]),
    "an error instead": Canned(json.dumps({"error": {"message": "overloaded", "code": 503}}).encode()),
    "no JSON": Canned(b"<html>hello</html>", headers=(("content-type", "text/html"),)),
    "half of it": Canned(json.dumps(ANSWER).encode()[:-20]),
}


def _refused(status: int, message: str = "no", code: str | None = None, **headers: str) -> Canned:
    body = {"error": {"message": message, "type": "some_error", "code": code}}
    pairs = [("content-type", "application/json"), *((name.replace("_", "-"), text) for name, text in headers.items())]
    return Canned(json.dumps(body).encode(), status, pairs)


_STATUSES = (400, 401, 402, 403, 404, 405, 408, 409, 413, 418, 422, 429, 498, 500, 501, 502, 503, 504, 524, 529)
REFUSALS: Mapping[str, Canned] = {
    **{str(status): _refused(status) for status in _STATUSES},
    "429 with a wait": _refused(429, "slow down", retry_after="7"),
    "429 used up": _refused(429, "You exceeded your current quota", "insufficient_quota"),
    "400 too long": _refused(
        400, "This model's maximum context length is 100 tokens. However, you have 200.", "context_length_exceeded"
    ),
    "400 content": _refused(
        400, "Your request was rejected as a result of our safety system.", "content_policy_violation"
    ),
    "500 as a page": Canned(b"<html>oops</html>", 500, (("content-type", "text/html"),)),
    "502 empty": Canned(b"", 502, ()),
    "moved": Canned(b"", 301, (("location", "https://elsewhere.invalid/"),)),
}

_LAST = {**CHUNK, "choices": [], "usage": _COUNTS}


def _text(*texts: str) -> list[Any]:
    return [chunk({"role": "assistant", "content": ""}), *(chunk({"content": text}) for text in texts)]


def _call(index: int, identity: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": name} if name else {})}
    named = {"id": identity, "type": "function"} if identity else {}
    return {"index": index, **named, "function": function}


_CALLS = [
    chunk({"role": "assistant", "content": None, "tool_calls": [_call(0, "call_1", "weather", "")]}),
    chunk({"tool_calls": [_call(0, None, None, '{"city"')]}),
    chunk({"tool_calls": [_call(0, None, None, ': "Rome"}')]}),
    chunk({"tool_calls": [_call(1, "call_2", "weather", "{}")]}),
]
STREAMS: Mapping[str, Canned] = {
    "plain": stream_of(*_text("Rome ", "is sunny."), chunk({}, "stop"), _LAST),
    "no usage": stream_of(*_text("Rome ", "is sunny."), chunk({}, "stop")),
    "usage beside the end": stream_of(*_text("Rome"), chunk({}, "stop", usage=_COUNTS)),
    "end beside the text": stream_of(*_text("Rome"), chunk({"content": " is."}, "stop"), _LAST),
    "length": stream_of(*_text("Rome"), chunk({}, "length"), _LAST),
    "eos": stream_of(*_text("Rome"), chunk({}, "eos"), _LAST),
    "empty": stream_of(*_text(), chunk({}, "stop"), _LAST),
    "tools": stream_of(*_CALLS, chunk({}, "tool_calls"), _LAST),
    "reasoning_content": stream_of(
        chunk({"reasoning_content": "h"}), chunk({"reasoning_content": "m"}), *_text("a"), chunk({}, "stop"), _LAST
    ),
    "reasoning": stream_of(chunk({"reasoning": "hm"}), *_text("a"), chunk({}, "stop"), _LAST),
    "think": stream_of(*_text("<think>", "hm", "</think>", "Rome"), chunk({}, "stop"), _LAST),
    "cached": stream_of(
        *_text("a"),
        chunk({}, "stop"),
        {**_LAST, "usage": {**_COUNTS, "prompt_tokens_details": {"cached_tokens": 1000}}},
    ),
    "two choices": stream_of(
        *_text("A"),
        {**chunk({}), "choices": [{"index": 1, "delta": {"content": "B"}, "finish_reason": None}]},
        chunk({}, "stop"),
        {**chunk({}), "choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]},
        _LAST,
    ),
    "usage in each": stream_of(
        chunk({"content": "Rome"}, usage={**_COUNTS, "completion_tokens": 1, "total_tokens": 1201}),
        chunk({"content": " is."}, usage={**_COUNTS, "completion_tokens": 2, "total_tokens": 1202}),
        chunk({}, "stop", usage=_COUNTS),
    ),
    "comments and other line ends": Canned(
        b": hello\r\n\r\n"
        + stream_of(*_text("Rome"), chunk({}, "stop"), _LAST)
        .body.replace(b"\n", b"\r\n")
        .replace(b"data: ", b"data:", 2),
        headers=(("content-type", "text/event-stream; charset=utf-8"),),
    ),
    "without the last line end": Canned(
        stream_of(*_text("Rome"), chunk({}, "stop"), _LAST).body.rstrip(b"\n"),
        headers=(("content-type", "text/event-stream"),),
    ),
    "something after [DONE]": stream_of(*_text("Rome"), chunk({}, "stop"), _LAST, "[DONE]", "garbage", done=False),
    "without [DONE]": stream_of(*_text("Rome"), chunk({}, "stop"), _LAST, done=False),
    "cut": stream_of(*_text("Rome"), done=False),
    "no reason": stream_of(*_text("Rome")),
    "an error": stream_of(*_text("Rome"), {"error": {"message": "overloaded", "code": 503}}, done=False),
    "no JSON": stream_of(*_text("Rome"), '{"choices": [', done=False),
    "nothing": stream_of(done=False),
    "a whole answer": WHOLE["plain"],
}
