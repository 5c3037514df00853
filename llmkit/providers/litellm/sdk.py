"""What LiteLLM knows, and how it is imported: the one module that does.

LiteLLM is imported on first use, because the import takes seconds, and with its traps disarmed (`load`).
"""

from __future__ import annotations

import contextlib
import importlib
import math
import os
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from llmkit.core.fork import unforked
from llmkit.core.types import Price, Request
from llmkit.providers.litellm.connections import HTTP_PROVIDERS, KEYED_PROVIDERS, Connections

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llmkit.providers.litellm.connections import Pool

_ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else prices are fetched at import, 8 s when the network hangs
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",  # the same for a table of headers
    "LITELLM_LOG": "CRITICAL",  # its faults reach the user as exceptions, not as tracebacks on stderr
    "LITELLM_DISABLE_BUG_REPORT_LINK": "true",  # no advertisement in error messages
}
_OPENAI_BESIDE_CHAT = {"mistral", "groq", "deepseek", "xai", "together_ai", "fireworks_ai"}
"""Providers to which LiteLLM speaks with its own handler for chat and with the SDK of OpenAI for all else."""
_NO_DOTENV = "LITELLM_MODE"
_MESSAGE_TOKENS = 4  # role and separators, about
_PICTURE_TOKENS = 765  # a picture of 1024 by 1024 pixels at OpenAI's


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
        with unforked():  # a child that is forked in the middle would wait for ever for the modules under way
            litellm: Any = importlib.import_module("litellm")
    finally:
        if mode is None:
            del os.environ[_NO_DOTENV]
        else:
            os.environ[_NO_DOTENV] = mode
    litellm.suppress_debug_info = True  # else coloured banners on stdout at every error
    litellm.disable_hf_tokenizer_download = True  # else tokens of llama models are counted by way of the network
    litellm.disable_streaming_logging = True  # else a thread task for each chunk
    return litellm


def client_of(pool: Pool, provider: str, key: str | None, base: str | None, request: Request) -> Any:
    """Return the client LiteLLM shall use, None where it has to find its own."""
    litellm, params = load(), request.params
    if (provider, request.kind) in {("azure", "image"), ("scaleway", "transcribe")}:
        return pool.handler
    copies_openai = request.kind != "chat" and provider in _OPENAI_BESIDE_CHAT
    if provider in HTTP_PROVIDERS and not copies_openai:
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
    elif not copies_openai and not _is_openai_like(provider):
        return None
    return pool.sdk(base, key, params.get("organization"), None) if key and base else None


def wants_key(provider: str) -> bool:
    """Tell whether a request without a key is refused here: it would go without one, or with OpenAI's."""
    if provider == "openai":
        return False
    return provider in KEYED_PROVIDERS or provider in load().openai_compatible_providers or _is_openai_like(provider)


def _is_openai_like(provider: str) -> bool:
    """Tell whether LiteLLM defines *provider* by data only, as a copy of OpenAI's interface."""
    registry = importlib.import_module("litellm.llms.openai_like.json_loader").JSONProviderRegistry
    return bool(registry.exists(provider))


def map_cost(
    model: str,
    counts: Any,
    response: Any = None,
    *,
    service_tier: str | None = None,
    web_search_options: Any = None,
) -> float | None:
    """Return the price by LiteLLM's map in US dollars, None when the model does not stand in it.

    With the *response* that the counts are of, LiteLLM sees what else is billed: searches, the tier that answered.
    """
    known = _in_price_map(model)
    if known is None:
        return None
    tier = service_tier or getattr(response, "service_tier", None)
    plain = tier in {None, "auto", "default", "standard"} and web_search_options is None
    if plain and (flat := _flat_price(model)) is not None and not _has_more(counts, response):
        return float(counts.prompt_tokens * flat[0] + counts.completion_tokens * flat[1])
    if response is None:
        response = load().ModelResponse(model=known.name, usage=counts)
    return _cost_of_response(known, response, tier, web_search_options)


def _cost_of_response(known: _Known, response: Any, tier: str | None, web_search_options: Any) -> float | None:
    """Return what LiteLLM says a response costs, None where it says nothing of a model in its own map."""
    try:
        return float(
            load().completion_cost(
                completion_response=response,
                model=known.name,
                custom_llm_provider=known.provider,
                service_tier=None if tier == "auto" else tier,
                standard_built_in_tools_params={"web_search_options": web_search_options},
            )
        )
    except Exception:  # noqa: BLE001 - of models it lists under one name and prices under another
        return None


