"""Deployments: where a model is served, and how to reach it. Pure data: nothing here sends.

A program calls a logical model ("gpt-4o"); a deployment says which provider serves it under which name.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from llmkit import config
from llmkit.config.credentials import stored_keys
from llmkit.config.hints import did_you_mean
from llmkit.config.secrets import NAMES, masked
from llmkit.core.params import check_params, nearest, settings_beside
from llmkit.core.types import Price, Request
from llmkit.errors import AuthenticationError, ConfigError, InvalidRequestError
from llmkit.providers import own, prices
from llmkit.providers.model_info import full_name
from llmkit.providers.names import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.core.types import Kind, Message
    from llmkit.presets import Preset

Model: TypeAlias = str
"""A logical model name."""

AZURE_API_VERSION = "2023-05-15"
SCALEWAY = "https://api.scaleway.ai"
CLOVA_STUDIO = "https://clovastudio.stream.ntruss.com/v1/openai"
QWEN = "qwen3-235b-a22b-instruct-2507"
LITELLM_NAMES = {"aws-bedrock": "bedrock", "gcp-vertexai": "vertex_ai", "hyperclova-x": "openai"}
"""LiteLLM's names for the providers that have another name here."""

KEY_VARIABLES = {"scaleway": "SCALEWAY_API_KEY", "hyperclova-x": "CLOVASTUDIO_API_KEY"}
"""Environment variables of keys that LiteLLM does not know."""

_ENDPOINTS = ("practicus", "aixplain")
_ADDRESSLESS = ("hosted_vllm", "HOSTED_VLLM_API_BASE")
"""A provider on the user's own machine; without an address LiteLLM would send to OpenAI what is not meant for it."""
_ADDRESS = frozenset(
    {"api_base", "api_version", "base_url", "client", "custom_llm_provider", "deployment_id"}
    | {"extra_headers", "headers", "organization", "project_id", "region", "shared_session", "ssl_verify"}
)
_OF_CLOUDS = ("aws_", "azure_", "vertex_")


@lru_cache(maxsize=1024)
def belongs_to_address(name: str) -> bool:
    """Return whether a parameter belongs to an address or its access; such parameters go to no other model."""
    return name in _ADDRESS or name.startswith(_OF_CLOUDS) or NAMES.search(name) is not None


def _pop_address(settings: dict[str, Any]) -> Any:
    """Take the address out of the settings, by LiteLLM's name for it or the SDK's; "" if there is none."""
    base_url = settings.pop("base_url", None)
    return settings.pop("api_base", None) or base_url or ""


