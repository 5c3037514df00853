"""Everything that sends. A provider is one module or package here; it registers the prefix of its models.

To add one: write `providers/NAME.py` with a function `backend()` that returns a `core.engine.Backend`, and name it
below. Models without a registered prefix go through LiteLLM.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from llmkit.core.engine import Backend

if TYPE_CHECKING:
    from llmkit.core.types import AsyncSource, Reply, Request, Source

REGISTERED = {
    "aixplain/": "llmkit.providers.aixplain.backend",
    "local/": "llmkit.providers.local.backend",
    "practicus/": "llmkit.providers.practicus.backend",
}
LITELLM = "llmkit.providers.litellm.backend"


class Providers(Backend):
    """Hands each request to the provider of its model; a provider is imported with the first request for it."""

    def send(self, request: Request) -> Reply:
        """Send *request* once and return the answer."""
        return _provider_of(request).send(request)

    async def asend(self, request: Request) -> Reply:
        """Send *request* once and return the answer, awaited."""
        return await _provider_of(request).asend(request)

    def open(self, request: Request) -> Source:
        """Send *request* once and return its open stream."""
        return _provider_of(request).open(request)

    async def aopen(self, request: Request) -> AsyncSource:
        """Send *request* once and return its open stream, awaited."""
        return await _provider_of(request).aopen(request)


def _provider_of(request: Request) -> Backend:
    module = next((module for prefix, module in REGISTERED.items() if request.model.startswith(prefix)), LITELLM)
    return _provider(module)


@cache
def _provider(module: str) -> Backend:
    provider: Backend = import_module(module).backend()
    return provider
