"""Presets in calls: the shipped ones, those of the LLM Workflow Engine, and what wins over what."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from server import ANSWER, USAGE, Answer, Raw

import llmkit
from llmkit import MultiAIClient, presets
from llmkit.errors import APIConnectionError, PresetError
from llmkit.providers.litellm.sdk import load as litellm
from llmkit.testing import ScriptedBackend

FOLDER = Path(__file__).parents[2] / "presets"
FILES = sorted(FOLDER.glob("*.yaml"))
SCHEMA = json.loads((FOLDER / "preset.schema.json").read_text(encoding="utf-8"))
HOSTED = [path.stem for path in FILES if path.stem != "local"]
OWN_WORDS = {"extract-json": '{"name": "Ada"}'}
CHOICE = {"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}
BODIES = {  # what providers answer whose format the server does not speak
    "groq": {"id": "1", "created": 1, "choices": [CHOICE], "usage": USAGE, "service_tier": "on_demand"},
    "cohere": {"id": "1", "finish_reason": "COMPLETE", "message": {"content": [{"type": "text", "text": ANSWER}]}},
    "ollama": {"model": "llama3.2", "message": {"role": "assistant", "content": ANSWER}, "done": True},
}
BODIES["cohere"]["usage"] = {"tokens": {"input_tokens": 11, "output_tokens": 5}}
BODIES["ollama"] |= {"prompt_eval_count": 11, "eval_count": 5, "done_reason": "stop"}
PATHS = {
    "anthropic": "/v1/messages",
    "gemini": "/v1/models/gemini-3.8-flash:generateContent",
    "cohere_chat": "/v1",
    "ollama_chat": "/api/chat",
}
LWE = """\
metadata:
  name: other
  provider: chat_openai
  description: From LWE.
  system_message: programmer
model_customizations:
  model_name: gpt-4o
  temperature: 0.5
  top_p: null
  n: null
  request_timeout: 30
  max_retries: 2
  model_kwargs: {seed: 7}
"""


@pytest.fixture
def write(tmp_path):
    """Write a preset file into the working directory's `presets/`."""

    def make(name, text):
        path = tmp_path / "presets" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return make


def sent(call, preset, **options):
    """Ask a scripted model with a preset; return the request."""
    backend = ScriptedBackend("ok")
    call(llmkit, "ask", "Hi", preset=preset, backend=backend, **options)
    return backend.requests[0]


# -- the shipped files ------------------------------------------------------------------------------------------------


def test_these_are_the_files_that_are_shipped():
    assert presets.shipped() == FOLDER
    assert {path.stem for path in FILES} == set(presets.names())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_file_is_right_and_says_what_it_is_for(path, monkeypatch):
    monkeypatch.setenv("CLOVASTUDIO_API_KEY", "k")
    text = path.read_text(encoding="utf-8")

    assert text.splitlines()[0] == "# yaml-language-server: $schema=preset.schema.json"
    jsonschema.Draft202012Validator(SCHEMA).validate(yaml.safe_load(text))
    assert presets.check(path).description
    assert presets.load(path.stem).filled().name == path.stem


def test_the_schema_file_is_the_one_of_this_version():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)

    assert json.loads(json.dumps(presets.json_schema())) == SCHEMA, "llmkit presets schema > presets/preset.schema.json"


@pytest.mark.parametrize("data", [{"modle": "x"}, {"timeout": -1}, {"retry": {"tries": 0}}, {"params": {"top_p": 2}}])
def test_the_schema_refuses_what_llmkit_refuses(write, data):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(data)
    with pytest.raises(PresetError):
        presets.check(write("wrong", json.dumps(data)))


@pytest.mark.parametrize(
    ("name", "model", "temperature", "top_p", "timeout"),
    [
        ("gpt-4-chatbot-responses", "openai/gpt-4o", 0.5, 0.5, 60),
        ("gpt-4-code-generation", "openai/gpt-4-turbo", 0.2, 0.1, 60),
        ("gpt-4-creative-writing", "openai/gpt-4o", 0.7, 0.8, 60),
        ("gpt-4o-mini", "openai/gpt-4o-mini", None, None, None),
    ],
)
def test_the_presets_of_gpt_4_have_their_values(name, model, temperature, top_p, timeout):
    found = presets.load(name)

    assert (found.model, found.timeout) == (model, timeout)
    assert (found.params.temperature, found.params.top_p) == (temperature, top_p)
    if name == "gpt-4-chatbot-responses":
        assert found.system == "You are a helpful assistant."


