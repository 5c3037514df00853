"""A reply in pieces: `Stream` for `for`, `AsyncStream` for `async for`.

The request is sent when the first piece is asked for. However a stream is left, its connection is closed;
`reply` then holds what had arrived.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmkit._flow import adrive, drive

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from types import TracebackType

    from typing_extensions import Self

    from llmkit._work import Backend
    from llmkit.types import Flow, Piece, Reply


class _Stream:
    """What both colours share."""

    def __init__(self, flow: Callable[[], Flow[Any]], backend: Backend) -> None:
        """Prepare a stream; *flow* opens it and returns its source."""
        self._flow = flow
        self._backend = backend
        self._source: Any = None
        self._pieces: Any = None
        self._reply: Reply | None = None

    @property
    def reply(self) -> Reply:
        """The whole answer after the end; what had arrived, without a finish reason, of one that was left early.

        Raises:
            RuntimeError: while pieces are still to come.
        """
        if self._reply is None:
            raise RuntimeError("the reply of a stream is known when the stream has ended or is closed")
        return self._reply

    def _settle(self) -> None:
        if self._reply is None and self._source is not None:
            self._reply = self._source.reply()


class Stream(_Stream):
    """An answer that is iterated piece by piece; also a context manager.

    Iteration raises a ProviderError when the provider refuses, and one with the text so far in `partial` when the
    answer is cut. A stream can be iterated once.
    """

    def __iter__(self) -> Iterator[Piece]:
        """Return the iterator over the pieces."""
        if self._pieces is None:
            self._pieces = self._run()
        pieces: Iterator[Piece] = self._pieces
        return pieces

    def __next__(self) -> Piece:
        """Return the next piece."""
        return next(iter(self))

    def _run(self) -> Iterator[Piece]:
        self._source = drive(self._flow(), self._backend)
        try:
            yield from self._source
        finally:
            self._source.close()
            self._settle()

    def close(self) -> None:
        """Close the connection, if it is still open, and settle `reply`."""
        if self._pieces is not None:
            self._pieces.close()

    def __enter__(self) -> Self:
        """Return the stream."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the stream."""
        self.close()


class AsyncStream(_Stream):
    """An answer that is iterated piece by piece with `async for`; also an async context manager.

    Leave it early inside of `async with`: the connection is then closed at once and not when the loop finds time.
    """

    def __aiter__(self) -> AsyncIterator[Piece]:
        """Return the iterator over the pieces."""
        if self._pieces is None:
            self._pieces = self._run()
        pieces: AsyncIterator[Piece] = self._pieces
        return pieces

    async def __anext__(self) -> Piece:
        """Return the next piece."""
        return await anext(aiter(self))

    async def _run(self) -> AsyncIterator[Piece]:
        self._source = await adrive(self._flow(), self._backend)
        try:
            async for piece in self._source:
                yield piece
        finally:
            await self._source.aclose()
            self._settle()

    async def aclose(self) -> None:
        """Close the connection, if it is still open, and settle `reply`."""
        if self._pieces is not None:
            await self._pieces.aclose()

    async def __aenter__(self) -> Self:
        """Return the stream."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the stream."""
        await self.aclose()
