"""The things a server serves under names, and a caller's access to them."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from llmkit.errors import ConfigError
from llmkit.serve.context import caller, current
from llmkit.serve.errors import ServeError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

    from llmkit.core.types import Message, Piece, Reply
    from llmkit.presets import Preset
    from llmkit.presets.values import Scalar
    from llmkit.serve.context import Caller
    from llmkit.serve.metrics import Metrics

BOTH_SCHEMES = ("https://", "http://")


class PieceStream(Protocol):
    """An answer in pieces, like that of `llmkit.astream`: iterated once, then `reply`; `aclose` gives it up."""

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
        name: the name to serve it under.
        client_params: those parameters of `allowlist.OF_THE_PRESET` that clients may set here.
        calls_tools: whether tools are called here for the model, between the pieces of a stream.
        preset: the preset that answers, or None.
        run_timeout_s: seconds for an answer of the polled protocol, or None if it has limits of its own.
    """

    name: str
    client_params: frozenset[str] = frozenset()
    calls_tools: bool = False
    preset: Preset | None = None
    run_timeout_s: float | None = None

    @property
    def media_schemes(self) -> tuple[str, ...]:
        """The URL schemes allowed for images, which are passed on; nothing is fetched here."""
        return BOTH_SCHEMES

    @property
    def client_variables(self) -> Mapping[str, Scalar | None]:
        """The variables that clients may set for a conversation, with their defaults, or None if a value is needed."""
        return {}

    @property
    def is_stuck(self) -> bool:
        """Whether it cannot answer until the process restarts."""
        return False

    def meta(self) -> dict[str, Any]:
        """Return its description: at least `name` and `version`, and no secrets."""
        return {"name": self.name, "version": "1"}

    def given(self, variables: Mapping[str, Scalar]) -> Served:
        """Return it with values for its variables.

        Raises:
            ServeError: it has no such variable for clients, or one has no value.
        """
        if variables:
            field = f"variables.{min(variables)[:100]}"
            raise ServeError(400, f"{field}: {self.name!r} has no variables", code="field_not_allowed", param=field)
        return self

    def snapshot(self) -> dict[str, Any]:
        """Return what a conversation stores of it, as a preset's file would have it."""
        return {"model": self.name}

    async def start(self) -> None:  # noqa: B027 - many have nothing to do
        """Get ready; called once, before the first request."""

    async def stop(self) -> None:  # noqa: B027
        """Release resources; called once."""

    @abstractmethod
    async def answer(self, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> Reply:
        """Return the answer, or raise an LlmkitError."""

    @abstractmethod
    def stream(self, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> PieceStream:
        """Return the answer in pieces; the request is sent with the first."""

    async def embed(self, texts: Sequence[str], params: Mapping[str, Any], caller: Caller) -> Reply:  # noqa: ARG002
        """Return embeddings in `data`, one for each text."""
        raise ServeError(400, f"{self.name!r} makes no vectors", code="unsupported_model", param="model")

    async def transcribe(self, file: tuple[str, bytes], params: Mapping[str, Any], caller: Caller) -> Reply:  # noqa: ARG002
        """Return the transcription of a file, given as its name and bytes."""
        raise ServeError(400, f"{self.name!r} hears no sound", code="unsupported_model", param="model")


@dataclass(frozen=True, slots=True)
class Access:
    """Something served, for one caller: every answer, by whichever protocol, is counted."""

    served: Served
    caller: Caller
    metrics: Metrics

    def given(self, variables: Mapping[str, Scalar]) -> Access:
        """Return the same with values for its variables."""
        return replace(self, served=self.served.given(variables))

    async def answer(self, messages: Sequence[Message], params: Mapping[str, Any]) -> Reply:
        """Return the answer."""
        return self._counted(await self.served.answer(messages, params, self.caller))

    async def embed(self, texts: Sequence[str], params: Mapping[str, Any]) -> Reply:
        """Return embeddings in `data`, one for each text."""
        return self._counted(await self.served.embed(texts, params, self.caller))

    async def transcribe(self, file: tuple[str, bytes], params: Mapping[str, Any]) -> Reply:
        """Return the transcription of a file, given as its name and bytes."""
        return self._counted(await self.served.transcribe(file, params, self.caller))

    @contextlib.asynccontextmanager
    async def stream(self, messages: Sequence[Message], params: Mapping[str, Any]) -> AsyncGenerator[PieceStream, None]:
        """Yield the answer in pieces, and close it at the end."""
        stream = self.served.stream(messages, params, self.caller)
        try:
            yield stream
        finally:
            await stream.aclose()
            with contextlib.suppress(RuntimeError):  # it never began
                self._counted(stream.reply)

    def _counted(self, reply: Reply) -> Reply:
        self.metrics.count(self.served.name, reply)
        return reply


class Models:
    """Everything that is served, by name.

    Raises:
        ConfigError: two things have the same name.
    """

    def __init__(self, served: Sequence[Served], metrics: Metrics) -> None:
        self.served = served
        self._metrics = metrics
        self._by_name = {item.name: item for item in served}
        if len(self._by_name) != len(served):
            names = ", ".join(item.name for item in served)
            raise ConfigError(f"two things cannot be served under one name: {names}")

    def access(self, name: str) -> Access:
        """Return what is served under the name, for the current caller.

        Raises:
            ServeError: nothing has the name, or the key does not allow it.
        """
        asking, served = caller(), self._by_name.get(name)
        if served is None:
            why = f"there is no model {name[:100]!r}; see /v1/models"
            raise ServeError(404, why, code="model_not_found", param="model")
        if not asking.may_ask(name):
            raise ServeError(403, f"this key may not ask {name!r}", code="model_not_allowed", param="model")
        current().model = served.name
        return Access(served, asking, self._metrics)
