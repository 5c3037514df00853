"""One turn of a conversation: a call, the tools it asks for, and the schema its answer must fit.

A turn makes one call (`core.call`) for each round; it is the same for whole and for streamed answers.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmkit.core import messages as messages_
from llmkit.core import schemas
from llmkit.core.call import call, emitted, named, open_stream, settled
from llmkit.core.params import encodable
from llmkit.core.tools import NO_TOOLS, read_arguments, result_text, toolbox
from llmkit.core.types import Invoke, Usage, changed
from llmkit.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmkit.core.call import CallPlan
    from llmkit.core.tools import Toolbox
    from llmkit.core.types import Flow, Reply

MAX_ROUNDS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A question to a model, with its tools and schema.

    Attributes:
        plan: which models may answer, and under which policies.
        messages: the conversation so far.
        toolbox: the tools; those that are Python functions are called for the model.
        max_rounds: calls of the model at most.
        schema: a pydantic class or a JSON schema that the answer must fit.
    """

    plan: CallPlan
    messages: Sequence[Any]
    toolbox: Toolbox
    max_rounds: int = MAX_ROUNDS
    schema: Any = None

    def plan_for(self, messages: Sequence[Any]) -> CallPlan:
        """Return the call plan for one round."""
        params: dict[str, Any] = {}
        if self.toolbox.schemas:
            params["tools"] = self.toolbox.schemas
        if self.schema is not None:
            params["response_format"] = schemas.response_format(self.schema)
        if not params and self.plan.routes[0][0].messages is messages:
            return self.plan
        return self.plan.saying(messages, **params)


def turn(
    plan: CallPlan, messages: Sequence[Any], *, tools: Any = None, max_rounds: Any = MAX_ROUNDS, schema: Any = None
) -> Turn:
    """Return a turn whose tools and schema have been checked, before anything is paid for.

    Raises:
        InvalidRequestError: a tool or the schema is invalid.
    """
    max_rounds = messages_.whole_number("max_rounds", max_rounds)
    if schema is not None:
        schemas.check(schema)
    box = toolbox(tools) if tools else NO_TOOLS
    return Turn(plan=plan, messages=messages, toolbox=box, max_rounds=max_rounds, schema=schema)


def ready(turn: Turn) -> Flow[Turn]:
    """Return a turn that needs no preparation."""
    yield from ()
    return turn


def answer(turn: Turn) -> Flow[Reply]:
    """Return the answer, after calling its tools and checking its schema.

    Raises:
        SchemaError: the second answer does not fit the schema either.
    """
    reply, messages = yield from _with_tools(turn, turn.messages)
    if turn.schema is None:
        return _with_messages(turn, reply, messages)
    try:
        return _with_messages(turn, _parsed(turn, reply), messages)
    except ValueError as error:
        again = [*messages, {"role": "assistant", "content": reply.text}, _correction(error)]
    second, messages = yield from _with_tools(turn, again)
    second = changed(second, usage=reply.usage + second.usage)
    try:
        return _with_messages(turn, _parsed(turn, second), messages)
    except ValueError as error:
        raise _misfit(second, error) from error


def _with_tools(turn: Turn, messages: Sequence[Any]) -> Flow[tuple[Reply, Sequence[Any]]]:
    """Call the model until it asks for no more tools; return the reply and the messages of the last call."""
    usage = Usage()
    for number in range(1, turn.max_rounds + 1):
        reply = yield from call(turn.plan_for(messages))
        usage = reply.usage if number == 1 else usage + reply.usage
        if not _can_go_on(turn, reply):
            break
        if number == turn.max_rounds:
            reply = _stopped(turn, reply)
            break
        messages = [*messages, *(yield from _use_tools(turn.toolbox, reply))]
    return (changed(reply, usage=usage) if number > 1 else reply), messages


