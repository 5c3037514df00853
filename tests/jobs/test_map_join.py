"""`llmkit map join` and a Dask cluster: other processes ask the rows of a job that somebody has begun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
from commands import MODULE, Started, run, surroundings
from databases import ON_POSTGRES, ON_SQLITE, POSTGRES_OR_BOTH, SQLITE_OR_BOTH
from server import Answer, ScriptedServer, Status, until

import llmkit
from llmkit import Budgets, Jobs, Ledger
from llmkit.errors import InvalidRequestError
from llmkit.jobs.workers.join import joined
from llmkit.presets import Preset
from llmkit.store import Store
from llmkit.testing import ScriptedBackend

KEY = "sk-local-0123456789"
PRESET = "model: openai/gpt-4o\nparams: {max_tokens: 20}\nretry: {tries: 1}\n"
ROWS = 60


class Echo(ScriptedServer):
    """Answers each question with itself in capitals, after a moment."""

    delay_s = 0.05

    def next(self, recorded):
        super().next(recorded)
        if recorded.headers.get("authorization") != f"Bearer {KEY}":
            return Status(401)
        return Answer(recorded.body["messages"][-1]["content"].upper(), delay_s=self.delay_s)

    def asked(self):
        return Counter(request.body["messages"][-1]["content"] for request in self.requests)


@pytest.fixture
def echo(tmp_path, monkeypatch):
    (tmp_path / "p.yaml").write_text(PRESET)
    (tmp_path / "in.txt").write_text("".join(f"row {number}\n" for number in range(ROWS)))
    with Echo() as server:
        for name, value in surroundings(tmp_path, server.url, LLMKIT_PRESETS=str(tmp_path), OPENAI_API_KEY=KEY).items():
            monkeypatch.setenv(name, value)
        yield server


def start(folder, *args, **environment):
    return Started(["map", *args], cwd=folder, **environment)


def begin(folder, url, *more):
    return start(folder, "in.txt", "-p", "p", "-o", "out.jsonl", "-j", "1", "-d", url, *more)


def begin_cluster(folder, url, *more):
    """Begin with Dask, whose workers import what the command was started from: an interpreter's own start."""
    command = ["map", "in.txt", "-p", "p", "-o", "out.jsonl", "-j", "1", "-d", url, "--engine", "dask", *more]
    return subprocess.Popen([*MODULE, *command], cwd=folder, stderr=subprocess.PIPE, text=True, start_new_session=True)


def ended(going, code=0):
    _, told = going.communicate(timeout=100)
    assert going.returncode == code, told
    return told


def texts(folder):
    return [json.loads(line)["text"] for line in (folder / "out.jsonl").read_text().splitlines()]


@POSTGRES_OR_BOTH
def test_another_process_asks_rows_too_and_each_is_asked_once(tmp_path, echo, database):
    first = begin(tmp_path, database)
    until(lambda: echo.requests)

    joining = start(tmp_path, "join", "out.jsonl", "--store", database, "-j", "4")

    ended(first)
    told = ended(joining)
    assert texts(tmp_path) == [f"ROW {number}" for number in range(ROWS)]
    assert set(echo.asked().values()) == {1}
    here = int(told.split(": ")[2].split(" rows")[0])
    assert 5 < here < ROWS


@SQLITE_OR_BOTH
def test_it_goes_on_without_who_began_it(tmp_path, echo, database):
    first = begin(tmp_path, database)
    until(lambda: len(echo.requests) > 3)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    echo.delay_s = 0.0

    ended(start(tmp_path, "join", "out.jsonl", "--store", database, "-w", "2"))

    assert len(echo.asked()) == ROWS
    before = len(echo.requests)
    ended(begin(tmp_path, database))
    assert texts(tmp_path) == [f"ROW {number}" for number in range(ROWS)]
    assert len(echo.requests) == before


@POSTGRES_OR_BOTH
def test_a_limit_of_the_job_holds_for_who_joins(tmp_path, echo, database):
    first = begin(tmp_path, database, "--max-usd", "0.002")
    until(lambda: echo.requests)
    joining = start(tmp_path, "join", "out.jsonl", "--store", database, "-j", "4")

    ended(first, 3)
    ended(joining, 3)
    store = Store(database)
    state = Budgets(store).get(f"map:{Jobs(store).get(tmp_path / 'out.jsonl').id}")
    assert state.settled + state.reserved + state.possibly_paid <= 0.002
    assert state.calls == len(echo.requests) < ROWS
    store.close()


