"""What OpenAI's clients send, field by field. A field that stands here is passed on; any other is refused by name."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(min_length=1, max_length=512)]
Text = Annotated[str, Field(min_length=1)]
Role = Literal["system", "developer", "user", "assistant", "tool", "function"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class ChatMessage(BaseModel):
    """One message; what else a role allows (`name`, `tool_calls`, `tool_call_id`) goes as it is."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: Role
    content: str | list[dict[str, Any]] | None = None


class Function(BaseModel):
    """What a model is told of a function."""

    model_config = ConfigDict(extra="allow", strict=True)

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Strict):
    """A function that the client calls for the model."""

    type: Literal["function"]
    function: Function


class TextFormat(_Strict):
    """Any text."""

    type: Literal["text", "json_object"]


class NamedSchema(_Strict):
    """A JSON schema and what it is called."""

    name: Name
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class SchemaFormat(_Strict):
    """An answer that fits a JSON schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class StreamOptions(_Strict):
    """What a stream has beside the text."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatRequest(_Strict):
    """The body of `POST /v1/chat/completions`."""

    model: Name
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    n: int | None = Field(default=None, ge=1, le=128)
    stop: str | list[str] | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    seed: int | None = None
    user: str | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Function] | None = None
    function_call: str | dict[str, Any] | None = None
    response_format: TextFormat | SchemaFormat | None = None
    reasoning_effort: str | None = None
    thinking: dict[str, Any] | None = None
    top_k: int | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    service_tier: str | None = None
    verbosity: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    web_search_options: dict[str, Any] | None = None

    def wants_usage(self) -> bool:
        """Tell whether a stream shall end with its counts."""
        return bool(self.stream_options and self.stream_options.include_usage)


class EmbeddingRequest(_Strict):
    """The body of `POST /v1/embeddings`."""

    model: Name
    input: Text | Annotated[list[Text], Field(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1)
    user: str | None = None


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(BaseModel):
    """Every error of this server."""

    error: ErrorDetail


PASSED_ON = frozenset(ChatRequest.model_fields) - {"model", "messages", "stream", "stream_options"}
"""The parameters of a chat that go to the model, by LiteLLM's names."""
