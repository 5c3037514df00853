"""The page at `/`: the models, a chat that streams, usage and budgets. One file, and nothing from elsewhere."""

from __future__ import annotations

import asyncio
import secrets
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from llmkit import Budgets, report
from llmkit.ledger import ledger_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from llmkit.serve._served import Caller
    from llmkit.store import Store

_SHOWN_S = 30 * 86400.0
_POLICY = (
    "default-src 'none'; connect-src 'self'; img-src data:; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def page_routes(guard: Callable[[Request], Awaitable[Caller]], store: Store) -> APIRouter:
    """Return the routes `/` and `/usage`."""
    router = APIRouter(tags=["page"])

    @router.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        headers = {"content-security-policy": _POLICY.format(nonce=nonce), "referrer-policy": "no-referrer"}
        return HTMLResponse(_template().replace("NONCE", nonce), headers=headers)

    @router.get("/usage")
    async def usage(request: Request) -> dict[str, Any]:
        """Return what was used in the last 30 days, by model, and the budgets; with a key those of the key."""
        caller = await guard(request)
        return await asyncio.to_thread(_usage, store, caller)

    return router


@cache
def _template() -> str:
    return (Path(__file__).parent / "page.html").read_text(encoding="utf-8")


def _usage(store: Store, caller: Caller) -> dict[str, Any]:
    rows = ledger_of(store).rows(since=time.time() - _SHOWN_S)
    if caller.name:
        rows = [row for row in rows if f"key:{caller.name}" in row.tags]
    *lines, _ = report.summarise(rows, ("model",))
    names = ("calls", "errors", "prompt_tokens", "completion_tokens", "cost_usd", "unpriced")
    budgets = [state for state in Budgets(store).all() if caller.name in {"", state.budget.name.removeprefix("key:")}]
    return {
        "models": [{"model": line.key[0], **{name: getattr(line, name) for name in names}} for line in lines],
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
