"""The store: sessions in SQLite on this machine, or in PostgreSQL for a team, with the same tables and the same rules.

A session is a list of turns: messages that were added, and runs with their answers. A turn has its place in the order
from the moment it begins, and is written in one transaction. A run whose process died leaves what had arrived.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, func, insert, select, update

from llmkit.errors import SessionBusyError, StoreError, UnknownSessionError
from llmkit.store._bodies import NOTHING, as_json, clean
from llmkit.store._engine import Database, url_of
from llmkit.store._owner import lives, owner
from llmkit.store._rows import (
    SessionInfo,
    bodies,
    cut,
    delete_turn,
    drop_parts,
    found,
    hashes,
    history,
    info,
    insert_messages,
    insert_turn,
    next_turn,
    of_turn,
    row_of,
)
from llmkit.store._schema import messages as messages_
from llmkit.store._schema import sessions as sessions_
from llmkit.store._schema import turns as turns_

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import URL, Connection

    from llmkit.core.types import Message

__all__ = ["LEASE_S", "Run", "SessionInfo", "Store", "opened", "owner"]

_abandoned: set[tuple[str, int]] = set()
LEASE_S = 20.0
"""How long a run of another host is believed to live after it was last heard of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run that has begun: its place in the order, and the messages it answers.

    Attributes:
        turn: its number.
        revision: of the session; when it has changed, earlier messages have changed too.
        history: the messages of the turns after `seen`, in order.
        replaces: the run whose answer this one replaces when it ends.
        whole: whether the history begins with the first turn.
    """

    turn: int
    revision: int
    history: Sequence[Message]
    replaces: int | None
    whole: bool


class Store:
    """A database of sessions; one object for all threads.

    Args:
        url: `sqlite:///PATH`, `postgresql://…`, or a path; `llmkit.db` in the user's data folder where it is None.

    Every method raises a StoreError where the database cannot be opened, read or written.
    """

    def __init__(self, url: str | Path | URL | None = None) -> None:
        self._database = Database(_chosen(url))

    @property
    def database(self) -> Database:
        """The database; the ledger is in it too."""
        return self._database

    @property
    def url(self) -> str:
        """The database's URL, without its password."""
        return self._database.url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Close all connections; they are opened again when they are needed."""
        self._database.close()

    # -- sessions -------------------------------------------------------------------------------------------------

    def create(
        self,
        session_id: str,
        *,
        preset: str,
        version: int | None,
        snapshot: Mapping[str, Any],
        title: str | None = None,
        forked_from: str | None = None,
        messages: Sequence[Message] = (),
    ) -> None:
        """Make a session, with messages in it.

        Raises:
            StoreError: there is one with this id.
        """
        with self._database.writing() as connection:
            if connection.scalar(select(sessions_.c.id).where(sessions_.c.id == session_id)):
                raise StoreError(f"there is a session {session_id} already")
            now = self._database.now(connection)
            connection.execute(
                insert(sessions_).values(
                    id=session_id,
                    title=clean(title),
                    preset=preset,
                    version=version,
                    snapshot=as_json(snapshot),
                    forked_from=forked_from,
                    next_turn=1,
                    revision=0,
                    created_at=now,
                    updated_at=now,
                )
            )
            if messages:
                turn = next_turn(connection, session_id, now)
                insert_turn(connection, session_id, turn, now, status="added")
                insert_messages(connection, session_id, turn, messages)

    def session(self, session_id: str) -> SessionInfo:
        """Return one session.

        Raises:
            UnknownSessionError: there is none with this id.
        """
        with self._database.reading() as connection:
            return info(row_of(connection, session_id))

    def sessions(self, query: str | None = None, *, limit: int = 50, empty: bool = False) -> list[SessionInfo]:
        """Return sessions, the last changed first; with *query* those whose messages have all its words."""
        with self._database.reading() as connection:
            counted = (
                select(messages_.c.session_id, func.count().label("messages"))
                .group_by(messages_.c.session_id)
                .subquery()
            )
            chosen = select(sessions_, func.coalesce(counted.c.messages, 0).label("messages")).outerjoin(
                counted, counted.c.session_id == sessions_.c.id
            )
            snippets: dict[str, str] = {}
            if query is not None:
                snippets = found(connection, query)
                chosen = chosen.where(sessions_.c.id.in_(snippets))
            elif not empty:
                chosen = chosen.where(counted.c.messages > 0)
            rows = connection.execute(chosen.order_by(sessions_.c.updated_at.desc()).limit(limit)).all()
        return [info(row, count=row.messages, snippet=snippets.get(row.id, "")) for row in rows]

    def resolve(self, begin: str) -> str:
        """Return the id of the one session whose id begins so; "" is the session that was changed last.

        Raises:
            UnknownSessionError: there is none, or more than one.
        """
        chosen = select(sessions_.c.id).order_by(sessions_.c.updated_at.desc()).limit(2)
        if begin:
            chosen = chosen.where(sessions_.c.id.startswith(begin, autoescape=True))
        with self._database.reading() as connection:
            ids = list(connection.scalars(chosen))
        if not ids:
            raise UnknownSessionError(f"there is no session {begin}" if begin else "there is no session yet")
        if begin and len(ids) > 1 and begin not in ids:
            raise UnknownSessionError(f"more than one session begins with {begin}")
        return begin if begin in ids else str(ids[0])

    def rename(self, session_id: str, title: str | None) -> None:
        """Give a session a title."""
        with self._database.writing() as connection:
            row_of(connection, session_id)
            connection.execute(update(sessions_).where(sessions_.c.id == session_id).values(title=clean(title)))

    def delete(self, session_id: str) -> None:
        """Delete a session with all its messages, and the parts that no other has."""
        with self._database.writing() as connection:
            row_of(connection, session_id)
            keys = hashes(connection.scalars(bodies(session_id)).all())
            # row by row and not by cascade: SQLite runs no triggers for rows that a foreign key deletes
            connection.execute(delete(messages_).where(messages_.c.session_id == session_id))
            connection.execute(delete(turns_).where(turns_.c.session_id == session_id))
            connection.execute(delete(sessions_).where(sessions_.c.id == session_id))
            drop_parts(connection, keys)

    # -- messages -------------------------------------------------------------------------------------------------

    def add(self, session_id: str, messages: Sequence[Message]) -> None:
        """Add messages to a session, all in one transaction."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            turn = next_turn(connection, session_id, now)
            insert_turn(connection, session_id, turn, now, status="added")
            insert_messages(connection, session_id, turn, messages)

    def record(
        self, session_id: str, messages: Sequence[Message], answer: Sequence[Message], details: Mapping[str, Any]
    ) -> None:
        """Add messages and the answer to them, which was got elsewhere, in one transaction."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            turn = next_turn(connection, session_id, now)
            insert_turn(connection, session_id, turn, now, status="added")
            insert_messages(connection, session_id, turn, messages)
            turn = next_turn(connection, session_id, now)
            insert_turn(connection, session_id, turn, now, status="complete", **_of_details(details))
            insert_messages(connection, session_id, turn, answer)

    def messages(self, session_id: str) -> list[dict[str, Any]]:
        """Return all messages in order; an answer that was cut has `"interrupted": True`."""
        with self._database.reading() as connection:
            row_of(connection, session_id)
            return history(connection, session_id, after=0)

    def cost(self, session_id: str) -> float | None:
        """Return what the runs of a session cost in US dollars, None where a price is not known."""
        costs: list[float | None] = [details.get("cost_usd") for _, details in self.runs(session_id)]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == len(costs) else None

    def runs(self, session_id: str) -> list[tuple[int, dict[str, Any]]]:
        """Return the runs that ended, in order: number of the turn, and its details (model, usage, cost, …)."""
        chosen = select(turns_.c.turn, turns_.c.details).where(
            turns_.c.session_id == session_id, turns_.c.details.is_not(None)
        )
        with self._database.reading() as connection:
            row_of(connection, session_id)
            return [(row.turn, json.loads(row.details)) for row in connection.execute(chosen.order_by(turns_.c.turn))]

    # -- runs -----------------------------------------------------------------------------------------------------

    def begin(self, session_id: str, *, seen: tuple[int, int] = (0, 0), again: bool = False) -> Run:
        """Begin a run: take its place in the order, and return what it answers.

        Args:
            session_id: the session.
            seen: (revision, turn) up to which the caller has the messages.
            again: leave out the last answer, which this run's will replace.

        Raises:
            UnknownSessionError: there is no such session.
            SessionBusyError: another run of it is under way.
        """
        with self._database.writing() as connection:
            now = self._database.now(connection)
            turn = next_turn(connection, session_id, now)
            self._settle(connection, session_id, now)
            revision = row_of(connection, session_id).revision
            after = seen[1] if seen[0] == revision and not again else 0
            replaces = None
            if again:
                last = connection.execute(
                    select(turns_).where(turns_.c.session_id == session_id).order_by(turns_.c.turn.desc()).limit(1)
                ).first()
                replaces = last.turn if last is not None and last.status != "added" else None
            asked = history(connection, session_id, after=after, without=replaces)
            insert_turn(
                connection,
                session_id,
                turn,
                now,
                status="running",
                owner=owner(),
                expires=now + LEASE_S,
                partial=NOTHING,
            )
        return Run(turn=turn, revision=revision, history=asked, replaces=replaces, whole=after == 0)

    def note(self, session_id: str, run: Run, partial: str | None = None) -> None:
        """Note that a run lives, and what has arrived of its answer."""
        with self._database.writing() as connection:
            values: dict[str, Any] = {"expires": self._database.now(connection) + LEASE_S}
            if partial is not None:
                values["partial"] = as_json(partial)
            running = of_turn(update(turns_), session_id, run.turn).where(turns_.c.status == "running")
            connection.execute(running.values(**values))

    def end(
        self, session_id: str, run: Run, messages: Sequence[Message], details: Mapping[str, Any], *, whole: bool = True
    ) -> None:
        """End a run with its answer; *whole* is False for one that was cut."""
        with self._database.writing() as connection:
            now = self._database.now(connection)
            if row_of(connection, session_id) and run.replaces is not None:
                replaced = connection.scalars(bodies(session_id).where(messages_.c.turn == run.replaces)).all()
                delete_turn(connection, session_id, run.replaces)
                drop_parts(connection, hashes(replaced))
                changed = update(sessions_).where(sessions_.c.id == session_id)
                connection.execute(changed.values(revision=sessions_.c.revision + 1))
            connection.execute(
                of_turn(delete(messages_), session_id, run.turn, messages_)
            )  # what another process kept of it
            insert_messages(connection, session_id, run.turn, messages)
            values = {
                "status": "complete" if whole else "interrupted",
                "owner": None,
                "partial": None,
                **_of_details(details),
            }
            connection.execute(of_turn(update(turns_), session_id, run.turn).values(**values))
            connection.execute(update(sessions_).where(sessions_.c.id == session_id).values(updated_at=now))

    def drop(self, session_id: str, run: Run) -> None:
        """Forget a run that brought nothing."""
        with self._database.writing() as connection:
            delete_turn(connection, session_id, run.turn)

    def abandon(self, session_id: str, run: Run) -> None:
        """Give a run up that could be neither ended nor dropped; the next run settles it."""
        _abandoned.add((session_id, run.turn))

    def _settle(self, connection: Connection, session_id: str, now: float) -> None:
        """Keep what had arrived of the answers of dead runs.

        Raises:
            SessionBusyError: a run lives.
        """
        running = select(turns_).where(turns_.c.session_id == session_id, turns_.c.status == "running")
        for row in connection.execute(running).all():
            if (session_id, row.turn) not in _abandoned and lives(row.owner, row.expires, now):
                raise SessionBusyError(f"another run of session {session_id} is under way ({row.owner})")
            if row.partial and row.partial != NOTHING:
                insert_messages(connection, session_id, row.turn, [cut(json.loads(row.partial))])
            values = {"status": "interrupted", "partial": None, "owner": None}
            connection.execute(of_turn(update(turns_), session_id, row.turn).values(**values))


def _of_details(details: Mapping[str, Any]) -> dict[str, Any]:
    return {"details": as_json(details, default=str), "cost_usd": details.get("cost_usd")}


def opened(url: str | None = None) -> Store:
    """Return the one store of this process for a URL, so that its connections are shared."""
    return _shared(_chosen(url))


@lru_cache(maxsize=32)
def _shared(url: URL) -> Store:
    return Store(url)


def _chosen(url: str | Path | URL | None) -> URL:
    """Return the URL that is meant; the configured one where none is given."""
    if url is None:
        from llmkit.config import Config

        settings = Config()
        url = settings.get("database") or settings.data_dir / "llmkit.db"
    return url_of(url) if isinstance(url, str | Path) else url
