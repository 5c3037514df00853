"""`Visit`: one request on its way through the server; every module that answers knows it by `current`."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmkit.serve._errors import ServeError

if TYPE_CHECKING:
    from llmkit.serve.served import Caller


@dataclass(slots=True)
class Visit:
    """One request.

    Attributes:
        id: as the client gave it, or a new one; on the answer and in the log.
        caller: who asks; None for somebody who may see nothing but `/` and `/health`.
        model: the name of what is asked, "" until it is known to be served.
        gone: whether the client has gone away, or has its answer.
    """

    id: str
    caller: Caller | None = None
    model: str = ""
    gone: bool = False


_visit: ContextVar[Visit | None] = ContextVar("llmkit_visit", default=None)


def begin(visit: Visit) -> None:
    """Let what follows in this context belong to *visit*."""
    _visit.set(visit)


def current() -> Visit:
    """Return the request that this context belongs to."""
    return _visit.get() or Visit("")


def caller_of(visit: Visit) -> Caller:
    """Return who asks.

    Raises:
        ServeError: the gate let nobody in.
    """
    if visit.caller is None:
        raise ServeError(401, "no key: send it as `Authorization: Bearer …`", code="missing_key")
    return visit.caller
