"""Learns one model: it behaves as its provider's file says, like another one, or in a way of its own."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from llmkit.providers.litellm import model_map
from llmkit.providers.routes import pricing
from llmkit.providers.routes.dialects import GEMINI
from llmkit.providers.routes.learning import access, azure, behaviour, check

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from llmkit.providers.routes.behaviour import Behaviour
    from llmkit.providers.routes.learning.observe import Observer
    from llmkit.providers.routes.route import Route

_COUNTED = {GEMINI: ("image_tokens",)}
"""Parts of prompts that providers of a dialect count apart, and most of them bill like the rest."""


def behaviour_among(route: Route, known: Iterable[Behaviour], observer: Observer) -> Behaviour:
    """Return the first of the known behaviours that a model has, or its own.

    Raises:
        UnlearnableError: it has none that a route could say.
    """
    for each in known:
        if behaviour.fits(replace(route, behaviour=each), observer):
            return each
    learned = behaviour.behaviour_of(route, observer)
    if route.provider != azure.NAME:
        return learned
    return azure.with_versions(replace(route, behaviour=learned), observer).behaviour


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
