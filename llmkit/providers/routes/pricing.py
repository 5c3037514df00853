"""What an answer on a route costs, by the model's entry in LiteLLM's map, for the ways to count that are common."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.core.completion import Completion

_THRESHOLD = re.compile(r"_above_(\d+)k_tokens")
_USUAL_TIERS = frozenset({None, "auto", "default", "standard"})
_OF_ANSWERS = ("reasoning_tokens", "audio_tokens")
_OF_PROMPTS = ("cached_tokens", "cache_creation_tokens")
_COSTS = {"cached_tokens": "cache_read_input_token_cost", "cache_creation_tokens": "cache_creation_input_token_cost"}
_BILLED_APART = ("server_tool_use", "iterations")
_USUAL_TIME = "ephemeral_5m_input_tokens"
_USUAL = {
    "inference_geo": (None, "", "global", "not_available"),
    "speed": (None, "standard"),
    "service_tier": tuple(_USUAL_TIERS),
}
"""Where and how fast an answer was made, as far as that has no price of its own."""
_UNUSUAL = {*_BILLED_APART, *_USUAL}


class UnpriceableError(Exception):
    """The entry does not say what this costs; LiteLLM does."""


def cost_of(
    entry: Mapping[str, Any], usage: Mapping[str, Any], completion: Completion | None, *, tier: str | None, more: Any
) -> float:
    """Return the cost in US dollars.

    Raises:
        UnpriceableError: something is billed apart, or not by this entry.
    """
    prompt, answer = usage["prompt_tokens"], usage["completion_tokens"]
    tier = tier or (completion.service_tier if completion is not None else None)
    if "in" not in entry or tier not in _USUAL_TIERS or more is not None or prompt > entry.get("until", math.inf):
        raise UnpriceableError
    for choice in () if completion is None else completion.choices:
        if choice.message.annotations:
            raise UnpriceableError
    for name in usage.keys() & _UNUSUAL:
        if usage[name] not in _USUAL[name] if name in _USUAL else usage[name]:
            raise UnpriceableError
    read = {name: count for name, count in _read(usage).items() if name not in entry.get("as prompt", ())}
    written = _counted(usage.get("completion_tokens_details"))
    if not read.keys() <= {*_OF_PROMPTS} & entry.keys() or not written.keys() <= set(entry.get("as answer", ())):
        raise UnpriceableError
    cost: float = (prompt - sum(read.values())) * entry["in"] + answer * entry["out"]
    for name, count in read.items():
        cost += count * entry[name]
    return cost


def _read(usage: Mapping[str, Any]) -> dict[str, int]:
    """Return the tokens of the prompt that have a price of their own.

    Raises:
        UnpriceableError: tokens were written to the cache for longer than usual, or in an unknown way.
    """
    read: dict[str, Any] = _counted(usage.get("prompt_tokens_details"))
    made = read.get("cache_creation_tokens", 0)
    parts = _counted(read.pop("cache_creation_token_details", None))
    if (usage.get("cache_creation_input_tokens") or 0) != made or (parts and parts != {_USUAL_TIME: made}):
        raise UnpriceableError
    return read


def entry_of(known: Mapping[str, Any], litellm_cost: Any, parts: Sequence[str] = ()) -> dict[str, Any]:
    """Return the entry for a model in LiteLLM's map; *litellm_cost* is LiteLLM's function of a usage.

    It has the prices only as far as they give what LiteLLM's function gives. *parts* of the prompt may cost the same.
    """
    limits = {"window": known.get("max_input_tokens"), "longest": known.get("max_output_tokens")}
    entry: dict[str, Any] = {name: int(value) for name, value in limits.items() if isinstance(value, int | float)}
    entry |= {"mode": known.get("mode")}
    prompt, answer = known.get("input_cost_per_token"), known.get("output_cost_per_token")
    if prompt is None or answer is None:
        return entry
    edges = [int(match[1]) * 1000 for key, value in known.items() if value and (match := _THRESHOLD.search(key))]
    tried = {**entry, "in": prompt, "out": answer, **({"until": min(edges)} if edges else {})}
    if not all(_is_equal(tried, usage_of(*counts), litellm_cost) for counts in ((1000, 500), (7, 0), (90_000, 20_000))):
        return entry

    def fits(name: str, **more: Any) -> bool:
        return _is_equal({**tried, **more}, usage_of(1000, 500, name), litellm_cost)

    for name, price in _COSTS.items():
        if (cached := known.get(price)) is not None and fits(name, **{name: cached}):
            tried |= {name: cached}
    alike = [name for name in parts if fits(name, **{"as prompt": [name]})]
    tried |= {"as prompt": alike} if alike else {}
    plain = [name for name in _OF_ANSWERS if fits(name, **{"as answer": [name]})]
    return {**tried, "as answer": plain} if plain else tried


def _counted(details: Mapping[str, Any] | None) -> dict[str, int]:
    return {name: count for name, count in (details or {}).items() if count and name != "text_tokens"}


def usage_of(prompt: int, answer: int, detail: str = "") -> dict[str, Any]:
    """Return counts of tokens as a provider gives them, 300 of them of one kind."""
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
    }
    side = "completion_tokens_details" if detail in _OF_ANSWERS else "prompt_tokens_details"
    made = {"cache_creation_input_tokens": 300} if detail == "cache_creation_tokens" else {}
    return {**usage, **made, side: {detail: 300}} if detail else usage


def _is_equal(entry: Mapping[str, Any], usage: Mapping[str, Any], litellm_cost: Any) -> bool:
    theirs = litellm_cost(usage)
    return theirs is not None and math.isclose(cost_of(entry, usage, None, tier=None, more=None), theirs, abs_tol=1e-15)
