"""Servers that somebody else wrote, as processes on loopback."""

from __future__ import annotations

import contextlib
import subprocess
import time
import urllib.request
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@contextlib.contextmanager
def running(command: Sequence[str], url: str, health: str) -> Iterator[str]:
    """Start a server, wait until its *health* path answers, and give its address."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"{url}{health}", timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, f"{command[0]} did not start"
                time.sleep(0.1)
        yield url
        process.terminate()
