"""The simple protocol, `GET|POST /MODEL/`: a prompt or PrtLang messages in, JSON or text out; and session tokens.

Every answer of a model, also one that says no, tells in its headers which model it is of. Server-sent events have the
text as it is; only what would be read as something else goes as `{"content": …}`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotations
from starlette.responses import Response, StreamingResponse

from llmkit._sse import DONE, read_json
from llmkit.errors import LlmkitError
from llmkit.serve._errors import ServeError
from llmkit.serve._metrics import current
from llmkit.serve._refusals import refusal, validation
from llmkit.serve._results import Texts
from llmkit.serve._shapes import PASSED_ON, ChatRequest

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, MutableMapping

    from llmkit.serve._keys import Keys
    from llmkit.serve._served import Caller, PieceStream, Served
    from llmkit.types import Reply

log = logging.getLogger("llmkit.serve")
TOKEN_PATH = "/auth/session-token/"  # noqa: S105 - a path
_JSON, _EVENTS = "application/json", "text/event-stream"
_ROLES = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "system": "system",
    None: "user",
}
_YES = {"true", "1", "yes"}
_closings: set[asyncio.Future[None]] = set()  # the loop itself keeps no task alive


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class PromptRequest(_Strict):
    """The simple body."""

    user_prompt: str = Field(min_length=1)
    system_context: str | None = None
    streaming: bool | None = None


class PrtLangMessage(_Strict):
    """One message; its role is human, ai or system, or as OpenAI calls it. None is human."""

    content: str
    role: str | None = None


class PrtLangRequest(_Strict):
    """The body of LangChain's clients. `lang_model` chooses nothing: the address does."""

    messages: list[PrtLangMessage] = Field(min_length=1)
    lang_model: str | None = None
    streaming: bool | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: int | None = Field(default=None, ge=1)
    lang_model_kwargs: dict[str, Any] | None = None


def document_routes(find: Callable[[str], Served | None], guard: Callable[[Request], Awaitable[Caller]]) -> APIRouter:
    """Return the routes `/MODEL/` and `/MODEL`; they go last, for they take every path of one part.

    Args:
        find: returns what is served under a name, None for nothing.
        guard: returns who asks, or raises a ServeError.
    """
    router = APIRouter(include_in_schema=False)

    async def ask(model: str, request: Request) -> Response:
        about: dict[str, str] = {}
        try:
            caller = await guard(request)
            served = _allowed(find(model), model, caller)
            current().model = model
            meta = served.meta()
            about = _provenance(model, meta)
            if request.query_params.get("get_meta", "").lower() in _YES:
                response = _json(meta)
            else:
                response = await _Asked(served, caller, request).answered(_object(await request.body()))
        except (ServeError, LlmkitError) as error:
            response = _refused(error)
        response.headers.update(about)
        return response

    for path in ("/{model}/", "/{model}"):  # a redirect from one to the other would lose the body
        router.add_api_route(path, ask, methods=["GET", "POST"], response_model=None)
    return router


def token_routes(keys: Keys) -> APIRouter:
    """Return the route that gives a session token for a key; where the server has no keys, for any."""
    router = APIRouter(include_in_schema=False)

    async def issue(request: Request) -> Response:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        try:
            body = await request.body()
            if body:
                _object(body)
            token, ends_at = await asyncio.to_thread(_issued, keys, key.strip() if scheme.lower() == "bearer" else "")
        except (ServeError, LlmkitError) as error:
            return _refused(error)
        return _json({"token": token, "expires_at": ends_at}, {"cache-control": "no-store"})

    for path in (TOKEN_PATH, TOKEN_PATH.rstrip("/")):
        router.add_api_route(path, issue, methods=["POST"], response_model=None)
    return router


def _allowed(served: Served | None, model: str, caller: Caller) -> Served:
    if served is None:
        raise ServeError(404, f"there is no model {model!r}", code="model_not_found")
    if not caller.may_ask(model):
        raise ServeError(403, f"this key is not for the model {model!r}", code="model_not_allowed")
    return served


