"""C3: until its first piece has come, a stream is a call: tried again, falling back, costing nothing."""

from __future__ import annotations

import json

import pytest
from server import ANSWER, Answer, Drop, Raw, ScriptedServer, Status

import llmkit
from llmkit import Deployment, MultiAIClient, errors

KEY = "sk-local-0123456789"
SSE = "text/event-stream"
NOTHING = {
    "an error event": Raw(b'data: {"error":{"message":"overloaded","code":503}}\n\n', SSE),
    "a page": Raw(b"<html>down</html>", "text/html"),
    "an empty body": Raw(b"", SSE),
    "only the end": Raw(b"data: [DONE]\n\n", SSE),
    "an error body": Raw(json.dumps({"error": {"message": "model overloaded", "code": 503}}).encode()),
    "a broken connection": Drop(),
    "503": Status(503),
    "a role and a break": Answer("", end="reset"),
    "a broken chunk": Raw(b'data: {"choices": [{"del\n\n', SSE),
}


def client(server, other, **settings):
    deployments = {
        "a": Deployment("a", "openai", "gpt-4o", KEY, f"{server.url}/v1"),
        "b": Deployment("b", "openai", "gpt-4o", KEY, f"{other.url}/v1"),
    }
    return MultiAIClient(deployments, **settings)


@pytest.mark.parametrize("fault", NOTHING)
def test_c3_a_stream_that_gives_nothing_falls_back_and_costs_nothing(read, server, fault):
    charged = []
    with ScriptedServer() as other:
        server.script = [NOTHING[fault]] * 4
        retry = llmkit.Retry(tries=2, delay_s=0.01)
        counted = {"increment_usage": lambda usd, name: charged.append(name)}
        asking = client(server, other, fallbacks={"a": ["b"]}, retry=retry, **counted)

        pieces, reply = read(asking, "stream", "hi", "a")

        assert "".join(map(str, pieces)) == reply.text == ANSWER
        assert reply.name == "b"
        assert charged == ["b"]
        assert [charge.model for charge in asking.usages] == ["b"]
        assert len(server.requests) == (1 if fault == "a page" else 2)  # a page is no passing fault


@pytest.mark.parametrize("fault", NOTHING)
def test_c3_a_stream_is_tried_again_as_a_call_is(call, read, server, fault):
    at = {"model": "openai/gpt-4o", "api_base": f"{server.url}/v1", "api_key": KEY}
    retry = llmkit.Retry(tries=2, delay_s=0.01)
    server.script = [NOTHING[fault]]

    if fault == "a page":
        with pytest.raises(errors.ResponseError, match="down"):
            read(llmkit, "stream", "hi", retry=retry, **at)
        return
    assert read(llmkit, "stream", "hi", retry=retry, **at)[1].text == ANSWER
    assert len(server.requests) == 2


def test_c3_an_answer_that_comes_whole_is_read(read, server):
    body = {
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "All at once."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
    }
    server.script = [Raw(json.dumps(body).encode())]

    pieces, reply = read(
        llmkit, "stream", "hi", model="openai/gpt-4o", api_base=f"{server.url}/v1", api_key=KEY, retry=1
    )

    assert [piece.content for piece in pieces if piece.content] == ["All at once."]
    assert (reply.text, reply.finish_reason, reply.usage.total_tokens) == ("All at once.", "stop", 7)


@pytest.mark.parametrize("form", ["ask", "stream"])
def test_c3_an_error_in_an_answer_of_success_is_judged_by_its_code(call, read, server, form):
    error = {"error": {"message": "model overloaded", "code": 503}}
    server.script = [Raw(json.dumps(error).encode())]
    at = {"model": "openai/gpt-4o", "api_base": f"{server.url}/v1", "api_key": KEY, "retry": 1}

    with pytest.raises(errors.ServiceUnavailableError, match="model overloaded") as caught:
        call(llmkit, "ask", "hi", **at) if form == "ask" else read(llmkit, "stream", "hi", **at)

    assert caught.value.retryable


def test_an_error_in_the_middle_carries_the_text(read, server):
    chunk = {"choices": [{"index": 0, "delta": {"content": "Half"}, "finish_reason": None}]}
    refusal = {"error": {"type": "overloaded_error", "message": "Overloaded"}}
    server.script = [Raw(f"data: {json.dumps(chunk)}\n\ndata: {json.dumps(refusal)}\n\n".encode(), SSE)]

    with pytest.raises(errors.InternalServerError, match="Overloaded") as caught:
        read(llmkit, "stream", "hi", model="openai/gpt-4o", api_base=f"{server.url}/v1", api_key=KEY)

    assert caught.value.partial == "Half"
    assert len(server.requests) == 1


def test_c17_several_answers_in_one_stream_stay_apart(read, server):
    def chunk(index, text, end=None):
        return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": end}]}

    chunks = [
        chunk(0, "A1 "),
        chunk(1, "B1 "),
        chunk(0, "A2"),
        chunk(1, "B2"),
        chunk(0, "", "stop"),
        chunk(1, "", "stop"),
    ]
    events = "".join(f"data: {json.dumps(one)}\n\n" for one in chunks) + "data: [DONE]\n\n"
    server.script = [Raw(events.encode(), SSE)]

    pieces, reply = read(llmkit, "stream", "hi", n=2, model="openai/gpt-4o", api_base=f"{server.url}/v1", api_key=KEY)

    assert reply.text == "A1 A2"
    assert [choice.message.content for choice in reply.choices] == ["A1 A2", "B1 B2"]
    assert "".join(piece.content for piece in pieces if piece.index == 1) == "B1 B2"


@pytest.mark.parametrize(("said", "meant"), [(None, None), ("banana", "banana"), ("eos", "stop"), ("length", "length")])
def test_c17_a_finish_reason_is_not_invented(call, server, said, meant):
    server.script = [Answer(finish_reason=said)]
    at = {"model": "openai/gpt-4o", "api_base": f"{server.url}/v1", "api_key": KEY}
    assert call(llmkit, "ask", "hi", **at).finish_reason == meant


@pytest.mark.parametrize("counts", [{"prompt_tokens": -5}, {"prompt_tokens": 10**15}, {"completion_tokens": -1}])
def test_c17_counts_that_cannot_be_are_no_money(call, read, server, counts):
    usage = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16, **counts}
    server.script = [Answer(usage=usage)] * 2
    at = {"model": "openai/gpt-4o", "api_base": f"{server.url}/v1", "api_key": KEY}

    for reply in (call(llmkit, "ask", "hi", **at), read(llmkit, "stream", "hi", **at)[1]):
        assert reply.text == ANSWER
        assert 0 < reply.usage.cost_usd < 0.01
        assert reply.usage.source == "estimated"
        assert any("counts cannot be" in warning for warning in reply.warnings)
