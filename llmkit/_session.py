"""One run of a session, as flows: begin in the store, ask, end in the store."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmkit import messages as shapes
from llmkit._chatreply import ChatReply
from llmkit._prepare import prepare, window
from llmkit._turn import answer
from llmkit.errors import InvalidRequestError, StoreError
from llmkit.types import Invoke

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit._turn import Turn
    from llmkit.presets import Preset
    from llmkit.store import Run, Store
    from llmkit.types import Flow, Message, Reply

BEAT_S = 0.5
"""How often what has arrived of a stream is written down."""
_STILL_THERE_S = 5.0
_ANSWERABLE = ("user", "tool", "function")
_WIRE_KEYS = frozenset({"interrupted"})  # what the store adds


class Running:
    """One run: its flows, what has arrived of its answer, and what is written down of it meanwhile."""

    def __init__(
        self, store: Store, session_id: str, preset: Preset, detail: Mapping[str, Any], memory: Memory
    ) -> None:
        self.text = ""
        self.detail = detail
        self._store = store
        self._session_id = session_id
        self._preset = preset
        self._memory = memory
        self._run: Run | None = None
        self._noted: tuple[str, float] = ("", 0.0)

    def whole(self, options: Mapping[str, Any], *, again: bool) -> Flow[Reply]:
        """Run and return the answer; a run that fails leaves nothing in the store."""
        turn = yield from self.begun(options, again=again)
        try:
            reply = yield from answer(turn)
        except GeneratorExit:
            raise
        except BaseException:
            yield from self.dropped()
            raise
        return (yield from self.ended(reply))

    def begun(self, options: Mapping[str, Any], *, again: bool) -> Flow[Turn]:
        """Begin in the store and return what is asked, with as much of the history as fits."""
        run: Run = yield Invoke(self._store.begin, (self._session_id,), {"seen": self._memory.seen, "again": again})
        self._run = run
        try:
            return (yield from self._asked(self._memory.extended(run), options))
        except GeneratorExit:
            raise
        except BaseException:
            yield from self.dropped()
            raise

    def _asked(self, said: Sequence[Message], options: Mapping[str, Any]) -> Flow[Turn]:
        if not said or said[-1].get("role") not in _ANSWERABLE:
            raise InvalidRequestError("there is nothing to answer: add a message of the user first")
        preset = self._preset.filled()
        sent = [{key: value for key, value in message.items() if key not in _WIRE_KEYS} for message in said]
        model = preset.model or ""
        limit = yield from _limit(preset, model)
        if limit is not None:
            head = [{"role": "system", "content": preset.system}] if preset.system else []
            kept = yield from trimmed([*head, *sent], model, limit)
            sent = [dict(message) for message in kept[len(head) :]]
        return prepare(sent, None, preset, None, options)

    def ended(self, reply: Reply, *, whole: bool = True) -> Flow[Reply]:
        """Keep the answer; a store that fails does not cost it."""
        if self._run is None:
            return reply
        added = list(reply.messages)
        if not whole:
            added[-1] = {"role": "assistant", "content": reply.text, "interrupted": True}
        run, self._run = self._run, None
        try:
            yield Invoke(self._store.end, (self._session_id, run, added, details_of(reply)), {"whole": whole})
        except (StoreError, TypeError, ValueError) as error:
            return replace(reply, warnings=(*reply.warnings, f"the answer is not in the store: {error}"))
        return reply

    def dropped(self) -> Flow[None]:
        """Forget the run; what goes wrong here is less than why it is forgotten."""
        run, self._run = self._run, None
        if run is not None:
            with contextlib.suppress(StoreError):
                yield Invoke(self._store.drop, (self._session_id, run))

    def note(self) -> None:
        """Write down what has arrived since the last time, and now and then that the run lives."""
        run, text, now = self._run, self.text, time.monotonic()
        if run is None or (text == self._noted[0] and now - self._noted[1] < _STILL_THERE_S):
            return
        self._store.note(self._session_id, run, text)
        self._noted = (text, now)

    def succeeded(self, reply: Reply) -> ChatReply:
        """Return what the run gives back."""
        return ChatReply(error=False, reply=reply, detail=self.detail, warnings=reply.warnings)

    def failed(self, error: Exception) -> ChatReply:
        """Return what the run gives back after an error."""
        reason = str(error) or type(error).__name__
        advice = getattr(error, "advice", "")
        return ChatReply(
            error=True,
            error_log=f"{reason}; {advice}" if advice else reason,
            exception=error,
            partial=self.text,
            detail=self.detail,
        )


class Memory:
    """The messages of a session that this process has read, so that a run reads only what is new."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self.seen = (-1, 0)

    def extended(self, run: Run) -> list[Message]:
        """Return all messages that a run answers."""
        if run.whole:
            self._messages = []
        known = [*self._messages, *run.history]
        if run.replaces is None:
            self._messages, self.seen = known, (run.revision, run.turn - 1)  # its own answer comes with the next
        return known


