"""Presets of the LLM Workflow Engine (`metadata` and `model_customizations`), translated to llmkit's keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmkit import config
from llmkit.config.hints import did_you_mean, near
from llmkit.errors import PresetError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmkit.presets.values import FlatPreset

_SECTIONS = ("metadata", "model_customizations")
_PROVIDERS = {
    "chat_openai": "openai",
    "openai": "openai",
    "chat_openai_compat": "openai",
    "chat_anthropic": "anthropic",
    "chat_google_genai": "gemini",
    "chat_vertexai": "vertex_ai",
    "chat_mistralai": "mistral",
    "chat_cohere": "cohere",
    "chat_fireworks": "fireworks_ai",
    "chat_together": "together_ai",
    "azure_openai": "azure",
    "azure_openai_chat": "azure",
    "chat_ollama": "ollama_chat",
    "chat_openrouter": "openrouter",
    "openrouter": "openrouter",
}
_METADATA = {
    "name": (),  # the file's name is the preset's
    "provider": ("provider",),
    "description": ("description",),
    "system_message": ("system",),
    "max_submission_tokens": ("max_input_tokens",),
    "return_on_tool_call": ("max_rounds",),
    "return_on_tool_response": (),
}
_SETTINGS = {
    "model_name": ("model",),
    "model": ("model",),
    "request_timeout": ("timeout",),
    "max_retries": ("retry", "tries"),
    "openai_api_base": ("params", "api_base"),
    "openai_api_key": ("params", "api_key"),
    "api_key_env_var": ("params", "api_key"),
    "openai_organization": ("params", "organization"),
    "tools": ("tools",),
    "verbose": (),  # printing is not a preset's business
    "streaming": (),
    "_type": (),
}
_PARAMS = [
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "logprobs",
    "top_logprobs",
    "logit_bias",
    "stop",
    "reasoning_effort",
    "verbosity",
    "tool_choice",
    "n",
    "top_k",
    "model_kwargs",
]


def is_lwe(data: Mapping[str, Any]) -> bool:
    """Return whether these are LWE's sections."""
    return bool(data) and all(key in _SECTIONS for key in data)


def translated(leaves: FlatPreset) -> FlatPreset:
    """Return the values of LWE's sections under llmkit's keys, each with its own location.

    Raises:
        PresetError: LWE does not have a key either.
    """
    made: FlatPreset = {}
    wrong: list[str] = []
    for key, (value, place) in leaves.items():
        if not key[1:] and value is not None and value != {}:
            wrong.append(f"{place}: {key[0]} must be a mapping, not {value!r}")
        if not key[1:] or value is None:
            continue
        known = _METADATA if key[0] == "metadata" else {**_SETTINGS, **{name: ("params", name) for name in _PARAMS}}
        name = key[1]
        if name not in known:
            wrong.append(f"{place}: unknown key {'.'.join(map(str, key))!r}; {near(str(name), known)}")
            continue
        target = ("params",) if name == "model_kwargs" else known[name]
        if target and (name != "return_on_tool_call" or value):
            made[target + key[2:]] = (_value(str(name), value), place)
        if name == "return_on_tool_response" and value:
            wrong.append(f"{place}: {key[0]}.{name}: the result of a tool always goes back to the model")
    if wrong:
        raise PresetError("\n".join(wrong))
    return _with_provider(made)


def _value(name: str, value: Any) -> Any:
    if name == "system_message":
        return config.Config().system_messages().get(value, value) if isinstance(value, str) else value
    if name == "max_retries":
        return value + 1 if isinstance(value, int) else value
    if name == "api_key_env_var":
        return f"${{{value}}}"
    return 1 if name == "return_on_tool_call" else value


def _with_provider(made: FlatPreset) -> FlatPreset:
    """Put the provider before the model, as LiteLLM needs it."""
    provider, place = made.pop(("provider",), ("", None))
    if provider and ("model",) in made:
        if provider not in _PROVIDERS:
            advice = did_you_mean(str(provider), _PROVIDERS)
            raise PresetError(f"{place}: metadata.provider: {provider!r} is not known{advice}")
        model, where = made["model",]
        made["model",] = (f"{_PROVIDERS[provider]}/{model}", where)
    return made
