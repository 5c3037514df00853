"""Sessions as text: Markdown for people, JSON and JSON lines to import again without loss."""

from __future__ import annotations

import contextlib
import json
import uuid
import warnings
from typing import TYPE_CHECKING, Any

from llmkit.core import messages as shapes
from llmkit.errors import InvalidRequestError, UnknownSessionError
from llmkit.presets import Preset, of_somebody

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.core.types import Message
    from llmkit.store import Store

FORMATS = ("md", "json", "jsonl")
_KINDS: Mapping[str, Any] = {
    "id": str,
    "title": str | None,
    "preset": str,
    "version": int | None,
    "snapshot": dict,
    "forked_from": str | None,
}
_NEEDED = ("id", "preset", "snapshot")
_NO_SESSION = "this is no session that llmkit exported"


def write(info: Any, messages: Sequence[Message], form: str) -> str:
    """Return the text of a session.

    Raises:
        InvalidRequestError: there is no such format.
    """
    head = {key: getattr(info, key) for key in _KINDS}
    head["snapshot"] = Preset(**head["snapshot"]).snapshot()[0]
    if form == "json":
        return json.dumps({"session": head, "messages": list(messages)}, ensure_ascii=False, indent=2) + "\n"
    if form == "jsonl":
        return "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in ({"session": head}, *messages))
    if form != "md":
        raise InvalidRequestError(f"there is no format {form!r}; there are: {', '.join(FORMATS)}")
    title = " ".join((head["title"] or head["preset"] or head["id"]).split())
    return "\n".join([f"# {title}\n", *(f"## {message['role']}\n\n{shown(message)}\n" for message in messages)])


def shown(message: Message) -> str:
    """Return a message's text for display; other parts and tool calls as a word in brackets."""
    content = message.get("content")
    texts = [content] if isinstance(content, str) else []
    if not isinstance(content, str):
        texts = [part.get("text") or f"[{part.get('type')}]" for part in content or ()]
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    calls += [message["function_call"]] if message.get("function_call") else []
    return "\n".join([*texts, *(f"[calls {call['name']}({call['arguments']})]" for call in calls)])


def read(text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what `write` wrote as JSON or JSON lines: the session's header, and its messages.

    Raises:
        InvalidRequestError: it is something else; the line is named.
    """
    if not text.startswith("{"):
        raise InvalidRequestError(f"{_NO_SESSION} as JSON or JSON lines; Markdown is for people only")
    try:
        return _checked(*_read(text))
    except InvalidRequestError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise InvalidRequestError(f"{_NO_SESSION}: {error}") from error


def restore(text: str, store: Store) -> tuple[str, str]:
    """Create a session from what `write` wrote, and return its preset's name and its id.

    Its preset came from somebody else, so it keeps texts, numbers and choices only; a warning names the rest.

    Raises:
        InvalidRequestError: the text is not such an export; the line is named.
    """
    head, messages = read(text)
    preset, lost = of_somebody(head["snapshot"])
    if lost:
        warnings.warn(f"an imported session loses what may not come from elsewhere: {', '.join(lost)}", stacklevel=3)
    session_id = head["id"]
    with contextlib.suppress(UnknownSessionError):
        store.session(session_id)
        session_id = str(uuid.uuid4())
    about = {key: head[key] for key in ("preset", "version", "title", "forked_from")}
    store.create(session_id, **about, snapshot=preset.as_dict(), messages=messages)
    return head["preset"], session_id


def _checked(head: dict[str, Any], messages: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if missing := [key for key in _NEEDED if key not in head]:
        raise InvalidRequestError(f"{_NO_SESSION}: {', '.join(missing)} missing")
    for key, kind in _KINDS.items():
        if not isinstance(head.get(key), kind) or isinstance(head.get(key), bool):
            raise InvalidRequestError(f"{_NO_SESSION}: {key} is {head[key]!r}")
    if not isinstance(messages, list):
        raise InvalidRequestError(f"{_NO_SESSION}: messages are no list")
    Preset(**head["snapshot"])
    return {key: head.get(key) for key in _KINDS}, shapes.check(messages) if messages else []


def _read(text: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
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
