"""`Ledger`: a row for each attempt, in the store. Prompts and answers are not in it."""

from __future__ import annotations

import json
import math
import time
import uuid
from dataclasses import dataclass, fields
from functools import lru_cache, partial
from numbers import Real
from typing import TYPE_CHECKING, Any

from llmkit.core.background import Batch
from llmkit.core.fork import fresh_id
from llmkit.core.types import CallLabels, Invoke
from llmkit.errors import InvalidRequestError
from llmkit.providers.model_info import LOCAL
from llmkit.store import Store, opened
from llmkit.store import ledger as stored

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from llmkit.core.types import Flow, Reply, Request
WINDOW_S = 0.2
"""How long a row waits for others before they are written together: the most a killed process may lose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One attempt.

    Attributes:
        at: when it ended, in seconds since 1970.
        call: the id shared by all attempts of one call; `attempt` counts them from 1, so 2 is a retry of 1.
        kind: "chat", "embed", …
        status: "ok"; "interrupted" for a stream that was left or cut; "cancelled" if the program gave up before there
            was an answer, which the provider may still bill; else the name of the error.
        asked: the logical name in the request; `answered` is the provider's name of the model that answered, or None
            after an error.
        deployment: LiteLLM's `provider/model`.
        preset, session, tags: the labels of the call, or None if it has none.
        prompt_tokens, completion_tokens, cached_tokens, reasoning_tokens: None after an error.
        cost_usd: price in US dollars, or None if it is not known.
        source: "priced", "estimated" or "unpriced"; `price_source` says where the price comes from.
        latency_s: seconds the attempt took; `first_token_s` until the first text of a stream, or None if not streamed.
        request_id: the provider's.
        possibly_usd: the most that an attempt of unknown outcome may have cost, or None for any other.
    """

    at: float
    call: str
    attempt: int
    kind: str
    status: str
    asked: str
    answered: str | None
    deployment: str
    preset: str | None
    session: str | None
    tags: tuple[str, ...]
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    cost_usd: float | None
    source: str | None
    price_source: str | None
    latency_s: float | None
    first_token_s: float | None
    request_id: str | None
    possibly_usd: float | None = None


class Ledger:
    """Records each attempt. Rows are written to the store together, at most 0.2 s after the first of them.

    A process that is killed may lose the rows of that window; a normal exit loses nothing. `Ledger.get_usage` and
    `Ledger.increment_usage` can be given to `MultiAIClient`.

    Args:
        store: a Store, its URL or path; the configured one if None.
        durable: write each row before its answer is returned, so that there is no such window.
    """

    def __init__(self, store: Store | str | Path | None = None, *, durable: bool = False) -> None:
        self.store = store if isinstance(store, Store) else opened(None if store is None else str(store))
        self._durable = durable
        self._batch = Batch(partial(_write, self.store), WINDOW_S, name="llmkit-ledger")

    def note(
        self, request: Request, labels: CallLabels, outcome: Reply | BaseException, *, whole: bool = True
    ) -> Flow[None]:
        """Record an attempt; if the store fails, the answer is still returned, and the row is written later."""
        row = yield from row_of_attempt(request, labels, outcome, whole=whole)
        if self._durable:
            yield Invoke(self._batch.add_now, (row,))
        else:
            self._batch.add(row)

    def flush(self) -> None:
        """Write the pending rows.

        Raises:
            StoreError: the store cannot be written; the rows are kept for the next time.
        """
        self._batch.flush()

    def rows(self, since: float | None = None, until: float | None = None) -> list[LedgerRow]:
        """Return the rows between two moments (seconds since 1970), oldest first."""
        self.flush()
        with self.store.database.reading() as connection:
            return [_row_of(row) for row in stored.rows_of(connection, since, until)]

    def get_usage(self, since: float | None = None, until: float | None = None) -> float:
        """Return what was spent in US dollars, as far as prices are known."""
        self.flush()
        with self.store.database.reading() as connection:
            return stored.total(connection, since, until)

    def increment_usage(self, price: float, model: str) -> bool:
        """Record the cost of something that this ledger did not see, in US dollars, and return True.

        Raises:
            InvalidRequestError: it is no finite number.
        """
        try:
            usd = float(price) if isinstance(price, Real) else math.nan
        except OverflowError:
            usd = math.inf
        if not math.isfinite(usd):
            raise InvalidRequestError(f"a cost is a number of US dollars, not {price!r:.40}")
        row = dict.fromkeys(_ROW) | {
            "at": time.time(),
            "call": str(uuid.uuid4()),
            "attempt": 1,
            "kind": "chat",
            "status": "ok",
            "asked": model,
            "deployment": model,
            "tags": [],
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "cost_usd": usd,
            "source": "priced",
            "price_source": "caller",
        }
        self._batch.add(row)
        return True

    def prune(self, before: float) -> int:
        """Delete the rows before a moment, and return how many there were."""
        self.flush()
        with self.store.database.writing() as connection:
            return stored.prune(connection, before)


