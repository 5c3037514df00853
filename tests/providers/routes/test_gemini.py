"""Gemini on a route: llmkit writes and reads AI Studio's format as LiteLLM does, and without LiteLLM."""

from __future__ import annotations

import json
import random
import re

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
from llmkit.providers.routes.learning import gemini_answers
from llmkit.providers.routes.learning.observe import KEY, Sent
from llmkit.providers.routes.table import table

OLD, NEW, LATEST = "gemini/gemini-2.5-flash", "gemini/gemini-3-flash-preview", "gemini/gemini-flash-latest"
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
CITY = {"type": "string", "description": "Where."}
WEATHER = {
    "name": "weather",
    "description": "Tell the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": CITY, "unit": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
TOOL = {"type": "function", "function": WEATHER}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
SIGNED = {**CALL, "id": "call_1__thought__EqQB"}
CONVERSATION = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": PIXEL}}]},
    {"role": "assistant", "content": None, "tool_calls": [SIGNED], "reasoning_content": "Rome, then."},
    {"role": "tool", "tool_call_id": SIGNED["id"], "content": "sunny"},
    {"role": "user", "content": "and?"},
]


def at(server, model=OLD, **options):
    base = f"{server.url}/v1beta"
    return {"model": model, "api_key": "AIza-local", "api_base": base, "retry": Retry(tries=1), **options}


def piece(*parts, reason="STOP", **counts):
    ended = {} if reason is None else {"finishReason": reason}
    candidate = {"content": {"role": "model", "parts": parts}, "index": 0, **ended}
    usage = {"promptTokenCount": 11, "candidatesTokenCount": 5, "totalTokenCount": 16, **counts}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-2.5-flash-001"}


def message(*parts, **more):
    return Raw(json.dumps(piece(*parts, **more)).encode())


def events(*several, end=b"\n\n"):
    lines = [b"data: " + json.dumps(event).encode() + end for event in several]
    return Raw(b"".join(lines), "text/event-stream")


TEXT = {"text": "Rome is sunny."}
THOUGHT = {"text": "Rome, then.", "thought": True}
CALLED = {"functionCall": {"name": "weather", "args": {"city": "Rome"}}, "thoughtSignature": "EqQB"}
BLOCKED = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 11}}


def refused(status, word, text):
    return Status(status, body={"error": {"code": status, "message": text, "status": word}})


