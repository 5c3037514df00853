"""The tables of the store, the same in SQLite and PostgreSQL, and the migrations of older databases."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from llmkit.errors import StoreError
from llmkit.store.text import as_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmkit.store.database import Connection

_META = "CREATE TABLE IF NOT EXISTS llmkit_meta (key TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL)"
_SESSIONS = (
    """
CREATE TABLE IF NOT EXISTS llmkit_sessions (
    id TEXT NOT NULL PRIMARY KEY,
    title TEXT,
    preset TEXT NOT NULL,
    version INTEGER,
    snapshot TEXT NOT NULL, -- the preset as it was, JSON
    forked_from TEXT,
    next_turn INTEGER NOT NULL,
    revision INTEGER NOT NULL, -- counts the changes that are no additions
    created_at FLOAT NOT NULL,
    updated_at FLOAT NOT NULL,
    served_to TEXT -- whom a server keeps it for; null for a session of our own
)""",
    "CREATE INDEX IF NOT EXISTS ix_llmkit_sessions_updated_at ON llmkit_sessions (updated_at)",
    """
CREATE TABLE IF NOT EXISTS llmkit_turns (
    session_id TEXT NOT NULL REFERENCES llmkit_sessions (id) ON DELETE CASCADE,
    turn INTEGER NOT NULL,
    status TEXT NOT NULL, -- added, running, complete, interrupted
    owner TEXT, -- who runs it: host:process:start
    expires FLOAT, -- until when the owner is believed to live
    partial TEXT, -- the streamed answer so far
    details TEXT, -- model, usage, latency, …, JSON
    cost_usd FLOAT,
    created_at FLOAT NOT NULL,
    PRIMARY KEY (session_id, turn)
)""",
    """
CREATE TABLE IF NOT EXISTS llmkit_messages (
    id {serial} NOT NULL PRIMARY KEY,
    session_id TEXT NOT NULL,
    turn INTEGER NOT NULL,
    number INTEGER NOT NULL,
    body TEXT NOT NULL, -- the whole message, JSON
    text TEXT, -- what is searched
    UNIQUE (session_id, turn, number),
    FOREIGN KEY (session_id, turn) REFERENCES llmkit_turns (session_id, turn) ON DELETE CASCADE
)""",
)
_LEDGER = (
    """
CREATE TABLE IF NOT EXISTS llmkit_ledger (
    id {serial} NOT NULL PRIMARY KEY,
    at FLOAT NOT NULL,
    call TEXT NOT NULL, -- the same for all attempts of one call
    attempt INTEGER NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL, -- ok, interrupted, cancelled, or the name of the error
    asked TEXT NOT NULL,
    answered TEXT,
    deployment TEXT NOT NULL,
    preset TEXT,
    session TEXT,
    tags TEXT, -- a JSON list
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    cached_tokens INTEGER,
    reasoning_tokens INTEGER,
    cost_usd FLOAT,
    source TEXT,
    price_source TEXT,
    latency_s FLOAT,
    first_token_s FLOAT,
    request_id TEXT,
    possibly_usd FLOAT -- the most that an attempt of unknown outcome can have cost
)""",
    "CREATE INDEX IF NOT EXISTS ix_llmkit_ledger_at ON llmkit_ledger (at)",
)
_BUDGETS = (
    """
CREATE TABLE IF NOT EXISTS llmkit_budgets (
    name TEXT NOT NULL PRIMARY KEY,
    rule TEXT NOT NULL -- limit, period, scope, …, JSON
)""",
    """
CREATE TABLE IF NOT EXISTS llmkit_spent (
    budget TEXT NOT NULL REFERENCES llmkit_budgets (name) ON DELETE CASCADE,
    span TEXT NOT NULL, -- which day, week, month
    settled FLOAT NOT NULL,
    calls INTEGER NOT NULL,
    unpriced INTEGER NOT NULL,
    PRIMARY KEY (budget, span)
)""",
    """
CREATE TABLE IF NOT EXISTS llmkit_holds (
    id TEXT NOT NULL PRIMARY KEY,
    budget TEXT NOT NULL REFERENCES llmkit_budgets (name) ON DELETE CASCADE,
    span TEXT NOT NULL,
    amount FLOAT NOT NULL,
    owner TEXT NOT NULL,
    expires FLOAT NOT NULL,
    state TEXT NOT NULL DEFAULT 'reserved' -- or 'possibly': it may have been paid
)""",
    "CREATE INDEX IF NOT EXISTS ix_llmkit_holds_budget ON llmkit_holds (budget)",
)
_RUNS = (
    """
