"""What a call does, in order, written once for blocking and for asynchronous callers, as flows (see `core.engine`).

Larger flows are made of smaller ones with `yield from`. A flow does no I/O and reads no clock. Who counts money is
handed in: `Tracker`, `Recorder` and `Guard` say what a call wants of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count
from random import random
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from uuid import uuid4

from llmkit.core.types import Close, Emit, Invoke, Next, Open, Send, Sleep
from llmkit.errors import (
    BadRequestError,
    ContextWindowExceededError,
    ProviderError,
    UnprocessableEntityError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llmkit.core.rate_limit import Limiter
    from llmkit.core.retry import Retry
    from llmkit.core.types import CallLabels, Flow, Kind, Message, Piece, Reply, Request, Step

T = TypeVar("T")


class Tracker(Protocol):
    """Counts what a client spends."""

    def gate(self) -> Flow[None]:
        """Refuse a call that may not be made, with a BudgetExceededError."""

    def charge(self, reply: Reply, kind: Kind) -> Flow[Reply]:
        """Count an answer that is paid, and return it with what is to be said of that."""


class Recorder(Protocol):
    """Writes each attempt down."""

    def note(
        self, request: Request, labels: CallLabels, outcome: Reply | BaseException, *, whole: bool = True
    ) -> Flow[None]:
        """Write down what came of an attempt; *whole* is False for a stream that was cut or left."""


class Guard(Protocol):
    """Keeps calls within budgets."""

    def reserve(self, request: Request, labels: CallLabels | None) -> Flow[Any]:
        """Reserve what an attempt can cost, or refuse it with a BudgetExceededError; return the reservations."""

    def let_go(self, held: Any, *, may_be_paid: bool) -> Flow[None]:
        """End the reservations of an attempt without an answer."""

    def settle(self, held: Any, reply: Reply) -> Flow[Reply]:
        """Put the real cost in the place of reservations, and return the reply with what is to be said of that."""

    def probe(self, request: Request, labels: CallLabels | None) -> Flow[str]:
        """Return why an attempt would be refused, "" where it would not be; nothing stays reserved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Who may answer a call, and on what terms.

    Attributes:
        routes: one for each model that may answer, in order; a route is the requests that reach it, one for each
            deployment, in the order in which they are tried.
        retry: how often a route is tried; each try asks its deployments until one answers.
        account: who counts the money; None for nobody.
        ledger: who writes each attempt down, and `labels` whose it is; None for nobody.
        purse: the budgets that bind the call; None for none.
        limiter: how many requests and tokens a minute has; None for as many as there are.
        window: tells how many tokens a model (by LiteLLM's name) can take, None when that is not known.
    """

    routes: Sequence[Sequence[Request]]
    retry: Retry
    account: Tracker | None = None
    window: Callable[[str], int | None] | None = None
    limiter: Limiter | None = None
    ledger: Recorder | None = None
    labels: CallLabels | None = None
    purse: Guard | None = None

    def saying(self, messages: Sequence[Message], **params: Any) -> Plan:
        """Return the same plan for other messages; *params* are set beside those there are."""
        return replace(
            self,
            routes=[
                [replace(request, messages=messages, params={**request.params, **params}) for request in route]
                for route in self.routes
            ],
        )


def call(plan: Plan) -> Flow[Reply]:
    """Pass the gate, get an answer, write down what it cost."""
    if plan.account is not None:
        yield from plan.account.gate()
    request, reply, held = yield from _routed(plan, Send)
    return (yield from settled(plan, request, named(request, reply), held))


def open_stream(plan: Plan) -> Flow[tuple[Request, tuple[Any, list[Piece]], Any]]:
    """Pass the gate and open a stream.

    Return the request that was answered, the source with its first pieces, and what is reserved. Until the first piece
    that adds something has come, a stream is tried again and falls back as any call does.
    """
    if plan.account is not None:
        yield from plan.account.gate()
    return (yield from _routed(plan, Open))


def counted(plan: Plan, request: Request, outcome: Reply | BaseException, *, whole: bool = True) -> Flow[None]:
    """Count what came of an attempt: in the minute of the limits, and in the ledger."""
    if plan.limiter is not None and not isinstance(outcome, BaseException):
        plan.limiter.use(outcome.usage.total_tokens)
    if plan.ledger is not None and plan.labels is not None:
        yield from plan.ledger.note(request, plan.labels, outcome, whole=whole)


def settled(plan: Plan, request: Request, reply: Reply, held: Any, *, whole: bool = True) -> Flow[Reply]:
    """Write down what an answer cost, whole or not: in the ledger, the budgets and the client's account."""
    yield from counted(plan, request, reply, whole=whole)
    if plan.purse is not None:
        reply = yield from plan.purse.settle(held, reply)
    if plan.account is not None:
        reply = yield from plan.account.charge(reply, request.kind)
    return reply


def named(request: Request, reply: Reply) -> Reply:
    """Return the reply with the logical name of the model that answered."""
    return replace(reply, name=request.name or request.model)


def _routed(plan: Plan, step: type[Send | Open]) -> Flow[tuple[Request, Any, Any]]:
    """Ask the models in order until one answers; return the request that was answered, the answer, what is reserved."""
    failed: ProviderError | None = None
    small: str = ""
    numbers, call_id = count(1), uuid4().hex if plan.ledger is not None else ""
    for route in plan.routes:
        if isinstance(failed, ContextWindowExceededError) and not (yield from _is_larger(plan, route, small)):
            continue
        try:
            return (yield from _tried(plan, route, step, numbers, call_id))
        except ProviderError as error:
            if not _another_may_answer(error):
                raise
            failed, small = error, _priced_as(route)
    if failed is None:
        raise AssertionError("a plan has at least one route")
    raise failed


def _tried(
    plan: Plan, route: Sequence[Request], step: type[Send | Open], numbers: Iterator[int], call_id: str
) -> Flow[tuple[Request, Any, Any]]:
    """Ask the deployments of one model; where another try can help, wait and ask them again."""
    retry, spent_s = plan.retry, 0.0
    for attempt in count(1):
        failed: ProviderError | None = None
        for request in route:
            if retry.deadline_s is not None:
                left_s = retry.deadline_s - spent_s
                if failed is not None and left_s <= 0:
                    raise failed
                request = replace(request, timeout_s=min(request.timeout_s, left_s))  # noqa: PLW2901
            if plan.ledger is not None:
                request = replace(request, call=call_id, attempt=next(numbers))  # noqa: PLW2901
            yield from _in_turn(plan)
            try:
                return (request, *(yield from _attempted(plan, request, step)))
            except ProviderError as error:
                spent_s += error.elapsed_s
                if not _another_may_answer(error):
                    raise
                failed = error if failed is None or error.retryable or not failed.retryable else failed
        if failed is None:
            raise AssertionError("a route has at least one request")
        wait_s = retry.wait_s(attempt, failed, spent_s=spent_s, chance=random())  # noqa: S311 - spreads load
        if wait_s is None:
            raise failed
        yield Sleep(wait_s)
        spent_s += wait_s
    raise AssertionError("count() does not end")


def _attempted(plan: Plan, request: Request, step: type[Send | Open]) -> Flow[tuple[Any, Any]]:
    """Reserve what it can cost and send once; return the answer, and what is reserved.

    What fails is counted, and what is cancelled, for the provider may have answered by then.
    """
    held = None if plan.purse is None else (yield from plan.purse.reserve(request, plan.labels))
    try:
        answered = yield step(request)
        return (answered if step is Send else (yield from _begun(answered))), held
    except GeneratorExit:
        raise
    except BaseException as error:
        if getattr(error, "sent", True):
            yield from counted(plan, request, error)
        if plan.purse is not None and held is not None:
            yield from plan.purse.let_go(held, may_be_paid=getattr(error, "may_be_paid", True))
        raise


def _begun(source: Any) -> Flow[tuple[Any, list[Piece]]]:
    """Return a stream that was opened and its pieces up to the first that adds something, or close it."""
    head: list[Piece] = []
    try:
        while (piece := (yield Next(source))) is not None:
            head.append(piece)
            if not piece.is_empty:
                break
    except GeneratorExit:
        raise
    except BaseException:
        yield Close(source)
        raise
    return source, head


def emitted(source: Any, head: Sequence[Any] = ()) -> Flow[None]:
    """Emit *head* and the rest of an open stream, and close it, also where its reader leaves."""
    try:
        for piece in head:
            yield Emit(piece)
        while (piece := (yield Next(source))) is not None:
            yield Emit(piece)
    except GeneratorExit:
        raise
    except BaseException:
        yield Close(source)
        raise
    yield Close(source)


def handed(flow: Flow[T], give: Callable[[Any], Step | None]) -> Flow[T]:
    """Run a flow of pieces, and do in the place of each Emit the step that *give* makes of the piece, if any."""
    move: Callable[..., Step] = flow.send
    argument: Any = None
    while True:
        try:
            step: Step | None = move(argument)
        except StopIteration as end:
            value: T = end.value
            return value
        if isinstance(step, Emit):
            step = give(step.piece)
        try:
            move, argument = flow.send, None if step is None else (yield step)
        except GeneratorExit:
            flow.close()
            raise
        except BaseException as error:  # noqa: BLE001 - the flow decides, interrupts included
            move, argument = flow.throw, error


def _in_turn(plan: Plan) -> Flow[None]:
    """Wait for the next place in the minute."""
    if plan.limiter is not None and (wait_s := (yield Invoke(plan.limiter.take))) > 0:
        yield Sleep(wait_s)


def _another_may_answer(error: ProviderError) -> bool:
    """Tell whether another deployment or model could do what failed here; a wrong request is wrong everywhere."""
    if isinstance(error, ContextWindowExceededError):
        return True
    return not isinstance(error, BadRequestError | UnprocessableEntityError)


def _is_larger(plan: Plan, route: Sequence[Request], small: str) -> Flow[bool]:
    """Tell whether a route's window is larger than that of *small*; an unknown one is given its chance."""
    if plan.window is None:
        return True
    before = yield Invoke(plan.window, (small,))
    now = yield Invoke(plan.window, (_priced_as(route),))
    return before is None or now is None or now > before


def _priced_as(route: Sequence[Request]) -> str:
    """Return the name under which LiteLLM's map has a route's model."""
    return route[0].priced_as or route[0].model
