"""One request on its way: its wire, and what llmkit makes of the outcome, whichever way the request takes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from llmkit.core.params import MOST_STOPS
from llmkit.core.types import Reply, Request, Usage
from llmkit.errors import InvalidRequestError, ProviderError
from llmkit.providers import model_info, tokens
from llmkit.providers.failures import has_connected, may_not_be_paid, translate
from llmkit.providers.prices import cost_of_tokens
from llmkit.providers.transport.http import Wire
from llmkit.providers.transport.requests import check_headers

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from llmkit.core.completion import Completion

_MOST_TOKENS = 10**9


class Attempt:
    """One request on its way: its wire, and its translated results."""

    way: ClassVar[str] = ""
    """Who sends: "direct" or "litellm" where that is a question."""
    never_sent: ClassVar[tuple[type[ProviderError], ...]] = ()
    """Errors that are raised before anything is sent."""

    def __init__(self, request: Request) -> None:
        check_headers(request.params)
        self.request = request
        self.provider = request.model.partition("/")[0] if "/" in request.model else ""
        self.wire = Wire()
        self.notes: tuple[str, ...] = _kept_back(request) if self.way and request.params else ()
        self.called = request.model  # how the model is called where the provider does not name it
        self.started = time.monotonic()
        self.first_token_s: float | None = None

    def errors(self) -> AbstractContextManager[None]:
        """Translate every error into llmkit's."""
        return _Translating(self)

    def translated(self, error: Exception, partial: str = "") -> ProviderError:
        """Return llmkit's error for *error*."""
        ours = self.classified(error)
        ours.partial = partial
        broke_unseen = not self.wire.requests and has_connected(error)
        is_blind = broke_unseen or not self.wire.seen
        ours.sent = bool(self.wire.requests) or (is_blind and not isinstance(ours, self.never_sent))
        if not ours.sent or may_not_be_paid(self.wire):
            ours.may_be_paid = False
        elif broke_unseen or (self.wire.requests and self.wire.failed_status is None):
            ours.may_be_paid = True
        return ours

    def classified(self, error: Exception) -> ProviderError:
        """Return an error of the class that fits the cause."""
        return translate(error, self.request, self.provider, self.wire, time.monotonic() - self.started)

    def begun(self) -> None:
        """Note the time of the first text of a stream."""
        if self.first_token_s is None:
            self.first_token_s = time.monotonic() - self.started

    def reply(self, completion: Completion, raw: Any, *, complete: bool = True) -> Reply:
        """Return a chat's answer as a Reply; *raw* is the provider's own."""
        choice = completion.choices[0] if completion.choices else None
        text = (choice.message.content or "") if choice is not None else ""
        usage, warnings = self._usage(completion, complete=complete)
        return Reply(
            text=text,
            model=completion.model or self.called,
            finish_reason=choice.finish_reason if choice is not None and complete else None,
            usage=usage,
            latency_s=time.monotonic() - self.started,
            first_token_s=self.first_token_s,
            warnings=(*self.request.notes, *self.notes, *warnings),
            choices=completion.choices,
            raw=raw,
            name=self.request.name or self.request.model,
            route=self.way,
            rate_limits={name: value for name, value in self.wire.headers.items() if "ratelimit" in name},
            converter=_as_litellm,
        )

    def _usage(self, completion: Completion, *, complete: bool) -> tuple[Usage, list[str]]:
        """Return what was used and what it cost; counts that are missing or zero are never true, and estimated."""
        warnings: list[str] = []
        counts: Mapping[str, Any] = completion.usage or {}
        prompt, answer = _count(counts.get("prompt_tokens")), _count(counts.get("completion_tokens"))
        reported = bool(prompt)
        if not (_is_count(prompt) and _is_count(answer)):
            warnings.append(f"the provider's counts cannot be ({prompt}, {answer}); the tokens are estimated")
            reported = False
        elif not reported and complete:
            warnings.append("the provider reported no usage; the tokens are estimated")
        if not reported:
            prompt, answer = tokens.estimated(self.request, [choice.message for choice in completion.choices])
            counts = {"prompt_tokens": prompt, "completion_tokens": answer}
        elif _has_negatives(counts):
            warnings.append("the provider's counts have parts below zero, which are not regarded")
            counts = _without_negatives(counts)
        read, written = _details(counts, "prompt_tokens_details"), _details(counts, "completion_tokens_details")
        cached, thought = read.get("cached_tokens") or 0, written.get("reasoning_tokens") or 0
        if not _is_count(cached) or cached > prompt:
            warnings.append(f"the provider's count of cached tokens cannot be {cached} of {prompt}; it is not regarded")
            read, cached = {}, 0
        counts = {**counts, "prompt_tokens": prompt, "completion_tokens": answer}
        counts |= {"prompt_tokens_details": read or None, "completion_tokens_details": written or None}
        cost = self._cost(counts, completion if reported else None, cached)
        if cost is None:
            warnings.append(f"no price is known for {self.request.priced_as or self.request.model}")
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=answer,
            total_tokens=_count(counts.get("total_tokens")) or prompt + answer,
            cached_tokens=cached,
            reasoning_tokens=thought if _is_count(thought) else 0,
            cost_usd=cost,
            source="unpriced" if cost is None else "priced" if reported else "estimated",
        ), warnings

    def _cost(self, counts: Mapping[str, Any], completion: Completion | None, cached: int) -> float | None:
        request = self.request
        if request.price is not None:
            return cost_of_tokens(request.price, counts["prompt_tokens"], counts["completion_tokens"], cached)
        answered_tier = completion.service_tier if completion is not None else None
        return model_info.cost(
            request.priced_as or request.model,
            counts,
            completion,
            service_tier=None if answered_tier else request.params.get("service_tier"),
            web_search_options=request.params.get("web_search_options"),
        )


