"""Sending: this module does `Send` and `Open` through LiteLLM, once each, and translates what comes back.

It knows nothing of retries, budgets or presets.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmkit._connections import OWN_CLIENT_PARAMS, Wire, watch
from llmkit._litellm import client_of, connections, dropped, load, map_cost, map_price, missing_key, wants_key
from llmkit._mapping import lost_package, translate
from llmkit._work import Backend
from llmkit.errors import (
    AuthenticationError,
    BadRequestError,
    IncompleteStreamError,
    ProviderError,
    UnknownProviderError,
)
from llmkit.prices import cost_of_audio, cost_of_tokens
from llmkit.types import Piece, Price, Reply, Request, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from llmkit._connections import Pool
    from llmkit.types import AsyncSource, Source

_FUNCTIONS = {
    "chat": "completion",
    "embed": "embedding",
    "transcribe": "transcription",
    "speak": "speech",
    "image": "image_generation",
}


_BESIDE = ("practicus/", "aixplain/")


class LiteLLM(Backend):
    """The backend of real calls. It holds no state: connections are shared by the whole process."""

    def send(self, request: Request) -> Reply:
        """Send once through `litellm.completion`."""
        if (other := _beside(request)) is not None:
            return other.send(request)
        attempt = Attempt(request)
        with attempt.errors():
            raw = attempt.function()(**attempt.arguments(connections().blocking()))
            return attempt.reply(raw)

    async def asend(self, request: Request) -> Reply:
        """Send once through `litellm.acompletion`."""
        if (other := _beside(request)) is not None:
            return await other.asend(request)
        attempt = Attempt(request)
        with attempt.errors():
            raw = await attempt.function("a")(**attempt.arguments(await connections().of_this_loop()))
            return attempt.reply(raw)

    def open(self, request: Request) -> Source:
        """Open a stream through `litellm.completion`."""
        if (other := _beside(request)) is not None:
            return other.open(request)
        attempt = Attempt(request)
        with attempt.errors():
            raw = load().completion(**attempt.arguments(connections().blocking(), stream=True))
            return BlockingSource(attempt, raw)

    async def aopen(self, request: Request) -> AsyncSource:
        """Open a stream through `litellm.acompletion`."""
        if (other := _beside(request)) is not None:
            return await other.aopen(request)
        attempt = Attempt(request)
        with attempt.errors():
            pool = await connections().of_this_loop()
            raw = await load().acompletion(**attempt.arguments(pool, stream=True))
            return AwaitedSource(attempt, raw)


def _beside(request: Request) -> Backend | None:
    """Return what asks the providers that LiteLLM does not know, None for all others."""
    if not request.model.startswith(_BESIDE):
        return None
    from llmkit._endpoints import Endpoints

    return Endpoints()


class Attempt:
    """One request on its way: its arguments for LiteLLM, its wire, and the translation of what comes back."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.provider = request.model.partition("/")[0] if "/" in request.model else ""
        self.wire = Wire()
        self.notes: tuple[str, ...] = ()
        load()
        self.started = time.monotonic()
        self.first_token_s: float | None = None

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn every error of LiteLLM's into one of ours."""
        watch(self.wire)
        try:
            yield
        except ProviderError:
            raise
        except Exception as error:  # LiteLLM raises far more than its own classes
            raise self.translated(error) from error

    def translated(self, error: Exception, partial: str = "") -> ProviderError:
        """Return our error for LiteLLM's *error*."""
        ours = translate(error, self.request, self.provider, self.wire, time.monotonic() - self.started)
        if not self.wire.requests and not lost_package(error) and (advice := missing_key(self.request, self.provider)):
            ours = _keyless(advice, self.provider, self.request)
        elif isinstance(ours, UnknownProviderError):
            advice = f"no provider is known for the model {self.request.model!r}; write it as provider/model"
            ours = UnknownProviderError(advice, model=self.request.model)
        ours.partial = partial
        return ours

    def function(self, prefix: str = "") -> Any:
        """Return LiteLLM's function for what is asked; *prefix* "a" is the awaited one."""
        return getattr(load(), prefix + _FUNCTIONS[self.request.kind])

    def arguments(self, pool: Pool, *, stream: bool = False) -> dict[str, Any]:
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

    def _route(self, pool: Pool) -> tuple[str, Any]:
        """Return the provider's name for the model, and the client to use, None where LiteLLM has to find its own."""
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
        """Turn LiteLLM's response into a Reply."""
        if self.request.kind != "chat":
            return other_reply(self.request, raw, self.started)
        choice = raw.choices[0] if raw.choices else None
        message = getattr(choice, "message", None)
        text = getattr(message, "content", None) or ""
        usage, warnings = self._usage(raw, text, reported=reported, complete=complete)
        return Reply(
            text=text,
            model=getattr(raw, "model", None) or self.request.model,
            finish_reason=getattr(choice, "finish_reason", None) if complete else None,
            usage=usage,
            latency_s=time.monotonic() - self.started,
            first_token_s=self.first_token_s,
            warnings=self.request.notes + self.notes + warnings,
            choices=raw.choices,
            raw=raw,
        )

    def _usage(self, raw: Any, text: str, *, reported: bool | None, complete: bool) -> tuple[Usage, tuple[str, ...]]:
        """Return what was used and what it cost; LiteLLM turns missing counts into zeros, which are never true."""
        litellm, warnings = load(), []
        counts = getattr(raw, "usage", None)
        prompt, completion = getattr(counts, "prompt_tokens", 0) or 0, getattr(counts, "completion_tokens", 0) or 0
        reported = bool(prompt) and reported is not False
        if not reported:
            prompt = litellm.token_counter(model=self.request.model, messages=[dict(m) for m in self.request.messages])
            completion = litellm.token_counter(model=self.request.model, text=text) if text else 0
            counts = litellm.Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)
            if complete:
                warnings.append("the provider reported no usage; the tokens are estimated")
        details = getattr(counts, "prompt_tokens_details", None)
        cached = getattr(details, "cached_tokens", 0) or 0
        thought = getattr(getattr(counts, "completion_tokens_details", None), "reasoning_tokens", 0) or 0
        price = self.request.price
        named = self.request.priced_as or self.request.model
        cost = cost_of_tokens(price, prompt, completion, cached) if price else map_cost(named, counts)
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


