"""The connections under LiteLLM: one pool for blocking calls, one for each event loop, and a look at the wire.

LiteLLM takes a client as an argument. Handing it ours settles what its own clients get wrong: requests sent
again behind the caller's back, sockets left open when a loop ends, broken chunks skipped in silence. A `Wire`
then holds what one attempt really did, so that errors are judged by their cause.

Nothing in this module imports LiteLLM: the caller passes the module in.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator
    from types import ModuleType

    import httpx

HTTP_PROVIDERS = frozenset(
    {
        "anthropic",
        "bedrock",
        "cohere",
        "cohere_chat",
        "deepseek",
        "fireworks_ai",
        "gemini",
        "groq",
        "hosted_vllm",
        "mistral",
        "ollama_chat",
        "openrouter",
        "together_ai",
        "vertex_ai",
        "xai",
    }
)
"""Providers that LiteLLM reaches with an HTTP handler; each is tested with ours."""

KEYED_PROVIDERS = HTTP_PROVIDERS - {"bedrock", "hosted_vllm", "ollama_chat", "vertex_ai"}
"""Those of them that want an API key; LiteLLM would send some requests without one."""

OWN_CLIENT_PARAMS = frozenset({"client", "ssl_verify", "shared_session", "azure_ad_token", "azure_ad_token_provider"})
"""Where the caller sets one of these, the connection is the caller's (or LiteLLM's) business."""


class MalformedStreamError(Exception):
    """A server-sent event carries something that is not JSON."""


class DeadlineError(Exception):
    """An answer did not end in time, although bytes kept coming."""


@dataclass
class Wire:
    """What one attempt did on the wire.

    Attributes:
        timeout_s: seconds from the request after which bytes of an answer are refused; None for no limit.
        requests: HTTP requests sent.
        origin: scheme, host and port of the last one.
        response: the answer to the last one.
        fault: what was found wrong with the bytes.
        sent: monotonic time of the last request.
        seen: false where LiteLLM used a client of its own; the rest then says nothing.
    """

    timeout_s: float | None = None
    requests: int = 0
    origin: str = ""
    response: httpx.Response | None = None
    fault: Exception | None = None
    seen: bool = False
    sent: float = 0.0

    @property
    def failed_status(self) -> int | None:
        """The HTTP status of a refusal, None when there was an answer or none at all."""
        response = self.response
        return response.status_code if response is not None and response.status_code >= 400 else None  # noqa: PLR2004

    def check_line(self, line: bytes) -> None:
        """Note a `data:` line of an event stream that is not JSON as a fault."""
        text = line[5:].strip() if line.startswith(b"data:") else b""
        if not text or text == b"[DONE]":
            return
        try:
            json.loads(text)
        except ValueError:
            self.fault = MalformedStreamError(f"a chunk of the stream is not JSON: {text[:80]!r}")

    def check_time(self) -> None:
        """Note as a fault that the answer takes too long."""
        if self.timeout_s is not None and time.monotonic() > self.sent + self.timeout_s:
            self.fault = DeadlineError(f"no complete answer from {self.origin} within {self.timeout_s:g} s")


_wire: ContextVar[Wire | None] = ContextVar("llmkit_wire", default=None)


def watch(wire: Wire) -> None:
    """Let *wire* record what the calls of this context do from now on."""
    _wire.set(wire)


class _Body:
    """Bytes of a response on their way to LiteLLM, looked at in passing, for loops of both colours."""

    def __init__(self, stream: Any, wire: Wire, *, events: bool) -> None:
        self._stream = stream
        self._wire = wire
        self._events = events
        self._rest = b""

    def _look(self, data: bytes) -> bytes:
        """Return *data*, without what follows a fault."""
        if not self._events:
            self._wire.check_time()
            return data
        before = len(self._rest)
        *lines, self._rest = (self._rest + data).split(b"\n")
        good = 0
        for line in lines:
            self._wire.check_line(line)
            if self._wire.fault is not None:
                return data[: max(0, good - before)]
            good += len(line) + 1
        return data

    def __iter__(self) -> Iterator[bytes]:
        for data in self._stream:
            yield self._look(data)
            if self._wire.fault is not None:
                raise self._wire.fault

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for data in self._stream:
            yield self._look(data)
            if self._wire.fault is not None:
                raise self._wire.fault

    def close(self) -> None:
        self._stream.close()

    async def aclose(self) -> None:
        await self._stream.aclose()


def _on_request(request: httpx.Request) -> None:
    wire = _wire.get()
    if wire is not None:
        wire.requests += 1
        wire.sent = time.monotonic()
        wire.origin = f"{request.url.scheme}://{request.url.netloc.decode()}"


def _on_response(response: httpx.Response) -> None:
    wire = _wire.get()
    if wire is None:
        return
    wire.response = response
    events = response.headers.get("content-type", "").startswith("text/event-stream")
    response.stream = _body_class()(response.stream, wire, events=events)


async def _on_async_request(request: httpx.Request) -> None:
    _on_request(request)


async def _on_async_response(response: httpx.Response) -> None:
    _on_response(response)


@cache
def _body_class() -> Any:
    """Return `_Body` as httpx wants it, a subclass of its own streams; httpx is imported with the first answer."""
    import httpx

    return type("Body", (_Body, httpx.SyncByteStream, httpx.AsyncByteStream), {})


@cache
def _once(client: Any) -> Any:
    """Return a class of the SDK's whose retries cannot be turned on: LiteLLM takes 0 for "not said", and sets 2."""
    never = property(lambda _: 0, lambda _, __: None)
    return type(client.__name__, (client,), {"max_retries": never})


