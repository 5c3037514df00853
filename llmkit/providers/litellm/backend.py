"""Executes `Send` and `Open` through LiteLLM, once each.

It knows nothing about retries, budgets or presets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmkit.core.engine import Backend
from llmkit.providers.litellm.attempt import Attempt
from llmkit.providers.litellm.loops import main_loop, off_loop, unless_begun
from llmkit.providers.litellm.sdk import connections, load, warm_up
from llmkit.providers.litellm.sources import AwaitedSource, BlockingSource

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmkit.core.types import AsyncSource, Reply, Request, Source
    from llmkit.providers.litellm.connections import ClientPools


class LiteLLM(Backend):
    """The backend of real calls.

    Args:
        pools: returns the connections; usually those that the whole process shares.
    """

    def __init__(self, pools: Callable[[], ClientPools] = connections) -> None:
        self._pools = pools

    def send(self, request: Request) -> Reply:
        """Send once through `litellm.completion`, or LiteLLM's function for the kind of request."""
        main_loop.hold()
        attempt = Attempt(request)
        with attempt.errors():
            with attempt.kept():
                attempt.raw = attempt.function()(**attempt.arguments(self._pools().blocking))
            return attempt.answer(attempt.raw)

    async def asend(self, request: Request) -> Reply:
        """Async version of `send`."""
        await off_loop(warm_up)
        attempt = Attempt(request)
        with attempt.errors():
            with attempt.kept():
                sending = attempt.function("a")(**attempt.arguments(self._pools().awaited))
                attempt.raw = await unless_begun(sending, attempt.has_begun)
            return attempt.answer(attempt.raw)

    def open(self, request: Request) -> Source:
        """Open a stream through `litellm.completion`."""
        main_loop.hold()
        attempt = Attempt(request)
        with attempt.errors():
            raw = load().completion(**attempt.arguments(self._pools().blocking, stream=True))
            raw.fetch_sync_stream()  # to some providers LiteLLM sends only when the first piece is wanted
            return BlockingSource(attempt, raw)

    async def aopen(self, request: Request) -> AsyncSource:
        """Async version of `open`."""
        await off_loop(warm_up)
        attempt = Attempt(request)
        with attempt.errors():
            sending = _opened(load().acompletion(**attempt.arguments(self._pools().awaited, stream=True)))
            return AwaitedSource(attempt, await unless_begun(sending, attempt.has_begun))


async def _opened(sending: Any) -> Any:
    """Return LiteLLM's stream once it is sent."""
    raw = await sending
    await raw.fetch_stream()
    return raw


def backend() -> LiteLLM:
    """Return the provider of all models that no other provider has."""
    return LiteLLM()