def _issued(keys: Keys, key: str) -> tuple[str, float]:
    caller = keys.of_key(key).caller
    if caller is None and keys.any():
        told = "a session token is given for a key of this server, sent as a bearer token"
        raise ServeError(401, told, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
    return keys.issue(caller.name if caller else "")


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request for an answer."""

    served: Served
    caller: Caller
    request: Request

    async def answered(self, body: dict[str, Any]) -> Response:
        predict = getattr(self.served, "predict", None)  # a preset has none
        if "messages" in body and "user_prompt" not in body:
            return await self._prt_lang(_fitting(PrtLangRequest, body), of_host=predict is not None)
        if predict is not None:
            streaming = body.get("streaming")
            if streaming is not None and not isinstance(streaming, bool):
                raise ServeError(400, "streaming: it must be true or false", code="invalid_value", param="streaming")
            result = await predict(body, http_request=self.request, requester=self.caller)
            return await self._predicted(result, streaming=bool(streaming))
        asked = _fitting(PromptRequest, body)
        context = [{"role": "system", "content": asked.system_context}] if asked.system_context else []
        messages = [*context, {"role": "user", "content": asked.user_prompt}]
        if asked.streaming:
            return await self._streamed(_contents(self.served.stream(messages, {}, self.caller)))
        return _json({"answer": (await self.served.answer(messages, {}, self.caller)).text})

    async def _predicted(self, result: Any, *, streaming: bool) -> Response:
        """Answer with what a model.py has returned."""
        host: Any = self.served
        if isinstance(result, Response):
            return result
        if streaming:
            return await self._streamed(result if isinstance(result, Texts) else _one(await host.text(result)))
        if isinstance(result, Texts):
            return _json({"answer": await host.text(result)})
        return Response(host.json(result), media_type=_JSON)

    async def _prt_lang(self, asked: PrtLangRequest, *, of_host: bool) -> Response:
        messages = [{"role": _role(at, each.role), "content": each.content} for at, each in enumerate(asked.messages)]
        as_it_is = asked.model_dump(exclude={"messages"}, exclude_none=True)
        params = as_it_is if of_host else self._params(asked, messages)
        if asked.streaming:
            return await self._streamed(_contents(self.served.stream(messages, params, self.caller)))
        reply = await self.served.answer(messages, params, self.caller)
        return _json(_prt_lang_answer(reply))

    def _params(self, asked: PrtLangRequest, messages: list[dict[str, str]]) -> dict[str, Any]:
        """Return parameters for a preset; only those that OpenAI's clients can send, too."""
        own = {"temperature": asked.temperature, "max_tokens": asked.max_tokens}
        wanted = {
            **(asked.lang_model_kwargs or {}),
            **{name: value for name, value in own.items() if value is not None},
        }
        if unknown := sorted(set(wanted) - PASSED_ON):
            field = f"lang_model_kwargs.{unknown[0]}"
            raise ServeError(400, f"{field}: it cannot be set", code="unknown_field", param=field)
        fitting: ChatRequest = _fitting(ChatRequest, {**wanted, "model": self.served.name, "messages": messages})
        return fitting.model_dump(include=set(PASSED_ON), exclude_none=True, by_alias=True)

    async def _streamed(self, pieces: Pieces) -> Response:
        """Answer with pieces of text; what fails before the first one has a status of its own."""
        as_events = _EVENTS in self.request.headers.get("accept", "").lower()
        try:
            first = await anext(pieces, "")
        except BaseException:
            await _shielded(pieces.aclose())
            raise
        return _Streamed(first, pieces, as_events=as_events)


Pieces = Any  # `Texts` or an async generator of texts


class _Streamed(StreamingResponse):
    """Text in pieces; however it ends, what makes it is closed."""

    def __init__(self, first: str, pieces: Pieces, *, as_events: bool) -> None:
        self._pieces = pieces
        chunks = _events(first, pieces) if as_events else _raw(first, pieces)
        headers = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(chunks, headers=headers, media_type=_EVENTS if as_events else "text/plain; charset=utf-8")

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        """Send the pieces as they come, as long as the client is there."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await _shielded(self._closed())

    async def _closed(self) -> None:
        chunks: Any = self.body_iterator
        try:
            await chunks.aclose()
            await self._pieces.aclose()
        except (ServeError, LlmkitError) as error:
            log.warning("request %s: a stream could not be closed: %s", current().id, error)


async def _raw(first: str, pieces: Pieces) -> AsyncGenerator[bytes, None]:
    if first:
        yield first.encode(errors="replace")
    try:
        async for piece in pieces:
            yield piece.encode(errors="replace")
    except (ServeError, LlmkitError) as error:
        # text has no form for an error; the connection is broken off, which clients tell from an end
        log.warning("request %s: the stream failed: %s", current().id, error)
        raise


async def _events(first: str, pieces: Pieces) -> AsyncGenerator[bytes, None]:
    if first:
        yield _event(first)
    try:
        async for piece in pieces:
            yield _event(piece)
    except (ServeError, LlmkitError) as error:
        yield b"event: error\ndata: " + refusal(error, current().id).body() + b"\n\n"
    else:
        yield f"data: {DONE}\n\n".encode()


def _event(text: str) -> bytes:
    misread = "\r" in text or text == DONE or (text.lstrip()[:1] == "{" and isinstance(read_json(text), dict))
    lines = json.dumps({"content": text}) if misread else text.replace("\n", "\ndata: ")
    return f"data: {lines}\n\n".encode(errors="replace")


async def _contents(stream: PieceStream) -> AsyncGenerator[str, None]:
    """Yield the text of an answer in pieces."""
    try:
        async for piece in stream:
            if piece.content:
                yield piece.content
    finally:
        await stream.aclose()


async def _one(text: str) -> AsyncGenerator[str, None]:
    if text:
        yield text


async def _shielded(work: Coroutine[Any, Any, None]) -> None:
    """Do something to its end, also where whoever waits for it is cancelled."""
    task = asyncio.ensure_future(work)
    _closings.add(task)
    task.add_done_callback(_closings.discard)
    await asyncio.shield(task)


def _prt_lang_answer(reply: Reply) -> dict[str, Any]:
    usage = reply.usage
    more = {"finish_reason": reply.finish_reason, "cost_usd": usage.cost_usd}
    return {
        "content": reply.text,
        "lang_model": reply.name or reply.model,
        "input_tokens": usage.prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "additional_kwargs": {name: value for name, value in more.items() if value is not None},
    }


def _role(at: int, role: str | None) -> str:
    if role not in _ROLES:
        field = f"messages.{at}.role"
        raise ServeError(400, f"{field}: {role!r} is none of human, ai, system", code="invalid_value", param=field)
    return _ROLES[role]


def _object(body: bytes) -> dict[str, Any]:
    """Return a body that is a JSON object."""
    if not body.strip():
        raise ServeError(
            400, "the request has no body: send JSON with user_prompt", code="missing_field", param="user_prompt"
        )
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ServeError(400, f"the body is not JSON: {error}", code="invalid_json") from error
    if not isinstance(found, dict):
        raise ServeError(400, f"the body must be a JSON object, not {type(found).__name__}", code="invalid_json")
    return found


def _fitting(kind: type[Any], body: Mapping[str, Any]) -> Any:
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        told = validation(error.errors())
        raise ServeError(told.status, told.message, code=told.code, param=told.param) from error


def _provenance(name: str, meta: Mapping[str, Any]) -> dict[str, str]:
    told = {"id": meta.get("id", name), "name": name, "version": meta.get("version", "1")}
    return {f"x-prt-model-{key}": quote(str(value), safe=" !#$&'()*+,/:;=?@[]~") for key, value in told.items()}


def _json(data: Any, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(data, ensure_ascii=False, default=str), media_type=_JSON, headers=headers)


def _refused(error: Exception) -> Response:
    told = refusal(error, current().id)
    return Response(told.body(), told.status, told.headers, _JSON)
