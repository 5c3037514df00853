"""Gemini's counts in OpenAI's words, each kind of token where LiteLLM counts it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_KINDS = {"TEXT": "text", "DOCUMENT": "text", "AUDIO": "audio", "IMAGE": "image", "VIDEO": "video"}


def usage_of(sent: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provider's counts in OpenAI's words; the answer's tokens include those of thought."""
    prompt, answer = sent.get("promptTokenCount", 0), sent.get("candidatesTokenCount", 0)
    thought, used, total = (
        sent.get("thoughtsTokenCount"),
        sent.get("toolUsePromptTokenCount", 0),
        sent.get("totalTokenCount", 0),
    )
    cached = sent.get("cachedContentTokenCount")
    apart = thought and prompt + answer + used != total
    return {
        "prompt_tokens": prompt + (used or 0),
        "completion_tokens": answer + (thought if apart else 0),
        "total_tokens": total,
        "cache_read_input_tokens": cached,
        "prompt_tokens_details": _read(sent) | {"cached_tokens": cached, "tool_use_tokens": used or None},
        "completion_tokens_details": _written(sent, answer) | {"reasoning_tokens": thought},
    }


def _read(sent: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tokens of the prompt by their kinds, without those that were read from the cache."""
    read, cached = _by_kind(sent, "promptTokensDetails"), _by_kind(sent, "cacheTokensDetails")
    if "cacheTokensDetails" not in sent and sent.get("cachedContentTokenCount") is not None:
        cached = {"text_tokens": sent["cachedContentTokenCount"]}
    return {name: count - cached.get(name, 0) for name, count in read.items()}


def _written(sent: Mapping[str, Any], answer: int) -> dict[str, Any]:
    """Return the tokens of the answer by their kinds; what has none is text."""
    written = _by_kind(sent, "candidatesTokensDetails")
    return {"text_tokens": answer - sum(written.values()), **written} if answer > 0 else written


def _by_kind(sent: Mapping[str, Any], name: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for detail in sent.get(name, ()):
        kind, count = _KINDS.get(str(detail.get("modality", "")).upper()), detail.get("tokenCount", 0)
        if kind is not None:
            counts[f"{kind}_tokens"] = counts.get(f"{kind}_tokens", 0) + (count if isinstance(count, int) else 0)
    return counts
