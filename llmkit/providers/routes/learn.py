"""Learns routes: asks LiteLLM with probes that never leave the machine, and derives what it does."""

from __future__ import annotations

import os
import random
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmkit.core.types import Request
from llmkit.providers.routes import check, features, probes
from llmkit.providers.routes.observe import KEY, Observer, Sent
from llmkit.providers.routes.route import DROPPED, HEADERS, KEPT, MERGED, RENAMED, Access, Behaviour, Route

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llmkit.providers.routes.probes import Probe

MADE_UP = "a-model-nobody-knows"
_PATH = "/chat/completions"
_COMBINATIONS, _SEED = 24, 1
_KEY_OF_VARIABLE = "sk-{}-seen"


class UnlearnableError(Exception):
    """LiteLLM does not send OpenAI's format to this provider, or not in a way that can be seen."""


def observer_of(provider: str) -> Observer:
    """Return an observer that sees what LiteLLM sends to a provider.

    Raises:
        UnlearnableError: none does.
    """
    for kind in ("handler", "sdk"):
        observer = Observer(kind)
        sent = observer.sent(_request(provider, MADE_UP))
        if sent is not None:
            return observer
    raise UnlearnableError(f"what LiteLLM sends to {provider} cannot be seen")


def access_of(provider: str, observer: Observer, model: str = MADE_UP) -> Access:
    """Return where a provider is, and how it knows its callers.

    Raises:
        UnlearnableError: it is no server of OpenAI's format with a key in a header.
    """
    sent = observer.sent(_request(provider, model))
    if sent is None or not sent.url.endswith(_PATH) or "messages" not in sent.body:
        raise UnlearnableError(f"{provider} does not speak OpenAI's format")
    holders = [name for name, value in sent.headers.items() if KEY in value]
    if len(holders) != 1:
        raise UnlearnableError(f"{provider} takes its key in another way than in one header")
    elsewhere = observer.sent(replace(_request(provider, model), api_base="https://probe.invalid/some/v1"))
    if elsewhere is None or not elsewhere.url.startswith("https://probe.invalid/some/v1"):
        raise UnlearnableError(f"{provider} does not take another address")
    path = elsewhere.url.removeprefix("https://probe.invalid/some/v1")
    others = {name: value for name, value in sent.headers.items() if name not in {holders[0], "content-type"}}
    keys, bases, avoided = _variables(provider, model, observer, sent)
    return Access(
        base=sent.url.removesuffix(path) if sent.url.endswith(path) else "",
        base_variables=bases,
        path=path,
        key_variables=keys,
        needs_key=observer.sent(_request(provider, model, key=None)) is None,
        key_header=holders[0],
        key_format=sent.headers[holders[0]].replace(KEY, "{}"),
        headers=others,
        avoided=avoided,
    )


def _variables(provider: str, model: str, observer: Observer, usual: Sent) -> tuple[list[str], list[str], list[str]]:
    """Return the environment variables that name the key, those that name the address, and others that matter."""
    keyless, keyed = _request(provider, model, key=None), _request(provider, model)
    with _watched_environment() as names:
        observer.sent(keyed)
        observer.sent(keyless)
    keys, bases, avoided = [], [], []
    for name in sorted(names):
        other = observer.fresh()  # what a variable says may stay with a client
        with _variable(name, _KEY_OF_VARIABLE.format(0)):
            sent = other.sent(keyless)
        if sent is not None and any(_KEY_OF_VARIABLE.format(0) in value for value in sent.headers.values()):
            keys.append(name)
            continue
        with _variable(name, "https://probe.invalid/some/v1"):
            sent = other.sent(keyed)
        if sent is not None and sent.url.startswith("https://probe.invalid/some/v1"):
            bases.append(name)
            continue
        with _variable(name, "1"):
            if sent != usual or other.sent(keyed) != usual:
                avoided.append(name)
    return (
        _in_order(keys, _KEY_OF_VARIABLE.format, keyless, observer),
        _in_order(bases, lambda at: f"https://probe{at}.invalid/some/v1", keyed, observer),
        avoided,
    )


def _in_order(names: Sequence[str], value_of: Any, request: Request, observer: Observer) -> list[str]:
    """Return variables in the order in which LiteLLM regards them."""
    left, ordered = list(names), []
    while left:
        values = {name: value_of(at) for at, name in enumerate(left)}
        with _variables_set(values):
            sent = observer.sent(request)
        shown = "" if sent is None else " ".join([sent.url, *sent.headers.values()])
        first = next((name for name, value in values.items() if value in shown), left[0])
        ordered.append(first)
        left.remove(first)
    return ordered


