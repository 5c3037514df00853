"""`llmkit map`, as a user sees it: what it says, what it writes, how it ends, and that it goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from commands import MODULE, Started, on_terminal, run, surroundings
from databases import LONG
from server import Answer, Status, until

from llmkit import Jobs, Ledger
from llmkit.store import Store

PRESET = """
model: openai/gpt-4o
params: {max_tokens: 20}
"""


@pytest.fixture
def folder(tmp_path, server, monkeypatch):
    """Folders of its own, with a preset called `p`, and OpenAI's address pointing at the scripted server."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "p.yaml").write_text(PRESET)
    for name, value in surroundings(tmp_path, server.url, LLMKIT_PRESETS=str(tmp_path / "mine")).items():
        monkeypatch.setenv(name, value)
    return tmp_path


def echo(body):
    """Answer a question with itself in capitals."""
    return Answer(body["messages"][-1]["content"].upper())


def rows(folder, number, name="in.txt"):
    (folder / name).write_text("".join(f"row {each}\n" for each in range(number)))
    return folder / name


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def asked(server):
    return [request.body["messages"][-1]["content"] for request in server.requests]


def test_rows_go_through_a_preset_into_a_file(folder, server):
    server.script = [echo] * 3
    (folder / "in.csv").write_text("id,text\n7,dog\n8,cat\n9,dog\n")

    done = run(["map", "in.csv", "-p", "p", "-o", "out.jsonl", "--prompt", "Translate: {{ text }}", "--key", "id"])

    assert done.returncode == 0, done.stderr
    assert [(line["key"], line["text"]) for line in lines(folder / "out.jsonl")] == [
        ("7", "TRANSLATE: DOG"),
        ("8", "TRANSLATE: CAT"),
        ("9", "TRANSLATE: DOG"),
    ]
    assert sorted(asked(server)) == ["Translate: cat", "Translate: dog"]
    assert done.stderr.startswith("llmkit: 2 rows to ask, about 0.000")
    assert "out.jsonl: 3 rows, 1 of them like an earlier one, 0 failed, 0.000" in done.stderr


def test_it_says_how_it_ended_as_json(folder, server):
    done = run(["map", rows(folder, 3), "-p", "p", "-o", "out.jsonl", "--json"])

    info = json.loads(done.stdout)
    assert (info["rows"], info["done"], info["failed"], info["name"]) == (3, 3, 0, str(folder / "out.jsonl"))
    assert info["cost_usd"] == pytest.approx(Ledger().get_usage())


def test_failed_rows_end_with_1_and_are_asked_again_when_wanted(folder, server):
    server.script = [Status(400), Answer("ok")]
    command = ["map", rows(folder, 2), "-p", "p", "-o", "out.jsonl", "-j", "1"]

    done = run(command)

    assert done.returncode == 1
    assert "2 rows, 1 failed" in done.stderr
    assert "--retry-errors asks again what failed" in done.stderr
    assert [line["error"] is None for line in lines(folder / "out.jsonl")] == [False, True]
    assert run(["map", "retry", "out.jsonl"]).stdout == "1 rows will be asked again when the job is started\n"
    assert run([*command, "--retry-errors"]).returncode == 0
    assert [line["error"] for line in lines(folder / "out.jsonl")] == [None, None]
    assert len(server.requests) == 3


def test_a_limit_ends_it_with_3_and_a_higher_one_goes_on(folder, server):
    command = ["map", rows(folder, 30), "-p", "p", "-o", "out.jsonl", "--max-usd"]

    done = run([*command, "0.002"])

    assert done.returncode == 3
    assert "which may not be enough" in done.stderr
    assert "rows are left; the same command goes on with them" in done.stderr
    assert 0 < len(server.requests) < 30
    assert Ledger().get_usage() <= 0.002
    assert run([*command, "1"]).returncode == 0
    assert sorted(asked(server)) == sorted(f"row {number}" for number in range(30))


