"""Answers in OpenAI's format, as frozen objects: `reply.choices` and the chunks of a stream.

`of` reads a provider's decoded JSON and takes it as it is; what a provider writes otherwise is changed before that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from llmkit.core.params import encodable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WORDS = {
    "stop": """
        stop stop_sequence end_turn COMPLETE ERROR eos_token eos STOP FINISH_REASON_UNSPECIFIED MALFORMED_FUNCTION_CALL
        TOO_MANY_TOOL_CALLS MALFORMED_RESPONSE UNEXPECTED_TOOL_CALL MISSING_THOUGHT_SIGNATURE network_error error
    """,
    "length": "length max_tokens compaction MAX_TOKENS",
    "tool_calls": "tool_calls tool_use",
    "content_filter": """
        content_filter refusal ERROR_TOXIC SAFETY RECITATION LANGUAGE OTHER BLOCKLIST PROHIBITED_CONTENT SPII
        IMAGE_SAFETY IMAGE_PROHIBITED_CONTENT NO_IMAGE IMAGE_RECITATION IMAGE_OTHER ESCALATION sensitive
        guardrail_intervened content_filtered
    """,
    "function_call": "function_call",
}
FINISH_REASONS = {word: ours for ours, words in _WORDS.items() for word in words.split()}
"""Providers' words for why an answer ended, and OpenAI's for the same, as LiteLLM has them; a test compares the two."""


class _Shape:
    """An object that can be written as JSON again."""

    __slots__: ClassVar[tuple[str, ...]] = ()

    def model_dump(self, *, exclude_none: bool = False) -> dict[str, Any]:
        """Return the object as a dict, as pydantic's method of that name does."""
        shown: dict[str, Any] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                shown[name] = _dumped(value, exclude_none=exclude_none)
            elif value is not None or not exclude_none:
                shown[name] = value
        return shown


@dataclass(frozen=True, slots=True)
class FunctionCall(_Shape):
    """The name of a function, and its arguments as JSON text."""

    name: str | None = None
    arguments: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall(_Shape):
    """A tool call, or in a stream a part of one; `index` is its place among the calls of a stream."""

    id: str | None = None
    function: FunctionCall = FunctionCall()
    type: str = "function"
    index: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceMessage(_Shape):
    """A message of the assistant, or in a stream what a chunk adds to it.

    Attributes:
        content: the text, or None.
        tool_calls: what the model wants to be called, or None.
        reasoning_content: the model's reasoning, where the provider shows it.
        refusal: why the model refuses, in its own words.
        function_call: the older form of a tool call.
        annotations, audio, images, thinking_blocks: as the provider sent them.
    """

    role: str | None = "assistant"
    content: str | None = None
    tool_calls: Sequence[ToolCall] | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    function_call: FunctionCall | None = None
    annotations: Sequence[Any] | None = None
    audio: Mapping[str, Any] | None = None
    images: Sequence[Any] | None = None
    thinking_blocks: Sequence[Any] | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any], *, role: str | None = "assistant") -> ChoiceMessage:
        """Return the message in decoded JSON."""
        calls, called = data.get("tool_calls"), data.get("function_call")
        given = {name: it for name in _AS_SENT if (it := data.get(name)) is not None and (it or name not in _LISTS)}
        if calls and not given.get("content"):
            given.pop("content", None)  # "" or None, as the provider likes: nothing is said beside the calls
        if role is not None:  # a chunk's text may end within a character
            given |= {name: encodable(given[name]) for name in _TEXTS if name in given}
        return cls(
            role=data.get("role") or role,
            tool_calls=tuple(_call(call, in_stream=role is None) for call in calls) if calls else None,
            function_call=_function(called, in_stream=role is None) if called else None,
            **given,
        )