ANSWERS = [
    Answer(),
    message(TEXT, {"text": " So is Pisa."}),
    message(TEXT, CALLED, {"functionCall": {"name": "now", "args": {}}}),
    message(THOUGHT, TEXT, thoughtsTokenCount=30, totalTokenCount=46),
    message(TEXT, cachedContentTokenCount=9, promptTokensDetails=[{"modality": "TEXT", "tokenCount": 11}]),
    message(TEXT, promptTokensDetails=[{"modality": "IMAGE", "tokenCount": 6}, {"modality": "TEXT", "tokenCount": 5}]),
    message(TEXT, reason="MAX_TOKENS"),
    message(TEXT, reason="SAFETY"),
    message(TEXT, reason="ODD"),
    message(TEXT, reason=None),
    message({"inlineData": {"mimeType": "image/png", "data": "iVBO"}}),
    Raw(json.dumps(BLOCKED).encode()),
    Raw(json.dumps([piece(TEXT)]).encode()),
    refused(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key."),
    refused(400, "INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8)."),
    refused(404, "NOT_FOUND", "models/gemini-9 is not found for API version v1beta"),
    refused(429, "RESOURCE_EXHAUSTED", "You exceeded your current quota"),
    refused(503, "UNAVAILABLE", "The model is overloaded."),
    Raw(b'{"error": {"code": 503, "message": "The model is overloaded.", "status": "UNAVAILABLE"}}'),
    Raw(b"no json"),
    Drop(),
]


def without_chance(outcome):
    """Return an outcome in which the ids that were made up have their form only."""
    return re.sub(r"call_[0-9a-f]{28}", "call_?", repr(outcome))


@pytest.mark.parametrize("entry", ANSWERS, ids=str)
def test_both_ways_lead_to_the_same(call, server, monkeypatch, entry):
    server.script = [entry, entry]

    ours = outcome_of(lambda: call(llmkit, "ask", "hi", **at(server)))
    monkeypatch.setenv("LLMKIT_ROUTES", "off")

    assert without_chance(ours) == without_chance(outcome_of(lambda: call(llmkit, "ask", "hi", **at(server))))
    assert server.requests[0].body == server.requests[1].body


STREAMS = [
    Answer(),
    Answer(end="eof"),
    Answer(end="reset"),
    Answer(end="garbage"),
    events(piece(THOUGHT, reason=None), piece(TEXT, reason=None), piece({"text": ""})),
    events(piece(TEXT, reason=None), piece(CALLED, reason=None), piece({"text": ""})),
    events(piece(TEXT, reason=None), piece({"text": " So"}, reason="SAFETY")),
    events(piece(TEXT, reason=None), piece({"text": " So"}, reason="ODD"), end=b"\r\n\r\n"),
    events(piece(TEXT, reason=None), {"error": {"code": 503, "message": "Overloaded", "status": "UNAVAILABLE"}}),
    events(piece(TEXT, reason=None)),
    events(piece(reason=None), piece()),
    events(BLOCKED),
    Raw(json.dumps([piece(TEXT)]).encode()),
    refused(429, "RESOURCE_EXHAUSTED", "slow down"),
]


@pytest.mark.parametrize("entry", STREAMS, ids=str)
def test_both_ways_read_the_same_streams(read, server, monkeypatch, entry):
    server.script = [entry, entry]

    def seen():
        try:
            pieces, answer = read(llmkit, "stream", "hi", **at(server))
        except errors.LlmkitError as error:
            return type(error), error.status_code, error.retryable, error.partial, error.sent, error.may_be_paid
        told = [(piece.content, piece.reasoning, piece.finish_reason) for piece in pieces if not piece.is_empty]
        return told, answer.text, answer.finish_reason, answer.usage, answer.model, answer.choices

    ours = seen()
    monkeypatch.setenv("LLMKIT_ROUTES", "off")

    assert without_chance(ours) == without_chance(seen())
    assert server.requests[0].body == server.requests[1].body
    assert {request.path for request in server.requests} == {
        "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    }


REQUESTS = [
    (OLD, {}),
    (OLD, {"temperature": 0.3, "top_p": 1, "top_k": 40, "max_tokens": 9, "stop": "END", "seed": 7, "n": 2}),
    (OLD, {"presence_penalty": 0.5, "frequency_penalty": 1.5, "max_completion_tokens": 9, "stop": ["END", "."]}),
    (OLD, {"tools": [TOOL, {"type": "function", "function": {"name": "now"}}], "tool_choice": "required"}),
    (OLD, {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}}),
    (OLD, {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
    (OLD, {"reasoning_effort": "none"}),
    (OLD, {"response_format": {"type": "json_object"}}),
    (OLD, {"safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]}),
    (OLD, {"extra_body": {"generationConfig": {"topK": 3}}, "extra_headers": {"X-Team": "7"}, "temperature": 0}),
    (NEW, {}),
    (NEW, {"reasoning_effort": "minimal", "max_tokens": 50, "presence_penalty": 0.5}),
    (NEW, {"thinking": {"type": "enabled", "budget_tokens": 2048}, "temperature": 0.5}),
    (NEW, {"tools": [TOOL]}),
    (LATEST, {"tools": [TOOL], "user": "ann"}),
]


@pytest.mark.parametrize(("model", "options"), REQUESTS, ids=str)
def test_both_ways_send_the_same(call, server, monkeypatch, model, options):
    assert call(llmkit, "ask", CONVERSATION, **at(server, model, **options)).route == "direct"
    monkeypatch.setenv("LLMKIT_ROUTES", "off")
    assert call(llmkit, "ask", CONVERSATION, **at(server, model, **options)).route == "litellm"

    ours, theirs = server.requests
    assert (ours.path, ours.body) == (theirs.path, theirs.body)
    assert ours.headers["x-goog-api-key"] == theirs.headers["x-goog-api-key"] == "AIza-local"
    assert ours.headers.get("x-team") == theirs.headers.get("x-team")


class Place(BaseModel):
    city: str
    people: int | None = None


@pytest.mark.parametrize("model", [OLD, NEW, LATEST])
def test_a_schema_is_kept_to_on_both_ways(call, server, monkeypatch, model):
    server.script = [message({"text": '{"city": "Rome"}'})] * 2

    answer = call(llmkit, "ask", "where?", schema=Place, **at(server, model))
    monkeypatch.setenv("LLMKIT_ROUTES", "off")
    other = call(llmkit, "ask", "where?", schema=Place, **at(server, model))

    ours, theirs = server.requests
    assert (answer.route, answer.parsed) == ("direct", Place(city="Rome"))
    assert (other.route, other.parsed) == ("litellm", answer.parsed)
    assert ours.body == theirs.body


@pytest.mark.parametrize("model", [OLD, NEW])
def test_tools_are_called(read, server, model):
    def weather(city: str) -> str:
        """Tell the weather."""
        return f"sunny in {city}"

    server.script = [events(piece(THOUGHT, reason=None), piece(CALLED)), Answer("Sunny.")]

    _, answer = read(llmkit, "stream", "hi", tools=[weather], **at(server, model))

    assert (answer.text, answer.route) == ("Sunny.", "direct")
    _, called, result = server.requests[1].body["contents"]
    (call,) = called["parts"]
    assert call["thoughtSignature"] == "EqQB"
    assert call["function_call"]["args"] == {"city": "Rome"}
    response = result["parts"][0]["function_response"]
    assert response["response"] == {"content": "sunny in Rome"}
    assert response.get("id") == call["function_call"].get("id")
    assert ("id" in response) == (model == NEW)


@pytest.mark.parametrize("model", [OLD, NEW])
def test_an_address_of_ones_own_has_no_version_and_the_usual_one_has_the_models(monkeypatch, model):
    route = table().route_of(model)
    request = Request(model=model, messages=[{"role": "user", "content": "hi"}], api_key="k")
    version = {OLD: "v1beta", NEW: "v1alpha"}[model]

    usual = route.request(request, stream=False).url
    assert usual == f"https://generativelanguage.googleapis.com/{version}/models/{route.model}:generateContent"
    monkeypatch.setenv("GEMINI_API_BASE", "http://127.0.0.1:9/some")
    assert route.request(request, stream=False).url == f"http://127.0.0.1:9/some/models/{route.model}:generateContent"


def test_the_key_is_litellms_choice_of_two(monkeypatch):
    request = Request(model=OLD, messages=[{"role": "user", "content": "hi"}])
    monkeypatch.setenv("GEMINI_API_KEY", "second")
    assert ("x-goog-api-key", "second") in table().route_of(OLD).request(request, stream=False).headers
    monkeypatch.setenv("GOOGLE_API_KEY", "first")
    assert ("x-goog-api-key", "first") in table().route_of(OLD).request(request, stream=False).headers


@pytest.mark.parametrize("form", ["llmkit.ask('hi', **at)", "list(llmkit.stream('hi', **at))"])
def test_a_call_never_imports_litellm(server, form):
    code = f"""
        import sys, llmkit
        at = dict(model="{OLD}", api_key="k", api_base="{server.url}")
        {form}
        print([name for name in ("litellm", "openai", "httpx") if name in sys.modules])
    """

    assert run(code) == "[]"


def test_what_a_picture_thoughts_and_a_cache_cost_is_known_without_litellm(server):
    kinds = [{"modality": "IMAGE", "tokenCount": 258}, {"modality": "TEXT", "tokenCount": 1742}]
    counts = {"promptTokenCount": 2000, "cachedContentTokenCount": 1000, "thoughtsTokenCount": 30}
    server.script = [message(TEXT, **counts, promptTokensDetails=kinds, totalTokenCount=2035)]
    code = f"""
        import sys, llmkit
        usage = llmkit.ask("hi", model="{OLD}", api_key="k", api_base="{server.url}").usage
        print(usage.completion_tokens, usage.reasoning_tokens, usage.cached_tokens, f"{{usage.cost_usd:.9f}}")
        print("litellm" in sys.modules)
    """

    assert run(code).split() == ["35", "30", "1000", f"{0.3e-6 * 1000 + 0.03e-6 * 1000 + 2.5e-6 * 35:.9f}", "False"]


def test_kinds_of_models_that_differ_in_one_effort_are_told_apart():
    budgets = {
        model: json.loads(table().route_of(f"gemini/{model}").behaviour.effects["reasoning_effort=minimal"])
        for model in ("gemini-2.5-flash", "gemini-2.5-flash-lite", "gemini-2.5-pro")
    }

    assert len({made["generationConfig"]["thinkingConfig"]["thinkingBudget"] for made in budgets.values()}) == 3


def test_recorded_answers_are_compared_with_ids_of_which_the_form_only_counts():
    made = [gemini_answers.WHOLE[name] for name in ("tool", "signed tool", "two tools")]
    route = table().route_of(OLD)
    request = Request(model=OLD, messages=[{"role": "user", "content": "hi"}], api_key=KEY, timeout_s=30)
    for answer in made:
        theirs = observer_of("gemini").outcome(request, answer, stream=False)
        again = observer_of("gemini").outcome(request, answer, stream=False)
        assert route.access.dialect == "gemini"
        assert theirs.choices != again.choices
        assert without_chance(theirs.choices) == without_chance(again.choices)


# -- what is left to LiteLLM ------------------------------------------------------------------------------------------


def asking(**function):
    return {"params": {"tools": [{"type": "function", "function": {"name": "f", **function}}]}}


def schema(**properties):
    return {"parameters": {"type": "object", "properties": properties}}


ANOTHER = {**CALL, "id": "call_2"}
LATE = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    {"role": "assistant", "content": None, "tool_calls": [ANOTHER]},
    {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
]
LEFT = [
    {"params": {"thinking": {"type": "disabled"}}},
    {"params": {"thinking": {"type": "enabled", "budget_tokens": 0}}},
    {"params": {"thinking": {"type": "enabled", "budget_tokens": 2048}, "reasoning_effort": "low"}},
    {"params": {"max_tokens": 5, "max_completion_tokens": 6}},
    {"params": {"service_tier": "flex"}},
    {"params": {"web_search_options": {}}},
    {"params": {"modalities": ["audio"]}},
    {"params": {"extra_headers": {"X-Goog-User-Project": "p"}}},
    {"params": {"extra_body": {"serviceTier": "flex"}}},
    {"params": {"extra_body": {"generationConfig": {"candidateCount": 2}}}},
    {"params": {"tools": [{"googleSearch": {}}]}},
    asking(**schema(a={"$ref": "#/$defs/A"})),
    asking(**schema(a={"type": ["string", "null"]})),
    asking(**schema(a={"oneOf": [{"type": "string"}]})),
    asking(**schema(strict={"type": "string"})),
    asking(**schema(a={"type": "string", "enum": ["", "a"]})),
    asking(**schema(a={"type": "object", "default": {"additionalProperties": False}})),
    {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]},
    {"messages": [{"role": "system", "content": "be brief"}]},
    {"messages": A_PICTURE_BY_ADDRESS},
    {"messages": [{"role": "user", "content": "hi"}, {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}]},
    {"messages": LATE},
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [CALL, CALL]}]},
    {"params": {"extra_body": {"generation_config": {"candidate_count": 2}}}},
    {"model": "gemini/gemini-9-pro"},
]


@pytest.mark.parametrize("changed", LEFT, ids=str)
def test_what_litellm_would_repair_or_translate_is_handed_on(changed):
    assert answered_by(**{"model": OLD, **changed}) == OF_LITELLM


@pytest.mark.parametrize("name", ["DEFAULT_REASONING_EFFORT_LOW_THINKING_BUDGET", "USE_LITELLM_PROXY"])
def test_a_variable_that_litellm_regards_is_left_to_it(monkeypatch, name):
    monkeypatch.setenv(name, "1")

    assert answered_by(model=OLD, messages=CONVERSATION) == OF_LITELLM


# -- many conversations, many tools -----------------------------------------------------------------------------------


def conversation(chance):
    """Return some conversation, as a person or a program could have it."""

    def text():
        return chance.choice(["hi", "  so ", "x\n", "ü 漢字", "{}", '{"sun": true}', "[1]", ""])

    def parts(*, pictures):
        several = [{"type": "text", "text": text() or "so"}]
        several += [{"type": "image_url", "image_url": {"url": PIXEL}}] if pictures else []
        return chance.choice([text(), chance.choices(several, k=chance.randint(1, 3))])

    def call(place):
        function = {"name": "weather", "arguments": json.dumps({"city": place})}
        return {**CALL, "id": f"call_{place}{chance.choice(['', '__thought__EqQB=='])}", "function": function}

    return conversations.conversation(
        chance,
        parts=parts,
        call=call,
        thought=lambda: chance.choice([{}, {"reasoning_content": text()}]),
        beside=[{}, {"name": "ann"}],
        pictures_in_results=False,
    )


def some_schema(chance, depth=0):
    """Return some schema, with what people write in them."""
    kind = chance.choice(["string", "number", "integer", "boolean", "array", "object", "choice"])
    made = {"type": kind}
    if kind == "choice":
        made = {"anyOf": [{"type": "integer"}, {"type": "null"}], "title": "Choice"}
    elif kind == "array":
        made["items"] = some_schema(chance, depth + 1) if depth < 3 else {}
    elif kind == "object":
        names = chance.sample(["a", "b", "type", "title"], chance.randint(0, 3 if depth < 3 else 0))
        made |= {"properties": {name: some_schema(chance, depth + 1) for name in names}, "required": names}
    elif chance.random() < 1 / 3:
        made |= chance.choice([{"enum": ["x", "y"]}, {"format": "date"}, {"format": "date-time"}, {"minimum": 1}])
    extra = [{"title": "T"}, {"description": "D"}, {"additionalProperties": False}, {"default": None}]
    return {**made, **(chance.choice([*extra, {}]) if kind != "choice" else {})}


def test_requests_are_written_as_litellm_writes_them():
    chance, covered = random.Random(1), 0
    models = [OLD, NEW, LATEST, "gemini/gemma-3-27b-it"]
    for number in range(240):
        name = models[number % len(models)]
        function = {"name": "f", "parameters": some_schema(chance)}
        shaped = {"type": "json_schema", "json_schema": {"name": "n", "schema": some_schema(chance)}}
        params = chance.choice(
            [{}, {"tools": [{"type": "function", "function": function}]}, {"response_format": shaped}, {"top_p": 0.5}]
        )
        request = Request(model=name, messages=conversation(chance), params=params, api_key=KEY, timeout_s=30)
        ours = table().route_of(name).request(request, stream=number % 3 == 0)
        if ours is not None:
            covered += 1
            assert Sent.of(ours) == observer_of("gemini").sent(request, stream=number % 3 == 0), request
    assert covered > 120
