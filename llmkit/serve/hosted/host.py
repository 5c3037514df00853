"""`Host`: a user's model.py under a name, with its `init`, `predict` and `cleanup`.

All of it runs on a loop and threads of its own, so that it blocks nobody else. Its exceptions become answers that
reveal nothing to the client, and the server stays up.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.responses import Response, StreamingResponse

from llmkit.core.params import encodable
from llmkit.core.types import Piece, Usage
from llmkit.errors import ConfigError
from llmkit.providers.transport.events import read_json, text_of
from llmkit.serve.errors import ServeError
from llmkit.serve.hosted.account import open_account, usage_of
from llmkit.serve.hosted.chat import HostStream, count_tokens, payload, reply_of
from llmkit.serve.hosted.loop import ModelLoop
from llmkit.serve.hosted.model_file import Call, ModelFile, ModelMeta
from llmkit.serve.hosted.request import LOG, OFFERED, Payload, Requester, detached, errors_of, missing_field
from llmkit.serve.hosted.streams import from_loop, on_threads, to_jsonable, to_texts
from llmkit.serve.hosted.threads import Threads
from llmkit.serve.served import Served

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from llmkit.core.types import Message, Reply
    from llmkit.serve.context import Caller
    from llmkit.serve.hosted.account import Account
    from llmkit.store import Store

log = logging.getLogger("llmkit.serve")
_MAX_WAIT_S = 60.0
_STOP_S = 30.0


class Host(Served):
    """A model.py on a server.

    Args:
        path: the file, or the folder that contains it.
        name: the name to serve it under; else the one in model.json, or the file's or folder's.
        store: the store of its ledger rows and the keys' budgets, or None for neither.
        pool: how many blocking functions run at once.
        max_wait_s: seconds a request waits for a free thread before it is refused.
        lost_after_s: seconds after which a function counts as hanging, and its thread is replaced.

    Raises:
        ConfigError: there is no such file, or the model.json next to it cannot be read.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        store: Store | None = None,
        pool: int = 8,
        max_wait_s: float = _MAX_WAIT_S,
        lost_after_s: float = 600.0,
    ) -> None:
        if pool < 1:
            raise ConfigError(f"pool must be a whole number from 1 up, not {pool!r}")
        self._file = ModelFile(path, name)
        self.name = self._file.name
        self.run_timeout_s: float = lost_after_s
        self._loop = ModelLoop(f"llmkit-{self.name}-loop")
        self._threads = Threads(pool, name=f"llmkit-{self.name}", lost_after_s=lost_after_s)
        self._store = store
        self._max_wait_s = max_wait_s
        self._about = ModelMeta()
        self._calls: dict[str, Call] = {}
        self._lock = threading.Lock()
        self._starting: Future[None] | None = None
        self._fault = ""
        self._stopped = False

    def meta(self) -> dict[str, Any]:
        """Return the content of model.json, with name and version."""
        return self._file.meta()

    @property
    def is_stuck(self) -> bool:
        """Whether its loop, or all its threads, hang."""
        return self._threads.is_stuck or self._loop.blocked_s > self.run_timeout_s

    # -- from start to stop ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Copy the model's files, load it and call its `init`; once, however many ask for it.

        If `init` fails, the others still start: requests are refused, and the log has the reason.

        Raises:
            ConfigError: the files are missing, or the model.py cannot be loaded.
        """
        with self._lock:
            if self._starting is None:
                self._starting = self._loop.submit(self._start)
        await asyncio.shield(asyncio.wrap_future(self._starting))

    async def stop(self) -> None:
        """Call `cleanup`, once, even if `init` failed; its exceptions are logged."""
        with self._lock:
            is_first, self._stopped = not self._stopped, True
        if not is_first:
            return
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
        if "cleanup" in self._calls:
            own = Threads(1, name=f"llmkit-{self.name}-cleanup")  # the other threads may all be busy
            try:
                await asyncio.wait_for(self._loop.run(partial(self._call, "cleanup", self._own(), own)), _STOP_S)
            except Exception as error:
                log.exception("the model %s: its cleanup failed", self.name, exc_info=error)
        await self._loop.close()
        self._file.unload()

    async def _start(self) -> None:
        self._about = await self._threads.run(self._file.fetch)
        module = await self._threads.run(self._file.load)
        where = self._file.path
        if not hasattr(module, "predict"):
            raise ConfigError(f"{where}: it has no function predict")
        functions = {name: getattr(module, name) for name in ("init", "predict", "cleanup") if hasattr(module, name)}
        self._calls = {
            name: Call(function, OFFERED if name == "predict" else ("model_meta",), f"{where}: {name}")
            for name, function in functions.items()
        }
        if "init" in functions:
            try:
                await self._call("init", self._own(), self._threads)
            except BaseException as error:
                self._fault = f"the model {self.name} cannot be used: its init failed{LOG}"
                log.exception("the model %s: its init failed", self.name, exc_info=error)

    def _own(self) -> dict[str, Any]:
        return {"model_meta": self._about}

    async def _call(self, name: str, offered: Mapping[str, Any], on: Threads, patience_s: float | None = None) -> Any:
        """Call a function of the model; one that blocks runs on a thread, one that awaits on the model's loop."""
        call = self._calls[name]
        function = partial(call.function, **call.arguments(offered))
        is_quick = call.is_async or call.is_generator  # nothing of these runs when they are called
        result = function() if is_quick else await on.run(function, patience_s=patience_s)
        return await result if inspect.isawaitable(result) else result

    # -- calls ----------------------------------------------------------------------------------------------------

    async def predict(
        self, body: Mapping[str, Any], *, http_request: Any = None, requester: Caller | None = None
    ) -> Any:
        """Return the result of `predict`; a stream is returned as an async generator of texts to read and close.

        Raises:
            ServeError: 503 if the model is not ready, else as for `request.errors_of`.
            BudgetExceededError: the key's budget is spent.
            ProviderError: a model that the model.py itself calls refuses.
        """
        account, result = await self._begin(body, http_request, requester)
        if self.is_stream(result):
            return self._accounted(account, result)
        await account.end(usage_of(result))
        return result

    async def answer(self, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> Reply:
        """Return the text of `predict`'s result for the last question; *params* are in its payload too."""
        account, result = await self._begin(payload(messages, params), None, caller)
        async with account:
            text = await self.text(result)
        return await self._reply(messages, text, account, result)

    def stream(self, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> HostStream:
        """Return the answer in pieces: those of a generator, or a single one."""
        return HostStream(self.name, self._pieces(messages, params, caller))

    async def _begin(self, body: Mapping[str, Any], http_request: Any, caller: Caller | None) -> tuple[Account, Any]:
        """Call `predict`, and return its account and its result; the caller ends the account."""
        if self._stopped:
            raise ServeError(503, f"the model {self.name} is being stopped", code="model_not_ready")
        await self.start()
        if self._fault:
            raise ServeError(503, self._fault, code="model_not_ready")
        offered = self._offered(Payload(body), http_request, caller)
        account = await open_account(self.name, self._store, caller)
        call = partial(self._call, "predict", offered, self._threads, self._max_wait_s)
        async with account:
            with errors_of(self.name):
                result = await self._loop.run(call)
        return account, self._readable(result)

    def _offered(self, body: Payload, http_request: Any, caller: Caller | None) -> dict[str, Any]:
        fields = {name: body.get(name) for name in ("system_context", "user_prompt")}
        for name, value in fields.items():
            if value is None and name in self._calls["predict"].required:
                raise missing_field(name)
        return {
            "payload_dict": body,
            "http_request": detached(http_request),
            "model_meta": self._about,
            "requester": Requester(caller.name if caller else ""),
            **fields,
        }

    # -- results --------------------------------------------------------------------------------------------------

    def _readable(self, result: Any) -> Any:
        """Return a generator or stream as one of texts for the caller's loop, and anything else as it is."""
        if isinstance(result, StreamingResponse):
            result = result.body_iterator
        if hasattr(result, "__aiter__"):
            return self._texts(aiter(result))
        return self._texts(on_threads(result, self._threads)) if isinstance(result, Iterator) else result

    async def _texts(self, pieces: AsyncIterator[Any]) -> AsyncGenerator[str, None]:
        with errors_of(self.name):
            async with contextlib.aclosing(to_texts(from_loop(pieces, self._loop))) as texts:
                async for text in texts:
                    yield text

    async def _accounted(self, account: Account, texts: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
        async with account, contextlib.aclosing(texts):
            async for text in texts:
                account.note_piece()
                yield text
        await account.end(Usage())

    @staticmethod
    def is_stream(result: Any) -> bool:
        """Return whether a result of `predict` is a stream of texts."""
        return inspect.isasyncgen(result)

    async def texts(self, result: Any) -> AsyncGenerator[str, None]:
        """Yield the texts of a stream, or the one text of anything else."""
        if not self.is_stream(result):
            if text := await self.text(result):
                yield text
            return
        async with contextlib.aclosing(result):
            async for text in result:
                yield text

    async def text(self, result: Any) -> str:
        """Return the text of a result of `predict`: the `answer` or `content` of an object, else JSON."""
        if self.is_stream(result):
            async with contextlib.aclosing(result):
                return "".join([text async for text in result])
        body = bytes(result.body).decode(errors="replace") if isinstance(result, Response) else self.json(result)
        return "" if result is None else text_of(read_json(body), body)

    def json(self, result: Any) -> str:
        """Return a result of `predict` as JSON.

        Raises:
            ServeError: 500 if it cannot be converted.
        """
        try:
            return encodable(json.dumps(result, default=to_jsonable, ensure_ascii=False, allow_nan=False))
        except (TypeError, ValueError, RecursionError) as error:
            log.exception("the model %s: what predict returned is not JSON", self.name, exc_info=error)
            why = f"the model {self.name} returned what JSON cannot say{LOG}"
            raise ServeError(500, why, code="model_failed") from error

    async def _reply(self, messages: Sequence[Message], text: str, account: Account, raw: Any = None) -> Reply:
        """Return the reply for a whole answer, and end its account."""
        usage = usage_of(raw)
        if not usage.total_tokens:
            tokens = await asyncio.to_thread(count_tokens, self.name, messages, text)
            usage = replace(tokens, cost_usd=usage.cost_usd, source=usage.source)
        await account.end(usage)
        reply = reply_of(self.name, text, "stop", raw)
        return replace(reply, usage=usage, latency_s=account.elapsed_s, first_token_s=account.first_token_s)

    async def _pieces(
        self, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller
    ) -> AsyncGenerator[Piece | Reply, None]:
        """Yield the answer in pieces, and after them the complete reply."""
        account, result = await self._begin(payload(messages, params), None, caller)
        parts: list[str] = []
        async with account, contextlib.aclosing(self.texts(result)) as texts:
            async for text in texts:
                account.note_piece()
                parts.append(text)
                yield Piece(content=text)
        yield await self._reply(messages, "".join(parts), account, result)
