"""`Host`: somebody's model.py behind a name, with its `init`, `predict` and `cleanup`.

All of it runs on a loop and threads of its own (`loop`), so that it holds up nobody else. What it raises becomes
an answer that does not tell the client of it, and the server stays up.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from llmkit._sse import read_json, text_of
from llmkit.errors import BudgetExceededError, ConfigError, ProviderError
from llmkit.serve._errors import ServeError
from llmkit.serve.context import current
from llmkit.serve.hosted.account import Accounts, usage_of
from llmkit.serve.hosted.chat import HostStream, built, counted, payload
from llmkit.serve.hosted.loop import ModelLoop, Pool, PoolFullError, Stepped
from llmkit.serve.hosted.model_file import Call, ModelFile, ModelMeta
from llmkit.serve.hosted.results import Texts, shape
from llmkit.types import Usage

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from llmkit.serve.hosted.account import Account
    from llmkit.serve.served import Caller
    from llmkit.store import Store
    from llmkit.types import Message, Reply

log = logging.getLogger("llmkit.serve")
OFFERED = ("payload_dict", "http_request", "model_meta", "requester", "system_context", "user_prompt")
"""What `predict` can declare; `init` and `cleanup` are offered `model_meta`."""
_MAX_WAIT_S = 60.0
_STOP_S = 30.0
_LOG = "; the server's log says why"
_OF_A_REQUEST = (
    "type",
    "http_version",
    "method",
    "scheme",
    "server",
    "client",
    "root_path",
    "path",
    "raw_path",
    "query_string",
    "headers",
    "path_params",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Requester:
    """Who asks, as a model.py is told: the name of the key, "" where the server asks for none."""

    id: str = ""
    roles: tuple[str, ...] = ()


class MissingFieldError(KeyError):
    """A field that the request does not have."""


class _Payload(dict[str, Any]):
    """A request's body, which tells what is missing in it from what is missing elsewhere."""

    def __missing__(self, key: str) -> Any:
        raise MissingFieldError(key)


