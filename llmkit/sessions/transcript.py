"""Sessions as texts that people read and that become sessions again: Markdown, JSON, JSON lines. Nothing is lost."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from llmkit.core import messages as shapes
from llmkit.errors import InvalidRequestError
from llmkit.presets import Preset

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.core.types import Message

FORMATS = ("md", "json", "jsonl")
_HEAD = ("id", "title", "preset", "version", "snapshot", "forked_from")
_KINDS: Mapping[str, Any] = {
    "id": str,
    "preset": str,
    "snapshot": dict,
    "title": str | None,
    "forked_from": str | None,
    "version": int | None,
}
_NEEDED = ("id", "preset", "snapshot")
_MARK = re.compile(r"^<!-- llmkit (session|message) (\{.*\}) -->$", re.MULTILINE)
_END = "<!-- llmkit end -->\n"
_MARK_LIKE = re.compile(r"^(\\*<!-- llmkit )", re.MULTILINE)
_ESCAPED = re.compile(r"^\\(\\*<!-- llmkit )", re.MULTILINE)
_AS_JSON = "as_json"


def write(info: Any, messages: Sequence[Message], form: str) -> str:
    """Return the text of a session.

    Raises:
        InvalidRequestError: there is no such format.
    """
    head = {key: getattr(info, key) for key in _HEAD}
    head["snapshot"] = Preset(**head["snapshot"]).snapshot()[0]
    if form == "json":
        return json.dumps({"session": head, "messages": list(messages)}, ensure_ascii=False, indent=2) + "\n"
    if form == "jsonl":
        return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in ({"session": head}, *messages))
    if form != "md":
        raise InvalidRequestError(f"there is no format {form!r}; there are: {', '.join(FORMATS)}")
    blocks = [f"{_mark('session', head)}\n# {' '.join((head['title'] or head['preset'] or head['id']).split())}\n"]
    blocks += [_block(message) for message in messages]
    return "\n".join([*blocks, _END])


def read(text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what `write` wrote: the session's head, and its messages.

    Raises:
        InvalidRequestError: it is something else; the line is named.
    """
    try:
        head, messages = _read(text)
        return _checked(head, messages)
    except InvalidRequestError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise InvalidRequestError(f"this is no session that llmkit exported: {error}") from error


def _checked(head: dict[str, Any], messages: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    what = "this is no session that llmkit exported"
    if missing := [key for key in _NEEDED if key not in head]:
        raise InvalidRequestError(f"{what}: {', '.join(missing)} missing")
    for key, kind in _KINDS.items():
        if not isinstance(head.get(key), kind) or isinstance(head.get(key), bool):
            raise InvalidRequestError(f"{what}: {key} is {head[key]!r}")
    if not isinstance(messages, list):
        raise InvalidRequestError(f"{what}: messages are no list")
    Preset(**head["snapshot"])
    head = {key: head.get(key) for key in _HEAD}
    return head, shapes.check(messages) if messages else []


def _read(text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if not text.startswith("{"):
        return _read_markdown(text)
    first, _, rest = text.partition("\n")
    try:
        head = json.loads(first)
        if "messages" in head:
            return head["session"], head["messages"]
    except ValueError:
        whole = json.loads(text)
        return whole["session"], whole["messages"]
    messages = []
    for number, line in enumerate(rest.split("\n"), 2):
        try:
            messages += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise InvalidRequestError(f"line {number}: {error}") from error
    return head["session"], messages


def _read_markdown(text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    marks = list(_MARK.finditer(text))
    if not marks or marks[0][1] != "session":
        raise InvalidRequestError("line 1: a session begins with <!-- llmkit session {…} -->")
    messages = []
    ends = [mark.start() for mark in marks[1:]] + [len(text) - len(_END)]
    for mark, end in zip(marks[1:], ends[1:], strict=True):
        line = text.count("\n", 0, mark.start()) + 1
        try:
            message = json.loads(mark[2])
        except ValueError as error:
            raise InvalidRequestError(f"line {line}: {error}") from error
        if "content" not in message and message.pop(_AS_JSON, None) is None:
            body = text[mark.end() : end - 1].split("\n", 3)  # "", heading, "", content
            if len(body) < 4:  # noqa: PLR2004
                raise InvalidRequestError(f"line {line}: the message is cut")
            content = _ESCAPED.sub(r"\1", body[3])
            message = {**message, "content": content.removesuffix("\n")}
        messages.append({"role": message.pop("role"), **message})
    if not text.endswith(f"\n{_END}"):
        raise InvalidRequestError(f"line {text.count(chr(10)) + 1}: the end is missing: {_END.strip()}")
    return json.loads(marks[0][2]), messages


def _block(message: Message) -> str:
    """Return one message: a mark with all but its text, a heading for people, its text."""
    content = message.get("content")
    heading = f"## {message.get('role')}"
    if not isinstance(content, str):
        shown = "" if content is None else f"```json\n{json.dumps(content, ensure_ascii=False, indent=2)}\n```\n"
        more = {} if "content" in message else {_AS_JSON: True}
        return f"{_mark('message', {**message, **more})}\n{heading}\n\n{_MARK_LIKE.sub(_escape, shown)}"
    rest = {key: value for key, value in message.items() if key != "content"}
    return f"{_mark('message', rest)}\n{heading}\n\n{_MARK_LIKE.sub(_escape, content)}\n"


def _escape(found: re.Match[str]) -> str:
    return f"\\{found[1]}"


def _mark(kind: str, data: Mapping[str, Any]) -> str:
    # a JSON text on one line may have --> in a string, which would end the comment for a browser
    text = json.dumps(data, ensure_ascii=False).replace("-->", "--\\u003e").replace("\u2028", "\\u2028")
    return f"<!-- llmkit {kind} {text} -->"