_AS_SENT = ("content", "reasoning_content", "refusal", "annotations", "audio", "images", "thinking_blocks")
_TEXTS = ("content", "reasoning_content", "refusal")
_LISTS = ("images", "thinking_blocks")  # an empty one says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(_Shape):
    """One of the answers to a request; requests with `n` have several."""

    index: int = 0
    message: ChoiceMessage = ChoiceMessage()
    finish_reason: str | None = None
    logprobs: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkChoice(_Shape):
    """What a chunk adds to one of the answers."""

    index: int = 0
    delta: ChoiceMessage = ChoiceMessage(role=None)
    finish_reason: str | None = None
    logprobs: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion(_Shape):
    """A whole answer; `usage` has the provider's own counts, or is None."""

    id: str | None = None
    model: str | None = None
    choices: Sequence[Choice] = ()
    usage: Mapping[str, Any] | None = None
    service_tier: str | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Completion:
        """Return the answer in decoded JSON."""
        choices = tuple(
            Choice(
                index=at,
                message=ChoiceMessage.of(choice["message"]),
                finish_reason=_text(choice, "finish_reason"),
                logprobs=choice.get("logprobs"),
            )
            for at, choice in enumerate(data["choices"])
        )
        return cls(choices=choices, **_head(data))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk(_Shape):
    """A part of a streamed answer; the last one may carry the `usage`."""

    id: str | None = None
    model: str | None = None
    choices: Sequence[ChunkChoice] = ()
    usage: Mapping[str, Any] | None = None
    service_tier: str | None = None
    prompt_progress: Mapping[str, Any] | None = None
    """How much of the question has been read, by a llama.cpp that was asked to tell it."""

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Chunk:
        """Return the chunk in decoded JSON."""
        choices = tuple(
            ChunkChoice(
                index=at if isinstance(at := choice.get("index"), int) and at > 0 else 0,
                delta=ChoiceMessage.of(choice.get("delta") or {}, role=None),
                finish_reason=_text(choice, "finish_reason"),
                logprobs=choice.get("logprobs"),
            )
            for choice in data.get("choices") or ()
        )
        return cls(choices=choices, **_head(data), prompt_progress=data.get("prompt_progress"))


class Chunks:
    """The chunks of one streamed answer, put together: texts by choice, tool calls by their position."""

    def __init__(self) -> None:
        self._choices: dict[int, _PartialChoice] = {0: _PartialChoice()}
        self._head: dict[str, Any] = {}

    @property
    def text(self) -> str:
        """The text of the first choice so far."""
        return encodable("".join(self._choices[0].texts))

    def add(self, chunk: Chunk) -> None:
        """Add a chunk."""
        for name in ("id", "model", "service_tier"):
            if (value := getattr(chunk, name)) is not None:
                self._head[name] = value
        if chunk.usage is not None:
            before = self._head.get("usage")
            self._head["usage"] = chunk.usage if before is None else merged(before, chunk.usage)
        for choice in chunk.choices:
            self._choices.setdefault(choice.index, _PartialChoice()).add(choice)

    def whole(self) -> Completion:
        """Return the answer so far, like a whole one."""
        choices = tuple(self._choices[index].whole(index) for index in sorted(self._choices))
        return Completion(choices=choices, **self._head)