def behaviour_of(route: Route, observer: Observer) -> Behaviour:
    """Return what becomes of a model's requests, starting from a route that knows the provider's access.

    Raises:
        UnlearnableError: not even the plainest request is sent in OpenAI's format.
    """
    plain = observer.sent(_request(route.provider, route.model))
    if plain is None or plain.body.get("messages") != list(probes.HELLO):
        raise UnlearnableError(f"{route.provider}/{route.model} does not take OpenAI's messages")
    named = plain.body.get("model")
    if not isinstance(named, str) or not named.endswith(route.model):
        raise UnlearnableError(f"{route.provider}/{route.model} is sent under another name")
    added = {name: value for name, value in plain.body.items() if name not in {"model", "messages"}}
    base = Behaviour(
        effects=dict.fromkeys(features.of_messages(probes.HELLO), KEPT),
        added=added,
        model=named.removesuffix(route.model).replace("{", "{{") + "{}",
    )
    learned = _with_params(replace(route, behaviour=base), observer)
    learned = _with_stream(learned, observer)
    learned = _with_messages(learned, observer)
    learned = replace(learned, behaviour=replace(learned.behaviour, habits=check.habits_of(learned, observer)))
    learned = _with_answers(learned, observer)
    return _with_combinations(learned, observer).behaviour


def predicts(route: Route, request: Request, observer: Observer, *, stream: bool) -> bool:
    """Return whether llmkit would send what LiteLLM sends."""
    ours = route.request(request, stream=stream)
    return ours is not None and Sent.of(ours) == observer.sent(request, stream=stream)


def _with_params(route: Route, observer: Observer) -> Route:
    effects: dict[str, str | None] = {}
    for probe in probes.of_params():
        needed = [features.of_param(name, value) for name, value in probe.needs.items()]
        if any(effects.get(name) != KEPT for name in needed):
            effects[probe.feature] = None
            continue
        effect = effect_of(_with_effects(route, effects), probe, observer)
        effects[probe.feature] = effect if effects.get(probe.feature, effect) == effect else None
    return _with_effects(route, effects)


def effect_of(route: Route, probe: Probe, observer: Observer) -> str | None:
    """Return what becomes of a probe's parameter, or None if that cannot be said in a route."""
    request = _request(route.provider, route.model, probe)
    sent = observer.sent(request)
    if sent is None:
        return None
    (value,) = probe.params.values()
    renamed = [other for other, item in sent.body.items() if item == value and other not in {"model", "messages"}]
    effect: str
    for effect in (KEPT, DROPPED, MERGED, HEADERS, *(RENAMED + other for other in renamed)):
        if effect in {MERGED, HEADERS} and not isinstance(value, dict):
            continue
        tried = _with_effects(route, {probe.feature: effect})
        ours = tried.request(request, stream=False)
        if ours is not None and Sent.of(ours) == sent:
            return effect
    return None


def _with_stream(route: Route, observer: Observer) -> Route:
    request = _request(route.provider, route.model)
    sent = observer.sent(request, stream=True)
    if sent is None:
        return route
    body = route.behaviour.body(route.model, request, stream=False)
    added = {name: value for name, value in sent.body.items() if name not in body}
    effects = {**route.behaviour.effects, "stream": KEPT}
    tried = replace(route, behaviour=replace(route.behaviour, effects=effects, stream_added=added))
    return tried if predicts(tried, request, observer, stream=True) else route


def _with_messages(route: Route, observer: Observer) -> Route:
    """Cover each feature of a conversation that is sent as predicted, and set apart those that are not together."""
    failed: list[list[str]] = []
    for probe in probes.of_messages():
        request = _request(route.provider, route.model, probe)
        new = [name for name in features.of_messages(probe.messages) if name not in route.behaviour.effects]
        for null in (KEPT, DROPPED):
            effects = {name: null if name.startswith("null:") else KEPT for name in new}
            tried = _with_effects(route, effects)
            if predicts(tried, request, observer, stream=False):
                route = tried
                break
        else:
            failed.append(features.of_messages(probe.messages))
    usual = set(features.of_messages(probes.HELLO))
    apart = [sorted(set(names) - usual) for names in failed if route.behaviour.effects.keys() >= set(names)]
    return replace(route, behaviour=replace(route.behaviour, apart=apart))


_OF_SEVERAL = "stream two choices"


def _with_answers(route: Route, observer: Observer) -> Route:
    """Leave out what is read in another way than by LiteLLM.

    Raises:
        UnlearnableError: that are answers that are not streamed.
    """
    unequal = list(check.differences(route, observer))
    behaviour = route.behaviour
    if any(each.startswith(("answer", "refusal")) for each in unequal):
        raise UnlearnableError(f"answers are not equal: {unequal[0]}")
    if any(not each.startswith(_OF_SEVERAL) for each in unequal):
        effects = {name: effect for name, effect in behaviour.effects.items() if name != "stream"}
        return replace(route, behaviour=replace(behaviour, effects=effects))
    if unequal:
        return replace(route, behaviour=replace(behaviour, apart=[*behaviour.apart, ["n=many", "stream"]]))
    return route


