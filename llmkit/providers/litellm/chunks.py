"""Answers in OpenAI's format: whole ones that LiteLLM could not read, and those that came in chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmkit.providers.litellm.sdk import load

if TYPE_CHECKING:
    from llmkit.core.types import Request
    from llmkit.providers.transport.http import Wire


def read_chat(wire: Wire) -> Any:
    """Return the answer in a body in OpenAI's format, or None if the body has another format."""
    body = wire.data
    choices = body.get("choices") if isinstance(body, dict) else None
    if wire.failed_status is not None or not isinstance(choices, list) or not choices:
        return None
    if not all(isinstance(choice, dict) and isinstance(choice.get("message"), dict) for choice in choices):
        return None
    litellm = load()
    try:
        return litellm.utils.convert_to_model_response_object(
            response_object=body, model_response_object=litellm.ModelResponse()
        )
    except Exception:  # noqa: BLE001 - LiteLLM raises plain Exception for what it cannot read
        return None


def no_tokens() -> int:
    """Return a prompt count for streams without usage: to count it itself, LiteLLM would fetch images."""
    return 0


class Chunks:
    """The chunks of one streamed answer, put together: texts by choice, tool calls by their position."""

    def __init__(self) -> None:
        self._all: list[Any] = []
        self._texts: dict[int, list[str]] = {}
        self._calls: dict[int, list[_PartialToolCall]] = {}
        self._ends: dict[int, str] = {}

    @property
    def text(self) -> str:
        """The text of the first choice so far."""
        return "".join(self._texts.get(0, ()))

    def add(self, chunk: Any) -> None:
        """Add a chunk."""
        self._all.append(chunk)
        for choice in chunk.choices or ():
            index = getattr(choice, "index", 0) or 0
            delta = getattr(choice, "delta", None)
            self._texts.setdefault(index, []).append(getattr(delta, "content", None) or "")
            if choice.finish_reason:
                self._ends[index] = choice.finish_reason
            for part in getattr(delta, "tool_calls", None) or ():
                _join(self._calls.setdefault(index, []), part)

    def response(self, request: Request) -> Any:
        """Return the answer so far like a whole answer of LiteLLM's."""
        litellm = load()
        first = [chunk for chunk in self._all if not (chunk.choices and (getattr(chunk.choices[0], "index", 0) or 0))]
        response = litellm.stream_chunk_builder(first, count_prompt_tokens=no_tokens) if first else None
        if response is None:
            return litellm.ModelResponse(choices=[], model=request.model)
        if calls := self._calls.get(0):  # LiteLLM's builder knows calls by their ids, which may be missing or equal
            response.choices[0].message.tool_calls = [call.whole() for call in calls]
        for index in sorted(self._texts.keys() - {0}):
            message: dict[str, Any] = {"role": "assistant", "content": "".join(self._texts[index])}
            if calls := self._calls.get(index):
                message["tool_calls"] = [call.whole() for call in calls]
            made = litellm.ModelResponse(
                choices=[{"index": index, "finish_reason": self._ends.get(index), "message": message}]
            )
            response.choices.append(made.choices[0])
        return response


class _PartialToolCall:
    """One tool call that arrives in parts."""

    def __init__(self, place: int | None, identity: str) -> None:
        self.place = place
        self.id = identity
        self.name = ""
        self.arguments: list[str] = []

    def whole(self) -> Any:
        """Return the call as LiteLLM's object."""
        types = load().types.utils
        function = types.Function(name=self.name, arguments="".join(self.arguments))
        return types.ChatCompletionMessageToolCall(id=self.id, type="function", function=function)


def _join(calls: list[_PartialToolCall], part: Any) -> None:
    """Add a part to the call it belongs to: the one at its position, unless it begins another one there."""
    function = part.function
    name, identity, place = getattr(function, "name", None) or "", part.id or "", getattr(part, "index", None)
    current = next((call for call in reversed(calls) if place is None or call.place == place), None)
    if current is None or (name and current.name and (place is None or (identity and identity != current.id))):
        current = _PartialToolCall(place, identity)
        calls.append(current)
    current.id = current.id or identity
    current.name = current.name or name
    current.arguments.append(getattr(function, "arguments", None) or "")