def _write(store: Store, rows: Sequence[dict[str, Any]]) -> None:
    with store.database.writing() as connection:
        stored.add_rows(connection, rows)


def row_of_attempt(
    request: Request, labels: CallLabels, outcome: Reply | BaseException, *, whole: bool = True
) -> Flow[dict[str, Any]]:
    """Return the row of an attempt, as the store takes it."""
    row = _row(request, labels, outcome, whole=whole)
    if isinstance(outcome, BaseException) and getattr(outcome, "may_be_paid", True):
        row["possibly_usd"] = yield Invoke(most_usd, (request,))
    return row


def row_of_lost(request: Request, labels: CallLabels) -> dict[str, Any]:
    """Return the row of an attempt whose process was killed, so that nobody knows whether it was paid."""
    row = _row(request, labels, KeyboardInterrupt(), whole=False)
    return row | {"call": fresh_id(), "attempt": 1, "possibly_usd": most_usd(request)}


def most_usd(request: Request) -> float | None:
    """Return the most that a request can cost in US dollars, or None if that has no bound."""
    from llmkit.money.estimate import estimate

    return estimate(request).most_usd()


def _row_of(row: Any) -> LedgerRow:
    return LedgerRow(**row._asdict() | {"tags": tuple(json.loads(row.tags))})


_ROW = tuple(field.name for field in fields(LedgerRow))


@lru_cache(maxsize=32)
def ledger_of(store: Store) -> Ledger:
    """Return the one ledger of this process for a store, so that its rows are written together."""
    return Ledger(store)


def chosen(wanted: Any) -> Ledger | None:
    """Return the ledger for a Ledger, a store's URL, or True for the configured one; None for no ledger."""
    if wanted is None or wanted is False or isinstance(wanted, Ledger):
        return wanted or None
    return ledger_of(opened(None if wanted is True else wanted))


def _usual_source(request: Request) -> str:
    return "llmkit" if request.model.startswith(LOCAL) else "litellm"


def _row(request: Request, labels: CallLabels, outcome: Reply | BaseException, *, whole: bool) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_ROW) | {
        "at": time.time(),
        "call": request.call,
        "attempt": request.attempt,
        "kind": request.kind,
        "asked": request.name or request.model,
        "deployment": request.model,
        "preset": labels.preset or None,
        "session": labels.session or None,
        "tags": list(labels.tags),
    }
    if isinstance(outcome, BaseException):
        status = type(outcome).__name__ if isinstance(outcome, Exception) else "cancelled"
        return row | {"status": status, "latency_s": getattr(outcome, "elapsed_s", None)}
    usage = outcome.usage
    return row | {
        "status": "ok" if whole else "interrupted",
        "answered": outcome.model,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost_usd": usage.cost_usd,
        "source": usage.source,
        "price_source": None if usage.cost_usd is None else request.price_source or _usual_source(request),
        "latency_s": outcome.latency_s,
        "first_token_s": outcome.first_token_s,
        "request_id": outcome.raw.get("id") if isinstance(outcome.raw, dict) else None,
    }
