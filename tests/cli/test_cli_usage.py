"""`llmkit usage`, as a user has it, and the sums below it."""

from __future__ import annotations

import csv
import io
import json
import sys
import time
from types import SimpleNamespace
from unittest import mock

import commands
import pytest
from ledgers import DAY, NOON, failed, row, summed
from server import Answer, Status

import llmkit
from llmkit import InvalidRequestError, Ledger, Retry
from llmkit.money import report
from llmkit.testing import ScriptedBackend, reply

MODULE = [sys.executable, "-m", "llmkit"]
PRICED = llmkit.Usage(prompt_tokens=10, completion_tokens=4, cached_tokens=3, total_tokens=14, cost_usd=0.25)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run `llmkit usage ARGS` with folders of its own; other variables of the environment can be given."""
    return commands.usage_in(tmp_path, monkeypatch)


@pytest.fixture
def ledger(run, tmp_path):
    """The ledger that the command reads."""
    return Ledger(tmp_path / "data" / "llmkit.db")


def asked(ledger, model, *script, **options):
    llmkit.ask("hi", model=model, ledger=ledger, backend=ScriptedBackend(*script), **options)


def fill(ledger, server):
    """Three calls of five attempts, of which two failed: a priced model with tags, and one without a price."""
    asked(ledger, "openai/gpt-4o", reply(usage=PRICED), tags=["night", "batch"])
    asked(ledger, "openai/nobody-knows", reply())
    server.script = [Status(500), Status(429), Answer()]
    now = Retry(tries=3, delay_s=0.0, jitter=False)
    there = {"api_base": f"{server.url}/v1", "api_key": "sk-of-the-tests", "retry": now}
    llmkit.ask("hi", model="openai/gpt-4o", ledger=ledger, tags=["night"], **there)
    ledger.flush()


def at(moment):
    """Let the ledger's clock stand."""
    return mock.patch("llmkit.money.ledger.time", SimpleNamespace(time=lambda: moment))


def cells(done):
    return [line.split() for line in done.stdout.splitlines()]


# -- the command ------------------------------------------------------------------------------------------------------


def test_a_line_for_each_model_and_the_total_last(run, ledger, server):
    fill(ledger, server)

    done = run()

    head, *lines = cells(done)
    assert " ".join(head) == "model calls attempts errors prompt completion cached usd unpriced p50_s p95_s"
    paid = 0.25 + (11 * 2.5 + 5 * 10) / 1e6
    assert [line[:9] for line in lines] == [
        ["openai/gpt-4o", "2", "4", "2", "21", "9", "3", f"{paid:.6f}", "0"],
        ["openai/nobody-knows", "1", "1", "0", "1", "1", "0", "?", "1"],
        ["total", "3", "5", "2", "22", "10", "3", f"{paid:.6f}", "1"],
    ]
    assert all(float(value) >= 0 for line in (lines[0], lines[2]) for value in line[9:])
    assert done.stderr == ""


def test_groups_of_two_names_have_two_columns(run, ledger, server):
    fill(ledger, server)

    lines = json.loads(run("--by", "tag,status", "--json").stdout)

    assert [(line["tag"], line["status"], line["attempts"]) for line in lines] == [
        ("", "ok", 1),
        ("batch", "ok", 1),
        ("night", "InternalServerError", 1),
        ("night", "RateLimitError", 1),
        ("night", "ok", 2),
    ]
    assert [line[:2] for line in cells(run("--by", "tag,status"))][1] == ["-", "ok"]


def test_json_and_csv_say_the_same_with_unknown_prices_left_open(run, ledger, server):
    fill(ledger, server)

    known, unknown = json.loads(run("--json").stdout)
    text = run("--csv").stdout

    assert list(known) == [
        *("model", "calls", "attempts", "errors", "prompt_tokens", "completion_tokens", "cached_tokens"),
        *("cost_usd", "unpriced", "p50_s", "p95_s", "possibly_usd"),
    ]
    assert known["cost_usd"] == pytest.approx(0.25 + (11 * 2.5 + 5 * 10) / 1e6)
    assert (unknown["model"], unknown["cost_usd"], unknown["unpriced"]) == ("openai/nobody-knows", None, 1)
    assert text.endswith("\r\n")
    assert text.count("\n") == text.count("\r\n") == 3
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    for line, same in zip(read, (known, unknown), strict=True):
        assert line == {key: "" if value is None else str(value) for key, value in same.items()}


def test_one_line_of_all_and_its_total_as_json(run, ledger, server):
    fill(ledger, server)

    (line,) = json.loads(run("--by", "", "--json").stdout)

    assert (line["calls"], line["attempts"], line["unpriced"]) == (3, 5, 1)
    assert cells(run("--by", ""))[1:][0][:2] == ["3", "5"]


