"""The deployments of a client: which serve a model, whose turn it is, and what a model falls back on."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmkit.errors import ConfigError, InvalidRequestError
from llmkit.providers.deployments import Deployment, Model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmkit.core.types import Price


ELSEWHERE = {
    **dict.fromkeys(
        ("api_key", "api_base", "base_url", "api_version"), "it belongs to the deployment: Deployment(…) takes it"
    ),
    **dict.fromkeys(("budget", "ledger"), "give it to MultiAIClient(…)"),
    **dict.fromkeys(("preset", "variables", "session", "store"), "llmkit.ask and ChatModel take it"),
}
"""What a call of a client cannot be given, since it belongs to the client, its deployments or another surface."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """The deployment that would serve a model.

    Attributes:
        deployment: the deployment that would be tried first.
        price: its price, or None if no price is known.
        source: where the price comes from: "deployment", "prices.yaml", "llmkit" or "litellm"; "" for none.
    """

    deployment: Deployment
    price: Price | None
    source: str


class Deployed:
    """Deployments by model, which take turns.

    Args:
        deployments: one or several for each model.
        fallbacks: the models that each model falls back on, in order.

    Raises:
        ConfigError: a fallback names a model without a deployment, or an entry is not a Deployment.
    """

    def __init__(self, deployments: Any, fallbacks: Mapping[Model, Sequence[Model]]) -> None:
        self.by_model = _by_model(deployments)
        self._fallbacks = _fallback_names(fallbacks)
        self._turns: defaultdict[Model, Iterator[int]] = defaultdict(itertools.count)
        for name in itertools.chain(self._fallbacks, *self._fallbacks.values()):
            if name not in self.by_model:
                raise ConfigError(f"fallbacks name {name!r}, which is not deployed; deployed: {self._known()}")

    def of(self, model: Model) -> tuple[Deployment, ...]:
        """Return the deployments of a model.

        Raises:
            InvalidRequestError: it has none.
        """
        deployments = self.by_model.get(model)
        if not deployments:
            raise InvalidRequestError(f"the model {model!r} is not deployed; deployed: {self._known()}")
        return deployments

    def routes(self, model: Model) -> list[tuple[str, Sequence[Deployment]]]:
        """Return the deployments of a model, starting with the next in turn, then those of its fallbacks."""
        routes: list[tuple[str, Sequence[Deployment]]] = []
        for name in (model, *self._fallbacks.get(model, ())):
            deployments = self.of(name)
            start = next(self._turns[name]) % len(deployments)
            routes.append((name, (*deployments[start:], *deployments[:start])))
        return routes

    def _known(self) -> str:
        return ", ".join(self.by_model) or "none"


def _by_model(given: Any) -> dict[Model, tuple[Deployment, ...]]:
    """Return the deployments of each model, or raise an error that names the invalid entry."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"deployments must be a mapping of names to Deployments, not {type(given).__name__}")
    deployments = {}
    for name, entry in given.items():
        several = (entry,) if isinstance(entry, Deployment) else entry
        if isinstance(several, str) or not isinstance(several, Sequence):
            raise ConfigError(f"deployments[{name!r}] must be a Deployment or a list of them, not {entry!r}")
        if not several or not all(isinstance(item, Deployment) for item in several):
            raise ConfigError(f"deployments[{name!r}] must be a Deployment or a list of them, not {entry!r}")
        deployments[name] = tuple(several)
    return deployments


def _fallback_names(given: Mapping[Model, Sequence[Model]]) -> dict[Model, tuple[Model, ...]]:
    """Return the names that each model falls back on, or raise an error that names the invalid entry."""
    for name, others in given.items():
        if isinstance(others, str) or not isinstance(others, Sequence):
            raise ConfigError(f"fallbacks[{name!r}] must be a list of names, not {others!r}")
    return {name: tuple(others) for name, others in given.items()}
