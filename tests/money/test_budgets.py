"""Budgets: what is settled and reserved is never above the limit, whatever happens to calls and processes."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import shutil
import signal
import subprocess
import sys
import time

import commands
import pytest
from databases import LONG, SQLITE_OR_BOTH
from server import Answer, Status, auntil

import llmkit
from llmkit import Budget, BudgetExceededError, Budgets, ChatModel, ConfigError, Deployment, MultiAIClient, Retry
from llmkit.store import Store
from llmkit.store.budgets import lock as locked
from llmkit.testing import ScriptedBackend, reply

KEY = "sk-of-the-tests"
MODEL = "openai/gpt-4o"


def paid(usd=0.001):
    return reply("ok", usage=llmkit.Usage(prompt_tokens=1, completion_tokens=1, total_tokens=2, cost_usd=usd))


def options(store, *script, **more):
    return {"model": MODEL, "store": store, "backend": ScriptedBackend(*script), "max_tokens": 10, **more}


def test_a_call_is_settled_to_its_real_cost(call, store):
    budget = Budget(name="team", limit_usd=1, period="total")

    call(llmkit, "ask", "hi", budget=budget, **options(store, paid(0.25)))
    call(llmkit, "ask", "hi", budget="team", **options(store, paid(0.5)))

    state = Budgets(store).get("team")
    assert (state.settled, state.reserved, state.calls, state.span) == (0.75, 0.0, 2, "total")


def test_a_call_that_could_cost_too_much_is_refused_before_it_is_sent(call, store):
    Budgets(store).set(Budget(name="team", limit_usd=0.0001))
    asked = options(store, paid())

    with pytest.raises(BudgetExceededError, match=r"budget 'team' has 0\.000100 USD left of 0\.0001") as caught:
        call(llmkit, "ask", "hi", budget="team", **asked)

    error = caught.value
    assert (error.name, error.limit, error.spent, error.reserved) == ("team", 0.0001, 0.0, 0.0)
    assert error.asked > 0.0001
    assert error.frees_at > time.time()
    assert asked["backend"].requests == []
    assert Budgets(store).get("team").reserved == 0


def test_what_fails_is_given_back(call, store):
    budget = Budget(name="team", limit_usd=1, period="total")
    error = llmkit.BadRequestError("no")

    with pytest.raises(llmkit.BadRequestError):
        call(llmkit, "ask", "hi", budget=budget, **options(store, error))

    state = Budgets(store).get("team")
    assert (state.settled, state.reserved, state.calls) == (0.0, 0.0, 0)


def test_nothing_stays_reserved_for_a_call_that_is_cancelled_while_the_store_is_busy(store, database):
    Budgets(store).set(Budget(name="team", limit_usd=1))
    asked = options(store, paid())
    ticks = []

    async def main():
        with Store(database).database.writing() as connection:  # as another process would
            locked(connection, "team")
            task = asyncio.create_task(llmkit.aask("hi", budget="team", **asked))
            for _ in range(10):
                began = time.monotonic()
                await asyncio.sleep(0.02)
                ticks.append(time.monotonic() - began)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await auntil(lambda: Budgets(store).get("team").reserved == 0)

    asyncio.run(main())
    assert sorted(ticks)[5] < 0.2  # the loop goes on meanwhile
    time.sleep(0.1)
    state = Budgets(store).get("team")
    assert (state.settled, state.reserved, state.possibly_paid) == (0, 0, 0)
    assert asked["backend"].requests == []


def test_streams_reserve_until_they_end_or_are_left(read, store):
    budget = Budget(name="team", limit_usd=1, period="total")

    read(llmkit, "stream", "hi", budget=budget, **options(store, paid(0.25)))
    read(llmkit, "stream", "hi", budget=budget, most=1, **options(store, paid(0.25)))

    state = Budgets(store).get("team")
    assert (state.reserved, state.calls) == (0.0, 2)
    assert state.settled >= 0.25


def test_several_budgets_bind_one_call_or_none(call, store):
    wide, narrow = Budget(name="wide", limit_usd=1), Budget(name="narrow", limit_usd=0.00001)

    with pytest.raises(BudgetExceededError, match="narrow"):
        call(llmkit, "ask", "hi", budget=[wide, narrow], **options(store))

    assert Budgets(store).all() == []
    call(llmkit, "ask", "hi", budget=[wide, Budget(name="other", limit_usd=2)], **options(store, paid(0.5)))
    assert [state.settled for state in Budgets(store).all()] == [0.5, 0.5]


def test_a_budget_binds_the_calls_of_its_scope_only(call, store):
    Budgets(store).set(Budget(name="night", limit_usd=0, scope={"tag": "night"}))

    call(llmkit, "ask", "hi", budget="night", tags=["day"], **options(store, paid()))
    with pytest.raises(BudgetExceededError):
        call(llmkit, "ask", "hi", budget="night", tags=["day", "night"], **options(store))


@pytest.mark.parametrize("name", ["gpt-4o", "openai:gpt-4o", "openai/gpt-4o"])
def test_a_scope_knows_a_model_by_each_of_its_names(call, store, name):
    closed = Budget(name="b", limit_usd=0, scope={"model": name})

    for model in ("gpt-4o", "openai/gpt-4o"):
        with pytest.raises(BudgetExceededError):
            call(llmkit, "ask", "hi", budget=closed, **{**options(store), "model": model})
    call(llmkit, "ask", "hi", budget=closed, **{**options(store, paid()), "model": "openai/gpt-4o-mini"})


def test_a_model_without_a_price_is_refused_unless_the_budget_allows_it(call, store):
    unknown = {"budget": Budget(name="b", limit_usd=1), **options(store), "model": "openai/nobody-knows"}
    with pytest.raises(BudgetExceededError, match="refuses this call: no price is known for openai/nobody-knows"):
        call(llmkit, "ask", "hi", **unknown)

    allowed = {**unknown, "budget": Budget(name="b", limit_usd=1, unpriced="allow")}
    answer = call(llmkit, "ask", "hi", **{**allowed, "backend": ScriptedBackend(paid(None))})

    assert "budget 'b': a call without a price was counted" in answer.warnings
    assert Budgets(store).get("b").unpriced == 1


def test_a_warning_comes_before_the_end(call, store):
    budget = Budget(name="team", limit_usd=1, warn_at=0.5)

    first = call(llmkit, "ask", "hi", budget=budget, **options(store, paid(0.4)))
    second = call(llmkit, "ask", "hi", budget=budget, **options(store, paid(0.2)))

    assert first.warnings == ()
    assert second.warnings == ("budget 'team': 0.600000 of 1 USD are used",)


def test_a_client_a_preset_and_a_session_have_budgets(call, store, database, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMKIT_DATABASE", database)
    Budgets(store).set(Budget(name="team", limit_usd=0))
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "dear.yaml").write_text(f"model: {MODEL}\nbudget: team\n")
    backend = ScriptedBackend()
    client = MultiAIClient({"m": Deployment("m", "openai", "gpt-4o", KEY)}, budget="team", backend=backend)

    for owner, name, args in ((client, "invoke", ("hi", "m")), (client, "embed", ("hi", "m"))):
        with pytest.raises(BudgetExceededError):
            call(owner, name, *args)
    with pytest.raises(BudgetExceededError):
        call(llmkit, "ask", "hi", preset="dear", backend=backend)
    chat = ChatModel("dear", store=store, backend=backend)
    chat.add_messages([{"role": "user", "content": "hi"}])
    assert isinstance(call(chat, "run").exception, BudgetExceededError)
    assert backend.requests == []


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"limit_usd": -1}, "limit_usd cannot be -1"),
        ({"limit_usd": float("nan")}, "limit_usd cannot be nan"),
        ({"limit_usd": "5"}, "limit_usd cannot be '5'"),
        ({"period": "year"}, "period cannot be 'year'"),
        ({"scope": {"colour": "red"}}, "scope cannot be"),
        ({"scope": {"user": 5}}, "scope cannot be"),
        ({"scope": {"tag": ["x"]}}, "scope cannot be"),
        ({"scope": ["x"]}, "scope cannot be"),
        ({"warn_at": 80}, "warn_at cannot be 80"),
        ({"name": " "}, "name cannot be ' '"),
        ({"zone": "Mars/Olympus"}, "there is no time zone 'Mars/Olympus'"),
        ({"unpriced": "maybe"}, "unpriced cannot be 'maybe'"),
    ],
)
def test_a_budget_that_makes_no_sense_is_refused(wrong, why):
    with pytest.raises(ConfigError) as caught:
        Budget(**{"name": "b", "limit_usd": 1, **wrong})

    assert why in str(caught.value)


def test_an_unknown_budget_names_those_that_there_are(call, store):
    Budgets(store).set(Budget(name="team", limit_usd=1))

    with pytest.raises(ConfigError, match="there is no budget 'taem'; there are: team"):
        call(llmkit, "ask", "hi", budget="taem", **options(store))
    with pytest.raises(llmkit.InvalidRequestError, match="a budget is a name or a Budget, not 5"):
        call(llmkit, "ask", "hi", budget=[5], **options(store))


@pytest.mark.parametrize(
    ("period", "zone", "moment", "span", "end"),
    [
        ("day", "UTC", "2026-11-21T23:59:59+00:00", "2026-11-21", "2026-11-22T00:00:00+00:00"),
        ("day", "Asia/Seoul", "2026-11-21T15:00:00+00:00", "2026-11-22", "2026-11-22T15:00:00+00:00"),
        ("week", "UTC", "2026-11-22T12:00:00+00:00", "2026-11-16", "2026-11-23T00:00:00+00:00"),
        ("month", "UTC", "2026-12-31T23:00:00+00:00", "2026-12-01", "2027-01-01T00:00:00+00:00"),
        ("day", "Europe/Berlin", "2026-10-25T12:00:00+00:00", "2026-10-25", "2026-10-25T23:00:00+00:00"),
        ("total", "UTC", "2026-11-21T00:00:00+00:00", "total", None),
    ],
)
def test_periods_begin_at_midnight_of_their_zone(period, zone, moment, span, end):
    at = dt.datetime.fromisoformat(moment).timestamp()

    found = Budget(name="b", limit_usd=1, period=period, zone=zone).span(at)

    assert found == (span, None if end is None else dt.datetime.fromisoformat(end).timestamp())


def test_a_changed_rule_keeps_what_was_spent_and_a_reset_forgets_it(call, store):
    call(llmkit, "ask", "hi", budget=Budget(name="b", limit_usd=1), **options(store, paid(0.5)))
    budgets = Budgets(store)

    budgets.set(Budget(name="b", limit_usd=9))
    assert (budgets.get("b").settled, budgets.get("b").budget.limit_usd) == (0.5, 9)
    budgets.reset("b")
    assert budgets.get("b").settled == 0
    budgets.remove("b")
    assert budgets.all() == []


def test_a_quote_is_never_below_the_real_cost(server, store):
    """The price of the server's own count of tokens is settled; what was reserved is at least that."""
    reserved = []

    def play(body):
        reserved.append(Budgets(store).get("b").reserved)
        return Answer(usage={"prompt_tokens": 11, "completion_tokens": body["max_tokens"], "total_tokens": 0})

    server.script = [play] * 3
    at = {"model": MODEL, "api_base": f"{server.url}/v1", "api_key": KEY, "store": store}
    for size in (1, 50, 500):
        answer = llmkit.ask("hello " * 10, budget=Budget(name="b", limit_usd=1), max_tokens=size, **at)
        assert reserved[-1] >= answer.usage.cost_usd


