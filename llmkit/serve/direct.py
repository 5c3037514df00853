"""`Direct`: the backend of a server, which calls OpenAI-compatible servers without LiteLLM's detour.

LiteLLM takes some milliseconds to hand a plain chat to an address that speaks its own format already. Such a chat is
posted as it is, on the same connections; whatever LiteLLM would change, and every stream, still goes through it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from llmkit.providers import Providers
from llmkit.providers.litellm.attempt import Attempt
from llmkit.providers.litellm.sdk import connections, load

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    """Sends as llmkit always does, with the same errors and prices, and quicker where that makes no difference."""

    async def asend(self, request: Request) -> Reply:
        """Send once."""
        if not is_plain(request):
            return await super().asend(request)
        attempt, litellm, pool = Attempt(request), load(), connections().awaited
        attempt.wire.seen, attempt.wire.timeout_s = True, request.timeout_s
        model, base = request.model.partition("/")[2], str(request.api_base).rstrip("/")
        body = {"model": model, "messages": request.messages, **request.params}
        with attempt.errors():
            response = await pool.handler.client.post(
                f"{base}/chat/completions",
                content=json.dumps(body, separators=(",", ":"), default=dict).encode(),
                headers={"authorization": f"Bearer {request.api_key}", "content-type": "application/json"},
                timeout=request.timeout_s,
            )
            if response.status_code >= _REFUSED:
                sdk = pool.sdk(base, request.api_key or "", None, None)
                refused = sdk._make_status_error_from_response(response)  # noqa: SLF001 - the SDK's way to its errors
                raise litellm.exception_type(model=model, original_exception=refused, custom_llm_provider="openai")
            answer = litellm.utils.convert_to_model_response_object(
                response_object=json.loads(response.content), model_response_object=litellm.ModelResponse()
            )
            return attempt.reply(answer)


def is_plain(request: Request) -> bool:
    """Tell whether LiteLLM would send a request as it stands here."""
    litellm = load()
    return (
        request.kind == "chat"
        and request.model.startswith("openai/")
        and bool(request.api_base and request.api_key)
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
