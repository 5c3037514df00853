"""What a call does, in order, written once for sync and async callers, as flows (see `core.engine`).

Larger flows are made of smaller ones with `yield from`. A flow does no I/O and reads no clock. Whatever counts money
is passed in: the protocols `Tracker`, `Recorder` and `Guard` say what a call needs of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from math import inf
from random import random
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from llmkit.core.fork import fresh_id
from llmkit.core.types import Close, Emit, Invoke, Next, Open, Send, Sleep, changed
from llmkit.errors import (
    BadRequestError,
    ContextWindowExceededError,
    ProviderError,
    UnprocessableEntityError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llmkit.core.retry import Retry
    from llmkit.core.types import CallLabels, Flow, Kind, Message, Piece, Reply, Request, Step

T = TypeVar("T")


class Tracker(Protocol):
    """Tracks what a client spends."""

    def gate(self) -> Flow[None]:
        """Raise a BudgetExceededError if no more calls may be made."""

    def charge(self, reply: Reply, kind: Kind) -> Flow[Reply]:
        """Charge a paid reply, and return it with any warnings about that."""


class Recorder(Protocol):
    """Records each attempt."""

    def note(
        self, request: Request, labels: CallLabels, outcome: Reply | BaseException, *, whole: bool = True
    ) -> Flow[None]:
        """Record the outcome of an attempt; *whole* is False for a stream that was cut or left early."""


class Guard(Protocol):
    """Keeps calls within budgets."""

    def reserve(self, request: Request, labels: CallLabels | None) -> Flow[Any]:
        """Reserve the most an attempt can cost and return the reservations, or raise a BudgetExceededError."""

    def let_go(self, held: Any, *, may_be_paid: bool) -> Flow[None]:
        """Release the reservations of an attempt that got no reply."""

    def settle(self, held: Any, reply: Reply) -> Flow[Reply]:
        """Replace reservations by the real cost, and return the reply with any warnings about that."""


class Limiter(Protocol):
    """Keeps calls within limits of requests and tokens a minute."""

    def take(self) -> Flow[float]:
        """Take a place, and return how many seconds to wait for it."""

    def note(self, outcome: Reply | BaseException) -> Flow[None]:
        """Count what an attempt used."""


WATCHERS: list[Callable[[Request, Reply | BaseException], None]] = []
"""Who is told of each attempt and its outcome, in this process; for `llmkit.testing`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlan:
    """Which models may answer a call, and under which policies.

    Attributes:
        routes: one for each model that may answer, in order; a route is the requests that reach it, one for each
            deployment, in the order in which they are tried.
        retry: how often a route is tried; each try goes through its deployments until one answers.
        account: tracks what is spent, or None.
        ledger: records each attempt, or None; `labels` go with it.
        guard: the budgets the call must keep to, or None.
        limiter: the limits on requests and tokens per minute, or None.
        window: returns the context window of a model (by LiteLLM's name), or None if it is unknown.
    """

    routes: Sequence[Sequence[Request]]
    retry: Retry
    account: Tracker | None = None
    window: Callable[[str], int | None] | None = None
    limiter: Limiter | None = None
    ledger: Recorder | None = None
    labels: CallLabels | None = None
    guard: Guard | None = None

    def saying(self, messages: Sequence[Message], **params: Any) -> CallPlan:
        """Return the same plan for other messages; *params* are added to those it has."""
        return changed(
            self,
            routes=[
                [changed(request, messages=messages, params={**request.params, **params}) for request in route]
                for route in self.routes
            ],
        )


def call(plan: CallPlan) -> Flow[Reply]:
    """Return the reply to a call, charged and recorded."""
    if plan.account is not None:
        yield from plan.account.gate()
    request, reply, held = yield from _routed(plan, Send)
    return (yield from settled(plan, request, named(request, reply), held))


def open_stream(plan: CallPlan) -> Flow[tuple[Request, tuple[Any, list[Piece]], Any]]:
    """Open a stream.

    Return the request that was answered, the source with its first pieces, and the reservations. Until the first piece
    that adds something has come, a stream is retried and falls back as any call does.
    """
    if plan.account is not None:
        yield from plan.account.gate()
    return (yield from _routed(plan, Open))


def counted(plan: CallPlan, request: Request, outcome: Reply | BaseException, *, whole: bool = True) -> Flow[None]:
    """Count the outcome of an attempt in the rate limit and the ledger."""
    for watch in WATCHERS:
        watch(request, outcome)
    if plan.limiter is not None:
        yield from plan.limiter.note(outcome)
    if plan.ledger is not None and plan.labels is not None:
        yield from plan.ledger.note(request, plan.labels, outcome, whole=whole)


