"""The page of `llmkit usage --html`: what it says, how the command writes it, and how a real browser shows it."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import random
import re
import stat
import subprocess
import sys
import tempfile
import time
from html.parser import HTMLParser
from pathlib import Path

import browser
import commands
import pytest
from databases import LONG
from ledgers import DAY, NOON, failed, filled, row, summed

from llmkit import Ledger
from llmkit.money import report
from llmkit.money.usage_page import GROUPINGS, usage_page

MODULE = [sys.executable, "-m", "llmkit"]
EVIL = '</title><script>alert("1")</script>\'&amp;<img src=x onerror=alert(1)>'
WEEKS = ["2026-10-23", "2026-10-28", "2026-11-02", "2026-11-07", "2026-11-12", "2026-11-17"]
MANY_ROWS = 100_000 if LONG else 20_000
VOID = {"meta", "link", "br", "img"}


def some(count, days, *, models=9):
    """Rows as a busy team has them: several models, one of them without a price, retries and errors."""
    made, dice = [], random.Random(count)
    while len(made) < count:
        model = dice.randrange(models)
        one = {"at": NOON - dice.random() * days * DAY, "call": str(len(made)), "asked": f"provider/model-{model}"}
        for attempt in range(1, dice.choice((1, 1, 1, 1, 2, 3)) + 1):
            if attempt > 1:
                made[-1] = failed(**one, attempt=attempt - 1, latency_s=dice.random())
            cost = None if model == 3 else dice.random() * (models - model)
            tokens = {"prompt_tokens": dice.randrange(9000), "completion_tokens": dice.randrange(2000)}
            made.append(row(**one, **tokens, attempt=attempt, cost_usd=cost, latency_s=dice.random() * 9))
    return made[:count]


class Seen(HTMLParser):
    """What a reader of the page has: its tables by caption, the words at the axes of its charts, and its tags.

    Tags have to be balanced.
    """

    def __init__(self, page):
        super().__init__()
        self.tables, self.axes, self.tags, self.words, self.open = {}, {}, [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if ("role", "img") in attrs:
            chart = dict(attrs)
            self.axis = self.axes.setdefault(chart.get("aria-label") or chart["aria-labelledby"], [])
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.rows = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "table":
            self.tables[self.caption] = self.rows

    def handle_data(self, data):
        if self.open and self.open[-1] == "caption":
            self.caption = data
        elif self.open and self.open[-1] in {"td", "th"}:
            self.rows[-1][-1] += data
        elif self.open and self.open[-1] != "style":
            self.words.append(data)
            if self.open[-1] == "text":
                self.axis.append(data)

    def tiles(self):
        words = [word for word in self.words if word.strip()]
        heads = ("Cost", "Calls", "Attempts", "Errors", "Tokens", "Unpriced")
        return {head: words[words.index(head) + 1] for head in heads}


def page_of(rows, **values):
    with tempfile.TemporaryDirectory() as folder:
        ledger = filled(f"{folder}/llmkit.db", rows)
        page = usage_page(report.summarise(ledger, *GROUPINGS, **values), now=NOON, **values)
        ledger.store.close()
    return page


def seen(rows, **values):
    return Seen(page_of(rows, **values))


# -- what the page says -----------------------------------------------------------------------------------------------


def test_sums_are_those_of_the_report(store):
    rows = some(3000, 60)
    *lines, total = summed(store, rows, ("model",))

    page = seen(rows)

    table = {line[0]: line[1:] for line in page.tables["Models"]}
    for line in (*lines, total):
        *counts, cost, unpriced, p50, p95 = table[line.key[0] if line.key else "Total"]
        assert counts == [
            *(f"{n:,}" for n in (line.calls, line.attempts, line.errors)),
            *(f"{n:,}" for n in (line.prompt_tokens, line.completion_tokens, line.cached_tokens)),
        ]
        assert cost == ("unknown" if line.cost_usd is None else f"${line.cost_usd:,.2f}")
        assert unpriced == f"{line.unpriced:,}"
        assert (p50, p95) == (f"{line.p50_s:.2f} s", f"{line.p95_s:.2f} s")
    assert page.tiles() == {
        "Cost": f"${total.cost_usd:,.2f}",
        "Calls": f"{total.calls:,}",
        "Attempts": "3,000",
        "Errors": f"{total.errors:,}",
        "Tokens": f"{(total.prompt_tokens + total.completion_tokens) / 1e6:.1f}M",
        "Unpriced": f"{total.unpriced:,}",
    }


def test_each_day_has_the_costs_of_the_six_dearest_models_and_of_the_rest(store):
    rows = some(2000, 30)
    costs = {line.key: line.cost_usd for line in summed(store, rows, ("day", "model"))[:-1]}

    head, *days, foot = seen(rows).tables["Cost by day and model"]

    assert head == ["day", *(f"provider/model-{n}" for n in (0, 1, 2, 4, 5, 6)), "3 other models", "all"]
    assert len(days) == 31
    assert foot[-1] == f"${summed(store, rows, ())[-1].cost_usd:,.2f} + unknown"
    assert days[-2][0] == "2026-11-20"
    assert days[-2][1:7] == [f"${costs['2026-11-20', name]:,.2f}" for name in head[1:7]]
    assert days[-2][7].endswith(" + unknown")


def test_tokens_latency_errors_and_retries_are_told_in_tables():
    rows = [
        failed(call="1", latency_s=2.0),
        failed(call="1", attempt=2, status="Timeout"),
        row(call="1", attempt=3, latency_s=12.0),
        row(call="2", asked="n", status="interrupted", latency_s=0.02),
        failed(call="3", asked="n", attempt=7, latency_s=None),
    ]

    tables = seen(rows).tables

    assert tables["Tokens by day"][-2:] == [["2026-11-21", "20", "10", "30"], ["Total", "20", "10", "30"]]
    assert tables["Latency by model"][1:] == [["n", "2", "20 ms", "20 ms"], ["m", "3", "2.00 s", "11.0 s"]]
    assert tables["Attempts without a whole answer"][1:] == [
        ["RateLimitError", "1", "1", "2"],
        ["Timeout", "0", "1", "1"],
        ["interrupted", "1", "0", "1"],
    ]
    assert tables["How retries ended"][1:] == [
        ["attempt 2", "0", "1", "1"],
        ["attempt 3", "1", "0", "1"],
        ["attempt 5 and later", "0", "1", "1"],
    ]


def test_a_price_that_is_not_known_is_never_zero():
    page = seen([row(cost_usd=None, asked="a"), row(cost_usd=None, asked="b", call="2", at=NOON - DAY)])

    assert page.tiles()["Cost"] == "unknown"
    assert [line[7:9] for line in page.tables["Models"][1:]] == [["unknown", "1"], ["unknown", "1"], ["unknown", "2"]]
    assert page.tables["Cost by day and model"][-3:] == [
        *(["2026-11-20", "unknown", "unknown"], ["2026-11-21", "unknown", "unknown"]),
        ["Total", "unknown", "unknown"],
    ]
    assert "No price is known." in page.words
    assert "$" not in "".join(page.words)


def test_a_day_with_an_unknown_price_is_marked_in_the_chart():
    page = page_of([row(), row(call="2", cost_usd=None), row(call="3", at=NOON - DAY)])

    cost = re.search('<svg class="plot".*?</svg>', page, re.DOTALL)[0]
    *_, yesterday, today = re.findall(r"<g>\s*<title>(.*?)</title>(.*?)</g>", cost, re.DOTALL)
    assert yesterday[0].split("\n") == ["2026-11-20: $0.50", "m: $0.50"]
    assert today[0].split("\n") == ["2026-11-21: $0.50 + unknown", "m: $0.50 + unknown"]
    assert ("<circle" in yesterday[1], "<circle" in today[1]) == (False, True)
    assert "the price of some answers is unknown" in page


def test_a_free_answer_is_free():
    page = seen([row(cost_usd=0.0)])

    assert page.tiles()["Cost"] == "$0.00"
    assert "Nothing was charged." in page.words


@pytest.mark.parametrize("field", ["asked", "status"])
def test_names_are_text_and_nothing_else(field):
    page = page_of([row(), row(call="2", cost_usd=1.0, attempt=2, **{field: EVIL})])

    found = Seen(page)
    assert {tag for tag, _ in found.tags} & {"script", "img", "iframe", "object"} == set()
    assert all(not name.startswith("on") for _, attributes in found.tags for name in attributes)
    assert EVIL not in page
    assert EVIL in {cell for table in found.tables.values() for line in table for cell in line}


def test_names_that_cannot_be_written_or_are_endless_are_cut():
    page = page_of([row(asked="a\x01\x1b\u200f\u202eb"), row(asked="x" * 9999), row(asked="")])

    assert "a????b" in page
    assert page.encode()
    assert "x" * 119 + "…" in page
    assert "x" * 120 not in page


@pytest.mark.parametrize(
    ("limits", "told"), [({}, "Nothing in the ledger"), ({"since": NOON - DAY}, "Nothing in the ledger for this time")]
)
def test_an_empty_ledger_is_said(limits, told):
    page = seen([], **limits)

    assert told in page.words
    assert page.tables == {}
    assert ("calls from 2026-11-20 12:00 UTC · " in "".join(page.words)) is bool(limits)


@pytest.mark.parametrize(
    ("days", "unit", "columns"),
    [
        (0, "day", 30),
        (29, "day", 30),
        (30, "day", 31),
        (119, "day", 120),
        (120, "week", 18),
        (400, "week", 58),
        (1000, "month", 34),
    ],
)
def test_columns_are_for_days_weeks_or_months(days, unit, columns):
    page = seen([row(at=NOON - days * DAY), row(call="2")])

    lines = page.tables[f"Cost by {unit} and model"]
    assert len(lines) == columns + 2
    assert sum(float(line[-1].strip("$")) for line in lines[1:-1] if line[-1].startswith("$")) == 1.0


@pytest.mark.parametrize(
    ("limits", "first", "last", "columns"),
    [
        ({"since": NOON - 29 * DAY}, "2026-10-23", "2026-11-21", 30),
        ({"since": NOON - 6 * DAY}, "2026-11-15", "2026-11-21", 7),
        ({"since": NOON - 19 * DAY, "until": NOON - 5 * DAY}, "2026-11-02", "2026-11-16", 15),
        ({"since": NOON - 19 * DAY, "until": NOON - 5.5 * DAY}, "2026-11-02", "2026-11-15", 14),
        ({"since": NOON - 5000 * DAY}, "2026-10-23", "2026-11-21", 30),
        ({"until": NOON - 5 * DAY}, "2026-10-18", "2026-11-16", 30),
        ({}, "2026-10-23", "2026-11-21", 30),
    ],
)
def test_the_time_that_is_asked_for_is_shown_whole_where_one_day_of_it_was_used_too(limits, first, last, columns):
    days = seen([row(at=NOON - 6 * DAY)], **limits).tables["Cost by day and model"][1:-1]

    assert (days[0][0], days[-1][0], len(days)) == (first, last, columns)
    assert [line for line in days if line[-1].startswith("$")] == [["2026-11-15", "$0.50", "$0.50"]]


def test_its_words_explain_themselves():
    rows = [failed(call="1"), row(call="1", attempt=2), row(call="2")]

    words = " ".join("".join(seen(rows, since=NOON - 9 * DAY).words).split())

    assert "calls from 2026-11-12 12:00 UTC · as of 2026-11-21 12:00 UTC" in words
    assert "Attempts3requests sent; 1 of them was a retry" in words
    assert "made" not in words
    assert "more than" not in words


def test_models_that_cost_nothing_are_in_the_table_and_not_in_the_chart():
    page = seen([row(), row(call="2", asked="free", cost_usd=0.0), failed(call="3", asked="typo")])

    assert [line[0] for line in page.tables["Models"]] == ["model", "m", "free", "typo", "Total"]
    assert page.tables["Cost by day and model"][0] == ["day", "m", "all"]


def test_the_page_needs_nothing_else():
    page = page_of(some(500, 60))

    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', page)[1]
    style = base64.b64encode(hashlib.sha256(re.search("<style>(.*?)</style>", page, re.DOTALL)[1].encode()).digest())
    assert policy == f"default-src 'none'; style-src 'sha256-{style.decode()}'; img-src data:"
    assert not re.search(r"<script|<img|@import|url\(|\bsrc=|https?:", page)
    assert re.findall(r"href=\"([^\"]*)\"", page) == ["data:,"]
    ids = re.findall(r" id=\"([^\"]*)\"", page)
    assert len(ids) == len(set(ids))
    named = [
        name for found in re.findall(r"aria-(?:labelledby|describedby)=\"([^\"]*)\"", page) for name in found.split()
    ]
    assert set(named) <= set(ids)


def test_each_chart_has_a_name_a_description_and_a_table():
    page = seen(some(500, 60))

    charts = [attributes for _, attributes in page.tags if attributes.get("role") == "img"]
    assert len(charts) == 5
    assert all({"aria-labelledby", "aria-label"} & chart.keys() and "aria-describedby" in chart for chart in charts)
    assert len(page.tables) == 6


def test_many_rows_take_seconds():
    """A hundred thousand in the long form."""
    usual = some(1000, 90)
    rows = [dataclasses.replace(usual[n % 1000], call=str(n)) for n in range(MANY_ROWS)]

    start = time.monotonic()
    page = page_of(rows)

    assert time.monotonic() - start < 5 + MANY_ROWS / 4_000
    assert len(page) < 1_000_000


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "unknown"),
        (0.0, "$0.00"),
        (1234.5, "$1,234.50"),
        (0.5, "$0.50"),
        (0.12345, "$0.1235"),
        (0.000042, "$0.000042"),
        (-2.0, "-$2.00"),
    ],
)
def test_dollars(amount, text):
    assert seen([row(cost_usd=amount)]).tiles()["Cost"] == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999, "999"), (1234, "1.23k"), (999_999, "1M"), (45_000_000, "45M")]
)
def test_short_numbers(number, text):
    assert seen([row(prompt_tokens=number, completion_tokens=0)]).tiles()["Tokens"] == text


@pytest.mark.parametrize(("latency", "text"), [(0.0, "0 ms"), (0.25, "250 ms"), (1.5, "1.50 s"), (1234.5, "1,234 s")])
def test_durations(latency, text):
    assert seen([row(latency_s=latency)]).tables["Latency by model"][1][2:] == [text, text]


@pytest.mark.parametrize(
    ("chart", "rows", "labels"),
    [
        ("Latency by model", [row(latency_s=0.0)], ["0", "0.25", "0.5", "0.75", "1", "seconds"]),
        ("Latency by model", [row(latency_s=0.9)], ["0", "0.25", "0.5", "0.75", "1", "seconds"]),
        ("Attempts without a whole answer", [failed()], ["0", "1", "attempts"]),
        ("Attempts without a whole answer", [failed()] * 7, ["0", "2", "4", "6", "8", "attempts"]),
        ("cost-t", [row(cost_usd=7000.0)], ["USD", "$0", "$2k", "$4k", "$6k", "$8k", *WEEKS, "day (UTC)"]),
        ("cost-t", [row(cost_usd=0.4)], ["USD", "$0.00", "$0.10", "$0.20", "$0.30", "$0.40", *WEEKS, "day (UTC)"]),
    ],
)
def test_axes_have_round_numbers(chart, rows, labels):
    assert seen(rows).axes[chart] == labels


@pytest.mark.parametrize(
    ("cached", "prompt", "share"),
    [(0, 0, "0 %"), (0, 5, "0 %"), (1, 99999, "<0.1 %"), (1, 3, "33.3 %"), (1, 1, "100 %")],
)
def test_a_share_that_is_not_zero_does_not_read_as_zero(cached, prompt, share):
    words = "".join(seen([row(prompt_tokens=prompt, cached_tokens=cached)]).words)

    assert f" in prompts, {share} of them cached; 5 in completions." in words


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run `llmkit usage ARGS` with folders of its own."""
    return commands.usage_in(tmp_path, monkeypatch)


