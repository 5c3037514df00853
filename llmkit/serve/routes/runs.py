"""The polled protocol: a run is begun, goes on in the store, and is asked for until it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from llmkit._response import ModelResponse, ResponseStatus, of_error, of_reply
from llmkit._utterance import Utterance
from llmkit.errors import LlmkitError
from llmkit.runs import SCHEME, Runs
from llmkit.serve import allowlist
from llmkit.serve._errors import ServeError
from llmkit.serve.context import caller_of, current
from llmkit.serve.errors import refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from llmkit.serve.admission import Limits
    from llmkit.serve.served import Caller, Served
    from llmkit.store import Store

_NAMES = {"used_credits": "usedCredits", "run_time": "runTime"}
_LEFT_OUT = {"cause", "url"}
_RETRY_AFTER = {"retry-after": "1"}


class Jobs:
    """The runs of a server, so many at the most.

    Args:
        store: where they are.
        limits: how many may go on, in all and for each key.
    """

    def __init__(self, store: Store, limits: Limits) -> None:
        self._runs = Runs(store)
        self._limits = limits
        self._going_on: Counter[str] = Counter()

    async def start(self, served: Served, utterance: Utterance, caller: Caller) -> str:
        """Begin a run and return its id.

        Raises:
            ServeError: too many go on already.
        """
        if self._going_on.total() >= self._limits.jobs or self._going_on[caller.id] >= self._limits.jobs_per_key:
            raise ServeError(429, "too many runs go on; try again", code="server_busy", headers=_RETRY_AFTER)
        loop, request_id = asyncio.get_running_loop(), current().id
        self._going_on[caller.id] += 1

        def end() -> None:
            with contextlib.suppress(RuntimeError):  # the server is gone
                loop.call_soon_threadsafe(self._end, caller.id)

        work = partial(_work, served, utterance, caller, request_id)
        try:
            start = partial(self._runs.start, work, model=served.name, name=caller.name)
            url = await asyncio.to_thread(start, served_to=caller.id, on_end=end)
        except LlmkitError:
            self._end(caller.id)
            raise
        return url.removeprefix(SCHEME)

    async def find(self, run_id: str, caller: Caller) -> ModelResponse:
        """Return a run of this caller.

        Raises:
            ServeError: there is none; that of another caller is not told from one that is not there.
        """
        found = await asyncio.to_thread(self._runs.find, run_id)
        if found is None or found.served_to != caller.id:
            raise ServeError(404, f"there is no run {run_id[:100]!r}", code="run_not_found", param="run_id")
        return found.response

    async def cancel(self, run_id: str, caller: Caller) -> ModelResponse:
        """End a run of this caller."""
        await self.find(run_id, caller)
        return await asyncio.to_thread(self._runs.cancel, run_id)

    def _end(self, key: str) -> None:
        self._going_on[key] -= 1
        if not self._going_on[key]:
            del self._going_on[key]


def run_routes(allowed: Callable[[str], tuple[Served, Caller]], store: Store, limits: Limits) -> APIRouter:
    """Return the routes: `POST /runs/{model}` and `GET`, `DELETE /runs/{id}`."""
    router, jobs = APIRouter(tags=["runs"]), Jobs(store, limits)

    @router.post("/runs/{model:path}", status_code=201)
    async def begin(model: str, asked: allowlist.RunRequest, request: Request) -> Any:
        """Begin a run; `data` is the address to poll. With `options: {"stream": true}` the answer comes as events."""
        served, caller = allowed(model)
        utterance = Utterance(
            data=asked.data,
            context=asked.context,
            prompt=asked.prompt,
            history=allowlist.messages_of(asked.history or (), served, "history"),
            params=allowlist.params_of(asked, served),
        )
        if asked.options and asked.options.stream:
            return StreamingResponse(_events(served, utterance, caller), media_type="text/event-stream")
        run_id = await jobs.start(served, utterance, caller)
        url = str(request.url_for("poll", run_id=run_id))
        return {"status": ResponseStatus.IN_PROGRESS.value, "completed": False, "data": url, "url": url}

    @router.get("/runs/{run_id}", name="poll")
    async def poll(run_id: str, request: Request) -> dict[str, Any]:
        """Return how far a run is."""
        return _told(await jobs.find(run_id, caller_of(current())), str(request.url))

    @router.delete("/runs/{run_id}")
    async def cancel(run_id: str, request: Request) -> dict[str, Any]:
        """End a run."""
        return _told(await jobs.cancel(run_id, caller_of(current())), str(request.url))

    return router


async def _events(served: Served, utterance: Utterance, caller: Caller) -> AsyncIterator[str]:
    stream = served.stream(_messages(utterance), utterance.params, caller)
    try:
        async for piece in stream:
            if piece.content:
                yield f"data: {json.dumps({'data': piece.content})}\n\n"
        last: dict[str, Any] = {"data": "", "status": ResponseStatus.SUCCESS.value}
    except Exception as error:  # noqa: BLE001 - every failure is told
        last = {"status": ResponseStatus.FAILED.value, "error_message": refusal(error, current().id).message}
    finally:
        await stream.aclose()
    yield f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n"


def _messages(utterance: Utterance) -> list[dict[str, Any]]:
    system = [{"role": "system", "content": utterance.context}] if utterance.context is not None else []
    return [*system, *utterance.messages()]


async def _work(served: Served, utterance: Utterance, caller: Caller, request_id: str) -> ModelResponse:
    began = time.monotonic()
    try:
        timeout_s = getattr(served, "run_timeout_s", None)  # a preset has its own
        try:
            reply = await asyncio.wait_for(served.answer(_messages(utterance), utterance.params, caller), timeout_s)
        except asyncio.TimeoutError as error:
            raise ServeError(504, f"no whole answer within {timeout_s:g} s", code="timeout") from error
    except Exception as error:  # noqa: BLE001 - every failure is a response
        response = of_error(error, time.monotonic() - began)
        return replace(response, error_message=refusal(error, request_id).message)
    return of_reply(reply, time.monotonic() - began)


def _told(response: ModelResponse, url: str) -> dict[str, Any]:
    """Return a run as such services tell it, a failure with HTTP status 200."""
    found = {_NAMES.get(key, key): value for key, value in response.to_dict().items() if key not in _LEFT_OUT}
    return {**found, "url": url, "data": found["data"] if response.completed else ""}
