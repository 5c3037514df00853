"""`Direct`: the backend of a server, which calls OpenAI-compatible servers directly.

LiteLLM takes some milliseconds to pass a plain chat on to an address that uses its own format already. Such a chat is
posted as it is, over the same connections; anything LiteLLM would change, and every stream, still goes through it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from llmkit.providers import Providers
from llmkit.providers.litellm.attempt import Attempt
from llmkit.providers.litellm.sdk import connections, load
from llmkit.providers.transport.addresses import UnsupportedProxyError, proxy_for
from llmkit.providers.transport.events import read_json
from llmkit.providers.transport.http import HttpRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.core.types import Message, Reply, Request

_SPECIAL = re.compile(r"(^|[/-])(o\d|gpt-5|responses|search|audio|chatgpt)", re.IGNORECASE)
"""Models whose parameters or addresses LiteLLM translates."""
_PARAMS = frozenset(
    [
        "temperature",
        "top_p",
        "n",
        "stop",
        "max_tokens",
        "max_completion_tokens",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "seed",
        "user",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
    ]
)
_MESSAGE = frozenset({"role", "content", "name", "tool_calls", "tool_call_id"})
_REFUSED = 400


class Direct(Providers):
    """Sends as llmkit always does, with the same errors and prices, but faster where LiteLLM would change nothing."""

    async def asend(self, request: Request) -> Reply:
        """Send once."""
        if not is_plain(request):
            return await super().asend(request)
        attempt, litellm = Attempt(request), load()
        attempt.wire.seen = True
        model = request.model.partition("/")[2]
        sent = HttpRequest(
            method="POST",
            url=_address(request),
            headers=[("authorization", f"Bearer {request.api_key}"), ("content-type", "application/json")],
            body=_json({"model": model, "messages": request.messages, **request.params}),
            timeout_s=request.timeout_s,
        )
        with attempt.errors():
            response = await connections().transport.open(sent, attempt.wire)
            content = await response.aread()
            if response.status >= _REFUSED:
                refused = _refusal(sent, response.status, response.headers, content)
                raise litellm.exception_type(model=model, original_exception=refused, custom_llm_provider="openai")
            answer = litellm.utils.convert_to_model_response_object(
                response_object=json.loads(content), model_response_object=litellm.ModelResponse()
            )
            return attempt.answer(answer)


def _address(request: Request) -> str:
    return f"{str(request.api_base).rstrip('/')}/chat/completions"


def _json(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":"), default=dict).encode()


def _refusal(request: HttpRequest, status: int, headers: Sequence[tuple[str, str]], content: bytes) -> Exception:
    """Return the OpenAI SDK's error for a refusal, which LiteLLM understands."""
    import httpx
    import openai

    kept = [
        (name, value) for name, value in headers if name.lower() != "content-encoding"
    ]  # it is decompressed already
    response = httpx.Response(status, headers=kept, content=content, request=httpx.Request("POST", request.url))
    return openai.APIStatusError(content.decode(errors="replace"), response=response, body=read_json(content.decode()))


def is_plain(request: Request) -> bool:
    """Return whether LiteLLM would send a request unchanged."""
    litellm = load()
    return (
        request.kind == "chat"
        and request.model.startswith("openai/")
        and bool(request.api_base and request.api_key)
        and _is_reached_directly(_address(request))
        and not _SPECIAL.search(request.model[7:])
        and request.params.keys() <= _PARAMS
        and isinstance(request.params.get("response_format", {}), dict)
        and all(map(_is_plain_tool, request.params.get("tools") or ()))
        and all(map(_is_plain_message, request.messages))
        and litellm.cache is None
        and all(
            callback == "cache"  # LiteLLM's own, of its provider for Gemini
            for callback in (*litellm.callbacks, *litellm.success_callback, *litellm.failure_callback)
        )
    )


def _is_plain_message(message: Message) -> bool:
    return message.keys() <= _MESSAGE and isinstance(message.get("content"), str | None)


def _is_plain_tool(tool: Mapping[str, Any]) -> bool:
    return tool.get("type") == "function" and "cache_control" not in tool


def _is_reached_directly(url: str) -> bool:
    """Return whether the transport can reach the address; httpx knows more kinds of proxies."""
    try:
        proxy_for(url)
    except UnsupportedProxyError:
        return False
    return True