@pytest.fixture
def ledger(run, tmp_path):
    """The ledger that the command reads, with two calls."""
    found = Ledger(tmp_path / "data" / "llmkit.db")
    found.increment_usage(0.25, "é/a")
    found.increment_usage(0.5, "b")
    found.flush()
    return found


def test_the_command_writes_the_page_and_prints_where(run, ledger, tmp_path):
    file = tmp_path / "a b.html"
    file.write_text("old")

    done = run("--html", str(file))

    assert (done.stdout, done.stderr) == (f"{file}\n", "")
    page = Seen(file.read_text(encoding="utf-8"))
    assert [line[0] for line in page.tables["Models"]] == ["model", "b", "é/a", "Total"]
    assert page.tiles()["Cost"] == "$0.75"
    assert list(tmp_path.glob(".*")) == []


def test_a_dash_is_stdout(run, ledger):
    assert Seen(run("--html", "-").stdout).tiles()["Calls"] == "2"


def test_the_page_is_about_the_chosen_time(run, ledger):
    done = run("--until", "1d", "--html", "-")

    assert done.stderr == "nothing in the ledger for this time\n"
    assert "Nothing in the ledger for this time" in done.stdout


def test_an_age_that_begins_before_any_year_is_shown_from_1970_on(run, ledger):
    assert "from 1970-01-01" in run("--html", "-", "--since", "999999w").stdout


