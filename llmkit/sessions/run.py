"""One run of a session, as flows: begin in the store, call the model, end in the store."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmkit.core import messages as shapes
from llmkit.core.background import Heartbeat
from llmkit.core.tool_loop import answer
from llmkit.core.types import Invoke
from llmkit.errors import InvalidRequestError, StoreError, explain
from llmkit.prepare import prepare
from llmkit.providers import tokens
from llmkit.providers.model_info import window
from llmkit.sessions.keeping import details_of
from llmkit.sessions.replies import ChatReply

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from llmkit.core.tool_loop import Turn
    from llmkit.core.types import Flow, Message, Reply
    from llmkit.presets import Preset
    from llmkit.store import Run, Store

BEAT_S = 0.5
"""How often the text that has arrived of a stream is stored."""
_STILL_THERE_S = 5.0
_ANSWERABLE = ("user", "tool", "function")
_OWN = ("model", "preset", "system")
_STORE_KEYS = frozenset({"interrupted"})  # keys that the store adds


class SessionRun:
    """One run: its flows, and the answer so far, which is stored in the meantime.

    Attributes:
        text: what has arrived of a streamed answer.
        detail: the preset that answers, and the id of this run.
        outcome: the reply at the end, or None while it goes on.
        beat: stores in the meantime what has arrived; whoever runs the flows stops it.
    """

    def __init__(
        self, store: Store, session_id: str, preset: Preset | None, detail: Mapping[str, Any], memory: HistoryCache
    ) -> None:
        self.text = ""
        self.detail = detail
        self.outcome: ChatReply | None = None
        self._store = store
        self._session_id = session_id
        self._preset = preset
        self._memory = memory
        self._run: Run | None = None
        self._noted: tuple[str, float] = ("", 0.0)
        self.beat = Heartbeat(BEAT_S, self._note, name="llmkit-note")

    def answered(self, options: Mapping[str, Any], *, again: bool) -> Flow[ChatReply]:
        """Return the reply of the run; one that fails leaves nothing in the store."""
        try:
            turn = yield from self.begun(options, again=again)
            return self.succeeded((yield from self.ended((yield from answer(turn)))))
        except GeneratorExit:
            raise
        except Exception as error:  # noqa: BLE001 - the reply carries the error
            yield from self.dropped()
            return self.failed(error)
        except BaseException:
            yield from self.dropped()
            raise
        finally:
            self.beat.stop()

    def begun(self, options: Mapping[str, Any], *, again: bool) -> Flow[Turn]:
        """Begin in the store and return the turn to send, with as much of the history as fits."""
        for name in _OWN:
            if name in options:
                raise InvalidRequestError(f"{name} is the session's own; fork(preset=…) makes a session with another")
        messages = yield from self.asked(again=again)
        try:
            return prepare(shapes.Checked(messages), None, self._preset, None, options)
        except Exception:
            yield from self.dropped()
            raise

    def asked(self, added: Sequence[Message] = (), *, again: bool = False) -> Flow[list[Message]]:
        """Begin in the store, after adding messages, and return the messages to answer, as many as fit."""
        try:
            seen = {"added": added, "seen": self._memory.seen, "again": again}
            self._run = run = yield Invoke(self._store.begin, (self._session_id,), seen, undo=self._forget)
            self.beat.start()
            return (yield from self._fitting(self._memory.extended(run)))
        except GeneratorExit:
            raise
        except BaseException:
            yield from self.dropped()
            raise

    def _fitting(self, messages: list[Message]) -> Flow[list[Message]]:
        if not messages or messages[-1].get("role") not in _ANSWERABLE:
            raise InvalidRequestError("there is nothing to answer: add a message of the user first")
        preset = self._preset
        limit = (yield from _limit(preset, preset.model or "")) if preset is not None else None
        if preset is None or limit is None:
            return messages
        room = max(1, limit - len((preset.system or "").encode()))
        return (yield from self._memory.fitting(preset.model or "", room))

    def ended(self, reply: Reply, *, whole: bool = True) -> Flow[Reply]:
        """Store the answer; if the store fails, the answer is still returned."""
        if self._run is None:
            return reply
        added = list(reply.messages)
        if not whole:
            added[-1] = {"role": "assistant", "content": reply.text, "interrupted": True}
        run, self._run = self._run, None
        try:
            yield Invoke(self._store.end, (self._session_id, run, added, details_of(reply)), {"whole": whole})
        except (StoreError, TypeError, ValueError) as error:
            self._store.abandon(self._session_id, run)
            return replace(reply, warnings=(*reply.warnings, f"the answer is not in the store: {error}"))
        return reply

    def dropped(self) -> Flow[None]:
        """Delete the run. Errors here are ignored: the original error matters more."""
        run, self._run = self._run, None
        if run is not None:
            yield Invoke(self._forget, (run,))

    def _forget(self, run: Run) -> None:
        try:
            self._store.drop(self._session_id, run)
        except StoreError:
            self._store.abandon(self._session_id, run)

    def _note(self) -> None:
        """Store what has arrived since the last time, and renew the lease now and then."""
        run, text, now = self._run, self.text, time.monotonic()
        if run is None or (text == self._noted[0] and now - self._noted[1] < _STILL_THERE_S):
            return
        self._store.note(self._session_id, run, text)
        self._noted = (text, now)

    def succeeded(self, reply: Reply) -> ChatReply:
        """Return the reply of a successful run."""
        self.outcome = ChatReply(error=False, reply=reply, detail=self.detail, warnings=reply.warnings)
        return self.outcome

    def failed(self, error: Exception) -> ChatReply:
        """Return the reply of a failed run."""
        self.outcome = ChatReply(
            error=True,
            error_log=explain(error),
            exception=error,
            partial=self.text,
            detail=self.detail,
        )
        return self.outcome


class HistoryCache:
    """The messages of a session as they are sent, with their sizes, so that a run checks and counts only new ones."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._sizes: list[int] = []
        self._bytes = 0
        self._measured = 0
        self._system: set[int] = set()
        self.seen = (-1, 0)

    def extended(self, run: Run) -> list[Message]:
        """Return all messages that a run answers."""
        if run.whole:
            self._messages, self._sizes, self._system, self._bytes, self._measured = [], [], set(), 0, 0
        self._messages += [
            {key: value for key, value in message.items() if key not in _STORE_KEYS} for message in run.history
        ]
        # its own answer comes with the next; after one that replaces another, everything is read again
        self.seen = (run.revision, run.turn - 1) if run.replaces is None else (-1, 0)
        return self._messages

    def fitting(self, model: str, limit: int) -> Flow[list[Message]]:
        """Return the newest messages that fit; nothing is counted twice.

        Raises:
            InvalidRequestError: the newest alone does not fit.
        """
        self._bytes += sum(map(_bytes_of, self._messages[self._measured :]))
        self._system |= shapes.system_messages(self._messages, self._measured)
        self._measured = len(self._messages)
        if self._bytes <= limit:
            return self._messages  # no token has less than a byte
        self._sizes += yield Invoke(tokens.count_messages, (model, self._messages[len(self._sizes) :]))
        return _cut(self._messages, self._sizes, limit, self._system)


