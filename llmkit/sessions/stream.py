"""A run of a session in pieces: `ChatStream` for `for`, `AsyncChatStream` for `async for`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmkit.core.background import every
from llmkit.core.engine import adrive, drive
from llmkit.core.streams import AsyncStream, Stream
from llmkit.core.tool_loop import Course
from llmkit.sessions.replies import ChatPiece, ChatReply
from llmkit.sessions.run import BEAT_S

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
    from types import TracebackType

    from typing_extensions import Self

    from llmkit.core.engine import Backend
    from llmkit.sessions.run import Running


class _ChatStream:
    """What both colours share."""

    def __init__(self, running: Running) -> None:
        self._running = running

    @property
    def result(self) -> ChatReply:
        """What became of the run.

        Raises:
            RuntimeError: while pieces are still to come.
        """
        if self._running.outcome is None:
            raise RuntimeError("the result of a run is known when its stream has ended")
        return self._running.outcome


class ChatStream(_ChatStream):
    """A run in pieces, for `for`; also a context manager. It never raises: the last piece tells of an error.

    Leaving it early closes the connection and keeps what had arrived, marked as interrupted.
    """

    def __init__(self, running: Running, backend: Backend, options: Mapping[str, Any], *, again: bool = False) -> None:
        super().__init__(running)
        self._pieces = _pieces(running, Stream(Course(running.begun(options, again=again)), backend), backend)

    def __iter__(self) -> Iterator[ChatPiece]:
        """Return the iterator over the pieces."""
        return self._pieces

    def __next__(self) -> ChatPiece:
        """Return the next piece."""
        return next(self._pieces)

    def close(self) -> None:
        """Leave the stream."""
        self._pieces.close()

    def __enter__(self) -> Self:
        """Return the stream."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the stream."""
        self.close()


class AsyncChatStream(_ChatStream):
    """A run in pieces, for `async for`; also an async context manager. As `ChatStream`."""

    def __init__(self, running: Running, backend: Backend, options: Mapping[str, Any], *, again: bool = False) -> None:
        super().__init__(running)
        self._pieces = _apieces(running, AsyncStream(Course(running.begun(options, again=again)), backend), backend)

    def __aiter__(self) -> AsyncIterator[ChatPiece]:
        """Return the iterator over the pieces."""
        return self._pieces

    async def __anext__(self) -> ChatPiece:
        """Return the next piece."""
        return await anext(self._pieces)

    async def aclose(self) -> None:
        """Leave the stream."""
        await self._pieces.aclose()

    async def __aenter__(self) -> Self:
        """Return the stream."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the stream."""
        await self.aclose()


# The generators do not hold the stream they are read through, so that dropping it ends them.


def _pieces(running: Running, stream: Stream, backend: Backend) -> Generator[ChatPiece, None, None]:
    try:
        with every(BEAT_S, running.note, name="llmkit-note"):
            for piece in stream:
                if not piece.is_empty:
                    yield _piece(running, piece)
    except Exception as error:  # noqa: BLE001 - a run tells, and does not raise
        drive(running.dropped(), backend)
        yield _last(running, running.failed(error))
        return
    except BaseException:  # left, or Ctrl-C
        stream.close()
        if running.text:
            drive(running.ended(stream.reply, whole=False), backend)
        drive(running.dropped(), backend)
        raise
    yield _last(running, running.succeeded(drive(running.ended(stream.reply), backend)))


async def _apieces(running: Running, stream: AsyncStream, backend: Backend) -> AsyncGenerator[ChatPiece, None]:
    try:
        with every(BEAT_S, running.note, name="llmkit-note"):
            async for piece in stream:
                if not piece.is_empty:
                    yield _piece(running, piece)
    except Exception as error:  # noqa: BLE001 - a run tells, and does not raise
        await adrive(running.dropped(), backend)
        yield _last(running, running.failed(error))
        return
    except BaseException:  # left, or cancelled
        await stream.aclose()
        if running.text:
            await adrive(running.ended(stream.reply, whole=False), backend)
        await adrive(running.dropped(), backend)
        raise
    yield _last(running, running.succeeded(await adrive(running.ended(stream.reply), backend)))


def _piece(running: Running, piece: Any) -> ChatPiece:
    running.text += piece.content
    return ChatPiece(content=piece.content, tool_calls=piece.tool_calls, log_uuid=running.detail["log_uuid"])


def _last(running: Running, whole: ChatReply) -> ChatPiece:
    return ChatPiece(log_uuid=running.detail["log_uuid"], whole=whole)
