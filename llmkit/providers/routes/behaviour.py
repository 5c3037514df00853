"""What becomes of a model's requests, in data."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

KEPT, DROPPED, RENAMED, MERGED, HEADERS, QUERY = "kept", "dropped", "as:", "merged", "headers", "query:"
WITH, WRITTEN, SIGNED = "kept with ", "{", "signed"
"""What becomes of a parameter: sent as it is, in the dialect's words; left out; sent as `as:NAME`; its items sent one
by one, or as headers; put into the address as `query:NAME`; sent with the headers in the JSON behind `WITH`; replaced
by the items of this JSON; or, of calls, sent with their ids and signatures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What becomes of a model's requests.

    Attributes:
        effects: for each feature that the route covers, what becomes of it.
        apart: features that the route does not cover together.
        added: what each request has besides, and `stream_added` each one for a stream.
        model: the name in the request; `{}` stands for the model's own.
        version: of the interface, where the usual address has one for each generation of models.
        habits: how LiteLLM reads the answers, see `dialects.openai`.
    """

    effects: Mapping[str, str]
    apart: Sequence[Sequence[str]] = ()
    added: Mapping[str, Any] = field(default_factory=dict)
    stream_added: Mapping[str, Any] = field(default_factory=dict)
    model: str = "{}"
    version: str = ""
    habits: Sequence[str] = ()

    def is_sound(self) -> bool:
        """Return whether each field is what it should be; a file may say anything."""
        texts = [*self.effects, *self.effects.values(), self.model, self.version, *self.habits, *chain(*self.apart)]
        return all(isinstance(each, str) for each in texts) and all(
            isinstance(each, dict) for each in (self.added, self.stream_added)
        )

    def covers(self, found: Sequence[str]) -> bool:
        """Return whether requests with these features are known."""
        names = set(found)
        return self.effects.keys() >= names and not any(names.issuperset(several) for several in self.apart)
