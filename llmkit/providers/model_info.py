"""The limits of a model: how many tokens it can take and answer, and how many a message has.

LiteLLM's map is imported with the first question for it, since its module needs what sends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmkit.core.types import Message

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


def count_tokens(model: str, messages: Sequence[Message]) -> list[int]:
    """Return the tokens of each message, by the model's tokenizer."""
    from llmkit.providers.litellm import model_map

    return model_map.count_tokens(model, messages)
