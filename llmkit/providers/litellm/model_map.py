"""LiteLLM's knowledge about models: prices, context windows, token counts. Nothing is fetched for it."""

from __future__ import annotations

import math
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from llmkit.core.types import Price
from llmkit.providers.litellm.sdk import load

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MESSAGE_TOKENS = 4  # role and separators, about
_PICTURE_TOKENS = 765  # an image of 1024 by 1024 pixels at OpenAI
_PRICED_BY_TOKENS = frozenset({"chat", "completion", "responses"})
_COSTS = ("input_cost_per_token", "output_cost_per_token")


def map_cost(
    model: str,
    counts: Any,
    response: Any = None,
    *,
    service_tier: str | None = None,
    web_search_options: Any = None,
) -> float | None:
    """Return the price by LiteLLM's map in US dollars, or None if the model is not in it.

    Given the *response* with the counts, LiteLLM sees what else is billed: searches, the tier that answered.
    """
    known = _in_price_map(model)
    if known is None:
        return None
    tier = service_tier or getattr(response, "service_tier", None)
    plain = tier in {None, "auto", "default", "standard"} and web_search_options is None
    if plain and (flat := _flat_price(model)) is not None and not _has_more(counts, response):
        return float(counts.prompt_tokens * flat[0] + counts.completion_tokens * flat[1])
    if response is None:
        response = load().ModelResponse(model=known.name, usage=counts)
    return _cost_of_response(known, response, tier, web_search_options)


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


def dearest_counts(prompt: int, audio: int, answer: int, *, caches: bool) -> list[Any]:
    """Return the ways to count these tokens that may be the most expensive."""
    litellm = load()
    written = {"cache_creation_input_tokens": prompt} if caches else {}
    details: dict[str, Any] = {"audio_tokens": audio} if audio else {}
    if caches:
        details |= {
            "cache_creation_tokens": prompt,
            "cache_creation_token_details": {"ephemeral_1h_input_tokens": prompt, "ephemeral_5m_input_tokens": 0},
        }
    answers: tuple[dict[str, Any], ...] = (
        {},
        {"completion_tokens_details": {"reasoning_tokens": answer}},
        {"completion_tokens_details": {"audio_tokens": answer}},
    )
    return [
        litellm.Usage(
            prompt_tokens=prompt,
            completion_tokens=answer,
            total_tokens=prompt + answer,
            **({"prompt_tokens_details": details} if details else {}),
            **written,
            **of_answer,
        )
        for of_answer in answers
    ]


def window(model: str) -> int | None:
    """Return how many tokens *model* can take, or None if LiteLLM does not know."""
    return _known_limit(model, "max_input_tokens")


def longest_answer(model: str) -> int | None:
    """Return how many tokens an answer of *model* can have, or None if LiteLLM does not know."""
    return _known_limit(model, "max_output_tokens")


def _known_limit(model: str, key: str) -> int | None:
    limit = (_map_entry(model) or {}).get(key)
    return int(limit) if isinstance(limit, int | float) and limit else None


def map_price(model: str) -> Price | None:
    """Return the price in LiteLLM's map for *model*, or None if it has none."""
    entry = _map_entry(model)
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


def count_tokens(model: str, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return how many tokens each message has, by the model's tokenizer if LiteLLM knows it.

    Images count as ones of the usual size: to look at them, LiteLLM would fetch their addresses.
    """
    count = partial(load().token_counter, model=model, use_default_image_token_count=True)
    return [count(messages=[dict(message)]) for message in messages]


def count_text(model: str, text: str) -> int:
    """Return how many tokens a text has, by the model's tokenizer if LiteLLM knows it."""
    return int(load().token_counter(model=model, text=text))


def counts(prompt: int, completion: int, cached: int = 0) -> Any:
    """Return token counts in the form that `map_cost` takes."""
    litellm = load()
    details = {"cached_tokens": cached}
    return litellm.Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=details,
    )


class _MapEntryName(NamedTuple):
    """A model in LiteLLM's map, as LiteLLM calls it."""

    name: str
    provider: str


@lru_cache(maxsize=256)
def _flat_price(model: str) -> tuple[float, float] | None:
    """Return the prices of a prompt token and an answer token if nothing else is billed, or None."""
    entry = _map_entry(model) or {}
    more = any("_above_" in key or "_per_query" in key or "per_request" in key for key, value in entry.items() if value)
    prompt, completion = entry.get("input_cost_per_token"), entry.get("output_cost_per_token")
    if entry.get("mode") != "chat" or more or entry.get("tiered_pricing") or prompt is None or completion is None:
        return None
    known = _in_price_map(model)
    if known is None:
        return None
    usage = counts(1000, 500)
    whole = _cost_of_response(known, load().ModelResponse(model=known.name, usage=usage), None, None)
    if whole is None or not math.isclose(whole, 1000 * prompt + 500 * completion):
        return None
    return float(prompt), float(completion)


def _has_more(counts: Any, response: Any) -> bool:
    """Return whether a count includes anything that may be billed apart: cached tokens, audio, reasoning, searches."""
    for details in (counts.prompt_tokens_details, counts.completion_tokens_details):
        if details is not None and any(value for key, value in details if key != "text_tokens"):
            return True
    if getattr(counts, "server_tool_use", None) or getattr(counts, "cache_creation_input_tokens", None):
        return True
    choices = getattr(response, "choices", None) or ()
    return any(getattr(getattr(choice, "message", None), "annotations", None) for choice in choices)


@lru_cache(maxsize=256)
def _in_price_map(model: str) -> _MapEntryName | None:
    """Return the model's name and provider if its tokens have a price in LiteLLM's map."""
    entry = _map_entry(model)
    if entry is None or entry.get("mode") not in _PRICED_BY_TOKENS or entry.get("input_cost_per_token") is None:
        return None
    try:
        name, provider, _, _ = load().get_llm_provider(model)
    except Exception:  # noqa: BLE001 - for a provider that the map still has and LiteLLM no longer knows
        return None
    return _MapEntryName(name, provider)


@lru_cache(maxsize=256)
def _map_entry(model: str) -> Mapping[str, Any] | None:
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


def estimated_tokens(model: str, messages: Sequence[Mapping[str, Any]], text: str) -> tuple[int, int]:
    """Return roughly how many tokens a prompt and its answer have. Nothing is fetched, no image looked at."""
    litellm, prompt = load(), 0
    for message in messages:
        parts = message.get("content") or ""
        texts = [parts] if isinstance(parts, str) else [part.get("text") or "" for part in parts]
        prompt += _MESSAGE_TOKENS + sum(litellm.token_counter(model=model, text=part) for part in texts if part)
        if not isinstance(parts, str):
            prompt += _PICTURE_TOKENS * sum(part.get("type") not in {"text", "refusal"} for part in parts)
    return prompt, litellm.token_counter(model=model, text=text) if text else 0
