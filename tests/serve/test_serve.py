"""`llmkit serve`: what clients of OpenAI's protocol see, what is counted, and what is refused."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
import web
from databases import LONG
from server import Answer, Drop, Raw, Status
from serving import LINE, command, error_of, preset, refused, running, serving, wait_for

import llmkit
from llmkit import presets
from llmkit import serve as serve_package
from llmkit.money.ledger import ledger_of
from llmkit.presets import Preset
from llmkit.providers.litellm.sdk import load
from llmkit.serve import Keys, Limits, create_app
from llmkit.serve.preset import ServedPreset
from llmkit.serve.served import Served
from llmkit.store import Store
from llmkit.testing import reply

KEY = "sk-the-upstreams-own-key"
HELLO = [{"role": "user", "content": "hi"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


@pytest.fixture
def upstream(server):
    return server


@pytest.fixture
def serve(upstream, sqlite):
    """Run a server with one preset, `echo`, whose upstream is scripted."""

    def run(*others, limits=None, **settings):
        settings = {"retry": {"tries": 1}, "params": {"api_key": KEY}, **settings}
        return running(preset("echo", sqlite, upstream.url, **settings), *others, store=sqlite, limits=limits)

    return run


@pytest.fixture
def url(serve):
    with serve() as address:
        yield address


@pytest.fixture(scope="module")
def embedded(weights, tmp_path_factory):
    """A server with the real embedded model."""
    store = Store(f"sqlite:///{tmp_path_factory.mktemp('store') / 'serve.db'}")
    with running(ServedPreset("local", presets.load("local"), store), store=store) as address:
        yield address
    store.close()


class Scripted(Served):
    """A `Served` of the test's own."""

    def __init__(self, name, answer):
        self.name = name
        self._answer = answer
        self.stopped = False

    def meta(self):
        return {"name": self.name, "version": "1"}

    async def start(self):
        pass

    async def stop(self):
        self.stopped = True

    async def answer(self, messages, params, caller):
        return await self._answer(messages, params, caller)

    def stream(self, messages, params, caller):
        return _OneStream(self._answer(messages, params, caller))


class _OneStream:
    def __init__(self, answer):
        self._answer = answer
        self.reply = None

    async def __aiter__(self):
        self.reply = await self._answer
        yield llmkit.Piece(content=self.reply.text, finish_reason="stop")

    async def aclose(self):
        self._answer.close()


# -- clients ----------------------------------------------------------------------------------------------------------


def test_openais_own_client_gets_an_answer_its_cost_and_an_id(url, upstream, sqlite):
    with url.client() as client:
        raw = client.chat.completions.with_raw_response.create(model="echo", messages=HELLO, temperature=0.5, seed=7)
        found = raw.parse()
        assert [each.id for each in client.models.list()] == ["echo"]
        assert client.models.retrieve("echo").owned_by == "llmkit"

    assert found.choices[0].message.content == "Hello from the server."
    assert (found.object, found.model, found.choices[0].finish_reason) == ("chat.completion", "echo", "stop")
    assert (found.usage.prompt_tokens, found.usage.completion_tokens, found.usage.total_tokens) == (11, 5, 16)
    assert float(raw.headers["x-llmkit-cost-usd"]) > 0
    assert raw.headers["x-request-id"]
    sent = upstream.requests[0]
    assert (sent.body["temperature"], sent.body["seed"], sent.body["model"]) == (0.5, 7, "gpt-4o")
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    (row,) = ledger_of(sqlite).rows()
    assert (row.preset, row.status, row.tags) == ("echo", "ok", ())


def test_openais_asynchronous_client_gets_a_stream_with_its_counts(url):
    async def main():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            options = {"include_usage": True}
            chunks = await client.chat.completions.create(
                model="echo", messages=HELLO, stream=True, stream_options=options
            )
            return [chunk async for chunk in chunks]

    chunks = asyncio.run(main())

    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Hello from the server."
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert len({(chunk.id, chunk.model) for chunk in chunks}) == 1
    assert (chunks[-1].choices, chunks[-1].usage.total_tokens) == ([], 16)


def test_litellm_is_a_client(url):
    litellm = load()
    options = {"model": "openai/echo", "messages": HELLO, "api_base": f"{url}/v1", "api_key": "none"}

    whole = litellm.completion(**options, max_retries=0)
    pieces = litellm.completion(**options, stream=True, max_retries=0)

    assert whole.choices[0].message.content == "Hello from the server."
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == "Hello from the server."


