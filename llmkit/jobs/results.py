"""What became of a row: as the store keeps it, as a program gets it, and as a line of the output."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Generic

from llmkit.core.types import Parsed, Usage
from llmkit.errors import explain
from llmkit.store.jobs import DONE
from llmkit.store.text import as_json

if TYPE_CHECKING:
    from llmkit.core.types import Reply


@dataclass(frozen=True, slots=True, kw_only=True)
class MapResult(Generic[Parsed]):
    """What became of one row of a `map`. `str(result)` is its text.

    Attributes:
        number: the row's, from 1 in the order of the input.
        key: the value of the row's key column, or its number.
        text: the answer, or "" after an error.
        parsed: the object that `schema=` requested.
        usage: tokens and price; of a row that was answered with an earlier one it is nothing, for 0 US dollars.
        cost_usd: what all attempts of the row cost, as far as prices are known, or None if the answer has no price.
        error: what went wrong and what to do about it, or None.
        error_type: the name of the error's class, or None.
        model: the model that answered, as the provider names it.
        finish_reason: "stop", "length", …
        same_as: the number of the earlier row that asks the same, which was asked in the place of this one, or None.
    """

    number: int
    key: Any
    text: str = ""
    parsed: Parsed = None  # type: ignore[assignment]  # no schema, and nothing parsed
    usage: Usage = field(default_factory=Usage)
    cost_usd: float | None = None
    error: str | None = None
    error_type: str | None = None
    model: str = ""
    finish_reason: str | None = None
    same_as: int | None = None

    def __str__(self) -> str:
        """The text of the answer."""
        return self.text


def answered(reply: Reply) -> str:
    """Return an answer as the store keeps it."""
    parsed = reply.parsed
    kept = {
        "text": reply.text,
        "parsed": parsed.model_dump(mode="json") if hasattr(parsed, "model_dump") else parsed,
        "usage": asdict(reply.usage),
        "model": reply.model,
        "finish_reason": reply.finish_reason,
    }
    return as_json(kept)


def failed(error: Exception) -> str:
    """Return an error as the store keeps it."""
    return as_json({"error": explain(error), "error_type": type(error).__name__})


def result_of(row: Any, schema: Any = None) -> MapResult[Any]:
    """Return what became of a row of the store; with a pydantic class as *schema* the answer is its instance."""
    kept: dict[str, Any] = json.loads(row.answer)
    key = json.loads(row.key)
    known: dict[str, Any] = {"number": row.number, "key": row.number if key is None else key, "same_as": row.same_as}
    usage = Usage(**kept["usage"]) if row.outcome == DONE else Usage()
    cost_usd = row.cost_usd
    if row.same_as is not None:
        usage, cost_usd = Usage(cost_usd=0.0, source=usage.source), 0.0
    elif row.outcome == DONE and usage.cost_usd is None:
        cost_usd = None
    if kept.get("parsed") is not None and hasattr(schema, "model_validate"):
        kept["parsed"] = schema.model_validate(kept["parsed"])
    return MapResult(**{**kept, **known, "usage": usage, "cost_usd": cost_usd})


def line_of(result: MapResult[Any]) -> bytes:
    """Return a result as a line of the output: only what is set, but always key, text and error."""
    usage = result.usage
    values: dict[str, Any] = {
        "key": None if isinstance(result.key, float) and not math.isfinite(result.key) else result.key,
        "text": result.text,
        "error": result.error,
        "cost_usd": result.cost_usd,
    }
    if result.error is None:
        counts = {each.name: getattr(usage, each.name) for each in fields(usage) if each.name not in _ELSEWHERE}
        values |= {"usage": counts, "model": result.model, "finish_reason": result.finish_reason}
    else:
        values["error_type"] = result.error_type
    for name in ("parsed", "same_as"):
        if getattr(result, name) is not None:
            values[name] = getattr(result, name)
    if values["cost_usd"] is not None:
        values["cost_usd"] = round(values["cost_usd"], 12)
    return as_json(values).encode() + b"\n"


_ELSEWHERE = {"cost_usd"}
