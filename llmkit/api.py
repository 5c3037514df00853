"""The shortest way to an answer: `ask`, `aask`, `stream`, `astream`. Argument shapes only, no policy of its own."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

from llmkit import _flow, config, messages
from llmkit._flow import adrive, drive
from llmkit.errors import InvalidRequestError
from llmkit.prices import FREE
from llmkit.retry import Retry
from llmkit.stream import AsyncStream, Stream
from llmkit.types import Invoke, Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit._work import Backend
    from llmkit.presets import Preset
    from llmkit.types import Flow, Reply

DEFAULT_TIMEOUT_S = 600.0
LOCAL = "local/"
_REFUSED = {
    "stream": "use llmkit.stream or llmkit.astream",
    "max_retries": "use retry=Retry(tries=…)",
    "num_retries": "use retry=Retry(tries=…)",
    "messages": "give the messages as the first argument",
}


def ask(
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    model: str | None = None,
    preset: str | Preset | None = None,
    system: str | None = None,
    backend: Backend | None = None,
    **options: Any,
) -> Reply:
    """Return a model's answer.

    With neither *model* nor *preset* the default is used: `LLMKIT_MODEL` or `LLMKIT_PRESET`, then the configured
    one, then the embedded model. What is given here wins over the preset.

    Args:
        prompt: a string, or a list of OpenAI-style messages (text, image and audio parts).
        model: LiteLLM's `provider/model` (`provider:model` too), `local/smollm2`, or `local/PATH.gguf`.
        preset: the name of a preset, or a Preset.
        system: the system message.
        backend: who sends the request; for tests, see `llmkit.testing`.
        options: `timeout` (seconds for the answer, 600), `api_key`, `api_base`, `retry` (a Retry; three tries),
            `attachments` (paths and URLs). Everything else goes to the provider unchanged: temperature, tools, …

    Raises:
        InvalidRequestError: the arguments cannot be sent.
        ConfigError: a preset or the configuration is wrong.
        ProviderError: the provider refused or failed, all tries spent.
        LocalModelError: the embedded model cannot be fetched or started.
    """
    return drive(_ask(prompt, model, preset, system, options), backend or real_backend())


async def aask(
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    model: str | None = None,
    preset: str | Preset | None = None,
    system: str | None = None,
    backend: Backend | None = None,
    **options: Any,
) -> Reply:
    """Return a model's answer, awaited. Arguments and errors as for `ask`."""
    return await adrive(_ask(prompt, model, preset, system, options), backend or real_backend())


def stream(
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    model: str | None = None,
    preset: str | Preset | None = None,
    system: str | None = None,
    backend: Backend | None = None,
    **options: Any,
) -> Stream:
    """Return a model's answer piece by piece; it is asked when the first piece is. Arguments as for `ask`.

    `timeout` is here the longest silence between two pieces. Iteration raises the errors of `ask`, and a
    ProviderError with the text so far in `partial` when the answer is cut; `.reply` is there after the end.
    """
    return Stream(lambda: _open(prompt, model, preset, system, options), backend or real_backend())


def astream(
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    model: str | None = None,
    preset: str | Preset | None = None,
    system: str | None = None,
    backend: Backend | None = None,
    **options: Any,
) -> AsyncStream:
    """Return a model's answer piece by piece, for `async for`. Arguments and errors as for `stream`."""
    return AsyncStream(lambda: _open(prompt, model, preset, system, options), backend or real_backend())


@cache
def real_backend() -> Backend:
    """Return the backend of real calls; LiteLLM itself is imported with the first request."""
    from llmkit._litellm import LiteLLM

    return LiteLLM()


def _ask(prompt: Any, model: Any, preset: Any, system: Any, options: Mapping[str, Any]) -> Flow[Reply]:
    request, retry = yield from _prepare(prompt, model, preset, system, options)
    return (yield from _flow.call(request, retry))


def _open(prompt: Any, model: Any, preset: Any, system: Any, options: Mapping[str, Any]) -> Flow[Any]:
    request, retry = yield from _prepare(prompt, model, preset, system, options)
    return (yield from _flow.open_stream(request, retry))


def _prepare(
    prompt: Any, model: str | None, preset: str | Preset | None, system: str | None, options: Mapping[str, Any]
) -> Flow[tuple[Request, Retry]]:
    """Turn the arguments into a request; nothing is sent yet."""
    params = dict(options)
    for name, advice in _REFUSED.items():
        if name in params:
            raise InvalidRequestError(f"{name} cannot be given here: {advice}")
    if model is None and preset is None:
        model, preset = _default()
    chosen = _load(preset)
    timeout = _first(params.pop("timeout", None), chosen and chosen.timeout, DEFAULT_TIMEOUT_S)
    retry = _first(params.pop("retry", None), chosen and chosen.retry_policy(), Retry())
    attachments = params.pop("attachments", ())
    request = Request(
        model=slashed(_first(model, chosen and chosen.model, config.EMBEDDED_MODEL)),
        messages=messages.build(prompt, system=_first(system, chosen and chosen.system), attachments=attachments),
        timeout_s=_seconds(timeout),
        api_key=params.pop("api_key", None),
        api_base=params.pop("api_base", None),
        params={**(chosen.set_params() if chosen else {}), **params},
    )
    if request.model.startswith(LOCAL):
        request = yield from hosted_here(request)
    return request, retry


def hosted_here(request: Request) -> Flow[Request]:
    """Start the model on this machine, if it is not running, and address the request to it."""
    from dataclasses import replace

    from llmkit import local

    name = request.model[len(LOCAL) :]
    server = yield Invoke(local.serve, (name,))
    note = "the embedded model knows no tools; they were not used"
    return replace(
        request,
        model=f"openai/{server.model}",
        api_key=server.key,
        api_base=server.url,
        price=FREE,
        notes=(note,) if name == local.EMBEDDED and request.params.get("tools") else (),
    )


def slashed(model: str) -> str:
    """Return LiteLLM's spelling of a model: `provider:model` becomes `provider/model`."""
    if not isinstance(model, str) or not model.strip():
        raise InvalidRequestError(f"the model must be a name like openai/gpt-4o, not {model!r}")
    provider, colon, name = model.partition(":")
    return f"{provider}/{name}" if colon and "/" not in provider and provider != "ft" else model


def _load(preset: str | Preset | None) -> Preset | None:
    if not isinstance(preset, str):
        return preset
    from llmkit import presets

    return presets.load(preset)


def _default() -> tuple[str | None, str | None]:
    model, preset = config.default_choice()
    if model is None and preset is None:
        _say_embedded()
        model = config.EMBEDDED_MODEL
    return model, preset


@cache
def _say_embedded() -> None:
    """Say once which model answers when nobody chose one."""
    advice = "choose another with model=, -m or LLMKIT_MODEL"
    print(f"llmkit: answering with the embedded model {config.EMBEDDED_MODEL}; {advice}", file=sys.stderr)  # noqa: T201


def _first(*values: Any) -> Any:
    """Return the first value that is set, None when none is."""
    return next((value for value in values if value is not None), None)


def _seconds(timeout: Any) -> float:
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise InvalidRequestError(f"timeout must be a number of seconds above 0, not {timeout!r}")
    return float(timeout)