class Host:
    """A model.py, as a server has it.

    Args:
        path: the file, or the folder that it is in.
        name: under which it is served; else what model.json, the file or the folder says.
        store: where its calls are written down, and the budgets of keys are; None for neither.
        pool: how many calls of functions that block run at once.
        max_wait_s: seconds a request waits for one of them to end before it is sent away.
        lost_after_s: seconds after which a function is believed not to end, and its place is given to another.

    Raises:
        ConfigError: there is no such file, or the model.json beside it cannot be read.
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
        self._loop = ModelLoop(f"llmkit-{self.name}-loop")
        self._pool = Pool(pool, name=f"llmkit-{self.name}", lost_after_s=lost_after_s)
        self._accounts = Accounts(self.name, store)
        self._max_wait_s = max_wait_s
        self.run_timeout_s = lost_after_s
        self._about = ModelMeta()
        self._calls: dict[str, Call] = {}
        self._lock = threading.Lock()
        self._starting: Future[None] | None = None
        self._fault = ""
        self._stopped = False

    def meta(self) -> dict[str, Any]:
        """Return what model.json says, with name and version."""
        return self._file.meta()

    @property
    def is_stuck(self) -> bool:
        """Whether it cannot answer until the process begins anew: its loop, or all its threads, do not come back."""
        return self._pool.is_stuck or self._loop.blocked_s > self.run_timeout_s

    # -- from start to stop ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Copy the model's files, load it and call its `init`; once, however many ask for it.

        An `init` that fails stops nobody: requests are refused, and the log has its reason.

        Raises:
            ConfigError: the files are not there, or the model.py cannot be loaded.
        """
        with self._lock:
            if self._starting is None:
                self._starting = self._loop.submit(self._start)
        await asyncio.shield(asyncio.wrap_future(self._starting))

    async def stop(self) -> None:
        """Call `cleanup`, once, also where `init` failed; what it raises is logged."""
        with self._lock:
            first, self._stopped = not self._stopped, True
        if not first:
            return
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
        if "cleanup" in self._calls:
            own = Pool(1, name=f"llmkit-{self.name}-cleanup")  # the other threads may all be busy
            cleanup = partial(self._called, "cleanup", {"model_meta": self._about}, own)
            try:
                await asyncio.wait_for(self._loop.run(cleanup), _STOP_S)
            except Exception as error:
                log.exception("the model %s: its cleanup failed", self.name, exc_info=error)
            own.close()
        self._pool.close()
        await self._loop.close()
        self._file.unload()

    async def _start(self) -> None:
        self._about = await self._pool.run(self._file.fetch)
        module = await self._pool.run(self._file.load)
        where = self._file.path
        if not hasattr(module, "predict"):
            raise ConfigError(f"{where}: it has no function predict")
        found = {name: getattr(module, name) for name in ("init", "predict", "cleanup") if hasattr(module, name)}
        self._calls = {
            name: Call(function, OFFERED if name == "predict" else ("model_meta",), f"{where}: {name}")
            for name, function in found.items()
        }
        if "init" in found:
            try:
                await self._called("init", {"model_meta": self._about}, self._pool)
            except BaseException as error:
                self._fault = f"the model {self.name} cannot be used: its init failed{_LOG}"
                log.exception("the model %s: its init failed", self.name, exc_info=error)

    async def _called(self, name: str, offered: Mapping[str, Any], pool: Pool, patience_s: float | None = None) -> Any:
        """Call a function of the model; one that blocks on a thread. What it awaits, it awaits on the model's loop."""
        call = self._calls[name]
        function = partial(call.function, **call.arguments(offered))
        is_quick = call.is_async or call.is_generator  # nothing of these runs when they are called
        result = function() if is_quick else await pool.run(function, patience_s=patience_s)
        return await result if inspect.isawaitable(result) else result

    # -- asking ---------------------------------------------------------------------------------------------------

    async def predict(
        self, payload: Mapping[str, Any], *, http_request: Any = None, requester: Caller | None = None
    ) -> Any:
        """Return what `predict` returns; `Texts` to iterate, and to close, where that is a generator or stream.

        Raises:
            ServeError: 400 for what the request lacks or a ValueError refuses, 503 where the model is not ready or
                busy, what an HTTPException says, else 500.
            BudgetExceededError: the key's budget is spent.
            ProviderError: a model that the model.py itself asks refuses.
        """
        account, result = await self.begin(payload, http_request, requester)
        if isinstance(result, Texts):
            return result.on_close(lambda whole: account.end(Usage(), whole=whole))
        await account.end(usage_of(result))
        return result

    async def begin(self, payload: Mapping[str, Any], http_request: Any, caller: Caller | None) -> tuple[Account, Any]:
        """Call `predict`, and return its account and what it has returned; the caller ends the account.

        Raises:
            ServeError: as for `predict`; the account is ended then.
        """
        if self._stopped:
            raise ServeError(503, f"the model {self.name} is being stopped", code="model_not_ready")
        await self.start()
        if self._fault:
            raise ServeError(503, self._fault, code="model_not_ready")
        offered = self._offered(payload, http_request, caller)
        account = await self._accounts.begin(caller)
        call = partial(self._called, "predict", offered, self._pool, self._max_wait_s)
        try:
            with self._judged():
                return account, self._streamed(await self._loop.run(call))
        except BaseException as error:
            if isinstance(error.__cause__, PoolFullError):
                await account.drop()
            else:
                await account.end(error)
            raise

    def _offered(self, payload: Mapping[str, Any], http_request: Any, caller: Caller | None) -> dict[str, Any]:
        body = _Payload(payload)
        fields = {name: body.get(name) for name in ("system_context", "user_prompt")}
        for name, given in fields.items():
            if given is None and name in self._calls["predict"].required:
                raise _lacking(name)
        return {
            "payload_dict": body,
            "http_request": _detached(http_request) if isinstance(http_request, Request) else http_request,
            "model_meta": self._about,
            "requester": Requester(caller.name if caller else ""),
            **fields,
        }

    def _streamed(self, result: Any) -> Any:
        if isinstance(result, StreamingResponse):
            result = result.body_iterator
        if hasattr(result, "__aiter__"):
            return Texts(Stepped(aiter(result), self._loop, self._pool), self._judged)
        return Texts(Stepped(result, self._loop, self._pool), self._judged) if isinstance(result, Iterator) else result

    async def answer(self, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> Reply:
        """Return the text of what `predict` makes of the last question; *params* are in its payload too."""
        account, result = await self.begin(payload(messages, params), None, caller)
        try:
            text = await self.text(result)
        except BaseException as error:
            await account.end(error)
            raise
        return await self.reply(messages, text, account, result)

    def stream(self, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> HostStream:
        """Return the answer in pieces: those of a generator, or one."""
        return HostStream(self, messages, params, caller)

    async def text(self, result: Any) -> str:
        """Return the text of what `predict` has returned: of the `answer` or `content` of an object, else JSON."""
        if isinstance(result, Texts):
            async with contextlib.aclosing(result):
                return "".join([piece async for piece in result])
        body = bytes(result.body).decode(errors="replace") if isinstance(result, Response) else self.json(result)
        return "" if result is None else text_of(read_json(body), body)

    def json(self, result: Any) -> str:
        """Return what `predict` has returned as JSON.

        Raises:
            ServeError: 500, it cannot be written so.
        """
        try:
            return json.dumps(result, default=shape, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            log.exception("the model %s: what predict returned is not JSON", self.name, exc_info=error)
            why = f"the model {self.name} returned what JSON cannot say{_LOG}"
            raise ServeError(500, why, code="model_failed") from error

    async def reply(self, messages: Sequence[Message], text: str, account: Account, raw: Any = None) -> Reply:
        """Return the reply that a whole answer is, and end its account."""
        usage = usage_of(raw)
        if not usage.total_tokens:
            tokens = await asyncio.to_thread(counted, self.name, messages, text)
            usage = dataclasses.replace(tokens, cost_usd=usage.cost_usd, source=usage.source)
        await account.end(usage)
        reply = built(self.name, text, "stop", raw)
        first_token_s = account.first_token_s
        return dataclasses.replace(reply, usage=usage, latency_s=account.elapsed_s, first_token_s=first_token_s)

    @contextlib.contextmanager
    def _judged(self) -> Iterator[None]:
        """Turn what a model.py raises into answers; what it says in it may be secret, and is for the log."""
        try:
            yield
        except (ServeError, ProviderError, BudgetExceededError):
            raise
        except PoolFullError as error:
            why = f"the model {self.name} is busy: it answers {self._pool.size} at once"
            raise ServeError(503, why, code="overloaded", headers={"Retry-After": "1"}) from error
        except HTTPException as error:
            detail = error.detail if isinstance(error.detail, str) else json.dumps(error.detail, default=str)
            raise ServeError(error.status_code, detail, headers=error.headers) from error
        except MissingFieldError as error:
            raise _lacking(error.args[0]) from error
        except ValueError as error:
            log.warning("request %s: the model %s refused it", current().id, self.name, exc_info=error)
            why = f"the model {self.name} does not take this request{_LOG}"
            raise ServeError(400, why, code="invalid_request") from error
        except Exception as error:
            log.exception("request %s: the model %s failed", current().id, self.name, exc_info=error)
            raise ServeError(500, f"the model {self.name} failed{_LOG}", code="model_failed") from error


def _lacking(field: str) -> ServeError:
    return ServeError(400, f"the field {field!r} is missing", code="missing_field", param=str(field))


def _detached(request: Request) -> Request:
    """Return a request for another event loop: its body is there, and nothing in it belongs to the server's loop."""
    body, visit = getattr(request, "_body", b""), current()
    given = False

    async def receive() -> MutableMapping[str, Any]:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        while not visit.gone:  # noqa: ASYNC110 - an event would belong to the server's loop
            await asyncio.sleep(0.05)
        return {"type": "http.disconnect"}

    return Request({name: request.scope[name] for name in _OF_A_REQUEST if name in request.scope}, receive)
