"""The picture of a map: what it says, that it is there however the job ends, and how a real browser shows it."""

from __future__ import annotations

import re
import signal
from dataclasses import asdict
from xml.etree import ElementTree as ET

import pytest
from commands import Started, run, surroundings
from ledgers import failed, row
from server import Answer, Status, until

import llmkit
from llmkit import Jobs
from llmkit.jobs.plot import picture
from llmkit.store import Store
from llmkit.store import ledger as stored
from llmkit.testing import ScriptedBackend

SVG = "{http://www.w3.org/2000/svg}"
EVIL = "<script>&\"'\x1b]]>\u202e.jsonl"


class Seen:
    """What a reader of the picture has: its texts, and for each chart what a pointer tells of its columns."""

    def __init__(self, text):
        self.root = ET.fromstring(text)
        self.texts = ["".join(each.itertext()) for each in self.root.iter(f"{SVG}text")]
        groups = [chart.findall(f"{SVG}g") for chart in self.root.iter(f"{SVG}svg") if chart is not self.root]
        self.charts = [[group.findtext(f"{SVG}title") for group in each] for each in groups]

    def says(self, words):
        return any(words in text for text in self.texts)


def job_of(store, name="out.jsonl"):
    """A job of three rows that are answered."""
    options = {"model": "openai/gpt-4o", "store": store, "at_once": 1}
    list(llmkit.map(["a", "b", "c"], job=name, backend=ScriptedBackend("A", "B", "C"), **options))
    return Jobs(store).get(name)


def drawn(job, *rows):
    """Return the picture of a job with these rows in the ledger; their `at` counts from its beginning."""
    began, database = job.info().created_at, job.store.database
    with database.writing() as connection:
        connection.run("DELETE FROM llmkit_ledger")
        values = [asdict(each) for each in rows]
        tagged = [{**each, "at": began + each["at"], "tags": each["tags"] or (f"map:{job.id}",)} for each in values]
        stored.add_rows(connection, tagged)
    return picture(job)


# -- what it says -----------------------------------------------------------------------------------------------------


def test_it_has_the_rate_the_failures_and_the_cost_of_each_step(store):
    rows = [row(at=second, latency_s=0.0, cost_usd=0.25) for second in (0.0, 0.5, 2.25, 2.5, 2.75)]
    rows += [failed(at=1.5, latency_s=0.0), failed(at=2.5, status="Timeout"), row(at=9.0, tags=("map:other",))]

    seen = Seen(drawn(job_of(store), *rows))

    assert seen.charts == [
        ["0:00:00: 2\nanswers: 2", "0:00:01: 0", "0:00:02: 3\nanswers: 3"],
        ["0:00:00: 0", "0:00:01: 1\nRateLimitError: 1", "0:00:02: 1\nTimeout: 1"],
        ["0:00:00: $0.50\ncost: $0.50", "0:00:01: $0.00\ncost: $0.00", "0:00:02: $0.75\ncost: $0.75"],
    ]
    assert seen.says("3 of 3 rows done, 0 of them failed. A column is for 0:00:01.")
    assert seen.says("5 answers in 0:00:03; most: 3 a second.")
    assert seen.says("2 of 7 attempts failed.")
    assert seen.says("$1.25 in all.")


def test_the_time_begins_with_the_first_request(store):
    seen = Seen(drawn(job_of(store), row(at=10.0, latency_s=4.5)))

    assert seen.charts[0] == [f"0:00:0{second}: 0" for second in range(4)] + ["0:00:04: 1\nanswers: 1"]


@pytest.mark.parametrize(
    ("seconds", "columns", "step"),
    [(0, 1, "0:00:01"), (59, 60, "0:00:01"), (60, 31, "0:00:02"), (3599, 60, "0:01:00"), (3600, 31, "0:02:00")],
)
def test_there_are_sixty_columns_at_the_most(store, seconds, columns, step):
    seen = Seen(drawn(job_of(store), row(at=0.0, latency_s=0.0), row(at=float(seconds), latency_s=0.0)))

    assert [len(chart) for chart in seen.charts] == [columns] * 2
    assert seen.says(f"A column is for {step}.")


def test_a_job_of_years_has_no_more_columns(store):
    seen = Seen(drawn(job_of(store), row(at=0.0), row(at=3e8)))

    assert len(seen.charts[0]) == 60
    assert seen.charts[0][-1].startswith("3472 days, ")


def test_failures_are_told_apart_the_most_frequent_first(store):
    names = ["RateLimitError"] * 5 + ["Timeout"] * 4 + ["APIError"] * 3 + ["BadGatewayError"] * 2 + ["cancelled"]

    seen = Seen(drawn(job_of(store), *(failed(at=0.0, status=name, latency_s=None) for name in names)))

    legend = next(text for text in seen.texts if "■" in text)
    assert re.findall(r"[\w ]+\d", legend) == [" RateLimitError 5", " Timeout 4", " APIError 3", " 2 others 3"]
    assert seen.says("0 answers in 0:00:01")
    assert len(seen.charts) == 1


def test_costs_that_nobody_knows_are_said(store):
    rows = [row(at=0.0, cost_usd=None), row(at=0.0), failed(at=0.5, status="cancelled", possibly_usd=0.125)]

    seen = Seen(drawn(job_of(store), *rows))

    assert seen.says("$0.50 in all; answers of unknown price: 1; attempts of unknown outcome: up to $0.125 more.")
    assert len(list(seen.root.iter(f"{SVG}circle"))) == 1


def test_a_job_without_an_attempt_says_so(store):
    seen = Seen(drawn(job_of(store)))

    assert seen.charts == []
    assert seen.says("Nothing was asked.")


