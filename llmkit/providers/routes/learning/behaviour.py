"""Learns routes: asks LiteLLM with probes that never leave the machine, and derives what it does."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from llmkit.providers.routes import features
from llmkit.providers.routes.behaviour import DROPPED, HEADERS, KEPT, MERGED, RENAMED, SIGNED, WITH, Behaviour
from llmkit.providers.routes.dialects import ANTHROPIC, GEMINI, OPENAI, dialect_of
from llmkit.providers.routes.dialects.gemini_params import AS_SCHEMA
from llmkit.providers.routes.learning import check, probes
from llmkit.providers.routes.learning.access import VERSION, UnlearnableError, request_of
from llmkit.providers.routes.learning.observe import Observer, Sent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from llmkit.core.types import Request
    from llmkit.providers.routes.learning.probes import Probe
    from llmkit.providers.routes.route import Route

_COMBINATIONS, _SEED = 60, 1
_NAMED_BY_VALUE = {ANTHROPIC: ("reasoning_effort",), GEMINI: ("reasoning_effort", "thinking")}
"""Parameters of which what is sent may be written down: each value is a feature of its own, or for the dialect like the
other ones."""
_FORMS = {GEMINI: {"response_format": f"{RENAMED}{AS_SCHEMA}"}}
_OTHERWISE = {GEMINI: {"tool_calls": SIGNED, "role:system": f"{RENAMED}user"}}
"""What else may become of a parameter, and of a feature of a conversation, in some dialects."""


def behaviour_of(route: Route, observer: Observer) -> Behaviour:
    """Return what becomes of a model's requests, starting from a route that knows the provider's access.

    Raises:
        UnlearnableError: not even the plainest request is sent in the provider's format.
    """
    if not is_expressible(route):
        raise UnlearnableError(f"{route.provider}/{route.model} is in no address that llmkit writes")
    asked, base = request_of(route.provider, route.model), _plainest()
    plain = observer.sent(asked)
    made = _body(replace(route, behaviour=base), asked)
    spoken = dialect_of(route.access.dialect).CONVERSATION
    if plain is None or plain.body.get(spoken) != made[spoken]:
        raise UnlearnableError(f"{route.provider}/{route.model} does not take the messages of {route.access.dialect}")
    added = {name: value for name, value in plain.body.items() if name not in made}
    base = _named(replace(base, added=added), route, plain)
    learned = _with_params(replace(route, behaviour=base), observer)
    learned = _with_stream(learned, observer)
    learned = _with_messages(learned, observer)
    learned = replace(learned, behaviour=replace(learned.behaviour, habits=check.habits_of(learned, observer)))
    learned = _with_answers(learned, observer)
    return _with_combinations(learned, observer).behaviour


def is_expressible(route: Route) -> bool:
    """Return whether the plainest request can be sent along a route to the provider's usual address, as things are."""
    asked = request_of(route.provider, route.model)
    return replace(route, behaviour=_plainest()).request(asked, stream=False) is not None


def _plainest() -> Behaviour:
    return Behaviour(effects=dict.fromkeys(features.of_messages(probes.HELLO), KEPT))


def _named(base: Behaviour, route: Route, plain: Sent) -> Behaviour:
    """Return a behaviour with what a model is called in the body, or with the version that it has in the address.

    Raises:
        UnlearnableError: it is called in another way.
    """
    if route.access.dialect == GEMINI:
        version = VERSION.search(plain.url.removesuffix(route.access.path.replace("{model}", route.model)))
        return replace(base, version=version[0] if version is not None else "")
    named = plain.body.get("model")
    if not isinstance(named, str) or not named.endswith(route.model):
        raise UnlearnableError(f"{route.provider}/{route.model} is sent under another name")
    return replace(base, model=named.removesuffix(route.model).replace("{", "{{") + "{}")


def predicts(route: Route, request: Request, observer: Observer, *, stream: bool) -> bool:
    """Return whether llmkit would send what LiteLLM sends."""
    ours = route.request(request, stream=stream)
    return ours is not None and Sent.of(ours) == observer.sent(request, stream=stream)


def _with_params(route: Route, observer: Observer) -> Route:
    effects: dict[str, str | None] = {}
    for probe in probes.of_params(route.access.dialect):
        needed = [features.of_param(name, value) for name, value in probe.needs.items()]
        if any(effects.get(name) != KEPT for name in needed):
            effects[probe.feature] = None
            continue
        effect = effect_of(_with_effects(route, effects), probe, observer)
        effects[probe.feature] = effect if effects.get(probe.feature, effect) == effect else None
    return _with_effects(route, effects)