def dearest_counts(prompt: int, audio: int, answer: int, *, caches: bool) -> list[Any]:
    """Return the ways in which so many tokens can be counted that may be the dearest one."""
    litellm = load()
    written = {"cache_creation_input_tokens": prompt} if caches else {}
    details: dict[str, Any] = {"audio_tokens": audio} if audio else {}
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
    return [
        litellm.Usage(
            prompt_tokens=prompt,
            completion_tokens=answer,
            total_tokens=prompt + answer,
            **({"prompt_tokens_details": details} if details else {}),
            **written,
            **of_answer,
        )
        for of_answer in answers
    ]


def window(model: str) -> int | None:
    """Return how many tokens *model* can take, None when LiteLLM does not know."""
    return _known_limit(model, "max_input_tokens")


def longest_answer(model: str) -> int | None:
    """Return how many tokens an answer of *model* can have, None when LiteLLM does not know."""
    return _known_limit(model, "max_output_tokens")


def _known_limit(model: str, key: str) -> int | None:
    limit = (_map_entry(model) or {}).get(key)
    return int(limit) if isinstance(limit, int | float) and limit else None


def map_price(model: str) -> Price | None:
    """Return what LiteLLM's map says about *model*, None when it says nothing."""
    entry = _map_entry(model)
    if entry is None:
        return None
    second = entry.get("input_cost_per_second")
    return Price(
        prompt=entry.get("input_cost_per_token"),
        completion=entry.get("output_cost_per_token"),
        cached=entry.get("cache_read_input_token_cost"),
        minute=second * 60 if second else None,
        character=entry.get("input_cost_per_character"),
        image=entry.get("output_cost_per_image") or entry.get("input_cost_per_image"),
    )


def count_tokens(model: str, messages: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return how many tokens each message has, by the model's tokenizer where LiteLLM knows it.

    Pictures are counted as one of the usual size: to look at them LiteLLM would fetch their addresses.
    """
    count = partial(load().token_counter, model=model, use_default_image_token_count=True)
    return [count(messages=[dict(message)]) for message in messages]


def count_text(model: str, text: str) -> int:
    """Return how many tokens a text has, by the model's tokenizer where LiteLLM knows it."""
    return int(load().token_counter(model=model, text=text))


def counts(prompt: int, completion: int, cached: int = 0) -> Any:
    """Return so many tokens in the form that `map_cost` takes."""
    litellm = load()
    details = {"cached_tokens": cached}
    return litellm.Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=details,
    )


def takes(model: str, **params: Any) -> bool:
    """Tell whether a model takes parameters with these values, as far as LiteLLM knows."""
    litellm = load()
    try:
        name, provider, _, _ = litellm.get_llm_provider(model)
        litellm.utils.get_optional_params(model=name, custom_llm_provider=provider, **params)
    except Exception:  # noqa: BLE001 - LiteLLM raises its UnsupportedParamsError, and others of an unknown model
        return False
    return True


def is_known(model: str) -> bool:
    """Tell whether LiteLLM knows the provider of a model string."""
    try:
        return bool(load().get_llm_provider(model)[1])
    except Exception:  # noqa: BLE001 - LiteLLM raises its own BadRequestError
        return False


