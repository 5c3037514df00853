"""The protocol of the page: conversations that the server keeps, each for the key that began it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Header, Response

from llmkit.serve.allowlist import NewConversation, NextQuestion  # noqa: TC001 - FastAPI reads the annotations
from llmkit.serve.context import caller, current
from llmkit.serve.conversations import Conversations, answered, owner_of, variables_of
from llmkit.serve.errors import ServeError
from llmkit.serve.routes.responses import EVENTS, streamed

if TYPE_CHECKING:
    from llmkit.serve.served import Models, Served
    from llmkit.store import SessionInfo, Store

ID_HEADER = "x-llmkit-conversation"
"""The header of an answer, or of an error, that has the id of the conversation."""
Visitor = Annotated[str, Header(alias="x-llmkit-visitor", description="Without a key: a secret of 22 letters or more.")]
_EVENTS: dict[int | str, dict[str, Any]] = {200: {"description": "The answer as events.", "content": {EVENTS: {}}}}


def conversation_routes(models: Models, store: Store) -> APIRouter:
    """Return the routes: `/conversations` and `/conversations/{id}`."""
    router, kept = APIRouter(prefix="/conversations", tags=["conversations"]), Conversations(store)

    async def found(conversation_id: str, visitor: str) -> SessionInfo:
        return await asyncio.to_thread(kept.find, conversation_id, owner_of(caller(), visitor))

    @router.get("")
    async def listed(visitor: Visitor = "") -> dict[str, Any]:
        """List the caller's conversations, the last changed first."""
        return {"object": "list", "data": await asyncio.to_thread(kept.all, owner_of(caller(), visitor))}

    @router.post("", responses=_EVENTS)
    async def begin(body: NewConversation, visitor: Visitor = "") -> Response:
        """Begin a conversation with a question; its id is in the header `x-llmkit-conversation`."""
        owner = owner_of(caller(), visitor)
        access = models.access(body.model).given(body.variables or {})
        conversation_id = await asyncio.to_thread(kept.begin, access.served, body.content, owner)
        current().headers[ID_HEADER] = conversation_id
        return await streamed(answered(access, store, conversation_id))

    @router.get("/{conversation_id}")
    async def show(conversation_id: str, visitor: Visitor = "") -> dict[str, Any]:
        """Return one with its questions and answers."""
        info = await found(conversation_id, visitor)
        return await asyncio.to_thread(kept.told, info, _served(models, info))

    @router.post("/{conversation_id}", responses=_EVENTS)
    async def ask(conversation_id: str, body: NextQuestion, visitor: Visitor = "") -> Response:
        """Ask the next question, or the last one again if that has no answer."""
        info = await found(conversation_id, visitor)
        access = models.access(info.preset)
        access = access.given(variables_of(info, access.served))
        if body.content is not None:
            await asyncio.to_thread(kept.add, info, body.content)
        return await streamed(answered(access, store, info.id))

    @router.delete("/{conversation_id}", status_code=204)
    async def remove(conversation_id: str, visitor: Visitor = "") -> Response:
        """Delete one."""
        await asyncio.to_thread(kept.remove, await found(conversation_id, visitor))
        return Response(status_code=204)

    return router


def _served(models: Models, info: SessionInfo) -> Served | None:
    """Return what answers a conversation, or None if the caller cannot ask it any more."""
    try:
        return models.access(info.preset).served
    except ServeError:
        return None
