"""The allow-list for messages; `allowlist` has that for everything else."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Word = Annotated[str, Field(min_length=1, max_length=64)]
Name = Annotated[str, Field(min_length=1, max_length=512)]
Text = Annotated[str, Field(min_length=1)]
Role = Literal["system", "developer", "user", "assistant", "tool", "function"]


class Strict(BaseModel):
    """A model that refuses unknown fields, and converts no values."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _no_path(address: Any) -> Any:
    """Refuse file paths, and URLs of stores that the server reads with rights of its own (`gs://`, `s3://`)."""
    if isinstance(address, str) and not address.lower().startswith(("https://", "http://", "data:")):
        raise ValueError("an address begins with https:// or data:")
    return address


def _only_data(address: Any) -> Any:
    if isinstance(address, str) and not address.startswith("data:"):
        raise ValueError("a file is sent as its bytes: data:…;base64,…")
    return address


Address = Annotated[Text, BeforeValidator(_no_path)]


class CacheControl(Strict):
    """A marker for the end of the cached part of a prompt."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class Media(Strict):
    """An image or video: its bytes, or its URL, which is passed on to the provider and never fetched here."""

    url: Address
    detail: Literal["low", "high", "auto", "original"] | None = None
    format: Word | None = None


class Sound(Strict):
    """Audio as Base64."""

    data: Text
    format: Word


class Document(Strict):
    """A file's bytes; the provider's own file ids (`file_id`) belong to the server, not to the client."""

    file_data: Annotated[Text, BeforeValidator(_only_data)]
    filename: Name | None = None
    format: Word | None = None


class Part(Strict):
    """A part of a message, of the kind that `type` names."""

    type: Literal["text", "image_url", "input_audio", "file", "video_url", "refusal", "thinking", "redacted_thinking"]
    text: str | None = None
    image_url: Address | Media | None = None
    video_url: Address | Media | None = None
    input_audio: Sound | None = None
    file: Document | None = None
    refusal: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    cache_control: CacheControl | None = None

    @model_validator(mode="after")
    def _has_what_it_says(self) -> Part:
        field = {"redacted_thinking": "data"}.get(self.type, self.type)
        if getattr(self, field) is None:
            raise ValueError(f"a part of type {self.type} needs {field}")
        return self


class Called(Strict):
    """The function of a tool call."""

    name: Name
    arguments: str


class CallExtras(Strict):
    """The data that Gemini needs back with a tool call."""

    thought_signature: str | None = None


class ToolCall(Strict):
    """A tool call that the model requested."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: Called
    index: int | None = Field(default=None, ge=0, le=1000)
    provider_specific_fields: CallExtras | None = None


class Spoken(Strict):
    """An earlier answer in audio, by the provider's id."""

    id: Name


class ChatMessage(Strict):
    """One message; assistant messages may be sent back as this server returned them."""

    role: Role
    content: str | list[Part] | None = None
    name: Name | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: Called | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[Part] | None = None
    annotations: list[dict[str, Any]] | None = None
    audio: Spoken | None = None
    cache_control: CacheControl | None = None