def test_a_key_is_data(run, ledger):
    name = 'a,"b"\n\x1b[31mé'
    ledger.increment_usage(0.1, name)
    ledger.flush()

    assert json.loads(run("--json").stdout)[0]["model"] == name
    assert list(csv.reader(io.StringIO(run("--csv").stdout, newline="")))[1][0] == 'a,"b"??[31mé'
    assert cells(run())[1][0] == 'a,"b"??[31mé'


def test_bars_are_as_long_as_the_cost_and_have_no_escapes(run, ledger):
    for model, price in (("a", 1.0), ("b", 0.5), ("c", 0.0001), ("d", 0.0), ("e", 0.03)):
        ledger.increment_usage(price, model)
    ledger.flush()

    done = run("--plot")

    bars = {line[0]: line[11:] for line in cells(done)[1:]}
    assert bars == {"a": ["█" * 20], "b": ["█" * 10], "c": ["▏"], "d": [], "e": ["▋"], "total": []}
    assert "\x1b" not in done.stdout
    assert "█" not in run().stdout


def test_only_what_is_between_two_moments_is_counted(run, ledger):
    now = time.time()
    for hours in (50, 30, 1):
        with at(now - hours * 3600):
            ledger.increment_usage(float(hours), f"{hours}h")
    ledger.flush()

    def models(*args):
        return [line["model"] for line in json.loads(run("--json", *args).stdout)]

    assert models() == ["1h", "30h", "50h"]
    assert models("--since", "2d") == ["1h", "30h"]
    assert models("--since", "2d", "--until", "24h") == ["30h"]
    assert models("--until", "120m") == ["30h", "50h"]
    assert models("--since", time.strftime("%Y-%m-%d", time.gmtime(now - 50 * 3600))) == ["1h", "30h", "50h"]
    assert models("--until", time.strftime("%Y-%m-%d", time.gmtime(now - 50 * 3600))) == []
    assert models("--since", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - 7200))) == ["1h"]
    assert run("--since", "1m").stderr == "nothing in the ledger for this time\n"


def test_an_empty_ledger_is_no_error(run):
    for args, out in (([], ""), (["--json"], "[]\n"), (["--plot", "--by", "day"], "")):
        done = run(*args)
        assert (done.stdout, done.stderr) == (out, "nothing in the ledger\n")
    assert run("--csv").stdout.startswith("model,calls,")


def test_old_rows_are_deleted_and_counted(run, ledger):
    with at(time.time() - 30 * DAY):
        ledger.increment_usage(1.0, "old")
        ledger.increment_usage(1.0, "old")
    ledger.increment_usage(1.0, "new")
    ledger.flush()

    assert run("prune", "--before", "40d").stdout == "0\n"
    done = run("prune", "--before", "7d")
    assert (done.stdout, done.stderr) == ("2\n", "")
    assert [row.asked for row in ledger.rows()] == ["new"]


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--by", "color"], "cannot be grouped by 'color'; there are: model, preset, day, session, tag, status"),
        (["--by", "model,color"], "cannot be grouped by 'color'"),
        (["--since", "yesterday"], "'yesterday' is no moment; it may be a date (2026-11-21), an ISO moment"),
        (["--until", "7y"], "or an age (30m, 24h, 7d, 2w)"),
        (["--since", "2026-02-30"], "'2026-02-30' is no moment"),
        (["prune", "--before", "soon"], "'soon' is no moment"),
        (["--since", "1d", "--until", "2d"], "--since 1d is not before --until 2d"),
        (["--json", "--csv"], "only one of --json, --csv and --plot"),
        (["--since", "7d", "prune", "--before", "1d"], "options of usage have no effect on prune"),
        (["--by", "day", "prune", "--before", "1d"], "options of usage have no effect on prune"),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_is_possible(run, args, told):
    done = run(*args, code=2)

    assert done.stdout == ""
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_prune_wants_a_moment(run):
    assert "--before" in run("prune", code=2).stderr


@pytest.mark.parametrize("args", [[], ["--apply"], ["--prices", "old.yaml", "--since", "7d"]])
def test_reprice_says_that_it_went(run, args):
    done = run("reprice", *args, code=2)

    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    assert "`llmkit usage reprice` went" in done.stderr


# -- the sums ---------------------------------------------------------------------------------------------------------


def test_attempts_of_a_call_are_one_call_and_interrupted_answers_are_no_errors(store):
    rows = [failed(call="1"), row(call="1", attempt=2), row(call="2", status="interrupted")]

    first, total = summed(store, rows, ("model",))

    assert (first.key, total.key) == (("m",), ())
    assert (first.calls, first.attempts, first.errors) == (2, 3, 1)
    assert (first.prompt_tokens, first.completion_tokens, first.cached_tokens) == (20, 10, 4)
    assert summed(store, rows, ("status",))[:-1] == [
        *summed(store, rows[:1], ("status",))[:1],
        *summed(store, rows[2:], ("status",))[:1],
        *summed(store, rows[1:2], ("status",))[:1],
    ]


