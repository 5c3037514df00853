"""Every test runs in a home of its own, without the user's environment, and reaches loopback only."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from server import ScriptedServer

from llmkit import _weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEPT = {"PATH", "LANG", "LC_ALL", "TMPDIR", "LLMKIT_CACHE_DIR", "SSL_CERT_FILE", "VIRTUAL_ENV", "PYTHONPATH"}


@pytest.fixture(scope="session")
def weights() -> Path:
    """The cache folder with the embedded model's weights; fetched once for this machine and user."""
    return _weights.ensure().parent


@pytest.fixture(scope="session", autouse=True)
def clean_environment(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing of the user's settings, keys and presets is seen by a test."""
    before = dict(os.environ)
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


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """A scriptable provider on loopback."""
    with ScriptedServer() as running:
        yield running


Call = "Callable[..., Any]"


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Call `owner.name` or `await owner.aname`: every behaviour is tested in both colours."""

    def run(owner: Any, name: str, *args: Any, **kwargs: Any) -> Any:
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
