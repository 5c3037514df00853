"""What llmkit sends and reads on its own is what LiteLLM sends and reads: each kind of behaviour of each provider."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import cache

import pytest

from llmkit.core.completion import FINISH_REASONS
from llmkit.providers.litellm import changes
from llmkit.providers.litellm import sdk as litellm_sdk
from llmkit.providers.routes.behaviour import RENAMED
from llmkit.providers.routes.learning import access, behaviour, check, verify
from llmkit.providers.routes.table import table

LONG = os.environ.get("LLMKIT_LONG")
KINDS = list(verify.one_of_each_kind())
SHARE = 8
"""The short form reads one of so many answers with each kind, another one with the next."""

observer_of = cache(access.observer_of)


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    """What LiteLLM would send on its own goes where nobody listens."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


@pytest.mark.parametrize(("number", "model"), list(enumerate(KINDS)), ids=[model.replace("/", "-") for model in KINDS])
def test_a_route_is_litellms_way(number, model):
    route = table().route_of(model)
    observer = observer_of(route.provider)

    assert behaviour.fits(route, observer)
    for awaited in (False, True):
        several = check.differences(route, observer, awaited=awaited, every=1 if LONG else SHARE, first=number)
        assert list(several) == []
    assert list(verify.costs_of(route)) == []


def test_there_are_routes_to_the_providers_that_people_use():
    wanted = [
        "openai",
        "groq",
        "mistral",
        "deepseek",
        "openrouter",
        "together_ai",
        "fireworks_ai",
        "xai",
        "scaleway",
        "cerebras",
        "perplexity",
    ]

    assert set(wanted) <= set(table().names())
    assert all(table().provider(name).litellm == table().version for name in wanted)


def planted(model, **changed):
    """Return the route to a model with a difference in it."""
    route = table().route_of(model)
    parts = {name: changed.pop(name) for name in list(changed) if name in {"access", "behaviour"}}
    made = {name: replace(getattr(route, name), **fields) for name, fields in parts.items()}
    return replace(route, **made, **changed)


def planted_routes():
    effects = table().route_of("openai/gpt-4o").behaviour.effects
    renamed = {**effects, "seed=number": RENAMED + "random_seed"}
    dropped = {**effects, "user=text": "dropped"}
    yield "a renamed parameter", {"behaviour": {"effects": renamed}}
    yield "a dropped one", {"behaviour": {"effects": dropped}}
    yield "one that LiteLLM refuses", {"behaviour": {"effects": {**effects, "thinking=object": "kept"}}}
    yield "a message that LiteLLM rewrites", {"behaviour": {"effects": {**effects, "role:developer": "kept"}}}
    yield "something added", {"behaviour": {"added": {"usage": {"include": True}}}}
    yield "a stream without usage", {"behaviour": {"stream_added": {"stream": True}}}
    yield "another header", {"access": {"headers": {"x-title": "llmkit"}}}
    yield "the key in another one", {"access": {"key_header": "api-key"}}
    yield "another path", {"access": {"path": "/completions"}}
    yield "answers read in another way", {"behaviour": {"habits": ()}}
    yield "another price", {"price": {**table().route_of("openai/gpt-4o").price, "in": 1.0}}


@pytest.mark.parametrize(
    "changed", [changed for _, changed in planted_routes()], ids=[name for name, _ in planted_routes()]
)
def test_a_planted_difference_is_found(changed):
    assert list(verify.of_route(table().route_of("openai/gpt-4o"), observer_of("openai"))) == []

    assert list(verify.of_route(planted("openai/gpt-4o", **changed), observer_of("openai")))


def test_the_words_for_why_an_answer_ended_are_litellms():
    litellm_sdk.load()
    theirs = sys.modules["litellm.litellm_core_utils.core_helpers"]._FINISH_REASON_MAP

    assert {word: str(ours) for word, ours in theirs.items()} == FINISH_REASONS


def test_a_fresh_litellm_is_as_it_is_written_down():
    assert changes.recorded() == changes.record()
