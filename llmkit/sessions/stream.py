"""A run of a session in pieces: `ChatStream` for `for`, `AsyncChatStream` for `async for`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from llmkit.core.call import handed
from llmkit.core.engine import adrive_stream, drive_stream
from llmkit.core.streams import AsyncPieces, Pieces
from llmkit.core.tool_loop import Course
from llmkit.core.types import Emit
from llmkit.sessions.replies import ChatPiece, ChatReply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmkit.core.engine import Backend
    from llmkit.core.types import Flow, Piece
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
        super().__init__(drive_stream(_pieces(running, options, again=again), backend))


class AsyncChatStream(_ChatStream, AsyncPieces[ChatPiece]):
    """A run in pieces, for `async for`; also an async context manager. As `ChatStream`."""

    def __init__(self, running: Running, backend: Backend, options: Mapping[str, Any], *, again: bool = False) -> None:
        self._running = running
        super().__init__(adrive_stream(_pieces(running, options, again=again), backend))


def _pieces(running: Running, options: Mapping[str, Any], *, again: bool) -> Flow[None]:
    """Emit the pieces of a run; the last one has the whole, or tells of an error."""
    course = Course(running.begun(options, again=again))
    try:
        yield from handed(course.flow(), partial(_piece, running))
        outcome = running.succeeded((yield from running.ended(course.whole)))
    except GeneratorExit:
        raise
    except Exception as error:  # noqa: BLE001 - a run tells, and does not raise
        yield from running.dropped()
        outcome = running.failed(error)
    except BaseException:  # left, cancelled, or Ctrl-C
        if running.text and course.reply is not None:
            yield from running.ended(course.reply, whole=False)
        yield from running.dropped()
        raise
    finally:
        running.beat.stop()
    yield Emit(ChatPiece(log_uuid=running.detail["log_uuid"], whole=outcome))


def _piece(running: Running, piece: Piece) -> Emit | None:
    if piece.is_empty:
        return None
    running.text += piece.content
    return Emit(ChatPiece(content=piece.content, tool_calls=piece.tool_calls, log_uuid=running.detail["log_uuid"]))
