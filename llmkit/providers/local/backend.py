"""Models on this machine: a llama.cpp server is started with the first request, and called like OpenAI's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llmkit.core.engine import Backend, ainvoke
from llmkit.core.types import Invoke
from llmkit.providers import local
from llmkit.providers.model_info import LOCAL
from llmkit.providers.prices import FREE
from llmkit.providers.routes import backend as routes

if TYPE_CHECKING:
    from llmkit.core.types import AsyncSource, Reply, Request, Source


class Local(Backend):
    """Sends to the server of a request's model."""

    def __init__(self) -> None:
        self._sender = routes.backend()

    def send(self, request: Request) -> Reply:
        """Send once, when the model is running."""
        return self._sender.send(_located(request))

    async def asend(self, request: Request) -> Reply:
        """Async version of `send`."""
        return await self._sender.asend(await ainvoke(Invoke(_located, (request,))))

    def open(self, request: Request) -> Source:
        """Open a stream, when the model is running."""
        return self._sender.open(_located(request))

    async def aopen(self, request: Request) -> AsyncSource:
        """Async version of `open`."""
        return await self._sender.aopen(await ainvoke(Invoke(_located, (request,))))


def backend() -> Local:
    """Return the provider of `local/` models."""
    return Local()


def _located(request: Request) -> Request:
    """Return the request with the address of its model's server, which is started if necessary."""
    name = request.model.removeprefix(LOCAL)
    server = local.serve(name)
    note = "the embedded model knows no tools; they were not used"
    return replace(
        request,
        model=f"openai/{server.model}",
        name=request.name or request.model,
        api_key=server.key,
        api_base=server.url,
        price=request.price or FREE,
        notes=(note,) if name == local.EMBEDDED and request.params.get("tools") else (),
    )
