"""Who may come in: by key, by the page that asks and by the name of the host. Decided before a body is read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from llmkit.serve.context import Caller
from llmkit.serve.errors import ServeError

if TYPE_CHECKING:
    from collections.abc import Collection, MutableMapping

    from llmkit.serve.keys import Keys

WITHOUT_KEY = frozenset({"/", "/health"})
"""Paths that say nothing of the server to somebody without a key: a page that asks for one, and "it is up"."""
ANONYMOUS = Caller()
CHALLENGE = {"www-authenticate": "Bearer"}
_OTHER_SITES = frozenset({"cross-site", "same-site"})


class Authenticator:
    """Decides who may come in.

    Args:
        keys: of the store. A server whose store ever had one lets nobody in without one.
        hosts: hosts allowed in the `Host` header when no key is needed, None for all; guards against DNS rebinding.
        is_open: whether everybody may ask, also where the store has keys.
    """

    def __init__(self, keys: Keys, hosts: Collection[str] | None, *, is_open: bool = False) -> None:
        self._keys = keys
        self._hosts = hosts
        self._is_open = is_open

    async def admit(self, scope: MutableMapping[str, Any]) -> Caller | None:
        """Return who asks; None for somebody who may see what stands in `WITHOUT_KEY`.

        Raises:
            ServeError: a page of another site asks, a key is missing or not known, or the host has another name.
        """
        headers = Headers(scope=scope)
        if _is_of_another_site(scope, headers):
            raise ServeError(403, "pages of other sites may not ask this server", code="cross_site")
        if not self._keys.is_fresh:
            await asyncio.to_thread(self._keys.refresh)  # a database that is slow holds up nobody else
        key = presented(headers)
        caller, reason = self._keys.identify(key)
        if caller is not None and caller.name:
            return caller
        if self._is_open or not self._keys.ever():
            if self._hosts is not None and _host_of(headers.get("host", "")) not in self._hosts:
                why = "without keys this server answers under the names of this machine only"
                raise ServeError(403, why, code="wrong_host")
            return ANONYMOUS
        if path_of(scope) in WITHOUT_KEY:
            return None
        if not key:
            raise ServeError(401, "no key: send it as `Authorization: Bearer …`", code="missing_key", headers=CHALLENGE)
        expired = reason == "expired"
        why = "the session token has expired" if expired else "the key is not known"
        raise ServeError(401, why, code="token_expired" if expired else "invalid_api_key", headers=CHALLENGE)


def path_of(scope: MutableMapping[str, Any]) -> str:
    """Return the path of a request, without the part that a proxy puts before ours."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def presented(headers: Headers) -> str:
    """Return the key or token of a request, "" for none; a bearer token without text is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    return bearer or headers.get("x-api-key", "").strip()


def _is_of_another_site(scope: MutableMapping[str, Any], headers: Headers) -> bool:
    """Return whether a page of another site asks; a link to our page is no such request."""
    origin = headers.get("origin")
    is_other = origin is not None and origin.lower().partition("://")[2] != headers.get("host", "").lower()
    follows_link = path_of(scope) == "/" and scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
    return is_other or (headers.get("sec-fetch-site") in _OTHER_SITES and not follows_link)


def _host_of(header: str) -> str:
    """Return the name in a `Host` header, without the port."""
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""
