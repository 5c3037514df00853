"""Every test runs in a home of its own, without the user's environment, and reaches loopback only."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import signal
import sqlite3
import tempfile
import uuid
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import browser
import pytest
from server import ScriptedServer

from llmkit import StoreError
from llmkit.money.ledger import ledger_of
from llmkit.providers.litellm import changes
from llmkit.providers.local import weights as _weights
from llmkit.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from browser import Chromium

KEPT = {"PATH", "LANG", "LC_ALL", "TMPDIR", "LLMKIT_CACHE_DIR", "SSL_CERT_FILE", "VIRTUAL_ENV", "PYTHONPATH"}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A worker has files of its own, so that what a file sets up is set up once; who is done takes from the others."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


@pytest.fixture(scope="session")
def weights() -> Path:
    """The cache folder with the embedded model's weights; fetched once for this machine and user."""
    return _weights.ensure().parent


@pytest.fixture(scope="session", autouse=True)
def clean_environment(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the user's settings, keys and presets is seen by a test."""
    before = dict(os.environ)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background ignores Ctrl-C otherwise
    home = tmp_path_factory.mktemp("home")
    os.environ.clear()
    os.environ.update({name: before[name] for name in KEPT & before.keys()})
    os.environ.update(
        HOME=str(home),
        LLMKIT_CACHE_DIR=str(weights),
        # children of the tests reach nothing but loopback either
        HTTP_PROXY="http://127.0.0.1:9",
        HTTPS_PROXY="http://127.0.0.1:9",
        NO_PROXY="127.0.0.1,localhost",
    )
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test starts in an empty folder and leaves no variable behind."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def litellm_as_it_was() -> Iterator[None]:
    """A test that changes LiteLLM restores it: the calls of all later ones would take LiteLLM's way."""
    before = changes.are_there()
    yield
    assert before or not changes.are_there()


@pytest.fixture(scope="session")
def chromium(clean_environment: None) -> Iterator[Chromium]:
    """A browser for this worker; each test has a window of its own in it."""
    if browser.BROWSER is None:
        pytest.skip(browser.MISSING)
    running = browser.Chromium()
    yield running
    running.end()


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A scriptable provider on loopback."""
    with ScriptedServer() as running:
        yield running


Call = "Callable[..., Any]"


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Call `owner.name` or `await owner.aname`: every behaviour is tested in both colours."""

    def run(owner: Any, name: str, /, *args: Any, **kwargs: Any) -> Any:
        if request.param == "sync":
            return getattr(owner, name)(*args, **kwargs)
        return asyncio.run(getattr(owner, f"a{name}")(*args, **kwargs))

    return run


@pytest.fixture(params=["sync", "async"])
def read(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Open `owner.name` (a stream) and read it to its end, or *most* pieces; return (pieces, reply)."""

    def run(owner: Any, name: str, *args: Any, most: int | None = None, **kwargs: Any) -> Any:
        pieces: list[Any] = []
        if request.param == "sync":
            with getattr(owner, name)(*args, **kwargs) as stream:
                for piece in stream:
                    pieces.append(piece)
                    if len(pieces) == most:
                        break
            return pieces, stream.reply

        async def main() -> Any:
            async with getattr(owner, f"a{name}")(*args, **kwargs) as stream:
                async for piece in stream:
                    pieces.append(piece)
                    if len(pieces) == most:
                        break
            return pieces, stream.reply

        return asyncio.run(main())

    return run


@pytest.fixture(scope="session")
def postgres(clean_environment: None) -> Iterator[str]:
    """The URL of a real PostgreSQL on a unix socket, of this worker alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of platformdirs, where XDG_RUNTIME_DIR is not set
        import pgserver

    with tempfile.TemporaryDirectory(prefix="llmkit-pg-", ignore_cleanup_errors=True) as folder:
        server = pgserver.get_server(folder, cleanup_mode="stop")
        try:
            _executed(server.get_uri(), "ALTER SYSTEM SET fsync = off")  # no test turns the power off
            _executed(server.get_uri(), "SELECT pg_reload_conf()")
            yield server.get_uri()
        finally:
            server.cleanup()
            atexit.unregister(server._cleanup)  # it would look for the folder again


def _executed(url: str, *statements: str) -> list[tuple[Any, ...]]:
    if url.startswith("sqlite"):
        connection: Any = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    else:
        import psycopg

        connection = psycopg.connect(url, autocommit=True)
    with contextlib.closing(connection):
        for statement in statements:
            cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database, in a SQLite file and in PostgreSQL: the store promises the same of both."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'llmkit.db'}"
        return
    server, schemas = request.getfixturevalue("postgres"), request.getfixturevalue("schemas")
    same_tables = "store" in request.fixturenames and "sql" not in request.fixturenames  # it changes rows alone
    if same_tables and len(schemas) >= _AT_REST:
        name = schemas.pop(0)
        _executed(server, _EMPTY.format(name))
    else:
        name = f"test_{uuid.uuid4().hex}"
        _executed(server, f"CREATE SCHEMA {name}")  # a database of its own takes ten times as long
    yield f"{server}&options=-csearch_path%3D{name}"
    if same_tables:
        schemas.append(name)
    else:
        _executed(server, f"DROP SCHEMA {name} CASCADE")


@pytest.fixture(scope="session")
def schemas() -> list[str]:
    """Schemas of this worker that have llmkit's tables: to make them takes longer than most tests."""
    return []


_AT_REST = 8  # what a test leaves behind may still write for a moment
_EMPTY = """
DO $$ DECLARE found record; BEGIN
    FOR found IN SELECT tablename AS name FROM pg_tables
    WHERE schemaname = '{0}' AND tablename <> 'llmkit_signing' LOOP
        EXECUTE format('DELETE FROM {0}.%I', found.name)
            || CASE found.name WHEN 'llmkit_meta' THEN ' WHERE key <> ''schema''' ELSE '' END;
    END LOOP;
    PERFORM setval(format('{0}.%I', sequencename)::regclass, 1, false) FROM pg_sequences WHERE schemaname = '{0}';
END $$
"""
"""Leaves what is made with the tables: the schema's number, and the key of signatures."""


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    """A store in an empty database."""
    opened = Store(database)
    yield opened
    with contextlib.suppress(StoreError):
        ledger_of(opened).flush()  # what waits there would be written when the database is gone
    opened.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Store]:
    """A store in a file of its own."""
    opened = Store(tmp_path / "llmkit.db")
    yield opened
    opened.close()


@pytest.fixture
def keys_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of this process reads its keys again after a moment, not after seconds; a command's is as it is."""
    from llmkit.serve import Keys

    monkeypatch.setitem(Keys.__init__.__kwdefaults__, "cache_s", 0.1)


@pytest.fixture
def sql(database: str) -> Callable[..., list[tuple[Any, ...]]]:
    """Look at the database, or change it, behind the store's back."""
    return partial(_executed, database)
