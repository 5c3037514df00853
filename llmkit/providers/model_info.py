"""What is known about a model: how many tokens it can take and answer, and what they cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmkit.providers.litellm import model_map

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmkit.providers.completion import Completion

LOCAL = "local/"
LOCAL_WINDOW = 8192
"""The context window of models on this machine: the embedded model's, and a bound on the memory of others."""


def window(model: str) -> int | None:
    """Return how many tokens a model, by LiteLLM's name, can take, or None if that is not known."""
    if model.startswith(LOCAL):
        return LOCAL_WINDOW
    return model_map.window(model)


def longest_answer(model: str) -> int | None:
    """Return how many tokens a model, by LiteLLM's name, can answer, or None if that is not known."""
    if model.startswith(LOCAL):
        return LOCAL_WINDOW
    return model_map.longest_answer(model)


def cost(model: str, usage: Mapping[str, Any], completion: Completion | None = None, **terms: Any) -> float | None:
    """Return what an answer costs in US dollars, or None if no price is known; see `model_map.map_cost`."""
    return model_map.map_cost(model, usage, completion, **terms)
