"""A remote service whose runs are submitted once, then polled until they end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from llmkit.core.params import encodable
from llmkit.core.types import Open, Send, Sleep, Usage
from llmkit.errors import APIError, InvalidRequestError, ProviderError, Timeout
from llmkit.providers.aixplain.response import ModelResponse, ResponseStatus
from llmkit.providers.failures import class_of
from llmkit.providers.transport.addresses import origin
from llmkit.providers.transport.requests import JsonRequest, endpoint_url, shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmkit.core.types import Flow
    from llmkit.providers.prompt import Prompt
    from llmkit.providers.transport.client import TextStream
    from llmkit.providers.transport.requests import HttpAnswer

_GOES_ON = frozenset(
    {"", "IN_PROGRESS", "PENDING", "QUEUED", "RUNNING", "STARTED", "PROCESSING", "SUBMITTED", "ACCEPTED"}
)
_FAILED = frozenset(
    {"FAILED", "FAILURE", "ABORTED", "ERROR", "CANCELLED", "CANCELED", "TIMEOUT", "EXPIRED", "REJECTED"}
)
"""The words of services for runs that go on and for those that failed; with another word a run has ended well."""
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_LONGEST_WAIT_S, _SHORTEST_WAIT_S, _ONE_POLL_S = 60.0, 0.02, 30.0
_USUAL_TIMEOUT_S = 600.0


@dataclass
class PollState:
    """How a run is polled, and how far it is.

    Attributes:
        wait_s: seconds before the first poll; each wait is a tenth longer.
        url: the run's address, or "" before it has one.
    """

    wait_s: float
    url: str = ""


class Remote:
    """A service with polled runs. The key is sent to its own origin only."""

    def __init__(self, name: str, url: str, api_key: str, usual: Mapping[str, Any]) -> None:
        self._base = endpoint_url(url, "url").rstrip("/")
        self._origin = origin(self._base)
        self._url = f"{self._base}/{quote(name, safe='')}"
        self._key, self._usual = api_key, usual

    def answer(
        self, prompt: Prompt, timeout_s: float | None, state: PollState, *, deadline_s: float | None = None
    ) -> Flow[ModelResponse]:
        """Return the answer of a run: submit it once, and poll until it has ended.

        Raises:
            Timeout: it has not ended within *deadline_s*, waits and requests together.
        """
        spent_s, wait_s = 0.0, max(_SHORTEST_WAIT_S, state.wait_s)
        response, elapsed_s = yield from self._submitted(prompt, timeout_s)
        state.url = response.url
        while not response.completed:
            spent_s += elapsed_s + wait_s
            if deadline_s is not None and spent_s > deadline_s:
                raise Timeout(f"{self._base}: the run did not end within {deadline_s:g} s")
            yield Sleep(wait_s)
            wait_s = min(_LONGEST_WAIT_S, wait_s * 1.1)
            response, elapsed_s = yield from self._polled(state.url)
        return response

    def submit(self, prompt: Prompt, timeout_s: float | None = None) -> Flow[ModelResponse]:
        """Start a run, without retries: a run started twice would be paid twice."""
        return (yield from self._submitted(prompt, timeout_s))[0]

    def poll(self, url: str) -> Flow[ModelResponse]:
        """Return the state of a run."""
        return (yield from self._polled(url))[0]

    def opened(self, prompt: Prompt, timeout_s: float) -> Flow[TextStream]:
        """Open the answer as a stream."""
        body = {**self._usual, **prompt.body(), "options": {"stream": True}}
        stream: TextStream = yield Open(self._request("POST", self._url, body, timeout_s))
        return stream

    def _submitted(self, prompt: Prompt, timeout_s: float | None) -> Flow[tuple[ModelResponse, float]]:
        body = {**self._usual, **prompt.body()}
        answer: HttpAnswer = yield Send(self._request("POST", self._url, body, timeout_s))
        return self._read(answer, ""), answer.elapsed_s

    def _polled(self, url: str) -> Flow[tuple[ModelResponse, float]]:
        if not url.startswith(("http://", "https://")) or origin(url) != self._origin:
            raise InvalidRequestError(f"{shown(url)} is not at {self._origin}; the key stays there")
        try:
            answer: HttpAnswer = yield Send(self._request("GET", url, None, _ONE_POLL_S))
        except ProviderError as error:
            if not error.retryable:
                raise
            return _goes_on(url, str(error)), error.elapsed_s
        if not isinstance(answer.data, dict):
            return _goes_on(url, f"the answer to a poll is no JSON object: {answer.text[:200]!r}"), answer.elapsed_s
        return self._read(answer, url), answer.elapsed_s

    def _request(self, method: str, url: str, body: Mapping[str, Any] | None, timeout_s: float | None) -> Any:
        return JsonRequest(
            method=method,
            url=url,
            body=body,
            token=self._key,
            key_header="x-api-key",
            ends_itself=True,
            timeout_s=_USUAL_TIMEOUT_S if timeout_s is None else timeout_s,
        )

    def _read(self, answer: HttpAnswer, url: str) -> ModelResponse:
        """Return what a service reports about a run, even if parts are missing."""
        data = answer.data
        if not isinstance(data, dict):
            raise APIError(f"{self._base}: the answer is no JSON object: {answer.text[:200]!r}")
        reason = str(data.get("error_message") or data.get("supplierError") or data.get("error") or "")
        status, completed = str(data.get("status") or "").upper(), data.get("completed")
        address = url or str(data.get("url") or data.get("data") or "")
        has_ended = completed if isinstance(completed, bool) else bool(completed) or status not in _GOES_ON
        if not address.startswith(("http://", "https://")) and status not in _GOES_ON:
            has_ended = True  # there is nothing to poll
        if status in _FAILED or (reason and has_ended):
            code = data.get("status_code") or data.get("error_code")
            kind = class_of(code) if isinstance(code, int) else APIError
            raise kind(f"{self._base}: {reason or 'the service gives no reason'}")
        if not has_ended:
            if not address:
                raise APIError(f"{self._base}: the service started a run and gave no address to poll")
            return ModelResponse(status=ResponseStatus.IN_PROGRESS, completed=False, url=address)
        return _response(data, url)


def _goes_on(url: str, why: str) -> ModelResponse:
    """Return a run in progress after a failed poll: it continues, and giving up here would mean paying twice."""
    return ModelResponse(status=ResponseStatus.IN_PROGRESS, completed=False, url=url, error_message=why)


def _response(data: Mapping[str, Any], url: str) -> ModelResponse:
    usage = data.get("usage") if isinstance(data.get("usage"), dict) else None
    counts = {key: int(_number(usage.get(key)) or 0) for key in _COUNTS} if usage else {}
    price, details = _number(data.get("usedCredits", data.get("used_credits"))), data.get("details")
    choices = [entry for entry in details if isinstance(entry, dict)] if isinstance(details, list) else []
    finishes = [entry["finish_reason"] for entry in choices if entry.get("finish_reason")]
    text = data.get("data")
    source: Any = "unpriced" if price is None else "priced"
    return ModelResponse(
        status=ResponseStatus.SUCCESS,
        data=encodable(text if isinstance(text, str) else "" if text is None else str(text)),
        usage=Usage(**counts, cost_usd=price, source=source) if counts else None,
        used_credits=price,
        run_time=_number(data.get("runTime", data.get("run_time"))) or 0.0,
        finish_reason=finishes[0] if finishes else data.get("finish_reason"),
        details=choices,
        url=url,
    )


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if number == number and abs(number) != float("inf") else None  # noqa: PLR0124 - not a number
