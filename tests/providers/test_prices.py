"""What answers cost: where a price is found, the user's prices.yaml, and the charges of every kind."""

from __future__ import annotations

import asyncio
import json
import os

import pytest
from server import ANSWER, Answer, Raw, ScriptedServer

from llmkit import Deployment, MultiAIClient, Price
from llmkit.errors import ConfigError, InvalidRequestError
from llmkit.providers.litellm import model_map
from llmkit.providers.litellm import sdk as litellm_sdk

KEY = "sk-local-0123456789"
MESSAGES = [{"role": "user", "content": "Raconte moi une blague."}]
USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500}
CACHED = {**USAGE, "prompt_tokens_details": {"cached_tokens": 400}}
MILLION = 1e6


@pytest.fixture
def prices(tmp_path, monkeypatch):
    """Write the user's prices.yaml."""
    folder = tmp_path / "settings"
    folder.mkdir()
    monkeypatch.setenv("LLMKIT_CONFIG_DIR", str(folder))
    path = folder / "prices.yaml"

    def write(text):
        before = path.stat().st_mtime_ns if path.exists() else 0
        path.write_text(text, encoding="utf-8")
        os.utime(path, ns=(before + 10**9, before + 10**9))  # as if a second later
        return path

    return write


@pytest.fixture(params=["plain", "async"])
def book(request):
    """A user's ledger: `book.calls` is what `book.callback` was told."""

    class Book:
        def __init__(self):
            self.calls = []
            self.callback = self.plain if request.param == "plain" else self.awaited

        def plain(self, price, model):
            self.calls.append((price, model))

        async def awaited(self, price, model):
            await asyncio.sleep(0)
            self.plain(price, model)

    return Book()


def one(url, model, provider, name="", *, book=None, **settings):
    """Return a client with one deployment."""
    deployment = Deployment(model, provider, name, KEY, url, **settings)
    return MultiAIClient({model: deployment}, increment_usage=book and book.callback)


# -- where a price is found --------------------------------------------------------------------------------------------

OWN = """
models:
  azure/gpt-4o: {prompt: 7, completion: 8}
  openai/gpt-4o: {prompt: 5, completion: 6}
  house-model: {prompt: 3, completion: 4}
"""
MINI = {"base_model": "azure/gpt-4o-mini"}


@pytest.mark.parametrize(
    ("own", "model", "provider", "name", "settings", "per_million", "source"),
    [
        (OWN, "gpt-4o", "azure", "d", {"price": Price(prompt=9 / MILLION, completion=0)}, (9, 0), "deployment"),
        (OWN, "gpt-4o", "azure", "d", {}, (7, 8), "prices.yaml"),
        (OWN, "gpt-4o", "openai", "", {}, (5, 6), "prices.yaml"),
        (OWN, "small", "openai", "gpt-4o", {}, (5, 6), "prices.yaml"),
        (OWN, "house-model", "azure", "gpt-4o", {}, (3, 4), "prices.yaml"),
        ("", "gpt-4o", "azure", "d", {}, (2.75, 11), "llmkit"),
        ("", "azure/gpt-4o", "azure", "d", {}, (2.75, 11), "llmkit"),
        ("", "gpt-4o-mini", "azure", "gpt-4", {}, (0.165, 0.66), "llmkit"),
        ("", "house-model", "azure", "gpt-4o", MINI, (0.165, 0.66), "llmkit"),
        ("", "gpt-4o", "azure", "gpt-4", MINI, (0.165, 0.66), "llmkit"),
        ("", "gpt-4o", "openai", "", {}, (2.5, 10), "litellm"),
        ("", "small", "openai", "gpt-4o-mini", {}, (0.15, 0.6), "litellm"),
        ("", "gpt-4.1", "azure", "gpt-4", {}, (2, 8), "litellm"),
        ("", "house-model", "azure", "gpt-4o", {"base_model": "azure/gpt-4.1"}, (2, 8), "litellm"),
        ("", "house-model", "azure", "gpt-4o", {}, None, ""),
        (OWN, "another-model", "azure", "gpt-4o", {}, None, ""),
    ],
)
def test_a_price_is_found_in_order_and_resolve_says_where(
    call, server, prices, own, model, provider, name, settings, per_million, source
):
    prices(own)
    server.script = [Answer(usage=USAGE)]
    client = one(server.url, model, provider, name, **settings)

    found = client.resolve(model)
    usage = call(client, "invoke", MESSAGES, model).usage

    assert (found.deployment.model, found.source) == (model, source)
    if per_million is None:
        assert (found.price, usage.cost_usd, usage.source) == (None, None, "unpriced")
    else:
        prompt, completion = per_million
        assert (found.price.prompt, found.price.completion) == pytest.approx((prompt / MILLION, completion / MILLION))
        assert usage.cost_usd == pytest.approx((1000 * prompt + 500 * completion) / MILLION)
        assert usage.source == "priced"
    assert "base_model" not in server.requests[0].body


