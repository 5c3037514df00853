"""`Prompt`: one text with its context, for models that take a text instead of messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmkit.core import messages
from llmkit.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

_OWN = ("data", "context", "prompt", "history")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A text, and the model's instructions; the text is sent as it is.

    Attributes:
        data: the text.
        context: the system message, or None.
        prompt: a text on the line above it.
        history: OpenAI-style messages before it.
        params: further parameters for the model.
    """

    data: str
    context: str | None = None
    prompt: str | None = None
    history: Sequence[Mapping[str, Any]] = ()
    params: Mapping[str, Any] = field(default_factory=dict)

    def messages(self) -> list[dict[str, Any]]:
        """Return the messages without the system message."""
        last = f"{self.prompt}\n{self.data}" if self.prompt else self.data
        return [*(dict(message) for message in self.history), {"role": "user", "content": last}]

    def body(self) -> dict[str, Any]:
        """Return the body for a service with polled runs; what is not set is left out."""
        history = [dict(message) for message in self.history] or None
        body = {"data": self.data, "context": self.context, "prompt": self.prompt, "history": history}
        return {**{key: value for key, value in body.items() if value is not None}, **self.params}


def prompt_from(
    data: Any, keywords: Mapping[str, Any], parameters: Mapping[str, Any] | None, usual: Mapping[str, Any]
) -> Prompt:
    """Return the prompt: a keyword that is not None wins over *parameters*, they over *data*, and all over *usual*.

    Raises:
        InvalidRequestError: the data is neither text nor a dict with "data", or the history is invalid.
    """
    if parameters is not None and not isinstance(parameters, Mapping):
        raise InvalidRequestError(f"parameters must be a dict, not {parameters!r}")
    given = dict(data) if isinstance(data, Mapping) else {"data": data}
    if "data" not in given:
        raise InvalidRequestError(
            f'a dict of data needs the key "data"; it has: {", ".join(map(str, given)) or "none"}'
        )
    known = {key: value for key, value in keywords.items() if value is not None}
    values = {**usual, **given, **(parameters or {}), **known}
    if parameters and "data" in parameters:
        values["data"] = given["data"]
    if not isinstance(values["data"], str):
        raise InvalidRequestError(f"data must be a text, not {type(values['data']).__name__}")
    for key in ("context", "prompt"):
        if values.get(key) is not None and not isinstance(values[key], str):
            raise InvalidRequestError(f"{key} must be a text, not {type(values[key]).__name__}")
    history = values.get("history") or ()
    if isinstance(history, str | Mapping):
        raise InvalidRequestError("history must be a list of messages")
    if history:
        messages.check(history)
    return Prompt(
        data=values["data"],
        context=values.get("context"),
        prompt=values.get("prompt"),
        history=tuple(history),
        params={key: value for key, value in values.items() if key not in _OWN},
    )
