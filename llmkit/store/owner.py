"""Whose something is that is under way, and whether that process is still there."""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path


def owner() -> str:
    """Return who this process is: host, number, and when it started, since numbers are used again."""
    return _owner(os.getpid())


@functools.lru_cache(maxsize=1)
def _owner(process: int) -> str:
    return f"{socket.gethostname()}:{process}:{_started(process)}"


def _started(process: int) -> str:
    """Return when a process started, in the kernel's own ticks, or "" if that cannot be told, "dead" of a zombie.

    The ticks never change, while a time of day, as psutil has it, moves for both with the system's clock.
    """
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return "dead" if fields[0] in {"Z", "X"} else fields[19]
    except (OSError, IndexError):
        return ""


def lives(named: str, expires: float, now: float) -> bool:
    """Return whether the process that runs a turn is there; of another host, whether it was heard of lately."""
    if named == owner():
        return True
    host, process, started = named.rsplit(":", 2)
    if host != socket.gethostname():
        return expires > now
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OSError):
        return expires > now
    return _started(int(process)) == started
