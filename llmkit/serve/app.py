"""The application: everything served, its access control and limits, and every error in one format."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

import llmkit
from llmkit.errors import LlmkitError
from llmkit.serve.admission import AdmissionMiddleware, Limits
from llmkit.serve.auth import Authenticator
from llmkit.serve.context import caller, current
from llmkit.serve.errors import ServeError, invalid_fields, no_route, to_serve_error
from llmkit.serve.keys import Keys
from llmkit.serve.metrics import Metrics
from llmkit.serve.routes.conversations import conversation_routes
from llmkit.serve.routes.openai import ERRORS, Documented, openai_routes
from llmkit.serve.routes.page import page_routes
from llmkit.serve.routes.practicus import document_routes, token_routes
from llmkit.serve.routes.responses import JsonResponse
from llmkit.serve.routes.runs import run_routes
from llmkit.serve.served import Models

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence

    from llmkit.serve.served import Served
    from llmkit.store import Store

log = logging.getLogger("llmkit.serve")
_HEALTH: Documented = {503: {"description": "It starts or stops."}, 200: {"description": "It answers."}}
_METRICS: Documented = {200: {"description": "Prometheus' format.", "content": {"text/plain": {}}}}


def create_app(
    served: Sequence[Served],
    *,
    store: Store,
    keys: Keys | None = None,
    limits: Limits | None = None,
    hosts: Collection[str] | None = None,
    is_open: bool = False,
) -> FastAPI:
    """Return the application that serves *served*.

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
    app = FastAPI(
        title="llmkit",
        version=llmkit.__version__,
        summary="Presets and models behind OpenAI's protocol.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.models, app.state.fault, app.state.status = models, None, "starting"
    auth = Authenticator(keys, hosts, is_open=is_open)
    app.add_middleware(AdmissionMiddleware, auth=auth, limits=limits, metrics=metrics)
    for kind in (ServeError, LlmkitError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _refused)
    _add_own_routes(app, models, metrics)
    app.include_router(openai_routes(models))
    app.include_router(page_routes(store), responses=ERRORS)
    app.include_router(conversation_routes(models, store), responses=ERRORS)
    app.include_router(run_routes(models, store, limits), responses=ERRORS)
    app.include_router(token_routes(keys), responses=ERRORS)
    app.include_router(document_routes(models), responses=ERRORS)  # matches every path of one part, so it comes last
    app.openapi = _openapi(app)  # type: ignore[method-assign]
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Start everything, and stop what was started whatever happens; a failed start is in `app.state.fault`."""
    async with contextlib.AsyncExitStack() as stack:
        try:
            for served in app.state.models.served:
                stack.push_async_callback(_stop, served)
                await served.start()
        except Exception as error:
            app.state.fault = error
            raise
        app.state.status = "ok"
        try:
            yield
        finally:
            app.state.status = "stopping"


async def _stop(served: Served) -> None:
    """Stop one; its failure must not keep the others from being stopped."""
    try:
        await served.stop()
    except Exception:
        log.exception("%s did not stop as it should", served.name)


def _add_own_routes(app: FastAPI, models: Models, metrics: Metrics) -> None:
    @app.get("/health", responses=_HEALTH)
    async def health() -> Response:
        """Return whether the server answers, and what it serves."""
        status = app.state.status
        if status == "ok" and any(served.is_stuck for served in models.served):
            status = "stuck"
        health: dict[str, Any] = {"status": status}
        if (asking := current().caller) is not None:  # names only for those who may call them
            health["models"] = [served.name for served in models.served if asking.may_ask(served.name)]
        return JsonResponse(health, status_code=200 if status == "ok" else 503)

    @app.get("/metrics", responses=_METRICS)
    async def prometheus() -> Response:
        """Return the metrics for Prometheus."""
        if caller().models is not None:
            raise ServeError(403, "this key is for some models, and the metrics are of all", code="model_not_allowed")
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _refused(request: Request, error: Exception) -> Response:
    """Answer with an error, whichever part of the server raised it."""
    if isinstance(error, RequestValidationError):
        return invalid_fields(error.errors()).response()
    if isinstance(error, HTTPException):
        response = no_route(error.status_code, request.scope["path"]).response()
        response.headers.update(error.headers or {})
        return response
    return to_serve_error(error, current().id).response()


def _openapi(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """Return a function that makes the OpenAPI document: FastAPI's, without the 422 that this server never sends."""
    original = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = original()
            for path in schema["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                schema.get("components", {}).get("schemas", {}).pop(name, None)
        return app.openapi_schema or {}

    return document
