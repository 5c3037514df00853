"""Many rows through one preset: each asked once, in order, gone on with, within its budget; in both databases."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest
from commands import program
from pydantic import BaseModel
from server import until

import llmkit
from llmkit import Budget, Budgets, Jobs, Ledger
from llmkit.core.engine import Backend
from llmkit.core.types import Usage
from llmkit.errors import (
    APIConnectionError,
    AuthenticationError,
    BadRequestError,
    BudgetExceededError,
    ConfigError,
    InvalidRequestError,
    LlmkitError,
    RateLimitError,
)
from llmkit.presets import Preset
from llmkit.testing import reply

MODEL = "openai/gpt-4o"
COST = 0.001


class Provider(Backend):
    """Answers each question with itself in capitals; `asked` is what came, `faults` the errors for questions."""

    def __init__(self, delay_s=0.0, **faults):
        self.asked, self.faults, self.delay_s = [], {key: list(errors) for key, errors in faults.items()}, delay_s
        self.now = self.most = 0
        self.sleeps = []
        self.requests = []

    async def asend(self, request):
        question = request.messages[-1]["content"]
        self.asked.append(question)
        self.requests.append(request)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(self.delay_s)
        finally:
            self.now -= 1
        if self.faults.get(question):
            raise self.faults[question].pop(0)
        usage = Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5, cost_usd=COST, source="priced")
        return reply(question.upper(), usage=usage)

    async def asleep(self, seconds):
        self.sleeps.append(seconds)

    def send(self, request):
        raise NotImplementedError

    open = aopen = send


def mapped(*args, colour="sync", **kwargs):
    """Return all results, whichever way they are asked for."""
    if colour == "sync":
        return list(llmkit.map(*args, **kwargs))

    async def main():
        return [result async for result in llmkit.amap(*args, **kwargs)]

    return asyncio.run(main())


@pytest.fixture(params=["sync", "async"])
def ask(request, store):
    def run(rows, **kwargs):
        return mapped(rows, colour=request.param, **{"model": MODEL, "store": store, **kwargs})

    return run


def test_each_row_is_answered_in_order_and_counted(ask, store):
    provider = Provider()

    results = ask([f"row {number}" for number in range(50)], backend=provider)

    assert [result.text for result in results] == [f"ROW {number}" for number in range(50)]
    assert [result.key for result in results] == list(range(1, 51))
    assert {(result.cost_usd, result.usage.total_tokens, result.error) for result in results} == {(COST, 5, None)}
    assert sorted(provider.asked) == sorted(f"row {number}" for number in range(50))
    rows = Ledger(store).rows()
    assert [row.status for row in rows] == ["ok"] * 50
    assert len({row.tags for row in rows}) == 1
    assert Jobs(store).all() == []


@pytest.mark.parametrize("at_once", [7, 24])
def test_as_many_rows_as_wanted_are_under_way(ask, at_once):
    provider = Provider(delay_s=0.02)

    ask([f"row {number}" for number in range(100)], backend=provider, at_once=at_once)

    assert provider.most == at_once


def test_equal_rows_are_asked_once(ask):
    provider = Provider()

    results = ask(["a", "b", "a", "a"], backend=provider)

    assert sorted(provider.asked) == ["a", "b"]
    assert [result.text for result in results] == ["A", "B", "A", "A"]
    assert [result.same_as for result in results] == [None, None, 1, 1]
    assert sum(result.cost_usd for result in results) == pytest.approx(2 * COST)


def test_columns_make_the_question_the_key_and_the_variables(ask):
    preset = Preset(name="translate", model=MODEL, system="Into {{ language }}.", variables={"language": None})
    provider = Provider()
    rows = [{"id": "x1", "text": "dog", "language": "French"}, {"id": "x2", "text": "cat", "language": "Greek"}]

    results = ask(
        rows, preset=preset, model=None, prompt="Translate: {{ text }}", key="id", backend=provider, at_once=1
    )

    assert [(result.key, result.text) for result in results] == [("x1", "TRANSLATE: DOG"), ("x2", "TRANSLATE: CAT")]
    assert [request.messages[0]["content"] for request in provider.requests] == ["Into French.", "Into Greek."]


class Dog(BaseModel):
    name: str


class Dogs(Provider):
    async def asend(self, request):
        await super().asend(request)
        return reply('{"name": "Rex"}')


def test_answers_fit_the_schema(ask):
    (result,) = ask(["a dog"], schema=Dog, backend=Dogs())

    assert result.parsed == Dog(name="Rex")


def test_an_error_stays_with_its_row(ask, store):
    provider = Provider(b=[BadRequestError("no such thing")] * 2)

    results = ask(["a", "b", "c"], backend=provider, job="letters")

    assert [(result.text, result.error_type) for result in results] == [
        ("A", None),
        ("", "BadRequestError"),
        ("C", None),
    ]
    assert "no such thing" in results[1].error
    again = ask(["a", "b", "c"], backend=provider, job="letters")
    assert [result.error_type for result in again] == [None, "BadRequestError", None]
    assert sorted(provider.asked) == ["a", "b", "c"]


def test_failed_rows_are_asked_again_when_wanted(ask, tmp_path):
    provider, out = Provider(b=[BadRequestError("no such thing")]), tmp_path / "out.jsonl"
    ask(["a", "b", "c"], backend=provider, out=out)

    results = ask(["a", "b", "c"], backend=provider, out=out, retry_errors=True)

    assert [result.text for result in results] == ["A", "B", "C"]
    assert sorted(provider.asked) == ["a", "b", "b", "c"]
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == ["A", "B", "C"]


def test_whoever_leaves_pays_for_what_was_under_way_and_the_rest_goes_on(store):
    provider, rows = Provider(delay_s=0.01), [f"row {number}" for number in range(60)]
    results = llmkit.map(rows, model=MODEL, store=store, backend=provider, job="rows", at_once=4)
    first = [next(results) for _ in range(3)]
    results.close()
    asked = len(provider.asked)

    rest = mapped(rows, model=MODEL, store=store, backend=provider, job="rows")

    assert asked < 60
    assert [result.number for result in first] == [1, 2, 3]
    assert [result.text for result in rest] == [row.upper() for row in rows]
    assert sorted(provider.asked) == sorted(rows)
    assert Jobs(store).get("rows").info().done == 60


def test_what_waits_for_a_place_is_not_sent_when_it_stops(store):
    class Slow(Provider):
        async def asend(self, request):
            self.delay_s = 0.5 if self.asked else 0.0
            return await super().asend(request)

    provider = Slow()
    rows = [f"row {number}" for number in range(60)]
    preset = Preset(name="p", model=MODEL, params={"max_tokens": 100})
    results = llmkit.map(rows, preset=preset, store=store, backend=provider, job="rows", at_once=16, max_usd=1)
    next(results)
    until(lambda: len(provider.asked) == 17)
    results.close()

    assert len(provider.asked) == 17
    assert [row.status for row in Ledger(store).rows()] == ["ok"] * 17
    state = Budgets(store).get(f"map:{Jobs(store).get('rows').id}")
    assert (state.settled, state.reserved, state.possibly_paid) == (pytest.approx(17 * COST), 0, 0)
    assert Jobs(store).get("rows").info().waiting == 43


def test_a_budget_of_the_job_is_never_passed_and_a_higher_one_goes_on(ask, store, tmp_path):
    # at most 100 tokens for 1e-5 USD each, and the prompt: 0.0018 USD or so a row, of which 0.001 are paid
    preset = Preset(name="p", model=MODEL, params={"max_tokens": 100})
    provider, rows = Provider(), [f"row {number}" for number in range(40)]
    given = {"preset": preset, "model": None, "backend": provider, "out": tmp_path / "out.jsonl"}

    with pytest.raises(BudgetExceededError, match="map:"):
        ask(rows, max_usd=0.02, **given)

    job = Jobs(store).get(tmp_path / "out.jsonl")
    state = Budgets(store).get(f"map:{job.id}")
    assert 10 < len(provider.asked) <= 20
    assert state.settled == pytest.approx(COST * len(provider.asked))
    assert (state.reserved, state.possibly_paid) == (0, 0)
    assert job.info().waiting == 40 - len(provider.asked)

    results = ask(rows, max_usd=1, **given)

    assert [result.text for result in results] == [row.upper() for row in rows]
    assert sorted(provider.asked) == sorted(rows)


def test_a_budget_of_others_is_kept_too(ask, store):
    Budgets(store).set(Budget(name="team", limit_usd=0))

    with pytest.raises(BudgetExceededError, match="team"):
        ask(["a"], backend=Provider(), budget="team")


def test_what_every_row_would_fail_with_ends_it(ask, store):
    provider = Provider(a=[AuthenticationError("wrong key")])

    with pytest.raises(AuthenticationError, match="wrong key"):
        ask(["a", *"bcdefghij"], backend=provider, at_once=1, job="letters")

    assert provider.asked == ["a"]
    assert Jobs(store).get("letters").info().waiting == 10


def test_a_provider_that_is_not_there_ends_it(ask, store):
    rows = [f"row {number}" for number in range(200)]
    provider = Provider(**{row: [APIConnectionError("nobody there")] * 3 for row in rows})

    with pytest.raises(APIConnectionError, match="nobody there"):
        ask(rows, backend=provider, at_once=2, job="rows", retry=1)

    info = Jobs(store).get("rows").info()
    assert info.failed < 30
    assert info.failed + info.waiting == 200


def test_a_row_that_comes_too_soon_is_asked_later(ask):
    provider = Provider(b=[RateLimitError("slow down")] * 4)

    results = ask(["a", "b", "c"], backend=provider, retry=1)

    assert [result.text for result in results] == ["A", "B", "C"]
    assert provider.asked.count("b") == 5


def test_a_bug_is_raised_and_nothing_is_lost(ask, store):
    provider = Provider(b=[RuntimeError("a bug")])

    with pytest.raises(RuntimeError, match="a bug"):
        ask(["a", "b", "c"], backend=provider, at_once=1, job="letters")

    assert [result.text for result in ask(["a", "b", "c"], backend=provider, job="letters")] == ["A", "B", "C"]
    assert provider.asked == ["a", "b", "b", "c"]


def test_somebody_else_stops_it(store):
    rows = [f"row {number}" for number in range(500)]
    results = llmkit.map(rows, model=MODEL, store=store, backend=Provider(delay_s=0.01), job="rows", at_once=2)
    next(results)

    Jobs(store).get("rows").stop()

    with pytest.raises(LlmkitError, match="stopped"):
        list(results)
    assert Jobs(store).get("rows").info().waiting > 300


def test_one_process_writes_a_job(store):
    results = llmkit.map(["a", "b"], model=MODEL, store=store, backend=Provider(), job="letters")
    with pytest.raises(InvalidRequestError, match="another process works on the job letters"):
        llmkit.map(["a", "b"], model=MODEL, store=store, backend=Provider(), job="letters")

    assert [result.text for result in results] == ["A", "B"]


def of_another_host(store, lease_s):
    """Let a process of another host have the job, and live for so long."""
    with store.database.writing() as connection:
        expires = store.database.now(connection) + lease_s
        connection.run("UPDATE llmkit_jobs SET owner = 'elsewhere:1:1', expires = ?", expires)


def test_one_that_died_on_another_host_lets_go_when_its_lease_ends(store):
    asked = llmkit.map(["a", "b"], model=MODEL, store=store, backend=Provider(), job="letters")
    assert [result.text for result in asked] == ["A", "B"]
    of_another_host(store, 1.2)

    again = llmkit.map(["a", "b"], model=MODEL, store=store, backend=Provider(), job="letters")

    assert [result.text for result in again] == ["A", "B"]


def test_one_that_lives_on_another_host_is_left_alone(store):
    list(llmkit.map(["a", "b"], model=MODEL, store=store, backend=Provider(), job="letters"))
    of_another_host(store, 20.0)
    renewing = threading.Timer(0.3, of_another_host, [store, 20.0])
    renewing.start()

    with pytest.raises(InvalidRequestError, match=r"another process works on the job letters \(elsewhere:1:1\)"):
        llmkit.map(["a", "b"], model=MODEL, store=store, backend=Provider(), job="letters")
    renewing.join()


# -- the output -------------------------------------------------------------------------------------------------------


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_name_that_begins_as_the_id_of_another_job_is_its_own(store):
    mapped(["a"], model=MODEL, job="first", store=store, backend=Provider())
    other = Jobs(store).get("first").id[:3]

    [result] = mapped(["b"], model=MODEL, job=other, store=store, backend=Provider())

    assert result.text == "B"
    assert {job.name for job in Jobs(store).all()} == {"first", other}


def test_a_job_that_was_removed_meanwhile_is_told(store):
    mapped(["a"], model=MODEL, job="a", store=store, backend=Provider())
    job = Jobs(store).get("a")
    job.remove()

    for use in (job.remove, job.retry, job.info, job.take):
        with pytest.raises(InvalidRequestError, match="removed"):
            use()


def test_who_begins_a_job_at_the_same_moment_as_another_does_not_lose_its_rows(store):
    """One of them has it; the others are told, or find it done."""
    together, ends = threading.Barrier(6), []

    def begin():
        together.wait()
        try:
            ends.append([result.text for result in llmkit.map(["a", "b"], model=MODEL, job="a", **kwargs)])
        except InvalidRequestError as error:
            ends.append(str(error))

    kwargs = {"store": store, "backend": Provider()}
    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ["A", "B"] in ends
    assert all(end == ["A", "B"] or "another process works on the job a" in end for end in ends)
    assert Jobs(store).get("a").info().done == 2


def test_the_output_has_a_line_for_each_row(ask, tmp_path):
    out = tmp_path / "out.jsonl"

    ask(["a", "b", "a"], backend=Provider(b=[BadRequestError("no")]), out=out)

    first, second, third = lines(out)
    assert (first["key"], first["text"], first["error"], first["cost_usd"]) == (1, "A", None, COST)
    assert first["usage"]["total_tokens"] == 5
    assert (second["text"], second["error_type"]) == ("", "BadRequestError")
    assert (third["text"], third["same_as"], third["cost_usd"]) == ("A", 1, 0.0)
    assert not out.with_name("out.jsonl.part").exists()


def test_a_whole_output_is_not_asked_again(ask, tmp_path):
    provider = Provider()
    ask(["a", "b"], backend=provider, out=tmp_path / "out.jsonl")

    results = ask(["a", "b"], backend=provider, out=tmp_path / "out.jsonl")

    assert [result.text for result in results] == ["A", "B"]
    assert sorted(provider.asked) == ["a", "b"]


def test_an_output_that_is_gone_is_written_anew(ask, tmp_path):
    provider, out = Provider(), tmp_path / "out.jsonl"
    ask(["a", "b"], backend=provider, out=out)
    out.unlink()

    ask(["a", "b"], backend=provider, out=out)

    assert [line["text"] for line in lines(out)] == ["A", "B"]
    assert len(provider.asked) == 2


def test_an_output_that_is_no_longer_the_jobs_is_left_alone(ask, tmp_path):
    provider, out = Provider(), tmp_path / "out.jsonl"
    ask(["a", "b"], backend=provider, out=out)
    out.write_text("mine")

    with pytest.raises(InvalidRequestError, match=r"no longer what the job wrote"):
        ask(["a", "b"], backend=provider, out=out)

    assert out.read_text() == "mine"
    out.unlink()
    ask(["a", "b"], backend=provider, out=out)
    assert len(provider.asked) == 2


def test_a_file_that_no_job_wrote_is_left_alone(ask, tmp_path):
    provider, out = Provider(), tmp_path / "out.jsonl"
    out.write_text("mine")

    with pytest.raises(InvalidRequestError, match="is not this job's"):
        ask(["a"], backend=provider, out=out)

    assert (out.read_text(), provider.asked) == ("mine", [])
    assert [result.text for result in ask(["b"], backend=provider, out=tmp_path / "other.jsonl")] == ["B"]


def test_a_part_that_the_job_did_not_begin_is_left_alone(ask, tmp_path):
    out, victim = tmp_path / "out.jsonl", tmp_path / "victim.txt"
    part = out.with_name("out.jsonl.part")
    victim.write_text("important")
    for place in (lambda: part.symlink_to(victim), lambda: part.write_text("precious")):
        place()
        with pytest.raises(InvalidRequestError, match="part exists, and is not this job's"):
            ask(["a"], backend=Provider(), out=out)
        assert part.read_text() in {"important", "precious"}
        part.unlink()
    assert victim.read_text() == "important"

    assert [result.text for result in ask(["a"], backend=Provider(), out=out)] == ["A"]


def test_a_part_is_gone_with_its_job(store, tmp_path):
    out = tmp_path / "out.jsonl"
    results = llmkit.map(["a", "b"], model=MODEL, store=store, backend=Provider(), out=out)
    next(results)
    results.close()
    assert out.with_name("out.jsonl.part").exists()

    Jobs(store).get(out).remove()

    assert list(tmp_path.glob("out*")) == []


@pytest.mark.parametrize("given", [{"budget": "taem"}, {"budget": 5}, {"max_usd": -1}, {"max_usd": "3"}])
def test_a_wrong_budget_leaves_no_job(store, given):
    with pytest.raises((ConfigError, InvalidRequestError)):
        llmkit.map(["a"], model=MODEL, store=store, backend=Provider(), job="letters", **given)

    assert Jobs(store).all() == []
    again = llmkit.map(["a"], model=MODEL, system="another", store=store, backend=Provider(), job="letters")
    assert [result.text for result in again] == ["A"]


def test_results_that_nobody_reads_hold_no_job(store):
    for name in ("letters", None):
        results = llmkit.map(["a"], model=MODEL, store=store, backend=Provider(), job=name, max_usd=1)
        del results

    assert [job.name for job in Jobs(store).all()] == ["letters"]
    assert [
        result.text for result in llmkit.map(["a"], model=MODEL, store=store, backend=Provider(), job="letters")
    ] == ["A"]
    Jobs(store).get("letters").remove()
    assert Budgets(store).all() == []


def test_results_that_are_left_in_the_middle_hold_their_job_until_it_has_ended(store):
    """What is under way is paid, and counts for the budget, before anybody else has the job."""
    Budgets(store).set(Budget(name="team", limit_usd=1))
    provider = Provider(delay_s=0.2)
    for _ in llmkit.map(list("abcdefgh"), model=MODEL, store=store, backend=provider, budget="team", at_once=4):
        break

    state = Budgets(store).get("team")
    assert Jobs(store).all() == []
    assert state.reserved == 0
    assert state.settled == pytest.approx(COST * len(provider.asked))


FORKS = """
import os, sys, llmkit
given = dict(model="openai/gpt-4o", api_key="k", api_base=sys.argv[1] + "/v1", store=sys.argv[2], at_once=2)
results = llmkit.map([f"row {number}" for number in range(20)], **given)
next(results)
for reads_on in (True, False):
    child = os.fork()
    if child == 0:
        try:
            print(len(list(results)) if reads_on else "ends")
        except llmkit.LlmkitError as error:
            print(error)
        sys.exit()
    os.waitpid(child, 0)
