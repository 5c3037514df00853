"""Settings of the user: where they are kept and what they say. Reading them makes no file and no folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from llmkit.errors import ConfigError

EMBEDDED_MODEL = "local/smollm2"


def config_dir() -> Path:
    """Return the user's folder of settings: `LLMKIT_CONFIG_DIR`, else the platform's usual one."""
    if given := os.environ.get("LLMKIT_CONFIG_DIR"):
        return Path(given).expanduser()
    from platformdirs import user_config_path

    return user_config_path("llmkit")


def load() -> dict[str, Any]:
    """Return what `config.yaml` says, {} when there is none.

    Raises:
        ConfigError: the file cannot be read or is not a mapping.
    """
    path = config_dir() / "config.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    from llmkit import _yaml

    try:
        return _yaml.load(text, str(path)).data
    except _yaml.YamlError as error:
        raise ConfigError(str(error)) from error


def default_choice() -> tuple[str | None, str | None]:
    """Return (model, preset) for calls that name neither; both None when nothing is set.

    Environment before file, and in each the model before the preset: `LLMKIT_MODEL`, `LLMKIT_PRESET`, then
    `model.default_model` and `model.default_preset` of `config.yaml`.
    """
    model, preset = os.environ.get("LLMKIT_MODEL"), os.environ.get("LLMKIT_PRESET")
    if not model and not preset:
        section = load().get("model") or {}
        if not isinstance(section, dict):
            raise ConfigError(
                f"{config_dir() / 'config.yaml'}: 'model' must be a mapping, as in model: {{default_model: …}}"
            )
        model, preset = section.get("default_model"), section.get("default_preset")
    return (model, None) if model else (None, preset or None)
