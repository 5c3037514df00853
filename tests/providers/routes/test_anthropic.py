"""Claude on a route: llmkit writes and reads Anthropic's format as LiteLLM does, and without LiteLLM."""

from __future__ import annotations

import json
import random

import conversations
import pytest
from conversations import A_PICTURE_BY_ADDRESS, OF_LITELLM, answered_by
from pydantic import BaseModel
from server import Answer, Drop, Raw, Status
from test_direct import outcome_of, run
from test_equal import observer_of

import llmkit
from llmkit import Retry, errors
from llmkit.core.types import Request
from llmkit.providers.routes.learning.observe import KEY, Sent
from llmkit.providers.routes.table import table

OLD, NEW = "anthropic/claude-haiku-4-5", "anthropic/claude-sonnet-5-5"
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
MARK = {"cache_control": {"type": "ephemeral"}}
WEATHER = {
    "name": "weather",
    "description": "Tell the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
TOOL = {"type": "function", "function": WEATHER}
CALL = {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
THOUGHT = {"type": "thinking", "thinking": "Rome, then.", "signature": "EqQB"}
USED = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}}
CONVERSATION = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": PIXEL}}]},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "thinking_blocks": [THOUGHT]},
    {"role": "tool", "tool_call_id": "toolu_1", "content": "sunny"},
    {"role": "user", "content": [{"type": "text", "text": "and?", **MARK}]},
]


def at(server, model=OLD, **options):
    return {"model": model, "api_key": "sk-ant-local", "api_base": server.url, "retry": Retry(tries=1), **options}


def message(*blocks, reason="end_turn", **usage):
    counts = {"input_tokens": 11, "output_tokens": 5, **usage}
    made = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-4-5-20251001"}
    return Raw(json.dumps({**made, "content": blocks, "stop_reason": reason, "usage": counts}).encode())


def events(*several):
    lines = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in several]
    return Raw("".join(lines).encode(), "text/event-stream")


def block(at, begun, *deltas):
    parts = [{"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas]
    begin = {"type": "content_block_start", "index": at, "content_block": begun}
    return [begin, *parts, {"type": "content_block_stop", "index": at}]


STARTED = {"type": "message_start", "message": {"model": "claude-haiku-4-5-20251001", "usage": {"input_tokens": 11}}}
THINKING = block(
    0,
    {"type": "thinking", "thinking": ""},
    {"type": "thinking_delta", "thinking": "Rome, "},
    {"type": "thinking_delta", "thinking": "then."},
    {"type": "signature_delta", "signature": "EqQB"},
)
CALLING = block(
    1,
    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}},
    {"type": "input_json_delta", "partial_json": '{"city": '},
    {"type": "input_json_delta", "partial_json": '"Rome"}'},
)


def ended(reason="end_turn"):
    delta = {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 5}}
    return [delta, {"type": "message_stop"}]


