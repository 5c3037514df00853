"""The limits of a model: how many tokens it can take and answer.

LiteLLM's map is imported with the first question for it, since its module needs what sends.
"""

from __future__ import annotations

LOCAL = "local/"
LOCAL_WINDOW = 8192
"""The context window of models on this machine: the embedded model's, and a bound on the memory of others."""


def window(model: str) -> int | None:
    """Return how many tokens a model, by LiteLLM's name, can take, or None if that is not known."""
    if model.startswith(LOCAL):
        return LOCAL_WINDOW
    from llmkit.providers.litellm import model_map

    return model_map.window(model)


def longest_answer(model: str) -> int | None:
    """Return how many tokens a model, by LiteLLM's name, can answer, or None if that is not known."""
    if model.startswith(LOCAL):
        return LOCAL_WINDOW
    from llmkit.providers.litellm import model_map

    return model_map.longest_answer(model)
