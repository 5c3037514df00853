"""Compares the routes that are known with LiteLLM: what is sent, what is read, and what it costs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llmkit.providers.litellm import model_map
from llmkit.providers.routes import pricing
from llmkit.providers.routes.learning import access, models
from llmkit.providers.routes.learning.check import differences
from llmkit.providers.routes.table import UNLEARNABLE, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llmkit.providers.routes.learning.observe import Observer
    from llmkit.providers.routes.route import Route


def of_models(models: Sequence[str]) -> Iterator[str]:
    """Yield the differences between llmkit's own way to these models and LiteLLM's; none named is one of each kind."""
    observers: dict[str, Observer] = {}
    for model in models or list(one_of_each_kind()):
        route = table().route_of(model)
        if route is None:
            yield f"{model}: there is no route; its requests go through LiteLLM"
            continue
        if route.provider not in observers:
            observers[route.provider] = access.observer_of(route.provider)
        for difference in of_route(route, observers[route.provider]):
            yield f"{model}: {difference}"


def of_route(route: Route, observer: Observer) -> Iterator[str]:
    """Yield each difference: in what is sent, in what is read, and in what it costs."""
    if not models.fits(route, observer):
        yield "LiteLLM sends something else"
    yield from differences(route, observer, unasked=table().holds(route.provider))
    yield from costs_of(route)


def costs_of(route: Route) -> Iterator[str]:
    """Yield each way to count tokens that costs something else by LiteLLM's map."""
    model = f"{route.provider}/{route.model}"
    for usage in _USAGES:
        theirs = model_map.litellm_cost(model, usage)
        try:
            ours = pricing.cost_of(route.price, usage, None, tier=None, more=None) if route.price else None
        except pricing.UnpriceableError:
            continue  # LiteLLM is asked
        if ours != theirs and not (ours and theirs and math.isclose(ours, theirs)):
            yield f"cost of {usage}: {ours} on the route, {theirs} from LiteLLM"


def one_of_each_kind() -> Iterator[str]:
    """Yield a model of each behaviour of each provider."""
    for provider in table().names():
        known = table().current(provider)
        if known is None:
            continue
        names = sorted(filter(known.can_ask, known.models), reverse=True)
        by_place = {known.models[model][0]: model for model in names}
        if known.other is not None:
            by_place.setdefault(known.other, access.MADE_UP)
        yield from (f"{provider}/{model}" for at, model in sorted(by_place.items()) if at != UNLEARNABLE)


_USAGES = (
    pricing.usage_of(1000, 500),
    pricing.usage_of(1000, 500, "cached_tokens"),
    pricing.usage_of(1000, 500, "reasoning_tokens"),
    pricing.usage_of(1000, 500, "cache_creation_tokens"),
    pricing.usage_of(250_000, 500),
    {
        **pricing.usage_of(1000, 500),
        "cache_read_input_tokens": 300,
        "cache_creation_input_tokens": 200,
        "prompt_tokens_details": {
            "cached_tokens": 300,
            "cache_creation_tokens": 200,
            "cache_creation_token_details": {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 0},
        },
    },
)
