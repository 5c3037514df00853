"""What the rows of a ledger would cost with other prices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmkit.providers import prices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.core.types import Price
    from llmkit.money.ledger import LedgerRow

_OWN = ("deployment", "caller")


@dataclass(frozen=True, slots=True, kw_only=True)
class Repriced:
    """What the rows of one model cost, and would cost.

    Attributes:
        model: the deployment, LiteLLM's `provider/model`.
        rows: how many rows have another cost now.
        was_usd, is_usd: what these rows cost together in US dollars; a cost that was not known counts as 0.
    """

    model: str
    rows: int
    was_usd: float
    is_usd: float


def costs(rows: Sequence[LedgerRow], table: Mapping[str, Price] | None) -> dict[int, float]:
    """Return the cost in US dollars of those rows that have another one by a table, by their place.

    Rows with a price of the caller's or a deployment's own, without tokens, or whose model has no price now, stay.
    """
    found: dict[int, float] = {}
    for place, row in enumerate(rows):
        if row.price_source in _OWN or row.prompt_tokens is None or row.kind not in {"chat", "embed"}:
            continue
        cost = _cost(row, table)
        if cost is not None and (row.cost_usd is None or not math.isclose(cost, row.cost_usd, rel_tol=1e-9)):
            found[place] = cost
    return found


def compared(rows: Sequence[LedgerRow], changed: Mapping[int, float]) -> list[Repriced]:
    """Return what changes for each model, by name."""
    models = sorted({rows[place].deployment for place in changed})
    lines = []
    for model in models:
        mine = {place: cost for place, cost in changed.items() if rows[place].deployment == model}
        was = math.fsum(rows[place].cost_usd or 0.0 for place in mine)
        lines.append(Repriced(model=model, rows=len(mine), was_usd=was, is_usd=math.fsum(mine.values())))
    return lines


def _cost(row: LedgerRow, table: Mapping[str, Price] | None) -> float | None:
    from llmkit.providers.litellm import model_map

    prompt, completion, cached = row.prompt_tokens or 0, row.completion_tokens or 0, row.cached_tokens or 0
    names = (row.deployment, row.deployment.partition("/")[2])
    if table is not None:
        price = next((table[name] for name in names if name in table), None)
        return None if price is None else prices.cost_of_tokens(price, prompt, completion, cached)
    if row.deployment.startswith("local/"):
        return 0.0
    if found := prices.find(*names):
        return prices.cost_of_tokens(found[0], prompt, completion, cached)
    return model_map.map_cost(row.deployment, model_map.counts(prompt, completion, cached))
