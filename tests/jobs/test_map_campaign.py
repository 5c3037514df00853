"""A map whose processes are killed again and again: each row once and in order, nothing paid unseen. LLMKIT_LONG=1."""

from __future__ import annotations

import bisect
import itertools
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter

import psutil
import pytest
from commands import MODULE, Started, surroundings
from databases import LONG, ON_POSTGRES, ON_SQLITE
from server import Answer, ScriptedServer, until

from llmkit import Budgets, Jobs, Ledger
from llmkit.errors import LlmkitError
from llmkit.store import Store

ROWS, KILLS, CREW_OF = (2000, 50, "3") if LONG else (150, 3, "2")  # at least one kill of each kind
AT_ONCE, AHEAD, LIMIT_USD, RPM = 8, 1, 1.0, 3000  # of so many places one row is claimed ahead
USAGE = {"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16}
PRESET = "model: openai/gpt-4o\nparams: {max_tokens: 20}\n"
pytestmark = pytest.mark.timeout(1800 if LONG else 180)


class EchoServer(ScriptedServer):
    """Answers each question with itself in capitals, after a moment."""

    least_s, most_s = 0.04, 0.2

    def next(self, recorded):
        super().next(recorded)
        question = recorded.body["messages"][-1]["content"]
        return Answer(question.upper(), usage=USAGE, delay_s=random.uniform(self.least_s, self.most_s))


class Sampler(threading.Thread):
    """Looks at a job's budget all the time."""

    def __init__(self, url, out):
        super().__init__(daemon=True)
        self.store, self.out, self.ended, self.most, self.samples = Store(url), out, threading.Event(), 0.0, 0

    def run(self):
        while not self.ended.wait(0.03):
            try:
                state = Budgets(self.store).get(f"map:{Jobs(self.store).get(self.out).id}")
            except LlmkitError:  # not begun yet
                continue
            self.most = max(self.most, state.settled + state.reserved + state.possibly_paid)
            self.samples += 1


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "p.yaml").write_text(PRESET)
    (tmp_path / "in.txt").write_text("".join(f"row {number}\n" for number in range(ROWS)))
    with EchoServer() as server:
        for name, value in surroundings(tmp_path, server.url, LLMKIT_PRESETS=str(tmp_path)).items():
            monkeypatch.setenv(name, value)
        yield tmp_path, server


def start(folder, url, *more):
    command = ["map", "in.txt", "-p", "p", "-o", "out.jsonl", "-j", str(AT_ONCE), "-d", url, *more]
    with (folder / "stderr").open("a") as told:
        if "dask" in more:  # its workers import what the command was started from
            return subprocess.Popen([*MODULE, *command], cwd=folder, stderr=told, start_new_session=True)
        return Started(command, cwd=folder, stderr=told)


def workers(going):
    """Return the processes that ask: those of a crew, or of a Dask cluster, which has others too."""
    try:
        children = psutil.Process(going.pid).children(recursive=True)
        return [each for each in children if "resource_tracker" not in " ".join(each.cmdline())]
    except psutil.NoSuchProcess:
        return []


def kill(going, number):
    """Kill all of it, one worker, or the parent alone; return the moment and how many asked rows."""
    members = workers(going)
    kind = ("whole", "worker", "parent")[number % 3] if members else "whole"
    if kind == "worker":
        random.choice(members).kill()
        return time.monotonic(), 1
    if kind == "parent":
        going.kill()
        for member in members:
            member.wait(60)  # one of a crew ends by itself, with the answers under way; one of a cluster at once
        return time.monotonic(), len(members)
    os.killpg(going.pid, signal.SIGKILL)
    return time.monotonic(), max(1, len(members))


ALONE, CREW, DASK = [], ["-w", CREW_OF, "--rpm", str(RPM)], ["-w", CREW_OF, "--engine", "dask"]
WAYS = [(crew, database) for crew in (ALONE, CREW, DASK) for database in ("sqlite", "postgresql")]
if not LONG:
    WAYS = [(ALONE, "postgresql"), (CREW, "sqlite")]  # workers of a cluster are killed in test_map_join.py


