"""Prices: tables and arithmetic. Nothing here calls a provider; LiteLLM's map is read elsewhere.

A price is looked for in this order: the deployment's own, the user's `prices.yaml`, the table below, LiteLLM's map.
"""

from __future__ import annotations

import math
import os
from functools import lru_cache
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.config import config_dir
from llmkit.core.types import Price
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmkit.config import yaml

MILLION = 1_000_000
PER_MILLION_TOKENS = ("prompt", "completion", "cached")
EACH = ("minute", "character", "image")
FREE = Price(prompt=0.0, completion=0.0)
"""The price of a model that runs on this machine."""


def _tokens(prompt: float, completion: float, cached: float | None = None) -> Price:
    return Price(
        prompt=prompt / MILLION, completion=completion / MILLION, cached=None if cached is None else cached / MILLION
    )


SHIPPED: Mapping[str, Price] = {
    # llmax 1.10.0 (2025-11-22), US dollars; Scaleway's euro prices times its rate of 1.1, Azure's regional prices
    "azure/gpt-4o": _tokens(2.75, 11, 1.375),
    "azure/gpt-4o-mini": _tokens(0.165, 0.66, 0.0825),
    "scaleway/qwen3-235b-a22b-instruct-2507": _tokens(0.825, 2.475),
    "scaleway/gpt-oss-120b": _tokens(0.165, 0.66),
    "scaleway/gemma-3-27b-it": _tokens(0.275, 0.55),
    "scaleway/whisper-large-v3": Price(minute=0.0033),
    "scaleway/voxtral-small-24b-2507": _tokens(0.165, 0.385),
    "scaleway/mistral-small-3.2-24b-instruct-2506": _tokens(0.165, 0.385),
    "scaleway/llama-3.3-70b-instruct": _tokens(0.99, 0.99),
    "scaleway/deepseek-r1-distill-llama-70b": _tokens(0.99, 0.99),
}


def check(price: Any) -> None:
    """Check a price: a wrong one would be found when an answer has been paid for.

    Raises:
        ConfigError: it is no Price, or one of its numbers cannot be.
    """
    if not isinstance(price, Price):
        raise ConfigError(f"a price is a Price, not {price!r}")
    for name in price.__slots__:
        value = getattr(price, name)
        if value is not None and not (isinstance(value, Real) and 0 <= float(value) < math.inf):
            raise ConfigError(f"the price {name} is a number of US dollars, not {value!r}")


def cost_of_tokens(price: Price, prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> float | None:
    """Return the cost in US dollars, or None if a price is missing; cached tokens are billed once, at their own."""
    if price.prompt is None or (completion_tokens and price.completion is None):
        return None
    cached = price.prompt if price.cached is None else price.cached
    fresh = (prompt_tokens - cached_tokens) * price.prompt
    return fresh + cached_tokens * cached + completion_tokens * (price.completion or 0.0)


def cost_of_audio(price: Price, seconds: float | None) -> float | None:
    """Return the cost of audio in US dollars; a begun second counts whole."""
    return None if price.minute is None or seconds is None else math.ceil(seconds) * price.minute / 60


def find(*names: str) -> tuple[Price, str] | None:
    """Return the price of the first name that has one, and its source, or None if llmkit knows none."""
    own = user_prices()
    for table, source in ((own, "prices.yaml"), (SHIPPED, "llmkit")):
        for name in names:
            if name in table:
                return table[name], source
    return None


def user_prices() -> Mapping[str, Price]:
    """Return the prices in the user's `prices.yaml`, or {} if there is none.

        currency: EUR              # US dollars when it is left out
        rate: 1.08                 # dollars for one of these; needed for every other currency
        models:
          azure/gpt-4o: {prompt: 2.5, completion: 10, cached: 1.25}     # for a million tokens
          whisper-1: {minute: 0.006}                                    # for one; also character, image

    Raises:
        ConfigError: the file is wrong; line and key are named.
    """
    path = _file_in(config_dir())
    try:
        changed = os.stat(path).st_mtime_ns  # noqa: PTH116 - a call has time for this, but not for a Path's
    except OSError:
        return {}
    return _read(Path(path), changed)


@lru_cache(maxsize=16)
def _file_in(folder: Path) -> str:
    return str(folder / "prices.yaml")


@lru_cache(maxsize=4)
def _read(path: Path, _changed: int) -> Mapping[str, Price]:
    from llmkit.config import yaml

    try:
        document = yaml.load_file(path)
    except (FileNotFoundError, yaml.YamlError) as error:
        raise ConfigError(str(error)) from error
    data = document.data
    _only(path, document, (), data, ("currency", "rate", "models"))
    rate = data.get("rate", 1.0 if data.get("currency", "USD") == "USD" else None)
    if rate is None:
        raise ConfigError(f"{path}: prices in {data['currency']} need a rate: dollars for one {data['currency']}")
    factor = _number(path, document, ("rate",), rate)
    models = data.get("models") or {}
    if not isinstance(models, dict):
        raise ConfigError(f"{path}{_at(document, ('models',))}: expected a mapping of names, not {models!r}")
    return {name: _price(path, document, name, entry, factor) for name, entry in models.items()}


def _price(path: Path, document: yaml.Document, name: str, entry: Any, factor: float) -> Price:
    _only(path, document, ("models", name), entry, (*PER_MILLION_TOKENS, *EACH))
    amounts = {key: _number(path, document, ("models", name, key), value) * factor for key, value in entry.items()}
    return Price(**{key: value / MILLION if key in PER_MILLION_TOKENS else value for key, value in amounts.items()})


def _only(path: Path, document: yaml.Document, where: tuple[Any, ...], entry: Any, known: tuple[str, ...]) -> None:
    if not isinstance(entry, dict):
        raise ConfigError(f"{path}{_at(document, where)}: expected a mapping with {', '.join(known)}")
    for key in entry:
        if key not in known:
            raise ConfigError(
                f"{path}{_at(document, (*where, key))}: unknown key {key!r}; there are: {', '.join(known)}"
            )


def _number(path: Path, document: yaml.Document, where: tuple[Any, ...], value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ConfigError(f"{path}{_at(document, where)}: {where[-1]} must be a number from 0 up, not {value!r}")
    return float(value)


def _at(document: yaml.Document, where: tuple[Any, ...]) -> str:
    place = document.places.get(where)
    return f":{place[0]}:{place[1]}" if place else ""
