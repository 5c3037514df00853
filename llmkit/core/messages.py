"""Messages and attachments: the caller's, checked and in OpenAI's format. Pure except for reading files."""

from __future__ import annotations

import base64
import math
import mimetypes
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.core.params import check_value
from llmkit.errors import InvalidRequestError, ResponseError

if TYPE_CHECKING:
    from llmkit.core.types import Reply

EMBED_BATCH = 128
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
PARTS = ("text", "image_url", "input_audio", "file", "video_url", "refusal", "thinking", "redacted_thinking")
_AUDIO_FORMATS = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3"}
_SIGNATURES = (
    (b"\x89PNG", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"RIFF", "audio/wav"),
    (b"ID3", "audio/mpeg"),
    (b"%PDF", "application/pdf"),
)
_WEBP = (b"RIFF", b"WEBP")
_PICTURES = {"image/png", "image/jpeg", "image/gif", "image/webp"}


def build(
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    system: str | None = None,
    examples: Sequence[Mapping[str, str]] = (),
    attachments: Any = (),
) -> list[dict[str, Any]]:
    """Return the messages to send: the system message, then *prompt* as a user message or the list it is.

    The caller's list and messages are not changed. *examples* (mappings of user and assistant)
    come before the prompt, *attachments* (paths, URLs, message parts, or one of these) join its last message.

    Raises:
        InvalidRequestError: there is nothing to send, or a message or part is invalid; its index is named.
    """
    if system is not None and not isinstance(system, str):
        raise InvalidRequestError(f"system must be a text, not {type(system).__name__}")
    if system:
        check_value(system, "system")
    if isinstance(attachments, str | os.PathLike | Mapping):
        attachments = [attachments]
    if isinstance(prompt, str):
        if not prompt.strip() and not attachments:
            raise InvalidRequestError("the prompt is empty")
        check_value(prompt, "the prompt")
        messages = [{"role": "user", "content": prompt}]
    else:
        messages = list(prompt) if isinstance(prompt, Checked) else check(prompt)
        for index, message in enumerate(messages):
            if message["role"] == "tool" and not message.get("tool_call_id"):
                raise InvalidRequestError(f"message {index} (tool) answers no call; give it its tool_call_id")
    if attachments:
        messages[-1] = _attach(messages[-1], attachments)
    shown = [{"role": role, "content": example[role]} for example in examples for role in ("user", "assistant")]
    head = [] if system is None else [{"role": "system", "content": system}]
    start = next((at for at, message in enumerate(messages) if message["role"] not in {"system", "developer"}), 0)
    return [*head, *messages[:start], *shown, *messages[start:]] if shown else [*head, *messages]


class Checked(list[Any]):
    """Messages that have been checked already."""


def trim(
    messages: Sequence[Mapping[str, Any]], sizes: Sequence[int], limit: int, always: Collection[int] | None = None
) -> tuple[list[Mapping[str, Any]], int]:
    """Return the newest messages that fit, and their size; system messages stay, and so do calls with their results.

    *sizes* are the tokens of each message, *always* the indexes of the system messages if known. The user's newest
    turn stays whatever its size.
    """
    always = system_messages(messages) if always is None else always
    total, turn, start = sum(sizes[at] for at in always), 0, len(messages)
    for at in range(len(messages) - 1, -1, -1):
        if at in always:
            continue
        turn += sizes[at]
        if messages[at]["role"] == "user":
            if start < len(messages) and total + turn > limit:
                break
            total, turn, start = total + turn, 0, at
    else:  # messages before the first question
        if start == len(messages) or total + turn <= limit:
            total, start = total + turn, 0
    return [*(messages[at] for at in sorted(always) if at < start), *messages[start:]], total


def system_messages(messages: Sequence[Mapping[str, Any]], first: int = 0) -> set[int]:
    """Return the indexes of the system messages from *first* on."""
    return {at for at in range(first, len(messages)) if messages[at]["role"] in {"system", "developer"}}


