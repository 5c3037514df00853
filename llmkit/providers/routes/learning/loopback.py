"""A transport that answers by itself: what LiteLLM, or llmkit, would send never leaves the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmkit.providers.transport.addresses import TransportError
from llmkit.providers.transport.body import BodyReader
from llmkit.providers.transport.http import ConnectError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from llmkit.providers.transport.http import HttpRequest, Wire


@dataclass(frozen=True, slots=True)
class Canned:
    """A prepared answer."""

    body: bytes
    status: int = 200
    headers: Sequence[tuple[str, str]] = (("content-type", "application/json"),)


class Loopback:
    """The sync and the async transport of a probe; `sent` is what was to be sent, in order."""

    def __init__(self, *answers: Canned) -> None:
        self.sent: list[HttpRequest] = []
        self._answers = list(answers)

    def expect(self, *answers: Canned) -> None:
        """Forget what was sent, and answer with these."""
        self.sent, self._answers = [], list(answers)

    def open(self, request: HttpRequest, wire: Wire) -> _Response:
        """Record a request, and return the next answer."""
        wire.sent(request.url)
        self.sent.append(request)
        if not self._answers:
            raise wire.failed(ConnectError("a probe has no more answers"))
        return _Response(self._answers.pop(0), wire)


class AwaitedLoopback(Loopback):
    """The async form of it."""

    async def open(self, request: HttpRequest, wire: Wire) -> _Response:  # type: ignore[override]
        """Record a request, and return the next answer."""
        return super().open(request, wire)


class _Response:
    """An open answer, read like the transport's own."""

    def __init__(self, canned: Canned, wire: Wire) -> None:
        self.status, self.headers = canned.status, list(canned.headers)
        wire.answered(canned.status, self.headers)
        self._body, self._wire = canned.body, wire

    def __iter__(self) -> Iterator[bytes]:
        reader = BodyReader(self.headers, self._wire)
        try:
            yield from reader.take(self._body)
        except TransportError as error:
            raise self._wire.failed(error) from error.__cause__

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part

    def read(self) -> bytes:
        return b"".join(self)

    async def aread(self) -> bytes:
        return b"".join(self)

    def close(self) -> None:
        """Do nothing."""
