"""Access control: by key, by the calling page and by the host name. Decided before a body is read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llmkit.serve.context import Caller
from llmkit.serve.errors import ServeError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from llmkit.serve.keys import Keys

WITHOUT_KEY = frozenset({"/", "/health"})
"""Paths that reveal nothing about the server to callers without a key: a page that asks for one, and "it is up"."""
PAGE_FILES = "/page/"
"""The beginning of the paths of that page's script and style, which are the same for everybody."""
USAGE = "/usage"
"""The path that asks a browser without a key for one, by the same page."""
ANONYMOUS = Caller()
CHALLENGE = {"www-authenticate": "Bearer"}
_OTHER_SITES = frozenset({"cross-site", "same-site"})


class Authenticator:
    """Decides who may call.

    Args:
        keys: of the store. A server whose store ever had a key admits nobody without one.
        hosts: hosts allowed in the `Host` header if no key is needed, or None for all; guards against DNS rebinding.
        is_open: whether everybody may call, even if the store has keys.
    """

    def __init__(self, keys: Keys, hosts: Collection[str] | None, *, is_open: bool = False) -> None:
        self._keys = keys
        self._hosts = hosts
        self._is_open = is_open

    async def admit(self, scope: Mapping[str, Any], headers: Mapping[str, str]) -> Caller | None:
        """Return the caller, or None for somebody who may use only the paths in `WITHOUT_KEY`.

        Args:
            scope: ASGI's description of the request.
            headers: of the request, by name in lower case.

        Raises:
            ServeError: a page of another site is calling, a key is missing or unknown, or the host has another name.
        """
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
        if _needs_no_key(scope, headers):
            return None
        if not key:
            raise ServeError(401, "no key: send it as `Authorization: Bearer …`", code="missing_key", headers=CHALLENGE)
        expired = reason == "expired"
        why = "the session token has expired" if expired else "the key is not known"
        raise ServeError(401, why, code="token_expired" if expired else "invalid_api_key", headers=CHALLENGE)


def wants_page(headers: Mapping[str, str]) -> bool:
    """Return whether somebody looks at an address with a browser."""
    return "text/html" in headers.get("accept", "")


def _needs_no_key(scope: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
    path = path_of(scope)
    return path in WITHOUT_KEY or path.startswith(PAGE_FILES) or (path == USAGE and wants_page(headers))


def path_of(scope: Mapping[str, Any]) -> str:
    """Return the path of a request, without the prefix of a proxy."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def presented(headers: Mapping[str, str]) -> str:
    """Return the key or token of a request, or "" if there is none; an empty bearer token counts as none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    bearer = token.strip() if scheme.lower() == "bearer" else ""
    return bearer or headers.get("x-api-key", "").strip()


def _is_of_another_site(scope: Mapping[str, Any], headers: Mapping[str, str]) -> bool:
    """Return whether a page of another site is calling; a link to our page does not count."""
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
