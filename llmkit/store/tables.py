"""The tables of the store, the same in SQLite and PostgreSQL, and how an older database becomes a newer one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    inspect,
)
from sqlalchemy import text as sql

from llmkit.errors import StoreError

if TYPE_CHECKING:
    from sqlalchemy import Connection

metadata = MetaData()

meta = Table("llmkit_meta", metadata, Column("key", Text, primary_key=True), Column("value", Text, nullable=False))

sessions = Table(
    "llmkit_sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("title", Text),
    Column("preset", Text, nullable=False),
    Column("version", Integer),
    Column("snapshot", Text, nullable=False),  # the preset as it was, JSON
    Column("forked_from", Text),
    Column("next_turn", Integer, nullable=False),
    Column("revision", Integer, nullable=False),  # counts the changes that are no additions
    Column("created_at", Float, nullable=False),
    Column("updated_at", Float, nullable=False, index=True),
)

turns = Table(
    "llmkit_turns",
    metadata,
    Column("session_id", Text, ForeignKey(sessions.c.id, ondelete="CASCADE"), primary_key=True),
    Column("turn", Integer, primary_key=True),
    Column("status", Text, nullable=False),  # added, running, complete, interrupted
    Column("owner", Text),  # who runs it: host:process:start
    Column("expires", Float),  # until when the owner is believed to live
    Column("partial", Text),  # the streamed answer so far
    Column("details", Text),  # model, usage, latency, …, JSON
    Column("cost_usd", Float),
    Column("created_at", Float, nullable=False),
)

messages = Table(
    "llmkit_messages",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("session_id", Text, nullable=False),
    Column("turn", Integer, nullable=False),
    Column("number", Integer, nullable=False),
    Column("body", Text, nullable=False),  # the whole message, JSON; large parts by their hash
    Column("text", Text),  # what is searched
    UniqueConstraint("session_id", "turn", "number"),
    ForeignKeyConstraint(["session_id", "turn"], ["llmkit_turns.session_id", "llmkit_turns.turn"], ondelete="CASCADE"),
)

parts = Table("llmkit_parts", metadata, Column("hash", Text, primary_key=True), Column("data", Text, nullable=False))

_SEARCH = {
    "sqlite": (
        "CREATE VIRTUAL TABLE llmkit_search USING fts5(text, content='llmkit_messages', content_rowid='id')",
        """CREATE TRIGGER llmkit_search_insert AFTER INSERT ON llmkit_messages BEGIN
        INSERT INTO llmkit_search(rowid, text) VALUES (new.id, new.text); END""",
        """CREATE TRIGGER llmkit_search_delete AFTER DELETE ON llmkit_messages BEGIN
        INSERT INTO llmkit_search(llmkit_search, rowid, text) VALUES ('delete', old.id, old.text); END""",
    ),
    "postgresql": (
        "CREATE INDEX llmkit_search ON llmkit_messages USING gin (to_tsvector('simple', coalesce(text, '')))",
    ),
}


def _create_sessions(connection: Connection) -> None:
    metadata.create_all(connection, [sessions, turns, messages, parts])
    for statement in _SEARCH[connection.dialect.name]:
        connection.execute(sql(statement))


def _create_ledger(connection: Connection) -> None:
    from llmkit.store.ledger import ledger

    metadata.create_all(connection, [ledger])


def _create_budgets(connection: Connection) -> None:
    from llmkit.store.budgets import budgets, holds, spent

    metadata.create_all(connection, [budgets, spent, holds])


def _create_runs(connection: Connection) -> None:
    from llmkit.store.runs import runs

    metadata.create_all(connection, [runs])


def _create_keys(connection: Connection) -> None:
    from llmkit.store import keys as _keys

    metadata.create_all(connection, [_keys.keys, _keys.signing])
    _keys.make_secret(connection)


def _add_possibly_paid(connection: Connection) -> None:
    _add_column(connection, "llmkit_holds", "state", "TEXT NOT NULL DEFAULT 'reserved'")
    _add_column(connection, "llmkit_ledger", "possibly_usd", "FLOAT")


def _add_served_to(connection: Connection) -> None:
    _add_column(connection, "llmkit_runs", "served_to", "TEXT")


def _add_column(connection: Connection, table: str, column: str, kind: str) -> None:
    """Add a column, where the table was made without it."""
    if column not in {found["name"] for found in inspect(connection).get_columns(table)}:
        connection.execute(sql(f"ALTER TABLE {table} ADD COLUMN {column} {kind}"))


MIGRATIONS = (
    _create_sessions,
    _create_ledger,
    _create_budgets,
    _create_runs,
    _create_keys,
    _add_possibly_paid,
    _add_served_to,
)
"""What makes version n + 1 of the schema out of version n; a new database begins with version 0."""


def migrate(connection: Connection) -> None:
    """Bring the database to this version of the schema, in the transaction that is open.

    Raises:
        StoreError: the database was made by a newer llmkit.
    """
    metadata.create_all(connection, [meta])
    found = connection.scalar(meta.select().where(meta.c.key == "schema").with_only_columns(meta.c.value))
    version = int(found or 0)
    if version > len(MIGRATIONS):
        raise StoreError(
            f"the database has schema {version} and llmkit knows {len(MIGRATIONS)}; a newer llmkit made it: upgrade"
        )
    if version == len(MIGRATIONS):
        return
    for step in MIGRATIONS[version:]:
        step(connection)
    value = str(len(MIGRATIONS))
    if found is None:
        connection.execute(meta.insert().values(key="schema", value=value))
    else:
        connection.execute(meta.update().where(meta.c.key == "schema").values(value=value))