CREATE TABLE IF NOT EXISTS llmkit_runs (
    id TEXT NOT NULL PRIMARY KEY,
    model TEXT NOT NULL,
    name TEXT NOT NULL, -- the caller's label
    status TEXT NOT NULL,
    owner TEXT NOT NULL, -- who works on it: host:process:start
    expires FLOAT NOT NULL, -- until when the owner is believed to live
    cancelled INTEGER NOT NULL,
    response TEXT, -- JSON, when it has ended
    created_at FLOAT NOT NULL,
    ended_at FLOAT,
    served_to TEXT -- the key a server runs it for, '' for nobody's; null for a run of our own
)""",
    "CREATE INDEX IF NOT EXISTS ix_llmkit_runs_created_at ON llmkit_runs (created_at)",
)
_KEYS = (
    """
CREATE TABLE IF NOT EXISTS llmkit_keys (
    name TEXT NOT NULL PRIMARY KEY,
    hash TEXT NOT NULL, -- SHA-256 of the key, hexadecimal
    prefix TEXT NOT NULL, -- how the key begins, to tell it from others
    budget TEXT, -- name of its budget; null for none
    models TEXT, -- names it may ask, JSON; null for all
    created_at FLOAT NOT NULL
)""",
    "CREATE INDEX IF NOT EXISTS ix_llmkit_keys_hash ON llmkit_keys (hash)",
    """
CREATE TABLE IF NOT EXISTS llmkit_signing (
    name TEXT NOT NULL PRIMARY KEY,
    secret TEXT NOT NULL -- 32 random bytes, hexadecimal
)""",
)
_JOBS = (
    """
CREATE TABLE IF NOT EXISTS llmkit_jobs (
    id TEXT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL UNIQUE, -- the path of its output, or the name that it was given
    input TEXT NOT NULL, -- a hash of all that was read; '' while it is read
    settings TEXT NOT NULL, -- the preset as it was, the options, …, JSON
    rows INTEGER NOT NULL,
    stopped INTEGER NOT NULL,
    written TEXT NOT NULL, -- how much of the output is written, JSON
    owner TEXT, -- who works on it: host:process:start
    expires FLOAT NOT NULL, -- until when the owner is believed to live
    created_at FLOAT NOT NULL,
    ended_at FLOAT,
    orders TEXT NOT NULL DEFAULT '' -- what a process that joins is told besides the settings, JSON
)""",
    """
CREATE TABLE IF NOT EXISTS llmkit_job_rows (
    job TEXT NOT NULL,
    number INTEGER NOT NULL,
    key TEXT NOT NULL, -- JSON
    asked TEXT NOT NULL, -- a hash of what is asked
    question TEXT NOT NULL, -- what is asked, JSON; '' if an earlier row asks the same
    same_as INTEGER, -- the earlier row that asks the same
    status TEXT NOT NULL, -- waiting, claimed, done, failed; same
    owner TEXT, -- who asks it: host:process:start
    expires FLOAT, -- until when the owner is believed to live
    answer TEXT, -- JSON
    cost_usd FLOAT,
    PRIMARY KEY (job, number)
)""",
    "CREATE INDEX IF NOT EXISTS ix_llmkit_job_rows_asked ON llmkit_job_rows (job, asked) WHERE same_as IS NULL",
    "CREATE INDEX IF NOT EXISTS ix_llmkit_job_rows_waiting ON llmkit_job_rows (job, number) WHERE status = 'waiting'",
    "CREATE INDEX IF NOT EXISTS ix_llmkit_job_rows_claimed ON llmkit_job_rows (job, number) WHERE status = 'claimed'",
)
_QUOTAS = (
    """
CREATE TABLE IF NOT EXISTS llmkit_quotas (
    name TEXT NOT NULL PRIMARY KEY,
    paused_until FLOAT NOT NULL, -- nothing is sent before
    next_at FLOAT NOT NULL, -- when the next request may start, where they are spread
    tokens_at FLOAT NOT NULL, -- when the tokens that are used are those of the time that has passed, where it is even
    rate FLOAT NOT NULL, -- requests a second that a provider took; 0 while it has refused none
    rate_at FLOAT NOT NULL, -- when it last refused one
    refusals INTEGER NOT NULL, -- how often the rate was learned
    window_s FLOAT NOT NULL -- over how many seconds it seems to count
)""",
    """
