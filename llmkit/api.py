"""The shortest way to an answer: `ask`, `aask`, `stream`, `astream`. Argument shapes only, no policy of its own."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from llmkit import config, messages
from llmkit._flow import Plan, adrive, drive
from llmkit._turn import Course, answer, turn
from llmkit.errors import InvalidRequestError
from llmkit.retry import Retry
from llmkit.stream import AsyncStream, Stream
from llmkit.types import Request

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit._turn import Turn
    from llmkit._work import Backend
    from llmkit.presets import Preset
    from llmkit.types import Flow, Reply

DEFAULT_TIMEOUT_S = 600.0
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
            `attachments` (paths and URLs), `tools` (Python functions, which are called for the model, or
            OpenAI-style schemas), `max_rounds` (calls of the model at the most, 8), `schema` (a pydantic class or a
            JSON schema; the answer is in `reply.parsed`). Everything else goes to the provider unchanged.

    Raises:
        InvalidRequestError: the arguments cannot be sent.
        ConfigError: a preset or the configuration is wrong.
        ProviderError: the provider refused or failed, all tries spent.
        SchemaError: the answer, asked twice, does not fit the schema.
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
    course = Course(_prepare(prompt, model, preset, system, options))
    return Stream(course, backend or real_backend())


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
    course = Course(_prepare(prompt, model, preset, system, options))
    return AsyncStream(course, backend or real_backend())


@cache
def real_backend() -> Backend:
    """Return the backend of real calls; LiteLLM itself is imported with the first request."""
    from llmkit._provider import LiteLLM

    return LiteLLM()


def _ask(prompt: Any, model: Any, preset: Any, system: Any, options: Mapping[str, Any]) -> Flow[Reply]:
    turn = yield from _prepare(prompt, model, preset, system, options)
    return (yield from answer(turn))


def _prepare(
    prompt: Any, model: str | None, preset: str | Preset | None, system: str | None, options: Mapping[str, Any]
) -> Flow[Turn]:
    """Turn the arguments into what is asked; nothing is sent yet."""
    yield from ()
    given = dict(options)
    for name, advice in _REFUSED.items():
        if name in given:
            raise InvalidRequestError(f"{name} cannot be given here: {advice}")
    if model is None and preset is None:
        model, preset = _default()
    chosen = _load(preset)
    timeout = _first(given.pop("timeout", None), chosen and chosen.timeout, DEFAULT_TIMEOUT_S)
    retry = _first(given.pop("retry", None), chosen and chosen.retry_policy(), Retry())
    attachments = given.pop("attachments", ())
    said = messages.build(prompt, system=_first(system, chosen and chosen.system), attachments=attachments)
    params = {**(chosen.set_params() if chosen else {}), **given}
    asked = turn(Plan(routes=(), retry=retry), said, params)
    request = Request(
        model=slashed(_first(model, chosen and chosen.model, config.EMBEDDED_MODEL)),
        timeout_s=messages.seconds(timeout),
        api_key=params.pop("api_key", None),
        api_base=params.pop("api_base", None),
        params=messages.check_params(params),
    )
    return replace(asked, plan=replace(asked.plan, routes=((request,),)))


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
