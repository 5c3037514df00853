"""Deployments that LiteLLM does not know: endpoints of Practicus' shape, and services of aiXplain's. Both take text."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from llmkit.core.engine import Backend, adrive, drive
from llmkit.core.retry import Retry
from llmkit.core.types import Open, Piece, Send
from llmkit.errors import AuthenticationError, BadRequestError, IncompleteStreamError
from llmkit.providers.aixplain.polled import Remote, Trip, doors
from llmkit.providers.aixplain.prompt import Utterance
from llmkit.providers.litellm.attempt import Attempt
from llmkit.providers.litellm.sdk import load
from llmkit.providers.practicus.answers import EndpointAnswer
from llmkit.providers.practicus.session_tokens import credentials, ends_at, session_token
from llmkit.providers.transport.exchange import Exchange, endpoint_url
from llmkit.runs import worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmkit.core.types import Flow, Message, Reply, Request
    from llmkit.providers.aixplain.response import ModelResponse

PRACTICUS, AIXPLAIN = "practicus/", "aixplain/"
AIXPLAIN_URL = "https://models.aixplain.com/api/v1/execute"
_AIXPLAIN_KEYS = ("AIXPLAIN_API_KEY", "TEAM_API_KEY")
_POLL_S = 0.5
_OURS = frozenset({"drop_params", "user", "stream_options"})  # what is said to LiteLLM, or to nobody here
_KNOWN = frozenset({"temperature", "max_tokens"})  # what an endpoint takes beside messages


class Endpoints(Backend):
    """Sends what is for them."""

    def send(self, request: Request) -> Reply:
        """Send once."""
        attempt = Attempt(request)
        with attempt.errors():
            if request.model.startswith(AIXPLAIN):
                return _of_run(attempt, worker().submit(_run(request)).result())
            return _of_answer(attempt, drive(_asked(request, Send), doors()))

    async def asend(self, request: Request) -> Reply:
        """Send once, awaited."""
        attempt = Attempt(request)
        with attempt.errors():
            if request.model.startswith(AIXPLAIN):
                return _of_run(attempt, await _run(request))
            return _of_answer(attempt, await adrive(_asked(request, Send), doors()))

    def open(self, request: Request) -> EndpointSource:
        """Open a stream."""
        attempt = Attempt(request)
        with attempt.errors():
            return EndpointSource(attempt, drive(_asked(request, Open), doors()))

    async def aopen(self, request: Request) -> EndpointSource:
        """Open a stream, awaited."""
        attempt = Attempt(request)
        with attempt.errors():
            return EndpointSource(attempt, await adrive(_asked(request, Open), doors()))


class EndpointSource:
    """An open stream of text, read with blocking calls or with awaits."""

    def __init__(self, attempt: Attempt, body: Any) -> None:
        self.complete = False
        self._attempt, self._body = attempt, body
        self._pieces: Any = None
        self._text: list[str] = []

    def next(self) -> Piece | None:
        """Return the next piece, None after the last."""
        if self._pieces is None:
            self._pieces = iter(self._body)
        return self._piece(next(self._pieces, None))

    async def anext(self) -> Piece | None:
        """Return the next piece, None after the last."""
        if self._pieces is None:
            self._pieces = aiter(self._body)
        return self._piece(await anext(self._pieces, None))

    def reply(self) -> Reply:
        """Return what has arrived."""
        raw = _raw(self._attempt, "".join(self._text), "stop" if self.complete else None, None)
        return self._attempt.reply(raw, reported=False, complete=self.complete)

    def close(self) -> None:
        """Close the connection."""
        self._body.close()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._body.aclose()

    def _piece(self, text: str | None) -> Piece | None:
        if text is not None:
            self._text.append(text)
            return Piece(content=text)
        if self.complete:
            return None
        if not self._text:
            raise IncompleteStreamError("the stream ended without an answer", model=self._attempt.request.model)
        self.complete = True
        return Piece(finish_reason="stop")


def _asked(request: Request, step: type[Send | Open]) -> Flow[Any]:
    """Send what is said to an endpoint; its key is exchanged for a session token where it is none itself."""
    if request.model.startswith(AIXPLAIN):
        said = _utterance(request)
        return (yield step(_remote(request).streamed(said, request.timeout_s)))
    url = endpoint_url(request.api_base, "endpoint")
    token = ""
    if request.api_key and ends_at(request.api_key) is not None:
        token = request.api_key
    elif request.api_key or any(name.startswith("LLMKIT_PRACTICUS_") for name in os.environ) or _KEY in os.environ:
        known = credentials(url, request.api_key, None, None, None, None)
        token = yield from session_token(url, known, request.timeout_s, Retry(tries=1))
    body = {**_body(request), **({"streaming": True} if step is Open else {})}
    exchange: Any = Exchange(method="POST", url=url, body=body, token=token, timeout_s=request.timeout_s)
    return (yield step(exchange))


_KEY = "LLMKIT_ENDPOINT_KEY"


def _body(request: Request) -> dict[str, Any]:
    """Return a prompt with its system message, or where there is more to say the messages."""
    said, params = _utterance(request), dict(request.params)
    if not said.history and not params.keys() & _KNOWN:
        context = {} if said.context is None else {"system_context": said.context}
        return {"user_prompt": said.data, **context}
    messages = [{"role": message["role"], "content": _text(message)} for message in request.messages]
    rest = {key: value for key, value in params.items() if key not in _OURS | _KNOWN}
    known = {key: params[key] for key in _KNOWN if key in params}
    return {"messages": messages, **known, **({"lang_model_kwargs": rest} if rest else {})}


def _remote(request: Request) -> Remote:
    key = request.api_key or next(filter(None, map(os.environ.get, _AIXPLAIN_KEYS)), None)
    if not key:
        raise AuthenticationError(f"no key for aixplain: set {_AIXPLAIN_KEYS[0]}, or pass api_key", provider="aixplain")
    return Remote(request.model.removeprefix(AIXPLAIN), request.api_base or AIXPLAIN_URL, key, {})


async def _run(request: Request) -> ModelResponse:
    return await _remote(request).answer(_utterance(request), (), request.timeout_s, Trip(wait_s=_POLL_S))


def _utterance(request: Request) -> Utterance:
    """Return the messages as one utterance: the system message, what was said before, and the last user's."""
    if request.kind != "chat":
        raise BadRequestError(f"{request.model} answers chats only, not {request.kind}", model=request.model)
    if request.params.get("tools") or request.params.get("functions"):
        raise BadRequestError(f"{request.model} knows no tools", model=request.model)
    *before, last = request.messages
    if last["role"] != "user":
        raise BadRequestError(f"{request.model} answers a user's message, not one of {last['role']}")
    system = [_text(message) for message in before if message["role"] in {"system", "developer"}]
    history = [message for message in before if message["role"] in {"user", "assistant"}]
    return Utterance(
        data=_text(last),
        context="\n".join(system) if system else None,
        history=[{"role": message["role"], "content": _text(message)} for message in history],
        params={key: value for key, value in request.params.items() if key not in _OURS},
    )


