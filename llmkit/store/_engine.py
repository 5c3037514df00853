"""Opening a database: SQLite in one file for many processes, or PostgreSQL; transactions that read and that write."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy
from sqlalchemy import event, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from llmkit.core.fork import Lock, before_each_fork, in_each_process, unforked
from llmkit.errors import StoreError
from llmkit.store import _schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

BUSY_S = 30.0
"""How long a transaction waits for others to end."""
_PRAGMAS = (f"PRAGMA busy_timeout={BUSY_S * 1000:.0f}", "PRAGMA synchronous=NORMAL", "PRAGMA foreign_keys=ON")
_POSTGRES = ("postgres", "postgresql", "postgresql+psycopg")
_LOCK = 7_205_759_403_792_793  # of llmkit's migrations, among the advisory locks of a PostgreSQL database


class Database:
    """A database, opened with the first transaction; safe for threads, and after a fork.

    Args:
        url: of SQLite or PostgreSQL; see `url_of`.
    """

    def __init__(self, url: sqlalchemy.URL) -> None:
        self.url = url
        self._engine: Engine | None = None
        self._lock = Lock()
        in_each_process(self)
        before_each_fork(self)

    def before_fork(self) -> None:
        """Close the idle connections to a file: a fork copies what SQLite remembers of its locks, and not the locks."""
        if self._engine is not None and self._engine.dialect.name == "sqlite":
            self._engine.dispose()

    def begin_anew(self) -> None:
        """Leave the parent's connections to it."""
        if self._engine is not None:
            self._engine.dispose(close=False)
        self._engine = None

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection whose reads all see one moment.

        Raises:
            StoreError: the database cannot be opened or read.
        """
        with unforked(), self._errors(), self._opened().connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a connection whose changes are kept together, or not at all.

        Raises:
            StoreError: the database cannot be opened or written.
        """
        with unforked(), self._errors(), self._opened().connect() as connection:
            connection.execution_options(llmkit_writes=True)
            with connection.begin():
                yield connection

    def now(self, connection: Connection) -> float:
        """Return the time, by the one clock that all users of the database share."""
        if connection.dialect.name == "sqlite":
            return time.time()
        return float(connection.scalar(select(sqlalchemy.extract("epoch", sqlalchemy.func.clock_timestamp()))) or 0)

    def close(self) -> None:
        """Close all connections; the next transaction opens them again."""
        with self._lock:
            if self._engine is not None:
                self._engine.dispose()
                self._engine = None

    def _opened(self) -> Engine:
        with self._lock:
            if self._engine is None:
                self._engine = self._open()
                weakref.finalize(self, _forgotten, self._engine, os.getpid()).atexit = False
            return self._engine

    def _open(self) -> Engine:
        engine = _sqlite(self.url) if self.url.drivername == "sqlite" else _postgres(self.url)
        try:
            with engine.connect().execution_options(llmkit_writes=True) as connection, connection.begin():
                if connection.dialect.name == "postgresql":
                    connection.execute(select(sqlalchemy.func.pg_advisory_xact_lock(_LOCK)))
                _schema.migrate(connection)
        except BaseException:
            engine.dispose()
            raise
        return engine

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
            shown = self.url.set(query={}).render_as_string(hide_password=True)
            reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
            raise StoreError(f"the store {shown}: {reason}") from error


def _forgotten(engine: Engine, process: int) -> None:
    engine.dispose(close=process == os.getpid())


def url_of(url: str | Path) -> sqlalchemy.URL:
    """Return the URL of a database that is given by a path, `sqlite:///PATH` or `postgresql://…`.

    Raises:
        StoreError: it is something else.
    """
    text = str(url)
    if "://" not in text:
        return sqlalchemy.URL.create("sqlite", database=str(Path(text).absolute()))
    scheme, _, rest = text.partition("://")
    if scheme == "sqlite" and rest.startswith("/"):
        return sqlalchemy.URL.create("sqlite", database=str(Path(rest[1:]).absolute()))  # wherever it is opened later
    if scheme in _POSTGRES:
        try:
            return sqlalchemy.make_url(f"postgresql+psycopg://{rest}")
        except (ValueError, SQLAlchemyError):
            raise StoreError("the store's URL cannot be read; it is like postgresql://user@host:5432/name") from None
    raise StoreError(f"the store's URL must be sqlite:///PATH or postgresql://…, not {scheme}://…")


def _sqlite(url: sqlalchemy.URL) -> Engine:
    path = Path(url.database or "")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # SQLite's own files beside it get the same mode
    engine = sqlalchemy.create_engine(url, connect_args={"timeout": BUSY_S})

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin below, where it is known whether they write
        for pragma in _PRAGMAS:
            connection.execute(pragma).close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("llmkit_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    _use_wal(engine)
    return engine


def _use_wal(engine: Engine) -> None:
    """Let readers and a writer work at once. Of processes that do this at the same time all but one are sent away."""
    deadline = time.monotonic() + BUSY_S
    while True:
        raw = engine.raw_connection()
        try:
            raw.cursor().execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
        finally:
            raw.close()


def _postgres(url: sqlalchemy.URL) -> Engine:
    try:
        return sqlalchemy.create_engine(url, pool_pre_ping=True)
    except ImportError as error:
        raise StoreError("a PostgreSQL store needs psycopg: pip install 'llmkit[postgres]'") from error
