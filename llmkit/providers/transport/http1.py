"""Reads HTTP/1.1 answers: the head, then the body part by part.

Nothing in this module knows sockets or time. `http.client` would do, but reads a head with a parser of e-mails: an
eighth of a short call, and 15 ms of import.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llmkit.providers.transport.http import MAX_HEAD_BYTES, BrokenConnectionError, MalformedResponseError

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_LINES = 100
_STATUS_LINE = re.compile(r"HTTP/(1\.\d) +([1-9]\d\d)(?: +(.*))?", re.ASCII)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_DECIMAL = re.compile(r"[0-9]{1,18}")
_HEXADECIMAL = re.compile(rb"[0-9A-Fa-f]{1,15}")
_SWITCHING_PROTOCOLS, _OK, _NO_CONTENT, _NOT_MODIFIED = 101, 200, 204, 304


class Http1Response:
    """One answer; its head is read at once, and the heads of interim answers before it are skipped.

    Args:
        receive: returns the next bytes of the connection, b"" at its end.
        method: of the request.

    Attributes:
        status, reason, headers: the head; repeated headers stay apart.
        keeps_open: whether the connection can be used again when the body has been read.

    Raises:
        BrokenConnectionError: the connection ended before the head did.
        MalformedResponseError: this is no HTTP, or its head is too long.
    """

    def __init__(self, receive: Callable[[], bytes], method: str) -> None:
        self._receive = receive
        self._data, self._at = b"", 0  # what has arrived, and how far it has been read
        self._read_head()
        while _SWITCHING_PROTOCOLS < self.status < _OK or self.status == 100:  # noqa: PLR2004
            self._read_head()
        named = {name.lower(): value for name, value in reversed(self.headers)}  # the first one counts
        options = named.get("connection", "").lower()
        self.keeps_open = "close" not in options and (self._version != "1.0" or "keep-alive" in options)
        self._is_chunked = _is_chunked(named.get("transfer-encoding", "identity"))
        self._left: int | None = self._length(named, method)
        """The bytes left of the body, or of the chunk; None until the connection ends, and between two chunks."""
        self.keeps_open = self.keeps_open and (self._is_chunked or self._left is not None)

    def part(self) -> bytes:
        """Return the next part of the body, b"" after the last.

        Raises:
            BrokenConnectionError: the body is cut.
        """
        if self._is_chunked and self._left is None:
            self._left = self._next_chunk()
        if self._left == 0:
            self.keeps_open = self.keeps_open and self._at == len(self._data)  # else bytes that nobody asked for
            return b""
        if self._at == len(self._data):
            self._data, self._at = self._receive(), 0
        part = self._data[self._at : None if self._left is None else self._at + self._left]
        self._at += len(part)
        if self._left is None:
            return part
        if not part:
            raise BrokenConnectionError("it was closed")
        self._left -= len(part)
        if self._is_chunked and self._left == 0:
            self._end_chunk()
        return part

    def _read_head(self) -> None:
        first, *lines = self._head_lines()
        match = _STATUS_LINE.fullmatch(first)
        if match is None:
            raise MalformedResponseError(f"the answer is no HTTP: it begins with {first[:40]!r}")
        self._version, self.status, self.reason = match[1], int(match[2]), (match[3] or "").strip()
        self.headers = [_header(line) for line in _unfolded(lines)]

    def _head_lines(self) -> list[str]:
        lines: list[str] = []
        size = 0
        while line := self._line():
            size += len(line)
            lines.append(line.decode("latin-1"))
            if size > MAX_HEAD_BYTES or len(lines) > _MAX_LINES:
                raise MalformedResponseError(_TOO_LONG)
        return lines or [""]

    def _line(self) -> bytes:
        """Return the next line without its end."""
        while (end := self._data.find(b"\n", self._at)) < 0:
            self._data, self._at = self._data[self._at :], 0
            if len(self._data) > MAX_HEAD_BYTES:
                raise MalformedResponseError(_TOO_LONG)
            more = self._receive()
            if not more:
                raise BrokenConnectionError("it was closed")
            self._data += more
        line, self._at = self._data[self._at : end], end + 1
        return line.removesuffix(b"\r")

    def _length(self, named: dict[str, str], method: str) -> int | None:
        if method == "HEAD" or self.status in {_NO_CONTENT, _NOT_MODIFIED} or self.status < _OK:
            self._is_chunked = False
            return 0
        length = named.get("content-length")
        if length is None or self._is_chunked:
            return None
        if not _DECIMAL.fullmatch(length):
            raise MalformedResponseError(f"the answer is no HTTP: its length is {length[:40]!r}")
        return int(length)

    def _next_chunk(self) -> int:
        """Return the size of the next chunk; after the last, whose size is 0, the trailers are skipped."""
        size = self._line().partition(b";")[0].strip()
        if not _HEXADECIMAL.fullmatch(size):
            raise BrokenConnectionError("a part of it has no length")
        if (number := int(size, 16)) == 0:
            self._head_lines()
        return number

    def _end_chunk(self) -> None:
        if self._line():
            raise BrokenConnectionError("a part of it is longer than it says")
        self._left = None


_TOO_LONG = f"the head of the answer has more than {MAX_HEAD_BYTES // 1024} kB or {_MAX_LINES} lines"


def _header(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not _NAME.fullmatch(name):
        raise MalformedResponseError(f"the answer is no HTTP: a header of it is {line[:40]!r}")
    return name, value.strip(" \t")


def _unfolded(lines: list[str]) -> list[str]:
    """Return lines of which each is a header: those that begin with a space go on with the one before."""
    headers: list[str] = []
    for line in lines:
        if line[0] in " \t" and headers:
            headers[-1] += f" {line.strip()}"
        else:
            headers.append(line)
    return headers


def _is_chunked(coding: str) -> bool:
    if coding.lower() not in {"chunked", "identity"}:
        raise MalformedResponseError(f"the answer is sent as {coding[:40]!r}, which was not asked for")
    return coding.lower() == "chunked"
