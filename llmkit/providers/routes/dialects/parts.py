"""Parts of a conversation in OpenAI's format, as far as several other protocols take them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llmkit.providers.routes.dialects import UnfamiliarError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

SYSTEMS = frozenset({"system", "developer"})
_OF_CALLS = frozenset({"id", "type", "function", "index"})
_PICTURE = re.compile(r"data:image/([a-z]+);base64,([A-Za-z0-9+/=]+)")


def picture_of(part: Mapping[str, Any], beside: Collection[str] = ()) -> tuple[str, str]:
    """Return the kind of a picture, such as png, and its bytes in base64; *beside* its address may stand these words.

    Raises:
        UnfamiliarError: it is none that is sent along.
    """
    picture = part["image_url"] if part["type"] == "image_url" else None
    if not isinstance(picture, dict) or "url" not in picture or not picture.keys() <= {"url", *beside}:
        raise UnfamiliarError
    match = _PICTURE.fullmatch(picture["url"])
    if match is None:
        raise UnfamiliarError
    return match[1], match[2]


def function_of(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the function of a call, with its name and its arguments.

    Raises:
        UnfamiliarError: it is no call of one.
    """
    function = call.get("function")
    if not call.keys() <= _OF_CALLS or not isinstance(function, dict):
        raise UnfamiliarError
    return function
