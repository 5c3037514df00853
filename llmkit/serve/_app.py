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
from llmkit.serve._gate import Gate, Limits
from llmkit.serve._keys import Keys
from llmkit.serve._metrics import Counted, Metrics, current
from llmkit.serve._openai import ERRORS, Documented, openai_routes
from llmkit.serve._refusals import Refusal, of_status, refusal, validation
from llmkit.serve._served import Caller
from llmkit.serve._wire import JsonAnswer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence

    from llmkit.serve._served import Served
    from llmkit.store import Store

log = logging.getLogger("llmkit.serve")
_NOBODY = Caller()
_ASK = {"www-authenticate": "Bearer"}


def create_app(
    served: Sequence[Served],
    *,
    store: Store,
    keys: Keys | None = None,
    limits: Limits | None = None,
    hosts: Collection[str] | None = None,
) -> FastAPI:
    """Return the application that answers for *served*.

    Args:
        served: presets and `model.py` files, each under a name of its own.
        store: where keys, budgets, runs and the ledger are.
        keys: who may ask; those of the store where it is None.
        limits: how much is taken on.
        hosts: the names under which it may be asked without a key, None for all. A web page that has its own name
            point to this machine asks under that name.
    """
    metrics = Metrics()
    house = _House([Counted(each, metrics) for each in served], keys or Keys(store), hosts)
    app = FastAPI(
        title="llmkit",
        version=llmkit.__version__,
        summary="Presets and models behind OpenAI's protocol.",
        lifespan=house.lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(Gate, limits=limits or Limits(), metrics=metrics)
    app.add_exception_handler(ServeError, _told)
    app.add_exception_handler(LlmkitError, _told)
    app.add_exception_handler(UnicodeEncodeError, _no_text)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _status)
    _own_routes(app, house, metrics)
    app.include_router(openai_routes(house.served, house.find, house.guard))
    _others(app, house, store)
    app.openapi = _document(app)  # type: ignore[method-assign]
    return app


class _House:
    """Everything that is served, and who may come in."""

    def __init__(self, served: Sequence[Counted], keys: Keys, hosts: Collection[str] | None) -> None:
        self.served = served
        self.keys = keys
        self._hosts = hosts
        self.state = "starting"
        self._by_name = {each.name: each for each in served}
        if len(self._by_name) != len(served):
            names = ", ".join(each.name for each in served)
            raise llmkit.ConfigError(f"two things cannot be served under one name: {names}")

    @contextlib.asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Start everything, and stop what was started whatever happens."""
        async with contextlib.AsyncExitStack() as stack:
            for each in self.served:
                stack.push_async_callback(_stopped, each)
                await each.start()
            self.state = "ok"
            try:
                yield
            finally:
                self.state = "stopping"

    def find(self, name: str) -> Served:
        """Return what has the name.

        Raises:
            ServeError: nothing has it.
        """
        found = self._by_name.get(name)
        if found is None:
            told = f"there is no model {name[:100]!r}; see /v1/models"
            raise ServeError(404, told, code="model_not_found", param="model")
        current().model = found.name
        return found

    async def guard(self, request: Request) -> Caller:
        """Return whose the key of a request is; where the store has no keys, everybody may ask.

        Raises:
            ServeError: there is no key, or it is not known.
        """
        if not self.keys.any():
            if self._hosts is not None and request.url.hostname not in self._hosts:
                told = "without keys this server answers under the names of this machine only"
                raise ServeError(403, told, code="wrong_host")
            return _NOBODY
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        key = given.strip() if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")
        if not key:
            raise ServeError(401, "no key: send it as `Authorization: Bearer …`", code="missing_key", headers=_ASK)
        verdict = self.keys.judged(key)
        if verdict.caller is None:
            expired = verdict.reason == "expired"
            why = "the session token has expired" if expired else "the key is not known"
            raise ServeError(401, why, code="token_expired" if expired else "invalid_api_key", headers=_ASK)
        return verdict.caller


def _own_routes(app: FastAPI, house: _House, metrics: Metrics) -> None:
    starting: Documented = {503: {"description": "It starts or stops."}, 200: {"description": "It answers."}}

    @app.get("/health", responses=starting)
    async def health() -> Response:
        """Tell whether the server answers, and what it serves."""
        found = {"status": house.state, "models": [each.name for each in house.served]}
        return JsonAnswer(found, status_code=200 if house.state == "ok" else 503)

    @app.get("/metrics", responses={200: {"description": "Prometheus' format.", "content": {"text/plain": {}}}})
    async def measured() -> Response:
        """Tell Prometheus how much is asked."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _others(app: FastAPI, house: _House, store: Store) -> None:
    """Add the other protocols; the document's takes every first word, and comes last."""
    from llmkit.serve._document import document_routes, token_routes
    from llmkit.serve._page import page_routes
    from llmkit.serve._runs import run_routes

    app.include_router(page_routes(house.guard, store), responses=ERRORS)
    app.include_router(run_routes(house.find, house.guard, store), responses=ERRORS)
    app.include_router(token_routes(house.keys), responses=ERRORS)
    app.include_router(document_routes(house.find, house.guard), responses=ERRORS)


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


async def _no_text(_: Request, __: Exception) -> Response:
    return _answer(Refusal(400, "a text has characters that are no Unicode (lone surrogates)", "invalid_value"))


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
