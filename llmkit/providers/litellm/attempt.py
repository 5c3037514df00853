"""One request on its way through LiteLLM: its arguments, its wire, and its translated results."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmkit.core.types import Reply, Request, Usage
from llmkit.errors import (
    AuthenticationError,
    ProviderError,
    UnknownProviderError,
    UnsupportedParamsError,
)
from llmkit.providers.failures import lost_package, may_not_be_paid, translate
from llmkit.providers.litellm.chunks import read_chat
from llmkit.providers.litellm.connections import OWN_CLIENT_PARAMS
from llmkit.providers.litellm.media import other_reply
from llmkit.providers.litellm.model_map import estimated_tokens, map_cost
from llmkit.providers.litellm.sdk import (
    client_of,
    dropped,
    knows_finish_reason,
    load,
    missing_key,
    wants_key,
    without_logging,
)
from llmkit.providers.prices import cost_of_tokens
from llmkit.providers.transport.http import Wire, watched

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmkit.providers.litellm.connections import ClientPool

_FUNCTIONS = {
    "chat": "completion",
    "embed": "embedding",
    "transcribe": "transcription",
    "speak": "speech",
    "image": "image_generation",
}


_NEVER_SENT = (UnknownProviderError, UnsupportedParamsError)


class Attempt:
    """One request on its way: its arguments for LiteLLM, its wire, and its translated results."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.provider = request.model.partition("/")[0] if "/" in request.model else ""
        self.wire = Wire()
        self.notes: tuple[str, ...] = ()
        load()
        self.started = time.monotonic()
        self.first_token_s: float | None = None
        self.raw: Any = None

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Translate every error of LiteLLM's into llmkit's."""
        with watched(self.wire), without_logging():
            try:
                yield
            except ProviderError:
                raise
            except Exception as error:  # LiteLLM raises far more than its own classes
                raise self.translated(error) from error

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Keep a paid answer that LiteLLM cannot read, if it has the usual format."""
        try:
            yield
        except Exception:
            if self.request.kind != "chat" or (raw := read_chat(self.wire)) is None:
                raise
            self.raw = raw

    def has_begun(self) -> bool:
        """Return whether a request has been sent, as far as that can be seen."""
        return bool(self.wire.requests) or not self.wire.seen

    def translated(self, error: Exception, partial: str = "") -> ProviderError:
        """Return llmkit's error for LiteLLM's *error*."""
        ours = translate(error, self.request, self.provider, self.wire, time.monotonic() - self.started)
        if not self.wire.requests and not lost_package(error) and (advice := missing_key(self.request, self.provider)):
            ours = _keyless(advice, self.provider, self.request)
        elif isinstance(ours, UnknownProviderError):
            advice = f"no provider is known for the model {self.request.model!r}; write it as provider/model"
            ours = UnknownProviderError(advice, model=self.request.model)
        ours.partial = partial
        ours.sent = bool(self.wire.requests) or not (self.wire.seen or isinstance(ours, _NEVER_SENT))
        if not ours.sent or may_not_be_paid(self.wire):
            ours.may_be_paid = False
        elif self.wire.requests and self.wire.failed_status is None:
            ours.may_be_paid = True
        return ours

    def function(self, prefix: str = "") -> Any:
        """Return LiteLLM's function for this kind of request; with *prefix* "a", the async one."""
        return getattr(load(), prefix + _FUNCTIONS[self.request.kind])

    def arguments(self, pool: ClientPool, *, stream: bool = False) -> dict[str, Any]:
        """Return the keyword arguments for LiteLLM's function."""
        request = self.request
        model, client = self._route(pool)
        self.wire.timeout_s = None if stream else request.timeout_s
        params = request.params
        if request.kind == "transcribe":  # the caller's knowledge for the price, not for the provider
            params = {name: value for name, value in params.items() if name != "duration"}
        arguments: dict[str, Any] = {
            **_copied(params),
            "model": request.model,
            "timeout": request.timeout_s,
            "max_retries": 0,  # retries have one owner, and it is not the SDK
        }
        if request.kind == "chat":
            arguments["messages"] = _copied(request.messages)
        if request.params.get("drop_params"):
            self.notes += dropped(model, self.provider, request.params)
        given = {"api_key": request.api_key, "api_base": request.api_base, "client": client}
        arguments |= {name: value for name, value in given.items() if value is not None}
        if arguments.get("tools"):
            arguments["_skip_mcp_handler"] = True  # else LiteLLM wants the package `mcp`
        if stream:
            arguments["stream"] = True
            if "stream_options" in (load().get_supported_openai_params(model, self.provider) or ()):
                arguments["stream_options"] = {"include_usage": True, **arguments.get("stream_options", {})}
        return arguments

    def _route(self, pool: ClientPool) -> tuple[str, Any]:
        """Return the provider's name for the model, and the client to use, or None if LiteLLM has to find its own."""
        request = self.request
        model, self.provider, key, base = load().get_llm_provider(
            request.model,
            api_base=request.api_base,
            api_key=request.api_key,
            custom_llm_provider=request.params.get("custom_llm_provider"),
        )
        if not key and (advice := missing_key(request, self.provider)) and wants_key(self.provider):
            raise _keyless(advice, self.provider, request)
        if OWN_CLIENT_PARAMS & request.params.keys():
            return model, None
        client = client_of(pool, self.provider, key, base, request)
        self.wire.seen = client is not None
        return model, client

    def reply(self, raw: Any, *, reported: bool | None = None, complete: bool = True) -> Reply:
        """Return LiteLLM's response as a Reply."""
        if self.request.kind != "chat":
            return other_reply(self.request, raw, self.started)
        choice = raw.choices[0] if raw.choices else None
        message = getattr(choice, "message", None)
        text = getattr(message, "content", None) or ""
        usage, warnings = self._usage(raw, text, reported=reported, complete=complete)
        return Reply(
            text=text,
            model=getattr(raw, "model", None) or self.request.model,
            finish_reason=self._finish_reason(choice) if complete else None,
            usage=usage,
            latency_s=time.monotonic() - self.started,
            first_token_s=self.first_token_s,
            warnings=self.request.notes + self.notes + warnings,
            choices=raw.choices,
            raw=raw,
        )

    def _finish_reason(self, choice: Any) -> str | None:
        """Return why the answer ended, in the provider's word: LiteLLM turns an unknown or missing one into "stop"."""
        named: str | None = getattr(choice, "finish_reason", None)
        if named != "stop" or not isinstance(body := self.wire.data, dict) or not body.get("choices"):
            return named
        reason = body["choices"][0].get("finish_reason") if isinstance(body["choices"][0], dict) else named
        return reason if reason is None or not knows_finish_reason(reason) else named

    def _usage(self, raw: Any, text: str, *, reported: bool | None, complete: bool) -> tuple[Usage, tuple[str, ...]]:
        """Return what was used and what it cost; LiteLLM turns missing counts into zeros, which are never true."""
        warnings = []
        counts = getattr(raw, "usage", None)
        prompt, completion = getattr(counts, "prompt_tokens", 0) or 0, getattr(counts, "completion_tokens", 0) or 0
        if not (_is_count(prompt) and _is_count(completion)):
            warnings.append(f"the provider's counts cannot be ({prompt}, {completion}); the tokens are estimated")
            prompt, reported = 0, False
        elif (reported := bool(prompt) and reported is not False) is False and complete:
            warnings.append("the provider reported no usage; the tokens are estimated")
        if not reported:
            prompt, completion = estimated_tokens(self.request.model, self.request.messages, text)
            counts = load().Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
        details = getattr(counts, "prompt_tokens_details", None)
        cached = getattr(details, "cached_tokens", 0) or 0
        thought = getattr(getattr(counts, "completion_tokens_details", None), "reasoning_tokens", 0) or 0
        price = self.request.price
        named = self.request.priced_as or self.request.model
        cost = (
            cost_of_tokens(price, prompt, completion, cached)
            if price
            else map_cost(
                named,
                counts,
                raw if reported else None,
                service_tier=None if getattr(raw, "service_tier", None) else self.request.params.get("service_tier"),
                web_search_options=self.request.params.get("web_search_options"),
            )
        )
        if cost is None:
            warnings.append(f"no price is known for {named}")
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=getattr(counts, "total_tokens", 0) or prompt + completion,
            cached_tokens=cached,
            reasoning_tokens=thought,
            cost_usd=cost,
            source="unpriced" if cost is None else "priced" if reported else "estimated",
        ), tuple(warnings)


_MOST_TOKENS = 10**9


def _is_count(value: Any) -> bool:
    """Return whether a provider's number can be a number of tokens."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_TOKENS


def _keyless(advice: str, provider: str, request: Request) -> AuthenticationError:
    error = AuthenticationError(advice, provider=provider, model=request.model)
    error.advice = ""  # the message has it
    error.sent = False
    return error


def _copied(value: Any) -> Any:
    """Copy the mappings and lists in *value*: LiteLLM modifies its arguments."""
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value