def test_llmkits_own_classes_are_clients(url):
    options = {"model": "openai/echo", "api_base": f"{url}/v1", "api_key": "none"}
    preset = Preset(model="openai/echo", params={"api_base": options["api_base"]})
    chat = llmkit.ChatModel(preset, api_key=options["api_key"], store="chat.db")

    assert llmkit.ask("hi", **options).text == "Hello from the server."
    with llmkit.stream("hi", **options) as pieces:
        assert "".join(map(str, pieces)) == "Hello from the server."
    chat.add_messages(HELLO)
    assert chat.run().content == "Hello from the server."


def test_llmkits_requests_are_http_as_it_is_written(url):
    """A server that is strict about it, as this one is, refuses a request with two names of the host."""
    options = {"model": "openai/echo", "api_base": f"{url}/v1", "api_key": "none"}

    assert asyncio.run(llmkit.aask("hi", **options)).text == "Hello from the server."
    assert llmkit.ask("hi", **options).text == "Hello from the server."


def test_curl_is_a_client(url):
    body = json.dumps({"model": "echo", "messages": HELLO, "stream": True})
    command = ["curl", "-sN", "--noproxy", "*", f"{url}/v1/chat/completions", "--json", body]

    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n\n")

    assert lines[-2:] == ["data: [DONE]", ""]
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in lines[:-2]]
    assert "".join(delta.get("content", "") for delta in deltas) == "Hello from the server."


def test_the_embedded_model_answers_in_pieces(embedded):
    with embedded.client() as client:
        chunks = list(
            client.chat.completions.create(
                model="local", messages=[{"role": "user", "content": "Say hello."}], max_tokens=8, stream=True
            )
        )

    assert len(chunks) > 3
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason in {"length", "stop"}


@pytest.mark.parametrize("stream", [False, True])
def test_the_embedded_model_answers_as_a_json_schema_says(embedded, stream):
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "green"]}, "bright": {"type": "boolean"}},
        "required": ["colour", "bright"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "colour", "schema": schema, "strict": True}}
    asked = {"model": "local", "messages": [{"role": "user", "content": "Name a colour."}], "response_format": wanted}

    with embedded.client() as client:
        if stream:
            chunks = client.chat.completions.create(**asked, max_tokens=60, stream=True)
            text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        else:
            text = client.chat.completions.create(**asked, max_tokens=60).choices[0].message.content

    found = json.loads(text)
    assert found["colour"] in {"red", "green"}
    assert isinstance(found["bright"], bool)


def test_tools_go_there_and_back(url, upstream):
    asked = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    upstream.script = [Answer(message=asked, finish_reason="tool_calls"), Answer("It rains.")]

    with url.client() as client:
        first = client.chat.completions.create(model="echo", messages=HELLO, tools=[TOOL], tool_choice="auto")
        called = first.choices[0].message
        told = {"role": "tool", "tool_call_id": called.tool_calls[0].id, "content": "rain"}
        messages = [*HELLO, called.model_dump(exclude_none=True), told]
        second = client.chat.completions.create(model="echo", messages=messages, tools=[TOOL])

    assert first.choices[0].finish_reason == "tool_calls"
    assert called.content is None
    assert called.tool_calls[0].model_dump() == CALL
    assert second.choices[0].message.content == "It rains."
    assert upstream.requests[0].body["tools"] == [TOOL]
    assert upstream.requests[1].body["messages"][-1] == told
    assert upstream.requests[1].body["messages"][-2]["tool_calls"] == [CALL]


