"""What a request can use and cost, before it is sent: what a budget reserves, or why it cannot."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from llmkit.core.brief import may_wait
from llmkit.providers import model_info, tokens
from llmkit.providers.model_info import LOCAL, longest_answer
from llmkit.providers.prices import FREE, cost_of_audio, cost_of_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llmkit.core.types import Request

_BEGIN, _HIDDEN = 64, 600  # tokens that a model's template adds to a prompt, and a provider to one with tools
_SLOWEST_AUDIO = 750  # bytes a second
_AUDIO_TOKENS = 32  # tokens of a second of audio, for the provider that counts most
_PICTURES = (("gpt-4o-mini", 50_000), ("gpt-", 4_000), ("o1", 4_000), ("o3", 4_000), ("o4", 4_000), ("claude", 2_000))
_PICTURE = 20_000  # tokens of an image, for a model that is not in the list
_KNOWN_TOKENIZERS = ("gpt-", "chatgpt-", "o1", "o3", "o4")
_MARGIN = 1.3
_NO_PROMPT = frozenset(
    """
    additional_drop_params allowed_openai_params api_base api_key api_version audio base_model best_of extra_body
    extra_headers headers logit_bias metadata modalities n organization parallel_tool_calls prediction prompt_cache_key
    prompt_cache_retention reasoning_effort safety_identifier seed service_tier stop store stream_options temperature
    thinking tool_choice top_p user verbosity web_search_options
    """.split()  # noqa: SIM905 - nobody reads a list of thirty lines
)
"""Parameters that put no text before the model; what others hold counts as a part of the prompt."""
_SEARCH_TOOLS = ("web_search", "googleSearch", "google_search", "url_context", "file_search", "code_interpreter")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a request can use.

    Attributes:
        request: the request.
        prompt_most: upper bound for any tokenizer, images included; `audio_most` of it are tokens of audio.
        answer_most: the longest answer: `max_tokens`, else the model's longest, or 0 if that is not known.
        limited: whether the request sets `max_tokens` itself.
        text_most: how much of `prompt_most` is text.
        unbounded: why the cost has no bound, and what to set, or "" if it has one.
    """

    request: Request
    prompt_most: int
    answer_most: int
    limited: bool = False
    audio_most: int = 0
    text_most: int = 0
    unbounded: str = ""
    tier: str | None = None
    caches: bool = field(default=False)

    @cached_property
    def prompt_tokens(self) -> int:
        """The tokens of the prompt, by the model's tokenizer if it is known; the first look at it loads one."""
        if self.request.kind != "chat":
            return tokens.count_text(self.request.model, _joined(self.request.params.get("input", ())))
        return sum(tokens.count_messages(self.request.model, self.request.messages))

    def by_tokenizer(self) -> Estimate:
        """Return the estimate with a lower bound of the prompt where the model's tokenizer is known."""
        if self.request.kind != "chat" or not _has_known_tokenizer(self.request.model):
            return self
        may_wait()  # a tokenizer is loaded
        counted = math.ceil(self.prompt_tokens * _MARGIN) + 8 * len(self.request.messages)
        return replace(self, prompt_most=min(self.text_most, counted) + self.prompt_most - self.text_most)

    def usd(self, prompt: int, answer: int) -> float | None:
        """Return what these tokens cost, or None if the price is not known."""
        price = self._own_price()
        if price is not None:
            return cost_of_tokens(price, prompt, answer)
        return model_info.cost(self._priced_as, _counts(prompt, answer))

    def most_usd(self) -> float | None:
        """Return the most the request can cost in US dollars, or None if that is unknown; see `why`."""
        if self.unbounded:
            return None
        if self.request.kind in {"chat", "embed"}:
            return self._most_of_tokens()
        return self._most_of_media()

    def why(self) -> str:
        """Return why there is no upper bound for the cost."""
        return self.unbounded or f"no price is known for {self.request.name or self.request.model}"

    @property
    def _priced_as(self) -> str:
        return self.request.priced_as or self.request.model

    def _own_price(self) -> Any:
        return self.request.price or (FREE if self.request.model.startswith(LOCAL) else None)

    def _most_of_tokens(self) -> float | None:
        price = self._own_price()
        if price is not None:
            return cost_of_tokens(price, self.prompt_most * (2 if self.caches else 1), self.answer_most)
        ways = _dearest(self.prompt_most, self.audio_most, self.answer_most, caches=self.caches)
        if self.tier is None and model_info.has_one_price(self._priced_as, self.prompt_most):
            del ways[1:]
        costs = [model_info.cost(self._priced_as, counts, service_tier=self.tier) for counts in ways]
        return None if any(cost is None for cost in costs) else max(cost for cost in costs if cost is not None)

    def _most_of_media(self) -> float | None:
        kind, params = self.request.kind, self.request.params
        price = self.request.price or model_info.price(self._priced_as)
        if price is None:
            return None
        if kind == "transcribe":
            return cost_of_audio(price, _seconds(params))
        if kind == "speak":
            return None if price.character is None else price.character * len(params["input"])
        return None if price.image is None else price.image * _number(params, "n")


