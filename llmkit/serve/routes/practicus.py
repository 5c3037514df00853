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
from starlette.requests import Request  # noqa: TC002 - FastAPI reads the annotations
from starlette.responses import Response, StreamingResponse

from llmkit._sse import DONE, read_json
from llmkit.errors import LlmkitError
from llmkit.serve import allowlist
from llmkit.serve._errors import ServeError
from llmkit.serve.auth import presented
from llmkit.serve.body import loads
from llmkit.serve.context import caller_of, current
from llmkit.serve.errors import refusal
from llmkit.serve.hosted.results import Texts

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, MutableMapping

    from llmkit.serve.keys import Keys
    from llmkit.serve.served import Caller, PieceStream, Served
    from llmkit.types import Reply

log = logging.getLogger("llmkit.serve")
TOKEN_PATH = "/auth/session-token/"  # noqa: S105 - a path
_JSON, _EVENTS = "application/json", "text/event-stream"
_ROLES = {"human": "user", "ai": "assistant", None: "user"}
_YES = {"true", "1", "yes"}
_closings: set[asyncio.Future[None]] = set()  # the loop itself keeps no task alive


def document_routes(allowed: Callable[[str], tuple[Served, Caller]]) -> APIRouter:
    """Return the routes `/MODEL/` and `/MODEL`; they go last, for they take every path of one part.

    Args:
        allowed: returns what is served under a name and who asks it, or raises a ServeError.
    """
    router = APIRouter(include_in_schema=False)

    async def ask(model: str, request: Request) -> Response:
        about: dict[str, str] = {}
        try:
            served, caller = allowed(model)
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
    """Return the route that gives a session token for a key; to those who may ask without one, for nobody's."""
    router = APIRouter(include_in_schema=False)

    async def issue(request: Request) -> Response:
        try:
            token, ends_at = await asyncio.to_thread(_issued, keys, presented(request.headers))
        except (ServeError, LlmkitError) as error:
            return _refused(error)
        return _json({"token": token, "expires_at": ends_at}, {"cache-control": "no-store"})

    for path in (TOKEN_PATH, TOKEN_PATH.rstrip("/")):
        router.add_api_route(path, issue, methods=["POST"], response_model=None)
    return router


def _issued(keys: Keys, key: str) -> tuple[str, float]:
    caller = caller_of(current())
    if caller.name and keys.of_key(key).caller is None:
        why = "a session token is given for a key of this server, and not for another token"
        raise ServeError(401, why, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
    return keys.issue(caller.name)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One request for an answer."""

    served: Served
    caller: Caller
    request: Request

    async def answered(self, body: dict[str, Any]) -> Response:
        predict = getattr(self.served, "predict", None)  # a preset has none
        if "messages" in body and "user_prompt" not in body:
            return await self._prt_lang(allowlist.read(allowlist.LangRequest, body), of_host=predict is not None)
        if predict is not None:
            streaming = body.get("streaming")
            if streaming is not None and not isinstance(streaming, bool):
                raise ServeError(400, "streaming: it must be true or false", code="invalid_value", param="streaming")
            result = await predict(body, http_request=self.request, requester=self.caller)
            return await self._predicted(result, streaming=bool(streaming))
        asked = allowlist.read(allowlist.PromptRequest, body)
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

    async def _prt_lang(self, asked: allowlist.LangRequest, *, of_host: bool) -> Response:
        messages = [{"role": _ROLES.get(each.role, each.role), "content": each.content} for each in asked.messages]
        params = self._params(asked)
        if of_host:  # a model.py gets the fields by the document's names
            params = asked.model_dump(exclude={"messages"}, exclude_none=True, exclude_unset=True)
        if asked.streaming:
            return await self._streamed(_contents(self.served.stream(messages, params, self.caller)))
        reply = await self.served.answer(messages, params, self.caller)
        return _json(_prt_lang_answer(reply))

    def _params(self, asked: allowlist.LangRequest) -> dict[str, Any]:
        """Return the parameters; those that the document has a field for win."""
        more = asked.lang_model_kwargs
        given = {} if more is None else allowlist.params_of(more, self.served, "lang_model_kwargs.")
        own = {"temperature": asked.temperature, "max_tokens": asked.max_tokens}
        return given | {name: value for name, value in own.items() if value is not None}

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


def _object(body: bytes) -> dict[str, Any]:
    """Return a body that is a JSON object."""
    if not body.strip():
        why = "the request has no body: send JSON with user_prompt"
        raise ServeError(400, why, code="missing_field", param="user_prompt")
    found = loads(body)
    if not isinstance(found, dict):
        raise ServeError(400, "the body must be a JSON object", code="invalid_json")
    return found


def _provenance(name: str, meta: Mapping[str, Any]) -> dict[str, str]:
    told = {"id": meta.get("id", name), "name": name, "version": meta.get("version", "1")}
    return {f"x-prt-model-{key}": quote(str(value), safe=" !#$&'()*+,/:;=?@[]~") for key, value in told.items()}


def _json(data: Any, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(data, ensure_ascii=False, default=str), media_type=_JSON, headers=headers)


def _refused(error: Exception) -> Response:
    told = refusal(error, current().id)
    return Response(told.body(), told.status, told.headers, _JSON)
