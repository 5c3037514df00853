"""Which providers the user can reach, and where their keys come from; what `keys`, `models` and `doctor` tell."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence


def places() -> dict[str, str]:
    """Return where the key of each provider comes from: a variable's name, "keyring", or a file's path."""
    from llmkit.config.credentials import set_variable, stored_keys
    from llmkit.providers.litellm import catalogue

    stored = stored_keys()
    found = {name: str(stored.file) if key.key else "keyring" for name, key in stored.all().items()}
    for provider in catalogue.providers():
        if winner := set_variable(key_variables(provider) or ()):
            found[provider] = winner
    return found


def key_variables(provider: str) -> Sequence[str] | None:
    """Return the variables that name a provider's key, () if it needs none, or None if it wants more than a key."""
    from llmkit.providers.litellm import catalogue

    try:
        return catalogue.key_variables(provider)
    except ConfigError:
        return None


def key_of(provider: str) -> str:
    """Return a provider's key.

    Raises:
        ConfigError: there is none, or no such provider.
    """
    from llmkit.config.credentials import set_variable, stored_keys
    from llmkit.providers.litellm import catalogue

    variables = catalogue.key_variables(provider)
    key = os.environ.get(set_variable(variables)) or stored_keys().of(provider)
    if key is None and variables:
        raise ConfigError(f"there is no key: llmkit keys set {provider}, or set {' or '.join(variables)}")
    return key or ""