@ON_SQLITE
def test_map_stop_ends_all_of_them(tmp_path, echo, database):
    echo.delay_s = 0.3
    first = begin(tmp_path, database)
    until(lambda: echo.requests)
    joining = start(tmp_path, "join", "out.jsonl", "--store", database, "-j", "2")
    until(lambda: len(echo.requests) > 6)

    assert run(["map", "stop", "out.jsonl"], cwd=tmp_path, LLMKIT_DATABASE=database).returncode == 0

    assert "was stopped" in ended(first, 1)
    ended(joining)
    store = Store(database)
    info = Jobs(store).get(tmp_path / "out.jsonl").info()
    assert (info.done, info.under_way) == (len(echo.requests), 0)
    assert info.done < ROWS
    store.close()


@ON_SQLITE
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_for_the_answers_under_way(tmp_path, echo, database, number, code):
    echo.delay_s = 0.25
    first = begin(tmp_path, database)
    until(lambda: echo.requests)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    joining = start(tmp_path, "join", "out.jsonl", "--store", database, "-j", "3")
    until(lambda: len(echo.requests) > 3)

    joining.send_signal(number)

    told = ended(joining, code)
    assert "waiting for the answers under way" in told
    store = Store(database)
    rows = Ledger(store).rows()
    assert [row.status for row in rows if row.status != "ok"] in ([], ["cancelled"])  # that of the killed one
    assert Jobs(store).get(tmp_path / "out.jsonl").info().under_way <= 1
    store.close()


@ON_SQLITE
def test_its_own_key_is_used_and_none_is_in_the_store(tmp_path, echo, sqlite, database):
    echo.delay_s = 0.2  # not at its end before the other one has begun
    first = begin(tmp_path, database, "--api-key", KEY)
    until(lambda: echo.requests)

    joining = start(tmp_path, "join", "out.jsonl", "--store", database, OPENAI_API_KEY="sk-wrong-0123456789")

    assert "AuthenticationError" in (told := ended(joining, 1)) or "401" in told
    echo.delay_s = 0.0
    ended(first)
    store = Store(database)
    with store.database.reading() as connection:
        assert KEY not in str(connection.rows("SELECT * FROM llmkit_jobs"))
    store.close()


@ON_SQLITE
def test_there_must_be_such_a_job(tmp_path, echo, database):
    done = run(["map", "join", "nothing.jsonl", "--store", database], cwd=tmp_path)

    assert done.returncode == 2
    assert "there is no job 'nothing.jsonl'" in done.stderr


def test_python_functions_stay_where_they_are(tmp_path, echo, sqlite):
    def weather(place: str) -> str:
        """Tell the weather."""
        return "fine"

    results = llmkit.map(["a", "b"], model="openai/gpt-4o", tools=[weather], job="j", store=sqlite, backend=Once())
    next(results)

    with pytest.raises(InvalidRequestError, match="only the program that began j"):
        joined(Jobs(sqlite).get("j"))
    results.close()


def test_a_key_goes_to_an_address_that_its_owner_names_and_to_no_other(tmp_path, sqlite):
    results = llmkit.map(
        ["a", "b"], model="openai/x", api_base="http://127.0.0.1:9/v1", job="j", store=sqlite, backend=Once()
    )
    next(results)
    job = Jobs(sqlite).get("j")

    with pytest.raises(InvalidRequestError, match=r"the job asks at http://127.0.0.1:9/v1: join it with --api-base"):
        joined(job)
    with pytest.raises(InvalidRequestError, match="the job asks at"):
        joined(job, api_base="http://127.0.0.1:10/v1")
    assert joined(job, api_base="http://127.0.0.1:9/v1").tally.done == 0
    results.close()


def test_code_that_the_store_names_is_not_run(tmp_path, sqlite):
    preset = Preset(name="p", model="openai/x", tools=["os:getcwd"])
    results = llmkit.map(["a"], preset=preset, job="j", store=sqlite, backend=Once())
    next(results)

    with pytest.raises(InvalidRequestError, match="its preset has tools"):
        joined(Jobs(sqlite).get("j"))
    results.close()


class Once(ScriptedBackend):
    """Answers everything."""

    async def asend(self, request):
        from llmkit.testing import reply

        return reply("ok")


# -- Dask --------------------------------------------------------------------------------------------------------------


@SQLITE_OR_BOTH
def test_a_cluster_on_this_machine_asks(tmp_path, echo, database):
    told = ended(begin_cluster(tmp_path, database, "-w", "2"))

    assert f"{ROWS} rows, 0 failed" in told
    assert texts(tmp_path) == [f"ROW {number}" for number in range(ROWS)]
    assert set(echo.asked().values()) == {1}


