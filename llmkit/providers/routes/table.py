"""The routes that are known: llmkit's own files, one for each provider, and what was learned on this machine.

A provider's file is read when it is first asked for. It holds while the LiteLLM that is installed is the one that was
asked, or has the same parts that it came from.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.config import private
from llmkit.config.folders import data_dir
from llmkit.providers.routes import sources
from llmkit.providers.routes.behaviour import Behaviour
from llmkit.providers.routes.route import Access, Route

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDER = Path(__file__).parent / "table"
OFF = "LLMKIT_ROUTES"
_OFF_WORDS = frozenset({"off", "0", "false", "no"})
_LONGEST_NAME = 100
_RARE = frozenset({"stream_path", "version"})
UNLEARNABLE = -1
"""In the place of a model's behaviour: it has none that a route could say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """What is known about a provider.

    Attributes:
        name: of the provider.
        litellm: the version of LiteLLM that was asked; `sources` are the parts of it that the answers came from.
        access: where it is, and how it knows its callers.
        behaviours: the ways in which its models behave.
        models: for each model of LiteLLM's map which behaviour it has, and its entry in the map.
        other: the behaviour of all other models, or None if that is not known.
        special: what the names of models that behave in another way have in common.
    """

    name: str
    litellm: str
    access: Access
    sources: Mapping[str, str] = field(default_factory=dict)
    behaviours: Sequence[Behaviour] = ()
    models: Mapping[str, tuple[int, Mapping[str, Any]]] = field(default_factory=dict)
    other: int | None = None
    special: str = ""

    def place(self, model: str) -> int | None:
        """Return the place of a model's behaviour, or None if it is not known."""
        known = self.models.get(model)
        if known is not None:
            return known[0]
        is_special = self.special and re.search(self.special, model, re.IGNORECASE)
        return None if is_special else self.other

    def route(self, model: str) -> Route | None:
        """Return the route to a model, or None if none is known."""
        at = self.place(model)
        if at is None or at == UNLEARNABLE:
            return None
        price = self.models[model][1] if model in self.models else {}
        return Route(provider=self.name, model=model, access=self.access, behaviour=self.behaviours[at], price=price)

    def with_model(self, model: str, behaviour: Behaviour | None) -> Provider:
        """Return the provider with a model that was learned; it is in no map, so that it has no price."""
        behaviours = [*self.behaviours, behaviour] if behaviour is not None else list(self.behaviours)
        at = UNLEARNABLE if behaviour is None else len(behaviours) - 1
        return replace(self, behaviours=behaviours, models={**self.models, model: (at, {})})

    def as_json(self) -> str:
        """Return the provider as JSON, with a line for each behaviour and for each model."""
        data = asdict(self)
        data["access"] = _sparse(data["access"])
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
    return {**_sparse(behaviour), "effects": by_effect}


def _sparse(data: dict[str, Any]) -> dict[str, Any]:
    """Return fields without those that few providers need, where they are empty."""
    return {name: value for name, value in data.items() if value or name not in _RARE}


def _ungrouped(behaviour: dict[str, Any]) -> dict[str, Any]:
    effects = {name: effect for effect, several in behaviour["effects"].items() for name in several}
    return {**behaviour, "effects": effects}


