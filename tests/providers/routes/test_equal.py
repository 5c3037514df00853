"""What llmkit sends and reads on its own is what LiteLLM sends and reads: each kind of behaviour of each provider."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import combinations

import pytest
from databases import LONG

from llmkit.core.completion import FINISH_REASONS
from llmkit.providers.litellm import changes
from llmkit.providers.litellm import sdk as litellm_sdk
from llmkit.providers.routes import features
from llmkit.providers.routes.behaviour import RENAMED
from llmkit.providers.routes.learning import access, behaviour, check, models, probes, verify
from llmkit.providers.routes.table import table

KINDS = list(verify.one_of_each_kind())
CLASSES = {(repr(table().route_of(kind).behaviour), table().route_of(kind).access.dialect): kind for kind in KINDS}
"""Providers whose models behave in the same way are a class; the short form has one model of each."""
COMPARED = list(enumerate(KINDS if LONG else sorted(CLASSES.values())))
OF_DIALECT = Counter(table().route_of(model).access.dialect for _, model in COMPARED)
MOST = 128
"""The short form reads one of so many answers with each kind, another one with the next, and awaited yet another; of
those of a dialect that has few kinds so many that each is read by one of them."""
ENOUGH, EACH = 1, 24
"""The short form compares what becomes of a value with so many kinds of a provider, and for the rest one request in so
many."""

observer_of = cache(access.observer_of)


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    """What LiteLLM would send on its own goes where nobody listens."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


class Few:
    """What the short form compares of a kind: requests, streamed or not, and what is refused."""

    def __init__(self, route):
        self.route, self.sent, self.left_out = route, [], []
        self.streams = "stream" in route.behaviour.effects

    def requests(self):
        """Yield the requests that have together all that the route covers, streamed or not."""
        for at, request in enumerate(behaviour.samples(self.route)):
            stream = at % 2 == 1 and self.streams
            if self.route.request(request, stream=stream) is not None:
                yield request, stream

    def said(self, request, stream):
        """Return what a request says, each with what becomes of it."""
        params = [(features.of_param(name, value), repr(value)) for name, value in request.params.items()]
        named = [*params, *((name, "") for name in features.of_messages(request.messages))]
        route = self.route
        return {(route.provider, name, value, route.behaviour.effects.get(name), stream) for name, value in named}

    def features(self):
        """Return the probes of each feature that is not covered."""
        found = {}
        for probe in probes.of_params(self.route.access.dialect):
            if probe.feature not in self.route.behaviour.effects and not probe.needs:
                found.setdefault(probe.feature, []).append(probe)
        return found


@cache
def few():
    """Share out what is compared among the kinds, so that no value, and no feature that is refused, is left to none."""
    compared, shared = Counter(), {}
    for number, model in COMPARED:
        few = shared[model] = Few(table().route_of(model))
        few.sent.append((access.request_of(few.route.provider, few.route.model), few.streams))
        for at, (request, stream) in enumerate(few.requests(), number):
            said = few.said(request, stream)
            if at % EACH == 0 or any(compared[each] < ENOUGH for each in said):
                compared.update(said)
                few.sent.append((request, stream))
        for at, (feature, several) in enumerate(few.features().items(), number):
            if at % EACH == 0 or compared[few.route.provider, feature] < ENOUGH:
                compared[few.route.provider, feature] += 1
                few.left_out.append(several)
    return shared


@pytest.mark.parametrize(("number", "model"), COMPARED, ids=[model.replace("/", "-") for _, model in COMPARED])
def test_a_route_is_litellms_way(number, model):
    route = table().route_of(model)
    observer = observer_of(route.provider)

    if LONG:
        assert models.fits(route, observer)
    for request, stream in () if LONG else few()[model].sent:
        assert behaviour.predicts(route, request, observer, stream=stream), (request, stream)
    for several in () if LONG else few()[model].left_out:
        effects = {behaviour.effect_of(route, probe, observer) for probe in several}
        assert None in effects or len(effects) > 1, several
    share = 1 if LONG else min(MOST, 2 * OF_DIALECT[route.access.dialect])
    for awaited, first in ((False, number), (True, number + share // 2)):
        assert list(check.differences(route, observer, awaited=awaited, every=share, first=first)) == []
    assert list(verify.costs_of(route)) == []


OFTEN_TOGETHER = frozenset(
    {"response_format", "tools", "tool_choice", "parallel_tool_calls", "reasoning_effort", "thinking", "stream_options"}
    | {"max_tokens", "max_completion_tokens", "enable_thinking", "chat_template_kwargs", "logprobs", "n"}
)
"""Parameters that LiteLLM looks at together; the learner finds by chance what does not go together."""
BY_TWO = [model for _, model in COMPARED] if LONG else ["groq/llama-3.3-70b-versatile"]


@pytest.mark.parametrize("model", BY_TWO)
def test_two_parameters_together_are_sent_as_litellm_sends_them(model):
    route = table().route_of(model)
    observer = observer_of(route.provider)
    often = [probe for probe in probes.of_params(route.access.dialect) if probe.params.keys() <= OFTEN_TOGETHER]
    compared = 0
    for one, two in combinations(often, 2):
        if one.params.keys() & two.params.keys():
            continue
        request = behaviour.combined(route, [one, two])
        for stream in (False, True):
            if route.request(request, stream=stream) is not None:
                assert behaviour.predicts(route, request, observer, stream=stream), (one.params, two.params, stream)
                compared += 1

    assert compared > 0 or len(route.behaviour.effects) < len(often)


def test_every_provider_is_asked_where_litellm_asks_it():
    """Address, headers and body of the plainest request; `COMPARED` has each behaviour, but not each provider."""
    for model in KINDS:
        route = table().route_of(model)
        request = access.request_of(route.provider, route.model)
        if not route.access.base:
            request = replace(
                request, api_base=f"https://probe.invalid{'' if '{model}' in route.access.path else '/v1'}"
            )
        assert behaviour.predicts(route, request, observer_of(route.provider), stream=False), model


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


@pytest.fixture(scope="module")
def differs():
    """Return whether a route is found to be another one than LiteLLM's; the one that is planted in is not."""
    observer = access.observer_of("openai")
    assert list(verify.of_route(table().route_of("openai/gpt-4o"), observer)) == []
    return lambda route: any(verify.of_route(route, observer))


@pytest.mark.parametrize(
    "changed", [changed for _, changed in planted_routes()], ids=[name for name, _ in planted_routes()]
)
def test_a_planted_difference_is_found(differs, changed):
    assert differs(planted("openai/gpt-4o", **changed))


def test_the_words_for_why_an_answer_ended_are_litellms():
    litellm_sdk.load()
    theirs = sys.modules["litellm.litellm_core_utils.core_helpers"]._FINISH_REASON_MAP

    assert {word: str(ours) for word, ours in theirs.items()} == FINISH_REASONS


def test_a_fresh_litellm_is_as_it_is_written_down():
    assert changes.recorded() == changes.record()