def test_tool_calls_come_in_pieces(url, upstream):
    parts = [
        {"tool_calls": [{"index": 0, **CALL, "function": {"name": "weather", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Oslo"}'}}]},
    ]
    upstream.script = [Answer(deltas=parts, finish_reason="tool_calls")]

    with (
        url.client() as client,
        client.chat.completions.stream(model="echo", messages=HELLO, tools=[TOOL]) as stream,
    ):
        found = stream.get_final_completion()

    assert found.choices[0].finish_reason == "tool_calls"
    (call,) = found.choices[0].message.tool_calls
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "weather", '{"city": "Oslo"}')


def test_the_tools_of_a_preset_are_called_here_and_not_shown(serve, upstream):
    call = {**CALL, "function": {"name": "basename", "arguments": '{"p": "/a/b"}'}}
    upstream.script = [Answer(deltas=[{"tool_calls": [{"index": 0, **call}]}], finish_reason="tool_calls"), Answer("b")]

    with serve(tools=["posixpath:basename"]) as url, url.client() as client:
        chunks = list(client.chat.completions.create(model="echo", messages=HELLO, stream=True))

    assert not [chunk for chunk in chunks if chunk.choices[0].delta.tool_calls]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "b"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason] == ["stop"]
    assert upstream.requests[1].body["messages"][-1]["content"] == "b"


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_vectors(serve, encoding, sqlite):
    with serve(model="openai/text-embedding-3-small") as url, url.client() as client:
        found = client.embeddings.create(model="echo", input=["a", "bcd"], encoding_format=encoding)
        default = client.embeddings.create(model="echo", input="four")
        measured = web.get(f"{url}/metrics").text

    vectors = [each.embedding for each in found.data]
    assert (vectors == [[1.0, 0.5], [3.0, 0.5]]) if encoding == "float" else all(isinstance(v, str) for v in vectors)
    assert default.data[0].embedding == [4.0, 0.5]
    assert (found.usage.total_tokens, found.model) == (2, "echo")
    tokens = found.usage.total_tokens + default.usage.total_tokens
    assert f'llmkit_tokens_total{{direction="in",model="echo"}} {tokens}.0' in measured
    assert [row.kind for row in ledger_of(sqlite).rows()] == ["embed", "embed"]


@pytest.mark.parametrize("value", ["1e39", "-1e300", '"a"', "null", "[1]"])
def test_a_vector_that_cannot_be_told_as_32_bit_floats_is_an_answer_that_cannot_be_read(serve, upstream, value):
    upstream.script = [Raw(f'{{"object": "list", "data": [{{"index": 0, "embedding": [0.5, {value}]}}]}}'.encode())]
    with serve(model="openai/text-embedding-3-small") as url:
        answer = url.post({"model": "echo", "input": "a", "encoding_format": "base64"}, "/v1/embeddings")

    assert (answer.status_code, error_of(answer)["code"]) == (502, "upstream_failed")


def test_vectors_of_a_model_that_a_preset_falls_back_on(serve, upstream, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{upstream.url}/v1")
    upstream.script = [Status(500)]
    names = {"model": "openai/gone", "fallbacks": ["openai/text-embedding-3-small"]}

    with serve(**names) as url, url.client() as client:
        found = client.embeddings.create(model="echo", input="a", encoding_format="float")

    assert found.data[0].embedding == [1.0, 0.5]
    assert [request.body["model"] for request in upstream.requests] == ["gone", "text-embedding-3-small"]


def test_sound_becomes_text(serve, upstream):
    with serve(model="openai/whisper-1") as url, url.client() as client:
        found = client.audio.transcriptions.create(model="echo", file=("a.wav", b"RIFF"), language="en")
        text = client.audio.transcriptions.create(model="echo", file=("a.wav", b"RIFF"), response_format="text")

    assert found.text == "Hello from the server."
    assert text == "Hello from the server.\n"
    assert b"RIFF" in upstream.requests[0].body


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "param", "word"),
    [
        ({"temprature": 1}, "temprature", "Extra inputs"),
        ({"temperature": 3}, "temperature", "less than or equal to 2"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": [{"role": "bot", "content": "x"}]}, "messages.0.role", "system"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages.0.content", "string"),
        ({"messages": "hi"}, "messages", "list"),
        ({"model": None}, "model", "string"),
        ({"tools": ["os:system"]}, "tools.0", "object"),
        ({"api_base": "http://evil"}, "api_base", "Extra inputs"),
        ({"stream": True, "n": 2}, "n", "one choice"),
        ({"logit_bias": {"1": float("inf")}}, None, "Infinity is no number of JSON"),
        ({"response_format": {"type": "json_schema"}}, "response_format.type", "text"),
    ],
)
def test_a_wrong_field_is_named(url, upstream, change, param, word):
    content = json.dumps({"model": "echo", "messages": HELLO, **change})
    headers = {"content-type": "application/json"}
    response = web.post(f"{url}/v1/chat/completions", content=content, headers=headers)

    found = error_of(response)
    assert (response.status_code, found["param"], found["type"]) == (400, param, "invalid_request_error")
    assert word in found["message"]
    assert upstream.requests == []


def test_no_message_makes_the_server_read_its_files(url, upstream):
    part = {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}

    response = url.post({"model": "echo", "messages": [{"role": "user", "content": [part]}]})

    assert (response.status_code, error_of(response)["param"]) == (400, "messages.0.content.0.image_url.url")
    assert upstream.requests == []


def test_what_there_is_not_is_told_in_the_same_shape(url):
    unknown = url.post({"model": "nobody", "messages": HELLO})
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "model_not_found")
    path = web.get(f"{url}/v1/nothing")
    assert (path.status_code, error_of(path)["code"]) == (404, "not_found")
    method = web.get(f"{url}/v1/chat/completions")
    assert (method.status_code, error_of(method)["code"]) == (405, "method_not_allowed")
    assert web.post(f"{url}/runs/a%0Ab", json={}).status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/chat/completions", "POST"),
        ("PUT", "/conversations", "GET, POST"),
        ("POST", "/conversations/x/", ""),
        ("PATCH", "/conversations/x", "GET, POST, DELETE"),
        ("HEAD", "/echo/", "GET, POST"),
        ("HEAD", "/health", "GET"),
    ],
)
def test_a_method_that_a_path_does_not_take_is_told_those_that_it_does(url, upstream, method, path, allowed):
    response = web.request(method, f"{url}{path}")

    assert response.status_code == (405 if allowed else 404)
    assert response.headers.get("allow", "") == allowed
    assert upstream.requests == []


