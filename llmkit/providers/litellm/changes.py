"""Whether the program has changed LiteLLM: then its calls go through LiteLLM, which may do what nobody else knows.

Changed means that a public attribute of `litellm` is another than right after llmkit imported it. Where the program
imported it first, its attributes are compared with those that a fresh import has, as written down with the routes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RECORDED = Path(__file__).parent / "attributes.json"
_SET_HERE = frozenset({"suppress_debug_info", "disable_hf_tokenizer_download", "disable_streaming_logging"})
_SMALL = 8
_KEPT = frozenset({"PATH", "HOME", "LANG", "PYTHONPATH", "VIRTUAL_ENV"})


class _Snapshot:
    """LiteLLM's public attributes at one moment: the objects, and the contents of short lists and mappings."""

    def __init__(self, litellm: Any) -> None:
        self._litellm = litellm
        public = {name: value for name, value in vars(litellm).items() if not name.startswith("_")}
        self._pick: Callable[[Any], Any] = itemgetter(*public)
        self._values = self._pick(vars(litellm))
        containers = [value for value in public.values() if isinstance(value, list | dict | set)]
        self._short = [each for each in containers if len(each) <= _SMALL]
        self._contents = [each.copy() for each in self._short]
        self._long = [each for each in containers if len(each) > _SMALL]
        self._lengths = list(map(len, self._long))

    def is_current(self) -> bool:
        """Return whether nothing has changed."""
        try:
            now = self._pick(vars(self._litellm))
        except KeyError:
            return False
        same: bool = now == self._values
        if not same or list(map(len, self._long)) != self._lengths:
            return False
        return self._short == self._contents or list(map(_without_its_own, self._short)) == self._contents


def _without_its_own(container: Any) -> Any:
    """Return a list of callbacks without the one that LiteLLM adds by itself, with its first call of Gemini."""
    return [each for each in container if each != "cache"] if isinstance(container, list) else container


_snapshots: list[_Snapshot] = []


def note_import(litellm: Any, *, fresh: bool) -> None:
    """Remember LiteLLM's attributes right after its import; one that the program made is compared with the record."""
    if fresh or as_recorded(litellm):
        _snapshots.insert(0, _Snapshot(litellm))


def are_there() -> bool:
    """Return whether the program has changed LiteLLM."""
    litellm = sys.modules.get("litellm")
    if litellm is None:
        return False
    if not _snapshots:
        note_import(litellm, fresh=False)
    return not (_snapshots and _snapshots[0].is_current())


def as_recorded(litellm: Any) -> bool:
    """Return whether LiteLLM's attributes are those of a fresh import."""
    if getattr(litellm.__spec__, "_initializing", False):  # another thread is importing it
        return False
    now = description(litellm)
    return all(now.get(name, was) == was for name, was in recorded().items())


@cache
def recorded() -> Mapping[str, str]:
    """Return what a fresh import of LiteLLM has, by the names of its attributes."""
    try:
        known: dict[str, str] = json.loads(RECORDED.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"completion": "unknown"}
    return known


def record() -> Mapping[str, str]:
    """Return what a fresh import of LiteLLM has, from a process of its own that does as programs do."""
    code = f"import json, litellm; from {__name__} import description; print(json.dumps(description(litellm)))"
    around = {name: value for name, value in os.environ.items() if name in _KEPT}
    around |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True"}
    done = subprocess.run([sys.executable, "-c", code], env=around, capture_output=True, text=True, check=True)
    known: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return known


def description(litellm: Any) -> dict[str, str]:
    """Return a short description of each public attribute."""
    return {
        name: _described(value)
        for name, value in vars(litellm).items()
        if not name.startswith("_") and name not in _SET_HERE
    }


def _described(value: Any) -> str:
    if value is None or isinstance(value, bool | int | float | str):
        return repr(value)[:80]
    if isinstance(value, list | dict | set | tuple):
        return f"{type(value).__name__} of {len(value)}"
    where, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    return f"{where}.{name}" if where and name else type(value).__name__
