"""Everything that sends. The part of a model's name before the slash chooses the sender: a module here, or `routes`.

To add a provider: write `providers/NAME.py`, or a package with `backend.py`, with a function `backend()` that returns a
`core.engine.Backend`. It is imported with the first request for a model called `NAME/…`.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from llmkit.core.engine import Backend
from llmkit.providers.names import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import ModuleType

    from llmkit.core.types import AsyncSource, Reply, Request, Source


class Providers(Backend):
    """Sends each request with its model's provider; a provider is imported with the first request for it.

    Args:
        own: return the providers that are used instead of the usual ones, by name.
    """

    def __init__(self, **own: Callable[[], Backend]) -> None:
        self._own = {name: cache(make) for name, make in own.items()}

    def _provider_of(self, model: str) -> Backend:
        name = model.partition("/")[0]
        return self._own[name]() if name in self._own else _provider(name)

    def load(self, model: str) -> None:
        """Load the provider of a model."""
        self._provider_of(model).load(model)

    def send(self, request: Request) -> Reply:
        """Send *request* once and return the reply."""
        return self._provider_of(request.model).send(request)

    def asend(self, request: Request) -> Coroutine[Any, Any, Reply]:
        """Async version of `send`."""
        return self._provider_of(request.model).asend(request)

    def open(self, request: Request) -> Source:
        """Send *request* once and return its open stream."""
        return self._provider_of(request.model).open(request)

    def aopen(self, request: Request) -> Coroutine[Any, Any, AsyncSource]:
        """Async version of `open`."""
        return self._provider_of(request.model).aopen(request)


@cache
def _provider(name: str) -> Backend:
    if (module := own(name)) is None:
        module = import_module(f"{__name__}.routes.backend")
    provider: Backend = module.backend()
    return provider


@cache
def own(name: str) -> ModuleType | None:
    """Return the module here that is the provider *name*, or None if there is none."""
    if name in PROVIDERS or not name.isidentifier():
        return None
    for path in (f"{__name__}.{name}.backend", f"{__name__}.{name}"):
        with suppress(ModuleNotFoundError):  # `find_spec` raises it for names below a module
            if find_spec(path) is not None and hasattr(module := import_module(path), "backend"):
                return module
    return None
