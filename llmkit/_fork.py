"""The one guard for forks: a child process does not use what belongs to its parent."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something that a child process must begin anew: sockets, threads, event loops, locks."""

    def begin_anew(self) -> None:
        """Forget what the parent process uses, closing nothing of it; called in the child, right after the fork."""


_kept: weakref.WeakSet[Forkable] = weakref.WeakSet()


def in_each_process(owner: Forkable) -> None:
    """Call `owner.begin_anew()` in each child process, as long as *owner* lives."""
    _kept.add(owner)


def _in_child() -> None:
    for owner in list(_kept):
        owner.begin_anew()


if hasattr(os, "register_at_fork"):  # there are no forks on Windows
    os.register_at_fork(after_in_child=_in_child)
