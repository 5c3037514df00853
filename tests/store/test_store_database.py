"""How a store is reached: addresses, connections that are shared, lost, forked and closed."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmkit import Budget, Budgets, StoreError
from llmkit.store import Store
from llmkit.store.database import MOST
from llmkit.store.url import url_of


def make(store, session="s"):
    store.create(session, preset="p", version=None, snapshot={}, messages=[{"role": "user", "content": "hi"}])


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "options", "shown"),
    [
        (
            "postgresql://ann:s3cret@db.example:5433/team",
            {"user": "ann", "password": "s3cret", "host": "db.example", "port": "5433", "dbname": "team"},
            "postgresql://ann:***@db.example:5433/team",
        ),
        ("postgres://db/team", {"host": "db", "dbname": "team"}, "postgresql://db/team"),
        ("postgresql+psycopg://db/team", {"host": "db", "dbname": "team"}, "postgresql://db/team"),
        ("postgresql://", {}, "postgresql:///"),
        (
            "postgresql://a%40b:p%2Fa%3As%40s%25@db/x%20y",
            {"user": "a@b", "password": "p/a:s@s%", "host": "db", "dbname": "x y"},
            "postgresql://a%40b:***@db/x y",
        ),
        ("postgresql://ann:p?a/s#s@db/x", {"user": "ann", "password": "p?a/s#s"}, "postgresql://ann:***@db/x"),
        ("postgresql://[::1]:5432/x", {"host": "::1", "port": "5432"}, "postgresql://[::1]:5432/x"),
        ("postgresql:///x?host=/run/pg", {"host": "/run/pg", "dbname": "x"}, "postgresql:///x"),
        ("postgresql:///x?user=ann&password=s3cret", {"user": "ann", "password": "s3cret"}, "postgresql://ann:***@/x"),
        ("postgresql://db/x?options=-csearch_path%3Dy+-cz%3D1", {"options": "-csearch_path=y -cz=1"}, None),
        ("postgresql://db/x?host=a&host=b", {"host": "a,b"}, None),
        ("postgresql:///x?host=a:1&host=b:2", {"host": "a,b", "port": "1,2"}, None),
        ("postgresql:///x?host=a,b&port=1,2", {"host": "a,b", "port": "1,2"}, None),
    ],
)
def test_a_server_is_given_as_libpq_has_it_and_shown_without_its_password(url, options, shown):
    store = Store(url)

    assert options.items() <= dict(url_of(url).options).items()
    assert shown is None or store.url == shown
    assert not {"s3cret", "p/a", "p%2F", "p?a"} & {text for text in options.values() if text in store.url}
    assert options.get("password", "-no-") not in repr(store.database.url)


@pytest.mark.parametrize(
    "url", ["postgresql://db:port/x", "mysql://db/x", "postgresql+psycopg2://db/x", "sqlite://x.db", "http://x"]
)
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(StoreError, match="the store's URL"):
        Store(url)


# -- connections ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_connections_that_the_server_has_ended_cost_no_call(store, sql):
    make(store)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: store.messages("s"), range(40)))

    sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname IS NOT NULL")

    with ThreadPoolExecutor(4) as pool:
        assert all(len(found) == 1 for found in pool.map(lambda _: store.messages("s"), range(40)))
    store.add("s", [{"role": "user", "content": "more"}])


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_transaction_whose_connection_is_lost_is_a_store_error_and_the_next_one_works(store, sql):
    make(store)

    def delete():
        with store.database.writing() as connection:
            sql(f"SELECT pg_terminate_backend({connection.value('SELECT pg_backend_pid()')})")
            connection.run("DELETE FROM llmkit_messages")

    with pytest.raises(StoreError, match=r"the store postgresql://.*: .*terminat"):
        delete()

    assert len(store.messages("s")) == 1


@pytest.mark.parametrize("number", [0, 1, 5, 341, 700])
def test_any_number_of_rows_is_added_in_its_order(store, number):
    make(store)

    store.add("s", [{"role": "user", "content": f"{at} %s ? 'x'"} for at in range(number)])

    added = store.messages("s")[1:]
    assert [message["content"] for message in added] == [f"{at} %s ? 'x'" for at in range(number)]


def test_reading_sees_one_moment(store):
    make(store)

    with store.database.reading() as connection:
        before = connection.value("SELECT count(*) FROM llmkit_messages")
        thread = threading.Thread(target=store.add, args=("s", [{"role": "user", "content": "more"}]))
        thread.start()
        thread.join()
        assert connection.value("SELECT count(*) FROM llmkit_messages") == before == 1

    assert len(store.messages("s")) == 2


def test_more_threads_than_connections_take_turns_and_leave_few_open(store):
    before = open_files()
    make(store)

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(lambda number: store.add("s", [{"role": "user", "content": str(number)}]), range(120)))

    assert len(store.messages("s")) == 121
    assert open_files() - before <= MOST * 3  # a file, its log and its index each; SQLite keeps some for the next
    store.close()
    assert open_files() <= before  # others may have been collected meanwhile


def test_a_connection_in_use_is_closed_when_it_comes_back_to_a_closed_store(store):
    make(store)
    store.close()
    before = open_files()

    with store.database.reading() as connection:
        store.close()
        assert connection.value("SELECT count(*) FROM llmkit_messages") == 1

    assert open_files() <= before  # others may have been collected meanwhile
    assert len(store.messages("s")) == 1


def test_a_second_store_of_a_file_leaves_the_locks_of_the_first(tmp_path):
    """To open a file and close it again would end all locks that this process has on it."""
    first, file = Store(tmp_path / "l.db"), tmp_path / "l.db"
    make(first)
    code = f"import sqlite3; sqlite3.connect({str(file)!r}, timeout=0).execute('BEGIN IMMEDIATE')"

    with first.database.writing():
        second = Store(file)
        second.sessions()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert "database is locked" in done.stderr
    first.close()
    second.close()


# -- the end ----------------------------------------------------------------------------------------------------------

ENDING = """
import sys
from llmkit import Ledger
from llmkit.store import Store
if sys.argv[2] == "used":
    store = Store(sys.argv[1])
    store.sessions()