def test_the_embedded_model_is_free():
    found = MultiAIClient({"small": Deployment("small", "local", "smollm2")}).resolve("small")

    assert (found.price.prompt, found.price.completion) == (0.0, 0.0)


# -- prices.yaml -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("currenzy: EUR", r":1:1: unknown key 'currenzy'.*currency, rate, models"),
        ("models:\n  m: {promt: 1}", r":2:7: unknown key 'promt'.*prompt"),
        ("models:\n  m: {prompt: 1, completion: -1}", r":2:18: completion must be .* not -1"),
        ("models:\n  m:\n    prompt: cheap", r":3:5: prompt must be a number.*'cheap'"),
        ("models:\n  m: {prompt: true}", r":2:7: prompt must be a number"),
        ("models:\n  m: {minute: .nan}", r":2:7: minute must be a number"),
        ("models:\n  m: 3", r":2:3: expected a mapping"),
        ("models: 3", r":1:1: expected a mapping"),
        ("models: [m]", r":1:1: expected a mapping"),
        ("- m", r":1:1: expected"),
        ("models: {m: {prompt: 1", r":\d+:\d+: "),
        ("models:\n  m: {prompt: 1}\n  m: {prompt: 2}", r":3:3: .*second time"),
        ("currency: EUR\nrate: x", r":2:1: rate must be a number"),
        ("currency: EUR\nmodels: {}", r".*EUR need a rate"),
        ("currency: EUR\nrate:\nmodels: {}", r".*EUR need a rate"),
    ],
)
def test_a_wrong_file_is_refused_with_its_place(call, server, prices, text, complaint):
    path = prices(text)
    client = one(server.url, "m", "openai")

    with pytest.raises(ConfigError, match=f"{path}{complaint}"):
        client.resolve("m")
    with pytest.raises(ConfigError, match=f"{path}{complaint}"):
        call(client, "invoke", MESSAGES, "m")

    assert server.requests == []


def test_euros_are_converted_with_the_rate(call, server, prices):
    prices(
        "currency: EUR\nrate: 1.08\nmodels:\n  m: {prompt: 0.9, completion: 2, cached: 0.5}\n  w: {minute: 0.0055}\n"
    )
    server.script = [Answer(usage=CACHED)]

    answer = call(one(server.url, "m", "openai"), "invoke", MESSAGES, "m")

    assert answer.usage.cost_usd == pytest.approx((600 * 0.9 + 400 * 0.5 + 500 * 2) * 1.08 / MILLION)
    assert one(server.url, "w", "openai").resolve("w").price == Price(minute=pytest.approx(0.0055 * 1.08))


def test_a_changed_file_counts_from_the_next_call(prices):
    client = one("http://127.0.0.1:9", "m", "openai")
    found = []
    for amount in (1, 2):
        prices(f"models: {{m: {{prompt: {amount}}}}}")
        found.append(client.resolve("m").price.prompt)

    assert found == pytest.approx([1 / MILLION, 2 / MILLION])


# -- tokens ------------------------------------------------------------------------------------------------------------

SCALEWAY = {
    "qwen3-235b-a22b-instruct-2507": (0.825, 2.475),
    "gpt-oss-120b": (0.165, 0.66),
    "gemma-3-27b-it": (0.275, 0.55),
    "voxtral-small-24b-2507": (0.165, 0.385),
    "mistral-small-3.2-24b-instruct-2506": (0.165, 0.385),
    "llama-3.3-70b-instruct": (0.99, 0.99),
    "deepseek-r1-distill-llama-70b": (0.99, 0.99),
}


@pytest.mark.parametrize("name", SCALEWAY)
@pytest.mark.parametrize("prefix", ["scaleway/", ""])
def test_scaleways_models_have_their_price(call, server, prefix, name):
    server.script = [Answer(usage=USAGE)]

    answer = call(one(server.url, prefix + name, "scaleway"), "invoke", MESSAGES, prefix + name)

    prompt, completion = SCALEWAY[name]
    assert answer.usage.cost_usd == pytest.approx((1000 * prompt + 500 * completion) / MILLION)
    assert answer.usage.source == "priced"


