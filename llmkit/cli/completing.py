"""What a TAB offers where a preset, a model, a session, a budget, a provider or a setting is wanted.

A shell waits for these: nothing slow is imported, nothing is sent, and an error offers nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_MOST = 200
_HARMLESS = re.compile(r"[A-Za-z0-9._/][A-Za-z0-9._/+@:-]*")
"""What no shell takes for more than a word: names come with folders too, and zsh runs what it is offered."""


def _offers(words: Callable[[str], Iterable[str]]) -> Callable[[str], list[str]]:
    """Return a function that gives those of the words that go on from what is typed."""

    def offered(incomplete: str) -> list[str]:
        try:
            return [word for word in words(incomplete) if word.startswith(incomplete) and _HARMLESS.fullmatch(word)][
                :_MOST
            ]
        except Exception:  # noqa: BLE001 - a TAB is no place for an error
            return []

    offered.__doc__ = words.__doc__
    return offered


@_offers
def presets(_: str) -> Iterable[str]:
    """Return the names of presets."""
    from llmkit.config.preset_folders import names

    return names()


@_offers
def models(incomplete: str) -> Iterable[str]:
    """Return the names of providers until one is typed, then those of its models; aliases too."""
    from llmkit.config import Config
    from llmkit.providers.litellm import catalogue

    names = catalogue.names()
    if "/" in incomplete:
        return names
    return sorted({*Config().get("model.aliases"), *(f"{name.partition('/')[0]}/" for name in names)})


@_offers
def providers(_: str) -> Iterable[str]:
    """Return the names of providers."""
    from llmkit.providers.litellm import catalogue

    return catalogue.providers()


@_offers
def sessions(_: str) -> Iterable[str]:
    """Return the beginnings of the ids of the last conversations."""
    from llmkit.store import opened

    return [session.id[:8] for session in opened().sessions(limit=_MOST)]


@_offers
def budgets(_: str) -> Iterable[str]:
    """Return the names of budgets."""
    from llmkit import Budgets

    return [state.budget.name for state in Budgets().all()]


@_offers
def settings(_: str) -> Iterable[str]:
    """Return the names of settings."""
    from llmkit.config import KEYS

    return KEYS