def check(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return copies of *messages*, or raise an InvalidRequestError that names the index of the invalid one."""
    if isinstance(messages, Mapping) or not isinstance(messages, Sequence):
        raise InvalidRequestError(f"messages must be a string or a list of messages, not {type(messages).__name__}")
    if not messages:
        raise InvalidRequestError("the list of messages is empty")
    return [_check_message(index, message) for index, message in enumerate(messages)]


def _plain(value: Any) -> Any:
    """Return a message or a tool call as a mapping; in replies they are objects."""
    made = value.model_dump(exclude_none=True) if hasattr(value, "model_dump") else value
    if isinstance(made, Mapping) and isinstance(calls := made.get("tool_calls"), list | tuple):
        return {**made, "tool_calls": [_plain(call) for call in calls]}
    return made


def _check_message(index: int, message: Any) -> dict[str, Any]:
    message = _plain(message)
    if not isinstance(message, Mapping):
        raise InvalidRequestError(f"message {index} is no message but {type(message).__name__}")
    role = message.get("role")
    if role is None:
        raise InvalidRequestError(f"message {index} has no role (one of {', '.join(ROLES)})")
    if role not in ROLES:
        raise InvalidRequestError(f"message {index} has an unknown role {role!r} (one of {', '.join(ROLES)})")
    content = message.get("content")
    if content is None and role != "assistant":
        raise InvalidRequestError(f"message {index} ({role}) has no content")
    if content is not None and not isinstance(content, str):
        if not isinstance(content, Sequence) or not content:
            raise InvalidRequestError(f"message {index}: content must be a string or a list of parts")
        for number, part in enumerate(content):
            _check_part(f"message {index}, part {number}", part)
    _check_calls(index, message)
    checked = dict(message)
    if not _are_texts(checked):
        check_value(checked, f"message {index}")
    return checked


def _are_texts(message: Mapping[str, Any]) -> bool:
    """Return whether a message consists of texts that can be sent, as most do: this is known without its JSON."""
    try:
        "".join([*message, *message.values()]).encode()
    except (TypeError, UnicodeEncodeError):
        return False
    return True


def _check_calls(index: int, message: Mapping[str, Any]) -> None:
    """Check that tool calls are valid; those of a reply may be LiteLLM's objects."""
    calls = message.get("tool_calls")
    if calls is not None and (isinstance(calls, str | Mapping) or not isinstance(calls, Sequence)):
        raise InvalidRequestError(f"message {index}: tool_calls must be a list")
    called = [call.get("function") if isinstance(call, Mapping) else None for call in calls or ()]
    if message.get("function_call") is not None:
        called.append(message["function_call"])
    for function in called:
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise InvalidRequestError(f"message {index}: a tool call needs a function with a name")


_TEXT_PARTS = frozenset({"text", "refusal", "thinking"})


def _check_part(where: str, part: Any) -> None:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind is None:
        raise InvalidRequestError(f"{where} is no part: it needs a type (one of {', '.join(PARTS)})")
    if kind not in PARTS:
        raise InvalidRequestError(f"{where} has an unknown type {kind!r} (one of {', '.join(PARTS)})")
    if kind == "redacted_thinking":
        return
    if kind not in part:
        raise InvalidRequestError(f"{where} is of type {kind!r} and has no {kind!r}")
    value = part[kind]
    if kind in _TEXT_PARTS:
        if not isinstance(value, str):
            raise InvalidRequestError(f"{where}: {kind} must be a text, not {type(value).__name__}")
    elif not isinstance(value, str | Mapping) or not value:
        raise InvalidRequestError(f"{where}: {kind} must be an address or a mapping, not {value!r:.80}")


def _attach(message: dict[str, Any], attachments: Any) -> dict[str, Any]:
    if isinstance(attachments, bytes | bytearray) or not isinstance(attachments, Iterable):
        raise _no_attachment("attachments", attachments)
    content = message.get("content") or ""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) and content else []
    if not isinstance(content, str):
        parts = list(content)
    ready = (_attached(f"attachment {index}", item) for index, item in enumerate(attachments))
    return {**message, "content": [*parts, *ready]}


def _attached(where: str, item: Any) -> Any:
    if isinstance(item, str | os.PathLike):
        return attachment(item)
    if not isinstance(item, Mapping):
        raise _no_attachment(where, item)
    _check_part(where, item)
    check_value(item if isinstance(item, dict) else dict(item), where)
    return item


def _no_attachment(where: str, given: Any) -> InvalidRequestError:
    return InvalidRequestError(f"{where} must be a path, a URL or a message part, not {type(given).__name__}")


