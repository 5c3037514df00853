"""The requests with which LiteLLM is asked, one for each feature, and the answers that it is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmkit.providers.routes import features
from llmkit.providers.routes.dialects import ANTHROPIC, GEMINI, OPENAI

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

HELLO: Sequence[Mapping[str, Any]] = ({"role": "user", "content": "hi"},)
_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
_TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "Tell the weather.", "parameters": _SCHEMA},
}
_STRICT = {"type": "function", "function": {**_TOOL["function"], "strict": True}}  # type: ignore[dict-item]
_CALLS = [{"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}]
_PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="


@dataclass(frozen=True, slots=True)
class Probe:
    """A request that has a feature: parameters, or messages; `needs` are parameters that it cannot do without."""

    feature: str
    params: Mapping[str, Any] = field(default_factory=dict)
    messages: Sequence[Mapping[str, Any]] = HELLO
    needs: Mapping[str, Any] = field(default_factory=dict)


_VALUES: Mapping[str, Sequence[Any]] = {
    "temperature": (0, 0.3, 0.7, 1, 1.5, 2),
    "top_p": (0.5, 1),
    "presence_penalty": (0, 0.5, 1, 1.5, -1),
    "frequency_penalty": (0, 0.5, 1, 1.5, -1),
    "max_tokens": (1, 64),
    "max_completion_tokens": (1, 64),
    "stop": ("END", ["END", "."]),
    "seed": (7,),
    "n": (1, 2),
    "user": ("u",),
    "logit_bias": ({"50256": -100},),
    "logprobs": (True, False),
    "response_format": (
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"name": "place", "schema": _SCHEMA}},
        {"type": "json_schema", "json_schema": {"name": "place", "schema": _SCHEMA, "strict": True}},
    ),
    "tools": ([_TOOL], [_STRICT]),
    "reasoning_effort": ("none", "minimal", "low", "medium", "high", "xhigh"),
    "verbosity": ("low", "high"),
    "service_tier": ("auto", "default", "flex", "priority"),
    "metadata": ({"k": "v"},),
    "store": (True, False),
    "prompt_cache_key": ("k",),
    "safety_identifier": ("s",),
    "prediction": ({"type": "content", "content": "hi"},),
    "modalities": (["text"],),
    "web_search_options": ({"search_context_size": "low"},),
    "top_k": (40,),
    "min_p": (0.1,),
    "repetition_penalty": (1.1,),
    "extra_body": ({"custom_field": 1},),
    "extra_headers": ({"X-Probe": "1"},),
    "enable_thinking": (True,),
    "chat_template_kwargs": ({"enable_thinking": False},),
    "stream_options": ({"include_usage": True},),
    "thinking": ({"type": "enabled", "budget_tokens": 1024},),
}
_MARK: dict[str, Any] = {"cache_control": {"type": "ephemeral"}}
_OF_ANTHROPIC: Mapping[str, Sequence[Any]] = {
    "tools": ([{**_TOOL, **_MARK}],),
    "thinking": ({"type": "adaptive"}, {"type": "adaptive", "display": "summarized"}),
    "reasoning_effort": ("max",),
    "cache_control": ({"type": "ephemeral"},),
}
_OPTIONAL = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "title": "Country"}
_NESTED = {"type": "object", "properties": {"country": _OPTIONAL, "days": {"type": "array", "items": _SCHEMA}}}
_OF_GEMINI: Mapping[str, Sequence[Any]] = {
    "safety_settings": ([{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}],),
    "tools": ([{"type": "function", "function": {"name": "weather", "parameters": _NESTED}}, _TOOL],),
    "reasoning_effort": ("disable",),
}
_OWN: Mapping[str, Mapping[str, Sequence[Any]]] = {ANTHROPIC: _OF_ANTHROPIC, GEMINI: _OF_GEMINI}
_WITH_TOOLS: Mapping[str, Sequence[Any]] = {
    "tool_choice": ("auto", "none", "required", {"type": "function", "function": {"name": "weather"}}),
    "parallel_tool_calls": (True, False),
}


def _text(text: str, role: str = "user", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": text, **more}


def _parts(*parts: Mapping[str, Any], role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": "look"}, *parts]}


def _picture(**picture: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": picture}


_RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
_CONVERSATIONS: Sequence[Sequence[Mapping[str, Any]]] = (
    (_text("be brief", "system"), *HELLO),
    (_text("be brief", "developer"), *HELLO),
    (_text("be brief", "system"), _text("and kind", "system"), *HELLO),
    (*HELLO, _text("now in French", "system"), _text("go on")),
    (*HELLO, _text("hello", "assistant"), _text("go on")),
    (*HELLO, _text("go on")),
    (*HELLO, _text("hello", "assistant"), _text("again", "assistant"), _text("go on")),
    (_text("hello", "assistant"), _text("go on")),
    (*HELLO, _text("hel", "assistant")),
    (_text("hi", name="ann"),),
    (*HELLO, _text("hello", "assistant", name="bob"), _text("go on")),
    (_text("be brief", "system", name="rules"), *HELLO),
    (_text(""),),
    (*HELLO, _text("", "assistant"), _text("go on")),
    (_parts(),),
    (_parts(role="system"), *HELLO),
    (*HELLO, _parts(role="assistant"), _text("go on")),
    (_parts(_picture(url=_PIXEL)),),
    (_parts(_picture(url=_PIXEL, detail="low")),),
    (_parts({"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}),),
    (*HELLO, {"role": "assistant", "content": None, "tool_calls": _CALLS}, _RESULT),
    (*HELLO, {"role": "assistant", "content": "", "tool_calls": _CALLS}, _RESULT),
    (*HELLO, {"role": "assistant", "content": "let me see", "tool_calls": _CALLS}, _RESULT, _text("and?")),
    (*HELLO, {"role": "assistant", "content": None, "tool_calls": _CALLS}, {**_RESULT, "name": "weather"}),
)
_MARKED = {"type": "text", "text": "long", **_MARK}
_THOUGHTS = [
    {"type": "thinking", "thinking": "hm", "signature": "EqQB"},
    {"type": "redacted_thinking", "data": "EmwK"},
]
_THOUGHT = {"role": "assistant", "thinking_blocks": _THOUGHTS}
_CALLED = {"role": "assistant", "content": None, "tool_calls": _CALLS}
_CONVERSATIONS_OF_ANTHROPIC: Sequence[Sequence[Mapping[str, Any]]] = (
    ({"role": "user", "content": [_MARKED]},),
    ({"role": "user", "content": [{**_picture(url=_PIXEL), **_MARK}]},),
    (_text("long", **_MARK),),
    ({"role": "system", "content": [_MARKED]}, *HELLO),
    (_text("be brief", "system", **_MARK), *HELLO),
    (*HELLO, {"role": "assistant", "content": [_MARKED]}, _text("go on")),
    (*HELLO, _text("hello", "assistant", **_MARK), _text("go on")),
    (*HELLO, _CALLED, {**_RESULT, **_MARK}),
    (*HELLO, _CALLED, {**_RESULT, "content": [{"type": "text", "text": "sunny"}]}),
    (*HELLO, _CALLED, {**_RESULT, "content": [_MARKED, _picture(url=_PIXEL)]}),
    (*HELLO, {**_THOUGHT, "content": "hello"}, _text("go on")),
    (*HELLO, {**_THOUGHT, "content": "hello", "reasoning_content": "hm"}, _text("go on")),
    (*HELLO, {**_THOUGHT, **_CALLED}, _RESULT),
)
_SIGNED = [{**_CALLS[0], "id": "call_1__thought__EqQB"}]
_CONVERSATIONS_OF_GEMINI: Sequence[Sequence[Mapping[str, Any]]] = (
    (*HELLO, {"role": "assistant", "content": "hello", "reasoning_content": "hm"}, _text("go on")),
    (*HELLO, {**_THOUGHT, "content": "hello", "reasoning_content": "hm"}, _text("go on")),
    (
        *HELLO,
        {**_THOUGHT, **_CALLED, "reasoning_content": "hm", "tool_calls": _SIGNED},
        {**_RESULT, "tool_call_id": _SIGNED[0]["id"]},
    ),
    (*HELLO, _CALLED, {**_RESULT, "content": [{"type": "text", "text": "sunny"}]}),
    (*HELLO, _CALLED, {**_RESULT, "content": '{"sun": true}'}),
)
_OWN_CONVERSATIONS = {ANTHROPIC: _CONVERSATIONS_OF_ANTHROPIC, GEMINI: _CONVERSATIONS_OF_GEMINI}


def of_params(dialect: str = OPENAI) -> Iterator[Probe]:
    """Yield a probe for each value of each parameter."""
    for name, values in [*_VALUES.items(), *_OWN.get(dialect, {}).items()]:
        for value in values:
            yield Probe(features.of_param(name, value), {name: value})
    for name, values in _WITH_TOOLS.items():
        for value in values:
            yield Probe(features.of_param(name, value), {name: value}, needs={"tools": [_TOOL]})
    yield Probe("top_logprobs=number", {"top_logprobs": 2}, needs={"logprobs": True})


def of_messages(dialect: str = OPENAI) -> Iterator[Probe]:
    """Yield a probe for each kind of conversation; its name is what is new in it."""
    seen = set(features.of_messages(HELLO))
    for messages in (*_CONVERSATIONS, *_OWN_CONVERSATIONS.get(dialect, ())):
        new = sorted(set(features.of_messages(messages)) - seen)
        yield Probe(", ".join(new), messages=messages)
