"""The differences between SQLite and PostgreSQL, side by side; all other statements are the same for both.

Statements are written for PostgreSQL, but with `?` for values. `FOR UPDATE` and `FOR UPDATE SKIP LOCKED` mean nothing
to SQLite, where a transaction that writes has the whole database to itself.
"""

from __future__ import annotations

import array
import functools
import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llmkit.core.brief import MustWaitError
from llmkit.core.fork import Lock
from llmkit.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmkit.store.url import Url

BUSY_S = 30.0
"""How long a transaction waits for others to end."""
_creating = Lock()


class Connection(Protocol):
    """The part of a connection that a dialect needs."""

    def value(self, statement: str) -> Any:
        """Return the first value of the first row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """One of the two databases.

    Attributes:
        translated: returns a statement in this database's syntax.
        begin: the statements that begin a transaction: "reads", all of one moment; "writes"; "migrates", in one
            process at a time.
        serial: the type of an auto-increment column.
        now: returns the time, by the one clock that all users of the database share.
        columns: the names of a table's columns, or none if there is no such table.
        search_tables: the statements that make the texts of messages searchable.
        search_again: those that make them so anew, where an earlier version did it in another way.
        search: session and snippet of each message that has all the words, oldest first; `words` converts a query for
            `search`.
        day: an expression for the UTC date, in ISO format, of seconds since 1970.
        whole: an expression for the whole part of a number that is not negative.
        distinct: an expression for the number of different texts.
        numbers: an expression for all numbers of a column; `numbers_of` reads its value.
    """

    translated: Callable[[str], str]
    begin: Mapping[str, str]
    serial: str
    now: Callable[[Connection], float]
    columns: str
    search_tables: tuple[str, ...]
    search_again: tuple[str, ...]
    search: str
    words: Callable[[str], str]
    day: str
    whole: str
    distinct: str
    numbers: str
    numbers_of: Callable[[Any], list[float]]


# -- SQLite -----------------------------------------------------------------------------------------------------------


class _Distinct:
    """Counts different texts, in a third of the time of `count(DISTINCT …)`, which sorts them."""

    def __init__(self) -> None:
        self._values: set[Any] = set()
        self.step = self._values.add

    def finalize(self) -> int:
        return len(self._values)


class _Numbers:
    """Collects numbers, in their binary form."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self.step = self._values.append

    def finalize(self) -> Any:
        return array.array("d", self._values).tobytes()


SQLITE = Dialect(
    translated=functools.lru_cache(maxsize=256)(
        lambda statement: statement.removesuffix(" SKIP LOCKED").removesuffix(" FOR UPDATE")
    ),
    begin={"reads": "BEGIN", "writes": "BEGIN IMMEDIATE", "migrates": "BEGIN IMMEDIATE"},
    serial="INTEGER",
    now=lambda _: time.time(),
    columns="SELECT name FROM pragma_table_info(?)",
    search_tables=(
        "CREATE VIRTUAL TABLE llmkit_search USING fts5(text, content='llmkit_messages', content_rowid='id')",
        """CREATE TRIGGER llmkit_search_insert AFTER INSERT ON llmkit_messages BEGIN
        INSERT INTO llmkit_search(rowid, text) VALUES (new.id, new.text); END""",
        """CREATE TRIGGER llmkit_search_delete AFTER DELETE ON llmkit_messages BEGIN
        INSERT INTO llmkit_search(llmkit_search, rowid, text) VALUES ('delete', old.id, old.text); END""",
    ),
    search_again=(),
    search="SELECT m.session_id, snippet(llmkit_search, 0, '[', ']', '…', 12) FROM llmkit_search "
    "JOIN llmkit_messages m ON m.id = llmkit_search.rowid WHERE llmkit_search MATCH ? ORDER BY m.id",
    words=lambda query: " ".join('"' + word.replace('"', '""') + '"' for word in query.split()) or '""',
    day="date(CAST({} AS INTEGER), 'unixepoch')",
    whole="CAST({} AS INTEGER)",
    distinct="coalesce(llmkit_distinct({}), 0)",
    numbers="llmkit_numbers({0}) FILTER (WHERE {0} IS NOT NULL)",
    numbers_of=lambda value: array.array("d", value or b"").tolist(),
)


