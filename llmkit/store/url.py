"""Database addresses: a path, `sqlite:///PATH` or `postgresql://user:password@host:port/name?option=value`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote

from llmkit.errors import StoreError

_POSTGRES = ("postgres", "postgresql", "postgresql+psycopg")
_REST = re.compile(
    r"""(?: (?P<user> [^:/]* ) (?: : (?P<password> [^/?]* | [^@]* ) )? @ )?
    (?: (?: \[ (?P<ipv6> [^/?]+ ) \] | (?P<host> [^/:?@]+ ) )? (?: : (?P<port> [0-9]* ) )? )
    (?: / (?P<dbname> [^?]* ) )? (?: \? (?P<query> .* ) )?""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Url:
    """The address of a database; as a text it has no password.

    Attributes:
        path: of SQLite's file, or "" for PostgreSQL.
        options: of PostgreSQL's connection, by libpq's names.
    """

    path: str = ""
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    def __str__(self) -> str:
        """Return the URL without its password and query."""
        if self.path:
            return f"sqlite:///{self.path}"
        options = dict(self.options)
        user = quote(options.get("user", ""), safe="") + (":***" if "password" in options else "")
        host, port = options.get("host", ""), options.get("port", "")
        address = (f"[{host}]" if ":" in host else "" if "/" in host else host) + (f":{port}" if port else "")
        return f"postgresql://{user}{'@' if user else ''}{address}/{options.get('dbname', '')}"


def url_of(url: str | Path) -> Url:
    """Return the URL of a database given as a path, `sqlite:///PATH` or `postgresql://…`.

    Raises:
        StoreError: it is something else.
    """
    text = str(url)
    if "://" not in text:
        return Url(path=str(Path(text).absolute()))
    scheme, _, rest = text.partition("://")
    if scheme == "sqlite" and rest.startswith("/"):
        return Url(path=str(Path(rest[1:]).absolute()))  # wherever it is opened later
    if scheme in _POSTGRES:
        parts = _REST.fullmatch(rest)
        if parts is None:
            raise StoreError("the store's URL cannot be read; it is like postgresql://user@host:5432/name")
        return Url(options=tuple(_options(parts.groupdict()).items()))
    raise StoreError(f"the store's URL must be sqlite:///PATH or postgresql://…, not {scheme}://…")


def _options(parts: dict[str, str | None]) -> dict[str, str]:
    """Return the options for libpq; the query may set each of them, and several hosts like `host=a:5432&host=b`."""
    options = {name: unquote(parts[name] or "") for name in ("user", "password", "dbname")}
    options |= {"host": parts["ipv6"] or parts["host"] or "", "port": parts["port"] or ""}
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(parts["query"] or ""):
        query.setdefault(name, []).append(value)
    if any(host.count(":") == 1 for host in query.get("host", ())):
        hosts = [host.partition(":") for host in query["host"]]
        query |= {"host": [host for host, _, _ in hosts], "port": [port for _, _, port in hosts]}
    options |= {name: ",".join(values) for name, values in query.items()}
    return {name: value for name, value in options.items() if value}
