"""OpenAI's protocol: `/v1/models`, `/v1/chat/completions`, `/v1/embeddings`, `/v1/audio/transcriptions`."""

from __future__ import annotations

import base64
import struct
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from fastapi import APIRouter, Form
from fastapi.responses import PlainTextResponse, Response

from llmkit.serve import allowlist
from llmkit.serve.context import caller
from llmkit.serve.errors import ErrorAnswer, ServeError
from llmkit.serve.routes.openai_responses import completion, cost_headers, events
from llmkit.serve.routes.responses import JsonResponse, streamed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmkit.core.types import Reply
    from llmkit.serve.served import Models, Served

_STATUSES = (400, 401, 403, 404, 409, 413, 429, 500, 502, 503, 504)
Documented: TypeAlias = "dict[int | str, dict[str, Any]]"
ERRORS: Documented = {
    status: {"model": ErrorAnswer, "description": "An error in OpenAI's shape."} for status in _STATUSES
}
_JSON = {"application/json": {"schema": {"type": "object"}}}
_CHAT: Documented = {
    200: {"description": "The answer, whole or as events.", "content": _JSON | {"text/event-stream": {}}}
}
_OBJECT: Documented = {200: {"description": "The answer.", "content": _JSON}}
_TEXT: Documented = {200: {"description": "The text.", "content": _JSON | {"text/plain": {}}}}


def openai_routes(models: Models) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/v1", tags=["openai"], responses=ERRORS)

    @router.get("/models", responses=_OBJECT)
    async def list_models() -> Response:
        """List the models that the key may call."""
        allowed = caller().may_ask
        cards = [_card(served) for served in models.served if allowed(served.name)]
        return JsonResponse({"object": "list", "data": cards})

    @router.get("/models/{name}", responses=_OBJECT)
    async def model(name: str) -> Response:
        """Describe one model."""
        return JsonResponse(_card(models.access(name).served))

    @router.post("/chat/completions", responses=_CHAT)
    async def chat(request: allowlist.ChatRequest) -> Response:
        """Answer a chat, whole or (`stream`) in pieces."""
        access = models.access(request.model)
        messages = allowlist.messages_of(request.messages, access.served)
        params = allowlist.params_of(request, access.served)
        if not request.stream:
            reply = await access.answer(messages, params)
            return JsonResponse(completion(reply, request.model), headers=cost_headers(reply))
        if (request.n or 1) > 1:
            raise ServeError(400, "a stream has one choice", code="unsupported_value", param="n")
        stream = access.stream(messages, params)
        with_usage, calls_tools = request.wants_usage(), access.served.calls_tools
        return await streamed(events(stream, request.model, with_usage=with_usage, calls_tools=calls_tools))

    _add_vectors_and_sound(router, models)
    return router


def _add_vectors_and_sound(router: APIRouter, models: Models) -> None:
    @router.post("/embeddings", responses=_OBJECT)
    async def embeddings(request: allowlist.EmbeddingRequest) -> Response:
        """Return a vector for each text."""
        access = models.access(request.model)
        params = request.model_dump(include={"dimensions", "user"}, exclude_none=True)
        texts = [request.input] if isinstance(request.input, str) else request.input
        reply = await access.embed(texts, params)
        return JsonResponse(_vectors(reply, request), headers=cost_headers(reply))

    @router.post("/audio/transcriptions", responses=_TEXT)
    async def transcriptions(
        form: Annotated[allowlist.TranscriptionForm, Form(media_type="multipart/form-data")],
    ) -> Response:
        """Return the text that is spoken."""
        access = models.access(form.model)
        params = form.model_dump(include={"language", "prompt", "temperature"}, exclude_none=True)
        file = PurePath(form.file.filename or "audio.wav").name, await form.file.read()
        reply = await access.transcribe(file, params)
        if form.response_format == "text":
            return PlainTextResponse(reply.text + "\n", headers=cost_headers(reply))
        return JsonResponse({"text": reply.text}, headers=cost_headers(reply))


def _card(served: Served) -> dict[str, Any]:
    meta = served.meta()
    card = {"id": served.name, "object": "model", "created": 0, "owned_by": "llmkit"}
    told = {"description": meta.get("description"), "variables": dict(served.client_variables)}
    return card | {name: value for name, value in told.items() if value}


def _vectors(reply: Reply, request: allowlist.EmbeddingRequest) -> dict[str, Any]:
    usage = {"prompt_tokens": reply.usage.prompt_tokens, "total_tokens": reply.usage.total_tokens}
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector, request.encoding_format)}
        for index, vector in enumerate(reply.data)
    ]
    return {"object": "list", "model": request.model, "data": data, "usage": usage}


def _packed(vector: Sequence[float], encoding: str | None) -> Any:
    """Return a vector in the requested format: OpenAI's own clients request Base64 of 32-bit floats."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if encoding == "base64" else vector
