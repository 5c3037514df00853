"""Imports LiteLLM, and prepares its calls: the only module that imports it.

LiteLLM is imported on first use, because that takes seconds, and with its pitfalls disarmed (`load`).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

from llmkit.config.credentials import set_variable
from llmkit.core.fork import in_each_process
from llmkit.providers.failures import key_advice
from llmkit.providers.litellm import changes
from llmkit.providers.litellm.connections import (
    CHAT_PROVIDERS,
    HTTP_PROVIDERS,
    KEYED_PROVIDERS,
    SDK_PROVIDERS,
    ClientPools,
)
from llmkit.providers.names import KEYLESS
from llmkit.providers.transport import shared
from llmkit.providers.transport.blocking import BlockingTransport

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llmkit.core.types import Request
    from llmkit.providers.litellm.connections import ClientPool

_ENVIRONMENT = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else prices are fetched at import, 8 s if the network hangs
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",  # the same for a table of headers
    "LITELLM_LOG": "CRITICAL",  # its faults reach the user as exceptions, not as tracebacks on stderr
    "LITELLM_DISABLE_BUG_REPORT_LINK": "true",  # no advertisement in error messages
    "DISABLE_AIOHTTP_TRANSPORT": "True",  # else its own clients, which no call uses, complain at exit (1.110)
}
_OPENAI_BESIDE_CHAT = {"mistral", "groq", "deepseek", "xai", "together_ai", "fireworks_ai"}
"""Providers that LiteLLM reaches with its own handler for chats and with OpenAI's SDK for all else."""
_OPENAI_UNLISTED = {("azure_ai", "embed"), ("text-completion-inception", "chat")}
"""What LiteLLM sends with OpenAI's SDK though the table of routes does not know the provider."""
_NO_DOTENV = "LITELLM_MODE"


class _Executors:
    """LiteLLM's executors: a child process has none of their threads, and may inherit a held lock."""

    def begin_anew(self) -> None:
        """Reinitialize them in place."""
        for path, name in _EXECUTORS:
            executor = getattr(sys.modules.get(path), name, None)
            if executor is not None:
                bound = getattr(executor, "_max_pending_tasks", None)
                more = {} if bound is None else {"max_pending_tasks": bound}
                type(executor).__init__(executor, max_workers=executor._max_workers, **more)  # noqa: SLF001 - its own


_EXECUTORS = (
    ("litellm.litellm_core_utils.thread_pool_executor", "executor"),
    ("litellm.llms.bedrock.base_aws_llm", "AWS_SIGNING_EXECUTOR"),
)
_executors = _Executors()


@cache
def load() -> Any:
    """Return LiteLLM, imported on the first call, which takes about two seconds.

    These settings are made once, for the process, before the first call: nothing changes from call to call.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    fresh = "litellm" not in sys.modules
    mode = os.environ.get(_NO_DOTENV)
    os.environ[_NO_DOTENV] = "PRODUCTION"  # else LiteLLM reads a `.env` found above the working directory
    try:
        litellm: Any = importlib.import_module("litellm")
    finally:
        if mode is None:
            del os.environ[_NO_DOTENV]
        else:
            os.environ[_NO_DOTENV] = mode
    in_each_process(_executors)
    # of the SDK, where an answer has other types than OpenAI's; llmkit says itself what cannot be read
    warnings.filterwarnings("ignore", message="Pydantic serializer warnings", category=UserWarning)
    litellm.suppress_debug_info = True  # else coloured banners on stdout at every error
    litellm.disable_hf_tokenizer_download = True  # else tokens of llama models are counted by way of the network
    litellm.disable_streaming_logging = True  # else a thread task for each chunk
    changes.note_import(litellm, fresh=fresh)
    return litellm


def client_of(pool: ClientPool, provider: str, key: str | None, base: str | None, request: Request) -> Any:
    """Return the client for LiteLLM to use, or None if it has to find its own."""
    litellm, params = load(), request.params
    if (provider, request.kind) in {("azure", "image"), ("scaleway", "transcribe")}:
        return pool.handler
    is_chat = request.kind == "chat"
    copies_openai = not is_chat and provider in _OPENAI_BESIDE_CHAT
    if (provider in HTTP_PROVIDERS and not copies_openai) or (is_chat and provider in CHAT_PROVIDERS):
        return pool.handler
    environ = os.environ.get
    if provider == "azure":
        key = key or litellm.api_key or litellm.azure_key or environ("AZURE_OPENAI_API_KEY") or environ("AZURE_API_KEY")
        base = base or litellm.api_base or environ("AZURE_API_BASE")
        version = params.get("api_version") or litellm.api_version or environ("AZURE_API_VERSION")
        version = version or litellm.AZURE_DEFAULT_API_VERSION
        if key and base and version not in {"v1", "preview", "latest"}:
            return pool.sdk(base, key, None, version)
        return pool.other(base, key)
    if provider in {"openai", "custom_openai"}:
        key = key or litellm.api_key or litellm.openai_key or environ("OPENAI_API_KEY")
        base = base or litellm.api_base or environ("OPENAI_BASE_URL") or environ("OPENAI_API_BASE")
        base = base or "https://api.openai.com/v1"
    elif not (copies_openai or _is_openai_like(provider) or (is_chat and provider in SDK_PROVIDERS)):
        return pool.other(base, key)
    return pool.sdk(base, key, params.get("organization"), None) if key and base else pool.other(base, key)


def wants_key(provider: str) -> bool:
    """Return whether a request without a key is refused here: it would be sent without one, or with OpenAI's."""
    if provider == "openai":
        return False
    return provider in KEYED_PROVIDERS or provider in load().openai_compatible_providers or _is_openai_like(provider)


