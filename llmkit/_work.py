"""Doing steps: the base of every backend. The one module where threads and event loops are handled."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from abc import ABC, abstractmethod
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from llmkit.types import Invoke, Open, Send, Sleep

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

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
            case Invoke(function, args):
                return invoke(function, *args)

    async def ado(self, step: Step) -> Any:
        """Do one step, awaiting it."""
        match step:
            case Send(request):
                return await self.asend(request)
            case Open(request):
                return await self.aopen(request)
            case Sleep(seconds):
                return await self.asleep(seconds)
            case Invoke(function, args):
                return await ainvoke(function, *args)


def invoke(function: Callable[..., Any], *args: Any) -> Any:
    """Call *function*, plain or async, and return its result; works below a running event loop."""
    result = function(*args)
    if not inspect.isawaitable(result):
        return result
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_wait(result))
    return background(lambda: asyncio.run(_wait(result)), name="llmkit-invoke").result()


async def ainvoke(function: Callable[..., Any], *args: Any) -> Any:
    """Call *function*, a plain one on a thread so that it cannot hold the event loop up."""
    if inspect.iscoroutinefunction(function):
        return await function(*args)
    result = await asyncio.to_thread(function, *args)
    return await result if inspect.isawaitable(result) else result


def background(function: Callable[[], T], *, name: str) -> Future[T]:
    """Start *function* on a thread that does not hold the process up, and return its future."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - handed to whoever asks for the result
            future.set_exception(error)

    threading.Thread(target=work, name=name, daemon=True).start()
    return future


async def _wait(awaitable: Any) -> Any:
    coroutine: Coroutine[Any, Any, Any] | Any = awaitable
    return await coroutine