def settled(plan: CallPlan, request: Request, reply: Reply, held: Any, *, whole: bool = True) -> Flow[Reply]:
    """Record the cost of a reply, complete or cut, in the ledger, the budgets and the client's account."""
    yield from counted(plan, request, reply, whole=whole)
    if plan.guard is not None:
        reply = yield from plan.guard.settle(held, reply)
    if plan.account is not None:
        reply = yield from plan.account.charge(reply, request.kind)
    return reply


def named(request: Request, reply: Reply) -> Reply:
    """Return the reply with the logical name of the model that answered."""
    name = request.name or request.model
    return reply if reply.name == name else changed(reply, name=name)


def _routed(plan: CallPlan, step: type[Send | Open]) -> Flow[tuple[Request, Any, Any]]:
    """Try the models in order until one answers; return the answered request, the answer and the reservations."""
    failed: ProviderError | None = None
    small: str = ""
    numbers, call_id = count(1), fresh_id() if plan.ledger is not None else ""
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
    plan: CallPlan, route: Sequence[Request], step: type[Send | Open], numbers: Iterator[int], call_id: str
) -> Flow[tuple[Request, Any, Any]]:
    """Try the deployments of one model, then wait and try them again as long as that can help."""
    retry, spent_s = plan.retry, 0.0
    last: ProviderError | None = None
    for attempt in count(1):
        failed: ProviderError | None = None
        for request in route:
            spent_s = yield from _in_turn(plan, spent_s, last)
            if retry.deadline_s is not None:
                request = changed(request, timeout_s=min(request.timeout_s, retry.deadline_s - spent_s))  # noqa: PLW2901
            if plan.ledger is not None:
                request = changed(request, call=call_id, attempt=next(numbers))  # noqa: PLW2901
            try:
                return (request, *(yield from _attempted(plan, request, step)))
            except ProviderError as error:
                spent_s += error.elapsed_s
                if not _another_may_answer(error):
                    raise
                failed = error if failed is None or error.retryable or not failed.retryable else failed
                last = failed
        if failed is None:
            raise AssertionError("a route has at least one request")
        wait_s = retry.wait_s(attempt, failed, spent_s=spent_s, chance=random())  # noqa: S311 - spreads load
        if wait_s is None:
            raise failed
        yield Sleep(wait_s)
        spent_s += wait_s
    raise AssertionError("count() does not end")


def _attempted(plan: CallPlan, request: Request, step: type[Send | Open]) -> Flow[tuple[Any, Any]]:
    """Reserve the cost and send once; return the answer and the reservations.

    Failed and cancelled attempts are counted too: the provider may have answered by then.
    """
    held = None if plan.guard is None else (yield from plan.guard.reserve(request, plan.labels))
    try:
        answered = yield step(request)
        return (answered if step is Send else (yield from _begun(answered))), held
    except GeneratorExit:
        raise
    except BaseException as error:
        if getattr(error, "sent", True):
            yield from counted(plan, request, error)
        if plan.guard is not None and held is not None:
            yield from plan.guard.let_go(held, may_be_paid=getattr(error, "may_be_paid", True))
        raise


def _begun(source: Any) -> Flow[tuple[Any, list[Piece]]]:
    """Return an opened stream and its pieces up to the first that adds something; close it if that fails."""
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
    """Emit *head* and the rest of an open stream, and close it, even if its reader leaves."""
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
    """Run a flow of pieces with each Emit replaced by the step that *give* makes of the piece, if any."""
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


def _in_turn(plan: CallPlan, spent_s: float, last: ProviderError | None) -> Flow[float]:
    """Wait for the next place in the rate limit; return what is spent of the deadline, which the first try begins.

    Raises:
        ProviderError: *last*, the error of the try before, since nothing is left of the deadline.
    """
    left_s = inf if plan.retry.deadline_s is None else plan.retry.deadline_s - spent_s
    if last is not None and left_s <= 0:
        raise last
    wait_s = 0.0 if plan.limiter is None else (yield from plan.limiter.take())
    if last is not None and left_s <= wait_s:
        raise last
    if wait_s > 0:
        yield Sleep(wait_s)
    return spent_s if last is None else spent_s + wait_s


def _another_may_answer(error: ProviderError) -> bool:
    """Return whether another deployment or model could succeed here; a bad request fails everywhere."""
    if isinstance(error, ContextWindowExceededError):
        return True
    return not isinstance(error, BadRequestError | UnprocessableEntityError)


def _is_larger(plan: CallPlan, route: Sequence[Request], small: str) -> Flow[bool]:
    """Return whether a route's window is larger than that of *small*; a model of unknown size gets its chance."""
    if plan.window is None:
        return True
    before = yield Invoke(plan.window, (small,))
    now = yield Invoke(plan.window, (_priced_as(route),))
    return before is None or now is None or now > before


def _priced_as(route: Sequence[Request]) -> str:
    """Return the name of a route's model in LiteLLM's map."""
    return route[0].priced_as or route[0].model
