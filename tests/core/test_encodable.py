"""Halves of surrogate pairs, which JSON can say and no encoding can: answers have none, whatever a provider sends."""

from __future__ import annotations

import json

import pytest
from server import ANSWER, Answer

import llmkit
from llmkit import EndpointClient
from llmkit.testing import Raw

PARTS = ["a\ud83d", "\ude00", "é\ude00", "b\ud83d", "c", "\ud83d"]
WHOLE = "a😀é\ufffdb\ufffdc\ufffd"


@pytest.fixture(params=["direct", "litellm"])
def options(request, server, monkeypatch):
    """A model of the scripted server, on a route and on LiteLLM's way."""
    if request.param == "litellm":
        monkeypatch.setenv("LLMKIT_ROUTES", "off")
    return {"model": "openai/gpt-4o", "api_key": "k", "api_base": f"{server.url}/v1"}


def test_a_whole_answer_can_be_encoded(call, server, options, request):
    server.script = [Answer("".join(PARTS))]

    reply = call(llmkit, "ask", "hi", **options)

    assert reply.text == reply.choices[0].message.content == reply.messages[-1]["content"] == WHOLE
    assert reply.route == request.node.callspec.params["options"]


@pytest.mark.parametrize("kind", ["content", "reasoning_content"])
def test_a_pair_that_is_split_over_two_chunks_is_joined(read, server, options, kind):
    server.script = [Answer(deltas=[{kind: part} for part in PARTS])]

    pieces, reply = read(llmkit, "stream", "hi", **options)

    texts = [piece.content or piece.reasoning for piece in pieces if not piece.is_empty]
    assert "".join(texts) == getattr(reply.choices[0].message, kind) == WHOLE
    assert texts[:4] == ["a", "😀", "é\ufffd", "b"]


def test_a_tool_may_be_asked_with_half_a_character_and_answer_one(call, read, server, options):
    def half(name: str) -> str:
        """Cut."""
        return f"{name}\ud83d"

    calls = [
        {
            "id": f"{at}\ud83d",
            "index": at,
            "type": "function",
            "function": {"name": name, "arguments": '{"name": "x\\ud83d"}'},
        }
        for at, name in enumerate(("half", "none\ud83d"))
    ]
    calls.append({**calls[0], "id": "2", "index": 2, "function": {"name": "half", "arguments": '{"name": "x\ud83d"}'}})
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    server.script = [Answer("", message=message, finish_reason="tool_calls"), Answer()]
    server.script += [Answer("", deltas=[{"tool_calls": calls}], finish_reason="tool_calls"), Answer()]

    assert call(llmkit, "ask", "hi", tools=[half], **options).text == ANSWER
    assert read(llmkit, "stream", "hi", tools=[half], **options)[1].text == ANSWER
    for request in (server.requests[1], server.requests[3]):
        assert request.body["messages"][-1]["content"] == "x\ufffd\ufffd"


def test_an_endpoints_answers_can_be_encoded_too(call, read, server):
    events = "".join(f"data: {json.dumps({'content': part})}\n\n" for part in PARTS)
    whole = json.dumps({"answer": "".join(PARTS)}).encode()
    server.script = [Raw(whole), Raw(f"{events}data: [DONE]\n\n".encode(), "text/event-stream")]
    client = EndpointClient(server.url, token="t", retry=1)

    assert call(client, "ask", "hi").text == WHOLE
    assert "".join(client.stream("hi")) == WHOLE
