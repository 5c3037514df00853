"""`MultiAIClient`: one client for many deployments, with cost tracking. Arguments only; the policy is in the flows."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llmkit.api import real_backend
from llmkit.core import messages as shapes
from llmkit.core.call import call
from llmkit.core.engine import adrive, drive
from llmkit.core.params import refuse
from llmkit.core.retry import ONCE, Retry, of_call
from llmkit.core.streams import AsyncManaged, AsyncStream, Managed, Stream
from llmkit.core.tool_loop import StreamedTurn, answer, ready
from llmkit.errors import InvalidRequestError
from llmkit.money import ledger as ledgers
from llmkit.money.account import PATIENCE_S, UsageTracker
from llmkit.money.guard import guard_of
from llmkit.money.quotes import quote_of
from llmkit.prepare import DEFAULT_TIMEOUT_S, Terms, build, plan_of, with_fallbacks
from llmkit.prepare.deployed import ELSEWHERE, Deployed, Resolution
from llmkit.providers import model_info
from llmkit.providers.deployments import Deployment, Model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pydantic import BaseModel
    from typing_extensions import Self, Unpack

    from llmkit.core.engine import Backend
    from llmkit.core.tool_loop import Turn
    from llmkit.core.types import Flow, Kind, Message, Parsed, Reply
    from llmkit.money.account import Charge
    from llmkit.money.budgets import Budget
    from llmkit.money.ledger import Ledger
    from llmkit.money.quotes import Quote
    from llmkit.prepare.options import CallOptions, MediaOptions, TranscribeOptions
    from llmkit.presets import Preset


_HERE = "to a call of a client"


class MultiAIClient(Managed, AsyncManaged):
    """For a program that calls models by names of its own: deployments, fallbacks, and each call counted.

    Safe to use from many threads and event loops.

    Args:
        deployments: for each logical name a Deployment, or a list whose members share the load and replace one another.
        increment_usage: called as `increment_usage(price, model)` after each paid answer, sync or async; if it
            returns False, `reply.over_limit` is set. If it fails, the reply carries a warning.
        get_usage: called before each call, sync or async; False refuses the call, a number must be below *max_usage*.
        max_usage: no call is made unless `get_usage` (without it, `total_usage`) is below this.
        fallbacks: for a logical name the names to try instead, in order, if it fails.
        retry: how often each model is tried, unless the call sets it.
        timeout: seconds for one answer; for a stream, the longest silence.
        callback_timeout: seconds an async call waits for `increment_usage`; then the answer comes back with a
            warning, and the callback goes on. A sync call runs it on the caller's own thread, and waits.
        ledger: where each attempt is recorded: a Ledger, a store's URL, or True for the configured store.
        budget: what all calls together may cost: a Budget, the name of one in the store, or several.
        backend: what sends the requests; for tests, see `llmkit.testing`.

    Raises:
        ConfigError: a fallback names a model without a deployment, or an entry is not a Deployment.
    """

    def __init__(
        self,
        deployments: Mapping[Model, Deployment | Sequence[Deployment]],
        *,
        increment_usage: Callable[[float, Model], Any] | None = None,
        get_usage: Callable[[], Any] | None = None,
        max_usage: float | None = None,
        fallbacks: Mapping[Model, Sequence[Model]] | None = None,
        retry: Retry | None = None,
        timeout: float = DEFAULT_TIMEOUT_S,
        callback_timeout: float = PATIENCE_S,
        ledger: Ledger | bool | str | None = None,
        budget: Budget | str | Sequence[Budget | str] | None = None,
        backend: Backend | None = None,
    ) -> None:
        self._deployed = Deployed(deployments, fallbacks or {})
        self._account = UsageTracker(increment_usage, get_usage, max_usage, shapes.seconds(callback_timeout))
        self._retry = retry
        self._ledger = ledgers.chosen(ledger)
        self._guard = guard_of(budget)
        self._timeout_s = shapes.seconds(timeout)
        self._backend = backend or real_backend()
        self._presets: Mapping[Model, Preset] = {}
        self._closed = False

    @classmethod
    def from_presets(cls, names: Sequence[str], **settings: Any) -> Self:
        """Return a client whose logical names are those of presets, with their fallbacks, retries and messages.

        *settings* are the other arguments of the client. Presets used as fallbacks need not be listed.

        Raises:
            PresetError: a preset is unknown or wrong.
        """
        loaded = with_fallbacks(names)
        deployments = {name: Deployment.of_preset(preset) for name, preset in loaded.items()}
        fallbacks = {name: preset.fallbacks for name, preset in loaded.items() if preset.fallbacks}
        client = cls(deployments, **{"fallbacks": fallbacks, **settings})
        client._presets = loaded
        return client

    # -- chat ----------------------------------------------------------------------------------------------------

    def invoke(
        self,
        messages: str | Sequence[Message],
        model: Model,
        system: str | None = None,
        delay: float | None = None,
        tries: int | None = None,
        *,
        schema: type[Parsed] | Mapping[str, Any] | None = None,
        **kwargs: Unpack[CallOptions],
    ) -> Reply[Parsed]:
        """Return the answer; `.choices[0].message.content` works as with OpenAI's SDK.

        Args:
            messages: OpenAI-style messages, or a string; the list is not changed.
            model: the logical name.
            system: the system message.
            delay: seconds between tries, a lower bound (0); see `tries`.
            tries: HTTP requests at most (1), for each deployment of the model.
            schema: a pydantic class or a JSON schema that the answer must fit; the object is in `reply.parsed`.
            kwargs: `timeout`, `tools`, `max_rounds` as for `llmkit.ask`; everything else goes to the provider
                unchanged. `drop_params=True` lets LiteLLM leave out what the provider does not accept, which is then
                a warning on the reply.

        Raises:
            InvalidRequestError: the model is not deployed, or the arguments cannot be sent.
            BudgetExceededError: `get_usage` or `max_usage` refuses the call.
            ProviderError: all tries and fallbacks failed; it is a ValueError, caused by the provider's error.
        """
        return drive(answer(self._turn(messages, model, system, delay, tries, schema, kwargs)), self._backend)

    async def ainvoke(
        self,
        messages: str | Sequence[Message],
        model: Model,
        system: str | None = None,
        delay: float | None = None,
        tries: int | None = None,
        *,
        schema: type[Parsed] | Mapping[str, Any] | None = None,
        **kwargs: Unpack[CallOptions],
    ) -> Reply[Parsed]:
        """Async version of `invoke`: same arguments and errors."""
        return await adrive(answer(self._turn(messages, model, system, delay, tries, schema, kwargs)), self._backend)

    def invoke_to_str(
        self,
        messages: str | Sequence[Message],
        model: Model,
        system: str | None = None,
        delay: float | None = None,
        tries: int | None = None,
        *,
        schema: type[BaseModel] | Mapping[str, Any] | None = None,
        **kwargs: Unpack[CallOptions],
    ) -> str | None:
        """Return the text of the answer, or None if it has none. Arguments and errors as for `invoke`."""
        return _text(self.invoke(messages, model, system, delay, tries, schema=schema, **kwargs))

    async def ainvoke_to_str(
        self,
        messages: str | Sequence[Message],
        model: Model,
        system: str | None = None,
        delay: float | None = None,
        tries: int | None = None,
        *,
        schema: type[BaseModel] | Mapping[str, Any] | None = None,
        **kwargs: Unpack[CallOptions],
    ) -> str | None:
        """Async version of `invoke_to_str`: same arguments and errors."""
        return _text(await self.ainvoke(messages, model, system, delay, tries, schema=schema, **kwargs))

    def stream(
        self,
        messages: str | Sequence[Message],
        model: Model,
        system: str | None = None,
        delay: float | None = None,
        tries: int | None = None,
        *,
        schema: type[BaseModel] | Mapping[str, Any] | None = None,
        **kwargs: Unpack[CallOptions],
    ) -> Stream:
        """Return the answer piece by piece; every piece has `.content`. Arguments and errors as for `invoke`."""
        return Stream(self._course(messages, model, system, delay, tries, schema, kwargs), self._backend)

    def astream(
        self,
        messages: str | Sequence[Message],
        model: Model,
        system: str | None = None,
        delay: float | None = None,
        tries: int | None = None,
        *,
        schema: type[BaseModel] | Mapping[str, Any] | None = None,
        **kwargs: Unpack[CallOptions],
    ) -> AsyncStream:
        """Return the answer piece by piece, for `async for`. Arguments and errors as for `invoke`."""
        return AsyncStream(self._course(messages, model, system, delay, tries, schema, kwargs), self._backend)

    def quote(
        self, messages: str | Sequence[Message], model: Model, system: str | None = None, **kwargs: Unpack[CallOptions]
    ) -> Quote:
        """Return what `invoke` with these arguments would cost; nothing is sent."""
        return drive(quote_of(self._turn(messages, model, system, None, None, None, kwargs)), self._backend)

    # -- audio, images, embeddings --------------------------------------------------------------------------------

    def transcribe(self, file: str | Path | bytes | Any, model: Model, **kwargs: Unpack[TranscribeOptions]) -> Reply:
        """Return the transcription of an audio file: a path, bytes, an open file, or a pair of name and bytes.

        Audio is billed by the begun second. Whisper is asked for its verbose format, which has the duration; if an
        answer has none, give `duration` (seconds), or the price stays unknown. `delay` and `tries` as for `invoke`.
        """
        return drive(self._other("transcribe", model, shapes.audio(file, kwargs)), self._backend)

    async def atranscribe(
        self, file: str | Path | bytes | Any, model: Model, **kwargs: Unpack[TranscribeOptions]
    ) -> Reply:
        """Async version of `transcribe`: same arguments."""
        return await adrive(self._other("transcribe", model, shapes.audio(file, kwargs)), self._backend)

    def speak(self, text: str, model: Model, voice: str = "alloy", **kwargs: Unpack[MediaOptions]) -> Reply:
        """Return the text as speech; `reply.data` is the audio's bytes."""
        return drive(self._other("speak", model, shapes.speech(text, voice, kwargs)), self._backend)

    async def aspeak(self, text: str, model: Model, voice: str = "alloy", **kwargs: Unpack[MediaOptions]) -> Reply:
        """Async version of `speak`; `reply.data` is the audio's bytes."""
        return await adrive(self._other("speak", model, shapes.speech(text, voice, kwargs)), self._backend)

    def image(self, prompt: str, model: Model, **kwargs: Unpack[MediaOptions]) -> Reply:
        """Return images; `reply.data` is a list with the Base64 text or the URL of each."""
        return drive(self._other("image", model, {"prompt": prompt, **kwargs}), self._backend)

    async def aimage(self, prompt: str, model: Model, **kwargs: Unpack[MediaOptions]) -> Reply:
        """Async version of `image`; `reply.data` is a list with the Base64 text or the URL of each."""
        return await adrive(self._other("image", model, {"prompt": prompt, **kwargs}), self._backend)

    def embed(self, texts: str | Sequence[str], model: Model, **kwargs: Unpack[MediaOptions]) -> list[list[float]]:
        """Return one embedding for each text, in the same order: shape (number of texts, dimensions).

        Many texts are sent in batches of 128, or of `batch`.
        """
        return drive(self._embed(texts, model, kwargs), self._backend)

    async def aembed(
        self, texts: str | Sequence[str], model: Model, **kwargs: Unpack[MediaOptions]
    ) -> list[list[float]]:
        """Async version of `embed`: same arguments."""
        return await adrive(self._embed(texts, model, kwargs), self._backend)

    # -- the client itself ----------------------------------------------------------------------------------------

    @property
    def deployments(self) -> Mapping[Model, Sequence[Deployment]]:
        """The deployments of each model, as they were given."""
        return MappingProxyType(self._deployed.by_model)

    @property
    def total_usage(self) -> float:
        """The cost of all answers so far in US dollars, as far as prices are known."""
        return self._account.total_usd

    @property
    def usages(self) -> list[Charge]:
        """The last 1,000 paid answers, oldest first; a Ledger keeps all of them."""
        return list(self._account.charges)

    def resolve(self, model: Model) -> Resolution:
        """Return the deployment that would be tried first for *model*, and its price; nothing is sent."""
        deployment = self._deployed.of(model)[0]
        price, source = deployment.find_price() or (model_info.price(deployment.priced_as), "litellm")
        return Resolution(deployment=deployment, price=price, source=source if price else "")

    def close(self) -> None:
        """Make no more calls with this client. Connections belong to the process, which closes them."""
        self._closed = True

    async def aclose(self) -> None:
        """Make no more calls with this client."""
        self.close()

    # -- from arguments to plans ----------------------------------------------------------------------------------

    def _course(self, *arguments: Any) -> StreamedTurn:
        return StreamedTurn(ready(self._turn(*arguments)))  # wrong arguments are refused here, not with the first piece

    def _turn(
        self, messages: Any, model: Model, system: Any, delay: Any, tries: Any, schema: Any, kwargs: Mapping[str, Any]
    ) -> Turn:
        refuse(kwargs, ELSEWHERE, _HERE)
        options = {**kwargs, "retry": of_call(delay, tries, kwargs.get("retry"))}
        options |= {} if schema is None else {"schema": schema}
        return build(messages, system, self._presets.get(model), self._routes(model), options, self._terms())

    def _other(self, kind: Kind, model: Model, kwargs: Mapping[str, Any]) -> Flow[Reply]:
        refuse(kwargs, ELSEWHERE, _HERE)
        params = dict(kwargs)
        params["retry"] = of_call(*(params.pop(name, None) for name in ("delay", "tries", "retry")))
        return (yield from call(plan_of(self._routes(model), kind, params, self._terms())))

    def _terms(self) -> Terms:
        return Terms(
            retry=ONCE if self._retry is None else self._retry,
            timeout_s=self._timeout_s,
            account=self._account,
            ledger=self._ledger,
            guard=self._guard,
        )

    def _embed(self, texts: str | Sequence[str], model: Model, kwargs: Mapping[str, Any]) -> Flow[list[list[float]]]:
        wanted, params = shapes.texts(texts), dict(kwargs)
        size = shapes.whole_number("batch", params.pop("batch", shapes.EMBED_BATCH))
        vectors: list[list[float]] = []
        for part in shapes.batches(wanted, size):
            reply = yield from self._other("embed", model, {**params, "input": part})
            vectors += shapes.vectors_of([reply], part)
        return vectors

    def _routes(self, model: Model) -> list[tuple[str, Sequence[Deployment]]]:
        if self._closed:
            raise InvalidRequestError("the client is closed")
        return self._deployed.routes(model)


def _text(reply: Reply) -> str | None:
    """Return the text, or None (not "") if the provider gave no choice or no content."""
    return reply.text if reply.choices and reply.choices[0].message.content is not None else None