TEXT = {"type": "text", "text": "Rome is sunny."}
ANSWERS = [
    Answer(),
    message(TEXT, {**TEXT, "text": " So is Pisa."}),
    message(TEXT, USED, reason="tool_use"),
    message(THOUGHT, {"type": "redacted_thinking", "data": "Emw"}, TEXT),
    message(TEXT, reason="max_tokens"),
    message(TEXT, reason="pause_turn"),
    message(TEXT, cache_read_input_tokens=900, cache_creation_input_tokens=70),
    message(TEXT, output_tokens_details={"thinking_tokens": 3}),
    Status(400, body={"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 9"}}),
    Status(401, body={"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}),
    Status(429, headers={"retry-after": "3"}),
    Status(529, body={"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    Raw(b'{"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}'),
    Raw(b"no json"),
    Drop(),
]


@pytest.mark.parametrize("entry", ANSWERS, ids=str)
def test_both_ways_lead_to_the_same(call, server, monkeypatch, entry):
    server.script = [entry, entry]

    ours = outcome_of(lambda: call(llmkit, "ask", "hi", **at(server)))
    monkeypatch.setenv("LLMKIT_ROUTES", "off")

    assert ours == outcome_of(lambda: call(llmkit, "ask", "hi", **at(server)))
    assert server.requests[0].body == server.requests[1].body


STREAMS = [
    Answer(),
    Answer(end="eof"),
    Answer(end="reset"),
    Answer(end="garbage"),
    events(STARTED, *THINKING, *CALLING, *ended("tool_use")),
    events(STARTED, *THINKING, {"type": "ping"}, *ended("pause_turn")),
    events(STARTED, *THINKING, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
    events(STARTED, *THINKING, *ended(None)),
    message(TEXT),
    Status(529),
]


@pytest.mark.parametrize("entry", STREAMS, ids=str)
def test_both_ways_read_the_same_streams(read, server, monkeypatch, entry):
    server.script = [entry, entry]

    def seen():
        try:
            pieces, answer = read(llmkit, "stream", "hi", **at(server))
        except errors.LlmkitError as error:
            return type(error), error.retryable, error.partial
        told = [(piece.content, piece.reasoning, piece.finish_reason) for piece in pieces if not piece.is_empty]
        return told, answer.text, answer.finish_reason, answer.usage, answer.model, answer.choices

    ours = seen()
    monkeypatch.setenv("LLMKIT_ROUTES", "off")

    assert ours == seen()
    assert server.requests[0].body == server.requests[1].body


REQUESTS = [
    (OLD, {}),
    (OLD, {"temperature": 0.3, "top_p": 1, "max_tokens": 9, "stop": "END", "user": "team-7"}),
    (OLD, {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}),
    (OLD, {"tools": [{**TOOL, **MARK}], "tool_choice": {"type": "function", "function": {"name": "weather"}}}),
    (OLD, {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
    (OLD, {"reasoning_effort": "high"}),
    (OLD, {"cache_control": {"type": "ephemeral"}, "extra_headers": {"X-Team": "7"}}),
    (NEW, {"reasoning_effort": "xhigh", "max_tokens": 5000}),
    (NEW, {"thinking": {"type": "adaptive", "display": "summarized"}}),
]


@pytest.mark.parametrize(("model", "options"), REQUESTS, ids=str)
def test_both_ways_send_the_same(call, server, monkeypatch, model, options):
    assert call(llmkit, "ask", CONVERSATION, **at(server, model, **options)).route == "direct"
    monkeypatch.setenv("LLMKIT_ROUTES", "off")
    assert call(llmkit, "ask", CONVERSATION, **at(server, model, **options)).route == "litellm"

    ours, theirs = server.requests
    assert (ours.path, ours.body) == (theirs.path, theirs.body)
    for name in ("x-api-key", "anthropic-version", "anthropic-beta", "x-team"):
        assert ours.headers.get(name) == theirs.headers.get(name)


class Place(BaseModel):
    city: str
    people: int | None = None


def test_a_schema_is_kept_to_on_both_ways(call, server, monkeypatch):
    server.script = [message({"type": "text", "text": '{"city": "Rome"}'})] * 2

    answer = call(llmkit, "ask", "where?", schema=Place, **at(server))
    monkeypatch.setenv("LLMKIT_ROUTES", "off")
    other = call(llmkit, "ask", "where?", schema=Place, **at(server))

    ours, theirs = server.requests
    assert (answer.route, answer.parsed) == ("direct", Place(city="Rome"))
    assert (other.route, other.parsed) == ("litellm", answer.parsed)
    assert ours.body == theirs.body
    assert ours.headers["anthropic-beta"] == theirs.headers["anthropic-beta"]


def test_tools_are_called(read, server):
    def weather(city: str) -> str:
        """Tell the weather."""
        return f"sunny in {city}"

    server.script = [events(STARTED, *CALLING, *ended("tool_use")), Answer("Sunny.")]

    _, answer = read(llmkit, "stream", "hi", tools=[weather], **at(server))

    assert (answer.text, answer.route) == ("Sunny.", "direct")
    _, called, result = server.requests[1].body["messages"]
    assert called == {"role": "assistant", "content": [USED]}
    assert result["content"] == [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny in Rome"}]


@pytest.mark.parametrize("off", ["", "off"])
def test_what_was_thought_in_a_stream_can_be_sent_again(call, read, server, monkeypatch, off):
    monkeypatch.setenv("LLMKIT_ROUTES", off)
    server.script = [events(STARTED, *THINKING, *CALLING, *ended("tool_use")), Answer("Sunny.")]

    _, answer = read(llmkit, "stream", "hi", tools=[TOOL], **at(server))
    result = {"role": "tool", "tool_call_id": "toolu_1", "content": "sunny"}
    said = [{"role": "user", "content": "hi"}, answer.choices[0].message, result]
    call(llmkit, "ask", said, tools=[TOOL], **at(server))

    assert server.requests[1].body["messages"][1] == {"role": "assistant", "content": [THOUGHT, USED]}


@pytest.mark.parametrize("form", ["llmkit.ask('hi', **at)", "list(llmkit.stream('hi', **at))"])
def test_a_call_never_imports_litellm(server, form):
    code = f"""
        import sys, llmkit
        at = dict(model="{OLD}", api_key="k", api_base="{server.url}")
        {form}
        print([name for name in ("litellm", "openai", "httpx") if name in sys.modules])
    """

    assert run(code) == "[]"


def test_what_a_cache_costs_is_known_without_litellm(server):
    server.script = [message(TEXT, cache_read_input_tokens=1000, cache_creation_input_tokens=2000)]
    code = f"""
        import sys, llmkit
        usage = llmkit.ask("hi", model="{OLD}", api_key="k", api_base="{server.url}").usage
        print(usage.prompt_tokens, usage.cached_tokens, f"{{usage.cost_usd:.9f}}", "litellm" in sys.modules)
    """

    assert run(code) == f"3011 1000 {11e-6 + 0.1e-6 * 1000 + 1.25e-6 * 2000 + 5e-6 * 5:.9f} False"


def test_tokens_of_thought_are_not_made_up(call, server, monkeypatch):
    server.script = [message(THOUGHT, TEXT)] * 2

    for off in ("", "off"):
        monkeypatch.setenv("LLMKIT_ROUTES", off)
        assert call(llmkit, "ask", "hi", **at(server)).usage.reasoning_tokens == 0


# -- what is left to LiteLLM ------------------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}}
LEFT = [
    {"params": {"thinking": {"type": "disabled"}}},
    {"params": {"thinking": {"type": "enabled", "budget_tokens": 2048}, "reasoning_effort": "low"}},
    {"params": {"max_tokens": 5, "max_completion_tokens": 6}},
    {"params": {"max_tokens": 5.0}},
    {"params": {"user": "ann@example.com"}},
    {"params": {"metadata": {"user_id": "ann"}}},
    {"params": {"extra_headers": {"Anthropic-Beta": "new-2026-01-01"}}},
    {"params": {"tools": [{"type": "function", "function": {"name": "a/b"}}]}},
    {"params": {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}},
    {"params": {"web_search_options": {"search_context_size": "low"}}},
    {"params": {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}}},
    {"messages": [{"role": "user", "content": " "}]},
    {"messages": A_PICTURE_BY_ADDRESS},
    {"messages": [{"role": "user", "content": "hi"}, {"role": "system", "content": "in French"}]},
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [{**CALL, "id": "a.b"}]}]},
    {"api_key": "sk-ant-oat01-a-token-of-a-subscription"},
    {"model": "anthropic/claude-opus-9"},
]


@pytest.mark.parametrize("changed", LEFT, ids=str)
def test_what_litellm_would_repair_or_translate_is_handed_on(changed):
    assert answered_by(**{"model": OLD, **changed}) == OF_LITELLM


@pytest.mark.parametrize("name", ["DEFAULT_MAX_TOKENS", "LITELLM_ANTHROPIC_DISABLE_URL_SUFFIX"])
def test_a_variable_that_litellm_regards_is_left_to_it(monkeypatch, name):
    monkeypatch.setenv(name, "1")

    assert answered_by(model=OLD, messages=CONVERSATION) == OF_LITELLM


# -- conversations of many turns --------------------------------------------------------------------------------------


def conversation(chance):
    """Return some conversation, as a person or a program could have it."""

    def text():
        return chance.choice(["hi", "  so ", "x\n", "ü 漢字", "{}"])

    def parts(*, pictures):
        several = [{"type": "text", "text": text()}, {"type": "text", "text": text(), **MARK}]
        several += [{"type": "image_url", "image_url": {"url": PIXEL}}] if pictures else []
        return chance.choice([text(), chance.choices(several, k=chance.randint(1, 3))])

    return conversations.conversation(
        chance,
        parts=parts,
        call=lambda place: {**CALL, "id": f"toolu_{place}"},
        thought=lambda: chance.choice([{}, {"thinking_blocks": [THOUGHT]}]),
        beside=[{}, {}, MARK],
        pictures_in_results=True,
    )


def test_conversations_are_written_as_litellm_writes_them():
    chance, covered = random.Random(1), 0
    for number in range(200):
        route = table().route_of((OLD, NEW)[number % 2])
        params = chance.choice([{}, {"tools": [TOOL]}, {"reasoning_effort": "high"}])
        request = Request(
            model=f"anthropic/{route.model}", messages=conversation(chance), params=params, api_key=KEY, timeout_s=30
        )
        if (ours := route.request(request, stream=number % 3 == 0)) is not None:
            covered += 1
            assert Sent.of(ours) == observer_of("anthropic").sent(request, stream=number % 3 == 0), request.messages
    assert covered > 150