def fitted(added: Sequence[Message], before: Sequence[Message]) -> list[dict[str, Any]]:
    """Return checked copies of *added*: results of calls have the name or the id of the call they answer.

    Raises:
        InvalidRequestError: a message that is none, or a result without a call; the index is named.
    """
    checked = shapes.check(added)
    pending = _pending(before)
    for index, message in enumerate(checked):
        role, key = message["role"], "name" if message["role"] == "function" else "tool_call_id"
        if role in {"function", "tool"} and not message.get(key):
            fitting = [call for call in pending if call["role"] == role and call.get("name")]
            if not fitting:
                raise InvalidRequestError(f"message {index} ({role}) answers no call; give it its {key}")
            message[key] = fitting[0]["name"] if role == "function" else fitting[0]["id"]
        pending = _pending([message], pending)
    return checked


def needs_history(added: Sequence[Any]) -> bool:
    """Tell whether there is a result that does not say which call it answers."""
    keys = {"function": "name", "tool": "tool_call_id"}
    return any(
        isinstance(item, dict) and (key := keys.get(str(item.get("role")))) and not item.get(key) for item in added
    )


def trimmed(sent: Sequence[Message], model: str, limit: int) -> Flow[list[Message]]:
    """Return as many of the newest messages as fit, calls and their results together.

    Raises:
        InvalidRequestError: the newest alone does not fit.
    """
    if sum(len(json.dumps(message, ensure_ascii=False).encode()) for message in sent) <= limit:
        return list(sent)  # no token has less than a byte
    from llmkit import _litellm

    sizes = yield Invoke(_litellm.count_tokens, (model, sent))
    kept = shapes.trim(sent, sizes, limit)
    left = {id(message) for message in kept}
    total = sum(size for message, size in zip(sent, sizes, strict=True) if id(message) in left)
    if total > limit:
        raise InvalidRequestError(f"the prompt has {total} tokens, and at most {limit} are to be sent")
    return list(kept)


def _limit(preset: Preset, model: str) -> Flow[int | None]:
    """Return how many tokens may be sent: the model's limit without room for the answer; None where it is unknown."""
    if preset.max_input_tokens is not None:
        return preset.max_input_tokens
    whole: int | None = yield Invoke(window, (model,))
    if whole is None:
        return None
    params = preset.set_params()
    return max(1, whole - (params.get("max_tokens") or params.get("max_completion_tokens") or whole // 8))


def _pending(messages: Sequence[Message], before: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """Return the calls that are not answered after *messages*."""
    pending = list(before)
    for message in messages:
        role = message.get("role")
        if role == "assistant":
            called = message.get("function_call")
            pending = [{"role": "function", "name": called["name"]}] if called else []
            for call in message.get("tool_calls") or ():
                pending.append({"role": "tool", "id": call["id"], "name": call["function"]["name"]})
        elif role == "tool":
            pending = [call for call in pending if call.get("id") != message.get("tool_call_id")]
        elif role == "function":
            pending = [call for call in pending if call["role"] != "function"]
    return pending


def details_of(reply: Reply) -> dict[str, Any]:
    """Return what the store keeps of an answer beside its messages."""
    usage = reply.usage
    return {
        "model": reply.model,
        "asked": reply.name,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "cost_usd": usage.cost_usd,
        "source": usage.source,
        "latency_s": reply.latency_s,
        "finish_reason": reply.finish_reason,
        "warnings": list(reply.warnings),
    }
