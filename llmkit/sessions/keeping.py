"""What the store keeps of an answer that came from outside a session, such as that of `llmkit ask`."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.core.types import Message, Reply
    from llmkit.store import Store


def keep(
    store: Store,
    snapshot: Mapping[str, Any],
    messages: Sequence[Message],
    reply: Reply,
    *,
    preset: str = "",
    version: int | None = None,
) -> str:
    """Create a session with a question and the answer to it, and return its id.

    Args:
        store: where it is kept.
        snapshot: its settings, as a preset's file would have them, without secrets.
        messages: the question, checked.
        reply: the answer.
        preset: the name of the preset that the settings are from, or "".
        version: the preset's version.

    Raises:
        StoreError: the store cannot be written.
    """
    session_id = str(uuid.uuid4())
    store.create(session_id, preset=preset, version=version, snapshot=snapshot)
    store.record(session_id, messages, reply.messages, details_of(reply))
    return session_id


def details_of(reply: Reply) -> dict[str, Any]:
    """Return what the store keeps of an answer in addition to its messages."""
    usage = reply.usage
    return {
        "model": reply.model,
        "asked": reply.name,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "cost_usd": usage.cost_usd,
        "source": usage.source,
        "latency_s": reply.latency_s,
        "finish_reason": reply.finish_reason,
        "warnings": list(reply.warnings),
    }
