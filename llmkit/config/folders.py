"""The user's folders: settings and data. Nothing is created."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path


def config_dir() -> Path:
    """Return the user's settings folder: `LLMKIT_CONFIG_DIR`, else the platform's usual one."""
    get = os.environ.get
    return _place("config", get("LLMKIT_CONFIG_DIR"), get("HOME"), get("XDG_CONFIG_HOME"))


def data_dir() -> Path:
    """Return the folder for llmkit's data: `LLMKIT_DATA_DIR`, else the platform's usual one."""
    get = os.environ.get
    return _place("data", get("LLMKIT_DATA_DIR"), get("HOME"), get("XDG_DATA_HOME"))


@lru_cache(maxsize=16)
def _place(kind: str, given: str | None, home: str | None, named: str | None) -> Path:
    """Return a folder; cached, so that the platform is asked once for each state of its variables."""
    if given:
        return Path(given).expanduser()
    if sys.platform == "linux" and not named and home is not None and home.startswith("/"):
        return Path(home, ".config" if kind == "config" else ".local/share", "llmkit")
    import platformdirs  # 7 ms, for the same answer

    return platformdirs.user_config_path("llmkit") if kind == "config" else platformdirs.user_data_path("llmkit")