def fitted(added: Sequence[Message], before: Sequence[Message]) -> list[dict[str, Any]]:
    """Return checked copies of *added*; tool results get the name or the id of the call they answer.

    Raises:
        InvalidRequestError: a message is invalid, or a result belongs to no call; the index is named.
    """
    checked = shapes.check(added)
    for index, message in enumerate(checked):
        try:
            json.dumps(message, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            raise InvalidRequestError(f"message {index} cannot be kept: {error}") from error
    pending = _pending(before)
    for index, message in enumerate(checked):
        role, key = message["role"], "name" if message["role"] == "function" else "tool_call_id"
        if role in {"function", "tool"} and not message.get(key):
            what = "name" if role == "function" else "id"
            fitting = [call for call in pending if call["role"] == role and call.get(what)]
            if not fitting:
                raise InvalidRequestError(f"message {index} ({role}) answers no call; give it its {key}")
            message[key] = fitting[0][what]
        pending = _pending([message], pending)
    return checked


def needs_history(added: Sequence[Any]) -> bool:
    """Return whether there is a result that does not say which call it answers."""
    keys = {"function": "name", "tool": "tool_call_id"}
    return any(
        isinstance(item, dict) and (key := keys.get(str(item.get("role")))) and not item.get(key) for item in added
    )


def trimmed(sent: Sequence[Message], model: str, limit: int) -> Flow[list[Message]]:
    """Return the newest messages that fit, calls and their results together.

    Raises:
        InvalidRequestError: the newest alone does not fit.
    """
    if sum(map(_bytes_of, sent)) <= limit:
        return list(sent)  # no token has less than a byte
    sizes = yield Invoke(tokens.count_messages, (model, sent))
    return _cut(sent, sizes, limit)


def _cut(
    sent: Sequence[Message], sizes: Sequence[int], limit: int, system: Collection[int] | None = None
) -> list[Message]:
    kept, total = shapes.trim(sent, sizes, limit, system)
    if total > limit:
        raise InvalidRequestError(f"the prompt has {total} tokens, and at most {limit} are to be sent")
    return kept


def _bytes_of(message: Message) -> int:
    return len(json.dumps(message).encode())


def _limit(preset: Preset, model: str) -> Flow[int | None]:
    """Return how many tokens may be sent: the model's limit minus room for the answer, or None if it is unknown."""
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
                pending.append({"role": "tool", "id": call.get("id"), "name": call["function"]["name"]})
        elif role == "tool":
            pending = [call for call in pending if call.get("id") != message.get("tool_call_id")]
        elif role == "function":
            pending = [call for call in pending if call["role"] != "function"]
    return pending
