"""The one module that knows LiteLLM: it does `Send` and `Open`, once each, and translates what comes back.

LiteLLM is imported on first use, because the import takes seconds, and with its traps disarmed (`load`). This
module knows nothing of retries, budgets or presets.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from llmkit._connections import HTTP_PROVIDERS, KEYED_PROVIDERS, OWN_CLIENT_PARAMS, Connections, Wire, watch
from llmkit._mapping import translate
from llmkit._work import Backend
from llmkit.errors import AuthenticationError, IncompleteStreamError, ProviderError, UnknownProviderError
from llmkit.prices import cost_usd
from llmkit.types import Piece, Reply, Request, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from llmkit._connections import Pool

_ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else prices are fetched at import, 8 s when the network hangs
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",  # the same for a table of headers
    "LITELLM_LOG": "CRITICAL",  # its faults reach the user as exceptions, not as tracebacks on stderr
    "LITELLM_DISABLE_BUG_REPORT_LINK": "true",  # no advertisement in error messages
}
_NO_DOTENV = "LITELLM_MODE"


@cache
def load() -> Any:
    """Import LiteLLM and return it. The first call takes about two seconds.

    What is set here is set once, for the process, before the first call: nothing is changed from call to call.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    mode = os.environ.get(_NO_DOTENV)
    os.environ[_NO_DOTENV] = "PRODUCTION"  # else LiteLLM reads a `.env` found above the working directory
    try:
        litellm: Any = importlib.import_module("litellm")
    finally:
        if mode is None:
            del os.environ[_NO_DOTENV]
        else:
            os.environ[_NO_DOTENV] = mode
    litellm.suppress_debug_info = True  # else coloured banners on stdout at every error
    litellm.disable_streaming_logging = True  # else a thread task for each chunk
    return litellm


@cache
def _connections() -> Connections:
    load()
    http = importlib.import_module("litellm.llms.custom_httpx.http_handler")
    worker = importlib.import_module("litellm.litellm_core_utils.logging_worker")
    return Connections(http, worker.GLOBAL_LOGGING_WORKER)


class LiteLLM(Backend):
    """The backend of real calls. It holds no state: connections are shared by the whole process."""

    def send(self, request: Request) -> Reply:
        """Send once through `litellm.completion`."""
        attempt = _Attempt(request)
        with attempt.errors():
            raw = load().completion(**attempt.arguments(_connections().blocking()))
            return attempt.reply(raw)

    async def asend(self, request: Request) -> Reply:
        """Send once through `litellm.acompletion`."""
        attempt = _Attempt(request)
        with attempt.errors():
            raw = await load().acompletion(**attempt.arguments(await _connections().of_this_loop()))
            return attempt.reply(raw)

    def open(self, request: Request) -> BlockingSource:
        """Open a stream through `litellm.completion`."""
        attempt = _Attempt(request)
        with attempt.errors():
            raw = load().completion(**attempt.arguments(_connections().blocking(), stream=True))
            return BlockingSource(attempt, raw)

    async def aopen(self, request: Request) -> AwaitedSource:
        """Open a stream through `litellm.acompletion`."""
        attempt = _Attempt(request)
        with attempt.errors():
            pool = await _connections().of_this_loop()
            raw = await load().acompletion(**attempt.arguments(pool, stream=True))
            return AwaitedSource(attempt, raw)


class _Attempt:
    """One request on its way: its arguments for LiteLLM, its wire, and the translation of what comes back."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.provider = request.model.partition("/")[0] if "/" in request.model else ""
        self.wire = Wire()
        load()
        self.started = time.monotonic()

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
        if not self.wire.requests and (advice := missing_key(self.request, self.provider)):
            ours = AuthenticationError(advice, provider=self.provider, model=self.request.model)
        elif isinstance(ours, UnknownProviderError):
            advice = f"no provider is known for the model {self.request.model!r}; write it as provider/model"
            ours = UnknownProviderError(advice, model=self.request.model)
        ours.partial = partial
        return ours

    def arguments(self, pool: Pool, *, stream: bool = False) -> dict[str, Any]:
        """Return the keyword arguments for LiteLLM's function."""
        request, litellm = self.request, load()
        model, self.provider, key, base = litellm.get_llm_provider(
            request.model,
            api_base=request.api_base,
            api_key=request.api_key,
            custom_llm_provider=request.params.get("custom_llm_provider"),
        )
        if key is None and self.provider in KEYED_PROVIDERS and (advice := missing_key(request, self.provider)):
            raise AuthenticationError(advice, provider=self.provider, model=request.model)
        self.wire.timeout_s = None if stream else request.timeout_s
        arguments: dict[str, Any] = {
            **_copied(request.params),
            "model": request.model,
            "messages": _copied(request.messages),
            "timeout": request.timeout_s,
            "max_retries": 0,  # retries have one owner, and it is not the SDK
        }
        if request.api_key is not None:
            arguments["api_key"] = request.api_key
        if request.api_base is not None:
            arguments["api_base"] = request.api_base
        if arguments.get("tools"):
            arguments["_skip_mcp_handler"] = True  # else LiteLLM wants the package `mcp`
        if stream:
            arguments["stream"] = True
            if "stream_options" in (litellm.get_supported_openai_params(model, self.provider) or ()):
                arguments["stream_options"] = {"include_usage": True, **arguments.get("stream_options", {})}
        if not OWN_CLIENT_PARAMS & request.params.keys():
            client = _client(pool, self.provider, key, base, request.params)
            if client is not None:
                self.wire.seen = True
                arguments["client"] = client
        return arguments

    def reply(self, raw: Any, *, reported: bool | None = None, complete: bool = True) -> Reply:
        """Turn LiteLLM's response into a Reply."""
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
            warnings=self.request.notes + warnings,
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
        price = self.request.price
        cost = cost_usd(price, prompt, completion, cached) if price else _cost(self.request.model, counts)
        if cost is None:
            warnings.append(f"no price is known for {self.request.model}")
        return Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=getattr(counts, "total_tokens", 0) or prompt + completion,
            cached_tokens=cached,
            cost_usd=cost,
            source="unpriced" if cost is None else "priced" if reported else "estimated",
        ), tuple(warnings)