@pytest.mark.parametrize(
    ("model", "provider", "settings", "cost"),
    [
        ("gpt-4o", "azure", {"deployment_name": "d"}, 0.0077),
        ("gpt-4o", "openai", {}, (600 * 2.5 + 400 * 1.25 + 500 * 10) / MILLION),
        ("m", "openai", {"price": Price(prompt=1, completion=2, cached=0.5)}, 600 + 200 + 1000),
        ("m", "openai", {"price": Price(prompt=1, completion=2, cached=0)}, 600 + 1000),
        ("m", "openai", {"price": Price(prompt=1, completion=2)}, 1000 + 1000),
    ],
)
def test_cached_tokens_are_billed_once_at_their_own_price(call, read, server, model, provider, settings, cost):
    server.script = [Answer(usage=CACHED), Answer(usage=CACHED)]
    client = MultiAIClient({model: Deployment(model, provider, api_key=KEY, endpoint=server.url, **settings)})

    whole = call(client, "invoke", MESSAGES, model)
    _, streamed = read(client, "stream", MESSAGES, model)

    assert [answer.usage.cost_usd for answer in (whole, streamed)] == pytest.approx([cost, cost])
    assert whole.usage.cached_tokens == streamed.usage.cached_tokens == 400


def test_an_unknown_price_is_none_said_and_not_charged(call, read, server, book):
    client = one(server.url, "house-model", "azure", "gpt-4o", book=book)

    for answer in (call(client, "invoke", MESSAGES, "house-model"), read(client, "stream", MESSAGES, "house-model")[1]):
        assert (answer.usage.cost_usd, answer.usage.source) == (None, "unpriced")
        assert any("no price is known" in warning for warning in answer.warnings)

    assert book.calls == []
    assert client.total_usage == 0
    assert len(client.usages) == 2


def test_missing_usage_is_estimated_and_said(call, read, server, book):
    server.script = [Answer(usage=None)] * 2
    client = one(server.url, "gpt-4o", "azure", "d", book=book)

    answers = [call(client, "invoke", MESSAGES, "gpt-4o"), read(client, "stream", MESSAGES, "gpt-4o")[1]]

    for answer in answers:
        assert answer.usage.source == "estimated"
        assert answer.usage.prompt_tokens > 0 < answer.usage.completion_tokens
        assert any("estimated" in warning for warning in answer.warnings)
    assert book.calls == [(answer.usage.cost_usd, "gpt-4o") for answer in answers]


@pytest.fixture
def world(monkeypatch):
    """What is outside of this machine; LiteLLM would fetch Llama's tokenizer from there."""
    with ScriptedServer() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        yield proxy


@pytest.mark.parametrize("name", SCALEWAY)
def test_an_estimate_asks_nobody_else(call, server, world, name):
    server.script = [Answer(usage=None)]

    answer = call(one(server.url, name, "scaleway"), "invoke", MESSAGES, name)

    assert answer.usage.source == "estimated"
    assert world.connections == 0


@pytest.mark.parametrize("name", SCALEWAY)
def test_scaleways_streams_are_asked_for_their_usage(read, server, world, name):
    _, answer = read(one(server.url, name, "scaleway"), "stream", MESSAGES, name)

    assert server.requests[0].body["stream_options"] == {"include_usage": True}
    assert (answer.usage.total_tokens, answer.usage.source) == (16, "priced")
    assert world.connections == 0


# -- sound, speech, pictures, vectors ----------------------------------------------------------------------------------

AUDIO = b"RIFF\x24\x00\x00\x00WAVEfmt "


def heard(**fields):
    return Raw(json.dumps({"text": ANSWER, **fields}).encode())


@pytest.mark.parametrize(("duration", "seconds"), [(61.2, 62), (61.0, 61), (0.3, 1), (60.0001, 61)])
def test_sound_is_billed_by_the_begun_second(call, server, book, duration, seconds):
    server.script = [heard(duration=duration)]
    client = one(server.url, "whisper", "azure", "its-whisper", price=Price(minute=0.006), book=book)

    answer = call(client, "transcribe", AUDIO, "whisper")

    assert answer.usage.cost_usd == pytest.approx(seconds * 0.0001)
    assert book.calls == [(answer.usage.cost_usd, "whisper")]


@pytest.mark.parametrize(
    ("model", "provider", "name", "cost"),
    [
        ("scaleway/whisper-large-v3", "scaleway", "", 62 * 0.0033 / 60),
        ("whisper-large-v3", "scaleway", "", 62 * 0.0033 / 60),
        ("whisper-1", "openai", "", 0.0062),
        ("whisper-1", "azure", "its-whisper", 0.0062),
    ],
)
@pytest.mark.parametrize("known_by", ["provider", "caller"])
def test_the_price_of_sound_is_found_too(call, server, model, provider, name, cost, known_by):
    server.script = [heard(duration=61.2) if known_by == "provider" else heard()]

    answer = call(
        one(server.url, model, provider, name),
        "transcribe", AUDIO, model, **({} if known_by == "provider" else {"duration": 61.2}),
    )  # fmt: skip

    assert (answer.usage.cost_usd, answer.usage.source) == (pytest.approx(cost), "priced")
    assert b'name="duration"' not in server.requests[0].body


