"""What a strange provider, a strange address or a strange caller must not bring about on a route."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading

import pytest
from server import Raw

import llmkit
from llmkit import Retry, errors
from llmkit.core.types import Request
from llmkit.money.ledger import ledger_of
from llmkit.providers.routes.direct import Direct
from llmkit.providers.routes.table import FOLDER, Table, table
from llmkit.testing import ScriptedBackend

KEY = "sk-local-0123456789"
HELLO = [{"role": "user", "content": "hi"}]
EVENTS = "text/event-stream"


def at(server, **options):
    url = server if isinstance(server, str) else server.url
    return {"model": "openai/gpt-4o", "api_key": KEY, "api_base": f"{url}/v1", "retry": Retry(tries=1), **options}


def whole(**changed):
    choice = {"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
    return {"id": "1", "model": "gpt-4o", "choices": [choice], "usage": usage, **changed}


def event(text=None, end=None, **more):
    delta = {} if text is None else {"content": text}
    return json.dumps({"model": "gpt-4o", "choices": [{"index": 0, "delta": delta, "finish_reason": end}], **more})


def lines(*events, between="\n\n", last="\n\n"):
    return Raw((between.join(f"data: {each}" for each in events) + last).encode(), EVENTS)


def test_interim_answers_are_no_answers():
    """The answer after "103 Early Hints" would else be the next caller's."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):  # the test has ended
            for connection in iter(lambda: listening.accept()[0], None):
                while data := connection.recv(65536):
                    text = "first" if b"secret" in data else "second"
                    body = json.dumps(
                        whole(choices=[{"index": 0, "message": {"content": text}, "finish_reason": "stop"}])
                    ).encode()
                    connection.sendall(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n")
                    threading.Event().wait(0.1)
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    threading.Thread(target=serve, daemon=True).start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"

    assert llmkit.ask("a secret", **at(url)).text == "first"
    assert llmkit.ask("another", **at(url, api_key="other")).text == "second"
    listening.close()


STRANGE_COUNTS = [
    {"prompt_tokens": 11, "total_tokens": 11},
    {"prompt_tokens": 11, "completion_tokens": None},
    {"prompt_tokens": 11, "completion_tokens": 5, "prompt_tokens_details": "x", "completion_tokens_details": [1]},
    {"prompt_tokens": "11", "completion_tokens": 5.0, "prompt_tokens_details": {"cached_tokens": "4"}},
    {"prompt_tokens": 11, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 10**8}},
    {"prompt_tokens": 11, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": -3}},
]


@pytest.mark.parametrize("usage", STRANGE_COUNTS, ids=str)
def test_strange_counts_lose_no_answer_no_row_and_no_money(call, read, server, store, usage):
    budget = llmkit.Budget(name="b", limit_usd=1)
    server.script = [Raw(json.dumps(whole(usage=usage)).encode()), lines(event("hi", "stop", usage=usage), "[DONE]")]
    options = at(server, budget=budget, store=store, ledger=ledger_of(store))

    answer = call(llmkit, "ask", "hi", **options)
    _, streamed = read(llmkit, "stream", "hi", **options)

    assert answer.text == streamed.text == "hi"
    assert answer.usage.prompt_tokens == streamed.usage.prompt_tokens == 11
    assert answer.usage.cost_usd == streamed.usage.cost_usd > 0
    assert [row.status for row in ledger_of(store).rows()] == ["ok", "ok"]
    state = llmkit.Budgets(store).get("b")
    assert (state.reserved, state.settled > 0) == (0, True)


STREAMS = {
    "no empty line at the end": lines(event("hi"), event(" tail", "stop"), last="\n"),
    "no line end at the end": lines(event("hi"), event(" tail", "stop"), last=""),
    "no empty lines": lines(event("hi"), event(" tail", "stop"), between="\n"),
    "something after the end": lines(event("hi"), event(" tail", "stop"), "[DONE]", "garbage"),
    "an error after the end": lines(event("hi"), event(" tail", "stop"), "[DONE]", '{"error": {"message": "no"}}'),
    "signs of life": lines("", event("hi"), "null", "", event(" tail", "stop"), "[DONE]"),
    "called JSON": Raw(lines(event("hi"), event(" tail", "stop"), "[DONE]").body, "application/json"),
    "called nothing known": Raw(lines(event("hi"), event(" tail", "stop"), "[DONE]").body, "application/octet-stream"),
    "in parts": lines(
        event([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "hi"}]),
        event(" tail", "stop"),
    ),
}


@pytest.mark.parametrize("body", STREAMS.values(), ids=STREAMS)
def test_a_stream_that_is_written_strangely_is_read_whole(read, server, body):
    server.script = [body]

    pieces, answer = read(llmkit, "stream", "hi", **at(server))

    assert "".join(piece.content for piece in pieces) == answer.text == "hi tail"
    assert answer.finish_reason == "stop"
    assert answer.route == "direct"


@pytest.mark.parametrize("content_type", [EVENTS, "application/json"])
@pytest.mark.parametrize("last", ["not JSON", '{"error": {"message": "overloaded", "code": 503}}'])
def test_a_stream_that_breaks_is_an_error_with_what_came(read, server, last, content_type):
    server.script = [Raw(lines(event("hi"), last).body, content_type)]

    with pytest.raises(errors.ProviderError) as caught:
        read(llmkit, "stream", "hi", **at(server))

    assert caught.value.partial == "hi"


