"""`llmkit doctor`: whether this installation works, and what to do where it does not."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmkit.cli.base import AsJson, app, table
from llmkit.cli.terminal import FAILURE
from llmkit.errors import LlmkitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OK, NOTE, WRONG = "ok", "note", "WRONG"
COMPROMISED = frozenset({"1.82.7", "1.82.8"})
"""LiteLLM's releases of March 2026 that steal keys as Python starts."""
STEALER = "litellm_init.pth"
_OLDEST = (1, 106)
_QUESTION = "What is the capital of France?"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: its state ("ok", "note" or "WRONG"), what was looked at, and what there is."""

    state: str
    what: str
    text: str


@app.command()
def doctor(
    *,
    ask: Annotated[bool, typer.Option("--ask/--no-ask", help="Let the embedded model answer one question.")] = True,
    as_json: AsJson = False,
) -> None:
    """Check the installation: versions, files, store, keys, presets, routes, the embedded model.

    Nothing is sent to a provider. Exits with 1 if something is wrong.
    """
    findings = [finding for check in (*_CHECKS, *([_embedded] if ask else [])) for finding in _found(check)]
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False))
    else:
        table((finding.state, finding.what, finding.text) for finding in findings)
    if any(finding.state == WRONG for finding in findings):
        raise typer.Exit(FAILURE)


def _found(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Return what a check finds; an error that ends it is a finding too."""
    try:
        yield from check()
    except (LlmkitError, OSError) as error:
        yield Finding(WRONG, check.__name__.strip("_"), str(error))


def _versions() -> Iterator[Finding]:
    from llmkit import __version__

    yield Finding(OK, "llmkit", f"{__version__}, Python {sys.version.split()[0]}, {sys.prefix}")
    yield litellm_finding(_version_of("litellm"))
    if planted := stealers(sys.path):
        yield Finding(WRONG, "litellm", f"{planted[0]} steals keys: remove it, and make every key on this machine anew")


def litellm_finding(installed: str) -> Finding:
    """Return what is to be said of a version of LiteLLM; "" if none is installed."""
    if not installed:
        return Finding(WRONG, "litellm", "is not installed: python -m pip install litellm")
    if installed in COMPROMISED:
        text = f"{installed} is a compromised release: remove it, and make every key on this machine anew"
        return Finding(WRONG, "litellm", text)
    numbers = tuple(int(part) for part in installed.split(".")[:2] if part.isdecimal())
    if numbers < _OLDEST:
        return Finding(WRONG, "litellm", f"{installed} is older than llmkit needs: python -m pip install -U litellm")
    return Finding(OK, "litellm", installed)


def stealers(folders: list[str]) -> list[Path]:
    """Return the files that the compromised releases of LiteLLM left in folders."""
    return [path for folder in folders if (path := Path(folder or ".", STEALER)).is_file()]


def _settings() -> Iterator[Finding]:
    from llmkit.config import EMBEDDED_MODEL, Config, default_choice

    settings = Config()
    there = "" if settings.config_file.is_file() else " (not there: all settings have their defaults)"
    yield Finding(OK, "settings", f"{settings.config_file}{there}")
    model, preset = default_choice()
    yield Finding(OK, "answers", model or (f"preset {preset}" if preset else f"{EMBEDDED_MODEL}, the embedded model"))


def _store() -> Iterator[Finding]:
    from llmkit.store import opened

    store = opened()
    sessions = len(store.sessions(limit=1000))
    yield Finding(OK, "store", f"{store.url}, {sessions if sessions < 1000 else 'over 1000'} conversations")  # noqa: PLR2004
    if store.url.startswith("sqlite:///"):
        yield from _private(Path(store.url.removeprefix("sqlite:///")))


def _private(path: Path) -> Iterator[Finding]:
    """Say so if others can read a file of the user's."""
    if hasattr(os, "getuid") and path.is_file() and path.stat().st_mode & 0o077:
        yield Finding(WRONG, "permissions", f"others can read {path}: chmod 600 {path}")


def _keys() -> Iterator[Finding]:
    from llmkit.cli.setup.access import places
    from llmkit.config.credentials import stored_keys

    yield from _private(stored_keys().file)
    known = places()
    for provider, place in sorted(known.items()):
        yield Finding(OK, "key", f"{provider}: {place}")
    if not known:
        yield Finding(NOTE, "key", "none: llmkit keys set PROVIDER, or the provider's variable")


def _presets() -> Iterator[Finding]:
    from llmkit import presets
    from llmkit.prepare.check import faults

    files = list(presets.files())
    wrong = [line for file in files for line in faults(file)]
    yield Finding(OK, "presets", f"{len(files)} in {len(presets.folders())} folders")
    for line in wrong:
        yield Finding(WRONG, "presets", line)


def _routes() -> Iterator[Finding]:
    from llmkit.providers.routes.table import OFF
    from llmkit.providers.routes.table import table as routes

    known = routes()
    if not known.is_on:
        yield Finding(NOTE, "routes", f"off, by {OFF}: every call goes through LiteLLM")
        return
    current = [name for name in known.names() if known.provider(name) is not None]
    count = f"{len(current)} of {len(known.names())} providers are called without LiteLLM"
    yield Finding(OK if len(current) == len(known.names()) else NOTE, "routes", count)


def _embedded() -> Iterator[Finding]:
    import llmkit
    from llmkit.config import EMBEDDED_MODEL
    from llmkit.providers.local import weights

    if find_spec("xllamacpp") is None:
        yield Finding(NOTE, "embedded model", f"not installed; {weights.INSTALL}")
        return
    if not weights.path().is_file():
        yield Finding(
            NOTE, "embedded model", f"not fetched yet: {weights.SMOLLM2.size / 1e6:.0f} MB with the first use"
        )
        return
    reply = llmkit.ask(_QUESTION, model=EMBEDDED_MODEL, max_tokens=6, temperature=0, ledger=False)
    yield Finding(OK, "embedded model", f"answers {reply.text.strip()!r} in {reply.latency_s:.1f} s")


def _version_of(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version  # 12 ms of every `--help`

    try:
        return version(package)
    except PackageNotFoundError:
        return ""


_CHECKS = (_versions, _settings, _store, _keys, _presets, _routes)
