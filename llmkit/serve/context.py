"""The request that is being answered and who sent it, for every module that answers."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field

from llmkit.serve.errors import ServeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks.

    Attributes:
        name: of the key, or "" if the server asks for none.
        budget: the name of the key's budget, None for none.
        models: the names it may ask, None for all.
        id: tells the key from others that had its name before, or "" if there is none.
        since: when the key was made, seconds since 1970.
    """

    name: str = ""
    budget: str | None = None
    models: frozenset[str] | None = None
    id: str = field(default="", compare=False)
    since: float = field(default=0.0, compare=False)

    def may_ask(self, model: str) -> bool:
        """Return whether the key is for this model."""
        return self.models is None or model in self.models


@dataclass(slots=True)
class RequestContext:
    """One request.

    Attributes:
        id: as the client gave it, or a new one; on the answer and in the log.
        caller: who asks; None for somebody who may see nothing but `/` and `/health`.
        model: the name of what is asked, "" until it is known to be served.
        headers: that go with the answer, whether it is one or an error.
        gone: whether the client has gone away, or has its answer.
    """

    id: str
    caller: Caller | None = None
    model: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    gone: bool = False


_context: ContextVar[RequestContext | None] = ContextVar("llmkit_request", default=None)


def enter(context: RequestContext) -> None:
    """Make *context* the one that `current` returns from here on."""
    _context.set(context)


def current() -> RequestContext:
    """Return the request that is being answered; an empty one outside of requests."""
    return _context.get() or RequestContext("")


def caller() -> Caller:
    """Return who asks.

    Raises:
        ServeError: nobody was let in.
    """
    context = current()
    if context.caller is None:
        raise ServeError(401, "no key: send it as `Authorization: Bearer …`", code="missing_key")
    return context.caller
