"""Requests that llmkit sends itself: with the results of LiteLLM's way, and without LiteLLM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest
from server import Answer, Drop, Raw, ScriptedServer, Status

import llmkit
from llmkit import Retry, errors
from llmkit.core.types import Request
from llmkit.providers.routes.direct import Direct
from llmkit.providers.routes.table import table
from llmkit.testing import ScriptedBackend

KEY = "sk-local-0123456789"
HELLO = [{"role": "user", "content": "hi"}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}


def at(server, **options):
    return {
        "model": "openai/gpt-4o",
        "api_key": KEY,
        "api_base": f"{server.url}/v1",
        "retry": Retry(tries=1),
        **options,
    }


def outcome_of(do):
    """Return what a user can see of a call."""
    try:
        answer = do()
    except errors.LlmkitError as error:
        return type(error), error.status_code, error.retryable, error.retry_after_s, error.partial
    message = answer.choices[0].message
    return answer.text, answer.model, answer.finish_reason, answer.usage, answer.warnings, message.model_dump()


ANSWERS = [
    Answer(),
    Answer(usage=None),
    Answer(usage={"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, "prompt_tokens_details": None}),
    Answer(usage={**Answer().usage, "prompt_tokens_details": {"cached_tokens": 4}}),
    Answer(finish_reason="length"),
    Answer("<think>why</think>because"),
    Answer(message={"role": "assistant", "content": "because", "reasoning_content": "why"}),
    Answer(message={"role": "assistant", "content": None, "tool_calls": [CALL]}, finish_reason="tool_calls"),
    Answer(message={"role": "assistant", "content": [{"type": "text", "text": "in parts"}]}),
    Status(400, body={"error": {"message": "too long", "code": "context_length_exceeded"}}),
    Status(401),
    Status(429, headers={"retry-after": "3"}),
    Status(429, body={"error": {"message": "no", "code": "insufficient_quota"}}),
    Status(500),
    Status(200, body=b"no json"),
    Status(200, body={"choices": None}),
    Drop(),
]


@pytest.mark.parametrize("entry", ANSWERS, ids=str)
def test_both_ways_lead_to_the_same(call, server, monkeypatch, entry):
    server.script = [entry, entry]

    ours = outcome_of(lambda: call(llmkit, "ask", "hi", **at(server)))
    monkeypatch.setenv("LLMKIT_ROUTES", "off")
    theirs = outcome_of(lambda: call(llmkit, "ask", "hi", **at(server)))

    assert ours == theirs
    assert server.requests[0].body == server.requests[1].body


ENDS = ["stop", "eof", "reset", "garbage"]


@pytest.mark.parametrize("end", ENDS)
def test_both_ways_read_the_same_streams(read, server, monkeypatch, end):
    server.script = [Answer(end=end), Answer(end=end)]

    def seen():
        try:
            pieces, answer = read(llmkit, "stream", "hi", **at(server))
        except errors.LlmkitError as error:
            return type(error), error.retryable, error.partial
        told = [(piece.content, piece.finish_reason) for piece in pieces if not piece.is_empty]
        return told, answer.text, answer.finish_reason, answer.usage, answer.model

    ours = seen()
    monkeypatch.setenv("LLMKIT_ROUTES", "off")

    assert ours == seen()
    assert server.requests[0].body == server.requests[1].body


def test_a_reply_says_which_way_it_came(call, read, server, monkeypatch):
    assert call(llmkit, "ask", "hi", **at(server)).route == "direct"
    assert read(llmkit, "stream", "hi", **at(server))[1].route == "direct"

    monkeypatch.setenv("LLMKIT_ROUTES", "off")

    assert call(llmkit, "ask", "hi", **at(server)).route == "litellm"
    assert read(llmkit, "stream", "hi", **at(server))[1].route == "litellm"


@pytest.mark.parametrize(
    "options",
    [
        {"drop_params": True},
        {"some_new_parameter": object},
        {"temperature": "0.5"},
        {"logit_bias": [1]},
        {"stream_options": {"include_usage": False}},
        {"custom_llm_provider": "openai"},
    ],
    ids=str,
)
def test_what_no_route_covers_is_handed_on(options):
    other = ScriptedBackend("from LiteLLM")
    direct = Direct(lambda request: table().route_of(request.model), lambda: other, (None, None))
    request = Request(model="openai/gpt-4o", messages=HELLO, api_key=KEY, params=options)

    assert direct.send(request).text == "from LiteLLM"
    assert other.requests == [request]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.example/a.png"}}]},
        {"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}]},
        {"role": "user", "content": "hi", "something": "new"},
    ],
    ids=str,
)
def test_messages_that_no_route_covers_are_handed_on(message):
    other = ScriptedBackend("from LiteLLM")
    direct = Direct(lambda request: table().route_of(request.model), lambda: other, (None, None))

    assert direct.send(Request(model="openai/gpt-4o", messages=[message, *HELLO], api_key=KEY)).text == "from LiteLLM"


def test_an_address_behind_a_proxy_of_another_kind_is_handed_on(monkeypatch):
    other = ScriptedBackend("from LiteLLM")
    direct = Direct(lambda request: table().route_of(request.model), lambda: other, (None, None))
    monkeypatch.setenv("HTTP_PROXY", "socks5://127.0.0.1:9")
    request = Request(model="openai/gpt-4o", messages=HELLO, api_key=KEY, api_base="http://models.example/v1")

    assert direct.send(request).text == "from LiteLLM"


@pytest.mark.parametrize("name", ["OPENAI_ORGANIZATION"])
def test_a_variable_that_litellm_regards_is_left_to_it(monkeypatch, name):
    other = ScriptedBackend("from LiteLLM")
    direct = Direct(lambda request: table().route_of(request.model), lambda: other, (None, None))
    monkeypatch.setenv(name, "org-1")

    assert direct.send(Request(model="openai/gpt-4o", messages=HELLO, api_key=KEY)).text == "from LiteLLM"


def test_a_missing_key_is_named_at_once(call, monkeypatch):
    for name in ("OPENAI_API_KEY", "GROQ_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for model, variable in (("openai/gpt-4o", "OPENAI_API_KEY"), ("groq/llama-3.3-70b-versatile", "GROQ_API_KEY")):
        with pytest.raises(errors.AuthenticationError) as ours:
            call(llmkit, "ask", "hi", model=model)
        monkeypatch.setenv("LLMKIT_ROUTES", "off")
        with pytest.raises(errors.AuthenticationError) as theirs:
            call(llmkit, "ask", "hi", model=model)
        monkeypatch.delenv("LLMKIT_ROUTES")

        assert str(ours.value) == str(theirs.value)
        assert variable in str(ours.value)
        assert not ours.value.sent


def test_keys_and_addresses_come_from_the_variables_of_the_provider(server, monkeypatch):
    monkeypatch.setenv("GROQ_API_KEY", "sk-groq")
    monkeypatch.setenv("GROQ_API_BASE", f"{server.url}/v1")

    assert llmkit.ask("hi", model="groq/llama-3.3-70b-versatile").route == "direct"
    assert server.requests[0].headers["authorization"] == "Bearer sk-groq"


# -- a program that has changed LiteLLM -------------------------------------------------------------------------------


def run(code, **environment):
    """Run a program of its own, and return what it prints."""
    changed = {**os.environ, **environment}
    around = {name: value for name, value in changed.items() if value is not None}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=around, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


CHANGES = {
    "a setting": "litellm.drop_params = True",
    "a key": "litellm.openai_key = 'sk-other'",
    "a function": "litellm.completion = litellm.completion.__wrapped__",
    "a model": "litellm.register_model({'mine': {'mode': 'chat', 'litellm_provider': 'openai'}})",
    "a callback": "litellm.callbacks = [lambda *_: None]",
    "a callback in the list": "litellm.success_callback.append(lambda *_: None)",
}


@pytest.mark.parametrize("first", ["llmkit", "litellm"])
def test_the_calls_of_a_program_that_changes_litellm_go_through_it(server, first):
    """Each change is made in a child process of one program, for LiteLLM's import takes seconds, and OpenAI's one."""
    code = f"""
        import os
        import {first}
        import litellm, llmkit
        import openai.resources.beta, openai.resources.chat, openai.resources.responses
        at = dict(model="openai/gpt-4o", api_key="k", api_base="{server.url}/v1")
        for change in {["", *CHANGES.values()]!r}:
            child = os.fork()
            if child == 0:
                exec(change)
                print("way:", llmkit.ask("hi", **at).route, flush=True)
                os._exit(0)
            os.waitpid(child, 0)
    """

    fresh = {name: None for name in os.environ if name.startswith("LITELLM")}
    local = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True"}
    ways = [line.split()[1] for line in run(code, **fresh | local).splitlines() if line.startswith("way:")]

    assert dict(zip(["nothing", *CHANGES], ways, strict=True)) == {"nothing": "direct"} | dict.fromkeys(
        CHANGES, "litellm"
    )


# -- without LiteLLM --------------------------------------------------------------------------------------------------

FORMS = {
    "ask": "llmkit.ask(HELLO, **at)",
    "aask": "asyncio.run(llmkit.aask(HELLO, **at))",
    "stream": "list(llmkit.stream(HELLO, **at))",
    "astream": "asyncio.run(read(llmkit.astream(HELLO, **at)))",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_call_on_a_route_never_imports_litellm(server, tmp_path, form):
    """An answer, one that does not say what was used, and errors; later ones would see what earlier ones imported."""
    server.script = [Answer(), Answer(usage=None), Status(429), Status(500)]
    code = f"""
        import asyncio, sys
        import llmkit

        async def read(pieces):
            return [piece async for piece in pieces]

        HELLO = [{{"role": "user", "content": "hi"}}]
        budget = llmkit.Budget(name="b", limit_usd=1)
        at = dict(model="openai/gpt-4o", api_key="k", api_base="{server.url}/v1", retry=llmkit.Retry(tries=1),
                  ledger=True, budget=budget)
        for _ in range({len(server.script)}):
            said = "an answer"
            try:
                {FORMS[form]}
            except llmkit.ProviderError as error:
                said = type(error).__name__
            print(said, [name for name in ("litellm", "openai", "httpx") if name in sys.modules])
    """

    printed = run(code, LLMKIT_DATA_DIR=str(tmp_path))

    told = ("an answer", "an answer", "RateLimitError", "InternalServerError")
    assert printed.splitlines() == [f"{each} []" for each in told]


def test_child_processes_begin_with_connections_of_their_own(server):
    assert llmkit.ask("hi", **at(server)).route == "direct"
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if llmkit.ask("hi", **at(server)).route == "direct" else 1)
        finally:
            os._exit(2)

    assert os.waitpid(child, 0)[1] == 0
    assert llmkit.ask("hi", **at(server)).text == Answer().text
    assert len(server.requests) == 3


def test_litellms_own_object_is_made_on_demand(call, server):
    made = call(llmkit, "ask", "hi", **at(server)).litellm()

    assert type(made).__module__.startswith("litellm")
    assert made.choices[0].message.content == Answer().text
    assert made.usage.total_tokens == 16


def test_what_a_stream_in_pieces_has_is_llmkits_own(read, server):
    pieces, answer = read(llmkit, "stream", "hi", **at(server))

    assert "".join(piece.raw.choices[0].delta.content or "" for piece in pieces if piece.raw.choices) == answer.text
    assert answer.raw["choices"][0]["message"] == {"role": "assistant", "content": answer.text}
    assert answer.choices[0].model_dump(exclude_none=True)["finish_reason"] == "stop"


def test_servers_without_a_known_model_are_reached_by_the_usual_way(server):
    """A server that speaks OpenAI's format, with a model that LiteLLM has never heard of."""
    with ScriptedServer() as own:
        answer = llmkit.ask("hi", **at(own, model="openai/our-finetune-7b", temperature=0, max_tokens=5))

    assert answer.route == "direct"
    assert own.requests[0].body["max_tokens"] == 5
    assert answer.usage.cost_usd is None


