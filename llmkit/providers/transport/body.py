"""The body of an answer as it arrives: decompressed, limited, and read as events where it is a stream of them."""

from __future__ import annotations

import json
import re
import zlib
from codecs import BOM_UTF8
from collections import deque
from typing import TYPE_CHECKING, Any

from llmkit.providers.transport.http import (
    MAX_BODY_BYTES,
    MAX_EVENT_BYTES,
    MalformedResponseError,
    MalformedStreamError,
    StreamedRefusalError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from llmkit.providers.transport.addresses import TransportError
    from llmkit.providers.transport.http import Wire


class BodyReader:
    """Decompresses and limits an answer as it arrives, and checks it in passing."""

    def __init__(self, headers: Sequence[tuple[str, str]], wire: Wire) -> None:
        encoding = next((value.strip().lower() for name, value in headers if name.lower() == "content-encoding"), "")
        self._unpack = _decompressor(encoding)
        self._wire = wire
        has_events = wire.is_event_stream and wire.json_events and wire.failed_status is None
        self._events = (wire.events or EventReader()) if has_events else None
        self._size = 0

    def take(self, data: bytes) -> Iterator[bytes]:
        """Yield *data* decompressed, up to the first fault.

        Raises:
            MalformedResponseError: it is too large, cannot be decompressed, or an event is not JSON.
        """
        for part in self._unpacked(data):
            if self._events is None and self._wire.events is not None and self._size < _LONGEST_BEGINNING:
                part = self._of_stream(part)  # noqa: PLW2901 - a stream, whatever its head says
            elif self._events is not None and not self._size:
                part = part.removeprefix(BOM_UTF8)  # noqa: PLW2901 - else the first event would be lost
            self._size += len(part)
            if self._events is None:
                if self._size > MAX_BODY_BYTES:
                    raise MalformedResponseError(f"the answer has more than {MAX_BODY_BYTES // 2**20} MB")
                self._wire.parts.append(part)
                yield part
            else:
                good = self._events.check(part, self._wire)
                if good:
                    yield part[:good]
                if self._events.fault is not None:
                    raise self._events.fault

    def _of_stream(self, part: bytes) -> bytes:
        """Return all that has come, if it begins like a stream for who waits for one, or else the part."""
        so_far = (b"".join(self._wire.parts) + part).removeprefix(BOM_UTF8)
        if self._wire.failed_status is not None or not _BEGINNING.match(so_far.lstrip()):
            return part
        self._events = self._wire.events
        self._wire.parts.clear()
        return so_far

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
        if self._unpack is None:
            yield data
            return
        try:
            while data:
                part = self._unpack.decompress(data, MAX_EVENT_BYTES)
                data = self._unpack.unconsumed_tail
                if part:
                    yield part
        except zlib.error as error:
            raise MalformedResponseError(f"the answer cannot be unpacked: {error}") from error


_BEGINNING, _LONGEST_BEGINNING = re.compile(rb"(?:data|event|id|retry)?:"), 64


class EventReader:
    """Reads the `data:` lines of an event stream: anything but JSON is a fault, and so is a provider's error.

    Each of these lines is an event, whether or not an empty line follows it.

    Args:
        keeps: whether somebody takes the events.

    Attributes:
        waiting: the events that nobody has taken yet.
        has_ended: whether the stream said that it is complete; what follows is not regarded.
        fault: what is wrong with it.
    """

    def __init__(self, *, keeps: bool = False) -> None:
        self.waiting: deque[Any] = deque(maxlen=None if keeps else 0)
        self.has_ended = False
        self.fault: TransportError | None = None
        self._rest = b""
        self._name = b""

    def check(self, data: bytes, wire: Wire) -> int:
        """Read more bytes, and let the wire see their events; return how many of them come before a fault."""
        before = len(self._rest)
        *lines, self._rest = (self._rest + data.replace(b"\r", b"\n")).split(b"\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            self.fault = MalformedStreamError(f"an event of the stream has more than {MAX_EVENT_BYTES // 2**20} MB")
            return 0
        good = 0
        for line in lines:
            text = line[5:].strip() if line.startswith(b"data:") else b""
            self.has_ended = self.has_ended or text == b"[DONE]"
            if text and not self.has_ended:
                self.fault = self._fault_of(text, wire)
                if self.fault is not None:
                    return max(0, good - before)
                self._name = b""
            elif line.startswith(b"event:"):
                self._name = line[6:].strip()
            good += len(line) + 1
        return len(data)

    def end(self, wire: Wire) -> None:
        """Take a last line that no line end has followed; an event that is cut is none."""
        if self._rest:
            self.check(b"\n", wire)
        if isinstance(self.fault, MalformedStreamError):
            self.fault = None

    def _fault_of(self, text: bytes, wire: Wire) -> TransportError | None:
        try:
            event = json.loads(text)
        except (ValueError, RecursionError):
            if self._name == b"error":
                return StreamedRefusalError(text.decode("utf-8", "replace"))
            return MalformedStreamError(f"a chunk of the stream is not JSON: {text[:80]!r}")
        wire.saw(event)
        if isinstance(event, dict) and event.get("error"):
            return StreamedRefusalError(event["error"])
        if self._name == b"error":
            return StreamedRefusalError(event)
        if event is not None:
            self.waiting.append(event)
        return None


def _decompressor(encoding: str) -> Any:
    if encoding in {"", "identity"}:
        return None
    if encoding == "gzip":
        return zlib.decompressobj(16 + zlib.MAX_WBITS)
    if encoding == "deflate":
        return zlib.decompressobj()
    raise MalformedResponseError(f"the answer is packed with {encoding!r}, which was not asked for")
