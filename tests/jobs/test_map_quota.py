"""A provider that takes so many requests a second, and then half of them: all processes of a map keep to it.

The long form, LLMKIT_LONG=1, has eight processes, and looks at how much of the quota is used.
"""

from __future__ import annotations

import signal
import threading
import time
from collections import deque

import pytest
from commands import Started, surroundings
from databases import LONG, SQLITE_OR_BOTH
from server import Answer, ScriptedServer, Status

from llmkit import Ledger
from llmkit.store import Store

PROCESSES, QUOTA, HALVED_S, END_S = (8, 100, 20.0, 45.0) if LONG else (3, 40, 3.0, 6.0)
HEARD_S = 0.2 if LONG else 0.5  # the suite runs on busy machines
PAUSE_S, SETTLED_S = 1.0, 10.0  # in a whole number of seconds; when the rate has been found again
pytestmark = pytest.mark.timeout(300)


class Quota(ScriptedServer):
    """Takes so many requests in each second, half as many later; refuses others with a Retry-After."""

    def __init__(self):
        super().__init__()
        self.lock, self.last = threading.Lock(), deque()
        self.began, self.taken = None, []

    def next(self, recorded):
        super().next(recorded)
        with self.lock:
            now = time.monotonic()
            self.began = self.began or now
            while self.last and self.last[0] <= now - 1:
                self.last.popleft()
            if len(self.last) >= (QUOTA if now - self.began < HALVED_S else QUOTA / 2):
                return Status(429, {"retry-after": str(int(PAUSE_S))})
            self.last.append(now)
            self.taken.append(now)
        return Answer("ok", delay_s=0.1)


def episodes(refused):
    """Return the refusals of each pause."""
    found = []
    for moment in refused:
        if not found or moment - found[-1][0] > PAUSE_S:
            found.append([])
        found[-1].append(moment)
    return found


@SQLITE_OR_BOTH
def test_all_processes_pause_together_and_use_what_is_left(tmp_path, database):
    (tmp_path / "in.txt").write_text("".join(f"row {number}\n" for number in range(int(QUOTA * END_S))))
    with Quota() as server:
        command = ["map", "in.txt", "-m", "openai/gpt-4o", "-o", "out.jsonl", "-d", database, "-w", str(PROCESSES)]
        with (tmp_path / "stderr").open("w") as told:
            going = Started(command, cwd=tmp_path, stderr=told, **surroundings(tmp_path, server.url))
        while server.began is None or time.monotonic() < server.began + END_S:
            assert going.poll() is None, (tmp_path / "stderr").read_text()
            time.sleep(0.05)
        going.send_signal(signal.SIGINT)
        assert going.wait(60) == 130

    store = Store(database)
    attempts = Ledger(store).rows()
    store.close()
    assert len(attempts) == len(server.requests)
    pauses = episodes(sorted(row.at for row in attempts if row.status == "RateLimitError"))
    assert len(pauses) >= 2
    starts = [row.at - row.latency_s for row in attempts]
    for first, *_ in pauses:
        assert [start - first for start in starts if HEARD_S < start - first < PAUSE_S] == []
    # once a rate is known, a pause costs few refusals
    assert all(len(refused) <= PROCESSES for refused in pauses[1:])
    if LONG:
        settled = server.began + HALVED_S + SETTLED_S
        used = sum(start > settled for start in server.taken) / (server.began + END_S - settled)
        assert used >= 0.9 * QUOTA / 2