print(1 + len(list(results)))
"""


def test_a_fork_in_the_middle_reads_no_further_and_ends_nothing(server, database):
    done = program(FORKS, server.url, database, timeout=60)

    assert done.stdout.splitlines() == [
        "the results of a map are read by the process that began it, not by its forks",
        "ends",
        "20",
    ], done.stderr
    assert len(server.requests) == 20


def test_a_part_is_gone_with_a_job_of_another_name(store, tmp_path):
    out = tmp_path / "out.jsonl"
    (tmp_path / "letters.part").write_text("precious")
    results = llmkit.map(["a", "b"], model=MODEL, store=store, backend=Provider(), out=out, job="letters")
    next(results)
    results.close()

    Jobs(store).get("letters").remove()

    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".part"] == ["letters.part"]


def test_a_row_that_cannot_be_said_stays_with_its_error(ask):
    preset = Preset(model=MODEL, system="Half is {{ n / 2 }}.", variables={"n": None})

    results = ask(
        [{"prompt": "a", "n": 2}, {"prompt": "b", "n": "x"}, {"prompt": "c", "n": 4}], preset=preset, backend=Provider()
    )

    assert [result.text for result in results] == ["A", "", "C"]
    assert "TypeError" in str(results[1].error)


def test_a_part_with_half_a_line_goes_on(store, tmp_path):
    provider, out = Provider(delay_s=0.01), tmp_path / "out.jsonl"
    rows = [f"row {number}" for number in range(30)]
    results = llmkit.map(rows, model=MODEL, store=store, backend=provider, out=out, at_once=2)
    next(results)
    results.close()
    part = out.with_name("out.jsonl.part")
    begun = len(lines(part))
    with part.open("a") as file:
        file.write('{"key": 17, "te')

    mapped(rows, model=MODEL, store=store, backend=provider, out=out)

    assert begun > 0
    assert [line["key"] for line in lines(out)] == list(range(1, 31))
    assert sorted(provider.asked) == sorted(rows)


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_asked(ask, tmp_path):
    provider = Provider()

    with pytest.raises(ConfigError, match=r"nowhere/out\.jsonl\.part cannot be written"):
        ask(["a"], backend=provider, out=tmp_path / "nowhere" / "out.jsonl")

    assert provider.asked == []


# -- what is wrong with the input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("in.jsonl", '{"prompt": "a"}\n{"prompt": \n', "in.jsonl, line 2: this is no JSON"),
        ("in.jsonl", '{"prompt": ' + "[" * 100_000, "in.jsonl, line 1: this is no JSON"),
        ("in.csv", "id,,,text,text\n1,,,good,bad\n", "in.csv: two columns are called 'text'"),
        (
            "in.jsonl",
            '{"prompt": "a"}\n\n{"text": "b"}\n',
            "line 3: there is no column 'prompt'; there are: text",
        ),
        ("in.jsonl", '{"prompt": "a"}\n[1]\n', r"in.jsonl, line 2: a row is an object or a text, not \[1\]"),
        (
            "in.jsonl",
            '{"prompt": 5}\n',
            "line 1: the column 'prompt' must be a text or a list of messages, not 5",
        ),
        ("in.csv", "prompt,id\na,1\nb\n", "in.csv, line 3: it has fewer cells than the first line has names"),
        ("in.txt", "\n\n", "there are no rows to ask"),
        ("in.jsonl", "", "there are no rows to ask"),
        ("in.xml", "<a/>", "in.xml: a file of rows ends in .jsonl"),
        ("in.txt", b"a\n\xff\n", "in.txt is not UTF-8"),
        ("in.jsonl", None, "in.jsonl cannot be read: No such file"),
    ],
)
def test_a_wrong_row_is_told_and_nothing_is_asked(store, tmp_path, name, text, told):
    provider, file = Provider(), tmp_path / name
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(InvalidRequestError, match=told) as caught:
        mapped(file, model=MODEL, store=store, backend=provider, job="rows")

    assert "\n" not in str(caught.value)
    assert provider.asked == []
    assert Jobs(store).all() == []


def test_a_null_is_nothing_and_no_word(sqlite, tmp_path):
    provider, file = Provider(), tmp_path / "in.jsonl"
    file.write_text('{"a": "x", "b": null}\n', encoding="utf-8")

    list(llmkit.map(file, model=MODEL, prompt="{{ a }}:{{ b }}!", store=sqlite, backend=provider))

    assert provider.asked == ["x:!"]


def test_an_output_is_json_whatever_the_key_is(sqlite, tmp_path):
    out = tmp_path / "out.jsonl"
    rows = [{"prompt": "a", "id": float("nan")}, {"prompt": "b", "id": float("-inf")}]

    list(llmkit.map(rows, model=MODEL, key="id", out=out, store=sqlite, backend=Provider()))

    read = [json.loads(line, parse_constant=pytest.fail) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [line["key"] for line in read] == [None, None]


@pytest.mark.parametrize("at_once", [10_001, 10**20])
def test_more_at_once_than_a_machine_can_is_refused(sqlite, at_once):
    with pytest.raises(InvalidRequestError, match="at_once is 10000 at most"):
        llmkit.map(["a"], model=MODEL, at_once=at_once, store=sqlite, backend=Provider())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("in.txt", "a\n\nb\n"),
        ("in.jsonl", '{"prompt": "a"}\n"b"\n'),
        ("in.csv", "prompt\na\nb\n"),
        ("in.tsv", "id\tprompt\n1\ta\n2\tb\n"),
        ("in.csv", "\ufeffprompt\r\na\r\nb\r\n"),
    ],
)
def test_files_of_every_kind_are_read(sqlite, tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")

    results = mapped(str(tmp_path / name), model=MODEL, store=sqlite, backend=Provider())

    assert [result.text for result in results] == ["A", "B"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rows": ["a", "c"]}, "another input"),
        ({"rows": ["a"]}, "another input"),
        ({"model": "openai/gpt-4o-mini"}, "another preset"),
        ({"system": "be brief"}, "another system"),
        ({"temperature": 1}, "other options"),
        ({"prompt": "{{ text }}!"}, "another prompt"),
    ],
)
def test_a_job_goes_on_only_with_what_it_began_with(sqlite, changes, told):
    provider = Provider()
    given = {"rows": ["a", "b"], "model": MODEL, "store": sqlite, "backend": provider, "job": "letters"}
    mapped(given.pop("rows"), **given)

    with pytest.raises(InvalidRequestError, match=f"the job letters began with {told}"):
        mapped(changes.get("rows", ["a", "b"]), **{**given, **{k: v for k, v in changes.items() if k != "rows"}})

    assert sorted(provider.asked) == ["a", "b"]
    assert [result.text for result in mapped(["a", "b"], **given)] == ["A", "B"]


def test_a_store_that_goes_away_comes_back_with_nothing_lost(store, sql):
    provider, rows = Provider(delay_s=0.005), [f"row {number}" for number in range(100)]
    results = llmkit.map(rows, model=MODEL, store=store, backend=provider, job="rows", at_once=4)
    got = [next(results)]
    sql("ALTER TABLE llmkit_job_rows RENAME TO away")
    threading.Timer(0.6, lambda: sql("ALTER TABLE away RENAME TO llmkit_job_rows")).start()

    got += results

    assert [result.text for result in got] == [row.upper() for row in rows]
    assert sorted(provider.asked) == sorted(rows)


def test_no_secret_is_in_the_store(sqlite, tmp_path):
    mapped(["a"], model=MODEL, store=sqlite, backend=Provider(), job="letters", api_key="sk-0123456789abcdef0123")
    sqlite.close()

    assert b"0123456789abcdef" not in b"".join(path.read_bytes() for path in tmp_path.glob("llmkit.db*"))


def test_what_it_costs_is_said_before(store):
    from llmkit.jobs import opened_work

    preset = Preset(name="p", model=MODEL, params={"max_tokens": 100})
    work = opened_work(
        [f"row {n}" for n in range(30)], preset, None, None, None, Provider(), {"max_usd": 0.01, "store": store}
    )
    quote = work.quote()
    work.close()

    assert quote.rows == 30
    assert 0.03 < quote.expected_usd < quote.most_usd < 0.1
    assert (quote.left_usd, quote.refused) == (0.01, "")