@lru_cache(maxsize=256)
def _is_address(text: str) -> bool:
    try:
        parts = urlsplit(text)
        is_one = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_one = False
    return is_one and not any(char.isspace() for char in text)


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Deployment:
    """A model at a provider. The key is not in its repr.

    Attributes:
        model: the logical name.
        provider: `azure`, `openai`, `scaleway`, `mistral`, `anthropic`, `gemini`, `aws-bedrock`, `gcp-vertexai`,
            `openrouter`, `hyperclova-x`, `local`, or any of LiteLLM's; `practicus` for an endpoint like those of
            `llmkit serve`, `aixplain` for a service like aiXplain's.
        deployment_name: the provider's name for the model; the logical name if empty.
        api_key: the key; the provider's environment variable if empty.
        endpoint: the address, also taken as `api_base` or `base_url`; the provider's usual one if empty.
        api_version: Azure's API version, 2023-05-15 if empty.
        project_id: Scaleway's or Google's project; for Bedrock the access key that belongs to `api_key`.
        region: Bedrock's or Vertex' region.
        price: the model's price here, or None to look it up.
        scoped: Scaleway only: put the project before the version, as in `https://api.scaleway.ai/{project_id}/v1`.
        settings: all other arguments, passed on to LiteLLM.

    Raises:
        ConfigError: a field that this provider needs is missing; it is named.
    """

    model: Model
    provider: str
    deployment_name: str
    api_key: str
    endpoint: str
    api_version: str | None
    project_id: str
    region: str
    price: Price | None
    scoped: bool
    settings: Mapping[str, Any] = field(hash=False)

    def __init__(
        self,
        model: Model = "",
        provider: str = "",
        deployment_name: str = "",
        api_key: str = "",
        endpoint: str = "",
        api_version: str = "",
        project_id: str = "",
        region: str = "",
        *,
        price: Price | None = None,
        scoped: bool = False,
        **settings: Any,
    ) -> None:
        if provider in _ENDPOINTS:
            model = model or deployment_name or provider  # the address says which model it is
        settings = {**settings.pop("settings", {}), **settings}  # as dataclasses.replace gives them
        address = _pop_address(settings)
        if endpoint and address:
            raise ConfigError(f"deployment {model!r}: the address is given twice, by endpoint and by its other name")
        endpoint = endpoint or address
        given = {**locals()}
        for name in self.__dataclass_fields__:
            object.__setattr__(self, name, given[name])
        self._check()

    def __repr__(self) -> str:
        """Return the fields except the key and the settings; a key in the address is hidden too."""
        shown = [name for name in self.__dataclass_fields__ if name not in {"api_key", "settings"}]
        return f"Deployment({', '.join(f'{name}={masked(getattr(self, name), name)!r}' for name in shown)})"

    @classmethod
    def of_preset(cls, preset: Preset) -> Deployment:
        """Return the deployment that serves a preset under its name."""
        return cls.of_model(preset.model or config.EMBEDDED_MODEL, preset.set_params(), name=preset.name)

    @classmethod
    def of_model(cls, model: str, params: Mapping[str, Any], *, name: str = "") -> Deployment:
        """Return the deployment for LiteLLM's model string and parameters; LiteLLM finds what is missing."""
        made: Deployment = cls.__new__(cls)
        model = full_name(model, has_provider="custom_llm_provider" in params)
        provider, slash, bare = model.partition("/")
        if not slash:  # LiteLLM knows the provider of well-known names
            provider, bare = "", model
        settings = dict(params)
        values: dict[str, Any] = {field: settings.pop(field, "") or "" for field in ("api_key", "project_id", "region")}
        endpoint = _pop_address(settings)
        if provider == "scaleway" and not endpoint and not values["project_id"]:
            endpoint = f"{SCALEWAY}/v1"
        values |= {
            "model": name or model,
            "provider": provider,
            "deployment_name": bare,
            "endpoint": endpoint,
            "api_version": settings.pop("api_version", None),
            "price": None,
            "scoped": False,
            "settings": settings,
        }
        for field_name, value in values.items():
            object.__setattr__(made, field_name, value)
        made._check_settings()
        made._check_address()
        return made

    def _check(self) -> None:
        for name in ("model", "provider", "deployment_name", "api_key", "endpoint", "api_version"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"a deployment's {name} must be a text, not {type(getattr(self, name)).__name__}")
        for name in self.settings:
            if meant := nearest(name, self.__dataclass_fields__):
                raise ConfigError(f"deployment {self.model!r}: there is no {name!r}; did you mean {meant!r}?")
        if self.price is not None:
            prices.check(self.price)
        self._check_settings()
        self._need("model", "provider")
        self._check_provider()
        self._check_address()
        if self.provider == "azure":
            self._need("endpoint", "deployment_name")
        if self.provider == "practicus":
            self._need("endpoint")
        if self.provider == "scaleway" and not self.endpoint and not self.project_id:
            raise ConfigError(
                f"deployment {self.model!r} (scaleway): either endpoint or project_id is needed "
                f"(project_id gives {SCALEWAY}/v1/{{project_id}})"
            )

    def _check_settings(self) -> None:
        try:
            check_params(self.settings)
        except InvalidRequestError as error:
            raise ConfigError(f"{self.model!r}: {error}") from None

    def _check_provider(self) -> None:
        if self.provider in PROVIDERS or self.provider in LITELLM_NAMES or own(self.provider) is not None:
            return
        litellm = sys.modules.get("litellm")
        if litellm is not None and self.provider in {getattr(p, "value", p) for p in litellm.provider_list}:
            return  # one that the program has registered
        advice = did_you_mean(self.provider.lower(), (*PROVIDERS, *LITELLM_NAMES, "local", *_ENDPOINTS))
        raise ConfigError(f"deployment {self.model!r}: there is no provider {self.provider!r}{advice}")

    def _check_address(self) -> None:
        if not self.endpoint:
            return
        if not (isinstance(self.endpoint, str) and _is_address(self.endpoint)):
            shown = str(self.endpoint).partition("?")[0].rpartition("@")[2]
            raise ConfigError(
                f"deployment {self.model!r}: the address must begin with https:// or http://, not {shown!r}"
            )

    def _need(self, *names: str) -> None:
        for name in names:
            if not getattr(self, name):
                raise ConfigError(f"deployment {self.model!r} ({self.provider}): {name} is missing")

    @property
    def base_url(self) -> str | None:
        """The address, or None for the provider's usual one."""
        if self.endpoint:
            return self.endpoint
        if self.provider == "scaleway":
            return f"{SCALEWAY}/{self.project_id}/v1" if self.scoped else f"{SCALEWAY}/v1/{self.project_id}"
        return CLOVA_STUDIO if self.provider == "hyperclova-x" else None

    @property
    def litellm_model(self) -> str:
        """LiteLLM's `provider/model` for this deployment."""
        name = self.deployment_name or self._bare
        return f"{LITELLM_NAMES.get(self.provider, self.provider)}/{name}" if self.provider else name

    @property
    def _bare(self) -> str:
        """The logical name without the provider before it: `scaleway/x` and `x` are the same model at Scaleway."""
        return self.model.removeprefix(f"{self.provider}/")

    def request(
        self,
        *,
        kind: Kind = "chat",
        messages: Sequence[Message] = (),
        params: Mapping[str, Any],
        timeout_s: float,
        name: str | None = None,
    ) -> Request:
        """Return a request to this deployment, under the model's *name*; *params* win over the settings."""
        if self.provider == _ADDRESSLESS[0] and not self.base_url and not os.environ.get(_ADDRESSLESS[1]):
            why = f"{self.provider} has no usual address: pass api_base, or set {_ADDRESSLESS[1]}"
            raise InvalidRequestError(why)
        priced = self.find_price()
        usual = {"response_format": "verbose_json"} if kind == "transcribe" and self._is_whisper else {}
        return Request(
            model=self.litellm_model,
            kind=kind,
            messages=messages,
            params=self._adapted({**usual, **self._own_params(), **settings_beside(self.settings, params), **params}),
            timeout_s=timeout_s,
            api_key=self._key(),
            api_base=None if self.provider == "aws-bedrock" else self.base_url,
            name=self.model if name is None else name,
            price=priced[0] if priced else None,
            price_source=priced[1] if priced else "",
            priced_as=self.priced_as,
        )

    def _key(self) -> str | None:
        """Return the key, or None if it is the one in the provider's variable, which is read later."""
        if self.provider == "aws-bedrock" and self.project_id:
            return None  # it is a secret that signs, among the parameters
        if self.api_key:
            return self.api_key
        name = KEY_VARIABLES.get(self.provider)
        key = (os.environ.get(name) if name else None) or stored_keys().of(self.provider)
        if self.provider == "hyperclova-x" and not key:  # else it would get OpenAI's key
            raise AuthenticationError(
                f"no key for {self.provider}: set {name}, or pass api_key", provider=self.provider
            )
        return key

    @property
    def _is_whisper(self) -> bool:
        return "whisper" in self.model or "whisper" in self.litellm_model

    def find_price(self) -> tuple[Price, str] | None:
        """Return the price that llmkit knows for this deployment and its source, or None to ask LiteLLM's map."""
        if self.price is not None:
            return self.price, "deployment"
        if self.provider == "local":
            return prices.FREE, "llmkit"
        if self.provider == "azure":
            return prices.find(self.priced_as, *(() if "base_model" in self.settings else (self.model,)))
        names = (f"{self.provider}/{self._bare}",) if self.provider else ()
        return prices.find(*names, self.priced_as, self.model)

    @property
    def priced_as(self) -> str:
        """The name in LiteLLM's map; for Azure never the deployment's, which its user invented."""
        if self.provider == "azure":
            return str(self.settings.get("base_model") or f"azure/{self._bare}")
        return self.litellm_model

    def _own_params(self) -> dict[str, Any]:
        """Return the fields that LiteLLM takes as parameters."""
        if self.provider == "azure":
            # Azure's name of a deployment says nothing about the model; LiteLLM has to know it for its parameters.
            model = {} if self._bare == self.deployment_name else {"base_model": f"azure/{self._bare}"}
            version = {} if self.api_version is None else {"api_version": self.api_version or AZURE_API_VERSION}
            return {**model, **version}
        if self.provider == "aws-bedrock":
            keys = {"aws_access_key_id": self.project_id, "aws_secret_access_key": self.api_key}
            place = {"aws_region_name": self.region, "aws_bedrock_runtime_endpoint": self.endpoint}
            return {name: value for name, value in {**(keys if self.project_id else {}), **place}.items() if value}
        if self.provider == "gcp-vertexai":
            place = {"vertex_project": self.project_id, "vertex_location": self.region}
            return {name: value for name, value in place.items() if value}
        return {"api_version": self.api_version} if self.api_version else {}

    def _adapted(self, params: dict[str, Any]) -> dict[str, Any]:
        """Replace `json_object` by the `json_schema` that Scaleway's Qwen needs."""
        wanted = params.get("response_format")
        if self.provider != "scaleway" or self.litellm_model.rpartition("/")[2] != QWEN or not isinstance(wanted, dict):
            return params
        beside = params.pop("json_schema", None)
        if wanted.get("type") not in {"json_object", "json_schema"}:
            return params
        schema = wanted.get("json_schema") or beside or {"name": "response", "schema": {"type": "object"}}
        return {**params, "response_format": {"type": "json_schema", "json_schema": schema}}