def _is_openai_like(provider: str) -> bool:
    """Return whether LiteLLM defines *provider* by data only, as a copy of OpenAI's API."""
    registry = importlib.import_module("litellm.llms.openai_like.json_loader").JSONProviderRegistry
    return bool(registry.exists(provider))


def takes(model: str, **params: Any) -> bool:
    """Return whether a model accepts parameters with these values, as far as LiteLLM knows."""
    litellm = load()
    try:
        name, provider, _, _ = litellm.get_llm_provider(model)
        litellm.utils.get_optional_params(model=name, custom_llm_provider=provider, **params)
    except Exception:  # noqa: BLE001 - LiteLLM raises its UnsupportedParamsError, and others for an unknown model
        return False
    return True


def is_known(model: str) -> bool:
    """Return whether LiteLLM knows the provider of a model string."""
    try:
        return bool(load().get_llm_provider(model)[1])
    except Exception:  # noqa: BLE001 - LiteLLM raises its own BadRequestError
        return False


def dropped(model: str, provider: str, params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a warning for each parameter that LiteLLM leaves out because the caller allowed it to."""
    litellm = load()
    supported = set(litellm.get_supported_openai_params(model, provider) or ())
    standard = set(litellm.OPENAI_CHAT_COMPLETION_PARAMS)
    lost = sorted(name for name in params if name in standard and name not in supported)
    return (f"{provider} does not take {', '.join(lost)}; left out, as drop_params allows",) if lost else ()


def missing_key(request: Request, provider: str) -> str:
    """Return which variable to set if the provider's key is missing, or "" if nothing is missing."""
    if request.api_key or not provider or provider in KEYLESS:
        return ""
    names: Sequence[str] = load().validate_environment(request.model).get("missing_keys") or ()
    if not names and _is_openai_like(provider):
        registry = importlib.import_module("litellm.llms.openai_like.json_loader").JSONProviderRegistry
        names = [registry.get(provider).api_key_env]
    names = [name for name in names if name and name not in os.environ]
    return key_advice(provider, names, request) if names else ""


def lacking_key(request: Request, provider: str) -> str:
    """Return which variable to set if LiteLLM's own client would take OpenAI's key for another provider, or ""."""
    from llmkit.providers.litellm import catalogue  # it imports this module
    from llmkit.providers.routes.table import table

    known = table().provider(provider)
    needs_key = known.access.needs_key if known else (provider, request.kind) in _OPENAI_UNLISTED
    if not needs_key or request.api_key or load().api_key:
        return ""
    names = known.access.key_variables if known else catalogue.key_variables(provider)
    return "" if set_variable(names) else key_advice(provider, names, request)


@cache
def connections() -> ClientPools:
    """Return the connections of this process."""
    own = load().ssl_verify
    if own is True or "SSL_VERIFY" in os.environ:
        return ClientPools(http_module(), (shared.blocking(), shared.awaited()))
    from llmkit.providers.transport.awaited import AwaitedTransport  # imports asyncio

    return ClientPools(http_module(), (BlockingTransport(own), AwaitedTransport(own)))


def http_module() -> Any:
    """Return LiteLLM's module of HTTP handlers."""
    load()
    return importlib.import_module("litellm.llms.custom_httpx.http_handler")


@cache
def warm_up() -> None:
    """Import LiteLLM and what its first call imports; an async call does this on a thread, not on its loop."""
    litellm = load()
    importlib.import_module("openai.resources.chat")
    importlib.import_module("aiohttp")
    pool = connections().awaited
    pool.sdk("http://localhost", "none", None, None)
    with without_logging():
        litellm.completion(model="openai/gpt-4o", messages=[{"role": "user", "content": "hi"}], mock_response="hi")


@contextlib.contextmanager
def without_logging() -> Iterator[None]:
    """Keep LiteLLM from queueing callbacks for the calls of this context, unless the program has set some.

    Its queue belongs to one event loop and one thread at a time, and complains on stderr about every other.
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


def read_chat(body: Any) -> Any:
    """Return the answer in a body in OpenAI's format as LiteLLM's object, or None if it has another format."""
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices:
        return None
    if not all(isinstance(choice, dict) and isinstance(choice.get("message"), dict) for choice in choices):
        return None
    litellm = load()
    try:
        return litellm.utils.convert_to_model_response_object(
            response_object=body, model_response_object=litellm.ModelResponse()
        )
    except Exception:  # noqa: BLE001 - LiteLLM raises plain Exception for what it cannot read
        return None
