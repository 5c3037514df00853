"""A server for presets and `model.py` files: OpenAI's protocol, sessions, runs; `llmkit serve` starts it.

It needs the extra `serve`; nothing of it is imported before it is used.
"""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmkit.serve.admission import Limits
    from llmkit.serve.app import create_app
    from llmkit.serve.keys import Keys
    from llmkit.serve.preset import ServedPreset

__all__ = ["Keys", "Limits", "ServedPreset", "create_app"]
_MODULE_OF = {"Keys": "keys", "Limits": "admission", "ServedPreset": "preset", "create_app": "app"}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return resolve_name(f"{__name__}.{_MODULE_OF[name]}:{name}")
