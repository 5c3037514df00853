"""The process that owns something under way, and whether it is still alive."""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path


def owner() -> str:
    """Return the identity of this process: host, process id, and start time, since ids are reused."""
    return _owner(os.getpid())


@functools.lru_cache(maxsize=1)
def _owner(process: int) -> str:
    return f"{socket.gethostname()}:{process}:{_started(process)}"


def _started(process: int) -> str:
    """Return when a process started, in the kernel's own ticks, "" if that is unknown, or "dead" for a zombie.

    The ticks never change, while a time of day, which psutil returns, moves with the system's clock.
    """
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "dead" if fields[0] in {"Z", "X"} else fields[19]
    except (OSError, IndexError):
        return ""


def is_here(named: str) -> bool:
    """Return whether a process is one of this host."""
    return named.rsplit(":", 2)[0] == socket.gethostname()


def lives(named: str, expires: float, now: float) -> bool:
    """Return whether the process that runs a turn is alive; on another host, whether its lease is valid."""
    if named == owner():
        return True
    _, process, started = named.rsplit(":", 2)
    if not is_here(named):
        return expires > now
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OSError):
        return expires > now
    return _started(int(process)) == started
