"""Gemini's protocol, as Google AI Studio speaks it: the bodies of requests, and LiteLLM's rules for answers.

What LiteLLM would repair or translate on the way is not written here but handed to LiteLLM; what is written in an
unknown way, such as sound or the findings of a search, is not guessed but read by it.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from llmkit.core.completion import FINISH_REASONS, Chunk, Completion
from llmkit.providers.routes import features
from llmkit.providers.routes.behaviour import HEADERS, KEPT, RENAMED, SIGNED, WRITTEN
from llmkit.providers.routes.dialects import UnfamiliarError
from llmkit.providers.routes.dialects.gemini_contents import BY_ID, conversation
from llmkit.providers.routes.dialects.gemini_params import CONFIG, written
from llmkit.providers.routes.dialects.gemini_usage import totals_of, usage_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llmkit.core.types import Request
    from llmkit.providers.routes.behaviour import Behaviour

PATH, CONVERSATION = ":generateContent", "contents"
_OWN_HEADERS = re.compile("x-goog-", re.IGNORECASE)
_NOT_BESIDE = frozenset({"cache", "tags", "serviceTier", "service_tier", "generation_config"})
"""What LiteLLM keeps to itself of what is to be sent beside, and what changes the price of an answer."""
_OTHER_ANSWERS = frozenset({"candidateCount", "candidate_count", "responseModalities", "response_modalities"})
"""What, sent beside, changes the answer to one that is not read here in streams."""
_FLAGGED = frozenset(
    {
        *("SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY"),
        "IMAGE_PROHIBITED_CONTENT",
    }
)
"""Whole answers that ended so are taken for empty, whatever they say."""


def body(behaviour: Behaviour, model: str, request: Request, *, stream: bool) -> dict[str, Any]:  # noqa: ARG001
    """Return the body of a request that a route covers; the model, and whether it is streamed, are in the address.

    Raises:
        UnfamiliarError: LiteLLM would change something in it.
    """
    effects, params = behaviour.effects, request.params
    if {"thinking", "reasoning_effort"} <= params.keys() or {"max_tokens", "max_completion_tokens"} <= params.keys():
        raise UnfamiliarError  # LiteLLM decides which one counts
    made = conversation(
        request.messages,
        with_ids=effects.get("tool_calls") == SIGNED,
        with_system=effects.get("role:system") == KEPT,
    )
    for name, value in params.items():
        effect = effects[features.of_param(name, value)]
        if effect == HEADERS and any(map(_OWN_HEADERS.match, value)):
            raise UnfamiliarError
        if name != "extra_body" and effect.startswith((KEPT, WRITTEN, RENAMED)):
            new = written(name, value, effect.removeprefix(RENAMED))
            _put(made, json.loads(effect) if effect.startswith(WRITTEN) else new)
    config = {**behaviour.added.get(CONFIG, {}), **made.get(CONFIG, {})}
    made = {**behaviour.added, **made, **({CONFIG: config} if config else {})}
    beside = params.get("extra_body", {})
    config = beside.get(CONFIG, {})
    if beside.keys() & _NOT_BESIDE or not isinstance(config, dict) or config.keys() & _OTHER_ANSWERS:
        raise UnfamiliarError
    _put(made, beside)
    return made


def _put(made: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add items to a body; those of an object that is in it already are added to that."""
    for name, value in more.items():
        both = isinstance(value, dict) and isinstance(made.get(name), dict)
        made[name] = {**made[name], **value} if both else value


def completion_of(body: Any, habits: Sequence[str]) -> Completion:  # noqa: ARG001 - all models are read alike
    """Return a whole answer.

    Raises:
        UnfamiliarError: it is written in an unknown way.
    """
    try:
        return _completion(body)
    except (AttributeError, KeyError, TypeError) as error:
        raise UnfamiliarError from error


def _completion(body: Mapping[str, Any]) -> Completion:
    counts, candidates = body["usageMetadata"], body.get("candidates") or []
    if body.keys() & {"choices", "model", "type"}:  # the words of other formats
        raise UnfamiliarError
    head: dict[str, Any] = {"id": body.get("responseId"), "model": model_of(body)}
    is_blocked = "blockReason" in body.get("promptFeedback", {})
    if is_blocked or (candidates and candidates[0].get("finishReason") in _FLAGGED):
        nothing = {"message": {"content": None}, "finish_reason": "content_filter"}
        return Completion.of({**head, "choices": [nothing], "usage": totals_of(counts)})
    choices = [_choice(each) for each in candidates if says_something(each)]
    return Completion.of({**head, "choices": choices, "usage": usage_of(counts)})


def _choice(candidate: Mapping[str, Any]) -> dict[str, Any]:
    message = _Parts(_parts_of(candidate)).message()
    reason = "tool_calls" if message["tool_calls"] else _reason_of(candidate)
    return {"message": message, "finish_reason": reason, "logprobs": _logprobs_of(candidate)}