def estimate(request: Request) -> Estimate:
    """Return what a request can use; nothing is sent, and nothing that it refers to is fetched."""
    params = {**request.params, **(request.params.get("extra_body") or {})}
    if request.kind != "chat":
        texts = params.get("input", ())
        most = len(_joined(texts).encode()) + 16 * (len(texts) + 1)
        return Estimate(request=request, prompt_most=most, answer_most=0)
    beside = {
        key: value for key, value in params.items() if key not in _NO_PROMPT and not isinstance(value, int | float)
    }
    media = _MediaTokens(request.model)
    text = len(json.dumps([media.without(message) for message in request.messages], ensure_ascii=False).encode())
    # A token has at least one byte, whatever the tokenizer; the names of keys and roles make up for the template's own.
    text += _BEGIN
    most = text + media.tokens + media.audio + (len(json.dumps(beside, default=str)) if beside else 0)
    most += _HIDDEN if beside.keys() & {"tools", "functions", "response_format"} else 0
    answer = _longest(request, params)
    predicted = len(json.dumps(params["prediction"], default=str).encode()) if params.get("prediction") else 0
    return Estimate(
        request=request,
        prompt_most=most,
        text_most=text,
        answer_most=(answer + predicted) * max(_number(params, "n"), _number(params, "best_of")),
        limited=_limit(params) > 0,
        audio_most=media.audio,
        unbounded=next(_unbounded(request, params, media, answer), ""),
        tier=params.get("service_tier"),
        caches="cache_control" in str(request.messages) + str(beside) or "cache_control" in params,
    )


def _number(params: Mapping[str, Any], name: str) -> int:
    """Return how many answers are asked for, which some write as a text."""
    value = params.get(name)
    return max(1, int(value)) if isinstance(value, int | float) or (isinstance(value, str) and value.isdecimal()) else 1


def _joined(texts: Any) -> str:
    return texts if isinstance(texts, str) else " ".join(map(str, texts))


def _has_known_tokenizer(model: str) -> bool:
    return model.rpartition("/")[2].startswith(_KNOWN_TOKENIZERS)


def _unbounded(request: Request, params: Mapping[str, Any], media: _MediaTokens, answer: int) -> Iterator[str]:
    """Yield the reasons why the cost of a request has no bound."""
    if not answer:
        yield "the longest answer of this model is not known: set max_tokens"
    if media.unknown:
        yield f"nobody knows how many tokens the {media.unknown} has: leave it out, or let the budget allow such calls"
    if params.get("web_search_options") is not None or "search-preview" in request.model:
        yield "a hosted search has no limit: leave it out, or let the budget allow such calls"
    for tool in params.get("tools") or ():
        words = {str(tool.get("type") or ""), *map(str, tool)} if isinstance(tool, dict) else set()
        if any(word.startswith(_SEARCH_TOOLS) for word in words):
            yield "a hosted tool has no limit: leave it out, or let the budget allow such calls"


def _longest(request: Request, params: Mapping[str, Any]) -> int:
    """Return the longest answer in tokens, or 0 if nobody knows."""
    if limit := _limit(params):
        return limit
    return longest_answer(request.model if request.model.startswith(LOCAL) else request.priced_as or request.model) or 0


def _limit(params: Mapping[str, Any]) -> int:
    """Return the longest answer that the request allows in tokens, or 0 if it sets no limit."""
    dropped = params.get("additional_drop_params") or ()
    named = (params.get(name) for name in ("max_completion_tokens", "max_tokens") if name not in dropped)
    return max((number for number in named if isinstance(number, int) and number > 0), default=0)


class _MediaTokens:
    """Removes images and audio, whose bytes are not tokens, and counts them separately.

    Attributes:
        tokens: the most the images can have together; `audio` the most the audio can.
        unknown: the kind of a part whose number of tokens nobody knows.
    """

    def __init__(self, model: str) -> None:
        name = model.rpartition("/")[2]
        self._picture = next((tokens for begin, tokens in _PICTURES if name.startswith(begin)), _PICTURE)
        self.tokens = 0
        self.audio = 0
        self.unknown = ""

    def without(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return the message without its images and audio."""
        content = message.get("content")
        if not isinstance(content, list):
            return dict(message)
        kept = []
        for part in content:
            kind = part.get("type")
            if kind == "image_url":
                self.tokens += self._picture
            elif kind == "input_audio":
                data = part["input_audio"].get("data") if isinstance(part["input_audio"], dict) else None
                size = len(data) * 3 / 4 if isinstance(data, str) else 0
                self.audio += math.ceil(size / _SLOWEST_AUDIO) * _AUDIO_TOKENS
                self.unknown = self.unknown or ("" if size else "sound")
            elif kind in {"file", "video_url"}:
                self.unknown = self.unknown or ("file" if kind == "file" else "video")
            else:
                kept.append(part)
        return {**message, "content": kept}


def _seconds(params: Mapping[str, Any]) -> float | None:
    if params.get("duration") is not None:
        return float(params["duration"])
    file = params.get("file")
    known = isinstance(file, tuple) and len(file) > 1 and isinstance(file[1], bytes)
    return len(file[1]) / _SLOWEST_AUDIO if known else None  # type: ignore[index]  # a pair, as was just seen


def _counts(prompt: int, completion: int) -> dict[str, Any]:
    """Return token counts in OpenAI's format."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _dearest(prompt: int, audio: int, answer: int, *, caches: bool) -> list[dict[str, Any]]:
    """Return the ways to count these tokens that may be the most expensive."""
    details: dict[str, Any] = {"audio_tokens": audio} if audio else {}
    written = {"cache_creation_input_tokens": prompt} if caches else {}
    if caches:
        details |= {
            "cache_creation_tokens": prompt,
            "cache_creation_token_details": {"ephemeral_1h_input_tokens": prompt, "ephemeral_5m_input_tokens": 0},
        }
    answers: tuple[dict[str, Any], ...] = (
        {},
        {"completion_tokens_details": {"reasoning_tokens": answer}},
        {"completion_tokens_details": {"audio_tokens": answer}},
    )
    more = {**({"prompt_tokens_details": details} if details else {}), **written}
    return [{**_counts(prompt, answer), **more, **of_answer} for of_answer in answers]
