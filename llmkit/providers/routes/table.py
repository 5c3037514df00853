"""The routes that are known: those of llmkit's own files, one for each provider, read when it is first asked for."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.providers.routes.route import Access, Behaviour, Route

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDER = Path(__file__).parent / "table"
OFF = "LLMKIT_ROUTES"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """What is known about a provider.

    Attributes:
        name: of the provider.
        litellm: the version of LiteLLM that was asked.
        access: where it is, and how it knows its callers.
        behaviours: the ways in which its models behave.
        models: for each model of LiteLLM's map which behaviour it has, and its entry in the map.
        other: the behaviour of all other models, or None if that is not known.
        special: what the names of models that behave in another way have in common.
    """

    name: str
    litellm: str
    access: Access
    behaviours: Sequence[Behaviour]
    models: Mapping[str, tuple[int, Mapping[str, Any]]] = field(default_factory=dict)
    other: int | None = None
    special: str = ""

    def route(self, model: str) -> Route | None:
        """Return the route to a model, or None if none is known."""
        known = self.models.get(model)
        if known is not None:
            at, price = known
        elif self.other is not None and not (self.special and re.search(self.special, model, re.IGNORECASE)):
            at, price = self.other, {}
        else:
            return None
        if at < 0:
            return None
        return Route(provider=self.name, model=model, access=self.access, behaviour=self.behaviours[at], price=price)

    def as_json(self) -> str:
        """Return the provider as JSON, with a line for each behaviour and for each model."""
        data = asdict(self)
        models = [f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in sorted(data.pop("models").items())]
        behaviours = [json.dumps(_grouped(behaviour)) for behaviour in data.pop("behaviours")]
        head = json.dumps(data, indent=1)[1:-2]
        return "{{{},\n {},\n {}\n}}\n".format(
            head, _block('"behaviours": [', behaviours, "]"), _block('"models": {', models, "}")
        )

    @classmethod
    def of_json(cls, text: str) -> Provider:
        """Return the provider in JSON."""
        data = json.loads(text)
        behaviours = [Behaviour(**_ungrouped(behaviour)) for behaviour in data.pop("behaviours")]
        return cls(access=Access(**data.pop("access")), behaviours=behaviours, **data)


def _block(begin: str, lines: Sequence[str], end: str) -> str:
    return begin + "\n  " + ",\n  ".join(lines) + "\n " + end if lines else begin + end


def _grouped(behaviour: dict[str, Any]) -> dict[str, Any]:
    """Return a behaviour with its features by what becomes of them."""
    by_effect: dict[str, list[str]] = {}
    for name, effect in sorted(behaviour["effects"].items()):
        by_effect.setdefault(effect, []).append(name)
    return {**behaviour, "effects": by_effect}


def _ungrouped(behaviour: dict[str, Any]) -> dict[str, Any]:
    effects = {name: effect for effect, several in behaviour["effects"].items() for name in several}
    return {**behaviour, "effects": effects}


def route_of(model: str) -> Route | None:
    """Return the route to a model, by LiteLLM's `provider/model`, or None if there is none that may be used now."""
    if os.environ.get(OFF, "").lower() in {"off", "0", "false", "no"}:
        return None
    name, slash, bare = model.partition("/")
    return _route(name, bare) if slash else None


def entry_of(model: str) -> Mapping[str, Any] | None:
    """Return a model's entry in LiteLLM's map, {} if it has none, or None if only LiteLLM can say."""
    name, slash, bare = model.partition("/")
    known = _current(name) if slash else None
    if known is None:
        return None
    entry = known.models.get(bare)
    return {} if entry is None else entry[1]


def _current(name: str) -> Provider | None:
    known = provider(name)
    return known if known is not None and known.litellm == installed_litellm() else None


@lru_cache(maxsize=1024)
def _route(name: str, model: str) -> Route | None:
    known = _current(name)
    return None if known is None else known.route(model)


@lru_cache(maxsize=64)
def provider(name: str) -> Provider | None:
    """Return what is known about a provider, or None."""
    if not name.replace("-", "_").isidentifier():
        return None
    try:
        return Provider.of_json((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def names() -> list[str]:
    """Return the providers that have routes."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


@lru_cache(maxsize=1)
def installed_litellm() -> str:
    """Return the version of LiteLLM that is installed, without importing it, or "" if it cannot be seen."""
    found = find_spec("litellm")
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        for path in Path(folder).parent.glob("litellm-*.dist-info"):
            return path.name.removeprefix("litellm-").removesuffix(".dist-info")
    return ""
