"""What a model.py gives back: values that JSON has no form for, and generators of either kind."""

from __future__ import annotations

import codecs
import dataclasses
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

_END = object()


class Texts:
    """What a generator yields, as text; iterated once, and closed by `aclose`.

    Args:
        source: the generator.
        judged: turns what it raises into answers.
    """

    def __init__(self, source: Any, judged: Callable[[], AbstractContextManager[None]]) -> None:
        self._source = source
        self._judged = judged
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._on_close: Callable[[bool], Awaitable[None]] | None = None
        self._is_whole = False

    def on_close(self, end: Callable[[bool], Awaitable[None]]) -> Texts:
        """Have a function called once when it is closed, with whether it was read to its end; return itself."""
        self._on_close = end
        return self

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
                self._is_whole = True
                raise StopAsyncIteration

    async def aclose(self) -> None:
        """Close the generator."""
        try:
            if (close := getattr(self._source, "aclose", None)) is not None:
                with self._judged():
                    await close()
        finally:
            on_close, self._on_close = self._on_close, None
            if on_close is not None:
                await on_close(self._is_whole)


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