class Pool:
    """One httpx client, and the SDK clients on top of it: all keys and addresses share its connections."""

    def __init__(self, handler: Any, *, asynchronous: bool) -> None:
        self.handler = handler
        self._asynchronous = asynchronous
        self.sdk = lru_cache(maxsize=64)(self._sdk)

    def _sdk(self, base: str, key: str, organization: str | None, api_version: str | None) -> Any:
        """Build the OpenAI SDK's client; with an *api_version* it is the one for Azure."""
        import openai

        common: dict[str, Any] = {"http_client": self.handler.client, "max_retries": 0, "api_key": key}
        if api_version is not None:
            azure = openai.AsyncAzureOpenAI if self._asynchronous else openai.AzureOpenAI
            return _once(azure)(azure_endpoint=base, api_version=api_version, **common)
        plain = openai.AsyncOpenAI if self._asynchronous else openai.OpenAI
        return _once(plain)(base_url=base, organization=organization, **common)


class Connections:
    """The pools of this process, given LiteLLM's module of HTTP handlers and its queue of callbacks."""

    def __init__(self, http: ModuleType, logging_worker: Any) -> None:
        self._http = http
        self._logging_worker = logging_worker
        self._lock = threading.Lock()
        self._blocking: Pool | None = None
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Pool, Any]] = WeakKeyDictionary()

    def blocking(self) -> Pool:
        """Return the pool for blocking calls; all threads share it."""
        with self._lock:
            if self._blocking is None:
                handler = self._http.HTTPHandler()
                handler.client.event_hooks = {"request": [_on_request], "response": [_on_response]}
                self._blocking = Pool(handler, asynchronous=False)
            return self._blocking

    async def of_this_loop(self) -> Pool:
        """Return the running loop's pool; it is closed when the loop shuts its generators down."""
        loop = asyncio.get_running_loop()
        if loop not in self._loops:
            pool = Pool(self._async_handler(), asynchronous=True)
            closing = self._close_with_loop(pool)
            self._loops[loop] = (pool, closing)
            await anext(closing)
        return self._loops[loop][0]

    def _async_handler(self) -> Any:
        """Return a handler that does not send a failed request a second time, as LiteLLM's own does."""

        class Once(self._http.AsyncHTTPHandler):  # type: ignore[misc, name-defined]
            async def single_connection_post_request(self, **_: Any) -> None:
                error = sys.exc_info()[1]
                raise error if error is not None else AssertionError("only called while a failure is handled")

        return Once(event_hooks={"request": [_on_async_request], "response": [_on_async_response]})

    async def _close_with_loop(self, pool: Pool) -> AsyncGenerator[None, None]:
        """Wait for the end of the loop: `asyncio.run` closes the generators that are still open, this one too."""
        try:
            yield
        finally:
            # LiteLLM queues its callbacks on the loop; what is left would be carried over to the next, with a warning.
            await self._logging_worker.clear_queue()
            await pool.handler.close()
