"""The page at `/`, its files, and `/usage`: as a page for browsers, as JSON for programs."""

from __future__ import annotations

import asyncio
import hashlib
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import HTMLResponse, Response

from llmkit import Budgets
from llmkit.money import report
from llmkit.money.ledger import ledger_of
from llmkit.serve.auth import PAGE_FILES, USAGE, wants_page
from llmkit.serve.body import JSON
from llmkit.serve.context import caller, current
from llmkit.serve.errors import ServeError
from llmkit.serve.routes.operations import Operations
from llmkit.serve.routes.responses import JsonResponse

if TYPE_CHECKING:
    from starlette.requests import Request

    from llmkit.serve.context import Caller
    from llmkit.store import Store

_DAY_S = 86400.0
_DAYS = 30
_FILES = Path(__file__).parents[1] / "page"
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
_NOBODY_AROUND_IT = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_POLICY = f"default-src 'self'; object-src 'none'; {_NOBODY_AROUND_IT}"


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the page: its bytes, their type, and a tag by which a browser asks whether it has them."""

    content: bytes
    type: str
    tag: str


def page_routes(store: Store) -> Operations:
    """Return the operations at `/`, `/page/…` and `/usage`."""
    operations = Operations()

    @operations.get("/")
    async def page(_: Request) -> Response:
        return _page()

    @operations.get(f"{PAGE_FILES}{{name:path}}")
    async def file(request: Request) -> Response:
        found = _files().get(request.path_params["name"])
        if found is None:
            raise ServeError(404, "there is no such file of the page", code="not_found")
        headers = {"cache-control": "no-cache", "etag": found.tag}
        if found.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(found.content, headers=headers, media_type=found.type)

    @operations.get(USAGE, tag="page", returns=(JSON, "text/html"))
    async def usage(request: Request) -> Response:
        """Return what was used in the last 30 days, by model, and the budgets; with a key those of the key."""
        if not wants_page(request.headers):
            return JsonResponse(await asyncio.to_thread(_numbers, store, caller()), headers={"vary": "accept"})
        if current().caller is None:
            return _page()
        text, policy = await asyncio.to_thread(_usage_page, store, caller())
        return HTMLResponse(text, headers=_headers(f"{policy}; {_NOBODY_AROUND_IT}"))

    return operations


def _page() -> Response:
    """Return the page; whoever has no key gets the same one, which asks for it and says nothing about the server."""
    status = 401 if current().caller is None else 200
    return HTMLResponse(_files()["index.html"].content, status, headers=_headers(_POLICY))


def _headers(policy: str) -> dict[str, str]:
    return {
        "content-security-policy": policy,
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
        "vary": "accept",
    }


@cache
def _files() -> dict[str, _File]:
    """Return the files of the page by their paths; nothing else is ever read for a request."""
    found = {}
    for path in sorted(_FILES.rglob("*")):
        if path.suffix in _TYPES:
            content = path.read_bytes()
            tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            found[path.relative_to(_FILES).as_posix()] = _File(content, _TYPES[path.suffix], tag)
    return found


def _first_day() -> float:
    """Return the beginning of the first of the days that are shown, which are whole days of UTC."""
    return (time.time() // _DAY_S - (_DAYS - 1)) * _DAY_S


def _sums(store: Store, key: Caller, *groupings: tuple[str, ...]) -> list[list[report.Line]]:
    """Return the sums over a caller's rows; without a key over everybody's."""
    # an earlier key of the same name has its own rows
    since, tag = max(key.since, _first_day()), f"key:{key.name}" if key.name else None
    return report.summarise(ledger_of(store), *groupings, since=since, tag=tag)


def _usage_page(store: Store, key: Caller) -> tuple[str, str]:
    from llmkit.money import usage_page

    sums = _sums(store, key, *usage_page.GROUPINGS)
    whose = f"key {key.name}" if key.name else ""
    return usage_page.usage_page(sums, now=time.time(), since=_first_day(), whose=whose), usage_page.policy()


def _numbers(store: Store, key: Caller) -> dict[str, Any]:
    ((*lines, _),) = _sums(store, key, ("model",))
    lines.sort(key=lambda line: (-(line.cost_usd or 0.0), -line.calls, line.key))
    names = ("calls", "errors", "prompt_tokens", "completion_tokens", "cost_usd", "unpriced")
    budgets = [state for state in Budgets(store).all() if not key.name or state.budget.name == key.budget]
    return {
        "models": [{"model": line.key[0], **{name: getattr(line, name) for name in names}} for line in lines],
        "budgets": [
            {
                "name": state.budget.name,
                "limit_usd": state.budget.limit_usd,
                "period": state.budget.period,
                "settled": state.settled,
                "reserved": state.reserved,
                "possibly_paid": state.possibly_paid,
                "ends_at": state.ends_at,
            }
            for state in budgets
        ],
    }