def test_what_is_no_file_is_written_to_and_stays(run, ledger, tmp_path):
    (tmp_path / "link.html").symlink_to("there.html")

    assert run("--html", os.devnull).stdout == f"{os.devnull}\n"
    run("--html", "link.html")

    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)
    assert (tmp_path / "link.html").is_symlink()
    assert "<h1>" in (tmp_path / "there.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "told"),
    [("no/such/folder.html", "No such file"), (".", "Is a directory"), ("data/llmkit.db/x", "Not a directory")],
)
def test_a_file_that_cannot_be_written_is_one_line(run, ledger, file, told):
    done = run("--html", file, code=2)

    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"--html {file!r} cannot be written: {told}" in done.stderr


@pytest.mark.parametrize("args", [["--json"], ["--csv"], ["--plot"], ["--by", "day"]])
def test_one_answer_at_a_time(run, args, tmp_path):
    done = run("--html", "x.html", *args, code=2)

    assert done.stderr == "llmkit: --html cannot be given with --json, --csv, --plot or --by\n"
    assert not (tmp_path / "x.html").exists()


def test_neither_the_page_nor_jinja_is_imported_before_it_is_wanted(run, ledger):
    code = """
import sys
from llmkit.cli import main
sys.argv = ["llmkit", "usage"]
try:
    main()
except SystemExit:
    print([name for name in sys.modules if name in ("llmkit.money.usage_page", "jinja2")])
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"


# -- in a real browser ------------------------------------------------------------------------------------------------

MANY = [*some(800, 60), row(asked=EVIL, cost_usd=99.0)]
MARKS = "svg g rect:not(.hit), svg g circle"


@pytest.fixture
def browse(tmp_path, chromium, request):
    """Show a page in Chromium."""
    with chromium.shown(**getattr(request, "param", {})) as shown:

        def browse(page):
            file = tmp_path / "page.html"
            file.write_text(page, encoding="utf-8")
            shown.goto(file.as_uri())
            return shown

        yield browse


@pytest.mark.parametrize("browse", [{"viewport": browser.PHONE}], indirect=True, ids=["phone"])
@pytest.mark.parametrize("rows", [MANY, some(300, 400), [row()], [row(asked=EVIL + "W" * 99)], []], ids=len)
def test_a_phone_shows_it_without_scrolling_sideways(browse, rows):
    page = browse(page_of(rows))
    page.evaluate("() => { for (const one of document.querySelectorAll('details')) one.open = true }")

    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert browser.cut(page) == []
    assert page.locator(MARKS).count() >= min(len(rows), 100)


@pytest.mark.parametrize(
    ("browse", "rows"),
    [({}, MANY), ({"color_scheme": "dark"}, MANY), ({"viewport": browser.PHONE}, MANY), ({}, [])],
    indirect=["browse"],
    ids=["wide", "dark", "phone", "nothing"],
)
def test_neither_a_browser_nor_axe_has_anything_to_complain_about(browse, rows):
    page = browse(page_of(rows))

    assert page.wrong == []
    assert len(page.asked) == 1
    assert page.locator("script").count() == 0
    assert browser.faults(page) == []


def test_its_numbers_open_by_keyboard(browse):
    page = browse(page_of(MANY))
    table = page.locator("details table").first
    assert not table.is_visible()

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    assert table.is_visible()


@pytest.mark.parametrize(
    ("browse", "colour"),
    [({}, "rgb(244, 246, 248)"), ({"color_scheme": "dark"}, "rgb(14, 18, 23)")],
    indirect=["browse"],
)
def test_the_page_is_dark_where_the_system_is(browse, colour):
    page = browse(page_of([row()]))

    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == colour
