"""Addresses: the origin of a request, the proxy on the way, and the trusted certificates."""

from __future__ import annotations

import base64
import os
import ssl
import sys
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

_PORTS = {"http": 80, "https": 443}
_PROXY_VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


class TransportError(Exception):
    """Something went wrong on the way; the subclasses say what."""


class UnsupportedProxyError(TransportError):
    """The environment names a proxy that is neither HTTP nor HTTPS."""


@lru_cache(maxsize=256)
def origin(url: str) -> str:
    """Return scheme, host and port; without the port if it is the scheme's usual one."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    usual = parts.port is None or parts.port == _PORTS.get(parts.scheme)
    return f"{parts.scheme}://{host}" if usual else f"{parts.scheme}://{host}:{parts.port}"


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; `authorization` is the header that it wants, or ""."""

    url: str
    host: str
    port: int
    is_tls: bool
    authorization: str = field(default="", repr=False)


def proxy_for(url: str) -> Proxy | None:
    """Return the proxy that the environment names for *url*, or None for a direct connection.

    Raises:
        UnsupportedProxyError: it is not an HTTP proxy.
    """
    scheme, host, port = _place(url)
    if _is_loopback(host):
        return None
    get = os.environ.get
    values = tuple(get(name) or get(name.upper()) for name in _PROXY_VARIABLES)
    return _proxy(values, scheme, host, port)


@lru_cache(maxsize=256)
def _place(url: str) -> tuple[str, str, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port


def is_reachable(url: str) -> bool:
    """Return whether a transport can reach an address: httpx knows more kinds of proxies."""
    try:
        proxy_for(url)
    except UnsupportedProxyError:
        return False
    return True


@lru_cache(maxsize=256)
def _proxy(values: tuple[str | None, ...], scheme: str, host: str, port: int | None) -> Proxy | None:
    if sys.platform == "linux" and not any(values):  # elsewhere the system has settings too
        return None
    from urllib.request import getproxies, proxy_bypass_environment  # type: ignore[attr-defined]  # 20 ms

    proxies = getproxies()
    value = proxies.get(scheme) or proxies.get("all")
    if not value or proxy_bypass_environment(host if port is None else f"{host}:{port}", proxies):
        return None
    parts = urlsplit(value if "://" in value else f"http://{value}")
    if parts.scheme not in _PORTS or not parts.hostname:
        raise UnsupportedProxyError(f"a {parts.scheme or 'nameless'} proxy")
    token = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        token = "Basic " + base64.b64encode(pair.encode()).decode()
    where = parts.hostname, parts.port or _PORTS[parts.scheme]
    return Proxy(f"{parts.scheme}://{where[0]}:{where[1]}", *where, parts.scheme == "https", token)


@lru_cache(maxsize=256)
def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def tls_context(verify: bool | str = True) -> ssl.SSLContext:  # noqa: FBT001, FBT002 - as LiteLLM's setting has it
    """Return the TLS settings: trusting `SSL_CERT_FILE` and `SSL_CERT_DIR`, else certifi's and the system's ones.

    *verify* is False for no check at all, or the path of other certificates.
    """
    return _tls_context(verify, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@lru_cache(maxsize=8)
def _tls_context(verify: bool | str, file: str | None, folder: str | None) -> ssl.SSLContext:  # noqa: FBT001
    if isinstance(verify, str):
        is_folder = os.path.isdir(verify)  # noqa: PTH112 - a path as the setting has it
        file, folder = (None, verify) if is_folder else (verify, None)
    if file or folder:
        context = ssl.create_default_context(cafile=file, capath=folder)
    else:
        context = ssl.create_default_context()
        import certifi  # comes with LiteLLM; 10 ms that plain HTTP does not need

        context.load_verify_locations(cafile=certifi.where())
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context
