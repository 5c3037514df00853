"""Models on this machine: a llama.cpp server is found or started with a request, and called like OpenAI's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TextIO, cast

from llmkit.core.engine import Backend, ainvoke
from llmkit.core.types import Invoke
from llmkit.providers import local
from llmkit.providers.local.reading import LONG, Reading, ReadingSource, tokens_in
from llmkit.providers.model_info import LOCAL
from llmkit.providers.prices import FREE
from llmkit.providers.routes import backend as routes

if TYPE_CHECKING:
    from llmkit.core.types import AsyncSource, Reply, Request, Source
    from llmkit.providers.local.address import LocalServer


class Local(Backend):
    """Sends to the server of a request's model.

    Args:
        keep_s: how long a server is left for other processes, as `local.serve` has it; by default not at all.
        terminal: where to show that a long question is being read; by default nowhere.
    """

    def __init__(self, keep_s: float | None = None, terminal: TextIO | None = None) -> None:
        self._sender = routes.backend()
        self._keep_s, self._terminal = keep_s, terminal

    def send(self, request: Request) -> Reply:
        """Send once, when the model is running."""
        server = self._server(request)
        with Reading(request, self._terminal):
            return self._sender.send(_located(request, server))

    async def asend(self, request: Request) -> Reply:
        """Async version of `send`."""
        server = await ainvoke(Invoke(self._server, (request,)))
        return await self._sender.asend(_located(request, server))

    def open(self, request: Request) -> Source:
        """Open a stream, when the model is running."""
        source = self._sender.open(_told_of_progress(_located(request, self._server(request))))
        return cast("Source", ReadingSource(source, Reading(request, self._terminal)))

    async def aopen(self, request: Request) -> AsyncSource:
        """Async version of `open`."""
        server = await ainvoke(Invoke(self._server, (request,)))
        return await self._sender.aopen(_told_of_progress(_located(request, server)))

    def _server(self, request: Request) -> LocalServer:
        return local.serve(request.model.removeprefix(LOCAL), self._keep_s)


def backend() -> Local:
    """Return the provider of `local/` models."""
    return Local()


def _located(request: Request, server: LocalServer) -> Request:
    """Return the request with the address of its model's server."""
    embedded = request.model == LOCAL + local.EMBEDDED
    note = "the embedded model knows no tools; they were not used"
    return replace(
        request,
        model=f"openai/{server.model}",
        name=request.name or request.model,
        api_key=server.key,
        api_base=server.url,
        price=request.price or FREE,
        notes=(note,) if embedded and request.params.get("tools") else (),
    )


def _told_of_progress(request: Request) -> Request:
    """Return the request with an order to tell what is read of a long question: only so a left stream is noticed."""
    if tokens_in(request) <= LONG:
        return request
    more = {"return_progress": True, **(request.params.get("extra_body") or {})}
    return replace(request, params={**request.params, "extra_body": more})