FORM = "multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
ECHO = PART % (b"model", b"echo") + b"--x--"


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/audio/transcriptions", b"no form", "the request cannot be read"),
        (
            "/v1/audio/transcriptions",
            PART % (b"file", b"RIFF") + ECHO,
            "must be a file",
        ),
        ("/v1/audio/transcriptions", ECHO, "file: Field required"),
        ("/v1/audio/transcriptions", PART % (b"models", b"echo") + b"--x--", "models: Extra inputs"),
        ("/v1/audio/transcriptions", PART % (b"models", b"") + b"--x--", "models: Extra inputs"),
        ("/v1/chat/completions", ECHO, "must be a JSON object"),
        ("/echo/", PART % (b"user_prompt", b"hi") + b"--x--", "must be a JSON object"),
    ],
)
def test_a_form_that_is_none_or_belongs_elsewhere_is_refused(url, upstream, path, body, said):
    response = web.post(f"{url}{path}", content=body, headers={"content-type": FORM})

    assert response.status_code == 400
    assert said in error_of(response)["message"]
    assert upstream.requests == []


def test_a_field_of_a_form_that_is_empty_counts_as_left_out(serve, upstream):
    file = {"file": ("a.wav", b"RIFF")}
    with serve(model="openai/whisper-1") as url:
        said = web.post(f"{url}/v1/audio/transcriptions", files=file, data={"model": "echo", "language": ""})

    assert said.json() == {"text": "Hello from the server."}
    assert b"language" not in upstream.requests[0].body


def test_a_web_socket_is_closed(sqlite):
    sent = []

    async def run():
        async def receive():
            return {"type": "websocket.connect"}

        async def send(message):
            sent.append(message["type"])

        await create_app([], store=sqlite)({"type": "websocket", "path": "/v1/models", "headers": []}, receive, send)

    asyncio.run(run())
    assert sent == ["websocket.close"]


def test_it_can_be_mounted_in_another_application(upstream, sqlite):
    from starlette.applications import Starlette
    from starlette.routing import Mount

    app = create_app([preset("echo", sqlite, upstream.url)], store=sqlite)
    with serving(Starlette(routes=[Mount("/llm", app)])) as url:
        begun = web.post(f"{url}/llm/runs/echo", json={"data": "hi"})
        wait_for(lambda: web.get(begun.json()["url"]).json()["completed"])
        assert begun.json()["url"].startswith(f"{url}/llm/runs/")
        assert web.get(f"{url}/llm/v1/models").json()["data"][0]["id"] == "echo"
        no_form = web.post(f"{url}/llm/v1/audio/transcriptions", content=b"none", headers={"content-type": FORM})
        assert (no_form.status_code, error_of(no_form)["message"]) == (400, "the request cannot be read")