@pytest.mark.parametrize("name", HOSTED)
def test_a_shipped_preset_asks_its_provider(server, monkeypatch, name):
    monkeypatch.setenv("LLMKIT_MODEL", "openai/gpt-4o")
    monkeypatch.setenv("CLOVASTUDIO_API_KEY", "k")
    preset = presets.load(name).filled()
    bare, provider, *_ = litellm().get_llm_provider(preset.model or "openai/gpt-4o")
    text = OWN_WORDS.get(name, ANSWER)
    server.script = [Raw(json.dumps(BODIES[name]).encode()) if name in BODIES else Answer(text)]
    base = server.url if provider in {"anthropic", "mistral", "ollama_chat"} else f"{server.url}/v1"

    reply = llmkit.ask("Hi", preset=name, api_key="k", api_base=base)
    sent = server.requests[0]

    assert reply.text == text
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (11, 5)
    assert sent.path == PATHS.get(provider, "/v1/chat/completions")
    assert provider == "gemini" or sent.body["model"] == bare
    whole = {**sent.body, **sent.body.get("generationConfig", {})}
    assert {key: whole[key] for key in preset.set_params() if not key.startswith("api_")} == {
        key: value for key, value in preset.set_params().items() if not key.startswith("api_")
    }
    if preset.system:
        assert sent.body["messages"][0] == {"role": "system", "content": preset.system}


def test_a_key_that_is_given_needs_no_key_in_the_environment(call):
    request = sent(call, "hyperclova-x", api_key="k")

    assert (request.api_key, request.api_base) == ("k", "https://clovastudio.stream.ntruss.com/v1/openai")


def test_the_local_preset_asks_the_embedded_model(call):
    reply = call(llmkit, "ask", "What is the capital of France?", preset="local")

    assert "Paris" in reply.text
    assert reply.usage.cost_usd == 0


# -- presets of the LLM Workflow Engine -------------------------------------------------------------------------------


def test_a_preset_of_lwe_is_read_as_it_is(write, call):
    write("mine", LWE)
    mine = presets.load("mine")
    request = sent(call, "mine")

    assert (mine.name, mine.description, mine.retry.tries) == ("mine", "From LWE.", 3)
    assert (request.model, request.timeout_s) == ("openai/gpt-4o", 30)
    assert request.params == {"temperature": 0.5, "seed": 7}
    assert request.messages[0]["content"].startswith("You are an expert programmer.")


@pytest.mark.parametrize(
    ("line", "other", "told"),
    [
        (
            "provider: chat_openai",
            "provider: chat_opnai",
            ":3:3: metadata.provider: 'chat_opnai' is not known; did you mean 'chat_openai'",
        ),
        (
            "temperature: 0.5",
            "temprature: 0.5",
            ":8:3: unknown key 'model_customizations.temprature'; did you mean 'temperature'",
        ),
        (
            "description: From",
            "descripton: From",
            ":4:3: unknown key 'metadata.descripton'; did you mean 'description'",
        ),
        ("temperature: 0.5", "temperature: 9", ":8:3: params.temperature: Input should be less than or equal to 2"),
    ],
)
def test_a_wrong_preset_of_lwe_is_told_with_its_place(write, line, other, told):
    path = write("mine", LWE.replace(line, other))

    with pytest.raises(PresetError) as caught:
        presets.load("mine")
    assert f"{path}{told}" in str(caught.value)


# -- what wins --------------------------------------------------------------------------------------------------------