def open_sqlite(url: Url) -> Callable[[], Any]:
    """Return a function that opens a connection; the file is created if there is none, for its user alone."""
    path = Path(url.path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _creating:  # closing a file that a connection of this process has open would drop that connection's locks
        if not path.exists():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # SQLite's own files next to it get the same mode

    def connect() -> sqlite3.Connection:
        driver = sqlite3.connect(
            url.path, BUSY_S, isolation_level=None, check_same_thread=False, factory=_SqliteConnection
        )  # one thread at a time
        try:
            _use_wal(driver)
            driver.execute("PRAGMA synchronous=NORMAL")
            driver.execute("PRAGMA foreign_keys=ON")
            driver.create_aggregate("llmkit_distinct", 1, _Distinct)
            driver.create_aggregate("llmkit_numbers", 1, _Numbers)
        except BaseException:
            driver.close()
            raise
        return driver

    return connect


class _SqliteConnection(sqlite3.Connection):
    is_patient = True


def begin_at_once(driver: Any, statement: str) -> None:
    """Begin a transaction that waits for nobody, and leaves SQLite's log as long as it is.

    Raises:
        MustWaitError: another process writes.
    """
    try:
        if driver.is_patient:
            driver.is_patient = False
            driver.execute("PRAGMA busy_timeout=0")
            driver.execute("PRAGMA wal_autocheckpoint=0")
        driver.execute(statement)
    except sqlite3.OperationalError as error:
        raise MustWaitError from error


def begin(driver: Any, statement: str) -> None:
    """Begin a transaction, which waits for others if it has to."""
    if not getattr(driver, "is_patient", True):  # psycopg's always are
        driver.execute(f"PRAGMA busy_timeout={BUSY_S * 1000:.0f}")
        driver.execute("PRAGMA wal_autocheckpoint=1000")
        driver.is_patient = True
    driver.execute(statement)


def _use_wal(driver: sqlite3.Connection) -> None:
    """Let readers and a writer work at once. Of processes that do this at the same time, all but one fail."""
    deadline = time.monotonic() + BUSY_S
    while True:
        try:
            driver.execute("PRAGMA journal_mode=WAL").close()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


# -- PostgreSQL -------------------------------------------------------------------------------------------------------

_WORDS = r"regexp_replace({}, '[\x01-\x2f\x3a-\x40\x5b-\x60\x7b-\x7f]+', ' ', 'g')"
"""A text without ASCII's signs: with them PostgreSQL takes hosts, paths and tags for one word, or for none."""
_VECTOR = "to_tsvector('simple', " + _WORDS.format("coalesce(text, '')") + ")"
_INDEX = f"CREATE INDEX llmkit_search ON llmkit_messages USING gin ({_VECTOR})"

POSTGRES = Dialect(
    translated=functools.lru_cache(maxsize=256)(lambda statement: statement.replace("%", "%%").replace("?", "%s")),
    begin={
        "reads": "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        "writes": "BEGIN",
        # the number is llmkit's own among the advisory locks
        "migrates": "BEGIN; SELECT pg_advisory_xact_lock(7205759403792793)",
    },
    serial="SERIAL",
    now=lambda connection: float(connection.value("SELECT extract(epoch FROM clock_timestamp())")),
    columns="SELECT attname::text FROM pg_attribute "
    "WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped",
    search_tables=(_INDEX,),
    search_again=("DROP INDEX IF EXISTS llmkit_search", _INDEX),
    search="SELECT session_id, ts_headline('simple', text, words, 'StartSel=[, StopSel=], MaxWords=12, MinWords=4') "
    f"FROM llmkit_messages, plainto_tsquery('simple', {_WORDS.format('?')}) words WHERE {_VECTOR} @@ words ORDER BY id",
    words=str,
    day="to_char(to_timestamp({}) AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
    whole="CAST(floor({}) AS INTEGER)",
    distinct="count(DISTINCT {})",
    numbers="array_agg({0}) FILTER (WHERE {0} IS NOT NULL)",
    numbers_of=lambda value: value or [],
)


def open_postgres(url: Url) -> Callable[[], Any]:
    """Return a function that opens a connection.

    Raises:
        StoreError: psycopg is not installed.
    """
    try:
        import psycopg
    except ImportError as error:
        raise StoreError("a PostgreSQL store needs psycopg: pip install 'llmkit[postgres]'") from error
    options: dict[str, Any] = {**dict(url.options), "autocommit": True}  # transactions begin and end by statements
    if (threshold := options.get("prepare_threshold")) is not None:
        if not threshold.isdecimal():
            raise StoreError(f"prepare_threshold is a number, or 0 for no prepared statements, not {threshold!r}")
        options["prepare_threshold"] = int(threshold) or None

    def connected() -> Any:
        try:
            driver = psycopg.connect(**{"client_encoding": "utf8", **options})
        except TypeError as error:
            raise StoreError(f"the store's URL has an option that PostgreSQL does not know: {error}") from error
        if (encoding := driver.info.parameter_status("server_encoding")) not in {None, "UTF8"}:
            driver.close()
            raise StoreError(
                f"the database is encoded in {encoding}, which cannot hold every text: create it with UTF8"
            )
        return driver

    return connected