def test_an_answer_in_parts_is_read_as_litellm_reads_it(call, server, monkeypatch):
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "the answer"},
    ]
    message = {"role": "assistant", "content": parts}
    body = json.dumps(whole(choices=[{"index": 0, "message": message, "finish_reason": "stop"}])).encode()
    server.script = [Raw(body), Raw(body)]
    model = "mistral/magistral-medium-latest"

    ours = call(llmkit, "ask", "hi", **at(server, model=model))
    monkeypatch.setenv("LLMKIT_ROUTES", "off")
    theirs = call(llmkit, "ask", "hi", **at(server, model=model))

    assert ours.text == theirs.text == "the answer"
    assert len(server.requests) == 2


def handed_on(request):
    """Return whether a request goes to LiteLLM."""
    other = ScriptedBackend("from LiteLLM")
    refused = (lambda: (_ for _ in ()).throw(AssertionError("it was sent")), None)
    like = request.params.get("base_model", "")
    return Direct(lambda each: table().route_of(each.model, like), lambda: other, refused).send(request).text


@pytest.mark.parametrize(
    "params",
    [
        {"tool_choice": "auto"},
        {"stop": ["a", "b", "c", "d", "e"]},
        {"extra_headers": {"Authorization": "Bearer other"}},
        {"extra_headers": {"X-A": "b", "x-a": "c"}},
        {"extra_headers": {"X-A": "é"}},
        {"extra_body": {"messages": []}},
        {"client": object()},
    ],
    ids=["tool_choice", "stop", "key", "twice", "letters", "messages", "client"],
)
def test_odd_parameters_are_litellms(params):
    assert handed_on(Request(model="openai/gpt-4o", messages=HELLO, api_key=KEY, params=params))


@pytest.mark.parametrize("model", ["eu/gpt-5", "us/gpt-4o", "us/a-new-one", "global/gpt-5.1"])
def test_a_deployment_of_a_regional_model_is_litellms(model):
    """LiteLLM cannot be asked about them: such a name is in no address."""
    params, address = {"base_model": f"azure/{model}"}, "https://ours.openai.azure.com"

    assert handed_on(Request(model="azure/ours", messages=HELLO, api_key=KEY, api_base=address, params=params))


@pytest.mark.parametrize("key", ["", "clé", "k\nx"])
@pytest.mark.parametrize("params", [{"azure_ad_token": "t"}, {"azure_ad_token_provider": str}], ids=["one", "two"])
def test_access_without_a_key_is_litellms(monkeypatch, key, params):
    monkeypatch.delenv("AZURE_API_KEY", raising=False)
    address = "https://ours.openai.azure.com"

    assert handed_on(Request(model="azure/gpt-4o", messages=HELLO, api_key=key, api_base=address, params=params))


@pytest.mark.parametrize(
    "base",
    ["https://user:pw@a.example/v1", "https://a.example/v1?x=y", "https://a.example/a/../v1", "https://ä.example/v1"],
)
def test_odd_addresses_are_litellms(base):
    assert handed_on(Request(model="openai/gpt-4o", messages=HELLO, api_key=KEY, api_base=base))


def test_an_address_that_litellm_completes_is_litellms():
    request = Request(model="mistral/mistral-small-latest", messages=HELLO, api_key=KEY, api_base="https://a.example")

    assert handed_on(request)


@pytest.mark.parametrize(
    "name", ["USE_LITELLM_PROXY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_CUSTOM_HEADERS", "OPENAI_ORGANIZATION"]
)
def test_variables_that_change_where_or_how_litellm_sends_are_regarded(monkeypatch, name):
    monkeypatch.setenv(name, "true")

    assert handed_on(Request(model="openai/gpt-4o", messages=HELLO, api_key=KEY))


def test_keys_of_messages_without_a_value_are_not_sent(server):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = [
        {"role": "user", "content": "hi", "name": None},
        {"role": "assistant", "content": None, "tool_calls": [call], "function_call": None},
        {"role": "tool", "content": "x", "tool_call_id": "c", "name": None},
        {"role": "assistant", "content": "so", "tool_calls": None},
        {"role": "user", "content": "go on"},
    ]
    del said[1]["function_call"]

    assert llmkit.ask(said, **at(server)).route == "direct"
    assert not any(None in message.values() for message in server.requests[0].body["messages"])


@pytest.mark.parametrize("spoil", ["index", "list", "nested", "pattern", "pipe", "price"])
def test_a_damaged_file_of_learned_routes_is_no_error(tmp_path, spoil):
    known = Table(FOLDER, table().package, table().version, tmp_path / "routes")
    known.keep("openai", "gpt-9-mini", known.route_of("openai/gpt-4o").behaviour, {})
    (file,) = (tmp_path / "routes").rglob("*.json")
    data = json.loads(file.read_text(encoding="utf-8"))
    if spoil == "pipe":
        file.unlink()
        os.mkfifo(file, 0o600)
    elif spoil == "nested":
        file.write_text("[" * 100_000, encoding="utf-8")
    else:
        changed = {
            "index": {"models": {"gpt-9-mini": [99, {}]}},
            "list": {"models": [1]},
            "pattern": {"special": "("},
            "price": {"models": {"gpt-9-mini": [0, 3]}},
        }
        file.write_text(json.dumps(data | changed[spoil]), encoding="utf-8")

    again = Table(FOLDER, table().package, table().version, tmp_path / "routes")

    assert (again.route_of("openai/gpt-9-mini") is not None) == (spoil == "pattern")
    assert again.route_of("openai/gpt-9-other") is None


def test_an_error_repeats_no_body(call, server):
    """A provider that echoes the key must not put it into a traceback."""
    server.script = [Raw(json.dumps({"error": {"message": "no", "echo": KEY}}).encode())]

    with pytest.raises(errors.ProviderError) as caught:
        call(llmkit, "ask", "hi", **at(server))

    link = caught.value
    while link is not None:
        assert KEY not in str(link)
        link = link.__cause__