def effect_of(route: Route, probe: Probe, observer: Observer) -> str | None:
    """Return what becomes of a probe's parameter, or None if that cannot be said in a route."""
    request = request_of(route.provider, route.model, probe)
    sent = observer.sent(request)
    if sent is None:
        return None
    ((name, value),) = probe.params.items()
    renamed = [other for other, item in sent.body.items() if item == value and other not in {"model", "messages"}]
    others = [*(RENAMED + other for other in renamed), *_own_effects(route, name, sent)]
    effect: str
    for effect in (KEPT, DROPPED, MERGED, HEADERS, *others):
        if effect in {MERGED, HEADERS} and not isinstance(value, dict):
            continue
        tried = _with_effects(route, {probe.feature: effect})
        ours = tried.request(request, stream=False)
        if ours is not None and Sent.of(ours) == sent:
            return effect
    return None


def _own_effects(route: Route, name: str, sent: Sent) -> Iterator[str]:
    """Yield what else may become of a parameter in a dialect that is not OpenAI's."""
    if route.access.dialect == OPENAI:
        return
    usual = {"content-type", route.access.key_header, *route.access.headers}
    if headers := {header: text for header, text in sent.headers.items() if header not in usual}:
        yield WITH + json.dumps(headers)
    if form := _FORMS.get(route.access.dialect, {}).get(name):
        yield form
    if name in _NAMED_BY_VALUE[route.access.dialect]:
        yield json.dumps(_beyond(_body(route, request_of(route.provider, route.model)), sent.body))


