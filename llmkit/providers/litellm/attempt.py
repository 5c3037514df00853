"""One request on its way through LiteLLM: its arguments, and its answer in llmkit's own objects."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from llmkit.config.credentials import set_variable
from llmkit.core.completion import FINISH_REASONS, Choice, Completion
from llmkit.errors import ConfigError, ProviderError, UnknownProviderError, UnsupportedParamsError
from llmkit.providers import attempt
from llmkit.providers.failures import RefusedError, keyless, lost_package
from llmkit.providers.litellm import catalogue
from llmkit.providers.litellm.connections import OWN_CLIENT_PARAMS
from llmkit.providers.litellm.media import other_reply
from llmkit.providers.litellm.sdk import (
    client_of,
    dropped,
    lacking_key,
    load,
    missing_key,
    read_chat,
    wants_key,
    without_logging,
)
from llmkit.providers.refusals import refusal_in
from llmkit.providers.routes.dialects import gemini
from llmkit.providers.transport.http import watched
from llmkit.providers.transport.requests import check_header

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmkit.core.types import Reply, Request
    from llmkit.providers.litellm.connections import ClientPool

_FUNCTIONS = {
    "chat": "completion",
    "embed": "embedding",
    "transcribe": "transcription",
    "speak": "speech",
    "image": "image_generation",
}


class Attempt(attempt.Attempt):
    """One request on its way through LiteLLM."""

    way = "litellm"
    never_sent: ClassVar = (UnknownProviderError, UnsupportedParamsError)

    def __init__(self, request: Request) -> None:
        load()
        super().__init__(request)
        self.raw: Any = None

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Translate every error of LiteLLM's into llmkit's."""
        with without_logging(), watched(self.wire), super().errors():
            yield

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Keep a paid answer that LiteLLM cannot read, if it has the usual format."""
        try:
            yield
        except Exception:
            if self.request.kind != "chat" or (raw := self.read_chat()) is None:
                raise
            self.raw = raw

    def read_chat(self) -> Any:
        """Return the answer in a body in OpenAI's format as LiteLLM's object, or None if it has another format."""
        return None if self.wire.failed_status is not None else read_chat(self.wire.data)

    def has_begun(self) -> bool:
        """Return whether a request has been sent, as far as that can be seen."""
        return bool(self.wire.requests) or not self.wire.seen

    def classified(self, error: Exception) -> ProviderError:
        """Return an error of the class that fits the cause; LiteLLM does not say what is missing."""
        ours = super().classified(error)
        if not self.wire.requests and not lost_package(error) and (advice := missing_key(self.request, self.provider)):
            return keyless(advice, self.provider, self.request)
        if isinstance(ours, UnknownProviderError):
            return UnknownProviderError(catalogue.unknown(self.request.model), model=self.request.model)
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
        check_header("the API key", key if isinstance(key, str) and key else _key_around(self.provider))
        if not key and (advice := missing_key(request, self.provider)) and wants_key(self.provider):
            raise keyless(advice, self.provider, request)
        if OWN_CLIENT_PARAMS & request.params.keys():
            return model, None
        client = client_of(pool, self.provider, key, base, request)
        self.wire.seen = client is not None
        if client is None and not key and (advice := lacking_key(request, self.provider)):
            raise keyless(advice, self.provider, request)
        return model, client

    def answer(self, raw: Any) -> Reply:
        """Return LiteLLM's response as a Reply."""
        if self.request.kind != "chat":
            return other_reply(self.request, raw, self.wire.data, self.started)
        body = self.wire.data if self.wire.seen else None
        if refusal_in(body) is not None:  # some providers' answers LiteLLM takes for empty ones
            raise RefusedError
        completion = completion_of(raw)
        sent = body.get("choices") if isinstance(body, dict) else None
        if isinstance(body, dict) and body.get("type") == "message":  # Anthropic's format
            sent = [{"finish_reason": body.get("stop_reason")}]
            completion = replace(completion, usage=as_counted(completion.usage, body.get("usage")))
        elif isinstance(body, dict) and isinstance(found := body.get("candidates"), list):  # Google's
            sent = [{"finish_reason": each.get("finishReason")} for each in found if gemini.says_something(each)]
        if isinstance(body, dict) and isinstance(sent, list) and len(sent) == len(completion.choices):
            choices = map(_in_the_providers_word, completion.choices, sent)
            model = body.get("model") if isinstance(body.get("model"), str) else completion.model
            completion = replace(completion, choices=tuple(choices), model=model)
        return self.reply(completion, body if body is not None else completion.model_dump(exclude_none=True))


def _key_around(provider: str) -> str:
    """Return the key that LiteLLM finds in the environment, or "" if there is none or it is more than one text."""
    with contextlib.suppress(ConfigError):
        return os.environ.get(set_variable(catalogue.key_variables(provider)), "")
    return ""


def _in_the_providers_word(choice: Choice, sent: Any) -> Choice:
    """Return a choice that says why it ended as the provider said: LiteLLM turns an unknown or no word into "stop"."""
    reason = sent.get("finish_reason") if isinstance(sent, dict) else choice.finish_reason
    known = choice.finish_reason != "stop" or reason in FINISH_REASONS
    return choice if known else replace(choice, finish_reason=reason)


def as_counted(usage: Mapping[str, Any] | None, sent: Any) -> Mapping[str, Any] | None:
    """Return counts without the tokens of reasoning that LiteLLM estimates where Anthropic's own counts have none."""
    if usage is None or not isinstance(sent, dict) or not sent:
        return usage
    details = sent.get("output_tokens_details")
    has_own = sent.get("iterations") or (isinstance(details, dict) and details.get("thinking_tokens") is not None)
    return usage if has_own else {**usage, "completion_tokens_details": None}


def completion_of(raw: Any) -> Completion:
    """Return LiteLLM's response as llmkit's own."""
    data = raw.model_dump()
    for choice in data.get("choices") or ():
        message = choice["message"]
        message["refusal"] = message.get("refusal") or (message.get("provider_specific_fields") or {}).get("refusal")
    return Completion.of(data)


def _copied(value: Any) -> Any:
    """Copy the mappings and lists in *value*: LiteLLM modifies its arguments."""
    if isinstance(value, Mapping):
        return {key: _copied(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value