# -- processes that die ------------------------------------------------------------------------------------------------

WORK = """
import random, sys
import llmkit
from llmkit import Budget, BudgetExceededError
from llmkit.testing import ScriptedBackend, reply
url, seed, turns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
chance = random.Random(seed)
budget = Budget(name="team", limit_usd=float(sys.argv[4]), period="total")
for _ in range(turns):
    usage = llmkit.Usage(prompt_tokens=5, completion_tokens=5, total_tokens=10, cost_usd=chance.uniform(0, 0.0002))
    model = ScriptedBackend(reply("ok", usage=usage))
    try:
        llmkit.ask("hi", model="openai/gpt-4o", max_tokens=20, budget=budget, store=url, backend=model)
    except BudgetExceededError:
        pass
"""


def spent_by_processes_that_die(store, url, elsewhere=()):
    """8 processes, a third of them killed in the middle, each second one run by *elsewhere*; return limit and state."""
    turns = 200 if LONG else 20
    limit = turns * 0.00125  # about half of what is asked for
    Budgets(store).set(Budget(name="team", limit_usd=limit, period="total"))
    command = [sys.executable, "-c", WORK, url]
    children = [
        subprocess.Popen([*(elsewhere if number % 2 else ()), *command, str(number), str(turns * 3), str(limit)])
        for number in range(8)
    ]
    killed, deadline = list[subprocess.Popen](), time.monotonic() + 900
    while any(child.poll() is None for child in children):
        state = Budgets(store).get("team")
        assert state.settled + state.possibly_paid + state.reserved <= limit + 1e-12
        if len(killed) < 3 and state.calls > 5 * (len(killed) + 1):
            victim = next(child for child in children if child.poll() is None)
            victim.kill()
            killed += [victim] if victim.wait() == -signal.SIGKILL else []
        assert time.monotonic() < deadline, "the processes do not end"
        time.sleep(0.02)
    assert len(killed) == 3
    assert {child.returncode for child in children if child not in killed} == {0}
    return limit, Budgets(store).get("team")


