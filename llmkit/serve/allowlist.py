"""The allow-list of the server: the fields that clients may set, in every protocol; all bodies are read with it.

A field that is not here (or, for messages, in `messages`) is refused by its name, and every value has
bounds. `docs/serve.md` has the same list for people; a test compares the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from llmkit.serve.errors import ServeError, invalid_fields
from llmkit.serve.messages import ChatMessage, Name, Part, Strict, Text, Word

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llmkit.serve.served import Served

MOST_TOKENS = 10_000_000
_INT64 = 2**63 - 1
Tokens = Annotated[int, Field(ge=1, le=MOST_TOKENS)]


# -- parameters -------------------------------------------------------------------------------------------------------


class Function(Strict):
    """The description of a function for the model."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Strict):
    """A function that the client calls for the model; tools that run elsewhere can only be set by the preset."""

    type: Literal["function"]
    function: Function


class Named(Strict):
    """A function by its name."""

    name: Name


class NamedTool(Strict):
    """The tool that the model must use."""

    type: Literal["function"]
    function: Named


class TextFormat(Strict):
    """Any text, or any JSON."""

    type: Literal["text", "json_object"]


class NamedSchema(Strict):
    """A JSON schema and its name."""

    name: Name
    description: str | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")
    strict: bool | None = None


class SchemaFormat(Strict):
    """An answer that fits a JSON schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


class Thinking(Strict):
    """How much the model should think."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Tokens | None = None


class Voice(Strict):
    """The voice and format of an answer in audio."""

    voice: Word
    format: Word


class Prediction(Strict):
    """The expected content of most of the answer."""

    type: Literal["content"]
    content: str | list[Part]


class Place(Strict):
    """The rough location of the user who searches."""

    country: Word | None = None
    region: Word | None = None
    city: Word | None = None
    timezone: Word | None = None


class UserLocation(Strict):
    """The location of the user who searches."""

    type: Literal["approximate"]
    approximate: Place


class SearchOptions(Strict):
    """How the provider searches the web."""

    search_context_size: Literal["low", "medium", "high"] | None = None
    user_location: UserLocation | None = None


class Params(Strict):
    """The parameters of a call, whatever the protocol, by OpenAI's names."""

    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=1_000_000)
    n: int | None = Field(default=None, ge=1, le=128)
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(default=None, max_length=4096)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    seed: int | None = Field(default=None, ge=-_INT64, le=_INT64)
    user: str | None = Field(default=None, max_length=512)
    tools: list[Tool] | None = Field(default=None, max_length=512)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Function] | None = Field(default=None, max_length=512)
    function_call: Literal["none", "auto"] | Named | None = None
    response_format: TextFormat | SchemaFormat | None = None
    reasoning_effort: Word | None = None
    thinking: Thinking | None = None
    verbosity: Word | None = None
    modalities: list[Literal["text", "audio", "image"]] | None = Field(default=None, max_length=3)
    audio: Voice | None = None
    safety_identifier: str | None = Field(default=None, max_length=512)
    prompt_cache_key: str | None = Field(default=None, max_length=512)
    prediction: Prediction | None = None
    service_tier: Word | None = None
    store: bool | None = None
    web_search_options: SearchOptions | None = None


PARAMS = frozenset(Params.model_fields)
"""The parameters that a client may set."""
OF_THE_PRESET = frozenset({"prediction", "service_tier", "store", "web_search_options"})
"""Those of them that cost more, or keep data: a client may set one only if the preset sets it too."""


# -- bodies -----------------------------------------------------------------------------------------------------------


