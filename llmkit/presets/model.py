"""The keys of a preset, with their types and ranges. The published JSON Schema is generated from this."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from llmkit.config import secrets
from llmkit.presets.values import Scalar  # noqa: TC001 - pydantic reads it


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
    """Limits per minute, for all processes that share the store; further requests wait."""

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


class PresetKeys(Keys):
    """The keys of a preset in one version, and its name: what a `Preset` is checked with."""

    model_config = ConfigDict(title="Preset")

    name: str = Field(default="", exclude=True)
    version: int | None = Field(default=None, exclude=True)

    def __repr_name__(self) -> str:
        """Return the name that a user knows it by."""
        return "Preset"
