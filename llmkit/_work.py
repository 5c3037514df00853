"""Doing steps: the base of every backend. The one module where threads and event loops are handled."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import threading
import time
from abc import ABC, abstractmethod
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from llmkit.types import Invoke, Open, Send, Sleep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llmkit.types import AsyncSource, Reply, Request, Source, Step

T = TypeVar("T")


class Backend(ABC):
    """What does the steps of a flow: `do` blocks, `ado` is awaited.

    A backend brings `send`, `asend`, `open` and `aopen`; waiting and calling back are the same for all.
    """

    @abstractmethod
    def send(self, request: Request) -> Reply:
        """Send *request* once and return the answer, or raise a ProviderError."""

    @abstractmethod
    async def asend(self, request: Request) -> Reply:
        """Do the same, awaited."""

    @abstractmethod
    def open(self, request: Request) -> Source:
        """Send *request* once and return its open stream, or raise a ProviderError."""

    @abstractmethod
    async def aopen(self, request: Request) -> AsyncSource:
        """Do the same, awaited."""

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    async def asleep(self, seconds: float) -> None:
        """Wait, letting others work."""
        await asyncio.sleep(seconds)

    def do(self, step: Step) -> Any:
        """Do one step with blocking calls."""
        match step:
            case Send(request):
                return self.send(request)
            case Open(request):
                return self.open(request)
            case Sleep(seconds):
                return self.sleep(seconds)
            case Invoke():
                return invoke(step)
            case _:
                return together(step)

    async def ado(self, step: Step) -> Any:
        """Do one step, awaiting it."""
        match step:
            case Send(request):
                return await self.asend(request)
            case Open(request):
                return await self.aopen(request)
            case Sleep(seconds):
                return await self.asleep(seconds)
            case Invoke():
                return await ainvoke(step)
            case _:
                return await asyncio.gather(*map(ainvoke, step), return_exceptions=True)


def invoke(step: Invoke) -> Any:
    """Call the function, plain or async, and return its result; works below a running event loop."""
    result = step.function(*step.args, **step.kwargs)
    if not inspect.isawaitable(result):
        return result
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_wait(result))
    return background(lambda: asyncio.run(_wait(result)), name="llmkit-invoke").result()


async def ainvoke(step: Invoke) -> Any:
    """Call the function, a plain one on a thread so that it cannot hold the event loop up."""
    task = asyncio.ensure_future(_ainvoke(step))
    if step.patience_s is None:
        return await task
    done, _ = await asyncio.wait({task}, timeout=step.patience_s)
    if not done:
        task.add_done_callback(_forget)
        raise TimeoutError(f"it did not return within {step.patience_s:g} s and goes on")
    return task.result()


async def _ainvoke(step: Invoke) -> Any:
    if inspect.iscoroutinefunction(step.function):
        return await step.function(*step.args, **step.kwargs)
    result = await asyncio.to_thread(step.function, *step.args, **step.kwargs)
    return await result if inspect.isawaitable(result) else result


def together(steps: tuple[Invoke, ...]) -> list[Any]:
    """Call all functions at the same time, each on a thread; where one raises, its exception is the result."""
    futures = [background(partial(invoke, step), name="llmkit-invoke") for step in steps]
    return [future.exception() or future.result() for future in futures]


def background(function: Callable[[], T], *, name: str) -> Future[T]:
    """Start *function* on a thread that does not hold the process up, and return its future."""
    future: Future[T] = Future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            future.set_result(context.run(function))
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            future.set_exception(error)

    threading.Thread(target=work, name=name, daemon=True).start()
    return future


@contextlib.contextmanager
def every(seconds: float, function: Callable[[], Any], *, name: str) -> Iterator[None]:
    """Call *function* again and again on a thread, as long as the block is open; what it raises ends that."""
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(seconds):
            function()

    background(work, name=name)
    try:
        yield
    finally:
        ended.set()


def _forget(task: asyncio.Future[Any]) -> None:
    """Take note of a late failure, so that asyncio does not complain about it."""
    if not task.cancelled():
        task.exception()


async def _wait(awaitable: Any) -> Any:
    return await awaitable
