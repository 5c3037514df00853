"""The one guard for forks: a child process uses nothing of its parent's, and no fork cuts a transaction in two."""

from __future__ import annotations

import importlib
import os
import threading
import time
import weakref
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE_S = 10.0


class Forkable(Protocol):
    """Something that a child process must begin anew: sockets, threads, event loops, locks."""

    def begin_anew(self) -> None:
        """Forget what the parent process uses without closing any of it; called in the child, right after the fork."""


class Lock:
    """A lock of this process: in a child it is free, even if it was held during the fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        in_each_process(self)

    def begin_anew(self) -> None:
        """Replace the lock by a free one."""
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        """Wait for the lock."""
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self._lock.release()


class _Gate:
    """Makes a fork wait for running transactions, and new transactions wait for the fork."""

    def __init__(self) -> None:
        self.begin_anew()
        self._mine = threading.local()

    def begin_anew(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._forks = 0

    @contextmanager
    def inside(self) -> Iterator[None]:
        depth = getattr(self._mine, "depth", 0)
        with self._changed:
            while self._forks and not depth:
                self._changed.wait()
            self._inside += 1
        self._mine.depth = depth + 1
        try:
            yield
        finally:
            self._mine.depth = depth
            with self._changed:
                self._inside = max(0, self._inside - 1)  # a child begins with 0, and may leave what its parent entered
                self._changed.notify_all()

    def close(self) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        with self._changed:
            self._forks += 1
            while self._inside > getattr(self._mine, "depth", 0) and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    def open(self) -> None:
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()


_gate = _Gate()
_kept: weakref.WeakSet[Forkable] = weakref.WeakSet()
_emptied: weakref.WeakSet[Any] = weakref.WeakSet()


def unforked() -> Any:
    """Return a context manager during which this process does not fork; for transactions."""
    return _gate.inside()


def in_each_process(owner: Forkable) -> None:
    """Call `owner.begin_anew()` in each child process, as long as *owner* lives."""
    _kept.add(owner)


class _Ids(Random):
    """Random numbers that are others in each process, and that no `random.seed` of the program repeats."""

    def begin_anew(self) -> None:
        self.seed()


_ids = _Ids()
in_each_process(_ids)


def fresh_id() -> str:
    """Return an id that no process has made before; it is no secret, and the system is not asked, unlike by uuid4."""
    return f"{_ids.getrandbits(128):032x}"


def before_each_fork(owner: Any) -> None:
    """Call `owner.before_fork()` in this process before it forks: to close what must not exist even as a copy."""
    _emptied.add(owner)


def before_other_hooks() -> None:
    """Be asked first when this process forks, before the hooks that were registered until now.

    `logging` has one that takes its lock, which an import on another thread may wait for, while a fork waits for that.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before)


_forking = threading.local()


def _before() -> None:
    if getattr(_forking, "is_prepared", False):
        return
    _forking.is_prepared = True
    _gate.close()
    deadline = time.monotonic() + _PATIENCE_S
    while _imports_are_under_way() and time.monotonic() < deadline:
        time.sleep(0.005)
    for owner in list(_emptied):
        owner.before_fork()


def _imports_are_under_way() -> bool:
    """Return whether another thread is importing: a child would wait forever for the lock it inherits."""
    locks = getattr(importlib._bootstrap, "_module_locks", {})  # noqa: SLF001 - there is no public way to see them
    try:
        owners = {getattr(lock(), "owner", None) for lock in list(locks.values())}
    except RuntimeError:  # one more began meanwhile
        return True
    return bool(owners - {None, threading.get_ident()})


def _after() -> None:
    _forking.is_prepared = False
    _gate.open()


def _in_child() -> None:
    _forking.is_prepared = False
    _gate.begin_anew()
    for owner in list(_kept):
        owner.begin_anew()


if hasattr(os, "register_at_fork"):  # there are no forks on Windows
    os.register_at_fork(after_in_parent=_after, after_in_child=_in_child)
before_other_hooks()
