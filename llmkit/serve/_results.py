"""What a model.py gives back: values that JSON has no form for, and generators of either kind."""

from __future__ import annotations

import codecs
import dataclasses
import json
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from llmkit.serve._modelfile import Pool

_END = object()


class Texts:
    """What a generator yields, as text; iterated once, and closed by `aclose`."""

    def __init__(self, source: Any, judged: Callable[[], AbstractContextManager[None]]) -> None:
        self._source = source
        self._judged = judged
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def __aiter__(self) -> Texts:
        """Return itself."""
        return self

    async def __anext__(self) -> str:
        """Return the next piece; none is empty.

        Raises:
            ServeError: as for `Host.predict`.
        """
        while True:
            with self._judged():
                piece = await anext(self._source, _END)
            if piece is _END:
                text = self._decoder.decode(b"", final=True)
            elif isinstance(piece, bytes):
                text = self._decoder.decode(piece)
            else:
                text = piece if isinstance(piece, str) else json.dumps(piece, default=shape, ensure_ascii=False)
            if text:
                return text
            if piece is _END:
                raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the generator."""
        if (close := getattr(self._source, "aclose", None)) is not None:
            with self._judged():
                await close()


class Stepped:
    """A plain generator as an async one: each step on a thread of *pool*."""

    def __init__(self, pieces: Iterator[Any], pool: Pool) -> None:
        self._pieces = pieces
        self._pool = pool
        self._lock = threading.Lock()  # a step that nobody waits for any more ends before the generator is closed

    def __aiter__(self) -> Stepped:
        """Return itself."""
        return self

    async def __anext__(self) -> Any:
        """Return what the next step yields."""
        piece = await self._pool.run(self._step)
        if piece is _END:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Close the generator, when the step under way has ended."""
        await self._pool.run(self._close)

    def _step(self) -> Any:
        with self._lock:
            return next(self._pieces, _END)

    def _close(self) -> None:
        with self._lock:
            if (close := getattr(self._pieces, "close", None)) is not None:
                close()


def shape(value: Any) -> Any:
    """Return JSON's form of what it has no form for: pydantic models, dataclasses, data frames, arrays, dates, sets."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    for method in ("to_dict", "tolist", "isoformat"):
        if hasattr(value, method):
            return getattr(value, method)()
    if isinstance(value, set | frozenset | Mapping):
        return dict(value) if isinstance(value, Mapping) else list(value)
    raise TypeError(f"{type(value).__name__} is not JSON")
