"""Fakes and checks for tests of programs that use llmkit: no key, no network beyond loopback, no waiting.

    from llmkit.testing import ScriptedBackend, ScriptedServer, Status, assert_cost

    backend = ScriptedBackend(RateLimitError("slow down", retry_after_s=7), "hi")
    assert llmkit.ask("hello", model="openai/gpt-4o", backend=backend).text == "hi"
    assert backend.sleeps == [7]

    with ScriptedServer(Status(503), "hi") as server, assert_cost(max_usd=0.01, max_calls=2):
        llmkit.ask("hello", model="openai/gpt-4o", api_base=f"{server.url}/v1", api_key="none")

pytest finds the fixtures `scripted_backend`, `scripted_server` and `assert_llm_cost` by itself: see `plugin`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmkit.testing.backend import Entry, ScriptedBackend, ScriptedSource, reply
    from llmkit.testing.cost import Spent, assert_cost
    from llmkit.testing.server import Recorded, ScriptedServer
    from llmkit.testing.wire import Answer, Drop, Raw, Status

__all__ = [
    "Answer",
    "Drop",
    "Entry",
    "Raw",
    "Recorded",
    "ScriptedBackend",
    "ScriptedServer",
    "ScriptedSource",
    "Spent",
    "Status",
    "assert_cost",
    "reply",
]
_HOMES = {
    "backend": ("Entry", "ScriptedBackend", "ScriptedSource", "reply"),
    "cost": ("Spent", "assert_cost"),
    "server": ("Recorded", "ScriptedServer"),
    "wire": ("Answer", "Drop", "Raw", "Status"),
}


def __getattr__(name: str) -> object:
    """Import a name on first use: pytest imports this package in every run, for its fixtures."""
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value
