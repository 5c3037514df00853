"""The polled protocol: a run is started, goes on in the background, and is polled until it has ended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from llmkit.errors import LlmkitError
from llmkit.providers.aixplain.response import ModelResponse, ResponseStatus, of_error, of_reply
from llmkit.providers.prompt import Prompt
from llmkit.runs import SCHEME, Runs
from llmkit.serve import allowlist
from llmkit.serve.body import JSON
from llmkit.serve.context import caller, current
from llmkit.serve.errors import ServeError, to_serve_error
from llmkit.serve.routes.operations import Operations
from llmkit.serve.routes.responses import DONE, EVENTS, JsonResponse, json_event, streamed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request
    from starlette.responses import Response

    from llmkit.serve.admission import Limits
    from llmkit.serve.served import Access, Models
    from llmkit.store import Store

_NAMES = {"used_credits": "usedCredits", "run_time": "runTime"}
_LEFT_OUT = {"cause", "url"}


class RunQueue:
    """The runs of a server, up to a limit.

    Args:
        store: the store of the runs.
        limits: how many may go on, in total and for each key.
    """

    def __init__(self, store: Store, limits: Limits) -> None:
        self._runs = Runs(store)
        self._limits = limits
        self._running: Counter[str] = Counter()

    async def start(self, access: Access, prompt: Prompt) -> str:
        """Start a run and return its id.

        Raises:
            ServeError: too many are running already.
        """
        key, loop = access.caller, asyncio.get_running_loop()
        if self._running.total() >= self._limits.jobs or self._running[key.id] >= self._limits.jobs_per_key:
            why = "too many runs go on; try again"
            raise ServeError(429, why, code="server_busy", headers={"retry-after": "1"})
        self._running[key.id] += 1

        def end() -> None:
            with contextlib.suppress(RuntimeError):  # the server is gone
                loop.call_soon_threadsafe(self._end, key.id)

        work = partial(_answer, access, prompt, current().id)
        start = partial(self._runs.start, work, model=access.served.name, name=key.name)
        try:
            url = await asyncio.to_thread(start, served_to=key.id, on_end=end)
        except LlmkitError:
            self._end(key.id)
            raise
        return url.removeprefix(SCHEME)

    async def find(self, run_id: str) -> ModelResponse:
        """Return a run of the caller's.

        Raises:
            ServeError: there is none; another caller's run looks the same as one that does not exist.
        """
        run = await asyncio.to_thread(self._runs.find, run_id)
        if run is None or run.served_to != caller().id:
            raise ServeError(404, f"there is no run {run_id[:100]!r}", code="run_not_found", param="run_id")
        return run.response

    async def cancel(self, run_id: str) -> ModelResponse:
        """Cancel a run of the caller's."""
        await self.find(run_id)
        return await asyncio.to_thread(self._runs.cancel, run_id)

    def _end(self, key: str) -> None:
        self._running[key] -= 1
        if not self._running[key]:
            del self._running[key]


def run_routes(models: Models, store: Store, limits: Limits) -> Operations:
    """Return the operations `POST /runs/{model}` and `GET`, `DELETE /runs/{run_id}`."""
    operations, queue = Operations(tag="runs"), RunQueue(store, limits)

    @operations.post("/runs/{model:path}", body=allowlist.RunRequest, statuses=(201, 200), returns=(JSON, EVENTS))
    async def begin(request: Request, body: allowlist.RunRequest) -> Response:
        """Begin a run; `data` is the address to poll. With `options: {"stream": true}` the answer comes as events."""
        access = models.access(request.path_params["model"])
        prompt = Prompt(
            data=body.data,
            context=body.context,
            prompt=body.prompt,
            history=allowlist.messages_of(body.history or (), access.served, "history"),
            params=allowlist.params_of(body, access.served),
        )
        if body.options and body.options.stream:
            return await streamed(_events(access, prompt))
        run_id = await queue.start(access, prompt)
        url = str(request.url_for("poll", run_id=run_id))
        begun = {"status": ResponseStatus.IN_PROGRESS.value, "completed": False, "data": url, "url": url}
        return JsonResponse(begun, status_code=201)

    @operations.get("/runs/{run_id}")
    async def poll(request: Request) -> Response:
        """Return how far a run is."""
        return JsonResponse(_to_json(await queue.find(request.path_params["run_id"]), str(request.url)))

    @operations.delete("/runs/{run_id}")
    async def cancel(request: Request) -> Response:
        """End a run."""
        return JsonResponse(_to_json(await queue.cancel(request.path_params["run_id"]), str(request.url)))

    return operations


async def _events(access: Access, prompt: Prompt) -> AsyncGenerator[bytes, None]:
    try:
        async with access.stream(_messages(prompt), prompt.params) as stream:
            async for piece in stream:
                if piece.content:
                    yield json_event({"data": piece.content})
        last: dict[str, Any] = {"data": "", "status": ResponseStatus.SUCCESS.value}
    except Exception as error:  # noqa: BLE001 - every failure is an event
        last = {"status": ResponseStatus.FAILED.value, "error_message": to_serve_error(error, current().id).message}
    yield json_event(last)
    yield DONE


def _messages(prompt: Prompt) -> list[dict[str, Any]]:
    system = [{"role": "system", "content": prompt.context}] if prompt.context is not None else []
    return [*system, *prompt.messages()]


async def _answer(access: Access, prompt: Prompt, request_id: str) -> ModelResponse:
    began = time.monotonic()
    try:
        timeout_s = access.served.run_timeout_s
        try:
            reply = await asyncio.wait_for(access.answer(_messages(prompt), prompt.params), timeout_s)
        except asyncio.TimeoutError as error:
            raise ServeError(504, f"no whole answer within {timeout_s:g} s", code="timeout") from error
    except Exception as error:  # noqa: BLE001 - every failure is a response
        response = of_error(error, time.monotonic() - began)
        return replace(response, error_message=to_serve_error(error, request_id).message)
    return of_reply(reply, time.monotonic() - began)


def _to_json(response: ModelResponse, url: str) -> dict[str, Any]:
    """Return a run in the polled protocol's format, a failure with HTTP status 200."""
    fields = {_NAMES.get(key, key): value for key, value in response.to_dict().items() if key not in _LEFT_OUT}
    return {**fields, "url": url, "data": fields["data"] if response.completed else ""}
