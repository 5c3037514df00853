"""The page at `/`: the models, a streaming chat, usage and budgets. One file that loads nothing from elsewhere."""

from __future__ import annotations

import asyncio
import secrets
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from llmkit import Budgets
from llmkit.money import report
from llmkit.money.ledger import ledger_of
from llmkit.serve.context import caller, current

if TYPE_CHECKING:
    from llmkit.serve.context import Caller
    from llmkit.store import Store

_SHOWN_S = 30 * 86400.0
_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src data:; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page_routes(store: Store) -> APIRouter:
    """Return the routes `/` and `/usage`."""
    router = APIRouter(tags=["page"])

    @router.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        headers = {"content-security-policy": _POLICY.format(nonce=nonce), "referrer-policy": "no-referrer"}
        # callers without a key get the page that asks for one; it contains nothing about the server
        status = 401 if current().caller is None else 200
        return HTMLResponse(_template().replace("NONCE", nonce), status, headers)

    @router.get("/usage")
    async def usage() -> dict[str, Any]:
        """Return what was used in the last 30 days, by model, and the budgets; with a key those of the key."""
        return await asyncio.to_thread(_usage, store, caller())

    return router


@cache
def _template() -> str:
    return (Path(__file__).parent / "page.html").read_text(encoding="utf-8")


def _usage(store: Store, key: Caller) -> dict[str, Any]:
    # an earlier key of the same name has its own rows
    since, by = max(key.since, time.time() - _SHOWN_S), ("tag", "model") if key.name else ("model",)
    ((*lines, _),) = report.summarise(ledger_of(store), by, since=since)
    if key.name:
        lines = [line for line in lines if line.key[0] == f"key:{key.name}"]
    names = ("calls", "errors", "prompt_tokens", "completion_tokens", "cost_usd", "unpriced")
    budgets = [state for state in Budgets(store).all() if not key.name or state.budget.name == key.budget]
    return {
        "models": [{"model": line.key[-1], **{name: getattr(line, name) for name in names}} for line in lines],
        "budgets": [
            {
                "name": state.budget.name,
                "limit_usd": state.budget.limit_usd,
                "period": state.budget.period,
                "settled": state.settled,
                "reserved": state.reserved,
                "ends_at": state.ends_at,
            }
            for state in budgets
        ],
    }