AZURE = {"model": "gpt-4o", "provider": "azure", "deployment_name": "ours", "api_key": KEY}


@pytest.mark.parametrize("version", ["", "2024-06-01", "2025-04-01-preview"])
def test_azure_is_reached_by_deployment_and_version(call, server, monkeypatch, version):
    deployment = llmkit.Deployment(**AZURE, endpoint=server.url, api_version=version)
    client = llmkit.MultiAIClient({"gpt-4o": deployment})

    ours = outcome_of(lambda: call(client, "invoke", HELLO, "gpt-4o", temperature=0))
    monkeypatch.setenv("LLMKIT_ROUTES", "off")
    theirs = outcome_of(lambda: call(client, "invoke", HELLO, "gpt-4o", temperature=0))

    first, second = server.requests
    assert ours == theirs
    assert first.path == second.path
    assert first.path == f"/openai/deployments/ours/chat/completions?api-version={version or '2023-05-15'}"
    assert first.body == second.body
    assert first.headers["api-key"] == KEY
    assert "authorization" not in first.headers


@pytest.mark.parametrize(
    ("options", "way"),
    [
        ({}, "direct"),
        ({"response_format": {"type": "json_object"}}, "litellm"),  # for this version LiteLLM makes a tool of it
        ({"api_version": "2023-01-01-nobody-knows"}, "litellm"),
    ],
    ids=str,
)
def test_what_azure_takes_depends_on_the_version(server, options, way):
    at = {"model": "azure/gpt-4o", "api_key": KEY, "api_base": server.url, "api_version": "2024-02-01", **options}

    assert llmkit.ask("hi", **at).route == way


