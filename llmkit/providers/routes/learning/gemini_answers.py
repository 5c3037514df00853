"""The recorded answers in Gemini's format, whole and streamed, good and bad."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llmkit.providers.routes.learning.loopback import Canned
from llmkit.providers.routes.learning.observe import stream_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_COUNTS = {"promptTokenCount": 1200, "candidatesTokenCount": 340, "totalTokenCount": 1540}
_OF_TEXT = {"promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1200}]}
_TEXT = {"text": "Rome is sunny."}
_CALL = {"functionCall": {"name": "weather", "args": {"city": "Zürich"}}}
_PICTURE = {"inlineData": {"mimeType": "image/png", "data": "iVBO"}}
_THOUGHT = {"text": "The user asks for Rome.", "thought": True}
_SIGNED = {"thoughtSignature": "CpwBAdHtim8="}
_REASONS = (
    *("STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "LANGUAGE", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII"),
    *("MALFORMED_FUNCTION_CALL", "UNEXPECTED_TOOL_CALL", "FINISH_REASON_UNSPECIFIED", "ODD"),
)


def _answer(*parts: Any, reason: str | None = "STOP", counts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    ended = {} if reason is None else {"finishReason": reason}
    candidate = {"content": {"parts": list(parts), "role": "model"}, **ended, "index": 0}
    head = {"modelVersion": "gemini-probe-001", "responseId": "r-1"}
    return {"candidates": [candidate], "usageMetadata": {**_COUNTS, **_OF_TEXT, **(counts or {})}, **head}


def _whole(*parts: Any, reason: Any = "STOP", **more: Any) -> Canned:
    made = {**_answer(*(parts or (_TEXT,)), reason=reason), **more}
    return Canned(json.dumps({name: value for name, value in made.items() if value != "left out"}).encode())


def _of(**candidate: Any) -> Canned:
    return _whole(candidates=[candidate])


_HEARD = {"modality": "AUDIO", "tokenCount": 200}
_READ = {"modality": "TEXT", "tokenCount": 1000}
_COUNTED: Mapping[str, Mapping[str, Any]] = {
    "cached": {"cachedContentTokenCount": 1000},
    "cached by kind": {
        "cachedContentTokenCount": 1000,
        "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 1000}],
    },
    "thought": {"thoughtsTokenCount": 300, "totalTokenCount": 1840},
    "thought within": {"thoughtsTokenCount": 300},
    "nothing but thought": {"candidatesTokenCount": 0, "thoughtsTokenCount": 300, "totalTokenCount": 1500},
    "cached and thought": {"cachedContentTokenCount": 1000, "thoughtsTokenCount": 300, "totalTokenCount": 1840},
    "a picture": {
        "promptTokensDetails": [{"modality": "IMAGE", "tokenCount": 258}, {"modality": "TEXT", "tokenCount": 942}]
    },
    "sound": {"promptTokensDetails": [_HEARD, _READ]},
    "sound and cached": {"promptTokensDetails": [_HEARD, _READ], "cachedContentTokenCount": 500},
    "sound that was cached": {
        "promptTokensDetails": [_HEARD, _READ],
        "cachedContentTokenCount": 500,
        "cacheTokensDetails": [{**_HEARD, "tokenCount": 150}, {**_READ, "tokenCount": 350}],
    },
    "a document": {"promptTokensDetails": [{"modality": "DOCUMENT", "tokenCount": 1200}]},
    "the answer by kind": {"candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 340}]},
    "a new kind": {"promptTokensDetails": [{"modality": "SMELL", "tokenCount": 1200}]},
    "tools of its own": {"toolUsePromptTokenCount": 50, "totalTokenCount": 1590},
    "traffic": {"trafficType": "ON_DEMAND", "serviceTier": "standard"},
    "no kinds": {"promptTokensDetails": []},
}
UNASKED = frozenset({"sound that was cached", "tools of its own"})
"""Answers to what no route covers: sound, and the tools that Google calls itself."""
_BLOCKED: Mapping[str, Any] = {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
_ONLY_PROMPT = {"promptTokenCount": 1200, "totalTokenCount": 1200}
_NEVER_ENDED = {"content": {"parts": [_TEXT]}}
_TOKENS = [{"token": "Rome", "tokenId": 1, "logProbability": -0.1}, {"token": " is", "logProbability": -0.2}]
_PROBABLE = {"topCandidates": [{"candidates": _TOKENS}], "chosenCandidates": _TOKENS, "logProbabilitySum": -0.3}
WHOLE: Mapping[str, Canned] = {
    "plain": _whole(),
    "another model": _whole(modelVersion="gemini-probe-002@default"),
    "no model": _whole(modelVersion="left out"),
    "no id": _whole(responseId="left out"),
    "two texts": _whole(_TEXT, {"text": " So is Pisa."}),
    "a signed text": _whole({**_TEXT, **_SIGNED}),
    "empty text": _whole({"text": ""}),
    "no parts": _of(content={"role": "model"}, finishReason="STOP"),
    "empty parts": _of(content={"parts": []}, finishReason="STOP"),
    "null parts": _of(content={"parts": None}, finishReason="STOP"),
    "a null part": _of(content={"parts": [None]}, finishReason="STOP"),
    "null text": _whole({"text": None}),
    "empty content": _of(content={}, finishReason="MAX_TOKENS"),
    "null content": _of(content=None, finishReason="MAX_TOKENS"),
    "no content": _of(finishReason="MAX_TOKENS"),
    "empty candidate": _of(index=0),
    "two candidates": _whole(candidates=[{**_NEVER_ENDED, "finishReason": "STOP"}, {**_NEVER_ENDED, "index": 1}]),
    "two candidates, one empty": _whole(candidates=[{"index": 0}, {**_NEVER_ENDED, "finishReason": "ODD"}]),
    "no candidates": _whole(candidates=[]),
    "null candidates": _whole(candidates=None),
    "candidates left out": _whole(candidates="left out"),
    "tool": _whole(_CALL),
    "tool with an id": _whole({"functionCall": {**_CALL["functionCall"], "id": "fc_1"}}),
    "signed tool": _whole({**_CALL, **_SIGNED}),
    "signed tool with an id": _whole({"functionCall": {**_CALL["functionCall"], "id": "fc_1"}, **_SIGNED}),
    "tool and text": _whole(_TEXT, _CALL),
    "two tools": _whole({**_CALL, **_SIGNED}, _CALL),
    "tool without arguments": _whole({"functionCall": {"name": "now", "args": {}}}),
    "tool without args": _whole({"functionCall": {"name": "now"}}),
    "tool with null args": _whole({"functionCall": {"name": "now", "args": None}}),
    "tool and MAX_TOKENS": _whole(_CALL, reason="MAX_TOKENS"),
    "malformed call": _of(content={}, finishReason="MALFORMED_FUNCTION_CALL", finishMessage="Malformed function call"),
    "thinking": _whole(_THOUGHT, _TEXT),
    "thinking signed": _whole({**_THOUGHT, **_SIGNED}, {**_TEXT, **_SIGNED}),
    "thinking twice": _whole(_THOUGHT, {**_THOUGHT, "text": " Hm."}, _TEXT),
    "thinking unseen": _whole({**_THOUGHT, "text": ""}, _TEXT),
    "thinking and tool": _whole(_THOUGHT, {**_CALL, **_SIGNED}),
    "no thought": _whole({**_TEXT, "thought": False}),
    "a picture made": _whole(_PICTURE),
    "text and two pictures": _whole(_TEXT, _PICTURE, {**_PICTURE, **_SIGNED}),
    "a file made": _whole({"inlineData": {"mimeType": "application/pdf", "data": "AAAA"}}),
    "code": _whole({"executableCode": {"language": "PYTHON", "code": "1"}}, _TEXT),
    "a new kind of part": _whole({"hologram": "?"}, _TEXT),
    "safety ratings": _of(**_NEVER_ENDED, finishReason="STOP", safetyRatings=[{"category": "X", "probability": "LOW"}]),
    "citations": _of(**_NEVER_ENDED, finishReason="STOP", citationMetadata={"citationSources": [{"uri": "u"}]}),
    "sources": _of(
        **_NEVER_ENDED,
        finishReason="STOP",
        groundingMetadata={
            "groundingChunks": [{"web": {"uri": "https://a.example", "title": "A"}}],
            "groundingSupports": [{"segment": {"startIndex": 0, "endIndex": 4}, "groundingChunkIndices": [0]}],
        },
    ),
    "log probabilities": _of(**_NEVER_ENDED, finishReason="STOP", logprobsResult=_PROBABLE),
    "no log probabilities": _of(**_NEVER_ENDED, finishReason="STOP", logprobsResult={}),
    **{f"ends with {reason}": _whole(reason=reason) for reason in _REASONS},
    "ends without a reason": _whole(reason=None),
    **{name: Canned(json.dumps(_answer(_TEXT, counts=counts)).encode()) for name, counts in _COUNTED.items()},
    "blocked": _whole(candidates="left out", usageMetadata=_ONLY_PROMPT, **_BLOCKED),
    "blocked without usage": _whole(candidates="left out", usageMetadata="left out", **_BLOCKED),
    "not blocked": _whole(promptFeedback={"safetyRatings": []}),
    "nothing but the prompt counted": _whole(usageMetadata=_ONLY_PROMPT),
    "zero usage": _whole(usageMetadata={"promptTokenCount": 0, "totalTokenCount": 0}),
    "impossible usage": _whole(usageMetadata={"promptTokenCount": -5, "candidatesTokenCount": 2}),
    "null usage": _whole(usageMetadata=None),
    "empty usage": _whole(usageMetadata={}),
    "no usage": _whole(usageMetadata="left out"),
    "another format": Canned(b'{"answer": "Rome is sunny."}'),
    "a list": Canned(json.dumps([_answer(_TEXT)]).encode()),
    "an error instead": Canned(b'{"error": {"code": 503, "message": "Overloaded", "status": "UNAVAILABLE"}}'),
    "no JSON": Canned(b"<html>hello</html>", headers=(("content-type", "text/html"),)),
    "half of it": Canned(json.dumps(_answer(_TEXT)).encode()[:-20]),
}


def _refused(status: int, word: str = "UNKNOWN", message: str = "no", details: Any = (), **headers: str) -> Canned:
    body = {"error": {"code": status, "message": message, "status": word, "details": list(details)}}
    pairs = [("content-type", "application/json"), *((name.replace("_", "-"), text) for name, text in headers.items())]
    return Canned(json.dumps(body).encode(), status, pairs)


_WAIT = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}
_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
_STATUSES = (400, 401, 402, 403, 404, 405, 408, 409, 413, 418, 422, 429, 499, 500, 502, 503, 504, 524, 529)
REFUSALS: Mapping[str, Canned] = {
    **{str(status): _refused(status) for status in _STATUSES},
    "key": _refused(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", [_KEY]),
    "no key": _refused(403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers"),
    "place": _refused(400, "FAILED_PRECONDITION", "User location is not supported for the API use."),
    "too long": _refused(
        400,
        "INVALID_ARGUMENT",
        "The input token count (2000000) exceeds the maximum number of tokens allowed (1048576).",
    ),
    "no such model": _refused(404, "NOT_FOUND", "models/gemini-probe is not found for API version v1beta"),
    "quota": _refused(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan.", [_WAIT]),
    "exhausted": _refused(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
    "with a wait": _refused(429, "RESOURCE_EXHAUSTED", "slow down", retry_after="7"),
    "overloaded": _refused(503, "UNAVAILABLE", "The model is overloaded. Please try again later."),
    "late": _refused(504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
    "a list": Canned(b'[{"error": {"code": 400, "message": "no", "status": "INVALID_ARGUMENT"}}]', 400),
    "500 as a page": Canned(b"<html>oops</html>", 500, (("content-type", "text/html"),)),
    "502 empty": Canned(b"", 502, ()),
    "moved": Canned(b"", 301, (("location", "https://elsewhere.invalid/"),)),
}


def _piece(*parts: Any, reason: str | None = None, **counts: Any) -> dict[str, Any]:
    return _answer(*parts, reason=reason, counts=counts)


def _bare(**more: Any) -> dict[str, Any]:
    return {"modelVersion": "gemini-probe-001", **more}


def _stream(*events: Any) -> Canned:
    return stream_of(*events, done=False)


def _texts(*texts: str, reason: str | None = "STOP", **counts: Any) -> list[dict[str, Any]]:
    *first, last = ({"text": text} for text in texts)
    return [*(_piece(part, candidatesTokenCount=1) for part in first), _piece(last, reason=reason, **counts)]


_FAILED = {"error": {"code": 503, "message": "Overloaded", "status": "UNAVAILABLE"}}
_ENDED = _bare(candidates=[{"finishReason": "STOP", "index": 0}], usageMetadata=_COUNTS)
_FIRST = {"content": {"parts": [{"text": "A"}]}, "index": 0}
_SECOND = {"content": {"parts": [{"text": "B"}]}, "index": 1}
STREAMS: Mapping[str, Canned] = {
    "plain": _stream(*_texts("Rome ", "is ", "sunny.")),
    "one event": _stream(*_texts("Rome is sunny.")),
    "end without content": _stream(_piece(_TEXT), _ENDED),
    "end with an empty text": _stream(*_texts("Rome", "")),
    "end with empty parts": _stream(_piece(_TEXT), _piece(reason="STOP")),
    "usage at the end": _stream(_bare(candidates=[_NEVER_ENDED]), _ENDED),
    "no usage": _stream(_bare(candidates=[{**_NEVER_ENDED, "finishReason": "STOP"}])),
    "no model": _stream({"candidates": [{**_NEVER_ENDED, "finishReason": "STOP"}]}),
    "empty": _stream(*_texts("")),
    "no parts": _stream(_bare(candidates=[{"content": {"role": "model"}, "finishReason": "STOP"}])),
    "null parts": _stream(_bare(candidates=[{"content": {"parts": None}, "finishReason": "STOP"}])),
    "an empty candidate": _stream(_piece(_TEXT), _bare(candidates=[{"index": 0}]), _ENDED),
    "no candidates between": _stream(_piece(_TEXT), _bare(candidates=[]), _bare(usageMetadata=_COUNTS), _ENDED),
    **{f"ends with {reason}": _stream(*_texts("Rome ", "is", reason=reason)) for reason in _REASONS},
    "tool": _stream(_piece(_CALL), _ENDED),
    "tool at the end": _stream(_piece(_CALL, reason="STOP")),
    "tool and text": _stream(*_texts("let me see", reason=None), _piece(_CALL, reason="STOP")),
    "tool and empty text": _stream(_piece({**_CALL, **_SIGNED}), *_texts("")),
    "tool and MAX_TOKENS": _stream(_piece(_CALL), *_texts("", reason="MAX_TOKENS")),
    "two tools": _stream(_piece(_CALL, {"functionCall": {"name": "now", "args": {}}}), _piece(_CALL, reason="STOP")),
    "tool with an id": _stream(_piece({"functionCall": {**_CALL["functionCall"], "id": "fc_1"}}, reason="STOP")),
    "signed tool": _stream(_piece({**_CALL, **_SIGNED}, reason="STOP")),
    "tool without args": _stream(_piece({"functionCall": {"name": "now"}}), _ENDED),
    "thinking": _stream(_piece(_THOUGHT), _piece({**_THOUGHT, "text": " Hm."}), *_texts("Rome", " is.")),
    "thinking and text at once": _stream(_piece(_THOUGHT, _TEXT, reason="STOP")),
    "thinking signed": _stream(_piece(_THOUGHT), _piece({**_TEXT, **_SIGNED}), *_texts("")),
    "a signed thought": _stream(_piece({**_THOUGHT, **_SIGNED}), *_texts("Rome")),
    "thinking and tool": _stream(_piece(_THOUGHT), _piece({**_CALL, **_SIGNED}, reason="STOP")),
    "thinking unseen": _stream(_piece({**_THOUGHT, "text": ""}), *_texts("Rome")),
    **{name: _stream(*_texts("Rome ", "is", **counts)) for name, counts in _COUNTED.items()},
    "a picture made": _stream(*_texts("look", reason=None), _piece(_PICTURE), *_texts("")),
    "a picture at the end": _stream(_piece(_PICTURE, _TEXT, reason="STOP")),
    "log probabilities": _stream(
        _bare(candidates=[{**_NEVER_ENDED, "logprobsResult": _PROBABLE}]),
        _bare(
            candidates=[{**_NEVER_ENDED, "logprobsResult": _PROBABLE, "finishReason": "STOP"}], usageMetadata=_COUNTS
        ),
    ),
    "two choices": _stream(
        _bare(candidates=[_FIRST, _SECOND]),
        _bare(candidates=[{**_FIRST, "finishReason": "STOP"}, {**_SECOND, "finishReason": "MAX_TOKENS"}]),
    ),
    "blocked": _stream({**_BLOCKED, "usageMetadata": _ONLY_PROMPT, "modelVersion": "gemini-probe-001"}),
    "blocked in the middle": _stream(_piece(_TEXT), {**_BLOCKED, "usageMetadata": _ONLY_PROMPT}),
    "safety ratings": _stream(_piece(_TEXT), _bare(candidates=[{"finishReason": "STOP", "safetyRatings": []}])),
    "a new kind of part": _stream(_piece({"hologram": "?"}), *_texts("Rome")),
    "a new kind of event": _stream(_bare(hologram="?"), *_texts("Rome")),
    "line ends": Canned(
        _stream(*_texts("Rome ", "is")).body.replace(b"\n", b"\r\n"),
        headers=(("content-type", "text/event-stream; charset=utf-8"),),
    ),
    "without the last empty line": Canned(
        _stream(*_texts("Rome ", "is")).body.rstrip(b"\n") + b"\n", headers=(("content-type", "text/event-stream"),)
    ),
    "with [DONE]": stream_of(*_texts("Rome ", "is")),
    "cut": _stream(_piece(_TEXT)),
    "cut in the tool": _stream(_piece(_CALL)),
    "no reason": _stream(*_texts("Rome", reason=None), _bare(usageMetadata=_COUNTS)),
    "an error": _stream(_piece(_TEXT), _FAILED),
    "an error at once": _stream(_FAILED),
    "no JSON": _stream(_piece(_TEXT), '{"candidates": ['),
    "nothing": _stream(),
    "a whole answer": WHOLE["plain"],
    "a list": Canned(json.dumps(_texts("Rome ", "is")).encode()),
}