def _beyond(body: Mapping[str, Any], sent: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was sent beyond a body, also in the objects that are in both."""
    more = {name: value for name, value in sent.items() if name not in body}
    both = {name: value for name, value in sent.items() if isinstance(value, dict) and isinstance(body.get(name), dict)}
    return more | {name: _beyond(body[name], value) for name, value in both.items() if value != body[name]}


def _body(route: Route, request: Request) -> dict[str, Any]:
    return dialect_of(route.access.dialect).body(route.behaviour, route.model, request, stream=False)


def _with_stream(route: Route, observer: Observer) -> Route:
    request = request_of(route.provider, route.model)
    sent = observer.sent(request, stream=True)
    if sent is None:
        return route
    body = _body(route, request)
    added = {name: value for name, value in sent.body.items() if name not in body}
    effects = {**route.behaviour.effects, "stream": KEPT}
    tried = replace(route, behaviour=replace(route.behaviour, effects=effects, stream_added=added))
    return tried if predicts(tried, request, observer, stream=True) else route


def _with_messages(route: Route, observer: Observer) -> Route:
    """Cover each feature of a conversation that is sent as predicted, and set apart those that are not together."""
    failed: list[list[str]] = []
    for probe in probes.of_messages(route.access.dialect):
        request = request_of(route.provider, route.model, probe)
        new = [name for name in features.of_messages(probe.messages) if name not in route.behaviour.effects]
        nulls = {name: DROPPED for name in new if name.startswith("null:")}
        for other in ({}, *filter(None, (nulls, _OTHERWISE.get(route.access.dialect)))):
            effects = {name: other.get(name, KEPT) for name in new}
            tried = _with_effects(route, effects)
            if predicts(tried, request, observer, stream=False):
                route = tried
                break
        else:
            failed.append(features.of_messages(probe.messages))
    usual = set(features.of_messages(probes.HELLO))
    apart = [sorted(set(names) - usual) for names in failed if route.behaviour.effects.keys() >= set(names)]
    return replace(route, behaviour=replace(route.behaviour, apart=apart))


def _with_answers(route: Route, observer: Observer) -> Route:
    """Leave out what is read in another way than by LiteLLM.

    Raises:
        UnlearnableError: that are answers that are not streamed.
    """
    unequal = list(check.differences(route, observer, unasked=False))
    behaviour = route.behaviour
    if any(each.startswith(("answer", "refusal")) for each in unequal):
        raise UnlearnableError(f"answers are not equal: {unequal[0]}")
    if any(not each.startswith(f"stream {check.SEVERAL}") for each in unequal):
        effects = {name: effect for name, effect in behaviour.effects.items() if name != "stream"}
        return replace(route, behaviour=replace(behaviour, effects=effects))
    if unequal:
        return replace(route, behaviour=replace(behaviour, apart=[*behaviour.apart, ["n=many", "stream"]]))
    return route


def _with_combinations(route: Route, observer: Observer) -> Route:
    """Set features apart that LiteLLM treats in another way together than alone."""
    chance = random.Random(_SEED)  # noqa: S311 - the same probes for each model
    singles = [probe for probe in _all_probes(route) if _is_covered(route, probe)]
    streams = "stream" in route.behaviour.effects
    tried = [[probe for probe in singles if chance.random() < 1 / 2] for _ in range(_COMBINATIONS)]
    together = enumerate([*(_compatible(each, chance) for each in tried), *_samples(route)])
    alone = [([probe], True) for probe in singles] if streams else []
    for chosen, stream in [*alone, *((several, streams and at % 2 == 1) for at, several in together)]:
        left = list(chosen)
        while not _holds(route, left, observer, stream=stream):
            culprits = _culprits(route, left, observer, stream=stream)
            if not culprits:
                raise UnlearnableError("the plainest request is not always sent in the same way")
            for kin in _kin(culprits, singles):
                route = _apart(route, kin, observer)
            left = [probe for probe in left if probe not in culprits]
    return route


def with_param(route: Route, probe: Probe, effect: str, observer: Observer) -> Route:
    """Return a route that covers a parameter whose effect is known, but not together with what it changes."""
    tried = _with_effects(route, {probe.feature: effect})
    if not _holds(tried, [probe], observer, stream=False):
        return route
    for at, several in enumerate(_samples(route)):
        left = [*several, probe]
        while not _holds(tried, left, observer, stream=at % 2 == 1):
            culprits = _culprits(tried, left, observer, stream=at % 2 == 1)
            tried = _apart(tried, culprits, observer)
            left = [each for each in left if each not in culprits or each is probe]
    return tried


def _kin(culprits: Sequence[Probe], singles: Sequence[Probe]) -> Iterator[list[Probe]]:
    """Yield the probes that do not go together, and if they are a pair, the same parameters with other values too."""
    yield list(culprits)
    if len(culprits) == 2 and all(probe.params for probe in culprits):  # noqa: PLR2004
        one, other = ([each for each in singles if each.params.keys() == probe.params.keys()] for probe in culprits)
        yield from ([first, second] for first in one for second in other)


def _apart(route: Route, chosen: Sequence[Probe], observer: Observer) -> Route:
    """Return a route that does not cover these features together, where LiteLLM sends something else."""
    names = {name for probe in chosen for name in _features_of(probe)}
    for stream in (False, True):
        if not _holds(route, chosen, observer, stream=stream):
            together = sorted(names | ({"stream"} if stream else set()))
            return replace(route, behaviour=replace(route.behaviour, apart=[*route.behaviour.apart, together]))
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
    return _is_sent_so(route, combined(route, chosen), observer, stream=stream)


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
    return replace(request_of(route.provider, route.model), params=params, messages=messages)


def samples(route: Route) -> list[Request]:
    """Return requests that have together every feature that a route covers, each as few times as possible."""
    return [combined(route, chosen) for chosen in _samples(route)]


def _all_probes(route: Route) -> list[Probe]:
    return [*probes.of_params(route.access.dialect), *probes.of_messages(route.access.dialect)]


def _samples(route: Route) -> list[list[Probe]]:
    by_name: dict[str, list[Probe]] = {}
    for probe in _all_probes(route):
        if _is_covered(route, probe):
            by_name.setdefault(next(iter(probe.params), "messages"), []).append(probe)
    apart = [set(several) for several in route.behaviour.apart]
    made: list[list[Probe]] = []
    left: list[Probe] = []
    for at in range(max(map(len, by_name.values()), default=0)):
        chosen: list[Probe] = []
        together: set[str] = set()
        for probe in (several[at] for several in by_name.values() if at < len(several)):
            with_it = together.union(_features_of(probe))
            if any(names - {"stream"} <= with_it for names in apart):
                continue
            if route.request(combined(route, [*chosen, probe]), stream=False) is None:
                left.append(probe)
            else:
                chosen.append(probe)
                together = with_it
        made.append(chosen)
    return [*made, *([probe] for probe in left)]


def steps(route: Route, observer: Observer) -> list[Callable[[], bool]]:
    """Return what has to be so that a route is right: what it covers is sent as it says."""
    made: list[Callable[[], bool]] = [
        partial(predicts, route, request_of(route.provider, route.model), observer, stream=False)
    ]
    for at, request in enumerate(samples(route)):
        stream = at % 2 == 1 and "stream" in route.behaviour.effects
        made.append(partial(_is_sent_so, route, request, observer, stream=stream))
    return made


def _is_sent_so(route: Route, request: Request, observer: Observer, *, stream: bool) -> bool:
    return route.request(request, stream=stream) is None or predicts(route, request, observer, stream=stream)


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