def test_what_a_call_gives_wins_over_the_preset(write, call):
    write(
        "mine",
        "model: openai/gpt-4o\nsystem: s\nparams: {temperature: 0.5}\ntimeout: 60\n"
        "examples: [{user: u, assistant: a}]\n",
    )

    usual = sent(call, "mine")
    assert (usual.model, usual.timeout_s, usual.params) == ("openai/gpt-4o", 60, {"temperature": 0.5})
    said = [("system", "s"), ("user", "u"), ("assistant", "a"), ("user", "Hi")]
    assert [(message["role"], message["content"]) for message in usual.messages] == said
    other = sent(call, "mine", model="openai/gpt-4o-mini", system="", temperature=0, timeout=5, seed=1)
    assert (other.model, other.timeout_s, other.params) == ("openai/gpt-4o-mini", 5, {"temperature": 0, "seed": 1})
    assert sent(call, "mine", system="mine").messages[0] == {"role": "system", "content": "mine"}
    assert sent(call, presets.load("mine")).model == "openai/gpt-4o"


def test_a_preset_without_a_model_asks_the_default_one(write, call, monkeypatch):
    write("mine", "system: s\nparams: {seed: 1}\n")
    write("usual", "model: openai/gpt-4o-mini\nsystem: t\nparams: {seed: 2, top_p: 0.5}\n")

    assert sent(call, "mine").model.endswith("/smollm2")
    monkeypatch.setenv("LLMKIT_PRESET", "usual")
    request = sent(call, "mine")
    assert (request.model, request.params) == ("openai/gpt-4o-mini", {"seed": 1, "top_p": 0.5})
    assert request.messages[0]["content"] == "s"
    monkeypatch.setenv("LLMKIT_MODEL", "openai/gpt-4o")
    assert sent(call, "mine").model == "openai/gpt-4o"


def test_fallbacks_of_a_preset_are_asked(write, call):
    write("mine", "model: openai/gpt-4o\nretry: {tries: 1}\nparams: {seed: 1}\nfallbacks: [other, 'mistral:large']\n")
    write("other", "model: anthropic/claude\nparams: {top_p: 0.5}\n")
    down = APIConnectionError("down", provider="openai", model="openai/gpt-4o")

    for failures, model, params in [(1, "anthropic/claude", {"top_p": 0.5}), (2, "mistral/large", {"seed": 1})]:
        backend = ScriptedBackend(*[down] * failures, "I can")
        reply = call(llmkit, "ask", "Hi", preset="mine", backend=backend)
        assert (reply.text, reply.name) == ("I can", model)
        assert (backend.requests[-1].model, backend.requests[-1].params) == (model, params)
        assert backend.sleeps == []


def test_a_client_of_presets_sends_what_they_say(write, call):
    write(
        "mine",
        "model: openai/gpt-4o\nsystem: s\nparams: {seed: 1}\ntimeout: 9\n"
        "retry: {tries: 2}\nfallbacks: [other, mistral/large]\n",
    )
    write("other", "model: anthropic/claude\nparams: {top_p: 0.5}\n")
    down = APIConnectionError("down", provider="openai", model="openai/gpt-4o")
    backend = ScriptedBackend(down, down, APIConnectionError("down"), APIConnectionError("down"), "I can")
    client = MultiAIClient.from_presets(["mine"], backend=backend)

    reply = call(client, "invoke", "Hi", model="mine", temperature=0)
    models = ["openai/gpt-4o", "openai/gpt-4o", "anthropic/claude", "anthropic/claude", "mistral/large"]
    assert (reply.text, reply.name) == ("I can", "mistral/large")
    assert [request.model for request in backend.requests] == models
    assert backend.requests[0].params == {"seed": 1, "temperature": 0}
    assert backend.requests[2].params == {"top_p": 0.5, "temperature": 0}
    assert backend.requests[0].timeout_s == 9
    assert {request.messages[0]["content"] for request in backend.requests} == {"s"}
    assert client.resolve("other").deployment.litellm_model == "anthropic/claude"


def test_a_preset_without_a_model_is_the_same_in_a_client_and_as_a_fallback(write, call, monkeypatch):
    monkeypatch.setenv("LLMKIT_MODEL", "openai/gpt-4o-mini")
    write("mine", "model: openai/gpt-4o\nretry: {tries: 1}\nfallbacks: [translate]\n")
    backend = ScriptedBackend(APIConnectionError("down"), "ok", "ok")

    call(llmkit, "ask", "Hi", preset="mine", backend=backend)
    call(MultiAIClient.from_presets(["translate"], backend=backend), "invoke", "Hi", model="translate")

    assert [request.model for request in backend.requests[1:]] == ["openai/gpt-4o-mini", "openai/gpt-4o-mini"]
