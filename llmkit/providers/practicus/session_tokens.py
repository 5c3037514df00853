"""Session tokens: how they are fetched, and a cache that fetches once for many callers.

Flows do the fetching. No token, key or password appears in a message or a `repr`.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llmkit.core.fork import Lock
from llmkit.core.types import Sleep
from llmkit.errors import AuthenticationError, InvalidRequestError, LlmkitError, ProviderError
from llmkit.providers.transport.addresses import origin
from llmkit.providers.transport.events import read_json
from llmkit.providers.transport.requests import JsonRequest, endpoint_url, header_text, retried, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmkit.core.retry import Retry
    from llmkit.core.types import Flow
    from llmkit.providers.transport.requests import HttpAnswer

MARGIN_S = 30.0
"""A token that expires sooner than this is not used again."""
UNKNOWN_S = 60.0
"""A token without an expiry time is used for this long."""
MODEL_ID = "x-prt-model-id"
_POLL_S = 0.02
_LATEST = 1e12  # anything later is not a number of seconds
_KEY, _EMAIL = "LLMKIT_ENDPOINT_KEY", "LLMKIT_PRACTICUS_EMAIL"
_PASSWORD, _REFRESH = "LLMKIT_PRACTICUS_PASSWORD", "LLMKIT_PRACTICUS_REFRESH_TOKEN"
_METHOD_NOT_ALLOWED = 405


@dataclass(frozen=True, slots=True)
class Token:
    """A token and when it expires, in seconds since 1970, or None if it does not say."""

    text: str = field(repr=False)
    ends_at: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """The credentials for a token: a key of the endpoint, or a Practicus account."""

    key: str = field(default="", repr=False)
    email: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)
    auth_url: str = ""

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets that no message may repeat."""
        return tuple(text for text in (self.key, self.password, self.refresh_token) if text)

    def identity(self) -> str:
        """Return a fingerprint of the credentials."""
        fields = json.dumps([self.key, self.email, self.password, self.refresh_token, self.auth_url])
        return hashlib.sha256(fields.encode()).hexdigest()


def credentials(
    api_url: str, key: str | None, email: str | None, password: str | None, refresh: str | None, auth_url: str | None
) -> Credentials:
    """Return the credentials in the arguments, or else those in the environment.

    Raises:
        InvalidRequestError: the arguments contradict each other.
        AuthenticationError: there are none in either.
    """
    of_practicus = email or password or refresh
    if key and of_practicus:
        raise InvalidRequestError("give either key, or email and password, or refresh_token")
    if auth_url and of_practicus:
        raise InvalidRequestError("auth_url goes with key; Practicus' address follows from api_url")
    if auth_url:
        endpoint_url(auth_url, "auth_url")
    env = {name: os.environ.get(name, "").strip() for name in (_KEY, _EMAIL, _PASSWORD, _REFRESH)}
    if key or (not of_practicus and env[_KEY]):
        return Credentials(key=header_text("the key", key or env[_KEY]), auth_url=auth_url or "")
    if refresh or (not of_practicus and env[_REFRESH]):
        return Credentials(refresh_token=refresh or env[_REFRESH])
    account = Credentials(email=email or env[_EMAIL], password=password or env[_PASSWORD])
    if of_practicus and not (account.email and account.password):
        raise InvalidRequestError(f"{'password' if account.email else 'email'} is missing")
    if not (account.email and account.password):
        raise AuthenticationError(f"{shown(api_url)}: no key for a session token: set {_KEY}, or pass token or key")
    return account


def ends_at(token: str) -> float | None:
    """Return when a JWT expires, in seconds since 1970, or None if it is not a JWT or does not say."""
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004 - header, payload, signature
        return None
    try:
        payload = read_json(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)).decode())
    except ValueError:
        return None
    return _seconds(payload.get("exp")) if isinstance(payload, dict) else None


class _Ticket:
    """A fetch under way; others wait for its result."""

    def __init__(self) -> None:
        self.process = os.getpid()  # a child does not wait for its parent's
        self.token: str | None = None
        self.error: LlmkitError | None = None


class TokenCache:
    """Tokens by their credentials; one fetch serves all who want the same token at the same time."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = Lock()
        self._known: dict[str, tuple[str, float]] = {}  # the token, and until when it is used again
        self._fetched: dict[str, _Ticket] = {}

    def is_fresh(self, ends: float | None) -> bool:
        """Return whether a token that expires at *ends* can be used."""
        return ends is not None and ends - MARGIN_S >= self._clock()

    def get(self, name: str, fetch: Callable[[], Flow[Token]], patience_s: float) -> Flow[str]:
        """Return the token called *name*, fetched if needed; wait up to *patience_s* for another caller's fetch."""
        mine, waited_s = _Ticket(), 0.0
        while (claim := self._claimed(name, mine, late=waited_s > patience_s)) is not mine:
            if isinstance(claim, str):
                return claim
            yield Sleep(_POLL_S)
            waited_s += _POLL_S
            if claim.token is not None:
                return claim.token
            if claim.error is not None:
                raise copy.copy(claim.error) from claim.error
        try:
            token = yield from fetch()
        except LlmkitError as error:
            mine.error = error
            raise
        else:
            mine.token = token.text
            self._keep(name, token)
        finally:
            with self._lock:
                if self._fetched.get(name) is mine:
                    del self._fetched[name]
        return token.text

    def drop(self, name: str, token: str) -> None:
        """Drop a token that was refused; a newer one stays."""
        with self._lock:
            if name in self._known and self._known[name][0] == token:
                del self._known[name]

    def _claimed(self, name: str, mine: _Ticket, *, late: bool) -> str | _Ticket:
        """Return the token, or the ticket of the caller who is to fetch it."""
        with self._lock:
            token, until = self._known.get(name, ("", 0.0))
            if token and self._clock() < until:
                return token
            other = self._fetched.get(name)
            if other is None or late or other.process != mine.process:
                self._fetched[name] = mine
                return mine
            return other

    def _keep(self, name: str, token: Token) -> None:
        now = self._clock()
        until = now + UNKNOWN_S if token.ends_at is None else token.ends_at - MARGIN_S
        with self._lock:
            self._known = {other: entry for other, entry in self._known.items() if entry[1] > now}
            if until > now:
                self._known[name] = (token.text, until)


