"""`Host`: somebody's model.py behind a name, with its `init`, `predict` and `cleanup`.

Functions that block run on the threads of a pool, so that they hold no other request up; async ones run on the event
loop. What they raise becomes an answer, and the server stays up.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.responses import Response, StreamingResponse

from llmkit._sse import read_json, text_of
from llmkit.errors import ConfigError, LlmkitError
from llmkit.serve._errors import ServeError
from llmkit.serve._modelfile import Call, ModelFile, ModelMeta, Pool, PoolFullError, shown
from llmkit.serve._results import Stepped, Texts, shape
from llmkit.types import Piece, Reply, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from llmkit.serve._served import Caller
    from llmkit.types import Message

log = logging.getLogger("llmkit.serve")
OFFERED = ("payload_dict", "http_request", "model_meta", "requester", "system_context", "user_prompt")
"""What `predict` can declare; `init` and `cleanup` are offered `model_meta`."""
_MAX_WAIT_S = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Requester:
    """Who asks, as a model.py is told: the name of the key, "" where the server asks for none."""

    id: str = ""
    roles: tuple[str, ...] = ()


class _MissingFieldError(KeyError):
    """A field that the request does not have."""


class _Payload(dict[str, Any]):
    """A request's body, which tells what is missing in it from what is missing elsewhere."""

    def __missing__(self, key: str) -> Any:
        raise _MissingFieldError(key)


