"""Which models there are, and which variables name a provider's key: what LiteLLM's map says, without importing it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.config import EMBEDDED_MODEL, EMBEDDED_WINDOW
from llmkit.config.hints import did_you_mean
from llmkit.errors import ConfigError
from llmkit.providers.names import KEYLESS, PROVIDERS, WELL_KNOWN
from llmkit.providers.routes.sources import PRICES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_MODES = {
    **dict.fromkeys(("chat", "completion", "responses"), "chat"),
    "embedding": "embed",
    "audio_transcription": "transcribe",
    "audio_speech": "speak",
    "image_generation": "image",
}
"""LiteLLM's words for what a model does, and llmkit's."""
_ABILITIES = {
    "supports_function_calling": "tools",
    "supports_response_schema": "schema",
    "supports_vision": "pictures",
    "supports_pdf_input": "pdf",
    "supports_audio_input": "audio",
    "supports_reasoning": "reasoning",
    "supports_web_search": "web",
}
_KEYS = {
    "aixplain": ("AIXPLAIN_API_KEY", "TEAM_API_KEY"),
    "gemini": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "cohere": ("COHERE_API_KEY", "CO_API_KEY"),
    "cohere_chat": ("COHERE_API_KEY", "CO_API_KEY"),
    "huggingface": ("HF_TOKEN", "HUGGINGFACE_API_KEY"),
    "replicate": ("REPLICATE_API_KEY", "REPLICATE_API_TOKEN"),
}
"""Variables of providers that llmkit has no route to."""
_MORE_THAN_A_KEY = frozenset(
    (
        *("aws_polly", "aws_textract", "bedrock", "bedrock_mantle", "gigachat", "oci", "s3_vectors", "sagemaker"),
        *("sagemaker_chat", "sagemaker_nova", "sap", "snowflake", "vertex_ai", "vertex_ai_beta", "watsonx"),
        "watsonx_text",
    )
)
_PRICED_APART = re.compile(r"(?:low|medium|high|standard|hd)/|\d+-x-\d+/")
"""How the map names what is no model, but the price of a picture."""
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedModel:
    """A model.

    Attributes:
        name: as a call has it, `provider/model`.
        does: "chat", "embed", "transcribe", "speak" or "image".
        window, longest: how many tokens it takes and answers; None if that is not known.
        input_usd, output_usd: the prices of a million tokens; None if they are not known, or it has another price.
        abilities: of "tools", "schema", "pictures", "pdf", "audio", "reasoning", "web".
    """

    name: str
    does: str
    window: int | None = None
    longest: int | None = None
    input_usd: float | None = None
    output_usd: float | None = None
    abilities: Sequence[str] = ()

    @property
    def provider(self) -> str:
        """The provider."""
        return self.name.partition("/")[0]


def names() -> list[str]:
    """Return the names of all models that chat."""
    found = (_name(key, str(entry.get("litellm_provider"))) for key, entry in _map().items() if _does(entry) == "chat")
    return sorted({EMBEDDED_MODEL, *filter(None, found)})


def _does(entry: Mapping[str, Any]) -> str | None:
    return _MODES.get(str(entry.get("mode")))


@cache
def models() -> Mapping[str, ListedModel]:
    """Return all models that LiteLLM knows, and the embedded one, by name."""
    free = {"window": EMBEDDED_WINDOW, "longest": EMBEDDED_WINDOW, "input_usd": 0.0, "output_usd": 0.0}
    found = {EMBEDDED_MODEL: ListedModel(name=EMBEDDED_MODEL, does="chat", **free)}  # type: ignore[arg-type]
    for key, entry in _map().items():
        name = _name(key, str(entry.get("litellm_provider")))
        if name and (does := _does(entry)):
            found[name] = ListedModel(
                name=name,
                does=does,
                window=_count(entry.get("max_input_tokens") or entry.get("max_tokens")),
                longest=_count(entry.get("max_output_tokens") or entry.get("max_tokens")),
                input_usd=_price(entry.get("input_cost_per_token")),
                output_usd=_price(entry.get("output_cost_per_token")),
                abilities=[word for key, word in _ABILITIES.items() if entry.get(key) is True],
            )
    return dict(sorted(found.items()))


def key_variables(provider: str) -> Sequence[str]:
    """Return the variables that name a provider's key, the first that is set counts; () if it needs none.

    Raises:
        ConfigError: there is no such provider, or it wants more than a key.
    """
    from llmkit.providers.routes.table import table  # with all that sends, for which a TAB does not wait

    known = table().provider(provider)
    if known is not None and known.access.key_variables:
        return known.access.key_variables
    if provider in KEYLESS or (known is not None and not known.access.needs_key):
        return ()
    if provider in _MORE_THAN_A_KEY:
        raise ConfigError(f"{provider} wants more than a key: its own variables and files, as LiteLLM reads them")
    if provider in _KEYS:
        return _KEYS[provider]
    if provider not in PROVIDERS:
        raise ConfigError(f"there is no provider {provider!r}{did_you_mean(provider, providers())}")
    return (f"{provider.upper().replace('-', '_')}_API_KEY",)


def providers() -> list[str]:
    """Return the names of all providers."""
    return sorted({"local", *PROVIDERS, *_KEYS} - {"custom_openai"})  # LiteLLM's word for any address


def unknown(model: str) -> str:
    """Return what to say of a model whose provider is not known."""
    return f"no provider is known for the model {model!r}{advice(model) or '; write it as provider/model'}"


def advice(model: str) -> str:
    """Return the names that may be meant, as the end of a sentence, or "" if there are none."""
    meant = nearest(model)
    return f"; did you mean {' or '.join(meant)}?" if meant else ""


def nearest(model: str) -> list[str]:
    """Return the names of models that may be meant by one that is not known, best first, three at most."""
    import difflib

    provider, slash, name = model.lower().partition("/")
    if slash and provider not in providers():
        meant = difflib.get_close_matches(provider, providers(), n=1)
        return [f"{meant[0]}/{name}"] if meant else []
    chats = [listed for listed in models().values() if listed.does == "chat"]
    if slash:
        return difflib.get_close_matches(model, [listed.name for listed in chats], n=3, cutoff=0.7)
    bare = {listed.name.rpartition("/")[2]: listed.name for listed in reversed(chats)}
    bare |= {listed.name.partition("/")[2]: listed.name for listed in chats if listed.provider in WELL_KNOWN}
    return [bare[found] for found in difflib.get_close_matches(model, bare, n=3, cutoff=0.7)]


def _name(key: str, provider: str) -> str:
    """Return the name by which a call reaches a model of the map, or "" if there is none."""
    provider = next((known for known in (provider, provider.partition("-")[0]) if known in PROVIDERS), provider)
    provider = provider.removesuffix("_converse")
    if provider not in PROVIDERS:
        return ""
    bare = key.removeprefix(f"{provider}/")
    return "" if _PRICED_APART.match(bare) else f"{provider}/{bare}"


@cache
def _map() -> Mapping[str, Mapping[str, Any]]:
    found = find_spec("litellm")
    folders: Iterable[str] = (found.submodule_search_locations or ()) if found else ()
    for folder in folders:
        known: dict[str, Any] = json.loads(Path(folder, PRICES).read_text(encoding="utf-8"))
        return {key: entry for key, entry in known.items() if isinstance(entry, dict) and key != "sample_spec"}
    return {}


def _count(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) else None


def _price(value: Any) -> float | None:
    return round(value * _MILLION, 6) if isinstance(value, int | float) else None
