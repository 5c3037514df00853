"""Fixtures for pytest, which finds them by the entry point `llmkit`; llmkit is imported when one is used."""

from __future__ import annotations

import contextlib
import traceback
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from llmkit.testing import ScriptedBackend, ScriptedServer, Spent


_HERE = Path(__file__).parent
_HIDDEN = (str(_HERE.parent), str(Path(contextlib.__file__)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(call: pytest.CallInfo[Any]) -> None:
    """Show a failure of a fake or a check where the test caused it, without the frames of llmkit."""
    found = call.excinfo
    if found is None or not isinstance(found.value, AssertionError):
        return
    frames = list(traceback.walk_tb(found.value.__traceback__))
    if not frames or _HERE not in Path(frames[-1][0].f_code.co_filename).parents:
        return
    left: TracebackType | None = None
    for frame, line in reversed(frames):
        if not frame.f_code.co_filename.startswith(_HIDDEN):
            left = TracebackType(left, frame, frame.f_lasti, line)
    call.excinfo = pytest.ExceptionInfo.from_exception(found.value.with_traceback(left))


@pytest.fixture
def scripted_backend() -> Callable[..., ScriptedBackend]:
    """Return a function that makes a backend of a script: `scripted_backend("hi")`, for `backend=`."""
    from llmkit.testing import ScriptedBackend

    return ScriptedBackend


@pytest.fixture
def scripted_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    """Run a provider on loopback, to which models of `openai/` and `anthropic/` lead during the test."""
    from llmkit.testing import ScriptedServer

    with ScriptedServer() as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-tests")
        monkeypatch.setenv("ANTHROPIC_API_BASE", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-of-the-tests")
        yield server


@pytest.fixture
def assert_llm_cost() -> Callable[..., AbstractContextManager[Spent]]:
    """Return `llmkit.testing.assert_cost`, which checks the cost of a block."""
    from llmkit.testing import assert_cost

    return assert_cost
