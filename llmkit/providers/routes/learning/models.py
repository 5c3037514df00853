"""Learns one model: it behaves like another one, or in a way of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llmkit.providers.routes.learning import azure
from llmkit.providers.routes.learning.behaviour import behaviour_of, fits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmkit.providers.routes.behaviour import Behaviour
    from llmkit.providers.routes.learning.observe import Observer
    from llmkit.providers.routes.route import Route


def behaviour_among(route: Route, known: Iterable[Behaviour], observer: Observer) -> Behaviour:
    """Return the first of the known behaviours that a model has, or its own.

    Raises:
        UnlearnableError: it has none that a route could say.
    """
    for behaviour in known:
        if fits(replace(route, behaviour=behaviour), observer):
            return behaviour
    learned = behaviour_of(route, observer)
    if route.provider != azure.NAME:
        return learned
    return azure.with_versions(replace(route, behaviour=learned), observer).behaviour
