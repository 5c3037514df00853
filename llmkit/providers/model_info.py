"""What is known of a model before it is asked: how much it takes and how much it says."""

from __future__ import annotations

LOCAL = "local/"
LOCAL_WINDOW = 8192
"""Tokens that a model on this machine takes: what the embedded one was trained for, and a bound on others' memory."""


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