def _with_combinations(route: Route, observer: Observer) -> Route:
    """Set features apart that LiteLLM treats in another way together than alone."""
    chance = random.Random(_SEED)  # noqa: S311 - the same probes for each model
    singles = [probe for probe in (*probes.of_params(), *probes.of_messages()) if _is_covered(route, probe)]
    for at in range(_COMBINATIONS):
        stream = at % 2 == 1 and "stream" in route.behaviour.effects
        chosen = _compatible([probe for probe in singles if chance.random() < 1 / 2], chance)
        while not _holds(route, chosen, observer, stream=stream):
            left = _culprits(route, chosen, observer, stream=stream)
            names = {name for probe in left for name in _features_of(probe)}
            together = sorted(names | ({"stream"} if stream else set()))
            route = replace(route, behaviour=replace(route.behaviour, apart=[*route.behaviour.apart, together]))
            chosen = [probe for probe in chosen if probe not in left]
    return route


def _culprits(route: Route, chosen: Sequence[Probe], observer: Observer, *, stream: bool) -> list[Probe]:
    """Return the fewest probes of a combination that fails that fail without the others."""
    left = list(chosen)
    for probe in chosen:
        fewer = [each for each in left if each is not probe]
        if not _holds(route, fewer, observer, stream=stream):
            left = fewer
    return left


def _holds(route: Route, chosen: Sequence[Probe], observer: Observer, *, stream: bool) -> bool:
    """Return whether a combination is sent as predicted, or is set apart already."""
    request = combined(route, chosen)
    return route.request(request, stream=stream) is None or predicts(route, request, observer, stream=stream)


def _features_of(probe: Probe) -> list[str]:
    usual = set(features.of_messages(probes.HELLO))
    params = [features.of_param(name, value) for name, value in probe.params.items()]
    return [*params, *(set(features.of_messages(probe.messages)) - usual)]


def combined(route: Route, chosen: Sequence[Probe]) -> Request:
    """Return a request with several features."""
    params: dict[str, Any] = {}
    messages = probes.HELLO
    for probe in chosen:
        params |= {**probe.needs, **probe.params}
        messages = probe.messages if probe.messages is not probes.HELLO else messages
    return replace(_request(route.provider, route.model), params=params, messages=messages)


def samples(route: Route) -> list[Request]:
    """Return requests that have together every feature that a route covers, each as few times as possible."""
    by_name: dict[str, list[Probe]] = {}
    for probe in (*probes.of_params(), *probes.of_messages()):
        if _is_covered(route, probe):
            by_name.setdefault(next(iter(probe.params), "messages"), []).append(probe)
    apart = [set(several) for several in route.behaviour.apart]
    made = []
    for at in range(max(map(len, by_name.values()), default=0)):
        chosen: list[Probe] = []
        for several in by_name.values():
            probe = several[at % len(several)]
            together = {name for each in (*chosen, probe) for name in _features_of(each)}
            if at < len(several) and not any(names - {"stream"} <= together for names in apart):
                chosen.append(probe)
        made.append(combined(route, chosen))
    return made


def _compatible(chosen: Sequence[Probe], chance: random.Random) -> list[Probe]:
    """Return probes of which no two set the same parameter, or the conversation."""
    taken: set[str] = set()
    kept = []
    for probe in chance.sample(list(chosen), len(chosen)):
        names = {*probe.params} or {"messages"}
        if not names & taken:
            taken |= names
            kept.append(probe)
    return kept


def _is_covered(route: Route, probe: Probe) -> bool:
    found = [features.of_param(name, value) for name, value in {**probe.needs, **probe.params}.items()]
    return route.behaviour.covers([*found, *features.of_messages(probe.messages)])


def _with_effects(route: Route, effects: Mapping[str, str | None]) -> Route:
    known = {**route.behaviour.effects, **{name: effect for name, effect in effects.items() if effect is not None}}
    return replace(route, behaviour=replace(route.behaviour, effects=known))


def _request(provider: str, model: str, probe: Probe | None = None, key: str | None = KEY) -> Request:
    params = {**probe.needs, **probe.params} if probe is not None else {}
    messages = probe.messages if probe is not None else probes.HELLO
    return Request(model=f"{provider}/{model}", messages=messages, params=params, api_key=key, timeout_s=30)


class _Watched(dict[Any, Any]):
    """The variables of an environment; it remembers which were read."""

    def __init__(self, variables: Mapping[Any, Any]) -> None:
        super().__init__(variables)
        self.names: set[Any] = set()

    def __getitem__(self, name: Any) -> Any:
        self.names.add(name)
        return super().__getitem__(name)


@contextmanager
def _watched_environment() -> Iterator[set[str]]:
    """Collect the names of the environment variables that are read."""
    names: set[str] = set()
    around: Any = os.environ
    before = around._data  # noqa: SLF001 - there is no other way to see what is read
    watched = around._data = _Watched(before)  # noqa: SLF001
    try:
        yield names
    finally:
        around._data = before  # noqa: SLF001
        names |= {around.decodekey(name) for name in watched.names}


@contextmanager
def _variables_set(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _variable(name: str, value: str) -> Any:
    return _variables_set({name: value})
