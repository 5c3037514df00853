"""Sessions in the store: reads and writes inside a transaction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from llmkit.errors import UnknownSessionError
from llmkit.store.text import as_json, clean, places, searched, starting, title_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from llmkit.core.types import Message
    from llmkit.store.database import Connection

NOTHING = '""'
"""The JSON of an empty text."""
_SESSION = "id, title, preset, version, snapshot, forked_from, next_turn, revision, created_at, updated_at, served_to"
_ADD_TURN = """
INSERT INTO llmkit_turns (session_id, turn, status, owner, expires, partial, details, cost_usd, created_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_MESSAGE = ("session_id", "turn", "number", "body", "text")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """One session, without its messages.

    Attributes:
        id: its uuid.
        title: its title, or None before it has one.
        preset: the name of the preset it was created with; `version` is the preset's.
        snapshot: that preset as it was then, as it would be in a file.
        forked_from: the id of the session it was forked from.
        created_at: seconds since 1970; `updated_at` likewise.
        count: how many messages it has, if that was requested.
        snippet: after a search, the text around the match.
        served_to: whom a server keeps it for, or None for a session of our own.
    """

    id: str
    title: str | None
    preset: str
    version: int | None
    snapshot: Mapping[str, Any]
    forked_from: str | None
    created_at: float
    updated_at: float
    count: int = 0
    snippet: str = ""
    served_to: str | None = None


def insert(connection: Connection, info: SessionInfo) -> bool:
    """Add a session without messages; return False if its id is taken."""
    added = connection.run(
        "INSERT INTO llmkit_sessions (id, title, preset, version, snapshot, forked_from, created_at, updated_at, "
        "served_to, next_turn, revision) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 1, 0) ON CONFLICT (id) DO NOTHING",
        info.id,
        info.title and clean(info.title),
        info.preset,
        info.version,
        as_json(info.snapshot),
        info.forked_from,
        info.created_at,
        info.updated_at,
        info.served_to,
    )
    return added > 0


def row_of(connection: Connection, session_id: str) -> Any:
    """Return the row of a session, or raise an UnknownSessionError."""
    row = connection.row(f"SELECT {_SESSION} FROM llmkit_sessions WHERE id = ?", session_id)
    if row is None:
        raise UnknownSessionError(f"there is no session {session_id}")
    return row


def info(row: Any, *, count: int = 0, snippet: str = "") -> SessionInfo:
    """Return a row as a SessionInfo."""
    return SessionInfo(
        id=row.id,
        title=row.title,
        preset=row.preset,
        version=row.version,
        snapshot=json.loads(row.snapshot),
        forked_from=row.forked_from,
        created_at=row.created_at,
        updated_at=row.updated_at,
        count=count,
        snippet=snippet,
        served_to=row.served_to,
    )


def latest(
    connection: Connection, limit: int, *, query: str | None, empty: bool, served_to: str | None
) -> list[SessionInfo]:
    """Return sessions of one owner, last changed first: those with all words of *query*, or with messages, or all."""
    where, owned, snippets = "", "IS NULL" if served_to is None else "= ?", {}
    owner = [] if served_to is None else [served_to]
    found: list[str] = []
    if query is not None:
        snippets = snippets_of(connection, query)
        whose = f"SELECT s.id FROM llmkit_sessions s WHERE s.served_to {owned} ORDER BY s.updated_at DESC"
        found = list(
            islice(
                (each for each in connection.column(whose, *owner) if each in snippets), limit if limit >= 0 else None
            )
        )
        where = f"AND s.id IN ({places(found)})"
    elif not empty:
        where = "AND EXISTS (SELECT 1 FROM llmkit_messages m WHERE m.session_id = s.id)"
    rows = connection.rows(
        f"SELECT {_SESSION}, (SELECT count(*) FROM llmkit_messages m WHERE m.session_id = s.id) AS messages "
        f"FROM llmkit_sessions s WHERE s.served_to {owned} {where} ORDER BY s.updated_at DESC LIMIT ?",
        *owner,
        *found,
        limit,
    )
    return [info(row, count=row.messages, snippet=snippets.get(row.id, "")) for row in rows]


def ids(connection: Connection, begin: str) -> list[str]:
    """Return the ids of our own last changed sessions that start with *begin*, two at most; a whole id is anybody's."""
    return connection.column(
        "SELECT id FROM llmkit_sessions WHERE id = ? OR (served_to IS NULL AND id LIKE ? ESCAPE '/') "
        "ORDER BY updated_at DESC LIMIT 2",
        begin,
        starting(begin),
    )


def rename(connection: Connection, session_id: str, title: str | None) -> None:
    """Give a session a title."""
    row_of(connection, session_id)
    connection.run("UPDATE llmkit_sessions SET title = ? WHERE id = ?", title and clean(title), session_id)


def delete(connection: Connection, session_id: str) -> None:
    """Delete a session with all its messages."""
    row_of(connection, session_id)
    # row by row and not by cascade: SQLite runs no triggers for rows that a foreign key deletes
    connection.run("DELETE FROM llmkit_messages WHERE session_id = ?", session_id)
    connection.run("DELETE FROM llmkit_turns WHERE session_id = ?", session_id)
    connection.run("DELETE FROM llmkit_sessions WHERE id = ?", session_id)


def forget(connection: Connection, served_to: str) -> None:
    """Delete all sessions that a server keeps for somebody."""
    for session_id in connection.column("SELECT id FROM llmkit_sessions WHERE served_to = ?", served_to):
        delete(connection, session_id)


def next_turn(connection: Connection, session_id: str, now: float) -> int:
    """Return the next turn number of a session; its row is locked until the transaction ends."""
    connection.run("UPDATE llmkit_sessions SET next_turn = next_turn + 1, updated_at = ? WHERE id = ?", now, session_id)
    return int(row_of(connection, session_id).next_turn) - 1


FIRST = 1
"""The number of a session's first turn."""


def add_turn(
    connection: Connection,
    session_id: str,
    now: float,
    messages: Sequence[Message],
    details: Mapping[str, Any] | None = None,
) -> None:
    """Add messages in a turn of their own; with *details* it is a run that has ended.

    A session without a title gets the first words of its first question.
    """
    turn = next_turn(connection, session_id, now)
    if turn == FIRST and (title := title_of(messages)):
        connection.run("UPDATE llmkit_sessions SET title = ? WHERE id = ? AND title IS NULL", title, session_id)
    insert_turn(connection, session_id, turn, now, "added" if details is None else "complete", details=details)
    insert_messages(connection, session_id, turn, messages)


def insert_turn(
    connection: Connection,
    session_id: str,
    turn: int,
    now: float,
    status: str,
    *,
    owner: str | None = None,
    expires: float | None = None,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Add a turn; one with an owner is running."""
    partial = None if owner is None else NOTHING
    connection.run(_ADD_TURN, session_id, turn, status, owner, expires, partial, *_of_details(details), now)


def insert_messages(connection: Connection, session_id: str, turn: int, messages: Iterable[Message]) -> None:
    """Add the messages of a turn."""
    rows = [(session_id, turn, number, as_json(message), searched(message)) for number, message in enumerate(messages)]
    connection.add("llmkit_messages", _MESSAGE, rows)


def note(connection: Connection, session_id: str, turn: int, expires: float, partial: str | None) -> None:
    """Renew a run's lease, and store what has arrived of its answer."""
    connection.run(
        "UPDATE llmkit_turns SET expires = ?, partial = coalesce(?, partial) "
        "WHERE session_id = ? AND turn = ? AND status = 'running'",
        expires,
        None if partial is None else as_json(partial),
        session_id,
        turn,
    )


def end_turn(
    connection: Connection, session_id: str, turn: int, status: str, details: Mapping[str, Any] | None = None
) -> None:
    """End a run; it has no owner any more."""
    connection.run(
        "UPDATE llmkit_turns SET status = ?, owner = NULL, partial = NULL, details = ?, cost_usd = ? "
        "WHERE session_id = ? AND turn = ?",
        status,
        *_of_details(details),
        session_id,
        turn,
    )


def touch(connection: Connection, session_id: str, now: float, *, revised: bool) -> None:
    """Record that a session has changed, and whether earlier messages have."""
    connection.run(
        "UPDATE llmkit_sessions SET updated_at = ?, revision = revision + ? WHERE id = ?", now, int(revised), session_id
    )


def delete_messages(connection: Connection, session_id: str, turn: int) -> None:
    """Delete the messages of a turn."""
    connection.run("DELETE FROM llmkit_messages WHERE session_id = ? AND turn = ?", session_id, turn)


def delete_turn(connection: Connection, session_id: str, turn: int) -> None:
    """Delete a turn with its messages."""
    delete_messages(connection, session_id, turn)
    connection.run("DELETE FROM llmkit_turns WHERE session_id = ? AND turn = ?", session_id, turn)


def last_turn(connection: Connection, session_id: str) -> Any:
    """Return number and status of the last turn, or None before there is one."""
    return connection.row(
        "SELECT turn, status FROM llmkit_turns WHERE session_id = ? ORDER BY turn DESC LIMIT 1", session_id
    )


def running(connection: Connection, session_id: str) -> list[Any]:
    """Return number, owner, end of the lease and answer so far of the running turns."""
    return connection.rows(
        "SELECT turn, owner, expires, partial FROM llmkit_turns WHERE session_id = ? AND status = 'running'", session_id
    )


def details(connection: Connection, session_id: str) -> list[tuple[int, dict[str, Any]]]:
    """Return number and details of the completed runs, in order."""
    row_of(connection, session_id)
    rows = connection.rows(
        "SELECT turn, details FROM llmkit_turns WHERE session_id = ? AND details IS NOT NULL ORDER BY turn", session_id
    )
    return [(row.turn, json.loads(row.details)) for row in rows]


def cost(connection: Connection, session_id: str) -> float | None:
    """Return what the completed runs cost in US dollars, or None if the cost of one is not known."""
    row_of(connection, session_id)
    costs = connection.column(
        "SELECT cost_usd FROM llmkit_turns WHERE session_id = ? AND details IS NOT NULL", session_id
    )
    return None if None in costs else sum(costs, 0.0)


def turns(connection: Connection, session_id: str) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Return the messages in order, the last one of each run with the details of the run."""
    told = dict(details(connection, session_id))
    rows = connection.rows(
        "SELECT turn, body FROM llmkit_messages WHERE session_id = ? ORDER BY turn, number", session_id
    )
    last = {row.turn: number for number, row in enumerate(rows)}
    return [
        (json.loads(row.body), told.get(row.turn) if last[row.turn] == number else None)
        for number, row in enumerate(rows)
    ]


def history(connection: Connection, session_id: str, *, after: int, without: int | None = None) -> list[dict[str, Any]]:
    """Return the messages of the turns after one, with what had arrived in runs that never ended."""
    rows = connection.rows(
        "SELECT turn, body FROM llmkit_messages WHERE session_id = ? AND turn > ? ORDER BY turn, number",
        session_id,
        after,
    )
    unended = connection.rows(
        "SELECT turn, partial FROM llmkit_turns WHERE session_id = ? AND turn > ? AND partial IS NOT NULL",
        session_id,
        after,
    )
    messages = [(turn, json.loads(body)) for turn, body in rows if turn != without]
    messages += [(turn, cut(json.loads(text))) for turn, text in unended if text != NOTHING and turn != without]
    if unended:
        messages.sort(key=lambda item: item[0])
    return [message for _, message in messages]


def cut(partial: str) -> dict[str, Any]:
    """Return the message for an answer that never ended."""
    return {"role": "assistant", "content": partial, "interrupted": True}


def snippets_of(connection: Connection, query: str) -> dict[str, str]:
    """Return, for each session that contains all the words, the text around the newest match."""
    dialect = connection.dialect
    return dict(connection.rows(dialect.search, dialect.words(clean(query))))


def _of_details(details: Mapping[str, Any] | None) -> tuple[str | None, float | None]:
    return (None, None) if details is None else (as_json(details, default=str), details.get("cost_usd"))
