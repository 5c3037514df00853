"""A reply in pieces: `Stream` for `for`, `AsyncStream` for `async for`.

The request is sent when the first piece is asked for. However a stream is left, its connection is closed;
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
    from llmkit.core.tool_loop import Course
    from llmkit.core.types import Reply

T = TypeVar("T")


class Managed:
    """A context manager that closes the object it is."""

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
    """An async context manager that closes the object it is."""

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
    """Pieces that are iterated once, with `for`; also a context manager that closes what they come from.

    The generator must not hold the object that it is read through, so that dropping the object ends it.
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
        """Close the connection, if it is still open."""
        self._pieces.close()


class AsyncPieces(AsyncManaged, Generic[T]):
    """Pieces that are iterated once, with `async for`; also an async context manager.

    Leave them early inside of `async with`: the connection is then closed at once and not when the loop finds time.
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
        """Close the connection, if it is still open."""
        await self._pieces.aclose()


class _Replied:
    """What both streams of a reply have."""

    _course: Course

    @property
    def reply(self) -> Reply:
        """The whole answer after the end; what had arrived, without a finish reason, of one that was left early.

        Raises:
            RuntimeError: while pieces are still to come.
        """
        if self._course.reply is None:
            raise RuntimeError("the reply of a stream is known when the stream has ended or is closed")
        return self._course.reply


class Stream(_Replied, Pieces[Piece]):
    """An answer that is iterated piece by piece, once; also a context manager.

    Iteration raises a ProviderError when the provider refuses, and one with the text so far in `partial` when the
    answer is cut.
    """

    def __init__(self, course: Course, backend: Backend) -> None:
        """Prepare a stream; nothing is sent before the first piece is asked for."""
        super().__init__(drive_stream(course.flow(), backend))
        self._course = course


class AsyncStream(_Replied, AsyncPieces[Piece]):
    """An answer that is iterated piece by piece with `async for`, once; also an async context manager.

    Leave it early inside of `async with`: the connection is then closed at once and not when the loop finds time.
    """

    def __init__(self, course: Course, backend: Backend) -> None:
        """Prepare a stream; nothing is sent before the first piece is asked for."""
        super().__init__(adrive_stream(course.flow(), backend))
        self._course = course
