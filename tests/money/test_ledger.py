"""The ledger: a row for each attempt, in all forms of a call, and none that is lost or doubled."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time

import pytest
from databases import LONG, SQLITE_OR_BOTH
from server import Answer, Drop, Raw, ScriptedServer, Status, auntil

import llmkit
from llmkit import LLM, ApiBackend, ChatModel, Config, Deployment, Ledger, MultiAIClient, Retry, StoreError
from llmkit.errors import IncompleteStreamError
from llmkit.presets import Preset
from llmkit.testing import ScriptedBackend, reply

KEY = "sk-of-the-tests"
NOW = Retry(tries=3, delay_s=0.0, jitter=False)


@pytest.fixture
def ledger(store):
    """A ledger in SQLite and in PostgreSQL."""
    return Ledger(store)


def at(server, **options):
    return {"model": "openai/gpt-4o", "api_base": f"{server.url}/v1", "api_key": KEY, "retry": NOW, **options}


def seen(ledger):
    return [(row.status, row.attempt, row.prompt_tokens, row.completion_tokens) for row in ledger.rows()]


def test_a_row_tells_who_was_asked_what_it_used_and_what_it_cost(call, ledger, server):
    before = time.time()

    call(llmkit, "ask", "hi", **at(server, ledger=ledger, tags=["night", "batch"]))

    (row,) = ledger.rows()
    assert (row.asked, row.answered, row.deployment) == ("openai/gpt-4o", "gpt-4o", "openai/gpt-4o")
    assert (row.status, row.attempt, row.kind, row.tags) == ("ok", 1, "chat", ("night", "batch"))
    assert (row.prompt_tokens, row.completion_tokens, row.cached_tokens) == (11, 5, 0)
    assert (row.source, row.price_source) == ("priced", "litellm")
    assert row.cost_usd == pytest.approx((11 * 2.5 + 5 * 10) / 1e6)
    assert before <= row.at <= time.time()
    assert row.latency_s > 0
    assert row.request_id == "chatcmpl-1"
    assert row.first_token_s is None
    assert ledger.get_usage() == row.cost_usd


def test_each_attempt_is_a_row_of_the_same_call(call, ledger, server):
    server.script = [Status(429), Drop(), Answer()]

    call(llmkit, "ask", "hi", **at(server, ledger=ledger))

    rows = ledger.rows()
    assert [(row.status, row.attempt) for row in rows] == [("RateLimitError", 1), ("APIConnectionError", 2), ("ok", 3)]
    assert len({row.call for row in rows}) == 1
    assert [row.cost_usd is None for row in rows] == [True, True, False]


def test_a_call_that_fails_has_its_attempts_too(call, ledger, server):
    server.script = [Status(500)] * 3

    with pytest.raises(llmkit.InternalServerError):
        call(llmkit, "ask", "hi", **at(server, ledger=ledger))

    assert [status for status, *_ in seen(ledger)] == ["InternalServerError"] * 3
    assert ledger.get_usage() == 0


def test_streams_are_rows_when_they_end_are_left_or_are_cut(read, ledger, server):
    read(llmkit, "stream", "hi", **at(server, ledger=ledger))
    read(llmkit, "stream", "hi", most=2, **at(server, ledger=ledger))
    server.script = [Answer("one two three", end="eof")]
    with pytest.raises(llmkit.IncompleteStreamError):
        read(llmkit, "stream", "hi", **at(server, ledger=ledger))

    rows = ledger.rows()
    assert [row.status for row in rows] == ["ok", "interrupted", "interrupted"]
    assert [row.source for row in rows] == ["priced", "estimated", "estimated"]
    assert all(0 < row.first_token_s <= row.latency_s for row in rows)


def test_preset_and_session_stand_in_the_row(call, store, server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "here.yaml").write_text(f"model: openai/gpt-4o\nparams: {{api_base: '{server.url}/v1'}}\n")
    ledger = Ledger(store)

    chat = ChatModel("here", store=store)
    chat.add_messages([{"role": "user", "content": "hi"}])
    call(chat, "run")
    silent = ChatModel("here", store=store, ledger=False)
    silent.add_messages([{"role": "user", "content": "hi"}])
    call(silent, "run")
    call(ApiBackend(Config(config={"model": {"default_preset": "here"}}), ledger=ledger), "ask", "hi")

    for _ in range(50):  # the session has a ledger of its own, which writes within its window
        rows = ledger.rows()
        if len(rows) == 2:
            break
        time.sleep(0.05)
    assert [row.preset for row in rows] == ["here", "here"]
    assert chat.session_uuid in {row.session for row in rows}
    assert silent.session_uuid not in {row.session for row in rows}


def test_a_client_notes_every_kind_of_call_with_its_logical_name(call, read, ledger, server):
    client = MultiAIClient(
        {
            "first": Deployment("first", "openai", "gpt-4o", KEY, f"{server.url}/v1"),
            "second": Deployment(
                "second", "openai", "it", KEY, f"{server.url}/v1", price=llmkit.Price(prompt=1.0, completion=2.0)
            ),
        },
        fallbacks={"first": ["second"]},
        ledger=ledger,
    )
    server.script = [Status(503), Answer()]

    call(client, "invoke", "hi", "first")
    read(client, "stream", "hi", "second", tags=["x"])

    rows = ledger.rows()
    assert [(row.asked, row.status, row.attempt) for row in rows] == [
        ("first", "ServiceUnavailableError", 1),
        ("second", "ok", 2),
        ("second", "ok", 1),
    ]
    assert (rows[1].price_source, rows[1].cost_usd) == ("deployment", 21.0)
    assert rows[2].tags == ("x",)


def test_prices_that_are_unknown_and_counts_that_are_missing_are_marked(call, ledger, server):
    server.script = [Answer(usage=None), Answer()]

    call(llmkit, "ask", "hi", **at(server, ledger=ledger))
    call(llmkit, "ask", "hi", **at(server, ledger=ledger, model="openai/nobody-knows"))

    assert [(row.source, row.cost_usd is None, row.price_source) for row in ledger.rows()] == [
        ("estimated", False, "litellm"),
        ("unpriced", True, None),
    ]


def test_nothing_of_what_was_said_stands_in_the_ledger(call, tmp_path, server):
    ledger = Ledger(tmp_path / "l.db")
    server.script = [Answer("an answer nobody may read"), Status(401)]

    call(llmkit, "ask", "a question nobody may read", **at(server, ledger=ledger))
    with pytest.raises(llmkit.AuthenticationError):
        call(llmkit, "ask", "a question nobody may read", **at(server, ledger=ledger))

    ledger.flush()
    data = b"".join(path.read_bytes() for path in tmp_path.glob("l.db*"))
    assert b"nobody may read" not in data
    assert KEY.encode() not in data


def test_it_can_be_given_to_a_client_as_its_callbacks(call, ledger):
    backend = ScriptedBackend(*[reply("x", usage=llmkit.Usage(prompt_tokens=1, total_tokens=1, cost_usd=0.4))] * 3)
    client = MultiAIClient(
        {"m": Deployment("m", "openai", api_key=KEY)},
        increment_usage=ledger.increment_usage,
        get_usage=ledger.get_usage,
        max_usage=0.7,
        backend=backend,
    )

    call(client, "invoke", "1", "m")
    call(client, "invoke", "2", "m")
    with pytest.raises(llmkit.BudgetExceededError):
        call(client, "invoke", "3", "m")

    assert ledger.get_usage() == pytest.approx(0.8)
    assert [row.price_source for row in ledger.rows()] == ["caller", "caller"]


def test_a_store_that_cannot_be_written_costs_no_answer_and_is_tried_again(call, tmp_path, server, caplog):
    (tmp_path / "blocked").mkdir()
    ledger = Ledger(tmp_path / "blocked")

    assert call(llmkit, "ask", "hi", **at(server, ledger=ledger)).text == "Hello from the server."
    with pytest.raises(StoreError):
        ledger.flush()
    (tmp_path / "blocked").rmdir()
    assert len(ledger.rows()) == 1

    durable = Ledger(tmp_path, durable=True)
    assert call(llmkit, "ask", "hi", **at(server, ledger=durable)).text == "Hello from the server."
    durable._batch._items.clear()


def test_a_call_that_is_cancelled_has_a_row(ledger, server):
    server.script = [Answer(delay_s=5)]

    async def main():
        task = asyncio.create_task(llmkit.aask("hi", **at(server, ledger=ledger)))
        await auntil(lambda: server.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())

    assert seen(ledger) == [("cancelled", 1, None, None)]


def test_old_rows_are_pruned(call, ledger, server):
    call(llmkit, "ask", "1", **at(server, ledger=ledger))
    moment = time.time()
    call(llmkit, "ask", "2", **at(server, ledger=ledger))

    assert ledger.prune(moment) == 1
    assert len(ledger.rows()) == 1
    assert ledger.rows(since=moment)
    assert ledger.rows(until=moment) == []


@pytest.mark.parametrize("tags", ["night", [1], [None]])
def test_tags_are_texts(call, tags):
    with pytest.raises(llmkit.InvalidRequestError, match="tags must be a list of texts"):
        call(llmkit, "ask", "hi", model="openai/x", tags=tags, backend=ScriptedBackend())


# -- nothing lost, nothing double -------------------------------------------------------------------------------------

ENDING = """
import os, sys, time
import llmkit
from llmkit import Ledger
from llmkit.testing import ScriptedBackend
ledger = Ledger(sys.argv[1], durable=sys.argv[2] == "durable")
model = ScriptedBackend(*["ok"] * 10)
for _ in range(10):
    llmkit.ask("hi", model="openai/gpt-4o", ledger=ledger, backend=model)
