"""The store: sessions in SQLite on this machine, or in PostgreSQL for a team, with the same tables and rules.

A session is a list of turns: messages that were added, and runs with their answers. A turn has its place in the order
from the moment it begins, and is written in one transaction. If a run's process dies, what had arrived is kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.errors import ConfigError, InvalidRequestError, SessionBusyError, StoreError, UnknownSessionError
from llmkit.store import sessions, tables
from llmkit.store.database import Database
from llmkit.store.owner import lives, owner
from llmkit.store.sessions import SessionInfo
from llmkit.store.url import Url, url_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.core.types import Message
    from llmkit.store.database import Connection

__all__ = ["Run", "SessionInfo", "Store", "opened", "owner"]

_abandoned: set[tuple[str, int]] = set()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run that has begun: its place in the order, and the messages it answers.

    Attributes:
        turn: its number.
        revision: of the session; if it has changed, earlier messages have changed too.
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
        url: `sqlite:///PATH`, `postgresql://…`, or a path; `llmkit.db` in the user's data folder if None.
        lease_s: for how many seconds a run of another host counts as alive after its last sign of life.

    Every method raises a StoreError if the database cannot be opened, read or written.
    """

    def __init__(self, url: str | Path | Url | None = None, *, lease_s: float = 20.0) -> None:
        self.database = Database(_chosen(url), tables)
        self.lease_s = lease_s

    @property
    def url(self) -> str:
        """The database's URL, without its password."""
        return str(self.database.url)

    def close(self) -> None:
        """Close all connections; they are reopened when needed."""
        self.database.close()

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
        served_to: str | None = None,
    ) -> None:
        """Create a session, with messages in it.

        Raises:
            StoreError: a session with this id exists.
        """
        with self.database.writing() as connection:
            now = self.database.now(connection)
            info = SessionInfo(
                id=session_id,
                title=title,
                preset=preset,
                version=version,
                snapshot=snapshot,
                forked_from=forked_from,
                created_at=now,
                updated_at=now,
                served_to=served_to,
            )
            if not sessions.insert(connection, info):
                raise StoreError(f"there is a session {session_id} already")
            if messages:
                sessions.add_turn(connection, session_id, now, messages)

    def session(self, session_id: str) -> SessionInfo:
        """Return one session.

        Raises:
            UnknownSessionError: there is none with this id.
        """
        with self.database.reading() as connection:
            return sessions.info(sessions.row_of(connection, session_id))

    def sessions(
        self, query: str | None = None, *, limit: int = 50, empty: bool = False, served_to: str | None = None
    ) -> list[SessionInfo]:
        """Return our own sessions, or those a server keeps for *served_to*, last changed first.

        With *query*, those whose messages contain all its words.
        """
        with self.database.reading() as connection:
            return sessions.latest(connection, limit, query=query, empty=empty, served_to=served_to)

    def resolve(self, begin: str) -> str:
        """Return the id of the one session whose id starts with *begin*; "" is the session that was changed last.

        One that a server keeps for somebody is found by its whole id only.

        Raises:
            UnknownSessionError: there is none, or more than one.
        """
        with self.database.reading() as connection:
            ids = sessions.ids(connection, begin)
        if not ids:
            raise UnknownSessionError(f"there is no session {begin}" if begin else "there is no session yet")
        if begin and len(ids) > 1 and begin not in ids:
            raise UnknownSessionError(f"more than one session begins with {begin}")
        return begin if begin in ids else str(ids[0])

    def rename(self, session_id: str, title: str | None) -> None:
        """Give a session a title, or take it away with None."""
        if title is not None and not isinstance(title, str):
            raise InvalidRequestError(f"a title must be a text, not {title!r:.80}")
        with self.database.writing() as connection:
            sessions.rename(connection, session_id, title)

    def delete(self, session_id: str) -> None:
        """Delete a session with all its messages."""
        with self.database.writing() as connection:
            sessions.delete(connection, session_id)

    # -- messages -------------------------------------------------------------------------------------------------

    def add(self, session_id: str, messages: Sequence[Message]) -> None:
        """Add messages to a session, all in one transaction."""
        with self.database.writing() as connection:
            sessions.add_turn(connection, session_id, self.database.now(connection), messages)

    def record(
        self, session_id: str, messages: Sequence[Message], answer: Sequence[Message], details: Mapping[str, Any]
    ) -> None:
        """Add messages and the answer to them, which came from elsewhere, in one transaction."""
        with self.database.writing() as connection:
            now = self.database.now(connection)
            sessions.add_turn(connection, session_id, now, messages)
            sessions.add_turn(connection, session_id, now, answer, details)

    def messages(self, session_id: str) -> list[dict[str, Any]]:
        """Return all messages in order; an answer that was cut has `"interrupted": True`."""
        with self.database.reading() as connection:
            sessions.row_of(connection, session_id)
            return sessions.history(connection, session_id, after=0)

    def turns(self, session_id: str) -> list[tuple[dict[str, Any], dict[str, Any] | None]]:
        """Return all messages that are whole or were cut, the last one of each run with the details of the run."""
        with self.database.reading() as connection:
            return sessions.turns(connection, session_id)

    def cost(self, session_id: str) -> float | None:
        """Return what the runs of a session cost in US dollars, or None if a price is not known."""
        with self.database.reading() as connection:
            return sessions.cost(connection, session_id)

    def runs(self, session_id: str) -> list[tuple[int, dict[str, Any]]]:
        """Return the completed runs, in order: number of the turn, and its details (model, usage, cost, …)."""
        with self.database.reading() as connection:
            return sessions.details(connection, session_id)

    # -- runs -----------------------------------------------------------------------------------------------------

    def begin(
        self,
        session_id: str,
        *,
        added: Sequence[Message] = (),
        seen: tuple[int, int] = (0, 0),
        again: bool = False,
    ) -> Run:
        """Begin a run: take its place in the order, and return the messages it answers.

        Args:
            session_id: the session.
            added: messages to add before; if the run may not begin, they are not.
            seen: (revision, turn) up to which the caller has the messages.
            again: leave out the last answer, which this run's will replace.

        Raises:
            UnknownSessionError: there is no such session.
            SessionBusyError: another run of the session is under way.
        """
        with self.database.writing() as connection:
            now = self.database.now(connection)
            if added:
                sessions.add_turn(connection, session_id, now, added)
            turn = sessions.next_turn(connection, session_id, now)
            self._settle(connection, session_id, now)
            revision = sessions.row_of(connection, session_id).revision
            after = seen[1] if seen[0] == revision and not again else 0
            last = sessions.last_turn(connection, session_id) if again else None
            replaces = last.turn if last is not None and last.status != "added" else None
            history = sessions.history(connection, session_id, after=after, without=replaces)
            sessions.insert_turn(
                connection, session_id, turn, now, "running", owner=owner(), expires=now + self.lease_s
            )
        return Run(turn=turn, revision=revision, history=history, replaces=replaces, whole=after == 0)

    def note(self, session_id: str, run: Run, partial: str | None = None) -> None:
        """Renew a run's lease, and store what has arrived of its answer."""
        with self.database.writing() as connection:
            expires = self.database.now(connection) + self.lease_s
            sessions.note(connection, session_id, run.turn, expires, partial)

    def end(
        self, session_id: str, run: Run, messages: Sequence[Message], details: Mapping[str, Any], *, whole: bool = True
    ) -> None:
        """End a run with its answer; *whole* is False for one that was cut."""
        with self.database.writing() as connection:
            sessions.row_of(connection, session_id)
            if run.replaces is not None:
                sessions.delete_turn(connection, session_id, run.replaces)
            sessions.delete_messages(connection, session_id, run.turn)  # what another process kept of it
            sessions.insert_messages(connection, session_id, run.turn, messages)
            sessions.end_turn(connection, session_id, run.turn, "complete" if whole else "interrupted", details)
            now = self.database.now(connection)
            sessions.touch(connection, session_id, now, revised=run.replaces is not None)

    def drop(self, session_id: str, run: Run) -> None:
        """Delete a run that brought nothing."""
        with self.database.writing() as connection:
            sessions.delete_turn(connection, session_id, run.turn)

    def abandon(self, session_id: str, run: Run) -> None:
        """Give up a run that could be neither ended nor dropped; the next run settles it."""
        _abandoned.add((session_id, run.turn))

    def _settle(self, connection: Connection, session_id: str, now: float) -> None:
        """Keep what had arrived of the answers of dead runs.

        Raises:
            SessionBusyError: a run is alive.
        """
        for row in sessions.running(connection, session_id):
            if (session_id, row.turn) not in _abandoned and lives(row.owner, row.expires, now):
                raise SessionBusyError(f"another run of session {session_id} is under way ({row.owner})")
            if row.partial and row.partial != sessions.NOTHING:
                cut = sessions.cut(json.loads(row.partial))
                sessions.insert_messages(connection, session_id, row.turn, [cut])
            sessions.end_turn(connection, session_id, row.turn, "interrupted")


def opened(url: str | None = None) -> Store:
    """Return the one store of this process for a URL, so that its connections are shared."""
    return _shared(_chosen(url))


@lru_cache(maxsize=32)
def _shared(url: Url) -> Store:
    return Store(url)


def _chosen(url: str | Path | Url | None) -> Url:
    """Return the URL of a database; the configured one if none is given."""
    if url is None:
        from llmkit.config import Config

        settings = Config()
        url = settings.get("database") or settings.data_dir / "llmkit.db"
    if not isinstance(url, str | Path | Url):
        raise ConfigError(f"a store is named by its URL or its path, not {url!r:.80}")
    return url_of(url) if isinstance(url, str | Path) else url
