"""`Direct`: the backend of a server, which asks an address in OpenAI's format without a way round.

LiteLLM takes some milliseconds to hand a plain chat to an address that speaks its own format already. Such a chat is
posted as it is, on the same connections; whatever LiteLLM would change, and every stream, still goes through it.
"""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from llmkit._attempt import Attempt
from llmkit._litellm import connections, load
from llmkit._provider import LiteLLM

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.types import Message, Reply, Request

_SPECIAL = re.compile(r"(^|[/-])(o\d|gpt-5|responses|search|audio|chatgpt)", re.IGNORECASE)
"""Models whose parameters or addresses LiteLLM translates."""
_PARAMS = frozenset(
    {
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
    }
)
_MESSAGE = frozenset({"role", "content", "name", "tool_calls", "tool_call_id"})
_ANSWER = frozenset({"role", "content", "tool_calls", "refusal", "annotations", "function_call"})
_ENDS = frozenset({"stop", "length", "tool_calls", "content_filter"})
_COUNTS = {"prompt_tokens", "completion_tokens", "total_tokens"}
_REFUSED = 400


class Direct(LiteLLM):
    """Sends as `LiteLLM` does, with the same errors and prices, and quicker where that makes no difference."""

    async def asend(self, request: Request) -> Reply:
        """Send once."""
        if not is_plain(request):
            return await super().asend(request)
        attempt = Attempt(request)
        attempt.wire.seen, attempt.wire.timeout_s = True, request.timeout_s
        with attempt.errors():
            pool = connections().awaited
            model = request.model.partition("/")[2]
            body = {"model": model, "messages": request.messages, **request.params}
            response = await pool.handler.client.post(
                f"{str(request.api_base).rstrip('/')}/chat/completions",
                content=json.dumps(body, separators=(",", ":"), default=dict).encode(),
                headers={"authorization": f"Bearer {request.api_key}", "content-type": "application/json"},
                timeout=request.timeout_s,
            )
            if response.status_code >= _REFUSED:
                sdk = pool.sdk(str(request.api_base), request.api_key or "", None, None)
                refused = sdk._make_status_error_from_response(response)  # noqa: SLF001 - the SDK's way to its errors
                raise load().exception_type(model=model, original_exception=refused, custom_llm_provider="openai")
            return attempt.reply(_read(json.loads(response.content)))


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


def _read(found: Any) -> Any:
    """Return the answer as LiteLLM would read it."""
    litellm = load()
    choices: Sequence[Any] = found["choices"]
    usage = litellm.Usage(**found["usage"]) if found.get("usage") else None
    is_plain = all(map(_is_plain_choice, choices)) and found.get("service_tier") in {None, "default"}
    if not choices or not is_plain or _has_details(usage):
        return litellm.utils.convert_to_model_response_object(
            response_object=found, model_response_object=litellm.ModelResponse()
        )
    return SimpleNamespace(
        id=found.get("id"),
        model=found.get("model"),
        choices=[_Node(choice) for choice in choices],
        usage=usage,
    )


def _has_details(usage: Any) -> bool:
    """Tell whether anything but tokens is counted, which may cost something else: LiteLLM prices its own objects."""
    more = {} if usage is None else usage.model_dump(exclude=_COUNTS, exclude_none=True)
    return any(any(value.values()) if isinstance(value, dict) else value for value in more.values())


def _is_plain_choice(choice: Any) -> bool:
    message = choice["message"]
    return (
        {name for name, value in message.items() if value is not None} <= _ANSWER
        and choice.get("finish_reason") in _ENDS
        and "<think" not in (message.get("content") or "")
    )


class _Node(dict[str, Any]):
    """A JSON object whose fields are attributes too; one that it does not have is None."""

    def __getattr__(self, name: str) -> Any:
        """Return a field."""
        if name.startswith("__"):
            raise AttributeError(name)
        value = self.get(name)
        if isinstance(value, dict):
            return _Node(value)
        if isinstance(value, list):
            return [_Node(item) if isinstance(item, dict) else item for item in value]
        return value
