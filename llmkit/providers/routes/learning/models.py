"""Learns one model: it behaves as its provider's file says, like another one, or in a way of its own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from llmkit.providers.litellm import model_map
from llmkit.providers.routes import pricing
from llmkit.providers.routes.dialects import GEMINI
from llmkit.providers.routes.learning import access, azure, behaviour, check, probes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from llmkit.providers.routes.behaviour import Behaviour
    from llmkit.providers.routes.learning.observe import Observer
    from llmkit.providers.routes.learning.probes import Probe
    from llmkit.providers.routes.route import Route

_COUNTED = {GEMINI: ("image_tokens",)}
"""Parts of prompts that providers of a dialect count apart, and most of them bill like the rest."""


def behaviour_among(route: Route, known: Iterable[Behaviour], observer: Observer) -> Behaviour:
    """Return the first of the known behaviours that a model has, or its own.

    Raises:
        UnlearnableError: it has none that a route could say.
    """
    for each in known:
        if fits(replace(route, behaviour=each), observer):
            return each
    learned = behaviour.behaviour_of(route, observer)
    if route.provider != azure.NAME:
        return learned
    return azure.with_versions(replace(route, behaviour=learned), observer).behaviour


def fits(route: Route, observer: Observer) -> bool:
    """Return whether a model behaves as a route says: what it covers is sent so, what it does not is still refused."""
    if not all(is_so() for is_so in behaviour.steps(route, observer)):
        return False
    left: dict[str, list[Probe]] = {}
    for probe in probes.of_params(route.access.dialect):
        if probe.feature not in route.behaviour.effects and not probe.needs:
            left.setdefault(probe.feature, []).append(probe)
    return all(_is_left_out(route, several, observer) for several in left.values())


def _is_left_out(route: Route, several: Sequence[Probe], observer: Observer) -> bool:
    """Return whether it cannot be said in a route what becomes of a feature: it is refused, or its values differ."""
    found: set[str | None] = set()
    for probe in several:
        found.add(behaviour.effect_of(route, probe, observer))
        if None in found:
            return True
    return len(found) > 1


def steps(route: Route, observer: Observer) -> list[Callable[[], bool]]:
    """Return what has to be so that a route that came from another LiteLLM is right with the one that is installed."""
    return [
        *access.steps(route, observer),
        *behaviour.steps(route, observer),
        *(azure.steps(route, observer) if route.provider == azure.NAME else ()),
        *check.steps(route, observer),
    ]


def price_of(model: str, dialect: str) -> dict[str, Any]:
    """Return a model's entry in LiteLLM's map, as a route has it, or {} if it has none."""
    known = model_map.entry_of(model)
    if known is None:
        return {}
    return pricing.entry_of(known, partial(model_map.litellm_cost, model), _COUNTED.get(dialect, ()))
