"""OpenAI's protocol: `/v1/models`, `/v1/chat/completions`, `/v1/embeddings`, `/v1/audio/transcriptions`."""

from __future__ import annotations

import base64
import json
import struct
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import PlainTextResponse, Response

from llmkit.serve import _shapes as shapes
from llmkit.serve._errors import ServeError
from llmkit.serve._wire import Events, JsonAnswer, completion, events, told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Sequence

    from llmkit.serve._served import Caller, Served

_STATUSES = (400, 401, 403, 404, 413, 429, 500, 502, 503, 504)
Documented: TypeAlias = "dict[int | str, dict[str, Any]]"
ERRORS: Documented = {
    status: {"model": shapes.ErrorAnswer, "description": "An error in OpenAI's shape."} for status in _STATUSES
}
_JSON = {"application/json": {"schema": {"type": "object"}}}
_CHAT: Documented = {
    200: {"description": "The answer, whole or as events.", "content": _JSON | {"text/event-stream": {}}}
}
_OBJECT: Documented = {200: {"description": "The answer.", "content": _JSON}}
_TEXT: Documented = {200: {"description": "The text.", "content": _JSON | {"text/plain": {}}}}
_ADDRESSED = {"image_url", "video_url"}
_SCHEMES = ("http://", "https://", "data:", "gs://")


def openai_routes(
    served: Sequence[Served], find: Callable[[str], Served], guard: Callable[[Request], Awaitable[Caller]]
) -> APIRouter:
    """Return the routes.

    Args:
        served: everything there is.
        find: returns what has a name, or raises a ServeError.
        guard: returns who asks, or raises a ServeError.
    """
    router = APIRouter(prefix="/v1", tags=["openai"], responses=ERRORS)

    async def allowed(request: Request, name: str) -> tuple[Served, Caller]:
        caller = await guard(request)
        found = find(name)
        if not caller.may_ask(name):
            raise ServeError(403, f"this key may not ask {name!r}", code="model_not_allowed", param="model")
        return found, caller

    @router.get("/models", responses=_OBJECT)
    async def models(request: Request) -> Response:
        """List the models that the key may ask."""
        caller = await guard(request)
        return JsonAnswer({"object": "list", "data": [_card(each) for each in served if caller.may_ask(each.name)]})

    @router.get("/models/{name}", responses=_OBJECT)
    async def model(request: Request, name: str) -> Response:
        """Tell of one model."""
        return JsonAnswer(_card((await allowed(request, name))[0]))

    @router.post("/chat/completions", responses=_CHAT)
    async def chat(request: Request, asked: shapes.ChatRequest) -> Response:
        """Answer a chat, whole or (`stream`) in pieces."""
        found, caller = await allowed(request, asked.model)
        body = await request.json()
        _check(body, await request.body())
        params = {key: value for key, value in body.items() if value is not None and key in shapes.PASSED_ON}
        if not asked.stream:
            reply = await found.answer(body["messages"], params, caller)
            return JsonAnswer(completion(reply, asked.model), headers=told(reply))
        pieces = events(
            found.stream(body["messages"], params, caller),
            asked.model,
            with_usage=asked.wants_usage(),
            calls_tools=getattr(found, "calls_tools", False),
        )
        return Events(await anext(pieces), pieces)  # what fails before the first event has a status of its own

    _beside_chat(router, allowed)
    return router


def _beside_chat(
    router: APIRouter, allowed: Callable[[Request, str], Coroutine[Any, Any, tuple[Served, Caller]]]
) -> None:
    """Add the routes for vectors and sound."""

    @router.post("/embeddings", responses=_OBJECT)
    async def embeddings(request: Request, asked: shapes.EmbeddingRequest) -> Response:
        """Return a vector for each text."""
        found, caller = await allowed(request, asked.model)
        embed = _ability(found, "embed", "makes no vectors")
        params = asked.model_dump(include={"dimensions", "user"}, exclude_none=True)
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        reply = await embed(texts, params, caller)
        return JsonAnswer(_vectors(reply, asked), headers=told(reply))

    @router.post("/audio/transcriptions", responses=_TEXT)
    async def transcriptions(
        request: Request,
        file: Annotated[UploadFile, File(description="The sound.")],
        model: Annotated[str, Form(min_length=1)],
        language: Annotated[str | None, Form()] = None,
        prompt: Annotated[str | None, Form()] = None,
        response_format: Annotated[str, Form(pattern="^(json|text)$")] = "json",
        temperature: Annotated[float | None, Form(ge=0, le=1)] = None,
    ) -> Response:
        """Return the text that is spoken."""
        found, caller = await allowed(request, model)
        transcribe = _ability(found, "transcribe", "hears no sound")
        given = {"language": language, "prompt": prompt, "temperature": temperature}
        params = {name: value for name, value in given.items() if value is not None}
        reply = await transcribe((file.filename or "audio.wav", await file.read()), params, caller)
        if response_format == "text":
            return PlainTextResponse(reply.text + "\n", headers=told(reply))
        return JsonAnswer({"text": reply.text}, headers=told(reply))


def _card(served: Served) -> dict[str, Any]:
    meta = served.meta()
    card = {"id": served.name, "object": "model", "created": 0, "owned_by": "llmkit"}
    return card | ({"description": meta["description"]} if meta.get("description") else {})


def _ability(served: Served, name: str, why: str) -> Any:
    found = getattr(served, name, None)
    if found is None:
        raise ServeError(400, f"{served.name!r} {why}", code="unsupported_model", param="model")
    return found


def _check(body: dict[str, Any], raw: bytes) -> None:
    """Refuse streams of several choices, halves of characters, and addresses of the server's own files."""
    if b"\\ud" in raw.lower():
        json.dumps(body, ensure_ascii=False).encode()  # of a half, no provider makes anything
    if body.get("stream") and (body.get("n") or 1) > 1:
        raise ServeError(400, "a stream has one choice", code="unsupported_value", param="n")
    for index, message in enumerate(body["messages"]):
        content = message.get("content")
        for number, part in enumerate(content if isinstance(content, list) else ()):
            for kind in _ADDRESSED & part.keys():
                url = part[kind].get("url") if isinstance(part[kind], dict) else part[kind]
                if isinstance(url, str) and not url.lower().startswith(_SCHEMES):
                    where = f"messages.{index}.content.{number}.{kind}"
                    raise ServeError(400, f"{where}: an address begins with https:// or data:", param=where)


def _vectors(reply: Any, asked: shapes.EmbeddingRequest) -> dict[str, Any]:
    usage = {"prompt_tokens": reply.usage.prompt_tokens, "total_tokens": reply.usage.total_tokens}
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector, asked.encoding_format)}
        for index, vector in enumerate(reply.data)
    ]
    return {"object": "list", "model": asked.model, "data": data, "usage": usage}


def _packed(vector: Sequence[float], encoding: str | None) -> Any:
    """Return a vector as it was asked for: OpenAI's own clients ask for Base64 of 32-bit floats."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if encoding == "base64" else vector