@SQLITE_OR_BOTH
def test_what_processes_that_die_may_have_paid_counts_and_the_limit_holds(store, database):
    limit, state = spent_by_processes_that_die(store, database)

    assert state.reserved == 0
    assert limit * 0.95 <= state.settled + state.possibly_paid <= limit


HOST = ["unshare", "--uts", "--net", "sh", "-c", 'hostname another-host; exec "$@"', "sh"]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_two_hosts_share_a_budget(store, database, sql):
    """Half of the processes have a network and a host name of their own; whether those live is told by their lease.

    Where they cannot have that, for want of `unshare` or of root, all are on this host.
    """
    hosts = shutil.which("unshare") and not subprocess.run([*HOST, "true"], capture_output=True, check=False).returncode

    limit, state = spent_by_processes_that_die(store, database, HOST if hosts else ())

    used = state.settled + state.possibly_paid + state.reserved
    assert limit * 0.95 <= used <= limit
    sql("UPDATE llmkit_holds SET expires = 0 WHERE state = 'reserved'")
    after = Budgets(store).get("team")
    assert after.reserved == 0
    assert after.settled + after.possibly_paid == pytest.approx(used)


# -- the command line -------------------------------------------------------------------------------------------------


def run(*args, code=0):
    done = commands.run(args, text=None)
    assert done.returncode == code, done.stderr
    return done