def test_the_model_behind_a_deployment_decides(server):
    reasoning = llmkit.Deployment(**AZURE | {"model": "gpt-5"}, endpoint=server.url, api_version="2025-04-01-preview")

    reply = llmkit.MultiAIClient({"gpt-5": reasoning}).invoke(HELLO, "gpt-5", max_tokens=5)

    assert reply.route == "direct"
    assert server.requests[0].body["max_completion_tokens"] == 5


OWN = ["lm_studio", "hosted_vllm", "llamafile", "lemonade", "docker_model_runner"]


@pytest.mark.parametrize("provider", OWN)
def test_a_server_of_ones_own_needs_no_key(server, monkeypatch, provider):
    options = {"model": f"{provider}/mine", "api_base": f"{server.url}/v1", "temperature": 0.3, "seed": 7}

    reply = llmkit.ask("hi", **options)
    monkeypatch.setenv("LLMKIT_ROUTES", "off")
    other = llmkit.ask("hi", **options)
    ours, theirs = server.requests

    assert (reply.route, other.route) == ("direct", "litellm")
    assert (ours.body, ours.headers["authorization"]) == (theirs.body, theirs.headers["authorization"])
    assert reply.text == other.text


@pytest.mark.parametrize(("provider", "advice"), [("xinference", "or pass"), ("github", "set GITHUB_API_KEY, or pass")])
def test_a_key_that_the_sdk_of_openai_cannot_do_without_is_asked_for(server, provider, advice):
    with pytest.raises(errors.AuthenticationError, match=f"`llmkit keys set {provider}`, .*{advice} api_key"):
        llmkit.ask("hi", model=f"{provider}/mine", api_base=f"{server.url}/v1", retry=Retry(tries=1))
    assert server.requests == []