def test_names_are_escaped_and_nothing_is_loaded(store):
    made = drawn(job_of(store, EVIL), row(at=0.0), failed(at=0.0, status=EVIL))

    seen = Seen(made)
    assert seen.says("<script>&\"'?]]>?.jsonl")
    assert {each.tag.removeprefix(SVG) for each in seen.root.iter()} <= {
        *("svg", "title", "style", "rect", "g", "text", "tspan", "line", "circle")
    }
    assert not re.search(r"href|url\(|@import|\bon\w+=|//(?!www\.w3\.org/2000/svg)", made)


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, server, monkeypatch):
    """Folders of its own with ten rows, and OpenAI's address pointing at the scripted server."""
    for name, value in surroundings(tmp_path, server.url, LLMKIT_MODEL="openai/gpt-4o").items():
        monkeypatch.setenv(name, value)
    (tmp_path / "in.txt").write_text("".join(f"row {number}\n" for number in range(10)))
    return tmp_path


COMMAND = ["map", "in.txt", "-o", "out.jsonl", "--plot", "run.svg"]


def test_the_picture_is_written_when_the_job_ends(folder, server):
    server.script = [Status(400)]

    done = run(COMMAND)

    seen = Seen((folder / "run.svg").read_text(encoding="utf-8"))
    assert done.returncode == 1
    assert seen.texts[0] == "out.jsonl"
    assert seen.says("10 of 10 rows done, 1 of them failed.")
    assert seen.says("9 answers in ")
    assert seen.says("1 of 10 attempts failed.")
    assert list(folder.glob(".llmkit-*")) == []


def test_a_job_that_has_ended_is_drawn_without_asking(folder, server):
    assert run(COMMAND[:4]).returncode == 0

    assert run(COMMAND).returncode == 0
    assert Seen((folder / "run.svg").read_text(encoding="utf-8")).says("10 answers in ")
    assert len(server.requests) == 10


def test_an_interrupted_job_is_drawn_too(folder, server):
    server.script = [Answer("ok", delay_s=0.3)] * 10
    going = Started([*COMMAND, "-j", "2"])
    until(lambda: len(server.requests) >= 2)

    going.send_signal(signal.SIGINT)
    going.communicate(timeout=60)

    assert going.returncode == 130
    done = Jobs().get("out.jsonl").info().done
    assert 0 < done < 10
    assert Seen((folder / "run.svg").read_text(encoding="utf-8")).says(f"{done} of 10 rows done")


def test_a_job_that_every_row_fails_is_drawn_too(folder, server):
    server.script = [Status(401)] * 10

    assert run([*COMMAND, "-j", "1"]).returncode == 1
    assert Seen((folder / "run.svg").read_text(encoding="utf-8")).says("AuthenticationError")


@pytest.mark.parametrize(
    ("file", "told"),
    [
        ("no/run.svg", "--plot 'no/run.svg' cannot be written: No such file or directory"),
        ("in.txt/run.svg", "--plot 'in.txt/run.svg' cannot be written: Not a directory"),
        ("folder.svg", "--plot 'folder.svg' cannot be written: Is a directory"),
        ("run.png", "--plot draws SVG: the file ends in .svg, not 'run.png'"),
    ],
)
def test_a_picture_that_cannot_be_written_is_told_before_a_row_is_asked(folder, server, file, told):
    (folder / "folder.svg").mkdir()

    done = run([*COMMAND[:-1], file])

    assert (done.returncode, done.stderr) == (2, f"llmkit: {told}\n")
    assert server.requests == []
    assert Jobs().all() == []


def test_the_output_is_not_drawn_over(folder, server):
    done = run(["map", "in.txt", "-o", "x.svg", "--plot", "./x.svg"])

    assert (done.returncode, done.stderr) == (2, "llmkit: --plot and --out are the same file\n")


def test_a_picture_that_fails_at_the_end_changes_nothing_else(folder, server, monkeypatch):
    """Its folder goes away meanwhile."""
    (folder / "there").mkdir()

    def answer(_):
        (folder / "there").rmdir()
        return Answer("ok")

    server.script = [answer]
    done = run(["map", "in.txt", "-o", "out.jsonl", "--plot", "there/run.svg", "-j", "1"])

    assert done.returncode == 0
    assert "--plot 'there/run.svg' cannot be written: No such file or directory" in done.stderr
    assert "10 rows, 0 failed" in done.stderr


# -- in a real browser ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it_whole_in_the_light_and_in_the_dark(tmp_path, chromium, scheme):
    store = Store(tmp_path / "llmkit.db")
    rows = [row(at=float(second), cost_usd=0.0012345) for second in range(3000)]
    rows += [failed(at=float(second), status=name) for second in range(0, 3000, 7) for name in ("Timeout", "APIError")]
    (tmp_path / "run.svg").write_text(drawn(job_of(store, "long name " * 40), *rows), encoding="utf-8")
    store.close()

    with chromium.shown(color_scheme=scheme) as page:
        page.goto(f"file://{tmp_path}/run.svg")
        out = page.evaluate("""() => [...document.querySelectorAll("text")].filter((one) => {
          const [box, all] = [one, document.documentElement].map((each) => each.getBoundingClientRect());
          return box.left < all.left || box.right > all.right || box.bottom > all.bottom;
        }).map((one) => one.textContent)""")
        colour = page.evaluate("getComputedStyle(document.querySelector('.card')).fill")
        wrong, asked = page.wrong, page.asked

    assert (out, wrong, asked) == ([], [], [f"file://{tmp_path}/run.svg"])
    assert colour == {"light": "rgb(255, 255, 255)", "dark": "rgb(23, 28, 35)"}[scheme]
