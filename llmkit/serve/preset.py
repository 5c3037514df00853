"""A preset under a name: called with its budgets, retries, fallbacks and limits, and recorded in the ledger."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import re
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import llmkit
from llmkit import config, presets
from llmkit.api import real_backend
from llmkit.config import EMBEDDED_MODEL
from llmkit.core.call import call
from llmkit.core.engine import adrive
from llmkit.core.messages import batches, vectors_of
from llmkit.errors import ConfigError, InvalidRequestError, LlmkitError
from llmkit.money import ledger
from llmkit.money.guard import guard_of
from llmkit.prepare import Terms, plan_of, with_fallbacks
from llmkit.providers import Providers
from llmkit.providers.deployments import Deployment
from llmkit.providers.model_info import full_name
from llmkit.serve.allowlist import OF_THE_PRESET, PARAMS
from llmkit.serve.context import current
from llmkit.serve.errors import ServeError
from llmkit.serve.served import BOTH_SCHEMES, Served

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.core.engine import Backend
    from llmkit.core.types import Kind, Message, Reply
    from llmkit.presets.values import Scalar
    from llmkit.serve.context import Caller
    from llmkit.serve.served import PieceStream
    from llmkit.store import Store

_HANDED_ON = {
    **dict.fromkeys(("openai", "azure", "openrouter"), BOTH_SCHEMES),
    "anthropic": ("https://",),
}
"""The URL schemes of images that a provider is sent as they are."""


class ServedPreset(Served):
    """A preset, with its budgets, retries, fallbacks and limits; every call is in the ledger.

    Args:
        name: of the preset, and the name to serve it under.
        preset: the preset.
        store: the store of the ledger and the budgets.
        backend: what sends the requests; llmkit's own if None.
    """

    def __init__(self, name: str, preset: presets.Preset, store: Store, backend: Backend | None = None) -> None:
        self.name = name
        self.preset: presets.Preset = preset
        self.store = store
        self.backend = backend or real_backend()
        self.client_params = OF_THE_PRESET & preset.set_params().keys()
        self.calls_tools = any(isinstance(tool, str) for tool in preset.tools)
        self._ledger = ledger.ledger_of(store)
        self._unfilled = preset

    def meta(self) -> dict[str, Any]:
        """Return name, version, model and description."""
        version = str(self.preset.version) if self.preset.version is not None else "1"
        description = {"description": self.preset.description} if self.preset.description else {}
        return {"name": self.name, "version": version, "model": self.preset.model, **description}

    @cached_property
    def media_schemes(self) -> tuple[str, ...]:
        """The URL schemes allowed for images: those that all models of the preset pass on to their providers."""
        models = [self.preset.model or config.default_choice()[0] or EMBEDDED_MODEL]
        for name in self.preset.fallbacks:
            is_model = "/" in name or ":" in name
            models.append(name if is_model else presets.load(name).model or EMBEDDED_MODEL)
        handed_on = [_HANDED_ON.get(full_name(model).partition("/")[0], ()) for model in models]
        return tuple(scheme for scheme in BOTH_SCHEMES if all(scheme in schemes for schemes in handed_on))

    @cached_property
    def client_variables(self) -> Mapping[str, Scalar | None]:
        """The variables that stand in the texts of the preset alone: not in its model, nor in its parameters."""
        preset = self._unfilled
        elsewhere = set(re.findall(r"\w+", json.dumps([preset.model, preset.set_params()], default=str)))
        variables = preset.snapshot()[0].get("variables", {})
        return {name: value for name, value in variables.items() if name not in elsewhere}

    def given(self, variables: Mapping[str, Scalar]) -> ServedPreset:
        """Return the preset with values for its variables; the others have their defaults."""
        known = self.client_variables
        for name in sorted(variables.keys() - known.keys()):
            field = f"variables.{name[:100]}"
            why = f"{field}: {self.name!r} has no such variable for clients"
            raise ServeError(400, why, code="field_not_allowed", param=field)
        for name in sorted(name for name, default in known.items() if default is None and name not in variables):
            field = f"variables.{name}"
            raise ServeError(400, f"{field}: {self.name!r} needs a value", code="invalid_value", param=field)
        if not variables:
            return self
        made = copy.copy(self)
        made.preset = self._unfilled.filled(variables)
        return made

    def snapshot(self) -> dict[str, Any]:
        """Return the preset as a conversation stores it, without secrets."""
        return self.preset.snapshot()[0]

    async def start(self) -> None:
        """Do in advance what would delay the first call; errors are reported with that call.

        The variables are filled in, LiteLLM is imported if no route leads to the model, and a model on this machine is
        started.

        Raises:
            ConfigError: a tool of the preset cannot be imported.
        """
        from llmkit.core import tools
        from llmkit.providers import local
        from llmkit.providers.litellm import sdk
        from llmkit.providers.routes.table import table

        try:
            tools.toolbox(self.preset.tools)
        except InvalidRequestError as error:
            raise ConfigError(f"preset {self.name!r}: {error}") from error
        with contextlib.suppress(ConfigError):
            self.preset = self.preset.filled()
        if isinstance(self.backend, Providers):
            model = full_name(self.preset.model or EMBEDDED_MODEL)
            kind, _, name = model.partition("/")
            with contextlib.suppress(LlmkitError):
                if kind == "local":
                    await asyncio.to_thread(local.serve, name)
                elif table().route_of(model) is None:
                    await asyncio.to_thread(sdk.load)

    async def answer(self, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> Reply:
        """Return the preset's answer; *params* win over the preset."""
        return await llmkit.aask(messages, **self._arguments(params, caller))

    def stream(self, messages: Sequence[Message], params: Mapping[str, Any], caller: Caller) -> PieceStream:
        """Return the preset's answer in pieces."""
        return llmkit.astream(messages, **self._arguments(params, caller))

    async def embed(self, texts: Sequence[str], params: Mapping[str, Any], caller: Caller) -> Reply:
        """Return embeddings in `data`, one for each text, with their cost."""
        replies = [await self._call("embed", {**params, "input": batch}, caller) for batch in batches(texts)]
        vectors = vectors_of(replies, texts)
        usage = sum((reply.usage for reply in replies[1:]), replies[0].usage)
        return replace(replies[0], usage=usage, data=vectors)

    async def transcribe(self, file: tuple[str, bytes], params: Mapping[str, Any], caller: Caller) -> Reply:
        """Return the transcription of a file, given as its name and bytes."""
        return await self._call("transcribe", {"file": file, **params}, caller)

    async def _call(self, kind: Kind, params: Mapping[str, Any], caller: Caller) -> Reply:
        """Return the reply to a request other than a chat, from the preset or its fallbacks."""
        preset = self.preset.filled()
        chain = with_fallbacks((), {self.name: preset})
        routes = [(name, (Deployment.of_preset(each),)) for name, each in chain.items()]
        labels = self._labels(caller)
        terms = Terms(ledger=self._ledger, guard=guard_of(labels.get("budget"), self.store))
        plan = plan_of(routes, kind, {**params, "tags": labels["tags"]}, terms, preset)
        return replace(await adrive(call(plan), self.backend), name=self.name)

    def _arguments(self, params: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
        """Return the arguments of a call; only what is on the allow-list comes from the client."""
        if others := params.keys() - PARAMS:
            raise AssertionError(f"these are no parameters of a client: {sorted(others)}")
        preset, allowed = self.preset, dict(params)
        if "store" in allowed:  # llmkit's own word for something else; OpenAI's is passed by way of the preset
            preset = preset.model_copy(update={"params": {**preset.set_params(), "store": allowed.pop("store")}})
        own = {"preset": preset, "store": self.store, "ledger": self._ledger, "backend": self.backend}
        return {**allowed, **own, **self._labels(caller)}

    def _labels(self, caller: Caller) -> dict[str, Any]:
        """Return the tags and budgets of a call: the preset's and the key's."""
        own = [self.preset.budget] if isinstance(self.preset.budget, str) else list(self.preset.budget or ())
        budgets = [*own, *([caller.budget] if caller.budget else [])]
        labels: dict[str, Any] = {"tags": [f"key:{caller.name}"] if caller.name else []}
        session = {"session": current().session} if current().session else {}
        return labels | session | ({"budget": budgets} if budgets else {})
