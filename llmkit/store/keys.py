"""The keys of servers in the store: only their SHA-256 hashes; and the secret that signs session tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmkit.store.tables import SIGNS_SESSIONS

if TYPE_CHECKING:
    from llmkit.store.database import Connection

_ADD = """
INSERT INTO llmkit_keys (name, hash, prefix, budget, models, created_at) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (name) DO NOTHING"""
_EVER = "keys"  # the row of `llmkit_meta` that stays when the last key goes


def secret(connection: Connection) -> str:
    """Return the secret; all servers of one store share it."""
    return str(connection.value("SELECT secret FROM llmkit_signing WHERE name = ?", SIGNS_SESSIONS))


def add(
    connection: Connection,
    *,
    name: str,
    hash: str,  # noqa: A002 - the column's name
    prefix: str,
    budget: str | None,
    models: str | None,
    created_at: float,
) -> bool:
    """Add a key; return False if its name is taken."""
    added = connection.run(_ADD, name, hash, prefix, budget, models, created_at) > 0
    if added:
        _remember(connection)
    return added


def every(connection: Connection) -> list[Any]:
    """Return the rows of all keys, by name."""
    return connection.rows("SELECT name, hash, prefix, budget, models, created_at FROM llmkit_keys ORDER BY name")


def remove(connection: Connection, name: str) -> str | None:
    """Delete a key; return its hash, or None if there was none."""
    hashed: str | None = connection.value("SELECT hash FROM llmkit_keys WHERE name = ?", name)
    if connection.run("DELETE FROM llmkit_keys WHERE name = ?", name) == 0:
        return None
    _remember(connection)
    return hashed


def ever(connection: Connection) -> bool:
    """Return whether a key was ever made or removed here."""
    return connection.value("SELECT value FROM llmkit_meta WHERE key = ?", _EVER) is not None


def _remember(connection: Connection) -> None:
    connection.run("INSERT INTO llmkit_meta (key, value) VALUES (?, '1') ON CONFLICT (key) DO NOTHING", _EVER)