class _Translating:
    """Translates the errors of an attempt; libraries raise far more than their own classes."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, ProviderError | InvalidRequestError):
            raise self._attempt.translated(error) from error
        if error is not None and not isinstance(error, Exception) and (wire := self._attempt.wire).seen:
            error.may_be_paid, error.sent = wire.is_open, wire.requests > 0  # type: ignore[attr-defined]  # as errors have


def _kept_back(request: Request) -> tuple[str, ...]:
    """Return a warning for each parameter that LiteLLM keeps back from every provider; its routes do so too."""
    metadata, stop = request.params.get("metadata"), request.params.get("stop")
    warnings = []
    if request.kind == "chat" and isinstance(metadata, Mapping) and metadata.keys() - {"user_id"}:
        warnings.append("metadata was not sent: LiteLLM keeps it to itself; what extra_body holds is sent")
    if isinstance(stop, list | tuple) and len(stop) > MOST_STOPS:
        warnings.append(f"stop has {len(stop)} entries, of which LiteLLM sends the first {MOST_STOPS}")
    return tuple(warnings)


def _count(value: Any) -> Any:
    """Return a provider's number as an integer, also one that is written as a text or with a point; none is 0."""
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value or 0


def _details(counts: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the numbers of which a count consists, as far as they can be any."""
    sent = counts.get(name)
    if not isinstance(sent, dict):
        return {}
    return {key: _count(value) if isinstance(value, str | float) else value for key, value in sent.items()}


def _has_negatives(value: Any) -> bool:
    """Return whether there is a number below zero among a provider's counts."""
    if isinstance(value, int | float):
        return value < 0
    return isinstance(value, Mapping) and any(map(_has_negatives, value.values()))


def _without_negatives(value: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: _without_negatives(each) if isinstance(each, Mapping) else each for name, each in value.items()}
    return {name: each for name, each in kept.items() if isinstance(each, Mapping) or not _has_negatives(each)}


def _is_count(value: Any) -> bool:
    """Return whether a provider's number can be a number of tokens."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS


def _as_litellm(reply: Reply) -> Any:
    """Return a reply as LiteLLM's object."""
    from llmkit.providers.litellm.sdk import load  # imports LiteLLM

    litellm, raw = load(), reply.raw if isinstance(reply.raw, dict) else {}
    sent = raw.get("usage")
    counted = sent if isinstance(sent, dict) else {}
    totals = {name: getattr(reply.usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")}
    usage = litellm.Usage(**{**counted, **totals})
    choices = [choice.model_dump(exclude_none=True) for choice in reply.choices]
    named = {"id": raw["id"]} if isinstance(raw.get("id"), str) else {}
    return litellm.ModelResponse(model=reply.model, choices=choices, usage=usage, **named)