class _Source:
    """What the sources of both colours share: the chunks so far, and the reply made of them."""

    def __init__(self, attempt: Attempt, wrapper: Any) -> None:
        self.complete = False
        self._attempt = attempt
        self._wrapper = wrapper
        self._chunks: list[Any] = []
        self._text: list[str] = []

    def _take(self, chunk: Any) -> Piece:
        """Note a chunk and turn it into a piece."""
        self._chunks.append(chunk)
        choice = chunk.choices[0] if chunk.choices else None
        delta = getattr(choice, "delta", None)
        content = getattr(delta, "content", None) or ""
        self._text.append(content)
        if content and self._attempt.first_token_s is None:
            self._attempt.first_token_s = time.monotonic() - self._attempt.started
        return Piece(
            content=content,
            reasoning=getattr(delta, "reasoning_content", None) or "",
            tool_calls=getattr(delta, "tool_calls", None) or (),
            finish_reason=getattr(choice, "finish_reason", None),
            raw=chunk,
        )

    def _end(self) -> None:
        """Accept the end of the stream only where the provider gave one; LiteLLM invents a missing one."""
        if self._attempt.wire.fault is not None:
            raise self._attempt.translated(self._attempt.wire.fault, "".join(self._text))
        wrapper = self._wrapper
        if wrapper.received_finish_reason is None and wrapper.intermittent_finish_reason is None:
            raise IncompleteStreamError(
                "the stream ended in the middle of the answer",
                provider=self._attempt.provider,
                model=self._attempt.request.model,
                partial="".join(self._text),
                elapsed_s=time.monotonic() - self._attempt.started,
            )
        self.complete = True

    def _failed(self, error: Exception) -> ProviderError:
        return self._attempt.translated(error, "".join(self._text))

    def reply(self) -> Reply:
        """Return what has arrived until now as one reply."""
        litellm = load()
        messages = [dict(message) for message in self._attempt.request.messages]
        raw = litellm.stream_chunk_builder(self._chunks, messages=messages) if self._chunks else None
        if raw is None:
            raw = litellm.ModelResponse(choices=[], model=self._attempt.request.model)
        reported = any(getattr(chunk, "usage", None) for chunk in self._wrapper.chunks)
        return self._attempt.reply(raw, reported=reported, complete=self.complete)


