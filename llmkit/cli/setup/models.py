"""`llmkit models`: list, show, default, alias, unalias."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmkit.cli import completing
from llmkit.cli.base import AsJson, Lists, add_group, table
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmkit.providers.litellm.catalogue import ListedModel

models = typer.Typer(cls=Lists, help="Find models: name, context window, price, abilities; choose the usual one.")
add_group(models, "models")
ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="provider/model, or an alias.", autocompletion=completing.models)
]
_THOUSAND = 1000
ALIAS = re.compile(r"\w[\w.+-]{0,59}")
_DOES = ("chat", "embed", "transcribe", "speak", "image")


@models.command("list")
def list_(
    query: Annotated[list[str] | None, typer.Argument(help="Words that the name or the abilities have all of.")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="Those without a key, too.")] = False,
    does: Annotated[
        str, typer.Option("--does", metavar="chat|embed|transcribe|speak|image", help="What it has to do.")
    ] = "chat",
    as_json: AsJson = False,
) -> None:
    """List models: name, context window, US dollars for a million tokens in and out, abilities, whether a key is there.

    Without a query only those that can be called now.

    Example: llmkit models mini tools
    """
    from llmkit.providers.litellm import catalogue

    if does not in _DOES:
        raise ConfigError(f"--does cannot be {does!r}; it can be {', '.join(_DOES)}")
    usable = _usable()
    words = [word.lower() for word in query or ()]
    found = [model for model in catalogue.models().values() if model.does == does and _fits(model, words)]
    shown = found if every or words else [model for model in found if model.provider in usable]
    if as_json:
        print(json.dumps([{**asdict(model), "key": model.provider in usable} for model in shown]))
        return
    table(_rows(shown, usable))
    if not found:
        name = " ".join(words)
        raise ConfigError(f"no model is called {name!r}{catalogue.advice(name)}")
    if hidden := len(found) - len(shown):
        print(f"llmkit: {hidden} more, of providers without a key here: llmkit models --all", file=sys.stderr)


@models.command()
def show(model: ModelName, *, as_json: AsJson = False) -> None:
    """Print what is known about a model, and how its provider is reached."""
    from llmkit.cli.setup.access import key_variables, places
    from llmkit.providers.litellm import catalogue
    from llmkit.providers.model_info import full_name
    from llmkit.providers.routes.table import table as routes

    name = full_name(model)
    known = catalogue.models().get(name)
    if known is None:
        why = f"nothing is known about the model {name!r}, which may work all the same"
        raise ConfigError(f"{why}{catalogue.advice(name)}")
    data = asdict(known)
    variables = key_variables(known.provider)
    data |= {"key": places().get(known.provider) or ("needs none" if variables == () else "missing")}
    data |= {"key_variables": list(variables or ()), "route": "direct" if routes().route_of(name) else "litellm"}
    if as_json:
        print(json.dumps(data))
        return
    table((key.replace("_", " "), _said(value)) for key, value in data.items())


@models.command()
def default(model: Annotated[str | None, typer.Argument(help="The model to use from now on.")] = None) -> None:
    """Print the model that answers where none is named, or choose another one."""
    from llmkit.config import EMBEDDED_MODEL, Config, default_choice

    if model is None:
        name, preset = default_choice()
        print(name or (f"preset {preset}" if preset else EMBEDDED_MODEL))
        return
    settings = Config()
    found = _existing(model)
    with settings.editing():
        settings.set("model.default_model", found)
    print(settings.get("model.default_model"))
    if (winner := settings.source("model.default_model")) == "LLMKIT_MODEL":
        print(f"llmkit: {winner} is set, and wins over it", file=sys.stderr)


@models.command()
def alias(
    name: Annotated[str | None, typer.Argument(help="The short name.")] = None,
    model: Annotated[str | None, typer.Argument(help="provider/model.")] = None,
) -> None:
    """Give a model a short name, or list the short names.

    Example: llmkit models alias quick openai/gpt-4o-mini
    """
    from llmkit.config import Config

    settings = Config()
    aliases = settings.get("model.aliases")
    if name is None or model is None:
        table(sorted(aliases.items()) if name is None else [(name, aliases[name])] if name in aliases else ())
        return
    if not ALIAS.fullmatch(name):
        raise ConfigError(f"{name[:60]!r} cannot be a short name: it has letters, digits, and . _ + - between them")
    found = _existing(model)
    with settings.editing():
        settings.set(f"model.aliases.{name}", found)


@models.command()
def unalias(name: Annotated[str, typer.Argument(help="The short name.")]) -> None:
    """Remove a short name."""
    from llmkit.config import Config

    settings = Config()
    with settings.editing():
        aliases = settings.get("model.aliases")
        if name not in aliases:
            raise ConfigError(f"no model is called {name!r}; llmkit models alias lists the short names")
        settings.set("model.aliases", {short: model for short, model in aliases.items() if short != name})


def _existing(model: str) -> str:
    """Return a model's full name; one of an unknown provider is a slip."""
    from llmkit.providers.litellm import catalogue
    from llmkit.providers.model_info import full_name

    name = full_name(model)
    if name.partition("/")[0] not in catalogue.providers() or not name.partition("/")[2]:
        raise ConfigError(catalogue.unknown(model))
    return name


def _usable() -> set[str]:
    from llmkit.cli.setup.access import places

    return {"local", *places()}


def _fits(model: ListedModel, words: list[str]) -> bool:
    return all(word in model.name.lower() or word in model.abilities for word in words)


def _rows(listed: list[ListedModel], usable: set[str]) -> Iterable[tuple[str, ...]]:
    from llmkit.providers.names import KEYLESS

    if listed:
        yield ("model", "window", "$/M in", "$/M out", "key", "abilities")
    for model in listed:
        window = "?" if model.window is None else f"{model.window / _THOUSAND:,.0f}k"
        prices = ("?" if usd is None else f"{usd:g}" for usd in (model.input_usd, model.output_usd))
        key = "yes" if model.provider in usable else "none" if model.provider in KEYLESS else "no"
        yield (model.name, window, *prices, key, " ".join(model.abilities))


def _said(value: Any) -> str:
    if value is None:
        return "not known"
    return " ".join(value) if isinstance(value, list | tuple) else str(value)
