"""OpenAI's protocol: the bodies of requests, and LiteLLM's rules for answers, each compared with it.

What is written in an unknown way is not guessed but handed to LiteLLM.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llmkit.core.completion import FINISH_REASONS, Chunk, Completion
from llmkit.providers.routes import features
from llmkit.providers.routes.behaviour import DROPPED, KEPT, MERGED, RENAMED
from llmkit.providers.routes.dialects import UnfamiliarError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llmkit.core.types import Request
    from llmkit.providers.routes.behaviour import Behaviour

PATH, CONVERSATION = "/chat/completions", "messages"
CALLS, REASONING, THOUGHT, NULL, ONE_WORD = "calls", "reasoning", "think", "null", "one word"
"""What LiteLLM does with the answers of some providers and not of others: an answer with tool calls ends with
"tool_calls", whatever it says; `reasoning` is `reasoning_content`; `<think>…</think>` at the head of a text is too; an
empty text is None; in streams nothing but `reasoning` is reasoning."""
_THOUGHT = re.compile(r"<(?:think|thinking|budget:thinking)>(.*?)</(?:think|thinking|budget:thinking)>(.*)", re.DOTALL)
_CACHED = ("prompt_cache_hit_tokens", "cache_read_input_tokens")


def body(behaviour: Behaviour, model: str, request: Request, *, stream: bool) -> dict[str, Any]:
    """Return the body of a request that a route covers."""
    bare = behaviour.effects.get("null:assistant") == DROPPED
    made: dict[str, Any] = {
        "model": behaviour.model.format(model),
        "messages": [_without_nulls(message, bare=bare) for message in request.messages],
    }
    beside: dict[str, Any] = {}
    for name, value in request.params.items():
        effect = behaviour.effects[features.of_param(name, value)]
        if effect == KEPT:
            made[name] = value
        elif effect == MERGED:
            beside |= value
        elif effect.startswith(RENAMED):
            made[effect[len(RENAMED) :]] = value
    return made | dict(behaviour.added) | (dict(behaviour.stream_added) if stream else {}) | beside


def _without_nulls(message: Mapping[str, Any], *, bare: bool) -> dict[str, Any]:
    """Return a message without keys that are None; with its content, unless *bare*."""
    if None not in message.values():
        return dict(message)
    return {name: value for name, value in message.items() if value is not None or (name == "content" and not bare)}


def completion_of(body: Any, habits: Sequence[str]) -> Completion:
    """Return a whole answer.

    Raises:
        UnfamiliarError: it is written in an unknown way.
    """
    if not isinstance(body, dict) or not isinstance(choices := body.get("choices"), list):
        raise UnfamiliarError
    return Completion.of({**body, "choices": [_choice(choice, habits) for choice in choices], "usage": usage_of(body)})


class Reader:
    """Reads the events of one stream."""

    def __init__(self, habits: Sequence[str]) -> None:
        self._habits = habits

    def chunks(self, event: Any) -> Iterable[Chunk]:
        """Return what an event, as decoded JSON, adds to the answer.

        Raises:
            UnfamiliarError: it is written in an unknown way.
        """
        if not isinstance(event, dict):
            raise UnfamiliarError
        choices: Any = event.get("choices")
        if choices is not None and not isinstance(choices, list):
            raise UnfamiliarError
        deltas = [_delta(choice, self._habits) for choice in choices or ()]
        return (Chunk.of({**event, "choices": deltas, "usage": usage_of(event)}),)


def usage_of(body: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the provider's counts, with the various words for cached tokens as one."""
    counts = body.get("usage")
    if not isinstance(counts, dict):
        return None
    for name in _CACHED:
        if isinstance(counts.get(name), int):
            details = counts.get("prompt_tokens_details")
            known = details if isinstance(details, dict) else {}
            counts = {**counts, "prompt_tokens_details": {**known, "cached_tokens": counts[name]}}
    thought = counts.get("reasoning_tokens")
    if thought and isinstance(thought, int) and not counts.get("completion_tokens_details"):
        counts = {**counts, "completion_tokens_details": {"reasoning_tokens": thought}}
    return counts


def _choice(choice: Any, habits: Sequence[str]) -> Mapping[str, Any]:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict) or not _is_text(message.get("content")):
        raise UnfamiliarError
    calls = _calls(message)
    reasoning, content = _reasoning(message, habits)
    if NULL in habits:
        content = content or None
    reason: Any = choice.get("finish_reason")
    if CALLS in habits and calls and reason in (None, "stop"):
        reason = "tool_calls"
    return {
        **choice,
        "message": {**message, "content": content, "reasoning_content": reasoning, "tool_calls": calls},
        "finish_reason": _reason_of(reason),
    }


def _delta(choice: Any, habits: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(choice, dict):
        raise UnfamiliarError
    delta = choice.get("delta")
    if delta is None:
        delta = {}
    if not isinstance(delta, dict):
        raise UnfamiliarError
    if isinstance(delta.get("content"), list):
        delta = {**delta, "content": None, **_of_parts(delta["content"])}
    if not _is_text(delta.get("content")):
        raise UnfamiliarError
    reasoning = delta.get("reasoning")
    if ONE_WORD not in habits:
        reasoning = delta.get("reasoning_content") or reasoning
    if not _is_text(reasoning):
        raise UnfamiliarError
    reason: Any = choice.get("finish_reason")
    return {
        **choice,
        "delta": {**delta, "reasoning_content": reasoning, "tool_calls": _calls(delta)},
        "finish_reason": _reason_of(reason),
    }


def _reason_of(reason: Any) -> str | None:
    """Return why an answer ended in OpenAI's words, or None for what is no word."""
    return FINISH_REASONS.get(reason, reason) if isinstance(reason, str) else None


def _of_parts(parts: Sequence[Any]) -> dict[str, str]:
    """Return text and reasoning of what a chunk has in parts, as Mistral's reasoning models do."""
    texts: dict[str, list[str]] = {"content": [], "reasoning_content": []}
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        inner = part.get("thinking") if kind == "thinking" else [part]
        for each in inner if isinstance(inner, list) else ():
            text = each.get("text") if isinstance(each, dict) else None
            if isinstance(text, str):
                texts["reasoning_content" if kind == "thinking" else "content"].append(text)
    return {name: "".join(several) for name, several in texts.items() if several}


def _reasoning(message: Mapping[str, Any], habits: Sequence[str]) -> tuple[str | None, str | None]:
    content = message.get("content")
    for name in ("reasoning_content", "reasoning") if REASONING in habits else ("reasoning_content",):
        if name in message:
            if not _is_text(message[name]):
                raise UnfamiliarError
            return message[name], content
    if THOUGHT in habits and content and (match := _THOUGHT.match(content)):
        return match[1], match[2]
    return None, content


def _calls(message: Mapping[str, Any]) -> Any:
    calls = message.get("tool_calls")
    if not calls:
        return None
    for call in calls if isinstance(calls, list) else (None,):
        if not isinstance(call, dict):
            raise UnfamiliarError
        function = call.get("function")
        if not isinstance(function, dict) or not _is_text(function.get("arguments")):
            raise UnfamiliarError
        if call.get("type") not in {None, "function"} or function.get("name") == "multi_tool_use.parallel":
            raise UnfamiliarError
    return calls


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)
