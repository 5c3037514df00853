"""The two transports of this process: all threads share the sync one, all event loops the async one."""

from __future__ import annotations

import atexit
import os
from functools import cache
from typing import TYPE_CHECKING

from llmkit.providers.transport.blocking import BlockingTransport

if TYPE_CHECKING:
    from llmkit.providers.transport.awaited import AwaitedTransport


def verify() -> bool | str:
    """Return how certificates are checked: as `SSL_VERIFY` says, which LiteLLM has too."""
    said = os.environ.get("SSL_VERIFY", "true")
    return {"false": False, "true": True}.get(said.lower(), said)


@cache
def blocking() -> BlockingTransport:
    """Return the transport of sync calls; its idle connections are closed as Python exits."""
    transport = BlockingTransport(verify())
    atexit.register(transport.close)
    return transport


@cache
def awaited() -> AwaitedTransport:
    """Return the transport of async calls."""
    from llmkit.providers.transport.awaited import AwaitedTransport  # imports asyncio

    return AwaitedTransport(verify())
