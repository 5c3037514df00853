"""What `llm` has in its folder, by its documented files: templates/, keys.json, aliases.json, logs.db."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit import presets
from llmkit.cli import files
from llmkit.cli.importing import not_taken_over, told
from llmkit.cli.setup.models import ALIAS
from llmkit.cli.setup.presets import write_new
from llmkit.config import Config, yaml
from llmkit.config.credentials import checked_key, stored_keys
from llmkit.errors import ConfigError, InvalidRequestError, StoreError
from llmkit.providers.litellm import catalogue
from llmkit.providers.model_info import full_name
from llmkit.sessions.snapshot import snapshot_of
from llmkit.store import opened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PROVIDERS = {"claude": "anthropic", "google": "gemini", "together": "together_ai", "perplexity": "perplexity"}
"""llm's names of keys that are not LiteLLM's names of providers."""
_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))")
_KEPT = {"name", "prompt", "system", "model", "options", "defaults", "schema_object"}
_SPACE = uuid.UUID("0b7f0c0e-54a4-5f0c-9a51-6f2f6d0d3c55")
_OLD = """
    SELECT c.id, c.name, r.model, r.system, r.prompt, r.response FROM responses r
    JOIN conversations c ON c.id = r.conversation_id ORDER BY c.id, r.datetime_utc, r.id
"""
_NEW = "SELECT id, name, tip_message_hash FROM threads ORDER BY id"


def usual_folder() -> Path:
    """Return the folder that llm uses."""
    import click

    return Path(os.environ.get("LLM_USER_PATH") or click.get_app_dir("io.datasette.llm"))


def taken_over(folder: Path) -> Iterator[tuple[str, str]]:
    """Take over all that is there; yield the name of each thing and what became of it."""
    if not folder.is_dir():
        raise InvalidRequestError(f"{folder}: there is no such folder; say where llm has its files")
    aliases: dict[str, Any] = {}
    yield from told("aliases.json", _read(folder / "aliases.json", aliases))
    for file in sorted(folder.glob("templates/*.yaml")):
        name = f"template {file.stem}"
        yield from told(name, _template(name, file, aliases))
    keys: dict[str, Any] = {}
    yield from told("keys.json", _read(folder / "keys.json", keys))
    for name, key in sorted(keys.items()):
        if not name.startswith("//"):
            yield from told(f"key {name}", _key(name, key))
    for name, model in sorted(aliases.items()):
        yield from told(f"alias {name}", _alias(name, model))
    if (folder / "logs.db").is_file():
        yield from told("logs.db", _logs(folder / "logs.db"))


# -- templates -----------------------------------------------------------------------------------------------------


def _template(name: str, file: Path, aliases: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    data = yaml.load_file(file).data
    template = {"prompt": data} if isinstance(data, str) else data
    if not isinstance(template, dict) or not all(isinstance(key, str) for key in template):
        raise InvalidRequestError("it is no template")
    for key in ("prompt", "system", "model"):
        if not isinstance(template.get(key, ""), str):
            raise InvalidRequestError(f"its {key} is no text")
    if not isinstance(template.get("defaults") or {}, dict):
        raise InvalidRequestError("its defaults are no mapping")
    path = write_new(file.stem, _preset_of(file.stem, template, aliases), presets.own_folder())
    yield name, f"preset {path}"
    if lost := sorted(template.keys() - _KEPT):
        yield name, f"not kept: {', '.join(lost)}"
    if template.get("prompt"):
        yield name, f"its prompt: {_write_prompt(file.stem, template)}"


def _preset_of(name: str, template: Mapping[str, Any], aliases: Mapping[str, Any]) -> dict[str, Any]:
    system = template.get("system")
    defaults = template.get("defaults") or {}
    model = template.get("model")
    data: dict[str, Any] = {
        "description": f"Was llm's template {name}.",
        "model": full_name(str(aliases.get(model, model))) if model else None,
        "system": _in_jinja(system) if system else None,
        "params": template.get("options"),
        "schema": template.get("schema_object"),
        "variables": {variable: defaults.get(variable) for variable in _variables(system or "")},
    }
    return {key: value for key, value in data.items() if value}


def _write_prompt(name: str, template: Mapping[str, Any]) -> Path:
    """Write a template's prompt as a prompt file for `llmkit run`, unless there is one."""
    path = Config().config_dir / "templates" / f"{name}.md"
    variables = {key: (template.get("defaults") or {}).get(key) for key in _variables(template["prompt"])}
    head = json.dumps({"preset": name, "variables": variables}, ensure_ascii=False)
    if not path.exists():
        files.create(f"---\n{head}\n---\n{_in_jinja(template['prompt'])}\n", path, option="the prompt")
    return path


