"""What is known about a model: its full name, how many tokens it can take and answer, and what they cost.

The routes know it for the models they lead to; for all others LiteLLM is asked, which has to be imported for that.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from llmkit.config import EMBEDDED_WINDOW, Config
from llmkit.core.brief import may_wait
from llmkit.errors import InvalidRequestError
from llmkit.providers.litellm import changes
from llmkit.providers.names import WELL_KNOWN
from llmkit.providers.routes import pricing
from llmkit.providers.routes.table import table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmkit.core.completion import Completion
    from llmkit.core.types import Price

LOCAL = "local/"
LOCAL_WINDOW = EMBEDDED_WINDOW
"""The context window of models on this machine: the embedded model's, and a bound on the memory of others."""


def full_name(model: str, *, has_provider: bool = False) -> str:
    """Return `provider/model` for an alias of the user's, for `provider:model`, and for OpenAI's and Anthropic's names.

    With *has_provider* the provider of a bare name is said elsewhere.
    """
    if not isinstance(model, str) or not model.strip():
        raise InvalidRequestError(f"the model must be a name like openai/gpt-4o, not {model!r}")
    if "/" in model:
        return model
    model = Config().get("model.aliases").get(model, model)
    before, colon, after = model.partition(":")
    if colon and before != "ft":
        return f"{before}/{after}"
    known = (
        [] if "/" in model or has_provider or changes.are_there() else [table().provider(name) for name in WELL_KNOWN]
    )
    return next((f"{one.name}/{model}" for one in known if one is not None and model in one.models), model)


def window(model: str) -> int | None:
    """Return how many tokens a model, by LiteLLM's name, can take, or None if that is not known."""
    if model.startswith(LOCAL):
        return LOCAL_WINDOW
    entry = _entry(model)
    return _map().window(model) if entry is None else entry.get("window")


def longest_answer(model: str) -> int | None:
    """Return how many tokens a model, by LiteLLM's name, can answer, or None if that is not known."""
    if model.startswith(LOCAL):
        return LOCAL_WINDOW
    entry = _entry(model)
    return _map().longest_answer(model) if entry is None else entry.get("longest")


def cost(
    model: str,
    usage: Mapping[str, Any],
    completion: Completion | None = None,
    *,
    service_tier: str | None = None,
    web_search_options: Any = None,
) -> float | None:
    """Return what an answer costs in US dollars, or None if no price is known; *usage* has OpenAI's format."""
    entry = _entry(model)
    if entry is not None:
        if not entry:
            return None
        try:
            return pricing.cost_of(entry, usage, completion, tier=service_tier, more=web_search_options)
        except pricing.UnpriceableError:
            pass
    known: float | None = _map().map_cost(
        model, usage, completion, service_tier=service_tier, web_search_options=web_search_options
    )
    return known


def has_one_price(model: str, prompt: int) -> bool:
    """Return whether it is known without LiteLLM that all tokens of the answer to such a prompt cost the same."""
    entry = _entry(model) or {}
    alike = {"reasoning_tokens", "audio_tokens"} <= set(entry.get("as answer", ()))
    return alike and prompt <= entry.get("until", prompt)


def price(model: str) -> Price | None:
    """Return a model's prices in LiteLLM's map, or None if it has none."""
    known: Price | None = _map().map_price(model)
    return known


def _entry(model: str) -> Mapping[str, Any] | None:
    entry = table().entry_of(model)
    return None if entry is None or changes.are_there() else entry


def _map() -> Any:
    if "litellm" not in sys.modules:
        may_wait()
    from llmkit.providers.litellm import model_map  # imports much of what sends

    return model_map
