"""What the store keeps of an answer that came from outside a session, such as that of `llmkit ask`."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.core.types import Message, Reply
    from llmkit.store import Store


def keep(store: Store, snapshot: Mapping[str, Any], messages: Sequence[Message], reply: Reply) -> str:
    """Create a session without a preset's name, with checked messages and the answer to them, and return its id.

    Args:
        store: where it is kept.
        snapshot: its settings, as a preset's file would have them.
        messages: the question.
        reply: the answer.

    Raises:
        StoreError: the store cannot be written.
    """
    session_id = str(uuid.uuid4())
    store.create(session_id, preset="", version=None, snapshot=snapshot)
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
