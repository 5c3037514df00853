"""X2, X3: one builder. A preset goes out the same whichever way it is asked."""

from __future__ import annotations

import asyncio

import pytest

import llmkit
from llmkit import ChatModel, MultiAIClient, presets
from llmkit.backend import ApiBackend
from llmkit.testing import ScriptedBackend

NAMES = sorted(path.stem for path in presets.shipped().glob("*.yaml"))
KEYS = ("openai", "anthropic", "mistral", "scaleway", "azure", "groq", "openrouter", "gemini", "deepseek", "xai")
QUESTION = "How long is the Nile?"


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    for name in KEYS:
        monkeypatch.setenv(f"{name.upper()}_API_KEY", f"key-of-{name}-0123456789")
    monkeypatch.setenv("CLOVASTUDIO_API_KEY", "key-of-clova-0123456789")
    monkeypatch.setenv("AZURE_API_BASE", "https://mine.example")


def variables_of(name):
    return {key: "x" for key, value in presets.load(name).variables.items() if value is None}


def fixed(name):
    """Return a preset with its variables put in, of one version, since each surface would draw its own."""
    return presets.load(name, "latest").filled(variables_of(name))


def sent_by_ask(preset, backend):
    llmkit.ask(QUESTION, preset=preset, backend=backend)


def sent_by_stream(preset, backend):
    list(llmkit.stream(QUESTION, preset=preset, backend=backend))


def sent_by_client(preset, backend):
    client = MultiAIClient.from_presets([preset.name], backend=backend)
    client.invoke(QUESTION, preset.name)


def sent_by_chat(preset, backend):
    chat = ChatModel(preset, store="sqlite:///sessions.db", backend=backend)
    chat.add_messages([{"role": "user", "content": QUESTION}])
    result = chat.run()
    assert not result.error, result.error_log


def sent_by_backend(preset, backend):
    answer = ApiBackend(backend=backend).ask(QUESTION, {"preset": preset.name})
    assert answer.success, answer.message


def sent_by_server(preset, backend):
    from llmkit.serve import ServedPreset
    from llmkit.serve.context import Caller
    from llmkit.store import Store

    served = ServedPreset(name=preset.name, preset=preset, store=Store("sqlite:///served.db"), backend=backend)
    asyncio.run(served.answer([{"role": "user", "content": QUESTION}], {}, Caller()))


SURFACES = (sent_by_ask, sent_by_stream, sent_by_client, sent_by_chat, sent_by_backend, sent_by_server)


@pytest.mark.parametrize("name", [name for name in NAMES if not variables_of(name)])
def test_x2_every_shipped_preset_goes_out_the_same_from_every_surface(name):
    preset = fixed(name)
    if preset.version is not None:
        pytest.skip("each surface draws a version of its own")
    seen = {}
    for surface in SURFACES:
        backend = ScriptedBackend(*["{}"] * 3)
        surface(preset, backend)
        request = backend.requests[0]
        seen[surface.__name__] = (
            request.model,
            [dict(message) for message in request.messages],
            dict(request.params),
            request.api_key,
            request.api_base,
            request.timeout_s,
            request.price,
            request.price_source,
            request.priced_as,
        )

    assert {name: value for name, value in seen.items() if value != seen["sent_by_ask"]} == {}


def test_x2_the_documents_variable_is_read_by_every_surface(monkeypatch):
    monkeypatch.delenv("SCALEWAY_API_KEY")
    monkeypatch.setenv("SCALEWAY_API_KEY", "the-documents-0123456789")
    for surface in SURFACES:
        backend = ScriptedBackend("hi")
        surface(fixed("scaleway-gpt-oss-120b"), backend)
        assert backend.requests[0].api_key == "the-documents-0123456789", surface.__name__


def test_x3_qwen_gets_the_schema_it_wants_from_every_surface(call):
    wanted = {"type": "json_object"}
    backend = ScriptedBackend("{}", "{}")
    preset = fixed("scaleway-qwen3-235b")

    call(llmkit, "ask", QUESTION, preset=preset, response_format=wanted, backend=backend)
    client = MultiAIClient.from_presets([preset.name], backend=backend)
    call(client, "invoke", QUESTION, preset.name, response_format=wanted)

    assert [request.params["response_format"]["type"] for request in backend.requests] == ["json_schema"] * 2
    assert wanted == {"type": "json_object"}
