"""What tokens cost. Pure arithmetic: nothing here asks anybody."""

from __future__ import annotations

from llmkit.types import Price

FREE = Price(prompt=0.0, completion=0.0)
"""The price of a model that runs on this machine."""


def cost_usd(price: Price, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float:
    """Return the cost in US dollars; cached tokens are part of the prompt's and billed once, at their own price."""
    cached = price.prompt if price.cached is None else price.cached
    fresh = (prompt_tokens - cached_tokens) * price.prompt
    return fresh + cached_tokens * cached + completion_tokens * price.completion