class BlockingSource(_Source):
    """An open stream for `for`."""

    def __iter__(self) -> Iterator[Piece]:
        """Yield the pieces; a stream that is cut or broken raises, with the text so far in `partial`."""
        try:
            for chunk in self._wrapper:
                yield self._take(chunk)
        except Exception as error:
            raise self._failed(error) from error
        self._end()

    def close(self) -> None:
        """Close the connection."""
        response = self._attempt.wire.response
        if response is not None:
            response.close()


class AwaitedSource(_Source):
    """An open stream for `async for`."""

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """Yield the pieces; a stream that is cut or broken raises, with the text so far in `partial`."""
        try:
            async for chunk in self._wrapper:
                yield self._take(chunk)
        except Exception as error:
            raise self._failed(error) from error
        self._end()

    async def aclose(self) -> None:
        """Close the connection."""
        response = self._attempt.wire.response
        if response is not None:
            await response.aclose()


def _keyless(advice: str, provider: str, request: Request) -> AuthenticationError:
    error = AuthenticationError(advice, provider=provider, model=request.model)
    error.advice = ""  # the message has it
    return error


def _copied(value: Any) -> Any:
    """Copy the mappings and lists in *value*: LiteLLM writes into what it is given."""
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value


def other_reply(request: Request, raw: Any, started: float) -> Reply:
    """Turn what LiteLLM gives for anything but chat into a Reply, priced by what was used."""
    price = request.price or map_price(request.priced_as or request.model) or Price()
    counts = getattr(raw, "usage", None)
    prompt = getattr(counts, "prompt_tokens", 0) or 0
    completion = getattr(counts, "completion_tokens", 0) or 0
    params, text, data, cost = request.params, "", None, None
    if request.kind == "embed":
        data = [entry["embedding"] for entry in sorted(raw.data, key=lambda entry: entry.get("index", 0))]
        cost = cost_of_tokens(price, prompt, 0) if prompt else None
    elif request.kind == "transcribe":
        text = raw.text or ""
        cost = cost_of_audio(price, _seconds_of(raw, params))
        cost = cost_of_tokens(price, prompt, completion) if cost is None and prompt else cost
    elif request.kind == "speak":
        data = raw.content
        cost = None if price.character is None else price.character * len(params["input"])
    elif not getattr(raw, "data", None):
        raise BadRequestError(f"LiteLLM makes no pictures with {request.model}", model=request.model)
    else:
        data = [entry.b64_json or entry.url for entry in raw.data]
        cost = price.image * len(data) if price.image is not None else None
    if cost is None and request.price is None:
        cost = (getattr(raw, "_hidden_params", None) or {}).get("response_cost") or None
    named = request.priced_as or request.model
    why = f"no price is known for {named}"
    if request.kind == "transcribe" and price.minute is not None:
        why = "the provider does not say how long the sound is, so its price is not known: give its duration"
    return Reply(
        text=text,
        model=getattr(raw, "model", None) or request.model,
        usage=Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            cost_usd=cost,
            source="unpriced" if cost is None else "priced",
        ),
        latency_s=time.monotonic() - started,
        warnings=request.notes if cost is not None else (*request.notes, why),
        raw=raw,
        data=data,
    )


def _seconds_of(raw: Any, params: Mapping[str, Any]) -> float | None:
    hidden = getattr(raw, "_hidden_params", None) or {}
    duration = getattr(raw, "duration", None) or hidden.get("duration") or params.get("duration")
    return float(duration) if duration is not None else None