class Host:
    """A model.py, as a server has it.

    Args:
        path: the file, or the folder that it is in.
        name: under which it is served; else what model.json, the file or the folder says.
        pool: how many calls of functions that block run at once.
        max_wait_s: seconds a request waits for one of them to end before it is sent away.

    Raises:
        ConfigError: there is no such file, or the model.json beside it cannot be read.
    """

    def __init__(
        self, path: str | Path, *, name: str | None = None, pool: int = 8, max_wait_s: float = _MAX_WAIT_S
    ) -> None:
        if pool < 1:
            raise ConfigError(f"pool must be a whole number from 1 up, not {pool!r}")
        self._file = ModelFile(path, name)
        self.name = self._file.name
        self._pool = Pool(pool, name=f"llmkit-{self.name}")
        self._max_wait_s = max_wait_s
        self._about = ModelMeta()
        self._calls: dict[str, Call] = {}
        self._starting: asyncio.Task[None] | None = None
        self._fault = ""
        self._stopped = False

    def meta(self) -> dict[str, Any]:
        """Return what model.json says, with name and version."""
        return self._file.meta()

    # -- from start to stop ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Copy the model's files, load it and call its `init`; once, however many ask for it.

        An `init` that fails stops nobody: requests are answered with its reason.

        Raises:
            ConfigError: the files are not there, or the model.py cannot be loaded.
        """
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
        await asyncio.shield(self._starting)

    async def stop(self) -> None:
        """Call `cleanup`, once, also where `init` failed; what it raises is logged."""
        if self._stopped:
            return
        self._stopped = True
        if self._starting is not None and not self._starting.done():
            self._starting.cancel()
            await asyncio.wait({self._starting})
        if "cleanup" in self._calls:
            own = Pool(1, name=f"llmkit-{self.name}-cleanup")  # the other threads may all be busy
            try:
                await self._called("cleanup", {"model_meta": self._about}, own)
            except (Exception, SystemExit) as error:
                log.error("the model %s: its cleanup failed", self.name, exc_info=error)  # noqa: TRY400 - as below
            own.close()
        self._pool.close()
        self._file.unload()

    async def _start(self) -> None:
        self._about = await asyncio.to_thread(self._file.fetch)
        module = await asyncio.to_thread(self._file.load)
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
            except (Exception, SystemExit) as error:
                self._fault = f"the model {self.name} cannot be used: its init failed: {shown(error)}"
                log.error("the model %s: its init failed", self.name, exc_info=error)  # noqa: TRY400 - as below

    async def _called(self, name: str, offered: Mapping[str, Any], pool: Pool, patience_s: float | None = None) -> Any:
        """Call a function of the model; one that blocks on a thread."""
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
            ServeError: 400 for what the request lacks or a ValueError says, 503 where the model is not ready or busy,
                what an HTTPException says, else 500.
            LlmkitError: a model that the model.py itself asks refuses.
        """
        if self._stopped:
            raise ServeError(503, f"the model {self.name} is being stopped", code="model_not_ready")
        await self.start()
        if self._fault:
            raise ServeError(503, self._fault, code="model_not_ready")
        body = _Payload(payload)
        fields = {name: body.get(name) for name in ("system_context", "user_prompt")}
        offered = {
            "payload_dict": body,
            "http_request": http_request,
            "model_meta": self._about,
            "requester": Requester(requester.name if requester else ""),
            **fields,
        }
        for name, given in fields.items():
            if given is None and name in self._calls["predict"].required:
                raise _lacking(name)
        with self._judged():
            result = await self._called("predict", offered, self._pool, self._max_wait_s)
        if isinstance(result, StreamingResponse):
            result = result.body_iterator
        if isinstance(result, Iterator):
            return Texts(Stepped(result, self._pool), self._judged)
        return Texts(aiter(result), self._judged) if hasattr(result, "__aiter__") else result

    async def answer(self, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> Reply:
        """Return the text of what `predict` makes of the last question; *params* are in its payload too."""
        started = time.monotonic()
        result = await self.predict(_payload(messages, params), requester=caller)
        text = await self.text(result)
        return await self._reply(messages, text, time.monotonic() - started, raw=result)

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
            log.error("the model %s: what predict returned is not JSON", self.name, exc_info=error)  # noqa: TRY400
            told = f"the model {self.name} returned what JSON cannot say ({type(result).__name__})"
            raise ServeError(500, told, code="model_failed") from error

    async def _reply(
        self, messages: Sequence[Message], text: str, latency_s: float, raw: Any = None, first_s: float | None = None
    ) -> Reply:
        usage = await asyncio.to_thread(_usage, self.name, messages, text)
        reply = _built(self.name, text, "stop", raw)
        return dataclasses.replace(reply, usage=usage, latency_s=latency_s, first_token_s=first_s)

    @contextlib.contextmanager
    def _judged(self) -> Iterator[None]:
        """Turn what a model.py raises into answers."""
        try:
            yield
        except (ServeError, LlmkitError):
            raise
        except PoolFullError as error:
            told = f"the model {self.name} is busy: it answers {self._pool.size} at once"
            raise ServeError(503, told, code="overloaded", headers={"Retry-After": "1"}) from error
        except HTTPException as error:
            detail = error.detail if isinstance(error.detail, str) else json.dumps(error.detail, default=str)
            raise ServeError(error.status_code, detail, headers=error.headers) from error
        except _MissingFieldError as error:
            raise _lacking(error.args[0]) from error
        except ValueError as error:
            raise ServeError(400, str(error) or type(error).__name__, code="invalid_request") from error
        except (Exception, SystemExit) as error:
            # what it says may be secret, and is for the one who runs the server
            log.error("the model %s failed", self.name, exc_info=error)  # noqa: TRY400 - SystemExit is no exception
            raise ServeError(
                500, f"the model {self.name} failed: {type(error).__name__}", code="model_failed"
            ) from error


class HostStream:
    """The answer of a `Host` in pieces, as `llmkit.astream` gives it."""

    def __init__(self, host: Host, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> None:
        self._host = host
        self._asked = (messages, params, caller)
        self._reply: Reply | None = None
        self._pieces = self._read()

    @property
    def reply(self) -> Reply:
        """The whole answer after the end; what had arrived, without a finish reason, of one that was left early.

        Raises:
            RuntimeError: while pieces are still to come.
        """
        if self._reply is None:
            raise RuntimeError("the reply of a stream is known when the stream has ended or is closed")
        return self._reply

    def __aiter__(self) -> AsyncIterator[Piece]:
        """Return the iterator over the pieces."""
        return self._pieces

    async def aclose(self) -> None:
        """Close the generator and settle `reply`."""
        await self._pieces.aclose()
        if self._reply is None:  # it was never iterated
            self._reply = _built(self._host.name, "", None)

    async def _read(self) -> AsyncGenerator[Piece, None]:
        messages, params, caller = self._asked
        started, first_s, said = time.monotonic(), None, list[str]()
        result = None
        try:
            result = await self._host.predict(_payload(messages, params), requester=caller)
            async for text in result if isinstance(result, Texts) else _one(await self._host.text(result)):
                first_s = time.monotonic() - started if first_s is None else first_s
                said.append(text)
                yield Piece(content=text)
            whole, latency_s = "".join(said), time.monotonic() - started
            self._reply = await self._host._reply(messages, whole, latency_s, first_s=first_s)  # noqa: SLF001 - its own
            yield Piece(finish_reason="stop")
        finally:
            if self._reply is None:
                self._reply = _built(self._host.name, "".join(said), None)
            if isinstance(result, Texts):
                await result.aclose()


async def _one(text: str) -> AsyncIterator[str]:
    if text:
        yield text


def _lacking(field: str) -> ServeError:
    return ServeError(400, f"the field {field!r} is missing", code="missing_field", param=str(field))


def _payload(messages: Sequence[Message], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return messages in the form a model.py knows: the last question, the system's text, and all of them."""
    system = [_said(each) for each in messages if each["role"] in {"system", "developer"}]
    asked = next((_said(each) for each in reversed(messages) if each["role"] == "user"), "")
    context = {"system_context": "\n\n".join(system)} if system else {}
    return {**params, "user_prompt": asked, **context, "messages": [dict(each) for each in messages]}


def _said(message: Message) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part.get("type") == "text")


def _usage(model: str, messages: Sequence[Message], text: str) -> Usage:
    """Count tokens as for a model that nobody knows; a model.py has no price."""
    from llmkit._litellm import count_text, count_tokens

    prompt, completion = sum(count_tokens(model, messages)), count_text(model, text)
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def _built(name: str, text: str, finish_reason: str | None, raw: Any = None) -> Reply:
    said = SimpleNamespace(role="assistant", content=text, tool_calls=None)
    choice = SimpleNamespace(index=0, message=said, finish_reason=finish_reason)
    message = {"role": "assistant", "content": text}
    return Reply(
        text=text, model=name, name=name, finish_reason=finish_reason, choices=(choice,), messages=(message,), raw=raw
    )
