"""Runs flows: `drive` with blocking calls, `adrive` with awaits, over any backend.

A flow is a generator: it yields steps (`Send`, `Open`, `Next`, `Close`, `Sleep`, `Invoke`, `Emit`) and is sent their
results, or has their errors thrown into it. Only this module knows sync calls from async ones.

asyncio is imported by what awaits: a blocking program needs none of it, and a command would start 30 ms later.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
import time
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from llmkit.core.background import background, forget
from llmkit.core.brief import MustWaitError, at_once
from llmkit.core.types import Close, Emit, Invoke, Next, Open, Send, Sleep, StreamLeft

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator

    from llmkit.core.types import AsyncSource, Flow, Reply, Request, Source, Step

T = TypeVar("T")


class Backend(ABC):
    """Executes the steps of a flow: `do` blocks, `ado` is awaited.

    A backend implements `send`, `asend`, `open` and `aopen`; sleeping and invoking functions are the same for all.
    """

    @abstractmethod
    def send(self, request: Request) -> Reply:
        """Send *request* once and return the reply, or raise a ProviderError."""

    @abstractmethod
    async def asend(self, request: Request) -> Reply:
        """Async version of `send`."""

    @abstractmethod
    def open(self, request: Request) -> Source:
        """Send *request* once and return its open stream, or raise a ProviderError."""

    @abstractmethod
    async def aopen(self, request: Request) -> AsyncSource:
        """Async version of `open`."""

    def load(self, model: str) -> None:  # noqa: B027 - nothing, for most
        """Load now what a first awaited request for a model would load."""

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        """Wait without blocking the event loop."""
        import asyncio

        await asyncio.sleep(seconds)

    def do(self, step: Step) -> Any:
        """Execute one step with blocking calls."""
        match step:
            case Send(request):
                return self.send(request)
            case Open(request):
                return self.open(request)
            case Next(source):
                return source.next()
            case Close(source):
                return source.close()
            case Sleep(seconds):
                return self.sleep(seconds)
            case Invoke():
                return invoke(step)
            case tuple():
                return together(step)
            case _:
                raise AssertionError(f"{type(step).__name__} is for whoever reads a stream")

    async def ado(self, step: Step) -> Any:
        """Execute one step, awaiting it."""
        match step:
            case Send(request):
                return await self.asend(request)
            case Open(request):
                return await self.aopen(request)
            case Next(source):
                return await source.anext()
            case Close(source):
                return await source.aclose()
            case Sleep(seconds):
                return await self.asleep(seconds)
            case Invoke():
                return await ainvoke(step)
            case tuple():
                return await atogether(step)
            case _:
                raise AssertionError(f"{type(step).__name__} is for whoever reads a stream")


def _called(step: Invoke) -> Any:
    """Call the function; its StopIteration would end a flow, and a future never hands one over."""
    try:
        return step.function(*step.args, **step.kwargs)
    except StopIteration as error:
        raise RuntimeError("it raised StopIteration") from error


def invoke(step: Invoke) -> Any:
    """Call the function, sync or async, and return its result; works inside a running event loop."""
    result = _called(step)
    if not inspect.isawaitable(result):
        return result
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_wait(result))
    return background(lambda: asyncio.run(_wait(result)), name="llmkit-invoke").result()


async def ainvoke(step: Invoke) -> Any:
    """Call the function; a sync one runs on a thread, so that it cannot block the event loop."""
    import asyncio

    if step.patience_s is None:
        return await _ainvoke(step)
    task = asyncio.ensure_future(_ainvoke(step))
    done, _ = await asyncio.wait({task}, timeout=step.patience_s)
    if not done:
        task.add_done_callback(forget)
        raise TimeoutError(f"it did not return within {step.patience_s:g} s and goes on")
    return task.result()


async def _ainvoke(step: Invoke) -> Any:
    import asyncio

    if step.is_brief:
        with contextlib.suppress(MustWaitError), at_once():
            return _called(step)
    if inspect.iscoroutinefunction(step.function):
        return await step.function(*step.args, **step.kwargs)
    if step.undo is not None:
        return await _undoable(step, step.undo)
    result = await asyncio.to_thread(_called, step)
    return await result if inspect.isawaitable(result) else result


async def _undoable(step: Invoke, undo: Callable[[Any], Any]) -> Any:
    """Call a sync function on a thread; if nobody waits for its result any more, undo it, whenever it comes."""
    import asyncio

    lock, is_left = threading.Lock(), False
    made: list[Any] = []

    def work() -> Any:
        result = _called(step)
        with lock:
            made.append(result)
            nobody_waits = is_left
        if nobody_waits:
            undo(result)
        return result

    try:
        return await asyncio.to_thread(work)
    except asyncio.CancelledError:
        with lock:
            is_left, results = True, list(made)
        for result in results:
            with contextlib.suppress(Exception):  # the cancellation matters more
                await asyncio.to_thread(undo, result)
        raise


def together(steps: tuple[Invoke, ...]) -> list[Any]:
    """Call all functions concurrently, each on a thread; if one raises, its exception is its result.

    What ends a program is raised, as below an event loop.
    """
    futures = [background(partial(invoke, step), name="llmkit-invoke") for step in steps]
    results = [future.exception() or future.result() for future in futures]
    for future in futures:
        if isinstance(ending := future.exception(), SystemExit | KeyboardInterrupt):
            raise ending
    return results


async def atogether(steps: tuple[Invoke, ...]) -> list[Any]:
    """Async version of `together`."""
    import asyncio

    return await asyncio.gather(*map(ainvoke, steps), return_exceptions=True)


async def _wait(awaitable: Any) -> Any:
    return await awaitable


def drive(flow: Flow[T], backend: Backend) -> T:
    """Run *flow* to its end with blocking calls and return its result."""
    return _rest(flow, next, (flow,), backend)


def drive_stream(flow: Flow[Any], backend: Backend) -> Generator[Any, None, None]:
    """Run *flow* with blocking calls and yield what it emits; a reader who leaves ends it."""
    move: Callable[..., Step] = flow.send
    argument: Any = None
    while True:
        try:
            step = move(argument)
        except StopIteration:
            return
        try:
            if isinstance(step, Emit):
                yield step.piece
                move, argument = flow.send, None
            else:
                move, argument = flow.send, backend.do(step)
        except GeneratorExit:
            with contextlib.suppress(StreamLeft):
                _rest(flow, flow.throw, (StreamLeft,), backend)
            raise
        except BaseException as error:  # noqa: BLE001 - the flow decides, interrupts included
            move, argument = flow.throw, error


def _rest(flow: Flow[T], move: Callable[..., Step], arguments: tuple[Any, ...], backend: Backend) -> T:
    """Run the rest of a flow, starting with *move*."""
    try:
        step = move(*arguments)
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


def adrive(flow: Flow[T], backend: Backend) -> Coroutine[Any, Any, T]:
    """Run *flow* to its end, awaiting its steps, and return its result."""
    return _arest(flow, next, (flow,), backend)


async def adrive_stream(flow: Flow[Any], backend: Backend) -> AsyncGenerator[Any, None]:
    """Run *flow*, awaiting its steps, and yield what it emits; a reader who leaves ends it."""
    move: Callable[..., Step] = flow.send
    argument: Any = None
    while True:
        try:
            step = move(argument)
        except StopIteration:
            return
        try:
            if isinstance(step, Emit):
                yield step.piece
                move, argument = flow.send, None
            else:
                move, argument = flow.send, await backend.ado(step)
        except GeneratorExit:
            with contextlib.suppress(StreamLeft):
                await _arest(flow, flow.throw, (StreamLeft,), backend)
            raise
        except BaseException as error:  # noqa: BLE001 - the flow decides, cancellation included
            move, argument = flow.throw, error


async def _arest(flow: Flow[T], move: Callable[..., Step], arguments: tuple[Any, ...], backend: Backend) -> T:
    """Run the rest of a flow, starting with *move*."""
    try:
        step = move(*arguments)
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
