"""What an endpoint answers: whole, as one of many, and as a stream of text.

The request of a stream is sent when the first piece is asked for. However a stream is left, its connection is closed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmkit.core.engine import adrive, drive
from llmkit.providers.transport.events import text_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from llmkit.core.types import Flow
    from llmkit.providers.transport.doors import Body, Doors
    from llmkit.providers.transport.exchange import Received


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointAnswer:
    """One answer of an endpoint. `str(answer)` is its text.

    Attributes:
        text: the `answer` or `content` of a JSON object, the first choice of a chat completion, else the body.
        data: the body as JSON; None where it is none, and for streams.
        headers: the answer's headers; their names may be written in any case.
        status_code: the HTTP status.
        elapsed_s: seconds from sending the request to the end of the answer, waits between tries not counted.
    """

    text: str
    data: Any = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    status_code: int = 200
    elapsed_s: float = 0.0

    @classmethod
    def of(cls, received: Received) -> Self:
        """Read what has come."""
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
        """The id of the model that answered; None where the endpoint does not tell, as for the next two."""
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
    """What became of one of many prompts: `answer` or `error`, and the other is None."""

    prompt: str
    answer: EndpointAnswer | None = None
    error: Exception | None = None


class _Progress:
    """How far a stream is. The generators hold this and not the stream, so that dropping the stream ends them."""

    def __init__(self, opening: Flow[Body], doors: Doors) -> None:
        self.opening = opening
        self.doors = doors
        self.body: Body | None = None


class _TextStream:
    """What both colours share."""

    def __init__(self, opening: Flow[Body], doors: Doors) -> None:
        self._progress = _Progress(opening, doors)

    @property
    def reply(self) -> EndpointAnswer:
        """The answer as far as it has arrived; whole after the end.

        Raises:
            RuntimeError: before the first piece.
        """
        body = self._progress.body
        if body is None:
            raise RuntimeError("the reply of a stream is known when its first piece has come")
        return EndpointAnswer(
            text=body.pieces.text,
            headers=body.response.headers,
            status_code=body.response.status_code,
            elapsed_s=body.elapsed_s,
        )


class EndpointStream(_TextStream):
    """An answer that is iterated as pieces of text, once; also a context manager."""

    def __init__(self, opening: Flow[Body], doors: Doors) -> None:
        super().__init__(opening, doors)
        self._pieces = _pieces(self._progress)

    def __iter__(self) -> Iterator[str]:
        """Return the iterator over the pieces."""
        return self._pieces

    def __next__(self) -> str:
        """Return the next piece."""
        return next(self._pieces)

    def close(self) -> None:
        """Close the connection, if it is still open."""
        self._pieces.close()

    def __enter__(self) -> Self:
        """Return the stream."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the stream."""
        self.close()


class AsyncEndpointStream(_TextStream):
    """An answer that is iterated as pieces of text with `async for`, once; also an async context manager.

    Leave it early inside of `async with`: the connection is then closed at once and not when the loop finds time.
    """

    def __init__(self, opening: Flow[Body], doors: Doors) -> None:
        super().__init__(opening, doors)
        self._pieces = _apieces(self._progress)

    def __aiter__(self) -> AsyncIterator[str]:
        """Return the iterator over the pieces."""
        return self._pieces

    async def __anext__(self) -> str:
        """Return the next piece."""
        return await anext(self._pieces)

    async def aclose(self) -> None:
        """Close the connection, if it is still open."""
        await self._pieces.aclose()

    async def __aenter__(self) -> Self:
        """Return the stream."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the stream."""
        await self.aclose()


def _pieces(progress: _Progress) -> Generator[str, None, None]:
    body = progress.body = drive(progress.opening, progress.doors)
    try:
        yield from body
    finally:
        body.close()


async def _apieces(progress: _Progress) -> AsyncGenerator[str, None]:
    body = progress.body = await adrive(progress.opening, progress.doors)
    try:
        async for piece in body:
            yield piece
    finally:
        await body.aclose()