class StreamOptions(Strict):
    """Options of a stream."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatRequest(Params):
    """The body of `POST /v1/chat/completions`."""

    model: Name
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def wants_usage(self) -> bool:
        """Return whether a stream should end with its token counts."""
        return bool(self.stream_options and self.stream_options.include_usage)


class RunOptions(Strict):
    """Options of a run."""

    stream: bool | None = None


class RunRequest(Params):
    """The body of `POST /runs/{model}`."""

    data: str = Field(description="The last utterance.")
    context: str | None = Field(default=None, description="The system message.")
    prompt: str | None = Field(default=None, description="A text on the line above the last utterance.")
    history: list[ChatMessage] | None = Field(default=None, description="OpenAI-style messages before it.")
    options: RunOptions | None = None


class PromptRequest(Strict):
    """The body of `/{model}/`, with one question."""

    user_prompt: Text
    system_context: str | None = None
    streaming: bool | None = None


class LangMessage(Strict):
    """One message; its role is human, ai or system, or as OpenAI calls it. None is human."""

    content: str
    role: Literal["human", "ai", "system", "user", "assistant"] | None = None


class LangRequest(Strict):
    """The body of `/{model}/`, with messages. `lang_model` chooses nothing: the address does."""

    messages: list[LangMessage] = Field(min_length=1)
    lang_model: str | None = Field(default=None, max_length=512)
    streaming: bool | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    max_tokens: Tokens | None = None
    lang_model_kwargs: Params | None = None


Variable = bool | int | float | Annotated[str, Field(max_length=20_000)]


Question = Annotated[Text, Field(max_length=500_000)]
"""What is kept before it is asked; more fits no window."""


class NewConversation(Strict):
    """The body of `POST /conversations`: whom to ask what."""

    model: Name
    variables: dict[Name, Variable] | None = Field(default=None, max_length=64)
    content: Question


class NextQuestion(Strict):
    """The body of `POST /conversations/{id}`; without `content` the last question is asked again."""

    content: Question | None = None


class EmbeddingRequest(Strict):
    """The body of `POST /v1/embeddings`."""

    model: Name
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=4096)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1, le=100_000)
    user: str | None = Field(default=None, max_length=512)


_FILE = {"type": "string", "format": "binary"}


def _is_file(value: Any) -> Any:
    if not hasattr(value, "filename"):
        raise ValueError("it must be a file")
    return value


class TranscriptionForm(BaseModel):
    """The form of `POST /v1/audio/transcriptions`, the only body that is not JSON."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    file: Annotated[Any, BeforeValidator(_is_file), WithJsonSchema(_FILE), Field(description="The sound.")]
    model: Name
    language: Word | None = None
    prompt: str | None = None
    response_format: Literal["json", "text"] = "json"
    temperature: float | None = Field(default=None, ge=0, le=1)


# -- from a body to a call --------------------------------------------------------------------------------------------


def read(kind: type[Any], body: Mapping[str, Any]) -> Any:
    """Return a body as an instance of *kind*.

    Raises:
        ServeError: a field is invalid; it is named.
    """
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise invalid_fields(error.errors()) from error


def params_of(request: Params, served: Served, where: str = "") -> dict[str, Any]:
    """Return the parameters of a call.

    Args:
        request: the body.
        served: the model that is called.
        where: the prefix of field names in the body.

    Raises:
        ServeError: a parameter may only be set by the preset.
    """
    names = request.model_fields_set & PARAMS
    given = request.model_dump(include=names, exclude_unset=True, by_alias=True) if names else {}
    params = {name: value for name, value in given.items() if value is not None}
    for name in sorted(OF_THE_PRESET & params.keys() - served.client_params):
        field = f"{where}{name}"
        why = f"{field}: it can be set where the preset sets it too, and {served.name!r} does not"
        raise ServeError(400, why, code="field_not_allowed", param=field)
    return params


def messages_of(messages: Sequence[ChatMessage], served: Served, where: str = "messages") -> list[dict[str, Any]]:
    """Return messages in the form of a call.

    Args:
        messages: of the body.
        served: the model that is called.
        where: the name of the field in the body.

    Raises:
        ServeError: there is a URL that the server would have to fetch.
    """
    for field, address in _addresses(messages, where):
        if not address.lower().startswith(("data:", *served.media_schemes)):
            why = f"{field}: {served.name!r} takes the bytes only (data:…;base64,…); no address is fetched here"
            raise ServeError(400, why, code="unsupported_value", param=field)
    return [message.model_dump(exclude_unset=True) for message in messages]


def _addresses(messages: Sequence[ChatMessage], where: str) -> Iterator[tuple[str, str]]:
    for index, message in enumerate(messages):
        for number, part in enumerate(message.content if isinstance(message.content, list) else ()):
            for kind in ("image_url", "video_url"):
                if (media := getattr(part, kind)) is not None:
                    yield f"{where}.{index}.content.{number}.{kind}", getattr(media, "url", media)