class StreamedTurn:
    """A turn whose answer comes in pieces. `reply` is the answer so far, or None before the end."""

    def __init__(self, preparing: Flow[Turn]) -> None:
        self._preparing = preparing
        self.reply: Reply | None = None

    @property
    def whole(self) -> Reply:
        """The complete answer; only after the end of the flow."""
        if self.reply is None:
            raise AssertionError("a course that has ended has a reply")
        return self.reply

    def flow(self) -> Flow[None]:
        """Emit the pieces of the answer, and of each round with tools before it; then `reply` is complete.

        Raises:
            SchemaError: the whole answer does not fit the schema.
        """
        turn = yield from self._preparing
        messages = turn.messages
        for number in range(1, turn.max_rounds + 1):
            reply, complete = yield from self._round(turn, messages)
            if not complete:
                return
            if not _can_go_on(turn, reply):
                break
            if number == turn.max_rounds:
                self.reply = _stopped(turn, reply)
                return
            messages = [*messages, *(yield from _use_tools(turn.toolbox, reply))]
        if turn.schema is not None:
            try:
                self.reply = _parsed(turn, reply)
            except ValueError as error:
                raise _misfit(reply, error) from error

    def _round(self, turn: Turn, messages: Sequence[Any]) -> Flow[tuple[Reply, bool]]:
        """Emit one answer of the model; return it, and whether it is complete. However it ends, it is accounted for."""
        request, (source, head), held = yield from open_stream(turn.plan_for(messages))
        try:
            yield from emitted(source, head)
        except GeneratorExit:
            raise
        except BaseException:
            yield from self._settle(turn, messages, request, source, held)
            raise
        return (yield from self._settle(turn, messages, request, source, held)), source.complete

    def _settle(self, turn: Turn, messages: Sequence[Any], request: Any, source: Any, held: Any) -> Flow[Reply]:
        """Account for a source that was read or left early; return the reply so far."""
        reply = named(request, source.reply())
        reply = yield from settled(turn.plan, request, reply, held, whole=source.complete)
        if self.reply is not None:
            reply = changed(reply, usage=self.reply.usage + reply.usage)
        self.reply = _with_messages(turn, reply, messages)
        return self.reply


def _with_messages(turn: Turn, reply: Reply, messages: Sequence[Any]) -> Reply:
    """Return the reply with the messages that the turn adds to the conversation."""
    last: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
    if reply.tool_calls:
        last["tool_calls"] = _calls(reply)
    message = getattr(reply.choices[0], "message", None) if reply.choices else None
    if (called := _field(message, "function_call")) is not None:
        last["function_call"] = {"name": _field(called, "name"), "arguments": _field(called, "arguments")}
    return changed(reply, messages=(*messages[len(turn.messages) :], last))


def _calls(reply: Reply) -> list[dict[str, Any]]:
    """Return the tool calls of a reply as messages carry them, each with an id of its own."""
    calls: list[dict[str, Any]] = []
    taken: set[str] = set()
    for number, tool_call in enumerate(reply.tool_calls):
        function, identity = _field(tool_call, "function"), encodable(_field(tool_call, "id"))
        if not isinstance(identity, str) or not identity or identity in taken:  # number them
            identity = next(name for at in itertools.count(number) if (name := f"call_{at}") not in taken)
        taken.add(identity)
        shown = {"name": _field(function, "name"), "arguments": _field(function, "arguments")}
        calls.append({"id": identity, "type": "function", "function": shown})
    return calls


def _can_go_on(turn: Turn, reply: Reply) -> bool:
    """Return whether the model asks for tools and none of them is the caller's business."""
    if not turn.toolbox.functions or not reply.tool_calls:
        return False
    names = {_field(_field(tool_call, "function"), "name") for tool_call in reply.tool_calls}
    schemas_ = {schema.get("function", {}).get("name") for schema in turn.toolbox.schemas}
    return not (schemas_ - turn.toolbox.functions.keys()) & names


def _use_tools(box: Toolbox, reply: Reply) -> Flow[list[dict[str, Any]]]:
    """Call the tools that a reply asks for, concurrently; return the messages with their results."""
    calls = _calls(reply)
    results: list[str | None] = []
    steps: list[Invoke] = []
    for tool_call in calls:
        name, text = tool_call["function"]["name"], tool_call["function"]["arguments"]
        refused: str | None = None
        if name not in box.functions:
            refused = f"error: there is no tool {name!r}"
        else:
            try:
                arguments = read_arguments(box.functions[name], text)
            except ValueError as error:
                refused = f"error: the arguments do not fit: {error}"
            else:
                steps.append(Invoke(box.functions[name], kwargs=arguments))
        results.append(refused)
    done = iter((yield tuple(steps)))
    answers = [
        {"role": "tool", "tool_call_id": tool_call["id"], "content": encodable(text or result_text(next(done)))}
        for tool_call, text in zip(calls, results, strict=True)
    ]
    return [{"role": "assistant", "content": reply.text or None, "tool_calls": calls}, *answers]


def _field(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def _stopped(turn: Turn, reply: Reply) -> Reply:
    warning = f"the model still asked for tools after {turn.max_rounds} rounds; they were not called"
    return changed(reply, warnings=(*reply.warnings, warning))


def _parsed(turn: Turn, reply: Reply) -> Reply:
    return changed(reply, parsed=schemas.parse(turn.schema, reply.text))


def _correction(error: ValueError) -> dict[str, Any]:
    return {"role": "user", "content": f"That does not fit the schema: {error}\nAnswer again, with the JSON only."}


def _misfit(reply: Reply, error: ValueError) -> SchemaError:
    why = " ".join(str(error).split())
    return SchemaError(f"the answer does not fit the schema: {why}", model=reply.model, partial=reply.text)