def test_a_limit_below_one_row_is_told_before_anything_is_asked(folder, server):
    done = run(["map", rows(folder, 3), "-p", "p", "-o", "out.jsonl", "--max-usd", "0.0000001"])

    assert (done.returncode, server.requests) == (3, [])
    assert "this call can cost" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["no.jsonl", "-o", "out.jsonl"], "llmkit: no.jsonl cannot be read: No such file or directory"),
        (
            ["in.txt", "-o", "out.jsonl", "--column", "x"],
            "in.txt, line 1: there is no column 'x'; there are: prompt, text",
        ),
        (["in.txt", "-o", "no/out.jsonl"], "no/out.jsonl.part cannot be written: No such file or directory"),
        (["in.txt", "-o", "in.txt"], "in.txt exists, and is not this job's: choose another output, or move it away"),
        (["in.txt", "-o", "out.jsonl", "--prompt", "{{ x"], "the prompt, line 1 of the text: "),
        (["status", "x"], "there is no job 'x' in the store"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(folder, server, arguments, told):
    rows(folder, 3)

    done = run(["map", *arguments], LLMKIT_MODEL="openai/gpt-4o")

    assert done.returncode == 2, done.stderr
    assert Jobs().all() == []
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
    assert server.requests == []
    assert (folder / "in.txt").read_text().startswith("row 0")


def test_another_preset_than_it_began_with_is_told(folder, server):
    command = ["map", rows(folder, 3), "-p", "p", "-o", "out.jsonl"]
    run(command)
    (folder / "mine" / "p.yaml").write_text(PRESET.replace("20", "30"))

    done = run(command)

    assert done.returncode == 2
    assert (
        "out.jsonl began with another preset; choose another output, or forget it with `llmkit map remove`"
        in done.stderr
    )
    assert run(["map", "remove", "out.jsonl"]).returncode == 0
    (folder / "out.jsonl").unlink()
    assert run(command).returncode == 0


def test_jobs_are_listed(folder, server):
    run(["map", rows(folder, 3), "-p", "p", "-o", "out.jsonl"])

    (listed,) = json.loads(run(["map", "status", "--json"]).stdout)
    by_id = run(["map", "status", listed["id"][:6]]).stdout

    assert by_id.split()[:5] == [listed["id"], "done", "3", "of", "3"]
    assert run(["map", "status", "out.jsonl"]).stdout == by_id


def test_ctrl_c_waits_for_the_answers_under_way_and_says_how_to_go_on(folder, server):
    delay_s = 0.3
    server.script = [lambda body: Answer(body["messages"][-1]["content"].upper(), delay_s=delay_s)] * 100
    command = ["map", rows(folder, 40), "-p", "p", "-o", "out.jsonl", "-j", "4"]
    going = Started(command)
    until(lambda: len(server.requests) >= 4)

    going.send_signal(signal.SIGINT)
    _, told = going.communicate(timeout=60)

    assert going.returncode == 130
    assert "waiting for the answers under way; Ctrl-C again gives them up" in told
    assert "of 40 rows are left; the same command goes on with them" in told
    assert Jobs().get(folder / "out.jsonl").info().done == len(server.requests)
    assert {row.status for row in Ledger().rows()} == {"ok"}
    delay_s = 0.0
    assert run(command).returncode == 0
    assert sorted(asked(server)) == sorted(f"row {number}" for number in range(40))
    assert [line["text"] for line in lines(folder / "out.jsonl")] == [f"ROW {number}" for number in range(40)]


def test_ctrl_c_twice_gives_up_what_may_be_paid(folder, server):
    server.script = [Answer(delay_s=30.0)] * 4
    command = ["map", rows(folder, 8), "-p", "p", "-o", "out.jsonl", "-j", "4"]
    going = subprocess.Popen([*MODULE, *map(str, command)], stderr=subprocess.PIPE, text=True)
    until(lambda: len(server.requests) >= 4)

    going.send_signal(signal.SIGINT)
    assert "Ctrl-C again" in going.stderr.readline() + going.stderr.readline()
    going.send_signal(signal.SIGINT)
    _, told = going.communicate(timeout=20)

    assert going.returncode == 130
    assert "8 of 8 rows are left" in told
    assert [(row.status, row.possibly_usd > 0) for row in Ledger().rows()] == [("cancelled", True)] * 4


def test_a_killed_map_goes_on_and_what_was_under_way_is_possibly_paid(folder, server):
    server.script = [echo] * 6 + [Answer(delay_s=30.0)] * 2
    command = ["map", rows(folder, 20), "-p", "p", "-o", "out.jsonl", "-j", "2", "--max-usd", "1"]
    going = Started(command)
    until(lambda: len(server.requests) >= 8)

    going.kill()
    going.communicate()
    done = run(command)

    assert done.returncode == 0, done.stderr
    assert [line["key"] for line in lines(folder / "out.jsonl")] == list(range(1, 21))
    twice = {row for row in asked(server) if asked(server).count(row) > 1}
    assert len(server.requests) == 22
    assert len(twice) == 2
    statuses = [row.status for row in Ledger().rows()]
    assert (statuses.count("cancelled"), statuses.count("ok")) == (2, 20)
    assert sum(row.possibly_usd or 0 for row in Ledger().rows()) > 0


def test_at_a_terminal_it_asks_and_shows_how_far_it_is(folder, server):
    rows(folder, 3)

    refused = on_terminal("map", "in.txt", "-p", "p", "-o", "out.jsonl", typed="n\n", code=1)
    shown = on_terminal("map", "in.txt", "-p", "p", "-o", "out.jsonl", typed="y\n")
    silent = on_terminal("map", "in.txt", "-p", "p", "-o", "other.jsonl", "--yes")

    assert "begin? [y/N]" in refused
    assert "asking" in shown
    assert "3/3" in shown
    assert "begin?" not in silent


def test_another_store_is_used(folder, server):
    run(["map", rows(folder, 2), "-p", "p", "-o", "out.jsonl", "-d", "own.db"])

    store = Store(folder / "own.db")
    assert [info.done for info in Jobs(store).all()] == [2]
    store.close()


PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


def test_its_memory_does_not_grow_with_the_rows(folder, server):
    def peak_mb(number):
        rows(folder, number, f"{number}.txt")
        server.script = [Answer("ok")] * number
        command = [*MODULE, "map", f"{number}.txt", "-p", "p", "-o", f"{number}.jsonl", "-j", "16"]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, *command], cwd=folder, capture_output=True, text=True, check=True
        )
        return float(done.stdout)

    number = 4000 if LONG else 2000

    assert peak_mb(number) - peak_mb(300) < number * 0.003  # twice as much without a garbage collector
