"""The clients LiteLLM sends with: its own HTTP handlers, and the OpenAI SDK's clients, over the one transport.

LiteLLM takes a client as an argument. Passing ours fixes what its own clients get wrong: requests sent
again behind the caller's back, redirects that carry keys to other hosts, sockets left open when a loop ends.

Nothing in this module imports LiteLLM: the caller passes the module in. httpx is imported with it, and not before.
"""

from __future__ import annotations

import sys
from functools import cache, cached_property, lru_cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

HTTP_PROVIDERS = frozenset(
    {
        "anthropic",
        "bedrock",
        "deepseek",
        "fireworks_ai",
        "gemini",
        "groq",
        "hosted_vllm",
        "mistral",
        "ollama_chat",
        "openrouter",
        "together_ai",
        "vertex_ai",
        "xai",
    }
)
"""Providers that LiteLLM calls with an HTTP handler; each is tested with ours."""

CHAT_PROVIDERS = frozenset(
    """
    bedrock_mantle bytez cometapi compactifai datarobot edenai langflow langgraph lemonade minimax nadir ollama ovhcloud
    """.split()  # noqa: SIM905 - half as long
)
"""Providers whose chats LiteLLM sends with an HTTP handler; what it does with the client for all else is not known."""

SDK_PROVIDERS = frozenset(
    """
    ai21 ai21_chat aiml baseten cerebras codestral dashscope deepinfra docker_model_runner empower featherless_ai
    friendliai galadriel github hyperbolic inception lambda_ai litellm_proxy llamafile lm_studio meta_llama modelscope
    moonshot morph nebius novita nscale nvidia_nim perplexity qwen_ai_platform qwencloud sambanova tencent v0
    vercel_ai_gateway volcengine wandb xinference zai
    """.split()  # noqa: SIM905 - half as long
)
"""Providers whose chats LiteLLM sends with the OpenAI SDK."""

KEYED_PROVIDERS = HTTP_PROVIDERS - {"bedrock", "hosted_vllm", "ollama_chat", "vertex_ai"} | {"cohere", "cohere_chat"}
"""Providers that need an API key; LiteLLM would send some requests without one."""

OWN_CLIENT_PARAMS = frozenset({"client", "ssl_verify", "shared_session", "azure_ad_token", "azure_ad_token_provider"})
"""If the caller sets one of these, the connection is the caller's (or LiteLLM's) business."""

NO_KEY = "none"
"""The key of the SDK's client where there is none, since it refuses to be made without one."""


@cache
def _once(client: Any) -> Any:
    """Return a class of the SDK's whose retries are always off: LiteLLM takes 0 for "not set", and sets 2."""
    never = property(lambda _: 0, lambda _, __: None)
    return type(client.__name__, (client,), {"max_retries": never})


class ClientPool:
    """One HTTP handler, and the SDK clients on top of it: all keys and addresses share its connections."""

    def __init__(self, handler: Any, *, asynchronous: bool, other: str = "") -> None:
        self.handler = handler
        self._other = other
        self._asynchronous = asynchronous
        self.sdk = lru_cache(maxsize=64)(self._sdk)

    def other(self, base: str | None, key: str | None) -> Any:
        """Return the client for providers that LiteLLM reaches in a way of its own: usually none."""
        if self._other == "sdk":
            return self.sdk(base or "https://unknown.invalid/v1", key or NO_KEY, None, None)
        return self.handler if self._other == "handler" else None

    def _sdk(self, base: str, key: str, organization: str | None, api_version: str | None) -> Any:
        """Return a new client of the OpenAI SDK; with an *api_version*, the one for Azure."""
        import openai

        common: dict[str, Any] = {"http_client": self.handler.client, "max_retries": 0, "api_key": key}
        if api_version is not None:
            azure = openai.AsyncAzureOpenAI if self._asynchronous else openai.AzureOpenAI
            return _once(azure)(azure_endpoint=base, api_version=api_version, **common)
        plain = openai.AsyncOpenAI if self._asynchronous else openai.OpenAI
        return _once(plain)(base_url=base, organization=organization, **common)


class ClientPools:
    """The pools of this process, made from LiteLLM's module of HTTP handlers and its certificate setting.

    All threads share the sync one, all event loops the async one; whatever belongs to a single thread, loop or
    process is handled by the transport.

    Args:
        http: LiteLLM's module of HTTP handlers.
        transports: the sync and the async one.
        other: "handler" or "sdk" to hand LiteLLM such a client also for providers that it reaches in a way of its own;
            for probes, which must not leave the machine.
    """

    def __init__(self, http: ModuleType, transports: tuple[Any, Any], other: str = "") -> None:
        self._http = http
        self._transports = transports
        self._other = other

    @cached_property
    def blocking(self) -> ClientPool:
        """The pool for sync calls."""
        import httpx

        from llmkit.providers.transport.httpx_shim import BlockingShim

        client = httpx.Client(
            transport=BlockingShim(self._transports[0]),
            headers=self._http.get_default_headers(),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            follow_redirects=False,
        )
        return ClientPool(
            self._http.HTTPHandler(client=client, follow_redirects=False), asynchronous=False, other=self._other
        )

    @cached_property
    def awaited(self) -> ClientPool:
        """The pool for async calls."""
        from llmkit.providers.transport.httpx_shim import AwaitedShim

        class Once(self._http.AsyncHTTPHandler):  # type: ignore[misc, name-defined]
            """A handler that does not resend a failed request, as LiteLLM's own does."""

            async def single_connection_post_request(self, **_: Any) -> None:
                error = sys.exc_info()[1]
                raise error if error is not None else AssertionError("only called while a failure is handled")

        handler = Once(transport=AwaitedShim(self._transports[1]), follow_redirects=False)
        return ClientPool(handler, asynchronous=True, other=self._other)