def _variables(text: str) -> list[str]:
    return list(dict.fromkeys(first or second for first, second in _VARIABLE.findall(text.replace("$$", ""))))


def _in_jinja(text: str) -> str:
    """Return a text with Python's `$name` in it as one with Jinja's `{{ name }}`."""
    parts = [_VARIABLE.sub(lambda match: f"{{{{ {match[1] or match[2]} }}}}", part) for part in text.split("$$")]
    return "$".join(parts)


# -- keys and aliases ----------------------------------------------------------------------------------------------


def _key(name: str, key: Any) -> Iterator[tuple[str, str]]:
    provider = _PROVIDERS.get(name, name)
    if provider in stored_keys().all():
        yield f"key {name}", "is here already"
        return
    variables = catalogue.key_variables(provider)
    if not variables:
        raise ConfigError(f"{provider} needs no key")
    place = stored_keys().keep(provider, checked_key(key), variables)
    yield f"key {name}", f"{provider}: stored in {'the keyring' if place == 'keyring' else place}"


def _alias(name: str, model: Any) -> Iterator[tuple[str, str]]:
    settings = Config()
    known = settings.get("model.aliases")
    if name in known:
        return
    if not ALIAS.fullmatch(name):
        raise ConfigError("it is no short name")
    with settings.editing():
        settings.set(f"model.aliases.{name}", full_name(model))
    yield f"alias {name}", full_name(model)


# -- logs ----------------------------------------------------------------------------------------------------------


def _logs(file: Path) -> Iterator[tuple[str, str]]:
    taken = 0
    with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
        database.text_factory = lambda data: data.decode(errors="replace")
        for log_id, title, model, system, messages in _conversations(database):
            try:
                taken += _conversation(str(log_id), title, model, system, messages)
            except Exception as error:  # noqa: BLE001 - a row may be wrong in any way
                yield f"conversation {log_id}", not_taken_over(error)
    yield "logs", f"{taken} conversations; llmkit sessions"


def _conversation(log_id: str, title: Any, model: Any, system: Any, messages: list[dict[str, Any]]) -> bool:
    """Keep a conversation; return whether it was not here yet."""
    preset = presets.Preset(model=full_name(model) if model else None, system=system or None)
    snapshot, name = snapshot_of(preset), None if title is None else str(title)
    try:
        opened().create(
            str(uuid.uuid5(_SPACE, log_id)), preset="", version=None, snapshot=snapshot, title=name, messages=messages
        )
    except StoreError:  # it is here already
        return False
    return True


def _conversations(database: sqlite3.Connection) -> Iterator[tuple[str, str | None, str, str, list[dict[str, Any]]]]:
    """Yield id, title, model, system message and messages of each conversation, of llm's two formats."""
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    seen = set()
    for thread, title, tip in database.execute(_NEW).fetchall() if "threads" in tables else ():
        system, messages = _chain(database, tip)
        row = database.execute(
            "SELECT model FROM turns WHERE thread_id = ? ORDER BY datetime_utc DESC LIMIT 1", (thread,)
        ).fetchone()
        seen.add(thread)
        if messages:
            yield thread, title, row[0] if row else "", system, messages
    old: dict[str, tuple[str | None, str, str, list[dict[str, Any]]]] = {}
    for log_id, title, model, system, prompt, answer in database.execute(_OLD) if "responses" in tables else ():
        messages = old.setdefault(log_id, (title, model, system or "", []))[3]
        messages += [{"role": "user", "content": prompt or ""}, {"role": "assistant", "content": answer or ""}]
    for log_id, (title, model, system, messages) in old.items():
        if log_id not in seen:
            yield log_id, title, model, system, messages


def _chain(database: sqlite3.Connection, tip: str | None) -> tuple[str, list[dict[str, Any]]]:
    """Return the system message and the messages that lead to *tip*; parts that are no text are left out."""
    system, messages = "", list[dict[str, Any]]()
    seen = set[str]()
    while tip and tip not in seen:
        seen.add(tip)
        found = database.execute("SELECT parent_hash, role FROM messages WHERE hash = ?", (tip,)).fetchone()
        if found is None:
            break
        parts = "SELECT text FROM parts WHERE message_hash = ? AND type = 'text' ORDER BY position"
        text = "\n".join(str(text or "") for (text,) in database.execute(parts, (tip,)))
        tip, role = found
        if role == "system":
            system = text
        elif role in {"user", "assistant"}:
            messages.insert(0, {"role": role, "content": text})
    return system, messages


def _read(file: Path, into: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Read one of llm's files, if it is there."""
    if file.exists():
        data = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(data, dict):
            raise InvalidRequestError("it is not what llm writes")
        into.update(data)
    yield from ()