@pytest.mark.parametrize("provider", [*OWN, "litellm_proxy", "xinference"])
def test_a_key_wins_over_what_stands_in_its_place(server, provider):
    llmkit.ask("hi", model=f"{provider}/mine", api_base=f"{server.url}/v1", api_key=KEY)

    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


UNSENDABLE = [
    ({"api_key": "sk-sec\u2019ret"}, "the API key has a character that cannot stand in a header"),
    ({"api_key": "sk-sec\nret"}, "the API key has a character that cannot stand in a header"),
    ({"extra_headers": {"X-A": 5}}, "the header 'X-A' must be a text, not int"),
    ({"extra_headers": {"X-A": None}}, "the header 'X-A' must be a text, not NoneType"),
    ({"extra_headers": {"X-A": "sec\u2019ret"}}, "the header 'X-A' has a character that cannot stand in a header"),
    ({"headers": {"X-A": "sec\r\nret: 1"}}, "the header 'X-A' has a character that cannot stand in a header"),
    ({"extra_headers": {"X A": "1"}}, "extra_headers: 'X A' cannot be the name of a header"),
    ({"extra_headers": "X-A: 1"}, "extra_headers must be a mapping of headers, not str"),
]


@pytest.mark.parametrize("routes", ["on", "off"])
@pytest.mark.parametrize(("given", "told"), UNSENDABLE)
def test_a_key_or_header_that_cannot_be_sent_is_refused_and_not_repeated(
    call, read, server, monkeypatch, routes, given, told
):
    monkeypatch.setenv("LLMKIT_ROUTES", routes)
    options = at(server, **given)
    if "api_key" in given:  # nor one of the environment
        monkeypatch.setenv("OPENAI_API_KEY", given["api_key"])
        del options["api_key"]

    for refused in (
        lambda: call(llmkit, "ask", "hi", **at(server, **given)),
        lambda: read(llmkit, "stream", "hi", **at(server, **given)),
        lambda: call(llmkit, "ask", "hi", **options),
    ):
        with pytest.raises(errors.InvalidRequestError) as caught:
            refused()
        assert str(caught.value).startswith(told)
        assert "ret" not in str(caught.value).replace("character", "").partition(",")[0]
    assert server.requests == []


