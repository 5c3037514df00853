"""Request bodies: JSON in UTF-8 that every parser reads in the same way, or a form."""

from __future__ import annotations

import json
import math
from email.message import Message
from typing import Any, NoReturn

from llmkit.serve.errors import ServeError

JSON = "application/json"
FORM = "multipart/form-data"
_MOST_DIGITS = 20  # of an integer: 64 bits and a sign
_UTF8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


def parsed(content_type: str, body: bytes) -> Any:
    """Return the JSON of a body, or None if there is no body, and for a form.

    Raises:
        ServeError: it is something else, or invalid JSON; checked here once for every protocol.
    """
    if not body or (content_type != JSON and _is_form(content_type)):
        return None
    return loads(body)


def _is_form(content_type: str) -> bool:
    """Return whether a body is a form, and not JSON.

    Raises:
        ServeError: it is neither.
    """
    sent_as = Message()
    sent_as["content-type"] = content_type
    kind, charset = sent_as.get_content_type(), sent_as.get_content_charset("utf-8")
    if kind != FORM and (kind != JSON or charset not in _UTF8):
        why = "the body must be a JSON object, sent as application/json in UTF-8"
        raise ServeError(400, why, code="invalid_value")
    return kind == FORM


def loads(body: bytes) -> Any:
    """Return the parsed JSON.

    Raises:
        ServeError: it is not JSON, or contains NaN, unbounded numbers, or halves of characters.
    """
    try:
        data = _decode(body.decode("utf-8"))
        if b"\\ud" in body.lower():
            json.dumps(data, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise ServeError(400, f"the body is no JSON: {error.msg} at {error.pos}", code="invalid_json") from error
    except UnicodeEncodeError as error:
        why = "a text has characters that are no Unicode (lone surrogates)"
        raise ServeError(400, why, code="invalid_value") from error
    except UnicodeDecodeError as error:
        raise ServeError(400, "the body is no JSON: it is not UTF-8", code="invalid_json") from error
    except RecursionError as error:
        raise ServeError(400, "the body is no JSON: it is nested too deeply", code="invalid_json") from error
    return data


def _no_constant(name: str) -> NoReturn:
    raise ServeError(400, f"the body is no JSON: {name} is no number of JSON", code="invalid_json")


def _whole_number(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ServeError(400, f"a number has {len(text)} digits", code="invalid_value")
    return int(text)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ServeError(400, "a number is too large", code="invalid_value")
    return number


_decode = json.JSONDecoder(parse_constant=_no_constant, parse_int=_whole_number, parse_float=_number).decode