CREATE TABLE IF NOT EXISTS llmkit_quota_uses (
    quota TEXT NOT NULL,
    at FLOAT NOT NULL,
    tokens INTEGER NOT NULL -- 0 for a request that starts
)""",
    "CREATE INDEX IF NOT EXISTS ix_llmkit_quota_uses ON llmkit_quota_uses (quota, at)",
)
SIGNS_SESSIONS = "sessions"
"""The name of the secret that signs session tokens."""


def _create(*statements: str) -> Callable[[Connection], None]:
    def step(connection: Connection) -> None:
        for statement in statements:
            connection.run(statement.format(serial=connection.dialect.serial))

    return step


def _create_sessions(connection: Connection) -> None:
    _create(*_SESSIONS, *connection.dialect.search_tables)(connection)


def _create_keys(connection: Connection) -> None:
    _create(*_KEYS)(connection)
    connection.run(
        "INSERT INTO llmkit_signing (name, secret) VALUES (?, ?) ON CONFLICT (name) DO NOTHING",
        SIGNS_SESSIONS,
        os.urandom(32).hex(),
    )


def _add_possibly_paid(connection: Connection) -> None:
    _add_column(connection, "llmkit_holds", "state", "TEXT NOT NULL DEFAULT 'reserved'")
    _add_column(connection, "llmkit_ledger", "possibly_usd", "FLOAT")


def _add_served_to(connection: Connection) -> None:
    _add_column(connection, "llmkit_runs", "served_to", "TEXT")


def _add_served_sessions(connection: Connection) -> None:
    _add_column(connection, "llmkit_sessions", "served_to", "TEXT")
    connection.run("CREATE INDEX IF NOT EXISTS ix_llmkit_sessions_served_to ON llmkit_sessions (served_to, updated_at)")


def _add_quotas(connection: Connection) -> None:
    _create(*_QUOTAS)(connection)
    for column in ("paused_until", "next_at", "tokens_at"):
        if column in connection.columns("llmkit_jobs"):
            connection.run(f"ALTER TABLE llmkit_jobs DROP COLUMN {column}")
    _add_column(connection, "llmkit_jobs", "orders", "TEXT NOT NULL DEFAULT ''")


def _search_every_word(connection: Connection) -> None:
    _create(*connection.dialect.search_again)(connection)


def _add_column(connection: Connection, table: str, column: str, kind: str) -> None:
    """Add a column, unless the table was created with it."""
    if column not in connection.columns(table):
        connection.run(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")


_PART, _ESCAPED = "$part", "$escaped"


def _make_messages_whole(connection: Connection) -> None:
    """Put large parts, which used to be stored once by the hash of their content, back into the messages."""
    if not connection.columns("llmkit_parts"):
        return

    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return [whole(item) for item in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1 and _PART in value:
            text = connection.value("SELECT data FROM llmkit_parts WHERE hash = ?", value[_PART])
            return value if text is None else json.loads(text)
        if len(value) == 1 and _ESCAPED in value:
            value = value[_ESCAPED]
        return {key: whole(item) for key, item in value.items()}

    marked = f"""SELECT id FROM llmkit_messages WHERE body LIKE '%"{_PART}"%' OR body LIKE '%"{_ESCAPED}"%'"""
    for message_id in connection.column(marked):
        message = json.loads(connection.value("SELECT body FROM llmkit_messages WHERE id = ?", message_id))
        if isinstance(message.get("content"), list):
            message["content"] = whole(message["content"])
            connection.run("UPDATE llmkit_messages SET body = ? WHERE id = ?", as_json(message), message_id)
    connection.run("DROP TABLE llmkit_parts")


MIGRATIONS = (
    _create_sessions,
    _create(*_LEDGER),
    _create(*_BUDGETS),
    _create(*_RUNS),
    _create_keys,
    _add_possibly_paid,
    _add_served_to,
    _make_messages_whole,
    _add_served_sessions,
    _create(*_JOBS),
    _add_quotas,
    _search_every_word,
)
"""The migration from version n to version n + 1 of the schema; a new database begins with version 0."""


def is_current(connection: Connection) -> bool:
    """Return whether the database has the tables of this version."""
    return bool(connection.columns("llmkit_meta")) and _version(connection) == len(MIGRATIONS)


def migrate(connection: Connection) -> None:
    """Migrate the database to this version of the schema, in the open transaction.

    Raises:
        StoreError: the database was made by a newer llmkit.
    """
    connection.run(_META)
    version, newest = _version(connection), len(MIGRATIONS)
    if version > newest:
        raise StoreError(
            f"the database has schema {version} and llmkit knows {newest}; a newer llmkit made it: upgrade"
        )
    for step in MIGRATIONS[version:]:
        step(connection)
    connection.run(
        "INSERT INTO llmkit_meta (key, value) VALUES ('schema', ?) ON CONFLICT (key) DO UPDATE SET value = ?",
        str(newest),
        str(newest),
    )


def _version(connection: Connection) -> int:
    return int(connection.value("SELECT value FROM llmkit_meta WHERE key = 'schema'") or 0)