ledger = Ledger(sys.argv[1])
ledger.increment_usage(1.0, "m")
"""

FORKING = """
import os, sys
from llmkit.store import Store
store = Store(sys.argv[1])
store.sessions()
if child := os.fork():
    assert os.waitpid(child, 0)[1] == 0
    store.sessions()
elif sys.argv[2] == "used":
    store.sessions()
"""


@pytest.mark.parametrize("program", [ENDING, FORKING], ids=["ledger", "fork"])
@pytest.mark.parametrize("how", ["used", "unused"])
def test_a_process_ends_without_a_word(database, program, how):
    command = [sys.executable, "-W", "always::ResourceWarning", "-c", program, database, how]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_forked_child_leaves_the_connections_of_its_parent(database):
    code = """
import os, sys
from llmkit.store import Store
store = Store(sys.argv[1])
with store.database.reading() as connection:
    server = connection.value("SELECT pg_backend_pid()") if "postgres" in store.url else 0
for _ in range(3):
    if child := os.fork():
        assert os.waitpid(child, 0)[1] == 0
    else:
        store.sessions()
        sys.exit(0)
with store.database.reading() as connection:
    assert server == (connection.value("SELECT pg_backend_pid()") if "postgres" in store.url else 0)
"""
    done = subprocess.run([sys.executable, "-c", code, database], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


def test_what_was_written_before_something_failed_is_taken_back(store):
    Budgets(store).set(Budget(name="b", limit_usd=1))

    def fail():
        with store.database.writing() as connection:
            connection.run("DELETE FROM llmkit_budgets")
            _ = 1 / 0

    with pytest.raises(ZeroDivisionError):
        fail()

    assert [state.budget.name for state in Budgets(store).all()] == ["b"]
