"""OpenAI's protocol: `/v1/models`, `/v1/chat/completions`, `/v1/embeddings`, `/v1/audio/transcriptions`."""

from __future__ import annotations

import base64
import struct
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from starlette.responses import PlainTextResponse, Response

from llmkit.errors import ResponseError
from llmkit.serve import allowlist
from llmkit.serve.body import FORM, JSON
from llmkit.serve.context import caller
from llmkit.serve.errors import ServeError
from llmkit.serve.routes.openai_responses import completion, cost_headers, events
from llmkit.serve.routes.operations import Operations
from llmkit.serve.routes.responses import EVENTS, JsonResponse, streamed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    from llmkit.core.types import Reply
    from llmkit.serve.served import Models, Served


def openai_routes(models: Models) -> Operations:
    """Return the operations."""
    operations = Operations("/v1", tag="openai")

    @operations.post("/chat/completions", body=allowlist.ChatRequest, returns=(JSON, EVENTS))
    async def chat(_: Request, request: allowlist.ChatRequest) -> Response:
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

    @operations.get("/models")
    async def list_models(_: Request) -> Response:
        """List the models that the key may call."""
        allowed = caller().may_ask
        cards = [_card(served) for served in models.served if allowed(served.name)]
        return JsonResponse({"object": "list", "data": cards})

    @operations.get("/models/{name}")
    async def model(request: Request) -> Response:
        """Describe one model."""
        return JsonResponse(_card(models.access(request.path_params["name"]).served))

    _add_vectors_and_sound(operations, models)
    return operations


def _add_vectors_and_sound(operations: Operations, models: Models) -> None:
    @operations.post("/embeddings", body=allowlist.EmbeddingRequest)
    async def embeddings(_: Request, request: allowlist.EmbeddingRequest) -> Response:
        """Return a vector for each text."""
        access = models.access(request.model)
        params = request.model_dump(include={"dimensions", "user"}, exclude_none=True)
        texts = [request.input] if isinstance(request.input, str) else request.input
        reply = await access.embed(texts, params)
        return JsonResponse(_vectors(reply, request), headers=cost_headers(reply))

    @operations.post(
        "/audio/transcriptions", body=allowlist.TranscriptionForm, sent_as=FORM, returns=(JSON, "text/plain")
    )
    async def transcriptions(_: Request, form: allowlist.TranscriptionForm) -> Response:
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
    """Return a vector in the requested format: OpenAI's own clients request Base64 of 32-bit floats.

    Raises:
        ResponseError: the provider's vector has something else.
    """
    if encoding != "base64":
        return vector
    try:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    except (OverflowError, struct.error, TypeError) as error:
        raise ResponseError(f"a vector is none of 32-bit floats: {error}") from error
