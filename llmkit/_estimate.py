"""What a request can use and cost, before it is sent."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmkit.prices import FREE, cost_of_audio, cost_of_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmkit.types import Request

_ANSWER = 16_384  # tokens, of a model whose longest answer nobody knows
_BEGIN, _HIDDEN = 64, 600  # tokens that a model's template adds to a prompt, and a provider to one with tools
_FILE = 3000  # tokens of a picture or a page
_SLOWEST_AUDIO = 750  # bytes a second
_KNOWN_TOKENIZERS = ("gpt-", "chatgpt-", "o1", "o3", "o4")
_MARGIN = 1.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a request can use.

    Attributes:
        request: what it is about.
        prompt_tokens: the prompt, by the model's tokenizer where it is known.
        prompt_most: what no tokenizer gets above.
        answer_most: the longest answer: `max_tokens`, else the model's longest.
    """

    request: Request
    prompt_tokens: int
    prompt_most: int
    answer_most: int

    def usd(self, prompt: int, answer: int) -> float | None:
        """Return what so many tokens cost, None where the price is not known."""
        from llmkit import _litellm

        request = self.request
        price = request.price or (FREE if request.model.startswith("local/") else None)
        if price is not None:
            return cost_of_tokens(price, prompt, answer)
        return _litellm.map_cost(request.priced_as or request.model, _litellm.counts(prompt, answer))

    def most_usd(self) -> float | None:
        """Return what the request can cost at the most in US dollars, None where a price is not known."""
        kind, params = self.request.kind, self.request.params
        if kind in {"chat", "embed"}:
            dearer = 2 if "cache_control" in str(self.request.messages) else 1  # to write a cache costs up to twice
            return self.usd(self.prompt_most * dearer, self.answer_most)
        price = self.request.price
        if price is None:
            from llmkit import _litellm

            price = _litellm.map_price(self.request.priced_as or self.request.model)
        if price is None:
            return None
        if kind == "transcribe":
            return cost_of_audio(price, _seconds(params))
        if kind == "speak":
            return None if price.character is None else price.character * len(params["input"])
        return None if price.image is None else price.image * (params.get("n") or 1)


def estimate(request: Request) -> Estimate:
    """Return what a request can use; nothing is sent."""
    from llmkit import _litellm

    params, texts = request.params, request.params.get("input", ())
    if request.kind != "chat":
        joined = texts if isinstance(texts, str) else " ".join(map(str, texts))
        counted, most = _litellm.count_text(request.model, joined), len(joined.encode()) + 16 * (len(texts) + 1)
        return Estimate(request=request, prompt_tokens=counted, prompt_most=most, answer_most=0)
    counted = sum(_litellm.count_tokens(request.model, list(request.messages)))
    beside = {key: params[key] for key in ("tools", "functions", "response_format") if key in params}
    parts = _Parts()
    most = len(json.dumps([parts.without(message) for message in request.messages], ensure_ascii=False).encode())
    # A token has one byte at least, whatever the tokenizer; the names of keys and roles make up for the template's own.
    most += _BEGIN
    if request.model.rpartition("/")[2].startswith(_KNOWN_TOKENIZERS):
        most = min(most, math.ceil(counted * _MARGIN) + 8 * len(request.messages))
    most += parts.most + (len(json.dumps(beside, default=str)) + _HIDDEN if beside else 0)
    answer = params.get("max_completion_tokens") or params.get("max_tokens")
    answer = answer or _longest(request)
    return Estimate(
        request=request, prompt_tokens=counted, prompt_most=most, answer_most=answer * (params.get("n") or 1)
    )


def _longest(request: Request) -> int:
    from llmkit import _litellm, local

    if request.model.startswith("local/"):
        return local.WINDOW
    return _litellm.longest_answer(request.priced_as or request.model) or _ANSWER


class _Parts:
    """Puts pictures and files, whose bytes are no tokens, aside; `most` is what they can have together."""

    def __init__(self) -> None:
        self.most = 0

    def without(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return the message without them."""
        content = message.get("content")
        if not isinstance(content, list):
            return dict(message)
        kept = []
        for part in content:
            if part.get("type") == "text":
                kept.append(part)
            elif part.get("type") == "image_url":
                self.most += _FILE
            else:
                self.most += max(_FILE, len(str(part)) // 4)
        return {**message, "content": kept}


def _seconds(params: Mapping[str, Any]) -> float | None:
    if params.get("duration") is not None:
        return float(params["duration"])
    file = params.get("file")
    known = isinstance(file, tuple) and len(file) > 1 and isinstance(file[1], bytes)
    return len(file[1]) / _SLOWEST_AUDIO if known else None  # type: ignore[index]  # a pair, as was just seen