@ON_POSTGRES
def test_a_worker_that_is_killed_is_replaced(tmp_path, echo, database):
    from distributed import Client, LocalCluster

    echo.delay_s = 0.15
    rows = ROWS // 2
    (tmp_path / "in.txt").write_text("".join(f"row {number}\n" for number in range(rows)))
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        first = begin_cluster(tmp_path, database, "--address", cluster.scheduler_address)
        until(lambda: len(echo.requests) > 4)
        os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
        killed_at = time.monotonic()

        ended(first)
    assert texts(tmp_path) == [f"ROW {number}" for number in range(rows)]
    again = [question for question, times in echo.asked().items() if times > 1]
    assert len(again) <= 1
    times = {}
    for request in echo.requests:
        times.setdefault(request.body["messages"][-1]["content"], request.time)
    assert all(times[question] < killed_at for question in again)


@ON_SQLITE
def test_ctrl_c_ends_a_cluster_too(tmp_path, echo, database):
    echo.delay_s = 0.3
    first = begin_cluster(tmp_path, database, "-w", "2")
    until(lambda: len(echo.requests) > 4)

    first.send_signal(signal.SIGINT)

    ended(first, 130)
    store = Store(database)
    info = Jobs(store).get(tmp_path / "out.jsonl").info()
    assert (info.done, info.under_way) == (len(echo.requests), 0)
    store.close()


IMPATIENT = "from llmkit.jobs.workers import dask; dask.CONNECT_S = 0.5; from llmkit.cli import main; main()"


@ON_SQLITE
def test_a_scheduler_that_is_not_there_is_told(tmp_path, echo, database):
    command = ["map", "in.txt", "-p", "p", "-o", "out.jsonl", "-d", database, "--engine", "dask"]
    command = [sys.executable, "-c", IMPATIENT, *command, "--address", "tcp://127.0.0.1:1"]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in done.stderr
    assert echo.requests == []


@pytest.mark.parametrize(
    ("wrong", "told"), [({"engine": "spark"}, "the engine is dask"), ({"address": "tcp://x:1"}, "say engine dask")]
)
def test_an_engine_that_cannot_be_is_told(sqlite, wrong, told):
    with pytest.raises(InvalidRequestError, match=told):
        llmkit.map(["a"], model="openai/gpt-4o", store=sqlite, **wrong)


@pytest.fixture
def threads():
    """Compute Dask's collections in this process."""
    import dask

    with dask.config.set(scheduler="synchronous"):
        yield


def test_a_bag_is_asked_a_partition_at_a_time_and_once(echo, database, threads):
    import dask.bag

    bag = dask.bag.from_sequence([{"prompt": f"row {number}"} for number in range(10)], npartitions=3)

    asked = llmkit.dask_map(bag, preset="p", store=database)

    assert [result.text for result in asked.compute()] == [f"ROW {number}" for number in range(10)]
    again = llmkit.dask_map(bag, preset="p", store=database)
    assert [result.cost_usd for result in again.compute()] > [0.0] * 10
    assert set(echo.asked().values()) == {1}
    assert len(echo.requests) == 10


@ON_SQLITE
def test_a_data_frame_gets_columns(echo, database, threads):
    import pandas as pd
    from dask import dataframe

    frame = dataframe.from_pandas(pd.DataFrame({"prompt": ["a", "b", "c"], "n": [1, 2, 3]}), npartitions=2)

    asked = llmkit.dask_map(frame, job="frames", preset="p", store=database).compute()

    assert list(asked.columns) == ["prompt", "n", "answer", "error", "cost_usd"]
    assert list(asked.answer) == ["A", "B", "C"]
    assert list(asked.n) == [1, 2, 3]
    assert asked.error.isna().all()
    assert (asked.cost_usd > 0).all()


@pytest.mark.parametrize("wrong", ["max_usd", "rpm", "out", "workers"])
def test_what_is_of_the_whole_cannot_be_given_to_partitions(wrong):
    import dask.bag

    with pytest.raises(InvalidRequestError, match=f"{wrong} cannot be given to dask_map"):
        llmkit.dask_map(dask.bag.from_sequence(["a"]), job="j", **{wrong: 1})


def test_rows_must_be_a_collection():
    with pytest.raises(InvalidRequestError, match="a Dask bag or DataFrame"):
        llmkit.dask_map(["a"], job="j")
