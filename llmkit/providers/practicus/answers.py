"""The answers of an endpoint: whole, as one of many, and as a stream of text.

A stream's request is sent when the first piece is requested. However a stream is left, its connection is closed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmkit.core.call import emitted
from llmkit.core.engine import adrive_stream, drive_stream
from llmkit.core.streams import AsyncPieces, Pieces
from llmkit.providers.transport.events import text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Self

    from llmkit.core.engine import Backend
    from llmkit.core.types import Flow
    from llmkit.providers.transport.client import TextStream
    from llmkit.providers.transport.requests import HttpAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointAnswer:
    """One answer of an endpoint. `str(answer)` is its text.

    Attributes:
        text: the `answer` or `content` of a JSON object, the first choice of a chat completion, else the body.
        data: the body as JSON, or None if it is not JSON, and for streams.
        headers: the answer's headers; names are case-insensitive.
        status_code: the HTTP status.
        elapsed_s: seconds from sending the request to the end of the answer, waits between tries not counted.
    """

    text: str
    data: Any = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    status_code: int = 200
    elapsed_s: float = 0.0

    @classmethod
    def of(cls, received: HttpAnswer) -> Self:
        """Return the answer in a received response."""
        data = received.data
        return cls(
            text=text_of(data, received.text),
            data=data,
            headers=received.headers,
            status_code=received.status_code,
            elapsed_s=received.elapsed_s,
        )

    @property
    def model_id(self) -> str | None:
        """The id of the model that answered, or None if the endpoint does not send it; likewise the next two."""
        return self.headers.get("x-prt-model-id")

    @property
    def model_name(self) -> str | None:
        """The name of the model that answered."""
        return self.headers.get("x-prt-model-name")

    @property
    def model_version(self) -> str | None:
        """The version of the model that answered."""
        return self.headers.get("x-prt-model-version")

    def __str__(self) -> str:
        """The text of the answer."""
        return self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointItem:
    """The outcome of one of many prompts: either `answer` or `error` is set, the other is None."""

    prompt: str
    answer: EndpointAnswer | None = None
    error: Exception | None = None


class _Course:
    """A streamed answer on its way; `source` is its open stream, or None before the first piece."""

    def __init__(self, opening: Flow[TextStream]) -> None:
        self._opening = opening
        self.source: TextStream | None = None

    def flow(self) -> Flow[None]:
        """Emit the texts of the answer."""
        self.source = yield from self._opening
        yield from emitted(self.source)


class _AnswerSoFar:
    """What the sync and the async stream of an answer share."""

    _course: _Course

    @property
    def reply(self) -> EndpointAnswer:
        """The answer as far as it has arrived; complete after the end.

        Raises:
            RuntimeError: before the first piece.
        """
        source = self._course.source
        if source is None:
            raise RuntimeError("the reply of a stream is known when its first piece has come")
        return EndpointAnswer(
            text=source.pieces.text,
            headers=source.headers,
            status_code=source.status_code,
            elapsed_s=source.elapsed_s,
        )


class EndpointStream(_AnswerSoFar, Pieces[str]):
    """An answer to iterate once, as pieces of text; also a context manager."""

    def __init__(self, opening: Flow[TextStream], backend: Backend) -> None:
        self._course = _Course(opening)
        super().__init__(drive_stream(self._course.flow(), backend))


class AsyncEndpointStream(_AnswerSoFar, AsyncPieces[str]):
    """An answer to iterate once, as pieces of text, with `async for`; also an async context manager.

    To leave early, use `async with`: the connection is then closed at once, not when the loop finds time.
    """

    def __init__(self, opening: Flow[TextStream], backend: Backend) -> None:
        self._course = _Course(opening)
        super().__init__(adrive_stream(self._course.flow(), backend))
