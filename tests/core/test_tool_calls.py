"""C4: tool calls have places; ids that are missing, empty or equal change nothing, in all four forms."""

from __future__ import annotations

import json

import pytest
from server import ANSWER, Answer

import llmkit

KEY = "sk-local-0123456789"
MISSING = object()
IDS = {
    "equal": ("x", "x"),
    "empty": ("", ""),
    "null": (None, None),
    "one null": ("a", None),
    "missing": (MISSING, MISSING),
    "as they should be": ("a", "b"),
}


def weather(city: str) -> str:
    """Tell the weather."""
    return f"sunny in {city}"


def asked(ids):
    made = []
    for index, (identity, city) in enumerate(zip(ids, "AB", strict=True)):
        entry = {"index": index, "type": "function"} | ({} if identity is MISSING else {"id": identity})
        made.append(entry | {"function": {"name": "weather", "arguments": json.dumps({"city": city})}})
    return made


@pytest.mark.parametrize("form", ["whole", "streamed", "streamed in parts"])
@pytest.mark.parametrize("ids", IDS)
def test_c4_each_call_is_made_and_its_result_is_its_own(call, read, server, ids, form):
    calls = asked(IDS[ids])
    options = {"model": "openai/gpt-4o", "api_base": f"{server.url}/v1", "api_key": KEY, "tools": [weather]}
    if form == "whole":
        plain = [{key: value for key, value in entry.items() if key != "index"} for entry in calls]
        server.script = [
            Answer("", message={"role": "assistant", "content": None, "tool_calls": plain}, finish_reason="tool_calls")
        ]
        reply = call(llmkit, "ask", "hi", **options)
    else:
        deltas = [{"tool_calls": [entry]} for entry in calls]
        if form.endswith("parts"):
            deltas = [delta for entry in calls for delta in in_parts(entry)]
        server.script = [Answer("", deltas=deltas, finish_reason="tool_calls")]
        reply = read(llmkit, "stream", "hi", **options)[1]

    assert reply.text == ANSWER
    said, first, second = server.requests[1].body["messages"][1:]
    assert [json.loads(entry["function"]["arguments"]) for entry in said["tool_calls"]] == [
        {"city": "A"},
        {"city": "B"},
    ]
    assert [first["content"], second["content"]] == ["sunny in A", "sunny in B"]
    told = [entry["id"] for entry in said["tool_calls"]]
    assert [first["tool_call_id"], second["tool_call_id"]] == told
    assert len(set(told)) == 2
    assert all(told)


def in_parts(entry):
    """Split a call as providers do: name and id first, then its arguments, without them."""
    text, index = entry["function"]["arguments"], entry["index"]
    head = {**entry, "function": {"name": "weather", "arguments": text[:5]}}
    return [{"tool_calls": [head]}, {"tool_calls": [{"index": index, "function": {"arguments": text[5:]}}]}]


def test_the_thoughts_of_a_stream_can_be_sent_again(read, server):
    """As LiteLLM's newer proxies stream them: the blocks are numbered, which Anthropic refuses in a request."""
    thought = {"type": "thinking", "thinking": "h", "index": 0}
    parts = [
        thought,
        {**thought, "thinking": "m", "signature": "EqQB"},
        {"type": "redacted_thinking", "data": "E", "index": 1},
    ]
    server.script = [Answer("", deltas=[*({"thinking_blocks": [part]} for part in parts), {"content": "a"}])]

    reply = read(llmkit, "stream", "hi", model="openai/gpt-4o", api_base=f"{server.url}/v1", api_key=KEY)[1]

    assert reply.choices[0].message.thinking_blocks == [
        {"type": "thinking", "thinking": "hm", "signature": "EqQB"},
        {"type": "redacted_thinking", "data": "E"},
    ]