def busiest(starts, seconds):
    """Return how many there are in the busiest time of so many seconds; *starts* are sorted."""
    return max(bisect.bisect_left(starts, first + seconds) - number for number, first in enumerate(starts))


@pytest.mark.parametrize(("crew", "database"), WAYS, indirect=["database"])
def test_kills_lose_nothing_and_repeat_only_what_was_under_way(folder, database, crew):
    folder, server = folder
    more = ["--max-usd", str(LIMIT_USD), *crew]
    sampler = Sampler(database, folder / "out.jsonl")
    sampler.start()
    kills, going = [], None
    for number in range(KILLS):
        if going is None or going.poll() is not None:
            going = start(folder, database, *more)
        before = len(server.requests)
        until(lambda before=before, going=going: len(server.requests) > before + 2 or going.poll() is not None)
        time.sleep(random.uniform(0, 0.5 if LONG else 0.2))
        if going.poll() is not None:
            break  # it has ended before all kills
        kills.append(kill(going, number))
        time.sleep(0.2)
    server.least_s = server.most_s = 0.0  # nobody is killed any more
    if going.poll() is None:
        assert going.wait(600) == 0, (folder / "stderr").read_text()
    assert start(folder, database, *more).wait(600) == 0, (folder / "stderr").read_text()
    sampler.ended.set()
    sampler.join()

    assert len(kills) >= min(KILLS, 3)
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert [(line["key"], line["text"]) for line in lines] == [(n + 1, f"ROW {n}") for n in range(ROWS)]
    times = {}
    for request in server.requests:
        times.setdefault(request.body["messages"][-1]["content"], []).append(request.time)
    assert len(times) == ROWS
    repeated = Counter()
    for moments in times.values():
        for first, second in itertools.pairwise(moments):
            between = [index for index, (moment, _) in enumerate(kills) if first < moment + 0.1 and moment < second]
            assert between, "a row was asked twice, and nobody was killed in between"
            repeated[between[0]] += 1
    assert all(number <= (AT_ONCE + AHEAD) * kills[index][1] for index, number in repeated.items())
    store = Store(database)
    ledger = Ledger(store).rows()
    assert sum(row.status == "ok" for row in ledger) == ROWS
    if "--rpm" in crew:
        starts = sorted(row.at - row.latency_s for row in ledger if row.status == "ok")
        assert busiest(starts, 1.0) <= RPM / 60 + max(2, RPM / 60 * 0.05)
        assert busiest(starts, 60.0) <= RPM
    assert sum(repeated.values()) <= sum(row.status == "cancelled" and row.possibly_usd > 0 for row in ledger)
    state = Budgets(store).get(f"map:{Jobs(store).get(folder / 'out.jsonl').id}")
    each = state.settled / state.calls
    assert sampler.samples > 10
    assert sampler.most <= LIMIT_USD
    assert state.reserved == 0
    assert state.settled + state.possibly_paid >= each * len(server.requests) - 1e-9
    store.close()


@ON_POSTGRES
def test_workers_together_keep_to_a_limit(folder, database):
    folder, server = folder

    going = start(folder, database, "--max-usd", "0.01", "-w", "3")

    assert going.wait(120) == 3
    store = Store(database)
    info = Jobs(store).get(folder / "out.jsonl").info()
    state = Budgets(store).get(f"map:{info.id}")
    assert state.settled <= 0.01
    assert info.done == len(server.requests) == state.calls > 50
    server.least_s = server.most_s = 0.0
    assert start(folder, database, "--max-usd", "1").wait(120) == 0
    assert len((folder / "out.jsonl").read_text().splitlines()) == ROWS
    assert len(server.requests) == ROWS
    store.close()


@ON_SQLITE
def test_ctrl_c_ends_the_workers_too(folder, database):
    folder, server = folder
    going = start(folder, database, "-w", "2")
    until(lambda: len(server.requests) > 10)
    members = workers(going)

    os.killpg(going.pid, signal.SIGINT)

    assert going.wait(60) == 130
    assert len(members) == 2
    assert not any(member.is_running() for member in members)
    store = Store(database)
    assert Jobs(store).get(folder / "out.jsonl").info().done == len(server.requests)
    store.close()
