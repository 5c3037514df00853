"""A run of a session in pieces: `ChatStream` for `for`, `AsyncChatStream` for `async for`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmkit.core.background import every
from llmkit.core.engine import adrive, drive
from llmkit.core.streams import AsyncPieces, AsyncStream, Pieces, Stream
from llmkit.core.tool_loop import Course
from llmkit.sessions.replies import ChatPiece, ChatReply
from llmkit.sessions.run import BEAT_S

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping

    from llmkit.core.engine import Backend
    from llmkit.sessions.run import Running


class _ChatStream:
    """What both streams of a run have."""

    _running: Running

    @property
    def result(self) -> ChatReply:
        """What became of the run.

        Raises:
            RuntimeError: while pieces are still to come.
        """
        if self._running.outcome is None:
            raise RuntimeError("the result of a run is known when its stream has ended")
        return self._running.outcome


class ChatStream(_ChatStream, Pieces[ChatPiece]):
    """A run in pieces, for `for`; also a context manager. It never raises: the last piece tells of an error.

    Leaving it early closes the connection and keeps what had arrived, marked as interrupted.
    """

    def __init__(self, running: Running, backend: Backend, options: Mapping[str, Any], *, again: bool = False) -> None:
        self._running = running
        super().__init__(_pieces(running, Stream(Course(running.begun(options, again=again)), backend), backend))


class AsyncChatStream(_ChatStream, AsyncPieces[ChatPiece]):
    """A run in pieces, for `async for`; also an async context manager. As `ChatStream`."""

    def __init__(self, running: Running, backend: Backend, options: Mapping[str, Any], *, again: bool = False) -> None:
        self._running = running
        super().__init__(_apieces(running, AsyncStream(Course(running.begun(options, again=again)), backend), backend))


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
