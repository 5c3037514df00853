"""Gemini's counts in OpenAI's words, each kind of token where LiteLLM counts it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_KINDS = {"TEXT": "text", "DOCUMENT": "text", "AUDIO": "audio", "IMAGE": "image", "VIDEO": "video"}


def usage_of(sent: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provider's counts in OpenAI's words; the answer's tokens include those of thought.

    Raises:
        TypeError: they are no counts.
    """
    plain = totals_of(sent)
    prompt, answer, total = plain["prompt_tokens"], plain["completion_tokens"], plain["total_tokens"]
    cached, thought, used = (None if sent.get(name) is None else _count(sent, name) for name in _PARTS)
    apart = thought or 0 if prompt + answer + (used or 0) != total else 0
    return {
        "prompt_tokens": prompt + (used or 0),
        "completion_tokens": answer + apart,
        "total_tokens": total,
        "cache_read_input_tokens": cached,
        "prompt_tokens_details": _read(sent, cached) | {"cached_tokens": cached, "tool_use_tokens": used or None},
        "completion_tokens_details": _written(sent, answer) | {"reasoning_tokens": thought},
    }


def totals_of(sent: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts of an answer that was withheld.

    Raises:
        TypeError: they are no counts.
    """
    counts = {name: _count(sent, word) for name, word in _TOTALS.items()}
    return {**counts, "total_tokens": 0 if sent.get("totalTokenCount") is None else _count(sent, "totalTokenCount")}


_TOTALS = {"prompt_tokens": "promptTokenCount", "completion_tokens": "candidatesTokenCount"}


_PARTS = ("cachedContentTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount")


def _count(sent: Mapping[str, Any], name: str) -> int:
    count = sent.get(name, 0)
    if type(count) is not int:
        raise TypeError
    return count


def _read(sent: Mapping[str, Any], read_before: int | None) -> dict[str, Any]:
    """Return the tokens of the prompt by their kinds, without those that were read from the cache."""
    read, cached = _by_kind(sent, "promptTokensDetails"), _by_kind(sent, "cacheTokensDetails")
    if "cacheTokensDetails" not in sent and read_before is not None:
        cached = {"text_tokens": read_before}
    return {name: count - cached.get(name, 0) for name, count in read.items()}


def _written(sent: Mapping[str, Any], answer: int) -> dict[str, Any]:
    """Return the tokens of the answer by their kinds; what has none is text."""
    written = _by_kind(sent, "candidatesTokensDetails")
    return {"text_tokens": answer - sum(written.values()), **written} if answer > 0 else written


def _by_kind(sent: Mapping[str, Any], name: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for detail in sent.get(name, ()):
        kind, count = _KINDS.get(str(detail.get("modality", "")).upper()), detail.get("tokenCount", 0)
        if kind is not None and type(count) is int:
            counts[f"{kind}_tokens"] = counts.get(f"{kind}_tokens", 0) + count
    return counts
