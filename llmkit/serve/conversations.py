"""The conversations that a server keeps for its callers: sessions of the store, each for the one who began it.

Nobody finds another's: neither a caller those of another key, nor the command line of this machine those of callers.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from llmkit.api import real_backend
from llmkit.core.engine import adrive
from llmkit.errors import SessionBusyError, UnknownSessionError
from llmkit.serve.context import current
from llmkit.serve.errors import ServeError
from llmkit.serve.routes.responses import DONE, error_event, json_event
from llmkit.sessions.keeping import details_of
from llmkit.sessions.run import HistoryCache, SessionRun
from llmkit.sessions.snapshot import DEPLOY, chosen

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from llmkit.core.types import Reply
    from llmkit.serve.context import Caller
    from llmkit.serve.served import Access, Served
    from llmkit.store import SessionInfo, Store

ID_HEADER = "x-llmkit-conversation"
"""The header of an answer, or of an error, with the id of the conversation that has kept the question."""
LISTED = 100
"""How many conversations are listed, the last changed ones."""
_SECRET = re.compile(r"[A-Za-z0-9_-]{22,128}", re.ASCII)
_TOLD = ("prompt_tokens", "completion_tokens", "cost_usd", "latency_s", "finish_reason")


def owner_of(caller: Caller, secret: str) -> str:
    """Return whose conversations a caller may see: those of its key, or without keys those of the secret it sent.

    Raises:
        ServeError: there is neither.
    """
    if caller.owner:
        return caller.owner
    if not _SECRET.fullmatch(secret):
        why = "without a key a conversation belongs to whoever knows its secret: send 22 random letters or more"
        raise ServeError(400, f"x-llmkit-visitor: {why}", code="missing_visitor", param="x-llmkit-visitor")
    return f"visitor:{hashlib.sha256(secret.encode()).hexdigest()[:32]}"


class Conversations:
    """The conversations of a store. Its methods block: call them on a thread."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def begin(self, served: Served, content: str, owner: str) -> str:
        """Begin a conversation with a question, and return its id."""
        session_id = str(uuid.uuid4())
        self.store.create(
            session_id,
            preset=served.name,
            version=None,
            snapshot=served.snapshot(),
            messages=[{"role": "user", "content": content}],
            served_to=owner,
        )
        return session_id

    def find(self, session_id: str, owner: str) -> SessionInfo:
        """Return a conversation of the owner's.

        Raises:
            ServeError: there is none; another's looks the same as one that does not exist.
        """
        try:
            info = self.store.session(session_id)
        except UnknownSessionError:
            info = None
        if info is None or info.served_to != owner:
            why = f"there is no conversation {session_id[:100]!r}"
            raise ServeError(404, why, code="conversation_not_found", param="conversation_id")
        return info

    def all(self, owner: str) -> list[dict[str, Any]]:
        """Return the owner's conversations, last changed first."""
        return [_described(info) for info in self.store.sessions(limit=LISTED, served_to=owner)]

    def told(self, info: SessionInfo, served: Served | None) -> dict[str, Any]:
        """Return a conversation with its questions and answers; what tools were asked and said is left out."""
        turns = self.store.turns(info.id)
        messages = [_message(message, details) for message, details in turns if _is_shown(message, details)]
        variables = variables_of(info, served) if served is not None else {}
        return _described(info) | {"variables": variables, "messages": messages}

    def remove(self, info: SessionInfo) -> None:
        """Delete a conversation with all its messages."""
        self.store.delete(info.id)


def variables_of(info: SessionInfo, served: Served) -> dict[str, Any]:
    """Return the values that a conversation has for the variables of what is served now."""
    values = info.snapshot.get("variables") or {}
    return {name: values[name] for name in served.client_variables if values.get(name) is not None}


async def answered(
    access: Access, store: Store, session_id: str, content: str | None = None
) -> AsyncGenerator[bytes, None]:
    """Yield the events of the answer to the last question, which the store keeps, as far as it came where it is left.

    A question in *content* is added in the same step in which the run begins: one that may not begin adds none. What is
    served under the name now answers, with its limits of today: a conversation keeps no preset of its own alive. An
    error before the first event is raised, one after it is an event without `[DONE]`.
    """
    current().session = session_id
    preset = chosen(access.served.preset, DEPLOY) if access.served.preset is not None else None
    run = SessionRun(store, session_id, preset, {}, HistoryCache())
    backend, stream, began = real_backend(), None, False
    try:
        try:
            added = [] if content is None else [{"role": "user", "content": content}]
            messages = await adrive(run.asked(added), backend)
            current().headers[ID_HEADER] = session_id  # whatever comes now, the question is kept
        except SessionBusyError as error:
            why = "another answer in this conversation is under way; try again when it has ended"
            raise ServeError(409, why, code="conversation_busy") from error
        async with access.stream(messages, {}) as stream:
            async for piece in stream:
                run.text += piece.content
                texts = {"content": piece.content, "reasoning": piece.reasoning}
                if said := {name: text for name, text in texts.items() if text}:
                    began = True
                    yield json_event(said)
        reply = await adrive(run.ended(stream.reply), backend)
        yield json_event({"answer": _numbers(reply), "kept": reply.warnings == stream.reply.warnings})
        yield DONE
    except Exception as error:
        await adrive(run.dropped(), backend)
        if not began:
            raise
        yield error_event(error)
    except BaseException:  # the client went away, or the time is over
        if run.text and stream is not None:
            await adrive(run.ended(stream.reply, whole=False), backend)
        await adrive(run.dropped(), backend)
        raise
    finally:
        run.beat.stop()


def _described(info: SessionInfo) -> dict[str, Any]:
    times = {"created_at": _moment(info.created_at), "updated_at": _moment(info.updated_at)}
    return {"id": info.id, "title": info.title or "", "model": info.preset, **times}


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="seconds")


def _is_shown(message: Mapping[str, Any], details: Mapping[str, Any] | None) -> bool:
    role, content = message.get("role"), message.get("content")
    return (role == "user" or (role == "assistant" and bool(content or details))) and isinstance(content or "", str)


def _message(message: Mapping[str, Any], details: Mapping[str, Any] | None) -> dict[str, Any]:
    reasoning = message.get("reasoning_content")
    told: dict[str, Any] = {"role": message["role"], "content": message.get("content") or ""}
    if isinstance(reasoning, str) and reasoning:
        told["reasoning"] = reasoning
    if message.get("interrupted"):
        told["interrupted"] = True
    return told | ({"answer": {name: details.get(name) for name in _TOLD}} if details else {})


def _numbers(reply: Reply) -> dict[str, Any]:
    details = details_of(reply)
    return {name: details[name] for name in _TOLD}
