"""A run of a session in pieces: `ChatStream` for `for`, `AsyncChatStream` for `async for`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from llmkit.core.call import handed
from llmkit.core.engine import adrive_stream, drive_stream
from llmkit.core.streams import AsyncPieces, Pieces
from llmkit.core.tool_loop import StreamedTurn
from llmkit.core.types import Emit
from llmkit.sessions.replies import ChatPiece, ChatReply

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmkit.core.engine import Backend
    from llmkit.core.types import Flow, Piece
    from llmkit.sessions.run import SessionRun


class _RunResult:
    """What the sync and the async stream of a run share."""

    _run: SessionRun

    @property
    def result(self) -> ChatReply:
        """The outcome of the run.

        Raises:
            RuntimeError: more pieces are to come.
        """
        if self._run.outcome is None:
            raise RuntimeError("the result of a run is known when its stream has ended")
        return self._run.outcome


class ChatStream(_RunResult, Pieces[ChatPiece]):
    """A run in pieces, for `for`; also a context manager. It never raises: the last piece carries the error.

    Leaving it early closes the connection and keeps what had arrived, marked as interrupted.
    """

    def __init__(self, run: SessionRun, backend: Backend, options: Mapping[str, Any], *, again: bool = False) -> None:
        self._run = run
        super().__init__(drive_stream(_pieces(run, options, again=again), backend))


class AsyncChatStream(_RunResult, AsyncPieces[ChatPiece]):
    """A run in pieces, for `async for`; also an async context manager. Otherwise like `ChatStream`."""

    def __init__(self, run: SessionRun, backend: Backend, options: Mapping[str, Any], *, again: bool = False) -> None:
        self._run = run
        super().__init__(adrive_stream(_pieces(run, options, again=again), backend))


def _pieces(run: SessionRun, options: Mapping[str, Any], *, again: bool) -> Flow[None]:
    """Emit the pieces of a run; the last one has the whole reply, or the error."""
    course = StreamedTurn(run.begun(options, again=again))
    try:
        yield from handed(course.flow(), partial(_piece, run))
        outcome = run.succeeded((yield from run.ended(course.whole)))
    except GeneratorExit:
        raise
    except Exception as error:  # noqa: BLE001 - the last piece carries the error
        yield from run.dropped()
        outcome = run.failed(error)
    except BaseException:  # left early, cancelled, or Ctrl-C
        if run.text and course.reply is not None:
            yield from run.ended(course.reply, whole=False)
        yield from run.dropped()
        raise
    finally:
        run.beat.stop()
    yield Emit(ChatPiece(log_uuid=run.detail["log_uuid"], whole=outcome))


def _piece(run: SessionRun, piece: Piece) -> Emit | None:
    if piece.is_empty:
        return None
    run.text += piece.content
    return Emit(ChatPiece(content=piece.content, tool_calls=piece.tool_calls, log_uuid=run.detail["log_uuid"]))