def test_whisper_under_another_name_is_asked_for_its_duration_too(call, server):
    client = one(server.url, "dictation", "azure", "whisper-1", price=Price(minute=0.006))

    assert call(client, "transcribe", AUDIO, "dictation").usage.cost_usd == pytest.approx(0.0062)
    assert b"verbose_json" in server.requests[0].body


def test_sound_of_unknown_length_is_unpriced_and_says_why(call, server, book):
    server.script = [heard()]

    answer = call(
        one(server.url, "whisper", "azure", "d", price=Price(minute=1), book=book), "transcribe", AUDIO, "whisper"
    )

    assert (answer.usage.cost_usd, answer.usage.source) == (None, "unpriced")
    assert any("duration" in warning for warning in answer.warnings)
    assert book.calls == []


@pytest.mark.parametrize(
    ("method", "first", "options", "price", "path", "cost", "data"),
    [
        ("speak", "hello", {"voice": "nova"}, Price(character=0.01), "/audio/speech", 0.05, ANSWER.encode()),
        ("image", "a cat", {"n": 2}, Price(image=0.04), "/images/generations", 0.08, [ANSWER, ANSWER]),
        ("embed", ["a", "bb"], {}, Price(prompt=0.001), "/embeddings", 0.002, [[1.0, 0.5], [2.0, 0.5]]),
    ],
    ids=["speak", "image", "embed"],
)
@pytest.mark.parametrize("provider", ["openai", "azure"])
def test_each_kind_is_one_request_and_one_charge(
    call, server, book, provider, method, first, options, price, path, cost, data
):
    client = one(server.url, "logical", provider, "its-name", price=price, book=book)

    answer = call(client, method, first, "logical", **options)

    (sent,) = server.requests
    assert sent.path.partition("?")[0].removeprefix("/openai/deployments/its-name") == path
    assert sent.body.items() >= {name: value for name, value in options.items() if value}.items()
    assert (answer if method == "embed" else answer.data) == data
    assert book.calls == [(pytest.approx(cost), "logical")]
    assert client.total_usage == pytest.approx(cost)


@pytest.mark.parametrize("provider", ["openai", "azure", "mistral", "openrouter"])
def test_many_texts_go_in_batches_in_order_and_each_is_charged(call, server, book, provider):
    client = one(server.url, "vectors", provider, "its-embed", price=Price(prompt=0.5), book=book)
    texts = ["x" * (1 + index) for index in range(300)]

    assert call(client, "embed", texts, "vectors") == [[float(1 + index), 0.5] for index in range(300)]

    assert [text for sent in server.requests for text in sent.body["input"]] == texts
    assert [len(sent.body["input"]) for sent in server.requests] == [128, 128, 44]
    assert book.calls == [(64.0, "vectors"), (64.0, "vectors"), (22.0, "vectors")]


def test_an_empty_text_is_refused_by_its_place(call, server):
    client = one(server.url, "vectors", "openai")

    with pytest.raises(InvalidRequestError, match="text 200 is empty"):
        call(client, "embed", [*["x"] * 200, "", "x"], "vectors")

    assert server.requests == []


@pytest.mark.parametrize(
    "model",
    [
        "openai/gpt-4o",
        "openai/gpt-4o-mini",
        "anthropic/claude-sonnet-4-5",
        "gemini/gemini-2.5-pro",
        "mistral/mistral-small-latest",
        "deepseek/deepseek-chat",
    ],
)
@pytest.mark.parametrize(("prompt", "cached", "thought"), [(7, 0, 0), (900_000, 0, 0), (900, 500, 0), (900, 0, 20)])
def test_the_quick_way_to_a_price_is_litellms_price(model, prompt, cached, thought):
    litellm = litellm_sdk.load()
    counts = litellm.Usage(
        prompt_tokens=prompt,
        completion_tokens=60,
        total_tokens=prompt + 60,
        prompt_tokens_details={"cached_tokens": cached} if cached else None,
        completion_tokens_details={"reasoning_tokens": thought} if thought else None,
    )
    name, provider, _, _ = litellm.get_llm_provider(model)

    theirs = sum(litellm.cost_per_token(model=name, custom_llm_provider=provider, usage_object=counts))

    assert model_map.map_cost(model, counts.model_dump()) == pytest.approx(theirs, rel=1e-9)