class _Source:
    """What the sources of both colours share: the chunks so far, and the reply made of them."""

    def __init__(self, attempt: _Attempt, wrapper: Any) -> None:
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


def _copied(value: Any) -> Any:
    """Copy the mappings and lists in *value*: LiteLLM writes into what it is given."""
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(item) for item in value]
    return value


def _client(pool: Pool, provider: str, key: str | None, base: str | None, params: Any) -> Any:
    """Return the client LiteLLM shall use, None where it has to find its own."""
    litellm = load()
    if provider in HTTP_PROVIDERS:
        return pool.handler
    environ = os.environ.get
    if provider == "azure":
        key = key or litellm.api_key or litellm.azure_key or environ("AZURE_OPENAI_API_KEY") or environ("AZURE_API_KEY")
        base = base or litellm.api_base or environ("AZURE_API_BASE")
        version = params.get("api_version") or litellm.api_version or environ("AZURE_API_VERSION")
        version = version or litellm.AZURE_DEFAULT_API_VERSION
        if key and base and version not in {"v1", "preview", "latest"}:
            return pool.sdk(base, key, None, version)
        return None
    if provider in {"openai", "custom_openai"}:
        key = key or litellm.api_key or litellm.openai_key or environ("OPENAI_API_KEY")
        base = base or litellm.api_base or environ("OPENAI_BASE_URL") or environ("OPENAI_API_BASE")
        base = base or "https://api.openai.com/v1"
    elif not _is_openai_like(provider):
        return None
    return pool.sdk(base, key, params.get("organization"), None) if key and base else None


def _is_openai_like(provider: str) -> bool:
    """Tell whether LiteLLM defines *provider* by data only, as a copy of OpenAI's interface."""
    registry = importlib.import_module("litellm.llms.openai_like.json_loader").JSONProviderRegistry
    return bool(registry.exists(provider))


def _cost(model: str, counts: Any) -> float | None:
    """Return the price by LiteLLM's map in US dollars, None when the model is not in it."""
    known = _in_price_map(model)
    if known is None:
        return None
    prompt, completion = load().cost_per_token(model=known[0], custom_llm_provider=known[1], usage_object=counts)
    return float(prompt + completion)


@lru_cache(maxsize=256)
def _in_price_map(model: str) -> tuple[str, str] | None:
    """Return the model's name and provider when LiteLLM knows its price; an unknown model costs a search."""
    litellm = load()
    try:
        entry = litellm.get_model_info(model)
    except Exception:  # noqa: BLE001 - LiteLLM raises plain Exception for an unknown model
        return None
    if entry.get("input_cost_per_token") is None:
        return None
    name, provider, _, _ = litellm.get_llm_provider(model)
    return name, provider


def missing_key(request: Request, provider: str) -> str:
    """Say which variable to set when the provider's key is missing; "" when nothing is missing."""
    if request.api_key or not provider:
        return ""
    names: Sequence[str] = load().validate_environment(request.model).get("missing_keys") or ()
    if not names and _is_openai_like(provider):
        registry = importlib.import_module("litellm.llms.openai_like.json_loader").JSONProviderRegistry
        names = [registry.get(provider).api_key_env]
    names = [name for name in names if name and name not in os.environ]
    if not names:
        return ""
    joint = " or " if all(name.endswith("_API_KEY") for name in names) else " and "
    return f"no key for {provider}: set {joint.join(names)}, or pass api_key ({request.model})"
