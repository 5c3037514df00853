"""A reply in pieces: `Stream` for `for`, `AsyncStream` for `async for`.

The request is sent when the first piece is requested. However a stream is left, its connection is closed;
`reply` then holds what had arrived.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from llmkit.core.engine import adrive_stream, drive_stream
from llmkit.core.types import Piece

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator

    from typing_extensions import Self

    from llmkit.core.engine import Backend
    from llmkit.core.tool_loop import StreamedTurn
    from llmkit.core.types import Reply

T = TypeVar("T")


class Managed:
    """A context manager that closes itself."""

    def close(self) -> None:
        """Close it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Return the object."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the object."""
        self.close()


class AsyncManaged:
    """An async context manager that closes itself."""

    async def aclose(self) -> None:
        """Close it."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        """Return the object."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the object."""
        await self.aclose()


class Pieces(Managed, Generic[T]):
    """Pieces to iterate once, with `for`; also a context manager that closes their source.

    The generator must not reference this object, so that dropping the object ends it.
    """

    def __init__(self, pieces: Generator[T, None, None]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[T]:
        """Return the iterator over the pieces."""
        return self._pieces

    def __next__(self) -> T:
        """Return the next piece."""
        return next(self._pieces)

    def close(self) -> None:
        """Close the connection if it is still open."""
        self._pieces.close()


class AsyncPieces(AsyncManaged, Generic[T]):
    """Pieces to iterate once, with `async for`; also an async context manager.

    To leave early, use `async with`: the connection is then closed at once, not when the loop finds time.
    """

    def __init__(self, pieces: AsyncGenerator[T, None]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[T]:
        """Return the iterator over the pieces."""
        return self._pieces

    async def __anext__(self) -> T:
        """Return the next piece."""
        return await anext(self._pieces)

    async def aclose(self) -> None:
        """Close the connection if it is still open."""
        await self._pieces.aclose()


class _ReplySoFar:
    """What the sync and the async stream of a reply share."""

    _course: StreamedTurn

    @property
    def reply(self) -> Reply:
        """The complete reply after the end; after leaving early, what had arrived, without a finish reason.

        Raises:
            RuntimeError: more pieces are to come.
        """
        if self._course.reply is None:
            raise RuntimeError("the reply of a stream is known when the stream has ended or is closed")
        return self._course.reply


class Stream(_ReplySoFar, Pieces[Piece]):
    """An answer to iterate once, piece by piece; also a context manager.

    Iteration raises a ProviderError if the provider refuses, and one with the text so far in `partial` if the
    answer is cut.
    """

    def __init__(self, course: StreamedTurn, backend: Backend) -> None:
        """Prepare a stream; nothing is sent before the first piece is requested."""
        super().__init__(drive_stream(course.flow(), backend))
        self._course = course


class AsyncStream(_ReplySoFar, AsyncPieces[Piece]):
    """An answer to iterate once, piece by piece, with `async for`; also an async context manager.

    To leave early, use `async with`: the connection is then closed at once, not when the loop finds time.
    """

    def __init__(self, course: StreamedTurn, backend: Backend) -> None:
        """Prepare a stream; nothing is sent before the first piece is requested."""
        super().__init__(adrive_stream(course.flow(), backend))
        self._course = course
