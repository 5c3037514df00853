"""The meaning of an endpoint's bytes: a text, the pieces of a stream, the reason for a refusal.

Nothing in this module reads from a connection: bytes are fed in, in parts of any size.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from llmkit.core.params import Halves, encodable

if TYPE_CHECKING:
    from collections.abc import Iterator

DONE = "[DONE]"
_TEXTS = ("answer", "content", "data")
_LINE_END = re.compile(r"\r\n|\r|\n")
_CHARSET = re.compile(r"charset=[\"']?([\w.:-]+)", re.IGNORECASE)
_LONGEST_REASON = 400


class StreamFaultError(Exception):
    """A stream reports a failure, or ends where no answer ends."""


class Event(NamedTuple):
    """One server-sent event; several `data:` lines are joined by line feeds."""

    name: str
    data: str


class Events:
    """Parses server-sent events from text in parts of any size."""

    def __init__(self) -> None:
        self._line: list[str] = []  # parts of the line that has not ended
        self._after_cr = False
        self._first = True
        self._name = ""
        self._data: list[str] = []

    def feed(self, text: str) -> Iterator[Event]:
        """Take more text and yield the events that it completes."""
        if self._first and text:
            text, self._first = text.removeprefix("\ufeff"), False
        if self._after_cr and text:
            text, self._after_cr = text.removeprefix("\n"), False
        *lines, rest = _LINE_END.split(text)
        self._after_cr = self._after_cr or text.endswith("\r")
        for line in lines:
            self._line.append(line)
            whole, self._line = "".join(self._line), []
            if whole:
                self._take(whole)
            elif self._data:
                event = Event(self._name, "\n".join(self._data))
                self._name, self._data = "", []
                yield event
            else:
                self._name = ""
        if rest:
            self._line.append(rest)

    def unfinished(self) -> str | None:
        """Return the data of an event that no empty line has ended, or None if there is none."""
        rest = "".join(self._line)
        if rest and not rest.startswith(":"):
            self._line = []
            self._take(rest)
            return "\n".join(self._data)
        return "\n".join(self._data) if self._data else None

    def _take(self, line: str) -> None:
        """Parse one line that is not empty; comments and unknown fields are ignored."""
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value


class PieceParser:
    """Parses text pieces from the bytes of a streamed answer: events, raw text, or JSON that comes whole.

    Attributes:
        ended: whether the stream itself said that it is complete; the rest is not read.
    """

    def __init__(self, content_type: str, *, ends_itself: bool = False) -> None:
        kind = content_type.partition(";")[0].strip().lower()
        self.ended = False
        self._is_json = kind.endswith(("/json", "+json"))
        self._events = Events() if kind == "text/event-stream" else None
        self._decoder = codecs.getincrementaldecoder("utf-8" if self._events else charset(content_type))("replace")
        self._parts: list[str] = []
        self._halves = Halves()
        self._must_finish = ends_itself  # also where chunks of a chat completion came, and none with a finish reason

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._parts)

    def feed(self, data: bytes) -> Iterator[str]:
        """Take more bytes and yield the pieces that they complete, none of them empty.

        Raises:
            StreamFaultError: the server reports an error in the stream.
        """
        text = self._decoder.decode(data)
        if self._events is None:
            if text:
                self._parts.append(text)
                if not self._is_json:
                    yield text
            return
        for event in self._events.feed(text):
            if piece := self._halves.joined(self._text_of_event(event), last=self.ended):
                self._parts.append(piece)
                yield piece
            if self.ended:
                return

    def end(self) -> Iterator[str]:
        """Yield the rest after the last bytes.

        Raises:
            StreamFaultError: an answer does not end here.
        """
        if self._decoder.getstate()[0]:
            raise StreamFaultError("it ends within a character")
        if self._is_json:
            body = self.text
            self._parts = [text_of(read_json(body), body)]
            yield from filter(None, self._parts)
        if self._events is None:
            return
        rest = self._events.unfinished()
        if rest is not None and rest != DONE:
            raise StreamFaultError("it ends within an event")
        if rest is None and self._must_finish:
            raise StreamFaultError("it ends without a finish reason")

    def _text_of_event(self, event: Event) -> str:
        if event.data == DONE:
            self.ended = True
            return ""
        data = read_json(event.data)
        if event.name == "error" or (isinstance(data, dict) and (data.get("error") or data.get("error_message"))):
            raise StreamFaultError(reason(event.data) or "error")
        if not isinstance(data, dict):
            return event.data
        if isinstance(data.get("choices"), list):
            choice = data["choices"][0] if data["choices"] else None
            return self._chosen(choice) if isinstance(choice, dict) else ""
        self._must_finish = self._must_finish and data.get("status") != "SUCCESS"
        return next((data[name] for name in _TEXTS if isinstance(data.get(name), str)), event.data)

    def _chosen(self, choice: dict[str, Any]) -> str:
        """Return what the first choice of a chat completion's chunk adds."""
        self._must_finish = not choice.get("finish_reason")
        delta = choice.get("delta")
        text = delta.get("content") if isinstance(delta, dict) else choice.get("text")
        return text if isinstance(text, str) else ""


def charset(content_type: str) -> str:
    """Return the encoding in a content type, or UTF-8 if it names none that exists."""
    match = _CHARSET.search(content_type)
    name = match[1] if match else "utf-8"
    try:
        b"".decode(name)
        codecs.getincrementaldecoder(name)("replace").getstate()
    except (LookupError, UnicodeError, AssertionError):  # unknown, or no encoding of texts
        return "utf-8"
    return name


def read_json(text: str) -> Any:
    """Return *text* parsed as JSON, or None if it is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def text_of(data: Any, body: str) -> str:
    """Return an answer's text: of `{"answer": …}`, `{"content": …}`, a chat completion or a JSON text; else *body*."""
    if isinstance(data, str):
        return encodable(data)
    if not isinstance(data, dict):
        return body
    choices = data.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    texts = (data.get("answer"), data.get("content"), message.get("content") if isinstance(message, dict) else None)
    return next((encodable(text) for text in texts if isinstance(text, str)), body)


def reason(body: str) -> str:
    """Return why a server refuses, in one line from its body, or "" if that is empty or a web page."""
    data = read_json(body)
    for name in ("error", "detail", "message", "title"):
        if isinstance(data, dict) and data.get(name):
            data = data[name]
    if isinstance(data, list):  # FastAPI's validation errors
        data = "; ".join(map(_complaint, data))
    elif isinstance(data, dict):
        data = "; ".join(f"{name}: {value}" for name, value in data.items())
    text = " ".join(encodable(data if isinstance(data, str) else body).split())
    return "" if text.startswith("<") else text[:_LONGEST_REASON]


def _complaint(entry: Any) -> str:
    if isinstance(entry, dict) and "msg" in entry:
        where = ".".join(map(str, entry.get("loc", ())))
        return f"{where}: {entry['msg']}" if where else str(entry["msg"])
    return str(entry)