TOKENS = TokenCache()
"""The tokens of this process."""


def session_token(api_url: str, known: Credentials, timeout_s: float, retry: Retry) -> Flow[str]:
    """Return a token of this process for *api_url*, which is in its usual form."""
    name = token_name(api_url, known)
    return (yield from TOKENS.get(name, lambda: fetched(api_url, known, timeout_s, retry), patience_s=timeout_s))


def token_name(api_url: str, known: Credentials) -> str:
    """Return the cache's name for the token of an address and credentials."""
    return f"{api_url} {known.identity()}"


def fetched(api_url: str, known: Credentials, timeout_s: float, retry: Retry) -> Flow[Token]:
    """Fetch a token; a refusal of any kind is an AuthenticationError."""
    asking = _TokenExchange(api_url, known, timeout_s, retry)
    received = yield from asking.of_endpoint() if known.key else asking.of_practicus()
    token = asking.text(received, "token", "access")
    return Token(token, ends_at(token) or _seconds(received.data.get("expires_at")))


class _TokenExchange:
    """The requests that fetch a token."""

    def __init__(self, api_url: str, known: Credentials, timeout_s: float, retry: Retry) -> None:
        self._api_url = api_url
        self._known = known
        self._timeout_s = timeout_s
        self._retry = retry

    def of_endpoint(self) -> Flow[HttpAnswer]:
        """Ask the endpoint itself, with a key."""
        url = self._known.auth_url or f"{origin(self._api_url)}/auth/session-token/"
        return (yield from self._sent("POST", url, {"api_url": self._api_url}, self._known.key))

    def of_practicus(self) -> Flow[HttpAnswer]:
        """Log in, find out which model is behind the address, and ask for a token for that one."""
        known, console = self._known, f"{origin(self._api_url)}/console/api"
        if known.refresh_token:
            login = yield from self._sent("POST", f"{console}/auth/refresh/", {"refresh": known.refresh_token})
        else:
            account = {"email": known.email, "password": known.password}
            login = yield from self._sent("POST", f"{console}/auth/", account)
        access = self.text(login, "access")
        model = yield from self._sent("GET", self._api_url, None, access, wanted_header=MODEL_ID)
        model_id = model.headers.get(MODEL_ID)
        if not model_id:
            raise _refused(
                self._api_url, f"the answer does not say which model it is (no header {MODEL_ID})", model.status_code
            )
        wanted = {"model_id": model_id, "upload": False}
        try:
            return (yield from self._sent("POST", f"{console}/modelhost/model-auth/", wanted, access))
        except ProviderError as error:
            if error.status_code != _METHOD_NOT_ALLOWED:
                raise
        return (yield from self._sent("GET", f"{console}/modelhost/model-auth/", wanted, access))  # older consoles

    def text(self, received: HttpAnswer, *names: str) -> str:
        """Return the token in an answer."""
        data: Any = received.data
        token = next((data[name] for name in names if data.get(name)), None) if isinstance(data, dict) else None
        try:
            return header_text("the token", token)
        except InvalidRequestError:
            why = f"the answer has no {' or '.join(names)}, or none that can be sent"
            raise _refused(self._api_url, why, received.status_code) from None

    def _sent(
        self, method: str, url: str, body: dict[str, Any] | None, token: str = "", wanted_header: str = ""
    ) -> Flow[HttpAnswer]:
        request = JsonRequest(
            method=method,
            url=url,
            body=body,
            token=token,
            timeout_s=self._timeout_s,
            secrets=self._known.secrets,
            wanted_header=wanted_header,
        )
        try:
            received: HttpAnswer = yield from retried(request, self._retry)
        except ProviderError as error:
            if error.retryable or error.status_code is None or not 400 <= error.status_code < 500:  # noqa: PLR2004
                raise
            raise _refused(self._api_url, str(error), error.status_code, error.elapsed_s) from error
        return received


def _refused(api_url: str, why: str, status_code: int | None = None, elapsed_s: float = 0.0) -> AuthenticationError:
    return AuthenticationError(
        f"{shown(api_url)}: no session token: {why}", status_code=status_code, elapsed_s=elapsed_s
    )


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _LATEST:
        return None
    return float(value)
