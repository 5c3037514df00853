"""The protocols that llmkit writes and reads itself, a module each.

A dialect has `PATH`, with which an address ends; `CONVERSATION`, what a body calls the messages; `body`, which makes
the body of a request; `completion_of`, which reads a whole answer; and `Reader`, which reads the events of a stream.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from llmkit.core.completion import Chunk, Completion
    from llmkit.core.types import Request
    from llmkit.providers.routes.behaviour import Behaviour

OPENAI, ANTHROPIC, GEMINI = "openai", "anthropic", "gemini"
DIALECTS = (OPENAI, ANTHROPIC, GEMINI)


class UnfamiliarError(Exception):
    """A request or an answer is written in a way that is not known here."""

    def __str__(self) -> str:
        """Return why it cannot be read."""
        return "it is written in an unknown way"


class Reader(Protocol):
    """Reads the events of one stream."""

    def __init__(self, habits: Sequence[str]) -> None:
        """Begin with a stream of a provider with these habits."""

    def chunks(self, event: Any) -> Iterable[Chunk]:
        """Return what an event, as decoded JSON, adds to the answer.

        Raises:
            UnfamiliarError: it is written in an unknown way.
        """


class Dialect(Protocol):
    """What a module here has."""

    PATH: str
    CONVERSATION: str
    Reader: type[Reader]

    def body(self, behaviour: Behaviour, model: str, request: Request, *, stream: bool) -> dict[str, Any]:
        """Return the body of a request that a route covers.

        Raises:
            UnfamiliarError: something in it is not known to be written as LiteLLM would.
        """

    def completion_of(self, body: Any, habits: Sequence[str]) -> Completion:
        """Return a whole answer.

        Raises:
            UnfamiliarError: it is written in an unknown way.
        """


@cache
def dialect_of(name: str) -> Dialect:
    """Return a dialect by its name."""
    module: Any = import_module(f"{__name__}.{name}")
    dialect: Dialect = module
    return dialect