def test_a_page_of_another_site_cannot_ask(url, upstream):
    """A browser sends a text without asking first; JSON it does not."""
    content = json.dumps({"model": "echo", "messages": HELLO})

    response = web.post(f"{url}/v1/chat/completions", content=content, headers={"content-type": "text/plain"})

    assert (response.status_code, error_of(response)["code"]) == (400, "invalid_value")
    assert "application/json" in error_of(response)["message"]
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{", "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b"", "invalid_value"),
        (b'"text"', "invalid_value"),
        (b'{"model": "echo", "messages": [{"role": "user", "content": "\\ud800"}]}', "invalid_value"),
        (
            b'{"model": "echo", "messages": [{"role": "user", "content": [{"type": "text", "text": "\\uD800"}]}]}',
            "invalid_value",
        ),
    ],
    ids=range(7),
)
def test_a_body_that_cannot_be_read_is_refused(url, upstream, content, code):
    response = web.post(f"{url}/v1/chat/completions", content=content, headers={"content-type": "application/json"})

    assert (response.status_code, error_of(response)["code"]) == (400, code)
    assert upstream.requests == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("entry", "status", "code"),
    [
        (Status(400), 400, "upstream_refused"),
        (Status(401, body={"error": {"message": f"wrong key {KEY}"}}), 502, "upstream_refused_key"),
        (Status(403), 502, "upstream_refused_key"),
        (Status(404), 404, "upstream_not_found"),
        (Status(429, headers={"retry-after": "7"}), 429, "rate_limit_exceeded"),
        (Status(500), 502, "upstream_failed"),
        (Status(503), 503, "upstream_unavailable"),
        (Drop(), 502, "upstream_failed"),
    ],
)
def test_what_the_upstream_says_becomes_a_status(url, upstream, entry, status, code, stream):
    upstream.script = [entry]

    response = url.post({"model": "echo", "messages": HELLO, "stream": stream})

    assert (response.status_code, error_of(response)["code"]) == (status, code)
    assert KEY not in response.text
    assert response.headers.get("retry-after") == ("7" if status == 429 else "1" if status == 503 else None)
    assert len(upstream.requests) == 1


def test_a_stream_that_breaks_ends_with_an_error_and_not_as_if_it_were_whole(url, upstream):
    upstream.script = [Answer("a b c d", end="reset", delay_s=0.5), Answer("a b c d", end="eof")]

    for _ in range(2):
        response = url.post({"model": "echo", "messages": HELLO, "stream": True})
        *_, last, rest = response.text.split("\n\n")
        assert (response.status_code, rest) == (200, "")
        assert json.loads(last[6:])["error"]["code"] == "upstream_failed"
        assert "[DONE]" not in response.text
        assert '"finish_reason":"stop"' not in response.text


def test_openais_client_raises_what_breaks_a_stream(url, upstream):
    upstream.script = [Answer("a b c d", end="reset", delay_s=0.5)]

    with url.client() as client, pytest.raises(openai.APIError, match="middle of the answer"):
        list(client.chat.completions.create(model="echo", messages=HELLO, stream=True))


@pytest.mark.parametrize("stream", [False, True])
def test_a_bug_is_logged_and_not_shown(serve, caplog, stream):
    async def fail(*_):
        raise RuntimeError("the secret reason")

    with serve(Scripted("bug", fail)) as url, caplog.at_level(logging.ERROR, "llmkit.serve"):
        response = url.post({"model": "bug", "messages": HELLO, "stream": stream})

    found = error_of(response)
    assert (response.status_code, found["code"]) == (500, "internal_error")
    assert response.headers["x-request-id"] in found["message"]
    assert "secret" not in response.text
    assert "the secret reason" in caplog.text


@pytest.mark.parametrize(
    ("named", "told"), [("\x1b[31mm", "?[31mm"), ("a\r\nx-evil: 1", "a??x-evil: 1"), ("m\u00fc", "m?")]
)
def test_a_models_name_that_no_header_can_have_is_an_answer_all_the_same(url, upstream, named, told):
    message = {"role": "assistant", "content": "Paid."}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    upstream.script = [
        Raw(json.dumps({"id": "1", "object": "chat.completion", "model": named, "choices": choices}).encode())
    ]

    answer = url.post({"model": "echo", "messages": HELLO})

    assert (answer.status_code, answer.json()["choices"][0]["message"]["content"]) == (200, "Paid.")
    assert answer.headers["x-llmkit-model"] == told
    assert "x-evil" not in answer.headers


def test_the_id_of_a_client_is_kept(url):
    given = web.get(f"{url}/health", headers={"x-request-id": "abc-1"})
    strange = web.get(f"{url}/health", headers={"x-request-id": "a b"})

    assert given.headers["x-request-id"] == "abc-1"
    assert strange.headers["x-request-id"] not in {"", "a b"}


# -- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_body_is_refused(serve, upstream, chunked):
    body = b'{"model": "echo", "messages": [{"role": "user", "content": "' + b"x" * 2000 + b'"}]}'

    with serve(limits=Limits(body_bytes=1000)) as url:
        content = iter([body[:1500], body[1500:]]) if chunked else body
        response = web.post(f"{url}/v1/chat/completions", content=content)

    assert (response.status_code, error_of(response)["code"]) == (413, "request_too_large")
    assert upstream.requests == []


