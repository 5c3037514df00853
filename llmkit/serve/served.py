"""What a server has behind a name: a preset, or somebody's model.py; and who asks."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import llmkit
from llmkit import config, presets
from llmkit.config import EMBEDDED_MODEL
from llmkit.deployments import slashed
from llmkit.errors import ConfigError, InvalidRequestError, LlmkitError
from llmkit.serve.allowlist import OF_THE_PRESET, PARAMS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from llmkit._work import Backend
    from llmkit.store import Store
    from llmkit.types import Message, Piece, Reply

_BOTH = ("https://", "http://")
_HANDED_ON = {
    **dict.fromkeys(("openai", "azure", "openrouter"), _BOTH),
    "anthropic": ("https://",),
}
"""How addresses of pictures begin that a provider is sent as they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks.

    Attributes:
        name: of the key; "" where the server asks for none.
        budget: the name of the key's budget, None for none.
        models: the names it may ask, None for all.
        id: tells the key from others that had its name before; "" where there is none.
        since: when the key was made, seconds since 1970.
    """

    name: str = ""
    budget: str | None = None
    models: frozenset[str] | None = None
    id: str = field(default="", compare=False)
    since: float = field(default=0.0, compare=False)

    def may_ask(self, model: str) -> bool:
        """Tell whether the key is for this model."""
        return self.models is None or model in self.models


class PieceStream(Protocol):
    """An answer in pieces, as `llmkit.astream` gives it: iterated once, then `reply`; `aclose` gives it up."""

    @property
    def reply(self) -> Reply:
        """The answer so far."""

    def __aiter__(self) -> AsyncIterator[Piece]:
        """Yield the pieces."""

    async def aclose(self) -> None:
        """Close the connection."""


class Served(Protocol):
    """Something that answers under a name. Parameters and messages come through the allow-list.

    It may have more: `client_params`, `media_schemes` (see `allowlist`), `calls_tools`, `is_stuck`, `run_timeout_s`
    (of the polled protocol), `embed`, `transcribe`, `predict`.
    """

    name: str

    def meta(self) -> dict[str, Any]:
        """Return what is told of it: at least `name` and `version`; no secrets."""

    async def start(self) -> None:
        """Get ready; called once, before the first request."""

    async def stop(self) -> None:
        """Let go; called once."""

    async def answer(self, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> Reply:
        """Return the answer, or raise an LlmkitError."""

    def stream(self, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> PieceStream:
        """Return the answer in pieces; it is asked when the first piece is."""


@dataclass
class ServedPreset:
    """A preset, with its budgets, retries, fallbacks and limits; every call is in the ledger.

    Attributes:
        name: of the preset, under which it is served.
        preset: what it says.
        store: where ledger and budgets are.
        backend: what sends requests; llmkit's own where it is None.
    """

    name: str
    preset: presets.Preset
    store: Store
    backend: Backend | None = None
    _options: dict[str, Any] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Note what all calls have in common."""
        from llmkit.ledger import ledger_of

        self._options = {"preset": self.preset, "store": self.store, "ledger": ledger_of(self.store)}
        self._options |= {"backend": self.backend} if self.backend is not None else {}

    def meta(self) -> dict[str, Any]:
        """Return name, version, model and description."""
        version = str(self.preset.version) if self.preset.version is not None else "1"
        found = {"name": self.name, "version": version, "model": self.preset.model}
        return found | ({"description": self.preset.description} if self.preset.description else {})

    @property
    def client_params(self) -> frozenset[str]:
        """The parameters that are the preset's to set, and that it sets, so that clients may too."""
        return OF_THE_PRESET & self.preset.set_params().keys()

    @cached_property
    def media_schemes(self) -> tuple[str, ...]:
        """How addresses of pictures may begin: those that all models of the preset hand to their providers."""
        models = [self.preset.model or config.default_choice()[0] or EMBEDDED_MODEL]
        for name in self.preset.fallbacks:
            is_model = "/" in name or ":" in name
            models.append(name if is_model else presets.load(name).model or EMBEDDED_MODEL)
        handed_on = [_HANDED_ON.get(slashed(model).partition("/")[0], ()) for model in models]
        return tuple(scheme for scheme in _BOTH if all(scheme in schemes for schemes in handed_on))

    @property
    def calls_tools(self) -> bool:
        """Whether the preset names Python functions, which are called here for the model."""
        return any(isinstance(tool, str) for tool in self.preset.tools)

    async def start(self) -> None:
        """Do once what the first call would else wait for; what fails is told with the call.

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
            self._options["preset"] = self.preset.filled()
        if self.backend is None or isinstance(self.backend, LiteLLM):
            await asyncio.to_thread(_litellm.load)
            kind, _, name = (self.preset.model or EMBEDDED_MODEL).partition("/")
            with contextlib.suppress(LlmkitError):
                if kind == "local":
                    await asyncio.to_thread(local.serve, name)

    async def stop(self) -> None:
        """Do nothing."""

    async def answer(self, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> Reply:
        """Return the preset's answer; what is in *params* wins over the preset."""
        return await llmkit.aask(messages, **self._arguments(params, caller))

    def stream(self, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> PieceStream:
        """Return the preset's answer in pieces."""
        return llmkit.astream(messages, **self._arguments(params, caller))

    async def embed(self, texts: Sequence[str], params: Mapping[str, Any], caller: Caller) -> Reply:
        """Return vectors in `data`, one for each text, with what they cost."""
        from llmkit.serve._beside import embed

        return await embed(self.preset, self._options, self._marks(caller), texts, params)

    async def transcribe(self, file: tuple[str, bytes], params: Mapping[str, Any], caller: Caller) -> Reply:
        """Return the text that is spoken in a file, given as its name and bytes."""
        from llmkit.serve._beside import transcribe

        return await transcribe(self.preset, self._options, self._marks(caller), file, params)

    def _arguments(self, params: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
        """Return the arguments of a call; nothing but what the allow-list has comes from the client."""
        if others := params.keys() - PARAMS:
            raise AssertionError(f"these are no parameters of a client: {sorted(others)}")
        options, given = {**self._options, **self._marks(caller)}, dict(params)
        if "store" in given:  # llmkit's own word for something else; OpenAI's goes by way of the preset
            preset: presets.Preset = options["preset"]
            kept = preset.params.model_copy(update={"store": given.pop("store")})
            options["preset"] = preset.model_copy(update={"params": kept})
        return {**given, **options}

    def _marks(self, caller: Caller) -> dict[str, Any]:
        budgets = [*_several(self.preset.budget), *_several(caller.budget)]
        tags = [f"key:{caller.name}"] if caller.name else []
        return {"tags": tags} | ({"budget": budgets} if budgets else {})


def _several(budget: str | Sequence[str] | None) -> list[str]:
    if budget is None:
        return []
    return [budget] if isinstance(budget, str) else list(budget)