class Reader:
    """Reads the events of one stream."""

    def __init__(self, habits: Sequence[str]) -> None:  # noqa: ARG002 - all models are read alike
        self._calls = 0

    def chunks(self, event: Any) -> Iterable[Chunk]:
        """Return what an event, as decoded JSON, adds to the answer.

        Raises:
            UnfamiliarError: it is written in an unknown way.
        """
        try:
            head = {"id": event.get("responseId"), "model": model_of(event)}
            choices = [self._choice(each, at) for at, each in enumerate(event.get("candidates") or ()) if each]
            if "blockReason" in (event.get("promptFeedback") or {}):
                choices.append({"index": 0, "delta": {}, "finish_reason": "content_filter"})
            usage = usage_of(event["usageMetadata"]) if "usageMetadata" in event else None
        except (AttributeError, KeyError, TypeError) as error:
            raise UnfamiliarError from error
        yield Chunk.of({**head, "choices": [{**each, "finish_reason": None} for each in choices], "usage": usage})
        ends = [{**each, "delta": {}, "logprobs": None} for each in choices if each["finish_reason"] is not None]
        if ends:  # in a chunk of its own, as OpenAI has it
            yield Chunk.of({**head, "choices": ends})

    def _choice(self, candidate: Mapping[str, Any], at: int) -> dict[str, Any]:
        delta = {**_Parts(_parts_of(candidate), self._calls).message(), "thinking_blocks": None}  # as from LiteLLM
        self._calls += len(delta["tool_calls"])
        reason, place = _reason_of(candidate), candidate.get("index")
        if reason is not None and (delta["tool_calls"] or (self._calls and reason == "stop")):
            reason = "tool_calls"
        place = at if place is None else place
        return {"index": place, "delta": delta, "finish_reason": reason, "logprobs": _logprobs_of(candidate)}


def model_of(body: Mapping[str, Any]) -> str | None:
    """Return the model that answered, as Google names it."""
    named = body.get("modelVersion")
    name: str = named.partition("@")[0] if isinstance(named, str) else ""
    return name or None


def says_something(candidate: Mapping[str, Any]) -> bool:
    """Return whether a candidate is one of the answers."""
    return "content" in candidate or "finishReason" in candidate


def _reason_of(candidate: Mapping[str, Any]) -> str | None:
    reason = candidate.get("finishReason")
    if reason is not None and not isinstance(reason, str):
        raise UnfamiliarError
    return None if reason is None else FINISH_REASONS.get(reason, reason)


def _parts_of(candidate: Mapping[str, Any]) -> Sequence[Any]:
    """Return the parts of a candidate.

    Raises:
        UnfamiliarError: it has sources, or its parts or its place are none.
    """
    if type(candidate.get("index", 0)) not in {int, type(None)}:
        raise UnfamiliarError
    content: Any = candidate.get("content") or {}
    parts = content.get("parts", [])
    if "groundingMetadata" in candidate or not isinstance(parts, list):
        raise UnfamiliarError
    return parts


def _logprobs_of(candidate: Mapping[str, Any]) -> Any:
    """Return the probabilities of an answer's tokens, if it has any."""
    found = candidate.get("logprobsResult") or {}
    if "chosenCandidates" not in found:
        return None
    others = [each["candidates"] for each in found.get("topCandidates", ())]
    chosen = [
        {**_probable(each), "top_logprobs": [_probable(other) for other in (others[at] if at < len(others) else ())]}
        for at, each in enumerate(found["chosenCandidates"])
    ]
    return {"content": chosen}


def _probable(token: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": token["token"], "bytes": None, "logprob": token["logProbability"]}


class _Parts:
    """The parts of an answer, or of a piece of one, that has had so many calls before."""

    def __init__(self, parts: Sequence[Mapping[str, Any]], calls: int = 0) -> None:
        self._said: dict[bool, list[str]] = {True: [], False: []}
        self._thoughts: list[dict[str, Any]] = []
        self._calls: list[dict[str, Any]] = []
        self._pictures: list[dict[str, Any]] = []
        self._before = calls
        for part in parts:
            if part.keys() & {"toolCall", "toolResponse"}:
                raise UnfamiliarError
            self._take(part)

    def message(self) -> dict[str, Any]:
        """Return them as a message in OpenAI's format."""
        thought, said = ("".join(self._said[which]) or None for which in (True, False))
        return {
            "content": said,
            "reasoning_content": thought,
            "tool_calls": self._calls,
            "thinking_blocks": self._thoughts or None,
            "images": self._pictures or None,
        }

    def _take(self, part: Mapping[str, Any]) -> None:
        is_thought, signature = part.get("thought") is True, part.get("thoughtSignature")
        if "inlineData" in part:
            self._take_picture(part["inlineData"])
        text = part.get("text", "")
        if not isinstance(text, str) or text.startswith("data:audio"):
            raise UnfamiliarError
        self._said[is_thought].append(text)
        if is_thought:
            signed = {} if signature is None else {"signature": signature}
            self._thoughts.append({"type": "thinking", "thinking": text, **signed})
        if "functionCall" in part:
            called = part["functionCall"]
            function = {"name": called["name"], "arguments": json.dumps(called["args"], ensure_ascii=False)}
            identity = called.get("id") or f"call_{os.urandom(14).hex()}"  # Google's older models give none
            if signature:
                identity += f"{BY_ID}{signature}"
            index = self._before + len(self._calls)
            self._calls.append({"index": index, "id": identity, "type": "function", "function": function})

    def _take_picture(self, data: Mapping[str, Any]) -> None:
        if not data["mimeType"].startswith("image/"):
            raise UnfamiliarError
        url = f"data:{data['mimeType']};base64,{data['data']}"
        self._pictures.append({"image_url": {"url": url, "detail": "auto"}, "index": 0, "type": "image_url"})
