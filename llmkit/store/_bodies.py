"""Messages as they are stored: whole, as JSON, with large parts by the hash of their content."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LARGE = 4096
"""Texts inside of message parts that are longer than this are kept once, by their hash."""
SEARCHED = 100_000
"""How much of a message is searched; PostgreSQL indexes no more than a megabyte."""
NOTHING = '""'
"""The JSON of an empty text."""
_SURROGATES = re.compile("[\ud800-\udfff]")
_PART, _ESCAPED = "$part", "$escaped"


def as_json(value: Any, default: Callable[[Any], Any] | None = None) -> str:
    """Return JSON that every database takes: characters that are none in UTF-8 are escaped.

    Raises:
        TypeError: it is no JSON, and there is no *default* for what is not.
    """
    text = json.dumps(value, ensure_ascii=False, default=default)
    return json.dumps(value, default=default) if _SURROGATES.search(text) else text


def clean(text: str | None) -> str | None:
    """Return a text for people with a space for each character that a database refuses."""
    return None if text is None else _SURROGATES.sub(" ", text).replace("\0", " ")


def packed(message: Mapping[str, Any]) -> tuple[str, str, dict[str, str]]:
    """Return a message as JSON, the text that is searched, and its large parts by hash."""
    parts: dict[str, str] = {}

    def shrunk(value: Any) -> Any:
        if isinstance(value, str) and len(value) > LARGE:
            key = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()
            parts[key] = as_json(value)
            return {_PART: key}
        if isinstance(value, dict):
            inner = {key: shrunk(item) for key, item in value.items()}
            return {_ESCAPED: inner} if len(value) == 1 and (_PART in value or _ESCAPED in value) else inner
        return [shrunk(item) for item in value] if isinstance(value, list | tuple) else value

    content = message.get("content")
    body = {**message, "content": shrunk(content)} if isinstance(content, list | tuple) else dict(message)
    return as_json(body), clean(_text(content)[:SEARCHED]) or "", parts


def unpacked(body: str, part: Callable[[str], str]) -> dict[str, Any]:
    """Return the message of which *body* is the JSON; *part* gives the text of a hash."""
    message: dict[str, Any] = json.loads(body)
    if isinstance(message.get("content"), list):
        message["content"] = _grown(message["content"], part)
    return message


def _grown(value: Any, part: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        if len(value) == 1 and _PART in value:
            return part(value[_PART])
        if len(value) == 1 and _ESCAPED in value:
            return {key: _grown(item, part) for key, item in value[_ESCAPED].items()}
        return {key: _grown(item, part) for key, item in value.items()}
    return [_grown(item, part) for item in value] if isinstance(value, list) else value


def _text(content: Any) -> str:
    if isinstance(content, list | tuple):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        return "\n".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""
