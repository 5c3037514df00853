"""Ledgers with rows as a test wants them."""

from __future__ import annotations

import dataclasses

from llmkit import Ledger
from llmkit.money import report
from llmkit.money.ledger import LedgerRow
from llmkit.store import ledger as _ledger

NOON = 1795262400.0  # 2026-11-21T12:00:00Z
DAY = 86400.0


def row(**values):
    """A row as a ledger gives it; an answer of a second at noon, unless something else is said."""
    usual = dict.fromkeys(LedgerRow.__dataclass_fields__) | {"at": NOON, "call": "1", "attempt": 1, "kind": "chat"}
    usual |= {"status": "ok", "asked": "m", "answered": "m", "deployment": "openai/m", "tags": (), "latency_s": 1.0}
    usual |= {"prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 2, "reasoning_tokens": 0}
    return LedgerRow(**usual | {"cost_usd": 0.5, "source": "priced"} | values)


def failed(**values):
    tokens = dict.fromkeys(("prompt_tokens", "completion_tokens", "cached_tokens", "cost_usd", "answered", "source"))
    return row(**{"status": "RateLimitError", **tokens, **values})


def filled(store, rows):
    """A ledger of these rows and no others."""
    ledger = Ledger(store)
    with ledger.store.database.writing() as connection:
        connection.run("DELETE FROM llmkit_ledger")
        _ledger.add_rows(connection, list(map(dataclasses.asdict, rows)))
    return ledger


def summed(store, rows, by):
    """The lines that rows add up to, and their total."""
    (lines,) = report.summarise(filled(store, rows), by)
    return lines
