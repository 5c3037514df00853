"""A remote service of the polled shape: a run is submitted once, and polled until it has ended."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from llmkit.errors import APIError, InvalidRequestError, ProviderError
from llmkit.providers.aixplain.response import ModelResponse, ResponseStatus, StreamChunk
from llmkit.providers.failures import class_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from llmkit.providers.aixplain.prompt import Utterance
    from llmkit.providers.transport.doors import Doors

_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_LONGEST_WAIT_S, _SHORTEST_WAIT_S, _ONE_POLL_S = 60.0, 0.02, 30.0


@dataclass
class Trip:
    """What is known of a run on its way: how long to wait between polls, and the job's address when it has one."""

    wait_s: float
    url: str = ""


@cache
def doors() -> Doors:
    """Return the connections of all remote services of this process."""
    from llmkit.providers.transport.doors import Doors, Pool

    return Doors(Pool())


class Remote:
    """A service of the polled shape. The key goes to its own origin only."""

    def __init__(self, name: str, url: str, api_key: str, usual: Mapping[str, Any]) -> None:
        from llmkit.providers.transport.exchange import endpoint_url
        from llmkit.providers.transport.http import origin

        self._base = endpoint_url(url, "url").rstrip("/")
        self._origin = origin(self._base)
        self._url = f"{self._base}/{quote(name, safe='')}"
        self._key, self._usual = api_key, usual
        self._doors = doors()

    async def answer(self, said: Utterance, tags: Sequence[str], timeout_s: float | None, trip: Trip) -> ModelResponse:
        """Submit once, and poll until it has ended."""
        del tags
        began = time.monotonic()
        response = await self.submit(said, timeout_s)
        trip.url, wait_s = response.url, max(_SHORTEST_WAIT_S, trip.wait_s)
        while not response.completed:
            await asyncio.sleep(wait_s)
            wait_s = min(_LONGEST_WAIT_S, wait_s * 1.1)
            response = await self.poll(trip.url)
        return _timed(response, time.monotonic() - began)

    async def submit(self, said: Utterance, timeout_s: float | None = None) -> ModelResponse:
        """Send it, once: a job that was begun twice would be paid twice."""
        body = {**self._usual, **said.body()}
        return self._read(await self._doors.asend(self._exchange("POST", self._url, body, timeout_s)), "")

    async def poll(self, url: str) -> ModelResponse:
        """Ask how far a job is."""
        from llmkit.providers.transport.exchange import shown
        from llmkit.providers.transport.http import origin

        if not url.startswith(("http://", "https://")) or origin(url) != self._origin:
            raise InvalidRequestError(f"{shown(url)} is not at {self._origin}; the key stays there")
        try:
            received = await self._doors.asend(self._exchange("GET", url, None, _ONE_POLL_S))
        except ProviderError as error:
            if not error.retryable:
                raise
            return _goes_on(url, str(error))
        if not isinstance(received.data, dict):
            return _goes_on(url, f"the answer to a poll is no JSON object: {received.text[:200]!r}")
        return self._read(received, url)

    def stream(self, said: Utterance, tags: Sequence[str], timeout_s: float) -> Any:
        """Return pieces."""
        del tags
        return _RemoteStream(self._doors, self.streamed(said, timeout_s))

    def astream(self, said: Utterance, tags: Sequence[str], timeout_s: float) -> Any:
        """Return pieces."""
        return self.stream(said, tags, timeout_s)

    def streamed(self, said: Utterance, timeout_s: float) -> Any:
        """Return the request for a stream."""
        body = {**self._usual, **said.body(), "options": {"stream": True}}
        return self._exchange("POST", self._url, body, timeout_s)

    def _exchange(self, method: str, url: str, body: Mapping[str, Any] | None, timeout_s: float | None) -> Any:
        from llmkit.providers.transport.exchange import Exchange

        return Exchange(
            method=method,
            url=url,
            body=body,
            token=self._key,
            key_header="x-api-key",
            ends_itself=True,
            timeout_s=600.0 if timeout_s is None else timeout_s,
        )

    def _read(self, received: Any, url: str) -> ModelResponse:
        """Return what a service says of a job, whatever of it is missing."""
        found = received.data
        if not isinstance(found, dict):
            raise APIError(f"{self._base}: the answer is no JSON object: {received.text[:200]!r}")
        told = str(found.get("error_message") or found.get("supplierError") or found.get("error") or "")
        status = str(found.get("status") or ("SUCCESS" if found.get("completed") else "IN_PROGRESS")).upper()
        if status == "FAILED" or (told and found.get("completed")) or status == "ABORTED":
            code = found.get("status_code") or found.get("error_code")
            kind = class_of(code) if isinstance(code, int) else APIError
            raise kind(f"{self._base}: {told or 'the service gives no reason'}")
        if status == "IN_PROGRESS":
            job = url or str(found.get("url") or found.get("data") or "")
            if not job:
                raise APIError(f"{self._base}: the service began a job and gave no address to poll")
            return ModelResponse(status=ResponseStatus.IN_PROGRESS, completed=False, url=job)
        return _response(found, url)


def _goes_on(url: str, why: str) -> ModelResponse:
    """Return a job whose poll came to nothing: it goes on, and who gave it up here would pay for it twice."""
    return ModelResponse(status=ResponseStatus.IN_PROGRESS, completed=False, url=url, error_message=why)


def _response(found: Mapping[str, Any], url: str) -> ModelResponse:
    from llmkit.core.types import Usage

    usage = found.get("usage") if isinstance(found.get("usage"), dict) else None
    counted = {key: _count(usage.get(key)) for key in _COUNTS} if usage else {}
    credits_, details = _number(found.get("usedCredits", found.get("used_credits"))), found.get("details")
    choices = [entry for entry in details if isinstance(entry, dict)] if isinstance(details, list) else []
    finishes = [entry["finish_reason"] for entry in choices if entry.get("finish_reason")]
    data = found.get("data")
    source: Any = "unpriced" if credits_ is None else "priced"
    return ModelResponse(
        status=ResponseStatus.SUCCESS,
        data=data if isinstance(data, str) else "" if data is None else str(data),
        usage=Usage(**counted, cost_usd=credits_, source=source) if counted else None,
        used_credits=credits_,
        run_time=_number(found.get("runTime", found.get("run_time"))) or 0.0,
        finish_reason=finishes[0] if finishes else found.get("finish_reason"),
        details=choices,
        url=url,
    )


def _number(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if found == found and abs(found) != float("inf") else None  # noqa: PLR0124 - not a number


def _count(value: Any) -> int:
    return int(_number(value) or 0)


def _timed(response: ModelResponse, run_time: float) -> ModelResponse:
    return response if response.run_time else replace(response, run_time=run_time)


class _RemoteStream:
    """Pieces of a remote stream, for loops of both colours."""

    reply = None

    def __init__(self, doors: Any, exchange: Any) -> None:
        self._doors, self._exchange, self._body = doors, exchange, None

    def __iter__(self) -> Iterator[StreamChunk]:
        body = self._body = self._doors.open(self._exchange)
        for text in body:
            yield StreamChunk(data=text)

    async def __aiter__(self) -> AsyncIterator[StreamChunk]:
        body = self._body = await self._doors.aopen(self._exchange)
        async for text in body:
            yield StreamChunk(data=text)

    def close(self) -> None:
        if self._body is not None:
            self._body.close()

    async def aclose(self) -> None:
        if self._body is not None:
            await self._body.aclose()