print("done", flush=True)
if sys.argv[3] == "kill":
    time.sleep(float(sys.argv[4]))
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize(
    ("mode", "end", "wait", "kept"),
    [("window", "usual", 0, 10), ("window", "kill", 1.0, 10), ("durable", "kill", 0, 10)],
)
def test_a_process_that_ends_loses_no_row(tmp_path, mode, end, wait, kept):
    file = tmp_path / "l.db"

    done = subprocess.run([sys.executable, "-c", ENDING, str(file), mode, end, str(wait)], check=False)

    assert done.returncode == (-signal.SIGKILL if end == "kill" else 0)
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT count(*) FROM llmkit_ledger").fetchone() == (kept,)
    connection.close()


def test_a_forked_child_writes_its_own_rows_only(tmp_path):
    code = f"""
import os, llmkit
from llmkit import Ledger
from llmkit.testing import ScriptedBackend
ledger = Ledger({str(tmp_path / "l.db")!r})
llmkit.ask("hi", model="openai/gpt-4o", ledger=ledger, backend=ScriptedBackend("ok"))
child = os.fork()
llmkit.ask("hi", model="openai/gpt-4o", ledger=ledger, backend=ScriptedBackend("ok"))
if child:
    os.waitpid(child, 0)
    print(len(ledger.rows()))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "3\n"


class Tally:
    """A provider that fails now and then, and counts what it was asked and what it answered."""

    def __init__(self):
        self.of = dict.fromkeys(("requests", "answers", "prompt", "completion", "left", "cut", "Status", "Drop"), 0)
        self._lock = threading.Lock()

    def play(self, body):
        with self._lock:
            self.of["requests"] += 1
            number = self.of["requests"]
            faults = ((7, 3, Status(429)), (11, 5, Status(500)), (13, 6, Drop()))
            for every, at, fault in faults:
                if number % every == at:
                    self.of[fault.__class__.__name__] += 1
                    return fault
            if body.get("user") == "left":
                self.of["left"] += 1
                return Answer()
            if number % 17 == 9 and body.get("stream"):
                self.of["cut"] += 1
                return Answer("the stream is cut", end="reset", usage=None)
            usage = {"prompt_tokens": number % 50 + 1, "completion_tokens": number % 9 + 1, "total_tokens": 0}
            self.of["answers"] += 1
            self.of["prompt"] += usage["prompt_tokens"]
            self.of["completion"] += usage["completion_tokens"]
            return Answer(usage=usage)


@SQLITE_OR_BOTH
def test_the_ledger_equals_the_servers_own_tally(ledger, tmp_path):
    """All forms, mixed over threads and loops, with faults; the long form has 5,000 calls."""
    calls = 5000 if LONG else 140
    tally = Tally()
    with ScriptedServer(*[tally.play] * calls * 6) as server:
        options = at(server, ledger=ledger, retry=Retry(tries=9, delay_s=0.0, jitter=False))
        client = MultiAIClient(
            {"m": Deployment("m", "openai", "gpt-4o", KEY, f"{server.url}/v1")}, retry=options["retry"], ledger=ledger
        )
        forms = (
            lambda: llmkit.ask("hi", **options),
            lambda: list(llmkit.stream("hi", **options)),
            lambda: asyncio.run(several(options)),
            lambda: client.invoke("hi", "m"),
            lambda: list(client.stream("hi", "m")),
            lambda: said_in_session(tmp_path, server, ledger, stream=False),
            lambda: said_in_session(tmp_path, server, ledger, stream=True),
            lambda: LLM("m", client=client).run("hi"),
            lambda: list(LLM("m", client=client).run_stream("hi")),
            lambda: left(options),
            lambda: refused(options),
        )

        def work(first):
            for number in range(first, calls, 4):
                with contextlib.suppress(IncompleteStreamError):
                    forms[number % len(forms)]()

        threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    rows = [row for row in ledger.rows() if row.asked != "openai/nobody-there"]
    answers = [row for row in rows if row.status == "ok"]
    interrupted = [row for row in rows if row.status == "interrupted"]
    assert len(rows) == tally.of["requests"]
    assert len(answers) == tally.of["answers"]
    assert len(interrupted) == tally.of["left"] + tally.of["cut"]
    assert sum(row.prompt_tokens for row in answers) == tally.of["prompt"]
    assert sum(row.completion_tokens for row in answers) == tally.of["completion"]
    assert min(tally.of.values()) > 0
    assert len({(row.call, row.attempt) for row in ledger.rows()}) == len(ledger.rows())
    nobody = [row for row in ledger.rows() if row.asked == "openai/nobody-there"]
    assert {row.status for row in nobody} == {"APIConnectionError"}
    assert len(nobody) == 2 * len({row.call for row in nobody})


@pytest.mark.parametrize("name", ["id", "model", "service_tier"])
@pytest.mark.parametrize("value", [{"a": 1}, 10**30, ["m"], "\ud800"], ids=["object", "number", "list", "half"])
def test_what_is_no_text_in_an_answer_is_in_no_rows_way(call, server, store, name, value):
    choices = [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    completion = {"id": "c", "model": "m", "object": "chat.completion", "choices": choices, "usage": usage, name: value}
    server.script = [Raw(json.dumps(completion).encode()), Answer("hi")]
    ledger = Ledger(store)

    for _ in range(2):
        answer = call(
            llmkit, "ask", "q", model="openai/gpt-4o", api_base=f"{server.url}/v1", api_key=KEY, ledger=ledger
        )
        assert answer.text == "hi"
        assert answer.model.encode()
    ledger.flush()

    assert [row.status for row in ledger.rows()] == ["ok", "ok"]


@pytest.mark.parametrize("cost", [float("inf"), float("nan"), "1", None])
def test_a_cost_that_is_no_number_is_refused(sqlite, cost):
    with pytest.raises(llmkit.InvalidRequestError, match="a cost is a number of US dollars"):
        Ledger(sqlite).increment_usage(cost, "m")


def said_in_session(tmp_path, server, ledger, *, stream):
    preset = Preset(model="openai/gpt-4o", params={"api_base": f"{server.url}/v1"})
    chat = ChatModel(preset, api_key=KEY, store=tmp_path / "sessions.db", ledger=ledger)
    chat.add_messages([{"role": "user", "content": "hi"}])
    for _ in range(9):  # a failure is told, and the question stays
        answered = list(chat.run(stream=True))[-1].whole if stream else chat.run()
        if not answered.error or isinstance(answered.exception, IncompleteStreamError):
            return


def left(options):
    with llmkit.stream("hi", user="left", **options) as pieces:
        next(iter(pieces))


def refused(options):
    nowhere = {"model": "openai/nobody-there", "api_base": "http://127.0.0.1:9/v1", "retry": Retry(tries=2, delay_s=0)}
    with pytest.raises(llmkit.APIConnectionError):
        llmkit.ask("hi", **options | nowhere)


async def several(options):
    async def one():
        return [piece async for piece in llmkit.astream("hi", **options)]

    await asyncio.gather(llmkit.aask("hi", **options), one(), return_exceptions=True)
