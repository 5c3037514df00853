"""A server for presets and `model.py` files: OpenAI's protocol, sessions, runs; `llmkit serve` starts it.

It needs the extra `serve`; nothing of it is imported before it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from fastapi import FastAPI

    from llmkit.serve.admission import Limits
    from llmkit.serve.keys import Keys
    from llmkit.serve.served import Served
    from llmkit.store import Store

__all__ = ["create_app"]


def create_app(
    served: Sequence[Served],
    *,
    store: Store,
    keys: Keys | None = None,
    limits: Limits | None = None,
    hosts: Collection[str] | None = None,
    is_open: bool = False,
) -> FastAPI:
    """Return the application that answers for *served*; see `llmkit.serve.app.create_app`."""
    from llmkit.serve import app

    return app.create_app(served, store=store, keys=keys, limits=limits, hosts=hosts, is_open=is_open)
