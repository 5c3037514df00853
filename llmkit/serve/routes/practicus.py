"""Practicus' protocol, `GET|POST /MODEL/`: a prompt or PrtLang messages in, JSON or text out; and session tokens.

Every answer of a model, even an error, has headers that say which model it is. Server-sent events have the text as it
is; only text that a client would misread is sent as `{"content": …}`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.responses import Response

from llmkit.errors import LlmkitError
from llmkit.providers.transport.events import DONE as DONE_TEXT
from llmkit.providers.transport.events import read_json
from llmkit.serve import allowlist
from llmkit.serve.auth import CHALLENGE, presented
from llmkit.serve.context import caller, current
from llmkit.serve.errors import ServeError
from llmkit.serve.hosted.host import Host
from llmkit.serve.routes.operations import Operation
from llmkit.serve.routes.responses import DONE, EVENTS, error_event, event, streamed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from starlette.requests import Request

    from llmkit.core.types import Reply
    from llmkit.serve.keys import Keys
    from llmkit.serve.served import Access, Models

log = logging.getLogger("llmkit.serve")
TOKEN_PATH = "/auth/session-token/"  # noqa: S105 - a path
_ROLES = {"human": "user", "ai": "assistant", None: "user"}
_YES = {"true", "1", "yes"}


def document_routes(models: Models) -> list[Operation]:
    """Return the operations at `/MODEL/` and `/MODEL`; they come last, since they match every path of one part."""

    async def ask(request: Request) -> Response:
        model = request.path_params["model"]
        access = models.access(model)
        meta = access.served.meta()
        current().headers.update(_model_headers(model, meta))
        if request.query_params.get("get_meta", "").lower() in _YES:
            return _json(meta)
        return await _Question(access, request).response(_object(await request.body()))

    # a redirect from one to the other would lose the body
    return [Operation(method, path, ask) for path in ("/{model}/", "/{model}") for method in ("GET", "POST")]


def token_routes(keys: Keys) -> list[Operation]:
    """Return the operation that exchanges a key for a session token; callers who need no key get one for nobody."""

    async def issue(request: Request) -> Response:
        token, ends_at = await asyncio.to_thread(_issue, keys, presented(request.headers))
        current().headers["cache-control"] = "no-store"
        return _json({"token": token, "expires_at": ends_at})

    return [Operation("POST", path, issue) for path in (TOKEN_PATH, TOKEN_PATH.rstrip("/"))]


def _issue(keys: Keys, key: str) -> tuple[str, float]:
    name = caller().name
    if name and keys.of_key(key)[0] is None:
        why = "a session token is given for a key of this server, and not for another token"
        raise ServeError(401, why, code="invalid_api_key", headers=CHALLENGE)
    return keys.issue(name)


@dataclass(frozen=True, slots=True)
class _Question:
    """One request for an answer."""

    access: Access
    request: Request

    async def response(self, body: dict[str, Any]) -> Response:
        served = self.access.served
        if "messages" in body and "user_prompt" not in body:
            return await self._of_messages(allowlist.read(allowlist.LangRequest, body))
        if isinstance(served, Host):  # its model.py decides what to make of the body
            streaming = body.get("streaming")
            if streaming is not None and not isinstance(streaming, bool):
                raise ServeError(400, "streaming: it must be true or false", code="invalid_value", param="streaming")
            result = await served.predict(body, http_request=self.request, requester=self.access.caller)
            return await self._of_result(served, result, streaming=bool(streaming))
        question = allowlist.read(allowlist.PromptRequest, body)
        context = [{"role": "system", "content": question.system_context}] if question.system_context else []
        messages = [*context, {"role": "user", "content": question.user_prompt}]
        if question.streaming:
            return await self._streamed(self._contents(messages, {}))
        return _json({"answer": (await self.access.answer(messages, {})).text})

    async def _of_result(self, host: Host, result: Any, *, streaming: bool) -> Response:
        """Answer with the result of a model.py."""
        if isinstance(result, Response):
            return result
        if streaming:
            return await self._streamed(host.texts(result))
        if host.is_stream(result):
            return _json({"answer": await host.text(result)})
        return Response(host.json(result), media_type="application/json")

    async def _of_messages(self, question: allowlist.LangRequest) -> Response:
        messages = [
            {"role": _ROLES.get(message.role, message.role), "content": message.content}
            for message in question.messages
        ]
        if isinstance(self.access.served, Host):  # a model.py gets the fields by the protocol's names
            params = question.model_dump(exclude={"messages"}, exclude_none=True, exclude_unset=True)
        else:
            params = self._params(question)
        if question.streaming:
            return await self._streamed(self._contents(messages, params))
        return _json(_lang_answer(await self.access.answer(messages, params)))

    def _params(self, question: allowlist.LangRequest) -> dict[str, Any]:
        """Return the parameters; those that the protocol has a field for win."""
        more = question.lang_model_kwargs
        given = {} if more is None else allowlist.params_of(more, self.access.served, "lang_model_kwargs.")
        own = {"temperature": question.temperature, "max_tokens": question.max_tokens}
        return given | {name: value for name, value in own.items() if value is not None}

    async def _contents(self, messages: list[dict[str, Any]], params: Mapping[str, Any]) -> AsyncGenerator[str, None]:
        """Yield the text of an answer in pieces."""
        async with self.access.stream(messages, params) as stream:
            async for piece in stream:
                if piece.content:
                    yield piece.content

    async def _streamed(self, texts: AsyncGenerator[str, None]) -> Response:
        if EVENTS in self.request.headers.get("accept", "").lower():
            return await streamed(_as_events(texts))
        return await streamed(_as_text(texts), "text/plain; charset=utf-8")


async def _as_text(texts: AsyncGenerator[str, None]) -> AsyncGenerator[bytes, None]:
    try:
        async for text in texts:
            yield text.encode(errors="replace")
    except (ServeError, LlmkitError) as error:
        # text has no form for an error; the connection is broken off, which clients distinguish from an end
        log.warning("request %s: the stream failed: %s", current().id, error)
        raise
    finally:
        await texts.aclose()


async def _as_events(texts: AsyncGenerator[str, None]) -> AsyncGenerator[bytes, None]:
    began = False
    try:
        async for text in texts:
            began = True
            yield _text_event(text)
        yield DONE
    except (ServeError, LlmkitError) as error:
        if not began:
            raise
        yield b"event: error\n" + error_event(error)
    finally:
        await texts.aclose()


def _text_event(text: str) -> bytes:
    misread = "\r" in text or text == DONE_TEXT or (text.lstrip()[:1] == "{" and isinstance(read_json(text), dict))
    return event(json.dumps({"content": text}) if misread else text)


def _lang_answer(reply: Reply) -> dict[str, Any]:
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
    """Return a body that must be a JSON object."""
    if not body.strip():
        why = "the request has no body: send JSON with user_prompt"
        raise ServeError(400, why, code="missing_field", param="user_prompt")
    data = current().data
    if not isinstance(data, dict):
        raise ServeError(400, "the body must be a JSON object", code="invalid_json")
    return data


def _model_headers(name: str, meta: Mapping[str, Any]) -> dict[str, str]:
    about = {"id": meta.get("id", name), "name": name, "version": meta.get("version", "1")}
    return {f"x-prt-model-{key}": quote(str(value), safe=" !#$&'()*+,/:;=?@[]~") for key, value in about.items()}


def _json(data: Any) -> Response:
    return Response(json.dumps(data, ensure_ascii=False, default=str), media_type="application/json")
