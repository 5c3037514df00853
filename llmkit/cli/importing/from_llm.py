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
from llmkit.cli.setup.presets import write_new
from llmkit.config import Config, yaml
from llmkit.config.credentials import stored_keys
from llmkit.errors import ConfigError, InvalidRequestError, LlmkitError, StoreError
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
    aliases = _json(folder / "aliases.json")
    yield from _templates(folder / "templates", aliases)
    yield from _keys(_json(folder / "keys.json"))
    yield from _aliases(aliases)
    if (folder / "logs.db").is_file():
        yield from _logs(folder / "logs.db")


# -- templates -----------------------------------------------------------------------------------------------------


def _templates(folder: Path, aliases: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for file in sorted(folder.glob("*.yaml")):
        name = f"template {file.stem}"
        try:
            data = yaml.load_file(file).data
            template = {"prompt": data} if isinstance(data, str) else data
            if not isinstance(template, dict):
                raise InvalidRequestError(f"{file} is no template")
            path = write_new(file.stem, _preset_of(file.stem, template, aliases), presets.own_folder())
            yield name, f"preset {path}"
            if lost := sorted(template.keys() - _KEPT):
                yield name, f"not kept: {', '.join(lost)}"
            if template.get("prompt"):
                yield name, f"its prompt: {_write_prompt(file.stem, template)}"
        except (LlmkitError, yaml.YamlError, OSError) as error:
            yield name, f"not taken over: {error}"


def _preset_of(name: str, template: Mapping[str, Any], aliases: Mapping[str, Any]) -> dict[str, Any]:
    system = template.get("system")
    defaults = template.get("defaults") or {}
    model = template.get("model")
    data: dict[str, Any] = {
        "description": f"Was llm's template {name}.",
        "model": _model(str(aliases.get(model, model))) if model else None,
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
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError), path.open("x", encoding="utf-8") as file:
        file.write(f"---\n{head}\n---\n{_in_jinja(template['prompt'])}\n")
    return path


def _variables(text: str) -> list[str]:
    return list(dict.fromkeys(first or second for first, second in _VARIABLE.findall(text.replace("$$", ""))))


def _in_jinja(text: str) -> str:
    """Return a text with Python's `$name` in it as one with Jinja's `{{ name }}`."""
    parts = [_VARIABLE.sub(lambda match: f"{{{{ {match[1] or match[2]} }}}}", part) for part in text.split("$$")]
    return "$".join(parts)


# -- keys and aliases ----------------------------------------------------------------------------------------------


def _keys(keys: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, key in sorted(keys.items()):
        if name.startswith("//"):
            continue
        provider = _PROVIDERS.get(name, name)
        try:
            if provider in stored_keys().all():
                yield f"key {name}", "is here already"
                continue
            place = stored_keys().keep(provider, str(key), catalogue.key_variables(provider))
            yield f"key {name}", f"{provider}: stored in {'the keyring' if place == 'keyring' else place}"
        except ConfigError as error:
            yield f"key {name}", f"not taken over: {error}"


def _aliases(aliases: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    settings = Config()
    known = settings.get("model.aliases")
    new = {name: _model(str(model)) for name, model in aliases.items() if name not in known and "/" not in name}
    if new:
        settings.set("model.aliases", {**known, **new})
        settings.save()
    for name, model in new.items():
        yield f"alias {name}", model


def _model(model: str) -> str:
    """Return LiteLLM's name of a model of llm's, as far as that can be said."""
    return full_name(model)


# -- logs ----------------------------------------------------------------------------------------------------------


def _logs(file: Path) -> Iterator[tuple[str, str]]:
    store = opened()
    taken = 0
    try:
        with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            for log_id, title, model, system, messages in _conversations(database):
                preset = presets.Preset(model=_model(model) if model else None, system=system or None)
                session = str(uuid.uuid5(_SPACE, log_id))
                with contextlib.suppress(StoreError):  # it is here already
                    snapshot = snapshot_of(preset)
                    store.create(session, preset="", version=None, snapshot=snapshot, title=title, messages=messages)
                    taken += 1
    except sqlite3.Error as error:
        yield "logs", f"not taken over: {file}: {error}"
    yield "logs", f"{taken} conversations; llmkit sessions"


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
        text = "\n".join(text or "" for (text,) in database.execute(parts, (tip,)))
        tip, role = found
        if role == "system":
            system = text
        elif role in {"user", "assistant"}:
            messages.insert(0, {"role": role, "content": text})
    return system, messages


def _json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"{file} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise InvalidRequestError(f"{file} is not what llm writes")
    return data
