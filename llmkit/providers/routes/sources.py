"""The parts of LiteLLM that a route came from, by their hashes."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PRICES = "model_prices_and_context_window_backup.json"
_REGISTRY = "llms/openai_like/providers.json"
_COMMON = (
    "llms/base_llm/chat/transformation.py",
    "llms/openai/chat/gpt_transformation.py",
    "llms/openai/chat/gpt_5_transformation.py",
    "llms/openai/chat/o_series_transformation.py",
    "llms/openai_like/chat",
    "llms/openai_like/dynamic_config.py",
    "litellm_core_utils/get_llm_provider_logic.py",
)
_MORE = {
    "anthropic": ("litellm_core_utils/prompt_templates", "types/llms/anthropic.py"),
    "gemini": (
        "litellm_core_utils/prompt_templates",
        "types/llms/vertex_ai.py",
        "llms/vertex_ai/gemini",
        "llms/vertex_ai/common_utils.py",
        "llms/vertex_ai/vertex_llm_base.py",
    ),
}
"""What else writes the requests of a format that is not OpenAI's."""
_FOLDERS = {"azure": "llms/azure", "custom_openai": "llms/openai", "openai": "llms/openai"}


def of_provider(package: Path, name: str) -> dict[str, str]:
    """Return a hash for each part of LiteLLM that decides what is sent to a provider."""
    parts = [*_COMMON, *_MORE.get(name, ()), _FOLDERS.get(name, f"llms/{name.replace('-', '_')}")]
    found = {part: _hash_of(package / part) for part in dict.fromkeys(parts)}
    entry = _json(package / _REGISTRY).get(name)
    return found if entry is None else {**found, _REGISTRY: _hash(json.dumps(entry, sort_keys=True).encode())}


def of_entry(package: Path, model: str) -> str:
    """Return a hash of a model's entry in LiteLLM's map, or "" if it has none."""
    prices = _json(package / PRICES)
    entry = prices.get(model) or prices.get(model.partition("/")[2])
    return "" if entry is None else _hash(json.dumps(entry, sort_keys=True).encode())[:12]


def _hash_of(path: Path) -> str:
    """Return the hash of a file, or of all Python files of a folder; "" if there is none."""
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path] if path.is_file() else []
    return _hash(b"".join(file.read_bytes() for file in files))[:16] if files else ""


def _hash(data: bytes) -> str:
    import hashlib  # 3 ms, and nearly never wanted

    return hashlib.sha256(data).hexdigest()


@lru_cache(maxsize=8)
def _json(path: Path) -> Mapping[str, Any]:
    try:
        data: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data