class _PartialChoice:
    """One of the answers of a stream so far."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._more: dict[str, list[Any]] = {}
        self._calls: list[_PartialCall] = []
        self._called: _PartialCall | None = None
        self._end: str | None = None
        self._logprobs: list[Any] = []

    def add(self, choice: ChunkChoice) -> None:
        """Add what a chunk has of this answer."""
        delta = choice.delta
        if delta.content:
            self.texts.append(delta.content)
        for name in _JOINED:
            if (value := getattr(delta, name)) is not None:
                self._more.setdefault(name, []).append(value)
        for part in delta.tool_calls or ():
            _join(self._calls, part)
        if delta.function_call is not None:
            self._called = self._called or _PartialCall(None, "")
            self._called.add(ToolCall(function=delta.function_call))
        self._end = self._end or choice.finish_reason
        if isinstance(choice.logprobs, dict):
            self._logprobs += choice.logprobs.get("content") or ()

    def whole(self, index: int) -> Choice:
        """Return the answer so far."""
        message = ChoiceMessage(
            content=encodable("".join(self.texts)) if self.texts or not (self._calls or self._called) else None,
            tool_calls=tuple(call.whole() for call in self._calls) or None,
            function_call=self._called.whole().function if self._called else None,
            **{name: _SUMS.get(name, _sum)(values) for name, values in self._more.items()},
        )
        logprobs = {"content": self._logprobs} if self._logprobs else None
        return Choice(index=index, message=message, finish_reason=self._end, logprobs=logprobs)


class _PartialCall:
    """One tool call that arrives in parts."""

    def __init__(self, place: int | None, identity: str) -> None:
        self.place, self.id, self.name = place, identity, ""
        self._arguments: list[str] = []

    def add(self, part: ToolCall) -> None:
        """Add a part of the call."""
        self.id = self.id or part.id or ""
        self.name = self.name or part.function.name or ""
        self._arguments.append(part.function.arguments)

    def whole(self) -> ToolCall:
        """Return the call so far."""
        return ToolCall(self.id, FunctionCall(encodable(self.name), encodable("".join(self._arguments))))


def _join(calls: list[_PartialCall], part: ToolCall) -> None:
    """Add a part to the call it belongs to: the one at its position, unless it begins another one there."""
    name, identity, place = part.function.name or "", part.id or "", part.index
    current = next((call for call in reversed(calls) if place is None or call.place == place), None)
    if current is None or (name and current.name and (place is None or (identity and identity != current.id))):
        current = _PartialCall(place, identity)
        calls.append(current)
    current.add(part)


_JOINED = ("reasoning_content", "refusal", "annotations", "images", "thinking_blocks", "audio")


def _head(data: Mapping[str, Any]) -> dict[str, Any]:
    return {"usage": data.get("usage"), **{name: _text(data, name) for name in ("id", "model", "service_tier")}}


def _text(data: Mapping[str, Any], name: str) -> str | None:
    """Return a text, or None for what a provider has written in the place of one."""
    value = data.get(name)
    return encodable(value) if isinstance(value, str) else None


def _call(data: Mapping[str, Any], *, in_stream: bool) -> ToolCall:
    named = _function(data.get("function") or {}, in_stream=in_stream)
    return ToolCall(data.get("id"), named, data.get("type") or "function", data.get("index") if in_stream else None)


def _function(data: Mapping[str, Any], *, in_stream: bool) -> FunctionCall:
    name, said = data.get("name"), data.get("arguments") or ""
    return FunctionCall(name, said) if in_stream else FunctionCall(name and encodable(name), encodable(said))


def _sum(values: Sequence[Any]) -> Any:
    """Return the parts of a text or of a list as one; of anything else the last one counts."""
    if all(isinstance(value, str) for value in values):
        return encodable("".join(values))
    is_list = all(isinstance(value, list | tuple) for value in values)
    return [item for value in values for item in value] if is_list else values[-1]


def _blocks(values: Sequence[Any]) -> Any:
    """Return the parts of thinking blocks as whole blocks, each with the signature that ends it, as they are sent."""
    blocks: list[Any] = []
    for numbered in _sum(values):
        is_block = isinstance(numbered, dict) and "type" in numbered
        part = {name: value for name, value in numbered.items() if name != "index"} if is_block else numbered
        if blocks and all(map(_is_thinking, (blocks[-1], part))) and not blocks[-1].get("signature"):
            texts = (blocks[-1].get("thinking") or "", part.get("thinking") or "")
            blocks[-1] = {**blocks[-1], **part, "thinking": "".join(texts)}
        else:
            blocks.append(part)
    return blocks


def _is_thinking(block: Any) -> bool:
    return isinstance(block, dict) and block.get("type") == "thinking"


_SUMS = {"thinking_blocks": _blocks}


def merged(before: Mapping[str, Any], now: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the counts of two chunks as one: some providers count the prompt first and the answer last."""
    both = {**before, **{name: value for name, value in now.items() if value}}
    return {**both, "total_tokens": (both.get("prompt_tokens") or 0) + (both.get("completion_tokens") or 0)}


def _dumped(value: Any, *, exclude_none: bool) -> Any:
    if isinstance(value, _Shape):
        return value.model_dump(exclude_none=exclude_none)
    if isinstance(value, list | tuple):
        return [_dumped(item, exclude_none=exclude_none) for item in value]
    if isinstance(value, dict) and exclude_none:
        return {name: _dumped(item, exclude_none=True) for name, item in value.items() if item is not None}
    return value
