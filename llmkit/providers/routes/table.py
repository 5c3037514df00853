"""The routes that are known: llmkit's own files, one for each provider, and what was learned on this machine.

A provider's file is read when it is first asked for. It holds while the LiteLLM that is installed is the one that was
asked, or has the same parts that it came from. Else its models are learned anew, one by one, as they are called.
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
from llmkit.providers.routes.route import Access, Route, can_hold

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FOLDER = Path(__file__).parent / "table"
OFF = "LLMKIT_ROUTES"
_OFF_WORDS = frozenset({"off", "0", "false", "no"})
_SWITCHES = (
    "LITELLM_DROP_PARAMS",
    "LITELLM_MODIFY_PARAMS",
    "LITELLM_ENABLE_ANTHROPIC_PROMPT_CACHING",
    "LITELLM_ROUTE_ALL_CHAT_OPENAI_TO_RESPONSES",
)
"""Variables that LiteLLM reads when it is imported, and that change what it sends to many providers."""
_LONGEST_NAME = 100
_RARE = frozenset({"stream_path", "version", "keyless"})
_BEGUN = "begun"
"""The name of the file that says how far the learning of a model is."""
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
        return None if is_special or not self.can_ask(model) else self.other

    def can_ask(self, model: str) -> bool:
        """Return whether a model's name can be in the address, where the provider has it there."""
        return can_hold(self.access.path, model)

    def route(self, model: str) -> Route | None:
        """Return the route to a model, or None if none is known."""
        at = self.place(model)
        if at is None or at == UNLEARNABLE:
            return None
        price = self.models[model][1] if model in self.models else {}
        return Route(provider=self.name, model=model, access=self.access, behaviour=self.behaviours[at], price=price)

    def with_model(self, model: str, behaviour: Behaviour | None, price: Mapping[str, Any]) -> Provider:
        """Return the provider with a model that was learned, and its entry in LiteLLM's map."""
        behaviours = list(self.behaviours)
        if behaviour is not None and behaviour not in behaviours:
            behaviours.append(behaviour)
        at = UNLEARNABLE if behaviour is None else behaviours.index(behaviour)
        return replace(self, behaviours=behaviours, models={**self.models, model: (at, price)})

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
        self._is_switched = any(os.environ.get(name, "").lower() not in {"", *_OFF_WORDS} for name in _SWITCHES)
        self.provider = lru_cache(maxsize=256)(self._provider)
        self.holds = lru_cache(maxsize=256)(self._holds)
        self._source = lru_cache(maxsize=1024)(self._find_source)
        self._route = lru_cache(maxsize=1024)(self._find)

    @property
    def is_on(self) -> bool:
        """Whether routes may be used."""
        return os.environ.get(OFF, "").lower() not in _OFF_WORDS and not self._is_switched

    def names(self) -> list[str]:
        """Return the providers that have files."""
        return sorted(path.stem for path in self._folder.glob("*.json"))

    def route_of(self, model: str, like: str = "") -> Route | None:
        """Return the route to a model, by LiteLLM's `provider/model`, or None if there is none that may be used.

        *like* is the name of the model behind a deployment, which is called as its owner likes.
        """
        if not self.is_on or "/" not in model:
            return None
        route = self._route(*known_as(model, like))
        return replace(route, model=model.partition("/")[2]) if route is not None and like else route

    def entry_of(self, model: str) -> Mapping[str, Any] | None:
        """Return a model's entry in LiteLLM's map, {} if it has none, or None if only LiteLLM can say."""
        name, slash, bare = model.partition("/")
        known = self.provider(name) if slash else None
        if known is None:
            return None
        source = self._source(name, bare)
        if source is not None and bare in source.models:
            return source.models[bare][1]
        return {} if bare not in known.models and self.holds(name) else None

    def knows(self, name: str, model: str) -> bool:
        """Return whether it is known how a provider's model behaves, even if no route could say it."""
        return self._source(name, model) is not None

    def forget(self) -> None:
        """Read the files again when they are next asked for."""
        for cached in (self.provider, self.holds, self._source, self._route):
            cached.cache_clear()

    def current(self, name: str) -> Provider | None:
        """Return llmkit's own file of a provider while it holds, else what was learned about it, or None."""
        return self.provider(name) if self.holds(name) else self.learned_of(name)

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
            is_sound = is_sound and all(isinstance(price, dict) for _, price in learned.models.values())
            is_sound = is_sound and all(behaviour.is_sound() for behaviour in learned.behaviours)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        # addresses are llmkit's own, whatever the file says; and nothing is known about models that it does not name
        return replace(learned, access=known.access, other=None, special="") if is_sound else None

    def keep(self, name: str, model: str, behaviour: Behaviour | None, price: Mapping[str, Any]) -> None:
        """Remember what was learned about a model."""
        known = self.provider(name)
        if known is None:
            return
        before = self.learned_of(name) or Provider(name=name, litellm=self.version, access=known.access)
        text = replace(before, access=Access()).with_model(model, behaviour, price).as_json()
        private.write(self.learned / f"{name}.json", text)
        begun = self._begun()
        if begun.pop(f"{name}/{model}", None) is not None:
            private.write(self.learned / _BEGUN, json.dumps(begun))
        self._source.cache_clear()
        self._route.cache_clear()

    def drop(self, model: str) -> None:
        """Forget what was learned about a model, so that it is learned again."""
        name, _, bare = model.partition("/")
        learned = self.learned_of(name)
        if learned is not None and bare in learned.models:
            left = {other: entry for other, entry in learned.models.items() if other != bare}
            private.write(self.learned / f"{name}.json", replace(learned, access=Access(), models=left).as_json())
            self.forget()

    def seen(self, model: str, *, of: int) -> int:
        """Return how many of the steps of learning a model were taken before a program ended."""
        done, number = self._begun().get(model, (0, of))
        return done if number == of else 0

    def see(self, model: str, done: int, *, of: int) -> None:
        """Remember how many of these steps were taken."""
        private.write(self.learned / _BEGUN, json.dumps({**self._begun(), model: (done, of)}))

    def _begun(self) -> dict[str, tuple[int, int]]:
        try:
            begun = json.loads(private.text_of(self.learned / _BEGUN) or "{}")
            return {str(name): (int(done), int(of)) for name, (done, of) in begun.items() if 0 <= done <= of}
        except (ValueError, TypeError, AttributeError, RecursionError):
            return {}

    def _find(self, name: str, model: str) -> Route | None:
        source = self._source(name, model)
        return source.route(model) if source is not None else None

    def _find_source(self, name: str, model: str) -> Provider | None:
        """Return what says how a model behaves, llmkit's own file or what was learned, or None if nothing does."""
        known = self.provider(name)
        if known is None:
            return None
        if known.litellm != self.version or known.place(model) is None:
            learned = self.learned_of(name)
            if learned is not None and learned.place(model) is not None:
                return learned
        is_right = known.place(model) is not None and self.holds(name) and self._is_current(name, model)
        return known if is_right else None

    def _provider(self, name: str) -> Provider | None:
        """Return what llmkit's own file says about a provider, or None if there is none."""
        if not name.replace("-", "_").isidentifier() or len(name) > _LONGEST_NAME:
            return None
        try:
            return Provider.of_json((self._folder / f"{name}.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def _holds(self, name: str) -> bool:
        """Return whether a provider's file holds with the LiteLLM that is installed."""
        known = self.provider(name)
        if known is None or known.litellm == self.version:
            return known is not None
        if self.package is None or not known.sources:
            return False
        return sources.of_provider(self.package, name) == known.sources

    def _is_current(self, name: str, model: str) -> bool:
        """Return whether a model's entry in the map of the LiteLLM that is installed is the one that is known."""
        known = self.provider(name)
        if known is None or known.litellm == self.version or model not in known.models or self.package is None:
            return True
        entry = known.models[model][1]
        return entry.get("hash") == sources.of_entry(self.package, f"{name}/{model}")


def known_as(model: str, like: str = "") -> tuple[str, str]:
    """Return the provider of a model, and the name under which its behaviour is known; *like* as in `route_of`."""
    name, _, bare = model.partition("/")
    return name, like.removeprefix(f"{name}/") or bare


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
