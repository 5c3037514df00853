"""The backend of all models that no other provider has: their routes, and LiteLLM for what no route covers."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmkit.providers.litellm import changes
from llmkit.providers.routes.direct import Direct
from llmkit.providers.routes.table import known_as, table
from llmkit.providers.transport import shared

if TYPE_CHECKING:
    from llmkit.core.engine import Backend
    from llmkit.core.types import Request
    from llmkit.providers.routes.route import Route


@cache
def backend() -> Direct:
    """Return the backend."""
    return Direct(_route_of, _litellm, (shared.blocking, shared.awaited), _handed_on)


@cache
def later() -> Any:
    """Return what learns routes after calls."""
    module = import_module("llmkit.providers.routes.learning.later")  # imports LiteLLM's side
    return module.Later(table())


def wait_for_learning(seconds: float) -> None:
    """Wait until what was handed to LiteLLM is learned, if anything was, but no longer than that."""
    if later.cache_info().currsize:
        later().wait(seconds)


def _route_of(request: Request) -> Route | None:
    """Return the route for a request, or None if there is none, or the program has changed LiteLLM."""
    route = table().route_of(request.model, _like(request))
    return None if route is None or changes.are_there() else route


def _handed_on(request: Request) -> None:
    if request.kind == "chat" and table().is_on:
        later().want("/".join(known_as(request.model, _like(request))))


def _like(request: Request) -> str:
    """Return the name of the model behind a deployment, or ""."""
    like = request.params.get("base_model")
    return like if isinstance(like, str) else ""


@cache
def _litellm() -> Backend:
    module = import_module("llmkit.providers.litellm.backend")  # imports LiteLLM, in seconds
    backend: Backend = module.backend()
    return backend
