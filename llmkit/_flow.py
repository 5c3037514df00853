"""What a call does, in order, written once for blocking and for asynchronous callers.

A flow is a generator: it yields steps (`Send`, `Open`, `Sleep`, `Invoke`) and is sent their results,
or has their errors thrown into it. `drive` does the steps with blocking calls, `adrive` with awaits.
Larger flows are made of smaller ones with `yield from`. A flow does no I/O and reads no clock.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from random import random
from typing import TYPE_CHECKING, Any, TypeVar

from llmkit.errors import ProviderError
from llmkit.types import Open, Send, Sleep

if TYPE_CHECKING:
    from llmkit._work import Backend
    from llmkit.retry import Retry
    from llmkit.types import Flow, Reply, Request

T = TypeVar("T")


def call(request: Request, retry: Retry) -> Flow[Reply]:
    """Send the request, try again where it helps, and return the reply."""
    reply: Reply = yield from _with_retries(Send(request), retry)
    return reply


def open_stream(request: Request, retry: Retry) -> Flow[Any]:
    """Open a stream, trying again where it helps, and return its source."""
    source = yield from _with_retries(Open(request), retry)
    return source


def _with_retries(step: Send | Open, retry: Retry) -> Flow[Any]:
    """Do *step*; where another try can help, wait and do it again."""
    request = step.request
    spent_s = 0.0
    for attempt in count(1):
        if retry.deadline_s is not None:
            step = type(step)(replace(request, timeout_s=min(request.timeout_s, retry.deadline_s - spent_s)))
        try:
            return (yield step)
        except ProviderError as error:
            spent_s += error.elapsed_s
            wait_s = retry.wait_s(attempt, error, spent_s=spent_s, chance=random())  # noqa: S311 - spreads load
            if wait_s is None:
                raise
        yield Sleep(wait_s)
        spent_s += wait_s
    raise AssertionError  # count() does not end


def drive(flow: Flow[T], backend: Backend) -> T:
    """Run *flow* to its end with blocking calls and return its result."""
    try:
        step = next(flow)
        while True:
            try:
                result = backend.do(step)
            except BaseException as error:  # noqa: BLE001 - the flow decides, interrupts included
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as end:
        value: T = end.value
        return value


async def adrive(flow: Flow[T], backend: Backend) -> T:
    """Run *flow* to its end, awaiting its steps, and return its result."""
    try:
        step = next(flow)
        while True:
            try:
                result = await backend.ado(step)
            except BaseException as error:  # noqa: BLE001 - the flow decides, cancellation included
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as end:
        value: T = end.value
        return value