def _text(message: Message) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    if any(part.get("type") != "text" for part in content):
        raise BadRequestError("this endpoint takes text only, no pictures, sound or files")
    return "".join(part["text"] for part in content)


def _of_answer(attempt: Attempt, received: Any) -> Reply:
    answer = EndpointAnswer.of(received)
    found: Mapping[str, Any] = answer.data if isinstance(answer.data, dict) else {}
    counts = found.get("usage") if isinstance(found.get("usage"), dict) else None
    if counts is None and found.get("input_tokens"):
        counts = {"prompt_tokens": found["input_tokens"], "completion_tokens": found.get("output_tokens", 0)}
    return _replied(attempt, answer.text, "stop", counts)


def _of_run(attempt: Attempt, response: ModelResponse) -> Reply:
    usage, counts = response.usage, None
    if usage is not None and usage.prompt_tokens:
        counts = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    return _replied(attempt, response.data, response.finish_reason or "stop", counts)


def _replied(attempt: Attempt, text: str, finish_reason: str, counts: Mapping[str, Any] | None) -> Reply:
    return attempt.reply(_raw(attempt, text, finish_reason, counts), reported=counts is not None)


def _raw(attempt: Attempt, text: str, finish_reason: str | None, counts: Mapping[str, Any] | None) -> Any:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": finish_reason, "message": message}
    usage = load().Usage(**counts, total_tokens=sum(counts.values())) if counts else None
    return load().ModelResponse(model=attempt.request.model, choices=[choice], usage=usage)
