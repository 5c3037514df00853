"""The polled protocol: a run is begun, goes on in the store, and is asked for until it has ended."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from llmkit._response import ModelResponse, ResponseStatus, of_error, of_reply
from llmkit._utterance import Utterance, utterance
from llmkit.errors import InvalidRequestError
from llmkit.runs import SCHEME, Runs
from llmkit.serve._errors import ServeError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from llmkit.serve._served import Caller, Served
    from llmkit.store import Store

_NAMES = {"used_credits": "usedCredits", "run_time": "runTime"}
_LEFT_OUT = {"cause", "url"}


class RunRequest(BaseModel):
    """What is said; what else is given goes to the model."""

    model_config = ConfigDict(extra="allow")

    data: str = Field(description="The last utterance.")
    context: str | None = Field(None, description="The system message.")
    prompt: str | None = Field(None, description="A text on the line above the last utterance.")
    history: list[dict[str, Any]] | None = Field(None, description="OpenAI-style messages before it.")


def run_routes(find: Callable[[str], Served], guard: Callable[[Request], Awaitable[Caller]], store: Store) -> APIRouter:
    """Return the routes: `POST /runs/{model}` and `GET`, `DELETE /runs/{id}`."""
    router, runs = APIRouter(tags=["runs"]), Runs(store)

    @router.post("/runs/{model:path}", status_code=201)
    async def begin(model: str, asked: RunRequest, request: Request) -> Any:
        """Begin a run; `data` is the address to poll. With `options: {"stream": true}` the answer comes as events."""
        caller = await guard(request)
        served = find(model)
        if not caller.may_ask(model):
            raise ServeError(403, f"this key may not ask {model!r}", code="model_not_allowed", param="model")
        given = asked.model_dump(exclude_none=True)
        options = given.pop("options", None)
        try:
            said = utterance(given, {}, None, {})
        except InvalidRequestError as error:
            raise ServeError(400, str(error), code="invalid_request_error") from error
        if isinstance(options, dict) and options.get("stream") is True:
            return StreamingResponse(_events(served, said, caller), media_type="text/event-stream")
        url = await asyncio.to_thread(runs.start, lambda: _work(served, said, caller), model=model, name=caller.name)
        where = str(request.url_for("poll", run_id=url.removeprefix(SCHEME)))
        return {"status": ResponseStatus.IN_PROGRESS.value, "completed": False, "data": where, "url": where}

    @router.get("/runs/{run_id}", name="poll")
    async def poll(run_id: str, request: Request) -> dict[str, Any]:
        """Return how far a run is."""
        caller = await guard(request)
        return _told(await asyncio.to_thread(_mine, runs, run_id, caller), str(request.url))

    @router.delete("/runs/{run_id}")
    async def cancel(run_id: str, request: Request) -> dict[str, Any]:
        """End a run."""
        caller = await guard(request)
        await asyncio.to_thread(_mine, runs, run_id, caller)
        return _told(await asyncio.to_thread(runs.cancel, run_id), str(request.url))

    return router


def _mine(runs: Runs, run_id: str, caller: Caller) -> ModelResponse:
    """Return a run of this caller; that of another one is not told from one that is not there."""
    found = runs.find(run_id)
    if found is None or found.name != caller.name:
        raise ServeError(404, f"there is no run {run_id!r}", code="run_not_found", param="run_id")
    return found.response


async def _events(served: Served, said: Utterance, caller: Caller) -> AsyncIterator[str]:
    stream = served.stream(_messages(said), said.params, caller)
    try:
        async for piece in stream:
            if piece.content:
                yield f"data: {json.dumps({'data': piece.content})}\n\n"
        last: dict[str, Any] = {"data": "", "status": ResponseStatus.SUCCESS.value}
    except Exception as error:  # noqa: BLE001 - every failure is told
        last = {"status": ResponseStatus.FAILED.value, "error_message": of_error(error, 0.0).error_message}
    finally:
        await stream.aclose()
    yield f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n"


def _messages(said: Utterance) -> list[dict[str, Any]]:
    system = [{"role": "system", "content": said.context}] if said.context is not None else []
    return [*system, *said.messages()]


async def _work(served: Served, said: Utterance, caller: Caller) -> ModelResponse:
    began = time.monotonic()
    try:
        reply = await served.answer(_messages(said), said.params, caller)
    except Exception as error:  # noqa: BLE001 - every failure is a response
        return of_error(error, time.monotonic() - began)
    return of_reply(reply, time.monotonic() - began)


def _told(response: ModelResponse, url: str) -> dict[str, Any]:
    """Return a run as such services tell it, a failure with HTTP status 200."""
    found = {_NAMES.get(key, key): value for key, value in response.to_dict().items() if key not in _LEFT_OUT}
    return {**found, "url": url, "data": found["data"] if response.completed else ""}
