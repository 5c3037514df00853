"""The protocol of the page: conversations that the server keeps, each for the key that began it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import Response

from llmkit.serve.allowlist import NewConversation, NextQuestion
from llmkit.serve.context import caller, current
from llmkit.serve.conversations import ID_HEADER, Conversations, answered, owner_of, variables_of
from llmkit.serve.errors import ServeError
from llmkit.serve.routes.operations import Operations
from llmkit.serve.routes.responses import EVENTS, JsonResponse, streamed

if TYPE_CHECKING:
    from starlette.requests import Request

    from llmkit.serve.served import Models, Served
    from llmkit.store import SessionInfo, Store

_VISITOR = "x-llmkit-visitor"
_HEADERS = {_VISITOR: "Without a key: a secret of 22 letters or more."}


def conversation_routes(models: Models, store: Store) -> Operations:
    """Return the operations at `/conversations` and `/conversations/{conversation_id}`."""
    operations, kept = Operations("/conversations", tag="conversations"), Conversations(store)

    def owner(request: Request) -> str:
        return owner_of(caller(), request.headers.get(_VISITOR, ""))

    async def found(request: Request) -> SessionInfo:
        return await asyncio.to_thread(kept.find, request.path_params["conversation_id"], owner(request))

    @operations.get("", headers=_HEADERS)
    async def listed(request: Request) -> Response:
        """List the caller's conversations, the last changed first."""
        return JsonResponse({"object": "list", "data": await asyncio.to_thread(kept.all, owner(request))})

    @operations.post("", body=NewConversation, returns=(EVENTS,), headers=_HEADERS)
    async def begin(request: Request, body: NewConversation) -> Response:
        """Begin a conversation with a question; its id is in the header `x-llmkit-conversation`."""
        whose = owner(request)
        access = models.access(body.model).given(body.variables or {})
        conversation_id = await asyncio.to_thread(kept.begin, access.served, body.content, whose)
        current().headers[ID_HEADER] = conversation_id
        return await streamed(answered(access, store, conversation_id))

    @operations.get("/{conversation_id}", headers=_HEADERS)
    async def show(request: Request) -> Response:
        """Return one with its questions and answers."""
        info = await found(request)
        return JsonResponse(await asyncio.to_thread(kept.told, info, _served(models, info)))

    @operations.post("/{conversation_id}", body=NextQuestion, returns=(EVENTS,), headers=_HEADERS)
    async def ask(request: Request, body: NextQuestion) -> Response:
        """Ask the next question, or the last one again if that has no answer."""
        info = await found(request)
        access = models.access(info.preset)
        access = access.given(variables_of(info, access.served))
        return await streamed(answered(access, store, info.id, body.content))

    @operations.delete("/{conversation_id}", statuses=(204,), returns=(), headers=_HEADERS)
    async def remove(request: Request) -> Response:
        """Delete one."""
        await asyncio.to_thread(kept.remove, await found(request))
        return Response(status_code=204)

    return operations


def _served(models: Models, info: SessionInfo) -> Served | None:
    """Return what answers a conversation, or None if the caller cannot ask it any more."""
    try:
        return models.access(info.preset).served
    except ServeError:
        return None