def test_budgets_at_the_command_line(server, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("LLMKIT_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    ask = ("-m", MODEL, "--budget", "team", "-o", "max_tokens", "100", "hi")

    run("budget", "set", "team", "1", "--period", "total")
    assert run(*ask).stdout == "Hello from the server.\n"
    (shown,) = json.loads(run("budget", "list", "--json").stdout)
    assert shown["settled"] == pytest.approx((11 * 2.5 + 5 * 10) / 1e6)
    run("budget", "set", "team", "0.000001", "--period", "total")
    done = run(*ask, code=3)
    assert "budget 'team' has 0.000000 USD left" in done.stderr
    assert done.stdout == ""
    assert "team  0.000077" in run("budget", "show", "team").stdout
    run("budget", "reset", "team")
    run("budget", "remove", "team")
    assert "there is no budget 'team'; there are: none" in run("budget", "show", "team", code=2).stderr
    assert "period cannot be 'year'" in run("budget", "set", "x", "1", "--period", "year", code=2).stderr
    server.script = [Status(500)]
    assert len(server.requests) == 1


def test_a_retry_is_reserved_once(call, server, store):
    server.script = [Status(500), Answer()]
    at = {"model": MODEL, "api_base": f"{server.url}/v1", "api_key": KEY, "store": store}

    call(llmkit, "ask", "hi", budget=Budget(name="b", limit_usd=1), retry=Retry(tries=2, delay_s=0), **at)

    state = Budgets(store).get("b")
    assert (state.calls, state.reserved) == (1, 0)
