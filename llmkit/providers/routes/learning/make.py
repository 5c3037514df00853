"""Writes the table of routes: `python -m llmkit.providers.routes.learning.make [PROVIDER…]`.

Nothing leaves the machine: LiteLLM is handed a transport that answers by itself.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.providers.litellm import changes
from llmkit.providers.litellm.sdk import load
from llmkit.providers.names import PROVIDERS
from llmkit.providers.routes import sources
from llmkit.providers.routes.behaviour import Behaviour
from llmkit.providers.routes.learning import access, azure
from llmkit.providers.routes.learning.models import behaviour_among, price_of
from llmkit.providers.routes.route import Route
from llmkit.providers.routes.table import FOLDER, Provider, version_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llmkit.providers.routes.learning.observe import Observer

_MODES = frozenset({"chat", "completion", "responses"})
_KEPT = frozenset({"PATH", "HOME", "LANG", "PYTHONPATH", "VIRTUAL_ENV"})
_NOT_ASKED = frozenset({"chatgpt", "gigachat", "github_copilot"})
"""Providers that LiteLLM logs in to before it sends anything."""


def main(wanted: Sequence[str]) -> None:
    """Write the files of the providers that are wanted, or of all."""
    for name in os.environ.keys() - _KEPT:
        del os.environ[name]
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        os.environ[name] = "http://127.0.0.1:9"  # where nobody listens
    FOLDER.mkdir(exist_ok=True)
    attributes = json.dumps(changes.record(), indent=0, sort_keys=True)
    changes.RECORDED.write_text(attributes + "\n", encoding="utf-8")
    for name in wanted or sorted(PROVIDERS - _NOT_ASKED):
        file = FOLDER / f"{name}.json"
        try:
            made = provider_of(name)
        except access.UnlearnableError as error:
            print(f"{name}: {error}")  # noqa: T201
            file.unlink(missing_ok=True)
            continue
        file.write_text(made.as_json(), encoding="utf-8")
        print(f"{name}: {len(made.behaviours)} behaviours, {len(made.models)} models")  # noqa: T201


def provider_of(name: str) -> Provider:
    """Return what LiteLLM knows about a provider.

    Raises:
        UnlearnableError: its requests are of another kind.
    """
    observer = access.observer_of(name)
    found = azure.access_of(observer) if name == azure.NAME else access.access_of(name, observer)
    behaviours: list[Behaviour] = []
    models: dict[str, tuple[int, Mapping[str, Any]]] = {}
    bare = Route(provider=name, model=access.MADE_UP, access=found, behaviour=Behaviour(effects={}))
    other = _behaviour_at(bare, behaviours, observer)
    if other is None:
        raise access.UnlearnableError(f"{name}/{access.MADE_UP} has no route")
    at: int | None = other
    for model in _models(name):
        at = _behaviour_at(replace(bare, model=model), behaviours, observer, at)
        models[model] = (-1 if at is None else at, _entry(f"{name}/{model}", found.dialect))
    if "{version}" in found.base:  # its models' names decide what is sent, so that none stands for those not known
        other = None
    made = Provider(
        name=name,
        litellm=version_of(package()),
        access=found,
        sources=sources.of_provider(package(), name),
        behaviours=behaviours,
        models=models,
        other=other,
    )
    asked = {model: known for model, known in models.items() if made.can_ask(model)}
    return replace(made, special=_special(asked, other)) if other is not None else made


def _behaviour_at(route: Route, known: list[Behaviour], observer: Observer, last: int | None = None) -> int | None:
    """Return the place of a model's behaviour among those that are known; a new one is added to them."""
    order = sorted(range(len(known)), key=lambda at: at != last)  # neighbours are alike
    try:
        found = behaviour_among(route, [known[at] for at in order], observer)
    except access.UnlearnableError as error:
        print(f"{route.provider}/{route.model}: {error}")  # noqa: T201
        return None
    if found not in known:
        known.append(found)
    return known.index(found)


def _models(provider: str) -> Iterator[str]:
    for key, entry in sorted(load().model_cost.items()):
        if entry.get("litellm_provider") == provider and entry.get("mode") in _MODES:
            yield key.removeprefix(f"{provider}/")


def _entry(model: str, dialect: str) -> dict[str, Any]:
    price = price_of(model, dialect)
    return {**price, "hash": sources.of_entry(package(), model)} if price else price


def package() -> Path:
    """Return LiteLLM's folder."""
    return Path(load().__file__).parent


def _special(models: Mapping[str, tuple[int, Any]], other: int) -> str:
    """Return a pattern that all models have that behave in another way than the usual, and as few others as possible.

    Digits stand for any, so that the next generation of a model is not taken for a usual one.
    """
    unusual = [name for name, (at, _) in models.items() if at != other]
    usual = [name for name, (at, _) in models.items() if at == other]
    parts: list[str] = []
    while unusual:
        candidates = {part for name in unusual for part in _parts(name)}
        best = max(
            candidates,
            key=lambda part: (not any(part in name for name in usual), sum(part in name for name in unusual), part),
        )
        parts.append(best)
        unusual = [name for name in unusual if best not in name]
    return "|".join(sorted({re.sub(r"\\?\d", r"\\d", re.escape(part)) for part in parts}))


def _parts(name: str) -> Iterator[str]:
    """Yield the beginnings of a name's words, joined: of gpt-5-mini gpt, gpt-5, gpt-5-mini, 5, 5-mini and mini."""
    words = re.split(r"(?<=[-_/.:])", name)
    for begin in range(len(words)):
        for end in range(begin + 1, len(words) + 1):
            part = "".join(words[begin:end]).strip("-_/.:")
            if len(part) > 1:
                yield part


if __name__ == "__main__":
    main(sys.argv[1:])
