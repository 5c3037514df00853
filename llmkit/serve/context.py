"""The current request and its caller, for every module that answers."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from llmkit.serve.errors import ServeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The caller of a request.

    Attributes:
        name: of the key, or "" if the server needs none.
        budget: the name of the key's budget, or None.
        models: the names it may call, or None for all.
        id: distinguishes the key from earlier ones with its name, or "" if there is no key.
        since: when the key was created, in seconds since 1970.
    """

    name: str = ""
    budget: str | None = None
    models: frozenset[str] | None = None
    id: str = field(default="", compare=False)
    since: float = field(default=0.0, compare=False)

    @property
    def owner(self) -> str:
        """Whose its conversations are in the store, or "" without a key."""
        return f"key:{self.id}" if self.id else ""

    def may_ask(self, model: str) -> bool:
        """Return whether the key is for this model."""
        return self.models is None or model in self.models


@dataclass(slots=True)
class RequestContext:
    """One request.

    Attributes:
        id: the client's, or a new one; sent with the answer and logged.
        caller: the caller, or None for somebody who may see nothing but `/` and `/health`.
        data: the body as parsed JSON, or None if there is none, and for a form.
        route: the path of the operation, with the names of its parameters, or "" until it is known.
        model: the name of the model, or "" until it is known to be served.
        session: the id of the conversation that is answered, or "".
        headers: headers of the answer, also of an error.
        gone: whether the client has disconnected, or has its answer.
    """

    id: str
    caller: Caller | None = None
    data: Any = None
    route: str = ""
    model: str = ""
    session: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    gone: bool = False


_context: ContextVar[RequestContext | None] = ContextVar("llmkit_request", default=None)


def enter(context: RequestContext) -> None:
    """Make *context* the one that `current` returns from now on."""
    _context.set(context)


def current() -> RequestContext:
    """Return the current request, or an empty one outside of requests."""
    return _context.get() or RequestContext("")


def caller() -> Caller:
    """Return the caller.

    Raises:
        ServeError: nobody was admitted.
    """
    context = current()
    if context.caller is None:
        raise ServeError(401, "no key: send it as `Authorization: Bearer …`", code="missing_key")
    return context.caller
