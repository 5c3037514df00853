"""The recipes of docs/howto/engines.md, as they stand there: each is a program of its own, and each is killed once."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from commands import surroundings
from documents import blocks
from server import Answer, ScriptedServer, until

from llmkit import Budget, Budgets, Jobs, Ledger

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "engines.md"
ROWS = 250
ENGINES = ("pandas", "polars", "daft", "ray")
BATCHES = {"pandas": 1, "polars": 1, "daft": 3, "ray": 3}
pytestmark = pytest.mark.timeout(300)


def recipe(engine):
    (block,) = (
        block for block in blocks(PAGE) if f"import {engine}\n" in block.code or f"import {engine} as" in block.code
    )
    return block.code


@pytest.fixture(params=ENGINES)
def engine(request):
    if importlib.util.find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed, so its recipe is not run")
    return request.param


class Provider(ScriptedServer):
    """A provider that answers each question with its end, in capitals, after a moment."""

    delay_s = 0.0

    def next(self, recorded):
        super().next(recorded)
        return Answer(recorded.body["messages"][-1]["content"].split()[-1].upper(), delay_s=self.delay_s)


@pytest.fixture
def provider(tmp_path, monkeypatch):
    """A provider at OpenAI's address, and a folder with `reviews.csv`, a recipe's budget and a store of its own."""
    with Provider() as running:
        quiet = {"DAFT_ANALYTICS_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
        for name, value in surroundings(tmp_path, running.url, **quiet).items():
            monkeypatch.setenv(name, value)
        lines = [f"{number},review{number}\n" for number in range(ROWS)]
        (tmp_path / "reviews.csv").write_text("id,text\n" + "".join(lines))
        Budgets().set(Budget(name="reviews", limit_usd=5, period="total"))
        yield running


def started(folder, engine):
    (folder / "recipe.py").write_text(recipe(engine))
    with (folder / "said.txt").open("w") as said:
        return subprocess.Popen(
            [sys.executable, "recipe.py"], cwd=folder, stdout=said, stderr=said, start_new_session=True
        )


def ended(folder, process):
    assert process.wait(200) == 0, (folder / "said.txt").read_text()[-3000:]


def answers(folder):
    """Return the answers by id; read by another program, since Arrow's threads do not stand a fork."""
    (file,) = (each for each in ("answers.parquet", "answers") if (folder / each).exists())
    code = f"import json, pyarrow.parquet as p; print(json.dumps(p.read_table({file!r}).to_pylist()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    rows = json.loads(done.stdout)
    assert len(rows) == len({row["id"] for row in rows})
    return {row["id"]: row["answer"] for row in rows if not row["error"]}


EXPECTED = {number: f"REVIEW{number}" for number in range(ROWS)}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_recipe_has_twenty_lines_at_the_most(engine):
    assert len([line for line in recipe(engine).splitlines() if line.strip()]) <= 20


def test_a_recipe_asks_each_row_once_pays_from_the_one_budget_and_asks_nothing_again(engine, provider, tmp_path):
    ended(tmp_path, started(tmp_path, engine))

    assert answers(tmp_path) == EXPECTED
    assert len(provider.requests) == ROWS
    jobs = Jobs().all()
    assert len(jobs) == BATCHES[engine]
    assert Budgets().get("reviews").settled == pytest.approx(Ledger().get_usage())
    assert sum(job.cost_usd for job in jobs) == pytest.approx(Ledger().get_usage())
    for file in tmp_path.glob("answers/*"):
        file.unlink()

    ended(tmp_path, started(tmp_path, engine))

    assert answers(tmp_path) == EXPECTED
    assert len(provider.requests) == ROWS


def test_after_a_kill_what_was_answered_is_not_asked_again(engine, provider, tmp_path):
    """Of Ray a worker is killed; of the others the program, which is started again."""
    provider.delay_s = 0.1
    going = started(tmp_path, engine)
    until(lambda: sum(job.done for job in Jobs().all()) >= 20)

    jobs = [job for job in Jobs().all() if job.owner and job.done]
    kept = sum(job.done for job in Jobs().all())
    provider.delay_s = 0.0
    if engine == "ray":
        os.kill(int(jobs[0].owner.split(":")[1]), signal.SIGKILL)
    else:
        os.killpg(going.pid, signal.SIGKILL)
        going.wait()
        going = started(tmp_path, engine)
    ended(tmp_path, going)

    assert answers(tmp_path) == EXPECTED
    asked = [request.body["messages"][-1]["content"] for request in provider.requests]
    twice = len(asked) - len(set(asked))
    assert len(set(asked)) == ROWS
    possibly = [row for row in Ledger().rows() if row.status == "cancelled"]
    assert twice <= len(possibly) <= ROWS - kept
    with suppress(ProcessLookupError):
        os.killpg(going.pid, signal.SIGKILL)
