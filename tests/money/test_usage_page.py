"""The page of `llmkit usage --html`: what it says, how the command writes it, and how a real browser shows it."""

from __future__ import annotations

import dataclasses
import html
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from html.parser import HTMLParser
from pathlib import Path

import commands
import pytest
from ledgers import DAY, NOON, failed, filled, row, summed

from llmkit import Ledger
from llmkit.money import report
from llmkit.money.usage_page import GROUPINGS, usage_page

MODULE = [sys.executable, "-m", "llmkit"]
EVIL = '</title><script>alert("1")</script>\'&amp;<img src=x onerror=alert(1)>'
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
    assert days[-2][0] == "20 Nov 2026"
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

    assert tables["Tokens by day"][1:] == [["21 Nov 2026", "20", "10", "30"], ["Total", "20", "10", "30"]]
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
    assert page.tables["Cost by day and model"][1:] == [
        *(["20 Nov 2026", "unknown", "unknown"], ["21 Nov 2026", "unknown", "unknown"]),
        ["Total", "unknown", "unknown"],
    ]
    assert "No price is known." in page.words
    assert "$" not in "".join(page.words)


def test_a_day_with_an_unknown_price_is_marked_in_the_chart():
    page = page_of([row(), row(call="2", cost_usd=None), row(call="3", at=NOON - DAY)])

    cost = re.search('<svg class="plot".*?</svg>', page, re.DOTALL)[0]
    yesterday, today = re.findall(r"<g>\s*<title>(.*?)</title>(.*?)</g>", cost, re.DOTALL)
    assert yesterday[0].split("\n") == ["20 Nov 2026: $0.50", "m: $0.50"]
    assert today[0].split("\n") == ["21 Nov 2026: $0.50 + unknown", "m: $0.50 + unknown"]
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
    assert ("rows from 20 Nov 2026, 12:00 UTC · " in "".join(page.words)) is bool(limits)


@pytest.mark.parametrize(
    ("days", "unit", "columns"),
    [(0, "day", 1), (119, "day", 120), (120, "week", 18), (400, "week", 58), (1000, "month", 34)],
)
def test_columns_are_for_days_weeks_or_months(days, unit, columns):
    page = seen([row(at=NOON - days * DAY), row(call="2")])

    lines = page.tables[f"Cost by {unit} and model"]
    assert len(lines) == columns + 2
    assert sum(float(line[-1].strip("$")) for line in lines[1:-1] if line[-1].startswith("$")) == 1.0


def test_the_page_needs_nothing_else():
    page = page_of(some(500, 60))

    assert "default-src 'none'" in page
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


def test_a_hundred_thousand_rows_take_seconds():
    usual = some(1000, 90)
    rows = [dataclasses.replace(usual[n % 1000], call=str(n)) for n in range(100_000)]

    start = time.monotonic()
    page = page_of(rows)

    assert time.monotonic() - start < 30
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
        ("cost-t", [row(cost_usd=7000.0)], ["USD", "$0", "$2k", "$4k", "$6k", "$8k", "21 Nov", "day (UTC)"]),
        ("cost-t", [row(cost_usd=0.4)], ["USD", "$0.00", "$0.10", "$0.20", "$0.30", "$0.40", "21 Nov", "day (UTC)"]),
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

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MEASURE = """<script>addEventListener("load", () => {
  const wide = [...document.querySelectorAll("main *")].filter(one =>
    !one.closest(".scroll") && !one.closest("caption") && one.getBoundingClientRect().right > innerWidth + 0.5);
  const marks = [...document.querySelectorAll("svg g rect, svg g circle")].filter(one =>
    !one.classList.contains("hit") && one.getBoundingClientRect().width > 0 && one.getBoundingClientRect().height > 0);
  parent.document.title = ["MEASURED", innerWidth, document.documentElement.scrollWidth, wide.length, marks.length,
    performance.getEntriesByType("resource").length, getComputedStyle(document.body).backgroundColor].join("|");
})</script>"""


@pytest.fixture
def browse(tmp_path):
    """Show a page in Chromium; give what it has on its console, and the document as it stands."""
    if BROWSER is None:
        pytest.skip("Chromium is not installed, so the page is not looked at in a browser")

    def browse(page, *, dark=False):
        file = tmp_path / "page.html"
        file.write_text(page, encoding="utf-8")
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        options += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,800", "--no-first-run"]
        options += ["--enable-logging=stderr", "--v=0", f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
        done = subprocess.run(
            [BROWSER, *options, "--dump-dom", file.as_uri()], capture_output=True, timeout=90, check=True
        )
        console = [line for line in done.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]
        return console, done.stdout.decode()

    return browse


def measured(page, *, width=360):
    """A page that has *page* in a frame, as no window is as narrow as a phone, with a script that measures it."""
    page = re.sub(r"<meta http-equiv=[^>]*>", "", page)  # it would forbid the script
    page = page.replace("<details>", "<details open>").replace("</body>", f"{MEASURE}</body>")
    return f'<!DOCTYPE html><title></title><iframe width="{width}" height="800" srcdoc="{html.escape(page)}"></iframe>'


def found(document):
    return html.unescape(re.search("MEASURED[^<]*", document)[0]).split("|")[1:]


@pytest.mark.parametrize("rows", [some(800, 60), some(300, 400), [row()], [row(asked=EVIL + "W" * 99)], []], ids=len)
def test_a_phone_shows_it_without_scrolling_sideways(browse, rows):
    page = page_of(rows)

    console, document = browse(measured(page))

    inner, scroll, wide, marks, loaded, _ = found(document)
    assert console == []
    assert inner == "360"
    assert (scroll, wide, loaded) == ("360", "0", "0")
    assert int(marks) >= min(len(rows), 100)


def test_a_browser_has_nothing_to_complain_about(browse):
    rows = [*some(800, 60), row(asked=EVIL, cost_usd=99.0)]

    console, document = browse(page_of(rows))

    assert console == []
    assert document.count('role="img"') == 5
    assert document.count("<rect") > 300
    assert "<script" not in document


def test_the_page_is_dark_where_the_system_is(browse):
    page = measured(page_of([row()]))

    colours = [found(browse(page, dark=dark)[1])[-1] for dark in (False, True)]

    assert colours == ["rgb(244, 246, 248)", "rgb(14, 18, 23)"]
