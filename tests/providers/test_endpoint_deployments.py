"""Deployments at endpoints of Practicus' and aiXplain's shape: the whole of llmkit on top of them."""

from __future__ import annotations

import base64
import json
import time

import pytest
from server import FunctionServer

import llmkit
from llmkit import ChatModel, ConfigError, Deployment, MultiAIClient, Price
from llmkit.presets import Preset

JWT = ".".join(
    base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
    for part in ({"alg": "HS256"}, {"exp": time.time() + 3600}, {})
)
PRICE = Price(prompt=0.001, completion=0.002)


class Endpoint(FunctionServer):
    """Answers what its function returns: a dict as JSON, bytes as raw text, a pair with the status first."""

    @property
    def url(self):
        return f"{self.address}/llm/one"


def practicus(path, body):
    if path.startswith("/auth"):
        return {"token": JWT}
    if body.get("streaming"):
        return "Größe ist alles".encode()
    if "messages" in body:
        return {"content": "long", "input_tokens": 9, "output_tokens": 3, "total_tokens": 12}
    return {"answer": "short"}


@pytest.fixture
def endpoint():
    with Endpoint(practicus) as running:
        yield running


def client(endpoint, api_key=JWT, **more):
    return MultiAIClient(
        {"m": Deployment(provider="practicus", endpoint=endpoint.url, api_key=api_key, price=PRICE)}, **more
    )


def test_one_question_is_the_simple_body(call, endpoint):
    reply = call(client(endpoint), "invoke", "Who is Einstein?", "m", "Be short.")

    assert (reply.text, reply.name, reply.finish_reason) == ("short", "m", "stop")
    assert reply.usage.source == "estimated"
    assert reply.usage.cost_usd > 0
    method, path, headers, body = endpoint.requests[0]
    assert (method, path, headers["authorization"]) == ("POST", "/llm/one/", f"Bearer {JWT}")
    assert body == {"user_prompt": "Who is Einstein?", "system_context": "Be short."}


def test_a_conversation_and_parameters_are_messages(call, endpoint):
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]

    reply = call(client(endpoint), "invoke", said, "m", temperature=0.5, top_p=0.1)

    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.source) == (9, 3, "priced")
    assert reply.usage.cost_usd == pytest.approx(0.015)
    assert endpoint.requests[0][3] == {"messages": said, "temperature": 0.5, "lang_model_kwargs": {"top_p": 0.1}}


@pytest.mark.parametrize("details", [{"cached_tokens": 0}, None])
def test_the_usage_of_a_chat_completion_is_taken(call, details):
    counts = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, "prompt_tokens_details": details}
    choices = [{"message": {"role": "assistant", "content": "Hi!"}}]
    with Endpoint(lambda *_: {"choices": choices, "usage": counts}) as endpoint:
        reply = call(client(endpoint), "invoke", "hi", "m")

    assert (reply.text, reply.usage.total_tokens, reply.usage.source) == ("Hi!", 12, "priced")
    assert reply.usage.cost_usd == pytest.approx(0.015)


def test_streams_are_read(read, endpoint):
    pieces, reply = read(client(endpoint), "stream", "hi", "m")

    assert "".join(piece.content for piece in pieces) == reply.text == "Größe ist alles"
    assert (reply.finish_reason, reply.usage.source) == ("stop", "estimated")


def test_a_key_is_exchanged_for_a_token_once(call, endpoint):
    asked = client(endpoint, api_key="a-key-of-the-endpoint")

    call(asked, "invoke", "1", "m")
    call(asked, "invoke", "2", "m")

    paths = [path for _, path, _, _ in endpoint.requests]
    assert paths == ["/auth/session-token/", "/llm/one/", "/llm/one/"]
    assert endpoint.requests[0][2]["authorization"] == "Bearer a-key-of-the-endpoint"
    assert endpoint.requests[1][2]["authorization"] == f"Bearer {JWT}"


@pytest.mark.parametrize(
    ("said", "more", "why"),
    [
        ([{"role": "assistant", "content": "x"}], {}, "answers a user's message"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}], {}, "text only"),
        ("hi", {"tools": [{"type": "function", "function": {"name": "f"}}]}, "knows no tools"),
    ],
)
def test_what_it_cannot_take_is_refused_and_not_left_out(call, endpoint, said, more, why):
    with pytest.raises(llmkit.BadRequestError, match=why):
        call(client(endpoint), "invoke", said, "m", **more)
    assert endpoint.requests == []


def test_refusals_and_retries(call):
    script = [(503, {"detail": "soon"}), {"answer": "now"}]
    with Endpoint(lambda *_: script.pop(0)) as endpoint:
        assert call(client(endpoint), "invoke", "hi", "m", tries=2).text == "now"
    refusing = Endpoint(lambda *_: (403, {"detail": "not you"}))
    with refusing as endpoint, pytest.raises(llmkit.PermissionDeniedError, match="not you"):
        call(client(endpoint), "invoke", "hi", "m")


def test_a_session_on_top_of_an_endpoint(endpoint, store):
    preset = Preset(name="p", model="practicus/one", params={"api_base": endpoint.url})
    chat = ChatModel(preset, api_key=JWT, store=store)
    chat.add_messages([{"role": "user", "content": "hi"}])
    assert chat.run().content == "short"
    chat.add_messages([{"role": "user", "content": "and?"}])
    assert list(chat.run(stream=True))[-1].whole.content == "Größe ist alles"
    assert llmkit.ask("hi", model="practicus/one", api_base=endpoint.url, api_key=JWT).text == "short"


def test_an_endpoint_needs_its_address():
    with pytest.raises(ConfigError, match="endpoint is missing"):
        Deployment(provider="practicus")


def aixplain(path, body):
    done = {
        "status": "SUCCESS",
        "completed": True,
        "data": "Hi!",
        "usage": {"prompt_tokens": 4, "completion_tokens": 2},
    }
    begun = {"status": "IN_PROGRESS", "data": f"http://127.0.0.1:{PORT[0]}/jobs/1"}
    if body and (body.get("options") or {}).get("stream"):
        return b"Hi there"
    return done if path.startswith("/jobs") else begun


PORT = [0]


def test_a_deployment_at_aixplain(call, read, monkeypatch):
    monkeypatch.setenv("AIXPLAIN_API_KEY", "team-key")
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    with Endpoint(aixplain) as endpoint:
        PORT[0] = endpoint.port
        asked = MultiAIClient({"m": Deployment("m", "aixplain", "abc", endpoint=endpoint.url, price=PRICE)})

        reply = call(asked, "invoke", said, "m", "S", max_tokens=5)
        assert (reply.text, reply.usage.total_tokens, reply.usage.cost_usd) == ("Hi!", 6, pytest.approx(0.008))
        method, path, headers, body = endpoint.requests[0]
        assert (method, path, headers["x-api-key"]) == ("POST", "/llm/one/abc", "team-key")
        assert body == {"data": "c", "context": "S", "history": said[:2], "max_tokens": 5}


def test_without_a_key_aixplain_is_not_asked(call):
    asked = MultiAIClient({"m": Deployment("m", "aixplain", "abc", endpoint="http://127.0.0.1:9")})

    with pytest.raises(llmkit.AuthenticationError, match="AIXPLAIN_API_KEY"):
        call(asked, "invoke", "hi", "m")
