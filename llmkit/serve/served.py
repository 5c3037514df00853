"""What a server has behind a name: a preset, or somebody's model.py; and the access a caller has to it."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import llmkit
from llmkit import config, ledger, presets
from llmkit._flow import Plan, adrive, call
from llmkit._prepare import DEFAULT_TIMEOUT_S, limiter, requests, with_fallbacks
from llmkit.api import real_backend
from llmkit.budgets import purse
from llmkit.config import EMBEDDED_MODEL
from llmkit.deployments import Deployment, slashed
from llmkit.errors import ConfigError, InvalidRequestError, LlmkitError, ResponseError
from llmkit.retry import USUAL
from llmkit.serve.allowlist import OF_THE_PRESET, PARAMS
from llmkit.serve.context import caller, current
from llmkit.serve.errors import ServeError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

    from llmkit._work import Backend
    from llmkit.serve.context import Caller
    from llmkit.serve.metrics import Metrics
    from llmkit.store import Store
    from llmkit.types import Kind, Message, Piece, Reply

_BOTH = ("https://", "http://")
_HANDED_ON = {
    **dict.fromkeys(("openai", "azure", "openrouter"), _BOTH),
    "anthropic": ("https://",),
}
"""How addresses of pictures begin that a provider is sent as they are."""
_EMBED_BATCH = 128


class PieceStream(Protocol):
    """An answer in pieces, as `llmkit.astream` gives it: iterated once, then `reply`; `aclose` gives it up."""

    @property
    def reply(self) -> Reply:
        """The answer so far."""

    def __aiter__(self) -> AsyncIterator[Piece]:
        """Yield the pieces."""

    async def aclose(self) -> None:
        """Close the connection."""


class Served(ABC):
    """Something that answers under a name. Parameters and messages come through the allow-list.

    Attributes:
        name: under which it is asked.
        client_params: those parameters of `allowlist.OF_THE_PRESET` that clients may set here.
        calls_tools: whether tools are called here for the model, between the pieces of a stream.
        run_timeout_s: seconds for an answer of the polled protocol, None where it has limits of its own.
    """

    name: str
    client_params: frozenset[str] = frozenset()
    calls_tools: bool = False
    run_timeout_s: float | None = None

    @property
    def media_schemes(self) -> tuple[str, ...]:
        """How addresses of pictures may begin that are handed on; nothing is fetched here."""
        return _BOTH

    @property
    def is_stuck(self) -> bool:
        """Whether it cannot answer until the process begins anew."""
        return False

    def meta(self) -> dict[str, Any]:
        """Return its description: at least `name` and `version`; no secrets."""
        return {"name": self.name, "version": "1"}

    async def start(self) -> None:  # noqa: B027 - many have nothing to do
        """Get ready; called once, before the first request."""

    async def stop(self) -> None:  # noqa: B027
        """Let go; called once."""

    @abstractmethod
    async def answer(self, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> Reply:
        """Return the answer, or raise an LlmkitError."""

    @abstractmethod
    def stream(self, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> PieceStream:
        """Return the answer in pieces; it is asked when the first piece is."""

    async def embed(self, texts: Sequence[str], params: Mapping[str, Any], caller: Caller) -> Reply:  # noqa: ARG002
        """Return vectors in `data`, one for each text."""
        raise ServeError(400, f"{self.name!r} makes no vectors", code="unsupported_model", param="model")

    async def transcribe(self, file: tuple[str, bytes], params: Mapping[str, Any], caller: Caller) -> Reply:  # noqa: ARG002
        """Return the text that is spoken in a file, given as its name and bytes."""
        raise ServeError(400, f"{self.name!r} hears no sound", code="unsupported_model", param="model")


@dataclass(frozen=True, slots=True)
class Access:
    """Something served, for one caller: whatever it answers, by whichever protocol, is counted."""

    served: Served
    caller: Caller
    metrics: Metrics

    async def answer(self, messages: Sequence[Message], params: Mapping[str, Any]) -> Reply:
        """Return the answer."""
        current().model = self.served.name
        reply = await self.served.answer(messages, params, self.caller)
        self.metrics.count(self.served.name, reply)
        return reply

    @contextlib.asynccontextmanager
    async def stream(self, messages: Sequence[Message], params: Mapping[str, Any]) -> AsyncGenerator[PieceStream, None]:
        """Give the answer in pieces, and close it at the end."""
        current().model = self.served.name
        stream = self.served.stream(messages, params, self.caller)
        try:
            yield stream
        finally:
            await stream.aclose()
            with contextlib.suppress(RuntimeError):  # it never began
                self.metrics.count(self.served.name, stream.reply)


class Models:
    """Everything that is served, by name.

    Raises:
        ConfigError: two things have one name.
    """

    def __init__(self, served: Sequence[Served], metrics: Metrics) -> None:
        self.served = served
        self._metrics = metrics
        self._by_name = {each.name: each for each in served}
        if len(self._by_name) != len(served):
            names = ", ".join(each.name for each in served)
            raise ConfigError(f"two things cannot be served under one name: {names}")

    def access(self, name: str) -> Access:
        """Return what has the name, for whoever asks.

        Raises:
            ServeError: nothing has it, or the key is not for it.
        """
        asking, served = caller(), self._by_name.get(name)
        if served is None:
            why = f"there is no model {name[:100]!r}; see /v1/models"
            raise ServeError(404, why, code="model_not_found", param="model")
        if not asking.may_ask(name):
            raise ServeError(403, f"this key may not ask {name!r}", code="model_not_allowed", param="model")
        current().model = served.name
        return Access(served, asking, self._metrics)


class ServedPreset(Served):
    """A preset, with its budgets, retries, fallbacks and limits; every call is in the ledger.

    Args:
        name: of the preset, under which it is served.
        preset: what it says.
        store: where ledger and budgets are.
        backend: what sends requests; llmkit's own where it is None.
    """

    def __init__(self, name: str, preset: presets.Preset, store: Store, backend: Backend | None = None) -> None:
        self.name = name
        self.preset = preset
        self.store = store
        self.backend = backend or real_backend()
        self.client_params = OF_THE_PRESET & preset.set_params().keys()
        self.calls_tools = any(isinstance(tool, str) for tool in preset.tools)
        self._ledger = ledger.ledger_of(store)

    def meta(self) -> dict[str, Any]:
        """Return name, version, model and description."""
        version = str(self.preset.version) if self.preset.version is not None else "1"
        description = {"description": self.preset.description} if self.preset.description else {}
        return {"name": self.name, "version": version, "model": self.preset.model, **description}

    @cached_property
    def media_schemes(self) -> tuple[str, ...]:
        """How addresses of pictures may begin: those that all models of the preset hand to their providers."""
        models = [self.preset.model or config.default_choice()[0] or EMBEDDED_MODEL]
        for name in self.preset.fallbacks:
            is_model = "/" in name or ":" in name
            models.append(name if is_model else presets.load(name).model or EMBEDDED_MODEL)
        handed_on = [_HANDED_ON.get(slashed(model).partition("/")[0], ()) for model in models]
        return tuple(scheme for scheme in _BOTH if all(scheme in schemes for schemes in handed_on))

    async def start(self) -> None:
        """Do once what the first call would otherwise wait for; what fails is told with the call.

        The variables are put in, LiteLLM is imported, and a model on this machine is started.

        Raises:
            ConfigError: a tool of the preset cannot be imported.
        """
        from llmkit import _litellm, local, tools
        from llmkit._provider import LiteLLM

        try:
            tools.toolbox(self.preset.tools)
        except InvalidRequestError as error:
            raise ConfigError(f"preset {self.name!r}: {error}") from error
        with contextlib.suppress(ConfigError):
            self.preset = self.preset.filled()
        if isinstance(self.backend, LiteLLM):
            await asyncio.to_thread(_litellm.load)
            kind, _, name = (self.preset.model or EMBEDDED_MODEL).partition("/")
            with contextlib.suppress(LlmkitError):
                if kind == "local":
                    await asyncio.to_thread(local.serve, name)

    async def answer(self, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> Reply:
        """Return the preset's answer; what is in *params* wins over the preset."""
        return await llmkit.aask(messages, **self._arguments(params, caller))

    def stream(self, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> PieceStream:
        """Return the preset's answer in pieces."""
        return llmkit.astream(messages, **self._arguments(params, caller))

    async def embed(self, texts: Sequence[str], params: Mapping[str, Any], caller: Caller) -> Reply:
        """Return vectors in `data`, one for each text, with what they cost."""
        batches = [texts[start : start + _EMBED_BATCH] for start in range(0, len(texts), _EMBED_BATCH)]
        replies = [await self._call("embed", {**params, "input": list(batch)}, caller) for batch in batches]
        vectors = [vector for reply in replies for vector in reply.data]
        if len(vectors) != len(texts):
            raise ResponseError(f"{replies[0].model} gave {len(vectors)} vectors for {len(texts)} texts")
        usage = sum((reply.usage for reply in replies[1:]), replies[0].usage)
        return replace(replies[0], usage=usage, data=vectors)

    async def transcribe(self, file: tuple[str, bytes], params: Mapping[str, Any], caller: Caller) -> Reply:
        """Return the text that is spoken in a file, given as its name and bytes."""
        return await self._call("transcribe", {"file": file, **params}, caller)

    async def _call(self, kind: Kind, params: Mapping[str, Any], caller: Caller) -> Reply:
        """Return the reply to something that is no chat, from the preset or its fallbacks."""
        preset = self.preset.filled()
        chain = {self.name: preset, **with_fallbacks(preset.fallbacks)}
        routes = [(name, (Deployment.of_preset(each),)) for name, each in chain.items()]
        labels = self._labels(caller)
        plan = Plan(
            routes=requests(routes, kind, params, preset.timeout or DEFAULT_TIMEOUT_S),
            retry=preset.retry_policy() or USUAL,
            limiter=limiter(preset),
            ledger=self._ledger,
            purse=purse(labels.get("budget"), self.store),
            marks=ledger.marks(self.name, "", labels["tags"]),
        )
        return replace(await adrive(call(plan), self.backend), name=self.name)

    def _arguments(self, params: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
        """Return the arguments of a call; nothing but what the allow-list has comes from the client."""
        if others := params.keys() - PARAMS:
            raise AssertionError(f"these are no parameters of a client: {sorted(others)}")
        preset, allowed = self.preset, dict(params)
        if "store" in allowed:  # llmkit's own word for something else; OpenAI's goes by way of the preset
            kept = preset.params.model_copy(update={"store": allowed.pop("store")})
            preset = preset.model_copy(update={"params": kept})
        own = {"preset": preset, "store": self.store, "ledger": self._ledger, "backend": self.backend}
        return {**allowed, **own, **self._labels(caller)}

    def _labels(self, caller: Caller) -> dict[str, Any]:
        """Return the tags and budgets of a call: the preset's and the key's."""
        own = [self.preset.budget] if isinstance(self.preset.budget, str) else list(self.preset.budget or ())
        budgets = [*own, *([caller.budget] if caller.budget else [])]
        return {"tags": [f"key:{caller.name}"] if caller.name else []} | ({"budget": budgets} if budgets else {})
