"""What a preset does beside chat: vectors, and text from sound; with its budgets, its retries and the ledger."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llmkit.client import MultiAIClient
from llmkit.core.retry import Retry
from llmkit.core.types import Reply, Usage
from llmkit.money.guard import guard_of
from llmkit.prepare import DEFAULT_TIMEOUT_S, with_fallbacks
from llmkit.providers.deployments import Deployment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.presets import Preset


class _Client(MultiAIClient):
    """A client for one request: its charges are that request's, its budgets are those of the server's store."""

    def __init__(self, preset: Preset, options: Mapping[str, Any], budgets: Sequence[str]) -> None:
        filled = preset.filled()
        others = with_fallbacks(filled.fallbacks)
        deployments = {preset.name: filled, **others}
        super().__init__(
            {name: Deployment.of_preset(each) for name, each in deployments.items()},
            fallbacks={preset.name: filled.fallbacks} if filled.fallbacks else None,
            retry=filled.retry_policy() or Retry(),
            ledger=options["ledger"],
            backend=options.get("backend"),
            timeout=filled.timeout or DEFAULT_TIMEOUT_S,
        )
        self._guard = guard_of(budgets, options["store"])

    @property
    def usage(self) -> Usage:
        """What the request used."""
        counted = [charge.usage for charge in self.usages]
        return sum(counted[1:], counted[0]) if counted else Usage()


async def embed(
    preset: Preset,
    options: Mapping[str, Any],
    marks: Mapping[str, Any],
    texts: Sequence[str],
    params: Mapping[str, Any],
) -> Reply:
    """Return vectors in `data`, with what all of them cost."""
    client = _Client(preset, options, marks.get("budget", ()))
    vectors = await client.aembed(texts, preset.name, tags=marks["tags"], **params)
    model = client.usages[0].answered_by if client.usages else ""
    return Reply(text="", model=model, usage=client.usage, data=vectors)


async def transcribe(
    preset: Preset,
    options: Mapping[str, Any],
    marks: Mapping[str, Any],
    file: tuple[str, bytes],
    params: Mapping[str, Any],
) -> Reply:
    """Return the text that is spoken."""
    client = _Client(preset, options, marks.get("budget", ()))
    reply = await client.atranscribe(file, preset.name, tags=marks["tags"], **params)
    return replace(reply, name=preset.name)
