"""LiteLLM's knowledge about models: prices and context windows. Nothing is fetched for it."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from llmkit.core.types import Price
from llmkit.providers.litellm.sdk import load
from llmkit.providers.routes import pricing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmkit.core.completion import Completion

_PRICED_BY_TOKENS = frozenset({"chat", "completion", "responses"})
_COSTS = ("input_cost_per_token", "output_cost_per_token")


def map_cost(
    model: str,
    usage: Mapping[str, Any],
    completion: Completion | None = None,
    *,
    service_tier: str | None = None,
    web_search_options: Any = None,
) -> float | None:
    """Return the price by LiteLLM's map in US dollars, or None if the model is not in it.

    *usage* has OpenAI's format. Given the *completion* with it, LiteLLM sees what else is billed: searches, the tier
    that answered.
    """
    if _in_price_map(model) is None:
        return None
    try:
        return pricing.cost_of(_prices(model), usage, completion, tier=service_tier, more=web_search_options)
    except pricing.UnpriceableError:
        return litellm_cost(model, usage, completion, service_tier=service_tier, web_search_options=web_search_options)


@lru_cache(maxsize=256)
def _prices(model: str) -> Mapping[str, Any]:
    """Return a model's prices as far as they are as simple as those of routes."""
    return pricing.entry_of(entry_of(model) or {}, partial(litellm_cost, model))


def litellm_cost(
    model: str,
    usage: Mapping[str, Any],
    completion: Completion | None = None,
    *,
    service_tier: str | None = None,
    web_search_options: Any = None,
) -> float | None:
    """Return what LiteLLM's own function says that an answer costs; see `map_cost`."""
    known = _in_price_map(model)
    if known is None:
        return None
    tier = service_tier or (completion.service_tier if completion is not None else None)
    return _cost_of_response(known, _response(known.name, usage, completion), tier, web_search_options)


def _response(model: str, usage: Mapping[str, Any], completion: Completion | None) -> Any:
    litellm = load()
    more: dict[str, Any] = {}
    if completion is not None:
        model = completion.model or model  # of some providers it has the region, which has its own price
        more["choices"] = [choice.model_dump(exclude_none=True) for choice in completion.choices]
        more |= {"service_tier": completion.service_tier} if completion.service_tier else {}
    return litellm.ModelResponse(model=model, usage=litellm.Usage(**usage), **more)


def _cost_of_response(known: _MapEntryName, response: Any, tier: str | None, web_search_options: Any) -> float | None:
    """Return LiteLLM's cost of a response, or None if it has none for a model in its own map."""
    try:
        return float(
            load().completion_cost(
                completion_response=response,
                model=known.name,
                custom_llm_provider=known.provider,
                service_tier=None if tier == "auto" else tier,
                standard_built_in_tools_params={"web_search_options": web_search_options},
            )
        )
    except Exception:  # noqa: BLE001 - for models it lists under one name and prices under another
        return None


def window(model: str) -> int | None:
    """Return how many tokens *model* can take, or None if LiteLLM does not know."""
    return _known_limit(model, "max_input_tokens")


def longest_answer(model: str) -> int | None:
    """Return how many tokens an answer of *model* can have, or None if LiteLLM does not know."""
    return _known_limit(model, "max_output_tokens")


def _known_limit(model: str, key: str) -> int | None:
    limit = (entry_of(model) or {}).get(key)
    return int(limit) if isinstance(limit, int | float) and limit else None


def map_price(model: str) -> Price | None:
    """Return the price in LiteLLM's map for *model*, or None if it has none."""
    entry = entry_of(model)
    if entry is None:
        return None
    second = entry.get("input_cost_per_second")
    return Price(
        prompt=entry.get("input_cost_per_token"),
        completion=entry.get("output_cost_per_token"),
        cached=entry.get("cache_read_input_token_cost"),
        minute=second * 60 if second else None,
        character=entry.get("input_cost_per_character"),
        image=entry.get("output_cost_per_image") or entry.get("input_cost_per_image"),
    )


class _MapEntryName(NamedTuple):
    """A model in LiteLLM's map, as LiteLLM calls it."""

    name: str
    provider: str


@lru_cache(maxsize=256)
def _in_price_map(model: str) -> _MapEntryName | None:
    """Return the model's name and provider if its tokens have a price in LiteLLM's map."""
    entry = entry_of(model)
    if entry is None or entry.get("mode") not in _PRICED_BY_TOKENS or entry.get("input_cost_per_token") is None:
        return None
    try:
        name, provider, _, _ = load().get_llm_provider(model)
    except Exception:  # noqa: BLE001 - for a provider that the map still has and LiteLLM no longer knows
        return None
    return _MapEntryName(name, provider)


@lru_cache(maxsize=256)
def entry_of(model: str) -> Mapping[str, Any] | None:
    """Return the entry of LiteLLM's map for a model, or None if it has none.

    `get_model_info` makes entries up for names that look like a family's, with a price of 0: its answer must be in
    the map as well.
    """
    litellm = load()
    try:
        entry = litellm.get_model_info(model)
    except Exception:  # noqa: BLE001 - LiteLLM raises plain Exception for an unknown model
        return None
    own = litellm.model_cost.get(entry.get("key"))
    if own is None:
        return None
    kept = {key: value for key, value in entry.items() if value is not None and (key not in _COSTS or key in own)}
    return {**kept, **own}
