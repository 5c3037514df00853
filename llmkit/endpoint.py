"""Clients for a model behind an HTTP endpoint: `get_session_token`, and `EndpointClient` for one or many prompts.

The endpoint takes `{"user_prompt": …, "system_context": …}` and answers with JSON or text, whole or streamed.
`llmkit serve` provides such endpoints, Practicus hosts them. Each call has an async version that begins with `a`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from llmkit.core import messages as shapes
from llmkit.core.engine import adrive, drive
from llmkit.core.params import check_value
from llmkit.core.retry import Retry
from llmkit.core.streams import AsyncManaged, Managed
from llmkit.core.types import Invoke, Open, Send
from llmkit.errors import AuthenticationError, InvalidRequestError
from llmkit.providers.practicus.answers import AsyncEndpointStream, EndpointAnswer, EndpointItem, EndpointStream
from llmkit.providers.practicus.parallel import aordered, ordered
from llmkit.providers.practicus.session_tokens import TOKENS, credentials, ends_at, session_token, token_name
from llmkit.providers.transport.client import Connections, HttpClient, http
from llmkit.providers.transport.requests import JsonRequest, endpoint_url, header_text, retried, shown, with_query

if TYPE_CHECKING:
    import threading
    from collections.abc import AsyncGenerator, Callable, Generator, Iterable

    from llmkit.core.types import Flow
    from llmkit.providers.practicus.session_tokens import Credentials
    from llmkit.providers.transport.client import TextStream
    from llmkit.providers.transport.requests import HttpAnswer

_UNAUTHORIZED = 401
_METHODS = ("POST", "GET")


def get_session_token(
    api_url: str,
    *,
    token: str | None = None,
    key: str | None = None,
    email: str | None = None,
    password: str | None = None,
    refresh_token: str | None = None,
    auth_url: str | None = None,
    timeout: float = 30.0,
    retry: int | Retry = 3,
) -> str:
    """Return a token for an endpoint; the same one is returned until 30 s before it expires, also to other threads.

    A token without an expiry time is used for a minute.

    Args:
        api_url: the endpoint's address.
        token: returned as it is if it is a JWT that is valid for another 30 s.
        key: the endpoint's key, sent to *auth_url*; `LLMKIT_ENDPOINT_KEY` if none is given.
        email: of a Practicus account, with *password*; else `LLMKIT_PRACTICUS_EMAIL` and `…_PASSWORD`.
        password: of that account.
        refresh_token: instead of these two; else `LLMKIT_PRACTICUS_REFRESH_TOKEN`.
        auth_url: where the key is exchanged for a token; `/auth/session-token/` at the endpoint's host.
        timeout: seconds for each request.
        retry: how often each request is sent at most, or a Retry.

    Raises:
        AuthenticationError: there is no key, or the server refuses it; the message has the reason.
        ProviderError: the server cannot be reached or fails.
    """
    given = (key, email, password, refresh_token, auth_url)
    return drive(_token(api_url, given, timeout, retry, token), http())


async def aget_session_token(
    api_url: str,
    *,
    token: str | None = None,
    key: str | None = None,
    email: str | None = None,
    password: str | None = None,
    refresh_token: str | None = None,
    auth_url: str | None = None,
    timeout: float = 30.0,
    retry: int | Retry = 3,
) -> str:
    """Async version of `get_session_token`: same arguments."""
    given = (key, email, password, refresh_token, auth_url)
    return await adrive(_token(api_url, given, timeout, retry, token), http())


class EndpointClient(Managed, AsyncManaged):
    """For the one model behind an address like those of `llmkit serve`. Threads and event loops may share it.

    Args:
        api_url: the endpoint's address, with or without a slash at the end.
        token: a text, or a function (sync or async) that returns one for each request; None to fetch and renew tokens
            as `get_session_token` does from the environment.
        timeout: seconds for a whole answer; for a stream, for each silence.
        concurrency: how many prompts `map` sends at the same time.
        retry: how often a request is sent at most, or a Retry. Resent is what failed with 429, 5xx or on the
            way; a `Retry-After` is respected.
        method: "POST", or "GET" for endpoints that accept a body with it.
    """

    def __init__(
        self,
        api_url: str,
        token: str | Callable[[], Any] | None = None,
        *,
        timeout: float = 60.0,
        concurrency: int = 8,
        retry: int | Retry = 3,
        method: Literal["POST", "GET"] = "POST",
    ) -> None:
        self._url = endpoint_url(api_url)
        self._token = token if token is None or callable(token) else header_text("token", token)
        self._timeout_s = shapes.seconds(timeout)
        self._concurrency = shapes.whole_number("concurrency", concurrency)
        self._retry = Retry.of(retry)
        if method not in _METHODS:
            raise InvalidRequestError(f"method must be POST or GET, not {method!r}")
        self._method = method
        self._connections = Connections()
        self._http = HttpClient(self._connections)

    def __repr__(self) -> str:
        """Return the address and nothing secret."""
        return f"EndpointClient({shown(self._url)!r}, method={self._method!r})"

    # -- calls ----------------------------------------------------------------------------------------------------

    def ask(self, prompt: str, system_context: str | None = None) -> EndpointAnswer:
        """Return the model's answer.

        Raises:
            ProviderError: the endpoint refuses or fails; the subclass says what to do, the message has its reason.
        """
        return drive(self._whole(_body(prompt, system_context)), self._http)

    async def aask(self, prompt: str, system_context: str | None = None) -> EndpointAnswer:
        """Async version of `ask`."""
        return await adrive(self._whole(_body(prompt, system_context)), self._http)

    def send(self, body: Mapping[str, Any]) -> EndpointAnswer:
        """Send a JSON object as it is, for endpoints that accept more than a prompt, and return the answer."""
        return drive(self._whole(_object(body)), self._http)

    async def asend(self, body: Mapping[str, Any]) -> EndpointAnswer:
        """Async version of `send`."""
        return await adrive(self._whole(_object(body)), self._http)

    def meta(self) -> EndpointAnswer:
        """Return the endpoint's description of its model, mostly as `data`; the model is not called."""
        return drive(self._whole(None), self._http)

    async def ameta(self) -> EndpointAnswer:
        """Async version of `meta`."""
        return await adrive(self._whole(None), self._http)

    def stream(self, prompt: str, system_context: str | None = None) -> EndpointStream:
        """Return the answer as an iterator over pieces of text; the request is sent with the first.

        It reads server-sent events, raw text, and whole answers. A stream that is cut raises a ProviderError
        with the text so far in `partial`.
        """
        return EndpointStream(self._opened({**_body(prompt, system_context), "streaming": True}), self._http)

    def astream(self, prompt: str, system_context: str | None = None) -> AsyncEndpointStream:
        """Return the answer as an iterator for `async for`."""
        return AsyncEndpointStream(self._opened({**_body(prompt, system_context), "streaming": True}), self._http)

    def map(
        self,
        prompts: Iterable[str],
        concurrency: int | None = None,
        system_context: str | None = None,
        *,
        progress: bool | None = None,
    ) -> Generator[EndpointItem, None, None]:
        """Send many prompts concurrently; yield an `EndpointItem` for each, in their order, as soon as it is there.

        If one fails, its item has the error, and the others go on. Prompts are taken as there is room, so
        the iterable may be endless; closing the generator stops sending.

        Args:
            prompts: any iterable of texts.
            concurrency: how many are sent at once; the client's if None.
            system_context: goes with each.
            progress: whether to show a bar on stderr; None for "on a terminal, if it takes longer than 2 s".
        """
        many = self._concurrency if concurrency is None else shapes.whole_number("concurrency", concurrency)
        work = partial(self._item, system_context)
        return ordered(_texts(prompts), work, many, progress)

    def amap(
        self,
        prompts: Iterable[str],
        concurrency: int | None = None,
        system_context: str | None = None,
        *,
        progress: bool | None = None,
    ) -> AsyncGenerator[EndpointItem, None]:
        """Send many prompts concurrently, for `async for`. Arguments as for `map`; prompts are a plain iterable."""
        many = self._concurrency if concurrency is None else shapes.whole_number("concurrency", concurrency)
        return aordered(_texts(prompts), partial(self._aitem, system_context), many, progress)

    # -- the client itself ----------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connections; those of an event loop close with the loop."""
        self._connections.close()

    async def aclose(self) -> None:
        """Close the connections, including those of this event loop."""
        await self._connections.aclose()

    # -- from arguments to answers --------------------------------------------------------------------------------

    def _item(self, system_context: str | None, prompt: str, stop: threading.Event) -> EndpointItem:
        try:
            answer = drive(self._whole(_body(prompt, system_context)), HttpClient(self._connections, stop))
        except Exception as error:  # noqa: BLE001 - returned with the prompt it belongs to
            return EndpointItem(prompt=prompt, error=error)
        return EndpointItem(prompt=prompt, answer=answer)

    async def _aitem(self, system_context: str | None, prompt: str) -> EndpointItem:
        try:
            answer = await self.aask(prompt, system_context)
        except Exception as error:  # noqa: BLE001 - returned with the prompt it belongs to
            return EndpointItem(prompt=prompt, error=error)
        return EndpointItem(prompt=prompt, answer=answer)

    def _whole(self, body: Mapping[str, Any] | None) -> Flow[EndpointAnswer]:
        """Send a body, or None for the model's description, and return the whole answer."""
        received: HttpAnswer = yield from self._sent(body, Send)
        return EndpointAnswer.of(received)

    def _opened(self, body: Mapping[str, Any]) -> Flow[TextStream]:
        stream: TextStream = yield from self._sent(body, Open)
        return stream

    def _sent(self, body: Mapping[str, Any] | None, step: type[Send | Open]) -> Flow[Any]:
        """Send with a token, and once more with a new one if ours is refused."""
        known: Credentials | None = None
        if self._token is None:
            known = credentials(self._url, None, None, None, None, None)
        token = yield from self._token_now(known)
        try:
            return (yield from retried(self._request(body, token), self._retry, step))
        except AuthenticationError as error:
            if known is None or error.status_code != _UNAUTHORIZED:
                raise
        TOKENS.drop(token_name(self._url, known), token)
        token = yield from self._token_now(known)
        return (yield from retried(self._request(body, token), self._retry, step))

    def _token_now(self, known: Credentials | None) -> Flow[str]:
        if known is not None:
            return (yield from session_token(self._url, known, self._timeout_s, self._retry))
        return header_text("token", (yield Invoke(self._token)) if callable(self._token) else self._token)

    def _request(self, body: Mapping[str, Any] | None, token: str) -> JsonRequest:
        return JsonRequest(
            method="GET" if body is None else self._method,
            url=with_query(self._url, "get_meta=true") if body is None else self._url,
            body=body,
            token=token,
            timeout_s=self._timeout_s,
        )


