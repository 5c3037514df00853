"""The results of a model.py: generators of either kind, read from another loop, and values converted to JSON."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import dataclasses
import json
import logging
import threading
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from llmkit.core.params import Halves
from llmkit.serve.hosted.loop import ordinary

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from llmkit.serve.hosted.loop import ModelLoop
    from llmkit.serve.hosted.threads import Threads

log = logging.getLogger("llmkit.serve")
_END: Any = object()


async def on_threads(pieces: Iterator[Any], threads: Threads) -> AsyncGenerator[Any, None]:
    """Yield from a sync generator, each step on a thread."""
    lock = threading.Lock()  # an abandoned step ends before the generator is closed

    def step() -> Any:
        with lock:
            return next(pieces, _END)

    def close() -> None:
        with lock:
            getattr(pieces, "close", lambda: None)()

    try:
        while (piece := await threads.run(step)) is not _END:
            yield piece
    finally:
        await threads.run(close)


async def from_loop(pieces: AsyncIterator[Any], loop: ModelLoop) -> AsyncGenerator[Any, None]:
    """Yield from an async generator on the model's loop, which runs one piece ahead."""
    there = loop.get()
    reader = _GeneratorReader(pieces, asyncio.get_running_loop())
    there.call_soon_threadsafe(reader.begin)
    try:
        while True:
            piece, error = await reader.queue.get()
            if error is not None:
                raise error
            if piece is _END:
                return
            yield piece
    finally:
        reader.is_left = True
        with contextlib.suppress(RuntimeError):  # the model's loop is closed, and the generator with it
            there.call_soon_threadsafe(reader.cancel)
            await reader.ended.wait()


class _GeneratorReader:
    """Reads a generator in one task of its loop: the generator's scopes may be open between two pieces."""

    def __init__(self, pieces: AsyncIterator[Any], here: asyncio.AbstractEventLoop) -> None:
        self._pieces = pieces
        self._here = here
        self._task: asyncio.Task[None] | None = None
        self.queue: asyncio.Queue[tuple[Any, Exception | None]] = asyncio.Queue(1)
        self.ended = asyncio.Event()
        self.is_left = False

    def begin(self) -> None:
        self._task = asyncio.ensure_future(self._read())
        self._task.add_done_callback(lambda _: self._here.call_soon_threadsafe(self.ended.set))

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _read(self) -> None:
        error: Exception | None = None
        try:
            try:
                async for piece in self._pieces:
                    await self._put(piece)
            finally:
                if (close := getattr(self._pieces, "aclose", None)) is not None:
                    await close()
        except BaseException as raised:  # noqa: BLE001 - handed to whoever reads
            error = ordinary(raised)
        if not self.is_left:
            await self._put(_END, error)
        elif error is not None and not isinstance(error.__cause__, asyncio.CancelledError):
            log.warning("a stream of a model.py could not be closed", exc_info=error)

    async def _put(self, piece: Any, error: Exception | None = None) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self.queue.put((piece, error)), self._here))


async def to_texts(pieces: AsyncGenerator[Any, None]) -> AsyncGenerator[str, None]:
    """Yield pieces as non-empty texts; a character whose bytes arrive apart stays whole."""
    decoder, halves = codecs.getincrementaldecoder("utf-8")("replace"), Halves()
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            if isinstance(piece, bytes):
                text = decoder.decode(piece)
            else:
                text = piece if isinstance(piece, str) else json.dumps(piece, default=to_jsonable, ensure_ascii=False)
            if text := halves.joined(text):
                yield text
    if rest := halves.joined(decoder.decode(b"", final=True), last=True):
        yield rest


def to_jsonable(value: Any) -> Any:
    """Return a JSON value for pydantic models, dataclasses, data frames, arrays, dates, decimals, sets."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for method in ("to_dict", "tolist", "isoformat"):
        if hasattr(value, method):
            return getattr(value, method)()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, set | frozenset | Mapping):
        return dict(value) if isinstance(value, Mapping) else list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
