"""Rows of the store: what is read and written inside of a transaction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy import text as sql

from llmkit.errors import UnknownSessionError
from llmkit.store._bodies import NOTHING, clean, packed, unpacked
from llmkit.store._schema import messages as messages_
from llmkit.store._schema import parts as parts_
from llmkit.store._schema import sessions as sessions_
from llmkit.store._schema import turns as turns_

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sqlalchemy import Connection

    from llmkit.core.types import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """One session, without its messages.

    Attributes:
        id: its uuid.
        title: what it is called, None before it has a name.
        preset: the preset it was made with, by name; `version` is the preset's.
        snapshot: that preset as it was then, as it would stand in a file.
        forked_from: the id of the session it was forked from.
        created_at: seconds since 1970; `updated_at` likewise.
        count: how many messages it has, where that was asked for.
        snippet: where a search found something, the text around it.
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


def row_of(connection: Connection, session_id: str) -> Any:
    """Return the row of a session, or raise an UnknownSessionError."""
    row = connection.execute(select(sessions_).where(sessions_.c.id == session_id)).first()
    if row is None:
        raise UnknownSessionError(f"there is no session {session_id}")
    return row


def info(row: Any, *, count: int = 0, snippet: str = "") -> SessionInfo:
    """Return what a row says."""
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
    )


def next_turn(connection: Connection, session_id: str, now: float) -> int:
    """Take the next number of a session; the row is ours until the transaction ends."""
    changed = (
        update(sessions_)
        .where(sessions_.c.id == session_id)
        .values(next_turn=sessions_.c.next_turn + 1, updated_at=now)
        .returning(sessions_.c.next_turn)
    )
    number = connection.scalar(changed)
    if number is None:
        raise UnknownSessionError(f"there is no session {session_id}")
    return int(number) - 1


def insert_turn(connection: Connection, session_id: str, turn: int, now: float, **values: Any) -> None:
    """Add a turn."""
    connection.execute(insert(turns_).values(session_id=session_id, turn=turn, created_at=now, **values))


def insert_messages(connection: Connection, session_id: str, turn: int, added: Sequence[Message]) -> None:
    """Add the messages of a turn, and their large parts."""
    rows = []
    for number, message in enumerate(added):
        body, text, large = packed(message)
        rows.append({"session_id": session_id, "turn": turn, "number": number, "body": body, "text": text})
        for key, data in large.items():
            if connection.scalar(select(parts_.c.hash).where(parts_.c.hash == key)) is None:
                insert_part(connection, key, data)
    if rows:
        connection.execute(insert(messages_), rows)


def insert_part(connection: Connection, key: str, data: str) -> None:
    """Keep a large part; there may be one already."""
    connection.execute(
        sql("INSERT INTO llmkit_parts (hash, data) VALUES (:hash, :data) ON CONFLICT (hash) DO NOTHING"),
        {"hash": key, "data": data},
    )


def delete_turn(connection: Connection, session_id: str, turn: int) -> None:
    """Delete a turn with its messages."""
    connection.execute(of_turn(delete(messages_), session_id, turn, messages_))
    connection.execute(of_turn(delete(turns_), session_id, turn))


def drop_parts(connection: Connection, keys: Iterable[str]) -> None:
    """Delete those of the large parts that no message has any more."""
    for key in keys:
        if connection.scalar(select(messages_.c.id).where(messages_.c.body.contains(key)).limit(1)) is None:
            connection.execute(delete(parts_).where(parts_.c.hash == key))


def of_turn(statement: Any, session_id: str, turn: int, table: Any = turns_) -> Any:
    """Restrict a statement to one turn."""
    return statement.where(table.c.session_id == session_id, table.c.turn == turn)


def bodies(session_id: str) -> Any:
    """Return a query for the bodies of a session."""
    return select(messages_.c.body).where(messages_.c.session_id == session_id)


def hashes(bodies: Iterable[str]) -> set[str]:
    """Return the hashes of the large parts in *bodies*."""
    found: set[str] = set()
    for body in bodies:
        if '"$part"' in body:
            unpacked(body, lambda key: found.add(key) or "")  # type: ignore[func-returns-value]
    return found


def history(connection: Connection, session_id: str, *, after: int, without: int | None = None) -> list[dict[str, Any]]:
    """Return the messages of the turns after one, with what had arrived in runs that never ended."""
    chosen = bodies(session_id).add_columns(messages_.c.turn)
    rows = connection.execute(
        chosen.where(messages_.c.turn > after).order_by(messages_.c.turn, messages_.c.number)
    ).all()
    unended = connection.execute(
        select(turns_.c.turn, turns_.c.partial).where(
            turns_.c.session_id == session_id, turns_.c.turn > after, turns_.c.partial.is_not(None)
        )
    ).all()

    def part(key: str) -> str:
        return str(json.loads(str(connection.scalar(select(parts_.c.data).where(parts_.c.hash == key)))))

    found = [(turn, unpacked(body, part)) for body, turn in rows if turn != without]
    found += [(turn, cut(json.loads(text))) for turn, text in unended if text != NOTHING and turn != without]
    if unended:
        found.sort(key=lambda item: item[0])
    return [message for _, message in found]


def cut(partial: str) -> dict[str, Any]:
    """Return the message for an answer that never ended."""
    return {"role": "assistant", "content": partial, "interrupted": True}


def found(connection: Connection, query: str) -> dict[str, str]:
    """Return for each session that has all the words the text around the newest place."""
    query = clean(query) or ""
    if connection.dialect.name == "sqlite":
        words = " ".join('"' + word.replace('"', '""') + '"' for word in query.split()) or '""'
        statement = sql(
            "SELECT m.session_id, snippet(llmkit_search, 0, '[', ']', '…', 12) AS snippet FROM llmkit_search "
            "JOIN llmkit_messages m ON m.id = llmkit_search.rowid WHERE llmkit_search MATCH :words ORDER BY m.id"
        )
        given = {"words": words}
    else:
        statement = sql(
            "SELECT session_id, ts_headline('simple', text, plainto_tsquery('simple', :words), "
            "'StartSel=[, StopSel=], MaxWords=12, MinWords=4') AS snippet FROM llmkit_messages "
            "WHERE to_tsvector('simple', coalesce(text, '')) @@ plainto_tsquery('simple', :words) ORDER BY id"
        )
        given = {"words": query}
    return {row.session_id: row.snippet for row in connection.execute(statement, given)}
