"""The settings: their types, defaults and variables, and the aliases of system messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Key:
    """A setting: type (a list or dict contains texts), default, description, variable, and whether it is a path."""

    kind: type
    default: Any
    doc: str
    variable: str = ""
    is_path: bool = False


KEYS: Mapping[str, Key] = {
    "model.default_model": Key(str, None, "the model of calls that name none", "LLMKIT_MODEL"),
    "model.default_preset": Key(str, None, "the preset of calls that name none", "LLMKIT_PRESET"),
    "model.default_system_message": Key(str, None, "ApiBackend's system message: a text or an alias"),
    "model.system_message": Key(dict, {}, "aliases of system messages: name and text"),
    "model.aliases": Key(dict, {}, "short names of models: alias and provider/model"),
    "model.streaming": Key(bool, False, "whether ApiBackend streams its answers to stdout or to a callback"),
    "model.max_submission_tokens": Key(int, None, "how much of a conversation ApiBackend sends at the most"),
    "backend.persist": Key(bool, False, "whether ApiBackend keeps its conversations in the store"),
    "backend.generate_title": Key(bool, False, "whether ApiBackend asks the model in use for a conversation's title"),
    "directories.templates": Key(
        list, [], "folders of templates, searched before `templates` of the settings' folder", is_path=True
    ),
    "cli.keep": Key(bool, True, "whether the command line keeps questions and answers, for `llmkit -c`"),
    "local.keep_s": Key(
        int,
        300,
        "how many idle seconds a command on a terminal leaves a model on this machine loaded; 0 for not at all",
    ),
    "database": Key(str, None, "the store's URL; a SQLite file in the data folder where it is not set", is_path=True),
    "debug.log.enabled": Key(bool, False, "whether requests and answers are written to a file"),
    "debug.log.filepath": Key(str, None, "that file; debug.log in the data folder where it is not set", is_path=True),
}
SYSTEM_MESSAGES: Mapping[str, str] = {
    "default": "You are a helpful assistant.",
    "programmer": "You are an expert programmer. Write clean, working code, and explain only what is not obvious.",
    "creative_writer": "You are a creative writer with a vivid style and an ear for language.",
}


def variable(key: str) -> str:
    """Return the environment variable of a setting."""
    return KEYS[key].variable or "LLMKIT_" + key.upper().replace(".", "_")
