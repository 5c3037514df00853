"""The application: everything served, its access control and limits, and every error in one format."""

from __future__ import annotations

import contextlib
import logging
from functools import cache
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.routing import Router

from llmkit.serve.admission import AdmissionMiddleware, Limits
from llmkit.serve.auth import Authenticator
from llmkit.serve.context import caller, current
from llmkit.serve.errors import ServeError
from llmkit.serve.keys import Keys
from llmkit.serve.metrics import Metrics
from llmkit.serve.routes.conversations import conversation_routes
from llmkit.serve.routes.openai import openai_routes
from llmkit.serve.routes.operations import Operation, Operations, nowhere
from llmkit.serve.routes.page import page_routes
from llmkit.serve.routes.practicus import document_routes, token_routes
from llmkit.serve.routes.responses import JsonResponse
from llmkit.serve.routes.runs import run_routes
from llmkit.serve.routes.schema import openapi
from llmkit.serve.served import Models

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from llmkit.serve.served import Served
    from llmkit.store import Store

log = logging.getLogger("llmkit.serve")


def create_app(
    served: Sequence[Served],
    *,
    store: Store,
    keys: Keys | None = None,
    limits: Limits | None = None,
    hosts: Collection[str] | None = None,
    is_open: bool = False,
) -> Application:
    """Return the ASGI application that serves *served*.

    Args:
        served: presets and `model.py` files, each with its own name.
        store: the store of keys, budgets, runs and the ledger.
        keys: the keys of the callers; those of the store if None.
        limits: the capacity.
        hosts: host names allowed without a key, or None for all.
        is_open: whether callers need no key although the store has keys, or had some.

    Raises:
        ConfigError: two things have the same name.
    """
    metrics, limits, keys = Metrics(), limits or Limits(), keys or Keys(store)
    models = Models(served, metrics)
    operations: list[Operation] = [
        *openai_routes(models),
        *page_routes(store),
        *conversation_routes(models, store),
        *run_routes(models, store, limits),
        *token_routes(keys),
    ]
    auth = Authenticator(keys, hosts, is_open=is_open)
    return Application(operations, models, metrics, auth, limits)


class Application:
    """What is served, as an ASGI application.

    Attributes:
        status: "starting", "ok", "stuck" or "stopping".
        fault: why it did not start, or None.
    """

    def __init__(
        self, operations: list[Operation], models: Models, metrics: Metrics, auth: Authenticator, limits: Limits
    ) -> None:
        self.fault: Exception | None = None
        self._status = "starting"
        self._models, self._metrics = models, metrics
        self._router = Router(
            [*operations, *self._own(operations), *document_routes(models)],  # the last match all paths of one part
            redirect_slashes=False,
            default=nowhere,
            lifespan=self._lifespan,
        )
        self._admission = AdmissionMiddleware(self._router.app, auth, limits, metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or start and stop."""
        # its own addresses, also if it is mounted in another application
        scope["router"], scope["app_root_path"] = self._router, scope.get("root_path", "")
        await self._admission(scope, receive, send)

    @property
    def status(self) -> str:
        """Whether it answers."""
        is_stuck = self._status == "ok" and any(served.is_stuck for served in self._models.served)
        return "stuck" if is_stuck else self._status

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Any) -> AsyncIterator[None]:
        """Start everything, and stop what was started whatever happens."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                for served in self._models.served:
                    stack.push_async_callback(_stop, served)
                    await served.start()
            except Exception as error:
                self.fault = error
                raise
            self._status = "ok"
            try:
                yield
            finally:
                self._status = "stopping"

    def _own(self, others: list[Operation]) -> Operations:
        operations = Operations(tag="server")

        @operations.get("/health", statuses=(200, 503), refusals=(403,))
        async def health(_: Request) -> Response:
            """Return whether the server answers, and what it serves."""
            status = self.status
            health: dict[str, Any] = {"status": status}
            if (asking := current().caller) is not None:  # names only for those who may call them
                health["models"] = [served.name for served in self._models.served if asking.may_ask(served.name)]
            return JsonResponse(health, status_code=200 if status == "ok" else 503)

        @operations.get("/metrics", returns=("text/plain",))
        async def prometheus(_: Request) -> Response:
            """Return the metrics for Prometheus."""
            if caller().models is not None:
                why = "this key is for some models, and the metrics are of all"
                raise ServeError(403, why, code="model_not_allowed")
            return Response(self._metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

        made = cache(lambda: openapi([*operations, *others]))

        @operations.get("/openapi.json", tag="")
        async def document(_: Request) -> Response:
            caller()
            return JsonResponse(made())

        return operations


async def _stop(served: Served) -> None:
    """Stop one; its failure must not keep the others from being stopped."""
    try:
        await served.stop()
    except Exception:
        log.exception("%s did not stop as it should", served.name)
