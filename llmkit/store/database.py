"""A database and its transactions: reads see one moment, writes are kept whole or not at all."""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import sqlite3
import sys
import threading
import time
import warnings
import weakref
from collections import namedtuple
from typing import TYPE_CHECKING, Any, Protocol

from llmkit.core.brief import MustWaitError, is_at_once, may_wait
from llmkit.core.fork import Lock, before_each_fork, in_each_process, unforked
from llmkit.errors import StoreError
from llmkit.store.dialects import (
    BUSY_S,
    POSTGRES,
    SQLITE,
    Dialect,
    begin,
    begin_at_once,
    open_postgres,
    open_sqlite,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from llmkit.store.url import Url

IDLE, MOST = 5, 15
"""How many connections of a database stay open while idle, and how many are used at once."""
SLOW_S, SLOW_FOR_S = 0.02, 1.0
"""A transaction that held an event loop up for so long sends those of the next second to threads."""
MOMENT_S = 0.002
"""How long an event loop waits for another thread's transaction: handing its own to a thread takes no less."""
SIZES = (256, 64, 16, 4, 1)
"""Rows that are inserted with one statement; so few sizes that the statements are remembered."""
MOST_VALUES = 30_000 if sqlite3.sqlite_version_info >= (3, 32) else 900
"""Values of one statement; PostgreSQL takes twice as many."""
CHECKPOINT = 256
"""One transaction of so many is done on a thread, where it may take SQLite's log over into the file."""


class Connection:
    """A connection, in a transaction.

    Args:
        driver: sqlite3's or psycopg's connection.
        dialect: which of the two it is.
    """

    def __init__(self, driver: Any, dialect: Dialect) -> None:
        self._driver = driver
        self._translated = dialect.translated
        self.dialect = dialect

    def run(self, statement: str, *values: Any) -> int:
        """Run a statement, and return how many rows it changed."""
        return int(self._driver.execute(self._translated(statement), values).rowcount)

    def run_each(self, statement: str, values: Iterable[Sequence[Any]]) -> None:
        """Run a statement for each row of values."""
        self._driver.cursor().executemany(self._translated(statement), values)

    def add(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows, many with one statement: with each, SQLite lets the other threads of a program run first."""
        row = f"({', '.join('?' * len(columns))})"
        start = 0
        for size in SIZES:
            while size <= len(rows) - start and size * len(columns) <= MOST_VALUES:
                statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * size)}"
                self.run(statement, *itertools.chain.from_iterable(rows[start : start + size]))
                start += size

    def rows(self, statement: str, *values: Any) -> list[Any]:
        """Return all rows, as named tuples."""
        cursor = self._driver.execute(self._translated(statement), values)
        row = _row_type(tuple(column[0] for column in cursor.description))
        return list(map(row._make, cursor.fetchall()))

    def row(self, statement: str, *values: Any) -> Any:
        """Return the first row, or None if there is none."""
        rows = self.rows(statement, *values)
        return rows[0] if rows else None

    def column(self, statement: str, *values: Any) -> list[Any]:
        """Return the first value of each row."""
        return [row[0] for row in self._driver.execute(self._translated(statement), values).fetchall()]

    def value(self, statement: str, *values: Any) -> Any:
        """Return the first value of the first row, or None if there is none."""
        column = self.column(statement, *values)
        return column[0] if column else None

    def columns(self, table: str) -> list[str]:
        """Return the names of a table's columns, or [] if there is no such table."""
        return self.column(self.dialect.columns, table)


@functools.lru_cache(maxsize=256)
def _row_type(names: tuple[str, ...]) -> Any:
    return namedtuple("Row", names, rename=True)  # noqa: PYI024 - the names are the statement's


class _ConnectionPool:
    """The idle connections of a database; the last one returned goes out first.

    psycopg_pool would wait half a minute for a server that is down, log why, and leave its threads to
    the parent at a fork.
    """

    most_idle = IDLE

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self._idle: list[Any] = []
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(MOST)
        self._turn = threading.Lock()
        _pools.add(self)

    @contextlib.contextmanager
    def begun(self, statement: str) -> Iterator[Any]:
        """Yield a connection in the transaction that *statement* begins; it is kept whole, or not at all."""
        if not _acquired(self._places):
            raise TimeoutError(f"all {MOST} connections are in use for {BUSY_S:g} seconds")
        try:
            driver = self._begun(statement)
            try:
                yield driver
                driver.commit()
            finally:
                self._give_back(driver)
        finally:
            self._places.release()

    @contextlib.contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the threads of this process write one after the other: SQLite itself lets them sleep and try again."""
        if not _acquired(self._turn):
            raise TimeoutError(f"another thread has been writing for {BUSY_S:g} seconds")
        try:
            yield
        finally:
            self._turn.release()

    def close(self) -> None:
        """Close the connections; one in use is closed when it comes back."""
        self.most_idle = 0
        self.close_idle()

    def close_idle(self) -> None:
        """Close the idle connections."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    def leave(self) -> None:
        """Forget the connections, which belong to another process, and close none."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            self._idle.clear()

    def _begun(self, statement: str) -> Any:
        """Return a connection; one that the server has closed meanwhile is replaced."""
        while True:
            try:
                driver, is_new = self._idle.pop(), False
            except IndexError:
                may_wait()
                driver, is_new = self._connect(), True
            try:
                (begin_at_once if is_at_once() else begin)(driver, statement)
            except MustWaitError:
                self._give_back(driver)
                raise
            except BaseException:
                is_lost = getattr(driver, "closed", False)  # psycopg's; nobody closes SQLite's
                driver.close()
                if is_new or not is_lost:
                    raise
            else:
                return driver

    def _give_back(self, driver: Any) -> None:
        with contextlib.suppress(Exception):  # whatever a lost connection raises: it is closed
            driver.rollback()  # nothing, after a commit
            with self._lock:
                if len(self._idle) < self.most_idle:
                    self._idle.append(driver)
                    return
        driver.close()


def _acquired(lock: threading.Lock | threading.Semaphore) -> bool:
    if lock.acquire(timeout=MOMENT_S if is_at_once() else BUSY_S):
        return True
    may_wait()
    return False


_pools: weakref.WeakSet[_ConnectionPool] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    _ConnectionPool.most_idle = 0  # also for later use: the ledger writes its last rows after this
    for pool in list(_pools):
        pool.close_idle()


class Schema(Protocol):
    """Knows the tables."""

    def is_current(self, connection: Connection) -> bool:
        """Return whether the database has the tables of this version."""

    def migrate(self, connection: Connection) -> None:
        """Migrate the database to this version."""


class Database:
    """A database, opened with the first transaction; safe for threads and forks.

    Args:
        url: where it is.
        schema: creates its tables.
    """

    def __init__(self, url: Url, schema: Schema) -> None:
        self.url = url
        self._schema = schema
        self._dialect = SQLITE if url.path else POSTGRES
        self._pool: _ConnectionPool | None = None
        self._is_slow_until = 0.0
        self._brief = itertools.cycle(range(CHECKPOINT))
        self._lock = Lock()
        in_each_process(self)
        before_each_fork(self)

    def before_fork(self) -> None:
        """Close the idle connections to a file: a fork copies SQLite's memory of its locks, but not the locks."""
        if self._pool is not None and self.url.path:
            self._pool.close_idle()

    def begin_anew(self) -> None:
        """Leave the parent's connections to it."""
        if self._pool is not None:
            self._finalizer.detach()
            self._pool.leave()
        self._pool = None

    def reading(self) -> contextlib.AbstractContextManager[Connection]:
        """Return a context manager with a connection whose reads all see one moment.

        Raises:
            StoreError: the database cannot be opened or read.
        """
        return self._transaction("reads")

    def writing(self) -> contextlib.AbstractContextManager[Connection]:
        """Return a context manager with a connection whose changes are kept together, or not at all.

        Raises:
            StoreError: the database cannot be opened or written.
        """
        return self._transaction("writes")

    def now(self, connection: Connection) -> float:
        """Return the time, by the one clock that all users of the database share."""
        return self._dialect.now(connection)

    def close(self) -> None:
        """Close all connections; the next transaction reopens them."""
        with self._lock:
            if self._pool is not None:
                self._finalizer()
                self._pool = None

    @contextlib.contextmanager
    def _transaction(self, kind: str) -> Iterator[Connection]:
        with unforked():
            began = time.monotonic()
            if not self.url.path or began < self._is_slow_until or not next(self._brief):
                may_wait()
            try:
                pool = self._opened()
                in_turn = pool.in_turn() if kind == "writes" and self.url.path else contextlib.nullcontext()
                with in_turn, pool.begun(self._dialect.begin[kind]) as driver:
                    yield Connection(driver, self._dialect)
            except _driver_errors() as error:
                reason = str(error).strip().splitlines()[:1] or [type(error).__name__]
                raise StoreError(f"the store {self.url}: {reason[0]}") from error
            finally:
                if is_at_once() and time.monotonic() - began > SLOW_S:
                    self._is_slow_until = began + SLOW_FOR_S

    def _opened(self) -> _ConnectionPool:
        pool = self._pool
        if pool is not None:
            return pool
        may_wait()
        with self._lock:
            if self._pool is None:
                self._pool = self._open()
                self._finalizer = weakref.finalize(self, self._pool.close)
                self._finalizer.atexit = False  # see `_close_all`
            return self._pool

    def _open(self) -> _ConnectionPool:
        pool = _ConnectionPool((open_sqlite if self.url.path else open_postgres)(self.url))
        try:
            with pool.begun(self._dialect.begin["reads"]) as driver:
                is_current = self._schema.is_current(Connection(driver, self._dialect))
            if not is_current:
                with pool.begun(self._dialect.begin["migrates"]) as driver:
                    self._schema.migrate(Connection(driver, self._dialect))
        except BaseException:
            pool.close()
            raise
        return pool


def _driver_errors() -> tuple[type[Exception], ...]:
    psycopg = sys.modules.get("psycopg")  # if no PostgreSQL is opened, it is not loaded
    return (sqlite3.Error, OSError, *((psycopg.Error,) if psycopg is not None else ()))