def test_prices_that_are_not_known_are_counted_and_never_zero(store):
    unpriced = {"cost_usd": None, "source": "unpriced"}
    rows = [row(asked="a"), row(asked="a", **unpriced), row(asked="b", **unpriced), failed(asked="c")]
    rows += [row(asked="d", cost_usd=0.0)]

    *groups, total = summed(store, rows, ("model",))

    assert [(line.cost_usd, line.unpriced) for line in groups] == [(0.5, 1), (None, 1), (0.0, 0), (0.0, 0)]
    assert (total.cost_usd, total.unpriced) == (0.5, 2)
    assert [line.split()[7] for line in report.as_text([*groups, total], ("model",)).splitlines()[1:]] == [
        *("0.500000", "?", "0.000000", "0.000000", "0.500000")
    ]


def test_cents_do_not_get_lost(store):
    assert summed(store, [row(cost_usd=0.1)] * 10, ())[-1].cost_usd == 1.0


@pytest.mark.parametrize(
    ("latencies", "p50", "p95"),
    [
        ([], None, None),
        ([None], None, None),
        ([3.0], 3.0, 3.0),
        ([2.0, 1.0], 1.5, 1.95),
        ([None, *map(float, range(100, -1, -1))], 50.0, 95.0),
        ([1.0, 2.0, 3.0, 4.0, 5.0], 3.0, 4.8),
    ],
)
def test_percentiles_are_interpolated_over_the_attempts_that_have_a_latency(store, latencies, p50, p95):
    line = summed(store, [row(latency_s=latency) for latency in latencies], ())[-1]

    assert (line.p50_s, line.p95_s) == (p50 and pytest.approx(p50), p95 and pytest.approx(p95))


def test_a_row_with_two_tags_is_in_both_groups_and_once_in_the_total(store):
    rows = [row(call="1", tags=("b", "a", "b")), row(call="2", tags=("a",)), row(call="3")]

    lines = summed(store, rows, ["tag"])

    assert [(line.key, line.calls, line.cost_usd) for line in lines] == [
        (("",), 1, 0.5),
        (("a",), 2, 1.0),
        (("b",), 1, 0.5),
        ((), 3, 1.5),
    ]


def test_days_are_those_of_utc(store, monkeypatch):
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    midnight = NOON + DAY / 2
    try:
        lines = summed(store, [row(at=midnight), row(at=midnight - 0.001), row(at=NOON - DAY / 2)], ("day",))
        assert report.moment("2026-11-22", now=0) == midnight
    finally:
        monkeypatch.undo()
        time.tzset()

    assert [(line.key, line.attempts) for line in lines] == [(("2026-11-21",), 2), (("2026-11-22",), 1), ((), 3)]


def test_rows_of_no_preset_or_session_have_an_empty_key(store):
    rows = [row(), row(preset="p", session="s"), row(preset="p", session="")]

    *groups, _ = summed(store, rows, ("preset", "session"))

    assert [line.key for line in groups] == [("", ""), ("p", ""), ("p", "s")]


def test_no_rows_have_a_total_of_nothing(store):
    (total,) = summed(store, [], ("model",))

    assert (total.calls, total.cost_usd, total.unpriced, total.p95_s) == (0, 0.0, 0, None)


def test_rows_are_grouped_by_known_names_only():
    assert report.grouping(" model , day,model,") == ("model", "day")
    assert report.grouping("") == ()
    with pytest.raises(InvalidRequestError, match="there are: model, preset, day, session, tag, status"):
        report.grouping("models")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-21", NOON - DAY / 2),
        ("2026-11-21T12:00", NOON),
        ("2026-11-21T12:00:00Z", NOON),
        ("2026-11-21 13:00:00+01:00", NOON),
        ("30m", NOON - 1800),
        ("24h", NOON - DAY),
        (" 7d ", NOON - 7 * DAY),
        ("2w", NOON - 14 * DAY),
        ("999999w", NOON - 999999 * 7 * DAY),
    ],
)
def test_moments(text, seconds):
    assert report.moment(text, now=NOON) == seconds


@pytest.mark.parametrize(
    "text", ["", "d", "-1d", "1.5h", "7 days", "9999999d", "2026-13-01", "12:00", "\u0667d", "now"]
)
def test_what_is_no_moment(text):
    with pytest.raises(InvalidRequestError, match="is no moment"):
        report.moment(text, now=NOON)