def attachment(source: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the message part for a file or a URL: image, WAV or MP3 audio, PDF, or text.

    Raises:
        InvalidRequestError: the file cannot be read, or no provider accepts its kind.
    """
    text = str(source)
    if text.startswith(("http://", "https://", "data:")):
        return _part_of_url(text)
    path = Path(source).expanduser()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"cannot read the attachment {text}: {error.strerror or error}") from error
    return part_of_bytes(data, name=path.name)


def part_of_bytes(data: bytes, *, name: str) -> dict[str, Any]:
    """Return the message part for the bytes of a file; the kind is detected from the bytes, then from the name."""
    kind = _kind(data, name)
    encoded = base64.b64encode(data).decode()
    if kind.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{encoded}"}}
    if kind in _AUDIO_FORMATS:
        return {"type": "input_audio", "input_audio": {"data": encoded, "format": _AUDIO_FORMATS[kind]}}
    if kind == "application/pdf":
        return {"type": "file", "file": {"filename": name, "file_data": f"data:{kind};base64,{encoded}"}}
    try:
        return {"type": "text", "text": f"{name}:\n{data.decode()}"}
    except UnicodeDecodeError:
        supported = "images, WAV and MP3 audio, PDF and text are"
        raise InvalidRequestError(f"the attachment {name} is of no known kind ({supported})") from None


def _kind(data: bytes, name: str) -> str:
    if data[:4] == _WEBP[0] and data[8:12] == _WEBP[1]:
        return "image/webp"
    for signature, kind in _SIGNATURES:
        if data.startswith(signature):
            return kind
    named = mimetypes.guess_type(name)[0] or ""
    if named in _PICTURES:
        raise InvalidRequestError(f"the attachment {name} is no picture, whatever its name says")
    return named


def _part_of_url(url: str) -> dict[str, Any]:
    kind = mimetypes.guess_type(url.partition("?")[0])[0] or "image/"
    if url.startswith("data:"):
        kind = url[5:].partition(";")[0]
    if kind == "application/pdf":
        return {"type": "file", "file": {"file_id": url}}
    return {"type": "image_url", "image_url": {"url": url}}


def seconds(timeout: Any) -> float:
    """Return *timeout* as a number of seconds, or raise an InvalidRequestError."""
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < math.inf:
        raise InvalidRequestError(f"timeout must be a number of seconds above 0, not {timeout!r}")
    return float(timeout)


def audio(file: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request parameters for a transcription of a file: its path, its bytes, or what LiteLLM takes."""
    seconds = params.get("duration")
    if seconds is not None and (
        isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf
    ):
        raise InvalidRequestError(f"duration must be a number of seconds above 0, not {seconds!r}")
    if isinstance(file, str | Path):
        path = Path(file).expanduser()
        try:
            file = (path.name, path.read_bytes())
        except OSError as error:
            raise InvalidRequestError(f"cannot read {path}: {error.strerror or error}") from error
    elif isinstance(file, bytes):
        file = ("audio.wav", file)
    return {"file": file, **params}


def speech(text: Any, voice: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request parameters for speech."""
    if not isinstance(text, str) or not text.strip():
        raise InvalidRequestError(f"the text to speak must be a text that is not empty, not {text!r:.80}")
    return {"input": text, "voice": voice, **params}


def texts(given: Any) -> list[str]:
    """Return one text, or several, as a list.

    Raises:
        InvalidRequestError: one is empty or not a string; its index is named.
    """
    if isinstance(given, bytes | Mapping) or not isinstance(given, Iterable):
        raise InvalidRequestError(f"the texts must be a text or a list of texts, not {type(given).__name__}")
    several = [given] if isinstance(given, str) else list(given)
    for index, text in enumerate(several):
        if not isinstance(text, str) or not text:
            raise InvalidRequestError(f"text {index} is empty or no string: {text!r}")
    return several


def batches(several: Sequence[str], size: int = EMBED_BATCH) -> list[list[str]]:
    """Return texts to embed in lists of at most *size*, one for each request."""
    return [list(several[start : start + size]) for start in range(0, len(several), size)]


def vectors_of(replies: Sequence[Reply], several: Sequence[str]) -> list[list[float]]:
    """Return the embeddings of texts, which may have come in several replies.

    Raises:
        ResponseError: there is not one for each text, or one has something else than finite numbers.
    """
    vectors = [vector for reply in replies for vector in reply.data]
    if not all(isinstance(vector, str) or _is_finite(vector) for vector in vectors):  # a text is Base64
        raise ResponseError(f"{replies[0].model} gave a vector with something else than numbers")
    if len(vectors) != len(several):
        raise ResponseError(f"{replies[0].model} gave {len(vectors)} vectors for {len(several)} texts")
    return vectors


def _is_finite(vector: Any) -> bool:
    try:
        return math.isfinite(sum(vector))
    except (TypeError, OverflowError):
        return False


def whole_number(name: str, value: Any) -> int:
    """Return *value* as an integer from 1 up, or raise an InvalidRequestError that names it."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidRequestError(f"{name} must be a whole number from 1 up, not {value!r}")
    return value
