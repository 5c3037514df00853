"""The keys of a preset, with their types and ranges. The published JSON Schema is generated from this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from llmkit.config import secrets
from llmkit.core.retry import Retry
from llmkit.errors import ConfigError, PresetError
from llmkit.presets import rendering

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

Scalar = str | int | float | bool


class _Base(BaseModel):
    def __repr_args__(self) -> Any:
        """Return the fields for `repr`, without secrets."""
        return [(name, secrets.masked(value, name or "")) for name, value in super().__repr_args__()]


class _StrictModel(_Base):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)


class RetryKeys(_StrictModel):
    """How often a call is sent; see `llmkit.Retry`."""

    tries: int = Field(default=3, ge=1, description="HTTP requests at the most")
    delay_s: float = Field(default=0.5, ge=0, description="seconds before the second try")
    backoff: float = Field(default=2.0, ge=1, description="each wait is so many times the one before")
    max_delay_s: float = Field(default=8.0, ge=0, description="the longest wait of llmkit's own")
    deadline_s: float | None = Field(default=None, gt=0, description="seconds for all tries together")
    jitter: bool | None = Field(default=None, description="whether waits are drawn by chance")
    max_retry_after_s: float = Field(default=60.0, ge=0, description="the longest Retry-After that is waited for")


class Limits(_StrictModel):
    """Limits per minute for one process; further requests wait."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)


class Params(_Base):
    """Parameters for the provider; keys that are not listed are passed on as they are."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = None
    n: int | None = Field(default=None, ge=1)
    stop: str | list[str] | None = None
    reasoning_effort: str | None = None
    api_base: str | None = Field(default=None, description="another address, for example of a server of your own")
    api_key: str | None = Field(default=None, description="${NAME}, the environment variable that has the key")


class Example(_StrictModel):
    """One question and its answer, shown to the model before the conversation."""

    user: str
    assistant: str


class Keys(_StrictModel):
    """The keys of a preset, and of each of its versions.

    Attributes:
        description: one line for people.
        model: LiteLLM's `provider/model`, or `local/smollm2`; None for the default one.
        system: the system message; `{{ name }}` is replaced by a variable.
        variables: the variables of the texts, with their defaults, or null if a value is required.
        params: parameters for the provider; `${NAME}` is an environment variable.
        timeout: seconds for one answer.
        retry: how often a call is sent.
        budget: the name of a budget in the store.
        limits: how many requests and tokens are allowed per minute.
        fallbacks: presets or models to call in order if this one fails.
        tools: OpenAI-style schemas, or Python functions as `module:function`.
        max_rounds: calls of the model at most, if it uses tools.
        answer_schema: `schema` in the file: a JSON schema that the answer must fit.
        examples: questions with their answers, shown to the model before the conversation.
        max_input_tokens: how much of a conversation is sent at most.
    """

    description: str = Field(default="", description="one line for people")
    model: str | None = Field(default=None, min_length=1, description="provider/model, or local/smollm2")
    system: str | None = Field(default=None, description="the system message; {{ name }} stands for a variable")
    variables: dict[str, Scalar | None] = Field(default={}, description="name: default; null where it must be given")
    params: Params = Params()
    timeout: float | None = Field(default=None, gt=0, description="seconds for one answer")
    retry: RetryKeys | None = None
    limits: Limits | None = None
    budget: str | None = Field(default=None, description="the name of a budget in the store")
    fallbacks: list[str] = Field(default=[], description="presets or models that are asked when this one fails")
    tools: list[str | dict[str, Any]] = Field(default=[], description="OpenAI-style schemas, or module:function")
    max_rounds: int | None = Field(default=None, ge=1, description="calls of the model at the most, with tools")
    answer_schema: dict[str, Any] | None = Field(default=None, alias="schema", description="a JSON schema")
    examples: list[Example] = Field(default=[], description="shown to the model before the conversation")
    max_input_tokens: int | None = Field(default=None, ge=1, description="how much of a conversation is sent")


class Version(Keys):
    """The settings that one version of a preset overrides."""

    ratio: float | None = Field(default=None, ge=0, le=1, description="how often it is drawn; all of them sum to 1")


class PresetFile(Keys):
    """The content of a preset's file."""

    model_config = ConfigDict(title="llmkit preset")

    extends: str | list[str] = Field(default=[], description="presets that this one builds on; later ones win")
    versions: dict[int, Version] = Field(default={}, description="numbered variants; what they say wins")