@pytest.mark.parametrize("routes", ["on", "off"])
def test_the_longest_timeout_is_longer_than_a_socket_can_wait(call, read, server, monkeypatch, routes):
    monkeypatch.setenv("LLMKIT_ROUTES", routes)

    for seconds in (3e6, 1e12):
        assert call(llmkit, "ask", "hi", **at(server, timeout=seconds)).text
        assert read(llmkit, "stream", "hi", **at(server, timeout=seconds))[1].text


def told(text=None, reason=None):
    """Return a chunk of a stream as JSON."""
    delta = {} if text is None else {"content": text}
    return json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("routes", ["on", "off"])
def test_a_line_of_a_stream_may_end_in_three_ways(read, server, monkeypatch, routes, end):
    monkeypatch.setenv("LLMKIT_ROUTES", routes)
    data = (told("Hel"), told("lo"), told(reason="stop"), "[DONE]")
    server.script = [Raw("".join(f"data: {each}{end}{end}" for each in data).encode(), "text/event-stream")]

    pieces, reply = read(llmkit, "stream", "hi", **at(server))

    assert "".join(piece.content for piece in pieces) == reply.text == "Hello"
    assert reply.finish_reason == "stop"


@pytest.mark.parametrize(
    ("routes", "kind"), [("on", "text/event-stream"), ("on", "application/octet-stream"), ("off", "text/event-stream")]
)
def test_a_stream_may_begin_with_a_mark_of_its_encoding(read, server, monkeypatch, routes, kind):
    monkeypatch.setenv("LLMKIT_ROUTES", routes)
    data = (told("Do NOT "), told("press it."), told(reason="stop"), "[DONE]")
    server.script = [Raw(b"\xef\xbb\xbf" + "".join(f"data: {each}\n\n" for each in data).encode(), kind)]

    _, reply = read(llmkit, "stream", "hi", **at(server))

    assert reply.text == "Do NOT press it."


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "text/event-stream"])
@pytest.mark.parametrize(
    ("code", "error"), [(401, errors.AuthenticationError), (400, errors.BadRequestError), (429, errors.RateLimitError)]
)
def test_a_refusal_that_looks_like_a_stream_is_what_its_status_says(read, server, code, error, kind):
    body = b'data: {"error": {"message": "no"}}\n\n'
    server.script = [Status(code, {"content-type": kind}, body=body)]

    with pytest.raises(error) as caught:
        read(llmkit, "stream", "hi", **at(server))

    assert caught.value.status_code == code


@pytest.mark.parametrize("routes", ["on", "off"])
def test_a_stream_of_a_mistral_that_thinks_first_is_read(read, server, monkeypatch, routes):
    monkeypatch.setenv("LLMKIT_ROUTES", routes)
    thought = {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}
    events = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        for delta, reason in ((thought, None), ({"content": "Paris."}, None), ({}, "stop"))
    ]
    lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    server.script = [Raw(lines.encode(), "text/event-stream")]

    pieces, reply = read(llmkit, "stream", "hi", **at(server, model="mistral/magistral-medium-latest"))

    assert reply.text == "Paris."
    assert "".join(piece.reasoning for piece in pieces) == "hm"


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        ('{"message": "too many", "code": 429}', errors.RateLimitError, "too many"),
        ('"sorry"', errors.InternalServerError, "sorry"),
        ("overloaded now", errors.InternalServerError, "overloaded now"),
        ('{"error": {"message": "boom"}}', errors.InternalServerError, "boom"),
    ],
)
@pytest.mark.parametrize("routes", ["on", "off"])
def test_an_event_that_is_an_error_is_told_in_its_words(read, server, monkeypatch, routes, data, kind, message):
    monkeypatch.setenv("LLMKIT_ROUTES", routes)
    events = f"event: chunk\ndata: {told('Hel')}\n\nevent: error\ndata: {data}\n\n"
    server.script = [Raw(events.encode(), "text/event-stream")]

    with pytest.raises(kind) as caught:
        read(llmkit, "stream", "hi", **at(server))

    assert str(caught.value).startswith(message)
    assert caught.value.partial == "Hel"