def test_past_the_queue_requests_are_refused_and_in_it_they_wait(serve, upstream):
    go_on = threading.Event()
    upstream.script = [lambda _: (go_on.wait(60), Answer())[1], Answer()]
    statuses = []

    with serve(limits=Limits(concurrency=1, queue=1)) as url:

        def ask():
            statuses.append(url.post({"model": "echo", "messages": HELLO}).status_code)

        threads = [threading.Thread(target=ask) for _ in range(2)]
        threads[0].start()
        wait_for(lambda: upstream.requests)
        threads[1].start()
        wait_for(lambda: "llmkit_queued 1.0" in web.get(f"{url}/metrics").text)
        measured = web.get(f"{url}/metrics").text
        refused = url.post({"model": "echo", "messages": HELLO})
        go_on.set()
        for thread in threads:
            thread.join(30)

    assert "llmkit_in_flight 1.0" in measured
    assert (refused.status_code, error_of(refused)["code"]) == (429, "server_busy")
    assert refused.headers["retry-after"] == "1"
    assert statuses == [200, 200]


def test_nobody_waits_longer_than_the_queue_allows(serve, upstream):
    go_on = threading.Event()
    upstream.script = [lambda _: (go_on.wait(60), Answer())[1]]

    with serve(limits=Limits(concurrency=1, queue=5, queue_timeout_s=0.1)) as url:
        thread = threading.Thread(target=url.post, args=({"model": "echo", "messages": HELLO},))
        thread.start()
        wait_for(lambda: upstream.requests)
        refused = url.post({"model": "echo", "messages": HELLO})
        go_on.set()
        thread.join(30)
        after = url.post({"model": "echo", "messages": HELLO})

    assert (refused.status_code, after.status_code) == (429, 200)


def test_an_answer_has_its_time(serve, upstream):
    late, dripping = Answer(delay_s=6), Answer("a b c d e f g", end="slow", delay_s=0.6)
    upstream.script = [lambda body: dripping if body.get("stream") else late] * 2

    # a busy machine begins a stream within that
    with serve(limits=Limits(request_timeout_s=2.0)) as url, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(url.post, {"model": "echo", "messages": HELLO})
        pieces = url.post({"model": "echo", "messages": HELLO, "stream": True})
        whole = waiting.result()

    assert (whole.status_code, error_of(whole)["code"]) == (504, "timeout")
    *_, last, rest = pieces.text.split("\n\n")
    assert (pieces.status_code, rest, json.loads(last[6:])["error"]["code"]) == (200, "", "timeout")
    assert "[DONE]" not in pieces.text


@pytest.fixture(params=["ours", "another"])
def any_server(request, upstream, sqlite):
    """Give the address of the application behind llmkit's own server, and behind one that knows nothing of it."""
    app = create_app([preset("echo", sqlite, upstream.url, retry={"tries": 1})], store=sqlite)
    with serving(app, **({} if request.param == "ours" else {"http": "httptools"})) as address:
        yield address


