"""What an untrusted preset may set: texts, numbers, and choices from closed lists.

Everything else waits until the user has trusted the file: an address, a key, a header, a tool, `${NAME}`, a
budget, whatever LiteLLM may learn tomorrow.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llmkit.config import EMBEDDED_MODEL
from llmkit.config.preset_folders import is_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmkit.presets.values import FlatPreset, Key

PROVIDERS = frozenset(
    {
        *("ai21", "ai21_chat", "anthropic", "aws-bedrock", "azure", "azure_ai", "bedrock", "cerebras", "codestral"),
        *("cohere", "cohere_chat", "dashscope", "databricks", "deepinfra", "deepseek", "fireworks_ai", "gcp-vertexai"),
        *(
            "gemini",
            "github",
            "gradient_ai",
            "groq",
            "hyperbolic",
            "hyperclova-x",
            "lambda_ai",
            "meta_llama",
            "minimax",
        ),
        *("mistral", "moonshot", "nebius", "novita", "nscale", "nvidia_nim", "ollama", "ollama_chat", "openai"),
        *("openrouter", "ovhcloud", "perplexity", "sambanova", "scaleway", "together_ai", "vertex_ai", "volcengine"),
        *("voyage", "wandb", "watsonx", "xai", "zai"),
    }
)
"""Providers with one address, or the one the user has set, that run nothing on this machine."""

_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*(?:[/:@][A-Za-z0-9][\w.+-]*)*", re.ASCII)
_TEXTS = frozenset({"description", "system"})
_NUMBERS = frozenset({"timeout", "max_rounds", "max_input_tokens", "ratio"})
_SECTIONS = frozenset({"retry", "limits"})  # numbers and flags only, by their own types
_PARAMS: Mapping[tuple[str, ...], tuple[type, ...] | frozenset[str]] = {
    ("temperature",): (int, float),
    ("top_p",): (int, float),
    ("top_k",): (int,),
    ("min_p",): (int, float),
    ("max_tokens",): (int,),
    ("max_completion_tokens",): (int,),
    ("presence_penalty",): (int, float),
    ("frequency_penalty",): (int, float),
    ("repetition_penalty",): (int, float),
    ("repeat_penalty",): (int, float),
    ("seed",): (int,),
    ("n",): (int,),
    ("logprobs",): (bool,),
    ("top_logprobs",): (int,),
    ("parallel_tool_calls",): (bool,),
    ("drop_params",): (bool,),
    ("reasoning_effort",): frozenset({"none", "minimal", "low", "medium", "high", "xhigh"}),
    ("verbosity",): frozenset({"low", "medium", "high"}),
    ("response_format", "type"): frozenset({"text", "json_object"}),
}


def beyond(leaves: FlatPreset) -> FlatPreset:
    """Return the values that only a trusted preset may set."""
    return {key: leaf for key, leaf in leaves.items() if not _is_plain(_of_version(key), leaf[0])}


def is_plain_model(model: str) -> bool:
    """Return whether a model is a name at a provider: no address, no path, nothing to be filled in later."""
    name = model.replace(":", "/", 1) if ":" in model.partition("/")[0] else model
    provider, slash, _ = name.partition("/")
    if not _NAME.fullmatch(name) or "arn:" in name:
        return False
    return not slash or provider in PROVIDERS or name == EMBEDDED_MODEL


def _of_version(key: Key) -> Key:
    return key[2:] if key[0] == "versions" and len(key) > 2 else key  # noqa: PLR2004


def _is_plain(key: Key, value: Any) -> bool:
    if value is None or value in ({}, []):
        return True
    match key:
        case ("variables", _):
            return isinstance(value, str | int | float | bool)
        case ("params", *name):
            return _is_plain_param(tuple(name), value)
        case ("model",):
            return isinstance(value, str) and is_plain_model(value)
        case ("fallbacks",):
            return isinstance(value, list) and all(isinstance(name, str) and _is_plain_fallback(name) for name in value)
        case ("schema", *_):
            return not _leads_away(key[-1], value)
        case ("examples",):
            return isinstance(value, list) and all(_is_example(item) for item in value)
        case (name,) if name in _TEXTS:
            return isinstance(value, str)
        case (name,) | (name, _) if name in _NUMBERS | _SECTIONS:
            return isinstance(value, int | float)
    return False


def _is_plain_param(name: tuple[Any, ...], value: Any) -> bool:
    if name == ("stop",):
        return all(isinstance(text, str) and _is_text(text) for text in (value if isinstance(value, list) else [value]))
    allowed = _PARAMS.get(name, ())
    if isinstance(allowed, frozenset):
        return isinstance(value, str) and value in allowed
    return type(value) in allowed  # no bool where a number is meant


def _is_text(text: str) -> bool:
    """Return whether a text contains nothing from the environment."""
    return "${" not in text and "os.environ/" not in text


def _is_plain_fallback(name: str) -> bool:
    """Return whether a fallback is a model, or a preset by its name, which is checked by itself."""
    if "/" in name or ":" in name:
        return is_plain_model(name)
    return not is_path(name) and _NAME.fullmatch(name) is not None


def _is_example(item: Any) -> bool:
    return isinstance(item, dict) and all(isinstance(text, str) for text in item.values())


def _leads_away(key: Any, value: Any) -> bool:
    """Return whether a JSON schema refers to another document."""
    if isinstance(value, dict):
        return any(_leads_away(name, inner) for name, inner in value.items())
    if isinstance(value, list):
        return any(_leads_away(None, inner) for inner in value)
    return key in {"$ref", "$dynamicRef", "$recursiveRef"} and not str(value).startswith("#")
