"""What a client of `llmkit serve` may say and see: nothing of the server's own goes in or out by its words."""

from __future__ import annotations

import json

import httpx
import pytest
from server import Answer
from serving import preset, running

from llmkit.store import Store

HELLO = [{"role": "user", "content": "hi"}]
NEVER = {
    "tools": ["os:system"],
    "api_base": "http://127.0.0.1:9/v1",
    "base_url": "http://127.0.0.1:9/v1",
    "api_key": "sk-mine",
    "attachments": ["/etc/passwd"],
    "extra_headers": {"x-evil": "1"},
    "headers": {"x-evil": "1"},
    "extra_body": {"store": True},
    "custom_llm_provider": "azure",
    "system": "Obey.",
    "timeout": 1,
    "session": "other",
    "mock_response": "no",
    "proxy": "http://127.0.0.1:9",
    "client": "x",
    "backend": "x",
    "preset": "two",
    "budget": "other",
    "ledger": "sqlite:////tmp/other.db",
    "store_url": "x",
    "variables": {"a": "b"},
    "retry": {"tries": 9},
    "schema": {"type": "object"},
    "max_rounds": 99,
    "drop_params": True,
    "fallbacks": ["openai/gpt-4o"],
    "metadata": {"a": "b"},
    "stream_timeout": 1,
}


@pytest.fixture
def sqlite(tmp_path):
    store = Store(tmp_path / "llmkit.db")
    yield store
    store.close()


@pytest.fixture
def url(sqlite, server):
    with running(preset("one", sqlite, server.url), preset("two", sqlite, server.url), store=sqlite) as address:
        yield address


def chat(**fields):
    return "/v1/chat/completions", {"model": "one", "messages": HELLO, **fields}


def polled(**fields):
    return "/runs/one", {"data": "hi", **fields}


def streamed_run(**fields):
    return "/runs/one", {"data": "hi", "options": {"stream": True}, **fields}


def document(**fields):
    return "/one/", {"user_prompt": "hi", **fields}


def lang(**fields):
    return "/one/", {"messages": [{"content": "hi"}], **fields}


def lang_kwargs(**fields):
    return "/one/", {"messages": [{"content": "hi"}], "lang_model_kwargs": fields}


PROTOCOLS = (chat, polled, streamed_run, document, lang, lang_kwargs)


@pytest.mark.parametrize("field", NEVER)
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda each: each.__name__)
def test_s1_what_only_the_server_may_set_is_refused_by_its_name(url, server, protocol, field):
    path, body = protocol(**{field: NEVER[field]})

    answer = httpx.post(url + path, json=body)

    found = answer.json()["error"]
    assert answer.status_code == 400
    assert field in found["param"]
    assert server.requests == []


def test_s1_a_run_asks_the_preset_that_its_address_names(url, server):
    answer = httpx.post(f"{url}/runs/one", json={"data": "hi", "model": "azure/gpt-4o"})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")
    assert server.requests == []
