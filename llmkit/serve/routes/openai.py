"""OpenAI's protocol: `/v1/models`, `/v1/chat/completions`, `/v1/embeddings`, `/v1/audio/transcriptions`."""

from __future__ import annotations

import base64
import struct
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from fastapi import APIRouter, Form
from fastapi.responses import PlainTextResponse, Response

from llmkit.serve import allowlist
from llmkit.serve._errors import ServeError
from llmkit.serve.context import caller_of, current
from llmkit.serve.routes.openai_responses import Events, JsonAnswer, completion, events, told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llmkit.serve.served import Caller, Served

_STATUSES = (400, 401, 403, 404, 413, 429, 500, 502, 503, 504)
Documented: TypeAlias = "dict[int | str, dict[str, Any]]"
ERRORS: Documented = {
    status: {"model": allowlist.ErrorAnswer, "description": "An error in OpenAI's shape."} for status in _STATUSES
}
_JSON = {"application/json": {"schema": {"type": "object"}}}
_CHAT: Documented = {
    200: {"description": "The answer, whole or as events.", "content": _JSON | {"text/event-stream": {}}}
}
_OBJECT: Documented = {200: {"description": "The answer.", "content": _JSON}}
_TEXT: Documented = {200: {"description": "The text.", "content": _JSON | {"text/plain": {}}}}


def openai_routes(served: Sequence[Served], allowed: Callable[[str], tuple[Served, Caller]]) -> APIRouter:
    """Return the routes.

    Args:
        served: everything there is.
        allowed: returns what has a name and who asks it, or raises a ServeError.
    """
    router = APIRouter(prefix="/v1", tags=["openai"], responses=ERRORS)

    @router.get("/models", responses=_OBJECT)
    async def models() -> Response:
        """List the models that the key may ask."""
        caller = caller_of(current())
        return JsonAnswer({"object": "list", "data": [_card(each) for each in served if caller.may_ask(each.name)]})

    @router.get("/models/{name}", responses=_OBJECT)
    async def model(name: str) -> Response:
        """Tell of one model."""
        return JsonAnswer(_card(allowed(name)[0]))

    @router.post("/chat/completions", responses=_CHAT)
    async def chat(asked: allowlist.ChatRequest) -> Response:
        """Answer a chat, whole or (`stream`) in pieces."""
        found, caller = allowed(asked.model)
        messages, params = allowlist.messages_of(asked.messages, found), allowlist.params_of(asked, found)
        if not asked.stream:
            reply = await found.answer(messages, params, caller)
            return JsonAnswer(completion(reply, asked.model), headers=told(reply))
        if (asked.n or 1) > 1:
            raise ServeError(400, "a stream has one choice", code="unsupported_value", param="n")
        pieces = events(
            found.stream(messages, params, caller),
            asked.model,
            with_usage=asked.wants_usage(),
            calls_tools=getattr(found, "calls_tools", False),
        )
        return Events(await anext(pieces), pieces)  # what fails before the first event has a status of its own

    _beside_chat(router, allowed)
    return router


def _beside_chat(router: APIRouter, allowed: Callable[[str], tuple[Served, Caller]]) -> None:
    """Add the routes for vectors and sound."""

    @router.post("/embeddings", responses=_OBJECT)
    async def embeddings(asked: allowlist.EmbeddingRequest) -> Response:
        """Return a vector for each text."""
        found, caller = allowed(asked.model)
        embed = _ability(found, "embed", "makes no vectors")
        params = asked.model_dump(include={"dimensions", "user"}, exclude_none=True)
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        reply = await embed(texts, params, caller)
        return JsonAnswer(_vectors(reply, asked), headers=told(reply))

    @router.post("/audio/transcriptions", responses=_TEXT)
    async def transcriptions(
        form: Annotated[allowlist.TranscriptionForm, Form(media_type="multipart/form-data")],
    ) -> Response:
        """Return the text that is spoken."""
        found, caller = allowed(form.model)
        transcribe = _ability(found, "transcribe", "hears no sound")
        params = form.model_dump(include={"language", "prompt", "temperature"}, exclude_none=True)
        name = PurePath(form.file.filename or "audio.wav").name
        reply = await transcribe((name, await form.file.read()), params, caller)
        if form.response_format == "text":
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


def _vectors(reply: Any, asked: allowlist.EmbeddingRequest) -> dict[str, Any]:
    usage = {"prompt_tokens": reply.usage.prompt_tokens, "total_tokens": reply.usage.total_tokens}
    data = [
        {"object": "embedding", "index": index, "embedding": _packed(vector, asked.encoding_format)}
        for index, vector in enumerate(reply.data)
    ]
    return {"object": "list", "model": asked.model, "data": data, "usage": usage}


def _packed(vector: Sequence[float], encoding: str | None) -> Any:
    """Return a vector as it was asked for: OpenAI's own clients ask for Base64 of 32-bit floats."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if encoding == "base64" else vector