class Table:
    """The routes of a folder of such files.

    Args:
        folder: with the files.
        package: LiteLLM's folder, or None if it cannot be found; `version` is its version.
        learned: the folder for what is learned on this machine.
    """

    def __init__(self, folder: Path, package: Path | None, version: str, learned: Path) -> None:
        self._folder, self.package, self.version = folder, package, version
        self.learned = learned / version
        self.provider = lru_cache(maxsize=256)(self._provider)
        self._route = lru_cache(maxsize=1024)(self._find)

    @property
    def is_on(self) -> bool:
        """Whether routes may be used."""
        return os.environ.get(OFF, "").lower() not in _OFF_WORDS

    def names(self) -> list[str]:
        """Return the providers that have files."""
        return sorted(path.stem for path in self._folder.glob("*.json"))

    def route_of(self, model: str, like: str = "") -> Route | None:
        """Return the route to a model, by LiteLLM's `provider/model`, or None if there is none that may be used.

        *like* is the name of the model behind a deployment, which is called as its owner likes.
        """
        if not self.is_on:
            return None
        name, slash, bare = model.partition("/")
        route = self._route(name, like.removeprefix(f"{name}/") or bare) if slash else None
        return replace(route, model=bare) if route is not None and like else route

    def entry_of(self, model: str) -> Mapping[str, Any] | None:
        """Return a model's entry in LiteLLM's map, {} if it has none, or None if only LiteLLM can say."""
        name, slash, bare = model.partition("/")
        known = self.provider(name) if slash else None
        if known is None or (bare in known.models and not self._is_current(name, bare)):
            return None
        return known.models[bare][1] if bare in known.models else {}

    def forget(self) -> None:
        """Read the files again when they are next asked for."""
        self.provider.cache_clear()
        self._route.cache_clear()

    def learned_of(self, name: str) -> Provider | None:
        """Return what was learned about a provider on this machine, or None if that is nothing that can be trusted."""
        known = self.provider(name)
        text = private.text_of(self.learned / f"{name}.json")
        if known is None or text is None:
            return None
        try:
            learned = Provider.of_json(text)
            places = [at for at, _ in learned.models.values()]
            is_sound = all(UNLEARNABLE <= at < len(learned.behaviours) for at in places)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        # addresses are llmkit's own, whatever the file says; and nothing is known about models that it does not name
        return replace(learned, access=known.access, other=None, special="") if is_sound else None

    def learned_place(self, name: str, model: str) -> int | None:
        """Return the place of the behaviour that was learned for a model, or None if none was."""
        learned = self.learned_of(name)
        return learned.place(model) if learned is not None else None

    def keep(self, name: str, model: str, behaviour: Behaviour | None) -> None:
        """Remember what was learned about a model."""
        known = self.provider(name)
        if known is None:
            return
        before = self.learned_of(name) or Provider(name=name, litellm=self.version, access=known.access)
        text = replace(before, access=Access()).with_model(model, behaviour).as_json()
        private.write(self.learned / f"{name}.json", text)
        self._route.cache_clear()

    def _find(self, name: str, model: str) -> Route | None:
        known = self.provider(name)
        if known is None:
            return None
        if known.place(model) is not None:
            return known.route(model) if self._is_current(name, model) else None
        learned = self.learned_of(name)
        return learned.route(model) if learned is not None else None

    def _provider(self, name: str) -> Provider | None:
        """Return what is known about a provider, or None if that is nothing, or nothing that still holds."""
        if not name.replace("-", "_").isidentifier() or len(name) > _LONGEST_NAME:
            return None
        try:
            known = Provider.of_json((self._folder / f"{name}.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return known if known.litellm == self.version or self._has_the_same_parts(known) else None

    def _has_the_same_parts(self, known: Provider) -> bool:
        if self.package is None or not known.sources:
            return False
        return sources.of_provider(self.package, known.name) == known.sources

    def _is_current(self, name: str, model: str) -> bool:
        """Return whether a model's entry in the map of the LiteLLM that is installed is the one that is known."""
        known = self.provider(name)
        if known is None or known.litellm == self.version or model not in known.models or self.package is None:
            return True
        entry = known.models[model][1]
        return entry.get("hash") == sources.of_entry(self.package, f"{name}/{model}")


@cache
def table() -> Table:
    """Return the routes of this installation."""
    found = find_spec("litellm")
    package = next((Path(folder) for folder in (found.submodule_search_locations or ())), None) if found else None
    return Table(FOLDER, package, version_of(package), data_dir() / "routes")


def version_of(package: Path | None) -> str:
    """Return LiteLLM's version without importing it, or "" if it cannot be seen."""
    paths = package.parent.glob("litellm-*.dist-info") if package is not None else ()
    return next((path.name.removeprefix("litellm-").removesuffix(".dist-info") for path in paths), "")