class Preset(Keys):
    """One preset, as `llmkit.presets.load` returns it: its file, the files it extends, and one version of it.

    The attributes are the keys of the file. `name` is the name it is loaded by, the file's name without its ending;
    `version` is the number of the version, or None if there are none.
    """

    name: str = Field(default="", exclude=True)
    version: int | None = Field(default=None, exclude=True)
    _filled: bool = PrivateAttr(default=False)
    _origin: Preset | None = PrivateAttr(default=None)  # what it was filled from

    def as_dict(self) -> dict[str, Any]:
        """Return the preset's settings, as they would be in a file."""
        return self.model_dump(by_alias=True, exclude_unset=True)

    def snapshot(self) -> tuple[dict[str, Any], list[str]]:
        """Return the settings to store, and the keys of the secrets that are left out.

        `${NAME}` stays, even if its value was filled in.
        """
        return _without_secrets((self._origin or self).as_dict())

    def changed(self, **changes: Any) -> Preset:
        """Return the preset with other values, which are not validated."""
        made = self.model_copy(update=changes)
        made._origin = self._origin and self._origin.model_copy(update=changes)  # noqa: SLF001 - its own class
        return made

    def over(self, default: Preset) -> Preset:
        """Return the preset with a filled default preset's parameters where it has none of its own."""
        below = default if self._filled else default._origin or default
        made = self.model_copy(update={"params": Params(**{**below.set_params(), **self.set_params()})})
        made._origin = self._origin and self._origin.over(default)  # noqa: SLF001 - its own class
        return made

    def system_text(self) -> str:
        """Return the system message as far as it is known before a call; if a value is missing, the unfilled text."""
        known = {name: value for name, value in self.variables.items() if value is not None}
        try:
            return self.system or "" if self._filled else rendering.render(self.system or "", known, "")
        except ConfigError:
            return self.system or ""

    def set_params(self) -> dict[str, Any]:
        """Return the parameters that the preset sets."""
        return self.params.model_dump(exclude_none=True)

    def turn_options(self) -> dict[str, Any]:
        """Return the preset's tools and schema as options of a call."""
        options = {"tools": self.tools or None, "max_rounds": self.max_rounds, "schema": self.answer_schema}
        return {name: value for name, value in options.items() if value is not None}

    def retry_policy(self) -> Retry | None:
        """Return the preset's retry policy, or None if it sets none."""
        return None if self.retry is None else Retry(**self.retry.model_dump())

    def filled(self, variables: Mapping[str, Any] | None = None, *, replaced: Collection[str] = ()) -> Preset:
        """Return the preset with its variables and environment variables filled in.

        Args:
            variables: values for them; the others have their defaults.
            replaced: parameters that the caller sets itself, so that these need no value.

        Raises:
            ConfigError: a variable has no value, or the preset does not have a given one.
        """
        given = dict(variables or {})
        if self._filled and not given:
            return self  # a value may look like a variable
        if unknown := given.keys() - self.variables.keys():
            known = ", ".join(self.variables) or "none"
            raise PresetError(f"preset {self.name!r} has no variable {min(unknown)!r}; it has: {known}")
        values = {**{key: value for key, value in self.variables.items() if value is not None}, **given}
        data = self.as_dict()
        where = f"preset {self.name!r}"
        if "params" in data:
            data["params"] = {key: value for key, value in data["params"].items() if key not in replaced}
        for key in ("model", "system", "params", "examples"):
            if key in data:
                data[key] = rendering.fill(data[key], values, where, environment=key in {"model", "params"})
        try:
            made = Preset(**data, name=self.name, version=self.version)
        except ValidationError as error:
            wrong = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
            raise PresetError(f"{where}, its variables put in: {'; '.join(wrong)}") from error
        made._filled = True
        if all(isinstance(value, Scalar) for value in given.values()):  # other values cannot be in a preset
            origin = self._origin or self
            made._origin = origin.model_copy(update={"variables": {**origin.variables, **given}}) if given else origin
        return made


def _without_secrets(data: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a preset's settings without secrets, and the keys that are left out."""
    lost: list[str] = []

    def kept(value: Any, key: str) -> Any:
        """Return a value without its secrets, or None if nothing is left."""
        name = key.rpartition(".")[2]
        if isinstance(value, dict):
            inner = {name: kept(item, f"{key}.{name}") for name, item in value.items()}
            return {name: item for name, item in inner.items() if item is not None or value[name] is None}
        if isinstance(value, list):
            return [left for item in value if (left := kept(item, key)) is not None]
        if not isinstance(value, str) or not secrets.is_secret(name, value):
            return value
        lost.append(key)
        return secrets.without(value) or None

    cleaned: dict[str, Any] = {name: kept(data[name], name) for name in ("params", "tools") if name in data}
    if "variables" in data:  # a variable without a default has to be given
        cleaned["variables"] = {name: kept(value, f"variables.{name}") for name, value in data["variables"].items()}
    return {**data, **cleaned}, lost