def dropped(model: str, provider: str, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Say which parameters LiteLLM leaves out because the caller allowed it to."""
    litellm = load()
    supported = set(litellm.get_supported_openai_params(model, provider) or ())
    standard = set(litellm.OPENAI_CHAT_COMPLETION_PARAMS)
    lost = sorted(name for name in params if name in standard and name not in supported)
    return (f"{provider} does not take {', '.join(lost)}; left out, as drop_params allows",) if lost else ()


class _Known(NamedTuple):
    """A model that stands in LiteLLM's map, as LiteLLM calls it."""

    name: str
    provider: str


@lru_cache(maxsize=256)
def _flat_price(model: str) -> tuple[float, float] | None:
    """Return what a token of the prompt and of the answer cost where that is all there is to it, else None."""
    entry = _map_entry(model) or {}
    more = any("_above_" in key or "_per_query" in key or "per_request" in key for key, value in entry.items() if value)
    prompt, completion = entry.get("input_cost_per_token"), entry.get("output_cost_per_token")
    if entry.get("mode") != "chat" or more or entry.get("tiered_pricing") or prompt is None or completion is None:
        return None
    known = _in_price_map(model)
    if known is None:
        return None
    usage = counts(1000, 500)
    whole = _cost_of_response(known, load().ModelResponse(model=known.name, usage=usage), None, None)
    if whole is None or not math.isclose(whole, 1000 * prompt + 500 * completion):
        return None
    return float(prompt), float(completion)


def _has_more(counts: Any, response: Any) -> bool:
    """Tell whether a count has anything that may cost something else: cached tokens, sound, thoughts, searches."""
    for details in (counts.prompt_tokens_details, counts.completion_tokens_details):
        if details is not None and any(value for key, value in details if key != "text_tokens"):
            return True
    if getattr(counts, "server_tool_use", None) or getattr(counts, "cache_creation_input_tokens", None):
        return True
    choices = getattr(response, "choices", None) or ()
    return any(getattr(getattr(choice, "message", None), "annotations", None) for choice in choices)


_PRICED_BY_TOKENS = frozenset({"chat", "completion", "responses"})


@lru_cache(maxsize=256)
def _in_price_map(model: str) -> _Known | None:
    """Return the model's name and provider when its tokens have a price in LiteLLM's map."""
    entry = _map_entry(model)
    if entry is None or entry.get("mode") not in _PRICED_BY_TOKENS or entry.get("input_cost_per_token") is None:
        return None
    try:
        name, provider, _, _ = load().get_llm_provider(model)
    except Exception:  # noqa: BLE001 - of a provider that the map still has and LiteLLM does not know any more
        return None
    return _Known(name, provider)


@lru_cache(maxsize=256)
def _map_entry(model: str) -> Mapping[str, Any] | None:
    """Return what stands in LiteLLM's map about a model, None where nothing does.

    `get_model_info` makes entries up for names that look like a family's, with a price of 0: what it says it has found
    must stand in the map.
    """
    litellm = load()
    try:
        found = litellm.get_model_info(model)
    except Exception:  # noqa: BLE001 - LiteLLM raises plain Exception for an unknown model
        return None
    own = litellm.model_cost.get(found.get("key"))
    if own is None:
        return None
    kept = {key: value for key, value in found.items() if value is not None and (key not in _COSTS or key in own)}
    return {**kept, **own}


_COSTS = ("input_cost_per_token", "output_cost_per_token")


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


@cache
def connections() -> Connections:
    """Return the connections of this process."""
    litellm = load()
    http = importlib.import_module("litellm.llms.custom_httpx.http_handler")
    verify = os.environ.get("SSL_VERIFY", litellm.ssl_verify)
    return Connections(http, {"false": False, "true": True}.get(str(verify).lower(), verify))


@cache
def warm_up() -> None:
    """Import LiteLLM and what its first call imports; an awaited call has this done on a thread, not on its loop."""
    litellm = load()
    importlib.import_module("openai.resources.chat")
    importlib.import_module("aiohttp")
    pool = connections().awaited
    pool.sdk("http://localhost", "none", None, None)
    with without_logging():
        litellm.completion(model="openai/gpt-4o", messages=[{"role": "user", "content": "hi"}], mock_response="hi")


@contextlib.contextmanager
def without_logging() -> Iterator[None]:
    """Keep LiteLLM from queueing callbacks for the calls of this context, where a program has set none.

    Its queue belongs to one event loop and one thread at a time, and complains on stderr of every other.
    """
    litellm = load()
    lists = (litellm.callbacks, litellm.success_callback, litellm._async_success_callback)  # noqa: SLF001 - LiteLLM's name
    if any(callback != "cache" for callbacks in lists for callback in callbacks):  # LiteLLM's own, for Gemini
        yield
        return
    internal = importlib.import_module("litellm._internal_context").is_internal_call
    token = internal.set(True)
    try:
        yield
    finally:
        internal.reset(token)


def knows_finish_reason(word: Any) -> bool:
    """Tell whether LiteLLM has an own word for why an answer ended."""
    helpers = importlib.import_module("litellm.litellm_core_utils.core_helpers")
    return word in helpers._FINISH_REASON_MAP  # noqa: SLF001 - the function takes an unknown word for "stop"


def estimated_tokens(model: str, messages: Sequence[Mapping[str, Any]], text: str) -> tuple[int, int]:
    """Return about how many tokens a prompt and its answer have. Nothing is fetched, no picture looked at."""
    litellm, prompt = load(), 0
    for message in messages:
        parts = message.get("content") or ""
        texts = [parts] if isinstance(parts, str) else [part.get("text") or "" for part in parts]
        prompt += _MESSAGE_TOKENS + sum(litellm.token_counter(model=model, text=part) for part in texts if part)
        if not isinstance(parts, str):
            prompt += _PICTURE_TOKENS * sum(part.get("type") not in {"text", "refusal"} for part in parts)
    return prompt, litellm.token_counter(model=model, text=text) if text else 0
