"""Deployments at aiXplain: a call is a run that is submitted and polled."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llmkit.errors import AuthenticationError
from llmkit.providers.aixplain.polled import PollState, Remote
from llmkit.providers.text import TextAnswer, TextProvider, prompt_of

if TYPE_CHECKING:
    from llmkit.core.types import Flow, Request
    from llmkit.providers.transport.client import TextStream

PREFIX = "aixplain/"
URL = "https://models.aixplain.com/api/v1/execute"
_KEYS = ("AIXPLAIN_API_KEY", "TEAM_API_KEY")
_POLL_S = 0.5


class AiXplain(TextProvider):
    """Sends requests for `aixplain/` models."""

    def whole(self, request: Request) -> Flow[TextAnswer]:
        """Submit once, and return the answer when the run has ended."""
        prompt, timeout_s = prompt_of(request), request.timeout_s
        state = PollState(wait_s=_POLL_S)
        response = yield from _remote(request).answer(prompt, timeout_s, state, deadline_s=timeout_s)
        usage, counts = response.usage, None
        if usage is not None and usage.prompt_tokens:
            counts = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
        return TextAnswer(response.data, response.finish_reason or "stop", counts)

    def opened(self, request: Request) -> Flow[TextStream]:
        """Send once and return the open stream."""
        return (yield from _remote(request).opened(prompt_of(request), request.timeout_s))


def backend() -> AiXplain:
    """Return the provider of `aixplain/` models."""
    return AiXplain()


def _remote(request: Request) -> Remote:
    key = request.api_key or next(filter(None, map(os.environ.get, _KEYS)), None)
    if not key:
        raise AuthenticationError(f"no key for aixplain: set {_KEYS[0]}, or pass api_key", provider="aixplain")
    return Remote(request.model.removeprefix(PREFIX), request.api_base or URL, key, {})