def _token(
    api_url: str, given: tuple[str | None, ...], timeout: float, retry: int | Retry, token: str | None
) -> Flow[str]:
    """Return *token* if it is valid long enough, else fetch one."""
    url, timeout_s, policy = endpoint_url(api_url), shapes.seconds(timeout), Retry.of(retry)
    if token is not None and TOKENS.is_fresh(ends_at(header_text("token", token))):
        return token.strip()
    return (yield from session_token(url, credentials(url, *given), timeout_s, policy))


def _texts(prompts: Iterable[str]) -> Iterable[str]:
    if isinstance(prompts, str) or not hasattr(prompts, "__iter__"):
        raise InvalidRequestError(f"prompts must be several texts, as in a list, not {type(prompts).__name__}")
    return prompts


def _body(prompt: Any, system_context: Any) -> dict[str, Any]:
    """Return the request body for *prompt*."""
    if not isinstance(prompt, str):
        raise InvalidRequestError(f"prompt must be a text, not {type(prompt).__name__}")
    check_value(prompt, "prompt")
    if system_context is None:
        return {"user_prompt": prompt}
    if not isinstance(system_context, str):
        raise InvalidRequestError(f"system_context must be a text, not {type(system_context).__name__}")
    check_value(system_context, "system_context")
    return {"user_prompt": prompt, "system_context": system_context}


def _object(body: Any) -> dict[str, Any]:
    """Return a body that can be sent."""
    if not isinstance(body, Mapping):
        raise InvalidRequestError(f"body must be a mapping, not {type(body).__name__}")
    check_value(made := dict(body), "body")
    return made