def test_a_client_that_goes_away_after_a_large_question_ends_its_call_too(any_server, upstream, sqlite):
    """What arrives at once is more than a server reads ahead."""
    upstream.script = [Answer(delay_s=3)]
    body = json.dumps({"model": "echo", "messages": [{"role": "user", "content": "word " * 20_000}]}).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json"

    with socket.create_connection(("127.0.0.1", any_server.port)) as client:
        client.sendall(f"{head}\r\ncontent-length: {len(body)}\r\n\r\n".encode())
        time.sleep(0.1)
        client.sendall(body)
        wait_for(lambda: upstream.requests)

    wait_for(lambda: ledger_of(sqlite).rows())
    assert [row.status for row in ledger_of(sqlite).rows()] == ["cancelled"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_ends_its_call_upstream(any_server, upstream, sqlite, stream):
    url = any_server
    upstream.script = [Answer("word " * 200, end="slow", delay_s=0.05) if stream else Answer(delay_s=3)]
    body = json.dumps({"model": "echo", "messages": HELLO, "stream": stream})

    connection = http.client.HTTPConnection("127.0.0.1", url.port)
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    if stream:
        answer = connection.getresponse()
        answer.read(200)
        answer.close()
    else:
        wait_for(lambda: upstream.requests)
    connection.close()

    if stream:
        assert upstream.broken.wait(20)
    wait_for(lambda: ledger_of(sqlite).rows())
    assert [row.status for row in ledger_of(sqlite).rows()] == ["interrupted" if stream else "cancelled"]
    assert url.post({"model": "echo", "messages": HELLO}).status_code == 200


# -- money and keys ---------------------------------------------------------------------------------------------------


def test_a_budget_holds(serve, upstream, sqlite):
    llmkit.Budgets(sqlite).set(llmkit.Budget(name="small", limit_usd=0.000001))

    with serve(budget="small") as url:
        for stream in (False, True):
            response = url.post({"model": "echo", "messages": HELLO, "stream": stream})
            found = error_of(response)
            assert (response.status_code, found["code"], found["type"]) == (
                429,
                "budget_exceeded",
                "insufficient_quota",
            )
            assert response.headers["x-should-retry"] == "false"
            assert int(response.headers["retry-after"]) > 0

    assert upstream.requests == []


def test_keys_say_who_may_ask_what(serve, upstream, sqlite):
    async def hello(*_):
        return reply("hello")

    anna = Keys(sqlite).add("anna", 5.0, "month", ["echo"])
    body = {"model": "echo", "messages": HELLO}

    with serve(Scripted("other", hello)) as url:
        nobody, wrong = url.post(body), url.post(body, headers={"authorization": "Bearer llmkit-wrong"})
        known = url.post(body, headers={"authorization": f"Bearer {anna}"})
        named = url.post(body, headers={"x-api-key": anna})
        beyond = url.post({**body, "model": "other"}, headers={"x-api-key": anna})
        listed = web.get(f"{url}/v1/models", headers={"x-api-key": anna}).json()
        assert web.get(f"{url}/health").status_code == 200

    assert [nobody.status_code, wrong.status_code, known.status_code, named.status_code] == [401, 401, 200, 200]
    assert (error_of(nobody)["code"], error_of(wrong)["code"]) == ("missing_key", "invalid_api_key")
    assert (beyond.status_code, error_of(beyond)["code"]) == (403, "model_not_allowed")
    assert [each["id"] for each in listed["data"]] == ["echo"]
    assert [row.tags for row in ledger_of(sqlite).rows()] == [("key:anna",), ("key:anna",)]
    (info,) = Keys(sqlite).list()
    assert info.budget.settled > 0


def test_metrics_tell_of_requests_tokens_and_money(url):
    url.post({"model": "echo", "messages": HELLO})
    url.post({"model": "echo", "messages": HELLO, "stream": True})
    url.post({"model": "nobody", "messages": HELLO})

    found = web.get(f"{url}/metrics").text

    route = 'route="/v1/chat/completions"'
    assert f'llmkit_requests_total{{model="echo",{route},status="200"}} 2.0' in found
    assert f'llmkit_requests_total{{model="",{route},status="404"}} 1.0' in found
    assert 'llmkit_tokens_total{direction="in",model="echo"} 22.0' in found
    assert 'llmkit_cost_usd_total{model="echo"}' in found
    assert "llmkit_in_flight 0.0" in found
    assert f"llmkit_request_seconds_count{{{route}}} 3.0" in found


def test_health_and_the_end_of_what_is_served(serve):
    async def hello(*_):
        return reply("hello")

    class Stubborn(Scripted):
        async def stop(self):
            raise RuntimeError("no")

    first, last = Scripted("first", hello), Stubborn("last", hello)

    with serve(first, last) as url:
        assert web.get(f"{url}/health").json() == {"status": "ok", "models": ["echo", "first", "last"]}

    assert first.stopped


def test_what_programs_need_of_the_server_comes_from_its_package():
    assert serve_package.__all__ == ["Keys", "Limits", "ServedPreset", "create_app"]
    assert all(getattr(serve_package, name) for name in serve_package.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = serve_package.nothing


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def preset_file(tmp_path, upstream, monkeypatch):
    monkeypatch.setenv("LLMKIT_PRESETS", str(tmp_path / "presets"))  # a folder that the user named is trusted
    folder = tmp_path / "presets"
    folder.mkdir()
    text = f'model: openai/gpt-4o\nparams: {{api_base: "{upstream.url}/v1", api_key: "${{UPSTREAM}}"}}\n'
    (folder / "filed.yaml").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_when_what_runs_is_done(preset_file, upstream, number):
    upstream.script = [Answer(delay_s=0.5)]
    found = []

    with command("filed", UPSTREAM=KEY) as (process, url):

        def ask():
            found.append(web.post(f"{url}/v1/chat/completions", json={"model": "filed", "messages": HELLO}))

        thread = threading.Thread(target=ask)
        thread.start()
        wait_for(lambda: upstream.requests)
        process.send_signal(number)
        code = process.wait(15)
        thread.join()
        rest = process.stderr.read()

    assert found[0].json()["choices"][0]["message"]["content"] == "Hello from the server."
    assert (code, rest) == (0, "")


def test_what_does_not_end_in_time_is_told_that_the_server_stops(preset_file, upstream):
    upstream.script = [Answer(delay_s=8)]
    found = []

    with command("filed", "--grace", "1", UPSTREAM=KEY) as (process, url):

        def ask():
            found.append(web.post(f"{url}/v1/chat/completions", json={"model": "filed", "messages": HELLO}))

        thread = threading.Thread(target=ask)
        thread.start()
        wait_for(lambda: upstream.requests)
        process.terminate()
        code = process.wait(7)
        thread.join()
        rest = process.stderr.read()

    assert (code, found[0].status_code) == (0, 503), (found[0].text, rest)
    assert error_of(found[0])["code"] == "server_stops"
    assert "Traceback" not in rest


def test_a_model_py_is_served_beside_a_preset(preset_file, tmp_path):
    code = "async def predict(user_prompt):\n    return user_prompt.upper()\n"
    (tmp_path / "loud").mkdir()
    (tmp_path / "loud" / "model.py").write_text(code, encoding="utf-8")

    with (
        command("filed", "loud/model.py", UPSTREAM=KEY) as (_, url),
        openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client,
    ):
        names = [each.id for each in client.models.list()]
        whole = client.chat.completions.create(model="loud", messages=HELLO)
        pieces = list(client.chat.completions.create(model="loud", messages=HELLO, stream=True))

    assert names == ["filed", "loud"]
    assert whole.choices[0].message.content == "HI"
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == "HI"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["local", "--host", "0.0.0.0"], "there is no key, so everybody who reaches 0.0.0.0 could ask"),
        (["nobody-has-this"], "no preset is called"),
        (["local", "local"], "two things cannot be served under one name"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_line(words, told):
    code, said = refused(*words)

    assert (code, said.startswith("llmkit: "), said.count("\n")) == (2, True, 1)
    assert told in said


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("broken", "preset 'broken': tool 0: 'nothing_of_this_name:run' cannot be imported"),
        ("broken.py", "broken.py: it cannot be loaded: ZeroDivisionError"),
    ],
)
def test_what_cannot_be_started_is_told_in_a_line(tmp_path, monkeypatch, word, told):
    monkeypatch.setenv("LLMKIT_PRESETS", str(tmp_path / "presets"))  # a folder that the user named is trusted
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "broken.yaml").write_text("model: openai/gpt-4o\ntools: ['nothing_of_this_name:run']\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    done = subprocess.run([*LINE, word, "--port", "0"], capture_output=True, text=True, check=False, timeout=60)

    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("llmkit: ")
    assert told in done.stderr


def test_a_port_that_is_taken_is_told_in_a_line(url):
    code, said = refused("local", "--port", str(url.port))

    assert (code, said.count("\n")) == (2, 1)
    assert "cannot listen at 127.0.0.1" in said


def test_help_shows_the_options_and_where_keys_are():
    done = subprocess.run([*LINE, "--help"], capture_output=True, text=True, check=True)
    keys = subprocess.run([*LINE, "keys", "--help"], capture_output=True, text=True, check=True)

    assert "--concurrency" in done.stdout
    assert "serve keys --help" in done.stdout
    assert "add" in keys.stdout


# -- the document -----------------------------------------------------------------------------------------------------


def test_the_openapi_document_is_true(sqlite):
    """Whatever is sent that the document allows or forbids, nothing is answered with a 5xx."""
    import schemathesis
    from hypothesis import HealthCheck, Phase, settings
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

    checks = [not_a_server_error, status_code_conformance, content_type_conformance]

    async def hello(*_):
        return reply("hello")

    app = create_app([Scripted("echo", hello)], store=sqlite)
    with serving(app) as url:
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        seen = set()
        for found in schema.get_all_operations():
            operation = found.ok()

            @settings(
                max_examples=50 if LONG else 8,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.explicit, Phase.generate],
            )
            @_given(operation.as_strategy())
            def check(case):
                for known in (False, True):  # a name drawn by chance is never one that is served
                    if known and isinstance(case.body, dict) and "model" in case.body:
                        case.body["model"] = "echo"
                    for name in {"name", "model"} & case.path_parameters.keys() if known else ():
                        case.path_parameters[name] = "echo"
                    response = case.call(base_url=url, timeout=20)
                    case.validate_response(response, checks=checks)
                    seen.add((case.method, case.path, response.status_code))

            check()

    chat = {status for method, path, status in seen if path == "/v1/chat/completions"}
    assert {200, 404} <= chat
    assert len({path for _, path, _ in seen}) >= 6


def _given(strategy):
    from hypothesis import given

    return given(case=strategy)
