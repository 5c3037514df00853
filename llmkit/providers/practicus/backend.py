"""Deployments behind a Practicus endpoint, which `llmkit serve` provides too."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from llmkit.core.retry import Retry
from llmkit.core.types import Open, Send
from llmkit.providers.practicus.answers import EndpointAnswer
from llmkit.providers.practicus.session_tokens import credentials, ends_at, session_token
from llmkit.providers.text import NOT_SENT, TextAnswer, TextProvider, prompt_of, text_of
from llmkit.providers.transport.requests import JsonRequest, endpoint_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llmkit.core.types import Flow, Request
    from llmkit.providers.transport.client import TextStream

_KEY, _ACCOUNT = "LLMKIT_ENDPOINT_KEY", "LLMKIT_PRACTICUS_"
_KNOWN = frozenset({"temperature", "max_tokens"})  # what an endpoint accepts in addition to messages


class Practicus(TextProvider):
    """Sends requests for `practicus/` models."""

    def whole(self, request: Request) -> Flow[TextAnswer]:
        """Send once and return the whole answer."""
        answer = EndpointAnswer.of((yield Send((yield from _to_send(request)))))
        data: Mapping[str, Any] = answer.data if isinstance(answer.data, dict) else {}
        counts = data.get("usage") if isinstance(data.get("usage"), dict) else None
        if counts is None and data.get("input_tokens"):
            counts = {"prompt_tokens": data["input_tokens"], "completion_tokens": data.get("output_tokens", 0)}
        return TextAnswer(answer.text, counts=counts)

    def opened(self, request: Request) -> Flow[TextStream]:
        """Send once and return the open stream."""
        stream: TextStream = yield Open((yield from _to_send(request, streaming=True)))
        return stream


def backend() -> Practicus:
    """Return the provider of `practicus/` models."""
    return Practicus()


def _to_send(request: Request, **more: Any) -> Flow[Any]:
    """Return the request to send; a key is exchanged for a session token unless it is one itself."""
    url = endpoint_url(request.api_base, "endpoint")
    body = {**_body(request), **more}
    token = ""
    if request.api_key and ends_at(request.api_key) is not None:
        token = request.api_key
    elif request.api_key or any(name.startswith(_ACCOUNT) or name == _KEY for name in os.environ):
        known = credentials(url, request.api_key, None, None, None, None)
        token = yield from session_token(url, known, request.timeout_s, Retry(tries=1))
    return JsonRequest(method="POST", url=url, body=body, token=token, timeout_s=request.timeout_s)


def _body(request: Request) -> dict[str, Any]:
    """Return a prompt with its system message, or, if there is more to send, the messages."""
    prompt, params = prompt_of(request), request.params
    if not prompt.history and not params.keys() & _KNOWN:
        context = {} if prompt.context is None else {"system_context": prompt.context}
        return {"user_prompt": prompt.data, **context}
    messages = [{"role": message["role"], "content": text_of(message)} for message in request.messages]
    rest = {key: value for key, value in params.items() if key not in NOT_SENT | _KNOWN}
    known = {key: params[key] for key in _KNOWN if key in params}
    return {"messages": messages, **known, **({"lang_model_kwargs": rest} if rest else {})}
