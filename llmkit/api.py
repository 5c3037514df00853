"""The shortest way to an answer: `ask`, `aask`, `stream`, `astream`. Arguments only, no policy of its own."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from llmkit.core.engine import adrive, drive
from llmkit.core.streams import AsyncStream, Stream
from llmkit.core.tool_loop import StreamedTurn, answer
from llmkit.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import BaseModel
    from typing_extensions import Unpack

    from llmkit.core.engine import Backend
    from llmkit.core.tool_loop import Turn
    from llmkit.core.types import Flow, Parsed, Reply
    from llmkit.money.quotes import Quote
    from llmkit.prepare.options import AskOptions
    from llmkit.presets import Preset


def ask(
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    model: str | None = None,
    preset: str | Preset | None = None,
    system: str | None = None,
    schema: type[Parsed] | Mapping[str, Any] | None = None,
    backend: Backend | None = None,
    **options: Unpack[AskOptions],
) -> Reply[Parsed]:
    """Return a model's answer.

    If neither *model* nor *preset* is given, the default is `LLMKIT_MODEL` or `LLMKIT_PRESET`, then the configured
    one, then the embedded model. Arguments given here win over the preset.

    Args:
        prompt: a string, or a list of OpenAI-style messages (text, image and audio parts).
        model: LiteLLM's `provider/model` (`provider:model` too), `local/smollm2`, or `local/PATH.gguf`.
        preset: the name of a preset, or a Preset.
        system: the system message.
        schema: a pydantic class or a JSON schema that the answer must fit; the object is in `reply.parsed`.
        backend: what sends the request; for tests, see `llmkit.testing`.
        options: `timeout` (seconds for the answer, 600), `api_key`, `api_base`, `retry` (a Retry, or the number of
            tries; 3), `variables` (of the preset), `attachments` (paths and URLs), `ledger` and `tags` (where and how
            each attempt is recorded), `budget` (a name or a Budget, or several), `tools` (Python functions, which are
            called for the model, or OpenAI-style schemas), `max_rounds` (calls of the model at most, 8). Everything
            else goes to the provider unchanged; a parameter that type checkers do not know goes in `extra_body`.

    Raises:
        InvalidRequestError: the arguments cannot be sent.
        ConfigError: a preset or the configuration is wrong.
        ProviderError: the provider refused or failed, all tries spent.
        SchemaError: the answer does not fit the schema, even the second time.
        LocalModelError: the embedded model cannot be fetched or started.
    """
    return drive(_ask(prompt, model, preset, system, _with(options, schema)), backend or real_backend())


async def aask(
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    model: str | None = None,
    preset: str | Preset | None = None,
    system: str | None = None,
    schema: type[Parsed] | Mapping[str, Any] | None = None,
    backend: Backend | None = None,
    **options: Unpack[AskOptions],
) -> Reply[Parsed]:
    """Return a model's answer. Async version of `ask`: same arguments and errors."""
    return await adrive(_ask(prompt, model, preset, system, _with(options, schema)), backend or real_backend())


def stream(
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    model: str | None = None,
    preset: str | Preset | None = None,
    system: str | None = None,
    schema: type[BaseModel] | Mapping[str, Any] | None = None,
    backend: Backend | None = None,
    **options: Unpack[AskOptions],
) -> Stream:
    """Return a model's answer piece by piece; the request is sent with the first. Arguments as for `ask`.

    Here `timeout` is the longest silence; a provider that sends pings is not silent. Iteration raises the errors of
    `ask`, and a ProviderError with the text so far in `partial` if the answer is cut; `.reply` comes after the end.
    """
    course = StreamedTurn(_prepared(prompt, model, preset, system, _with(options, schema)))
    return Stream(course, backend or real_backend())


def astream(
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    model: str | None = None,
    preset: str | Preset | None = None,
    system: str | None = None,
    schema: type[BaseModel] | Mapping[str, Any] | None = None,
    backend: Backend | None = None,
    **options: Unpack[AskOptions],
) -> AsyncStream:
    """Return a model's answer piece by piece, for `async for`. Arguments and errors as for `stream`."""
    course = StreamedTurn(_prepared(prompt, model, preset, system, _with(options, schema)))
    return AsyncStream(course, backend or real_backend())


def quote(
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    model: str | None = None,
    preset: str | Preset | None = None,
    system: str | None = None,
    schema: type[BaseModel] | Mapping[str, Any] | None = None,
    **options: Unpack[AskOptions],
) -> Quote:
    """Return what `ask` with these arguments would cost, whether it fits, and whether a budget refuses it.

    Nothing is sent. With tools it is the price of the first round.
    """
    return drive(_quoted(prompt, model, preset, system, _with(options, schema)), real_backend())


async def aquote(
    prompt: str | Sequence[Mapping[str, Any]],
    *,
    model: str | None = None,
    preset: str | Preset | None = None,
    system: str | None = None,
    schema: type[BaseModel] | Mapping[str, Any] | None = None,
    **options: Unpack[AskOptions],
) -> Quote:
    """Return what `aask` with these arguments would cost. Async version of `quote`."""
    return await adrive(_quoted(prompt, model, preset, system, _with(options, schema)), real_backend())


@cache
def real_backend() -> Backend:
    """Return the backend of real calls; each provider is imported with the first request for it."""
    from llmkit.providers import Providers

    return Providers()


def _with(options: Mapping[str, Any], schema: Any) -> dict[str, Any]:
    """Return the options of a call; without a schema the preset's holds."""
    return {**options} if schema is None else {**options, "schema": schema}


def _ask(*arguments: Any) -> Flow[Reply[Any]]:
    return (yield from answer((yield from _prepared(*arguments))))


def _quoted(*arguments: Any) -> Flow[Quote]:
    from llmkit.money.quotes import quote_of

    return (yield from quote_of((yield from _prepared(*arguments))))


def _prepared(*arguments: Any) -> Flow[Turn]:
    """Prepare inside the flow, so that wrong arguments raise with the first piece or the answer."""
    yield from ()
    return prepare(*arguments)
