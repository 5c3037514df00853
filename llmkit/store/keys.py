"""The keys of servers in the store: no key itself, only its SHA-256; and the secret that signs session tokens."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Float, Table, Text, delete, insert, select
from sqlalchemy import text as sql

from llmkit.store.tables import meta, metadata

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

keys = Table(
    "llmkit_keys",
    metadata,
    Column("name", Text, primary_key=True),
    Column("hash", Text, nullable=False, index=True),  # SHA-256 of the key, hexadecimal
    Column("prefix", Text, nullable=False),  # how the key begins, to tell it from others
    Column("budget", Text),  # name of its budget; null for none
    Column("models", Text),  # names it may ask, JSON; null for all
    Column("created_at", Float, nullable=False),
)
signing = Table(
    "llmkit_signing",
    metadata,
    Column("name", Text, primary_key=True),
    Column("secret", Text, nullable=False),  # 32 random bytes, hexadecimal
)
_SESSIONS = "sessions"
_EVER = "keys"  # the row of `meta` that stays when the last key goes


def make_secret(connection: Connection) -> None:
    """Make the secret that signs session tokens, where there is none; within a migration, which runs once."""
    if connection.scalar(select(signing.c.name).where(signing.c.name == _SESSIONS)) is None:
        connection.execute(insert(signing).values(name=_SESSIONS, secret=secrets.token_hex(32)))


def secret(connection: Connection) -> str:
    """Return the secret; all servers of one store have the same."""
    found: str = connection.scalars(select(signing.c.secret).where(signing.c.name == _SESSIONS)).one()
    return found


def add(connection: Connection, **row: Any) -> bool:
    """Add a key; tell whether it could be, that is, whether there was none of its name."""
    if connection.scalar(select(keys.c.name).where(keys.c.name == row["name"])) is not None:
        return False
    connection.execute(insert(keys).values(**row))
    _remember(connection)
    return True


def every(connection: Connection) -> Sequence[Row[Any]]:
    """Return all keys, by name."""
    return connection.execute(select(keys).order_by(keys.c.name)).all()


def remove(connection: Connection, name: str) -> bool:
    """Forget a key; tell whether there was one."""
    removed = bool(connection.execute(delete(keys).where(keys.c.name == name)).rowcount)
    if removed:
        _remember(connection)
    return removed


def ever(connection: Connection) -> bool:
    """Tell whether a key was made or removed here at any time."""
    return connection.scalar(select(meta.c.value).where(meta.c.key == _EVER)) is not None


def _remember(connection: Connection) -> None:
    statement = sql("INSERT INTO llmkit_meta (key, value) VALUES (:key, '1') ON CONFLICT (key) DO NOTHING")
    connection.execute(statement, {"key": _EVER})
