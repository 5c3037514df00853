"""The application: what is served, who may ask it, how much at a time, and every error in one shape."""

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
from llmkit.serve._errors import ServeError
from llmkit.serve.admission import Gate, Limits
from llmkit.serve.auth import Entry
from llmkit.serve.context import caller_of, current
from llmkit.serve.errors import Refusal, of_status, refusal, validation
from llmkit.serve.keys import Keys
from llmkit.serve.metrics import Counted, Metrics
from llmkit.serve.routes.openai import ERRORS, Documented, openai_routes
from llmkit.serve.routes.openai_responses import JsonAnswer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from llmkit.serve.served import Caller, Served
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
) -> FastAPI:
    """Return the application that answers for *served*.

    Args:
        served: presets and `model.py` files, each under a name of its own.
        store: where keys, budgets, runs and the ledger are.
        keys: who may ask; those of the store where it is None.
        limits: how much is taken on.
        hosts: the names under which it may be asked without a key, None for all.
        is_open: whether it may be asked without a key although the store has keys, or had.
    """
    metrics, limits, keys = Metrics(), limits or Limits(), keys or Keys(store)
    house = _House([Counted(each, metrics) for each in served])
    app = FastAPI(
        title="llmkit",
        version=llmkit.__version__,
        summary="Presets and models behind OpenAI's protocol.",
        lifespan=house.lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.fault = None
    app.add_middleware(Gate, entry=Entry(keys, hosts, is_open=is_open), limits=limits, metrics=metrics)
    app.add_exception_handler(ServeError, _told)
    app.add_exception_handler(LlmkitError, _told)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _status)
    _own_routes(app, house, metrics)
    app.include_router(openai_routes(house.served, house.allowed))
    _others(app, house, store, keys, limits)
    app.openapi = _document(app)  # type: ignore[method-assign]
    return app


class _House:
    """Everything that is served."""

    def __init__(self, served: Sequence[Counted]) -> None:
        self.served = served
        self.state = "starting"
        self._by_name = {each.name: each for each in served}
        if len(self._by_name) != len(served):
            names = ", ".join(each.name for each in served)
            raise llmkit.ConfigError(f"two things cannot be served under one name: {names}")

    @contextlib.asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Start everything, and stop what was started whatever happens; a start that fails is in `app.state.fault`."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                for each in self.served:
                    stack.push_async_callback(_stopped, each)
                    await each.start()
            except Exception as error:
                app.state.fault = error
                raise
            self.state = "ok"
            try:
                yield
            finally:
                self.state = "stopping"

    def allowed(self, name: str) -> tuple[Served, Caller]:
        """Return what has the name, and who asks it.

        Raises:
            ServeError: nothing has it, or the key is not for it.
        """
        caller, found = caller_of(current()), self._by_name.get(name)
        if found is None:
            why = f"there is no model {name[:100]!r}; see /v1/models"
            raise ServeError(404, why, code="model_not_found", param="model")
        if not caller.may_ask(name):
            raise ServeError(403, f"this key may not ask {name!r}", code="model_not_allowed", param="model")
        current().model = found.name
        return found, caller

    def health(self) -> dict[str, Any]:
        """Return what is told of the server; names only to those who may ask."""
        stuck = [each.name for each in self.served if getattr(each, "is_stuck", False)]
        state = {"status": "stuck" if stuck and self.state == "ok" else self.state}
        caller = current().caller
        names = [each.name for each in self.served if caller is not None and caller.may_ask(each.name)]
        return state if caller is None else {**state, "models": names}


def _own_routes(app: FastAPI, house: _House, metrics: Metrics) -> None:
    starting: Documented = {503: {"description": "It starts or stops."}, 200: {"description": "It answers."}}

    @app.get("/health", responses=starting)
    async def health() -> Response:
        """Tell whether the server answers, and what it serves."""
        found = house.health()
        return JsonAnswer(found, status_code=200 if found["status"] == "ok" else 503)

    @app.get("/metrics", responses={200: {"description": "Prometheus' format.", "content": {"text/plain": {}}}})
    async def measured() -> Response:
        """Tell Prometheus how much is asked."""
        if caller_of(current()).models is not None:
            raise ServeError(403, "this key is for some models, and here all are told of", code="model_not_allowed")
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _others(app: FastAPI, house: _House, store: Store, keys: Keys, limits: Limits) -> None:
    """Add the other protocols; the document's takes every first word, and comes last."""
    from llmkit.serve.routes.page import page_routes
    from llmkit.serve.routes.practicus import document_routes, token_routes
    from llmkit.serve.routes.runs import run_routes

    app.include_router(page_routes(store), responses=ERRORS)
    app.include_router(run_routes(house.allowed, store, limits), responses=ERRORS)
    app.include_router(token_routes(keys), responses=ERRORS)
    app.include_router(document_routes(house.allowed), responses=ERRORS)


async def _stopped(served: Counted) -> None:
    """Stop one; what it fails with must not keep the others from being stopped."""
    try:
        await served.stop()
    except Exception:
        log.exception("%s did not stop as it should", served.name)


def _answer(refused: Refusal, headers: Mapping[str, str] | None = None) -> Response:
    given = {**refused.headers, **(headers or {})}
    return Response(refused.body(), refused.status, given, media_type="application/json")


async def _told(_: Request, error: Exception) -> Response:
    return _answer(refusal(error, current().id))


async def _invalid(_: Request, error: Exception) -> Response:
    return _answer(validation(error.errors() if isinstance(error, RequestValidationError) else ()))


async def _status(request: Request, error: Exception) -> Response:
    status, headers = 500, None
    if isinstance(error, HTTPException):
        status, headers = error.status_code, error.headers
    return _answer(of_status(status, request.url.path), headers)


def _document(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """Return what makes the OpenAPI document: FastAPI's, without the 422 that this server never answers with."""
    plain = app.openapi

    def made() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = plain()
            for path in found["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                found.get("components", {}).get("schemas", {}).pop(name, None)
        return app.openapi_schema or {}

    return made
