"""Texts in a form that every database accepts, and the searchable text of messages."""

from __future__ import annotations

import json
import re
import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

SEARCHED = 100_000
"""How much of a message is searched; PostgreSQL indexes no more than a megabyte."""
_LONGEST_TITLE = 60
_SURROGATES = re.compile("[\ud800-\udfff]")


def as_json(value: Any, default: Callable[[Any], Any] | None = None) -> str:
    """Return JSON that every database accepts: characters that are invalid in UTF-8 are escaped.

    Raises:
        TypeError: a value cannot be JSON, and there is no *default* to convert it.
    """
    text = json.dumps(value, ensure_ascii=False, default=default)
    return json.dumps(value, default=default) if _SURROGATES.search(text) else text


def clean(text: str) -> str:
    """Return a text for people with a space for each character that a database refuses."""
    return text.replace("\0", " ") if text.isascii() else _SURROGATES.sub(" ", text).replace("\0", " ")


def searched(message: Mapping[str, Any]) -> str:
    """Return the searchable text of a message."""
    content = message.get("content")
    if isinstance(content, list | tuple):
        texts = (part.get("text") for part in content if isinstance(part, dict))
        content = "\n".join(text for text in texts if isinstance(text, str))
    return clean(content[:SEARCHED]) if isinstance(content, str) else ""


def title_of(messages: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the first words of the first question, or None if there is none."""
    asked = (searched(message) for message in messages if message.get("role") == "user")
    words = next((text.split() for text in asked if text.strip()), [])
    return textwrap.shorten(" ".join(words), _LONGEST_TITLE, placeholder="…") or None


def places(values: Any) -> str:
    """Return a `?` for each value, for `IN (…)`."""
    return ", ".join("?" * len(values)) or "NULL"


def starting(text: str) -> str:
    """Return the pattern of `LIKE ? ESCAPE '/'` for texts that start with *text*."""
    return re.sub("[%_/]", r"/\g<0>", text) + "%"
