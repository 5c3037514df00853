"""LLM: what is sent, what comes back, failures as responses, jobs that are polled, streams and remote services."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import threading
import time

import commands
import pytest
from server import Answer, FunctionServer, Raw, Status, until

import llmkit
from llmkit import LLM, Budget, Deployment, InvalidRequestError, Ledger, MultiAIClient, ResponseStatus, Runs
from llmkit.testing import ScriptedBackend, reply

KEY = "sk-of-the-tests"
MODEL = "openai/gpt-4o"
HISTORY = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]


def here(*script, **settings):
    backend = ScriptedBackend(*(script or ("Hi!",)))
    return LLM(MODEL, backend=backend, **settings), backend


@pytest.fixture
def wired(server):
    """An LLM whose deployment is the scripted server."""
    client = MultiAIClient({"m": Deployment("m", "openai", "gpt-4o", KEY, f"{server.url}/v1")})
    yield LLM("m", client=client)
    client.close()


@pytest.fixture(params=["run_stream", "arun_stream"])
def stream(request):
    """Read a stream to its end in both colours; return its chunks and the stream."""

    def read(llm, *args, **kwargs):
        running = getattr(llm, request.param)(*args, **kwargs)
        if request.param == "run_stream":
            return list(running), running

        async def main():
            return [chunk async for chunk in running]

        return asyncio.run(main()), running

    return read


# -- what is sent -----------------------------------------------------------------------------------------------------


def test_context_history_and_prompt_have_their_places(call):
    llm, backend = here()

    call(llm, "run", "hi", context="S", history=HISTORY, prompt="P")

    assert backend.requests[0].messages == [
        {"role": "system", "content": "S"},
        *HISTORY,
        {"role": "user", "content": "P\nhi"},
    ]


def test_a_dict_says_the_same(call):
    llm, backend = here("1", "2")

    call(llm, "run", "hi", context="S", history=HISTORY, max_tokens=7)
    call(llm, "run", {"data": "hi", "context": "S", "history": HISTORY, "max_tokens": 7})

    assert backend.requests[0] == backend.requests[1]


def test_what_is_said_nearer_wins_and_no_dict_is_changed(call):
    llm, backend = here(*"12345", temperature=0.5)
    data, parameters = {"data": "hi", "max_tokens": 1, "top_p": 0.1}, {"max_tokens": 2, "stop": ["x"]}

    call(llm, "run", data, parameters=parameters, max_tokens=50)
    call(llm, "run", data, parameters=parameters)
    call(llm, "run", data)
    call(llm, "run", "hi", temperature=0.0)

    sent = [dict(request.params) for request in backend.requests]
    assert sent[0] == {"temperature": 0.5, "max_tokens": 50, "top_p": 0.1, "stop": ["x"]}
    assert [each["max_tokens"] for each in sent] == [50, 2, 1, 128]
    assert sent[3] == {"temperature": 0.0, "max_tokens": 128}
    assert data == {"data": "hi", "max_tokens": 1, "top_p": 0.1}
    assert parameters == {"max_tokens": 2, "stop": ["x"]}


@pytest.mark.parametrize("text", ['{"max_tokens": 1}', '"hey"', "42", __file__, "[1, 2]", "data: x"])
def test_text_is_sent_as_it_is(call, text):
    llm, backend = here()

    call(llm, "run", text)

    assert backend.requests[0].messages == [{"role": "user", "content": text}]


def test_a_preset_says_what_it_says(call, tmp_path, monkeypatch):
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "mine.yaml").write_text(f"model: {MODEL}\nsystem: S\nparams: {{temperature: 0.9}}\n")
    monkeypatch.chdir(tmp_path)
    backend = ScriptedBackend("1")

    call(LLM("mine", backend=backend), "run", "hi")

    assert dict(backend.requests[0].params) == {"temperature": 0.9}
    assert backend.requests[0].messages[0] == {"role": "system", "content": "S"}


def test_a_model_that_takes_no_temperature_gets_none_by_itself(call):
    backend = ScriptedBackend("1")

    call(LLM("openai/o3-mini", backend=backend), "run", "hi")

    assert "temperature" not in backend.requests[0].params


@pytest.mark.parametrize(
    ("data", "more", "why"),
    [
        ({"context": "S"}, {}, 'needs the key "data"'),
        (5, {}, "data must be a text, not int"),
        ({"data": ["x"]}, {}, "data must be a text, not list"),
        ("hi", {"parameters": "x"}, "parameters must be a dict"),
        ("hi", {"history": "x"}, "history must be a list"),
        ("hi", {"history": [{"role": "banana", "content": ""}]}, "banana"),
        ("hi", {"context": 3}, "context must be a text"),
    ],
)
def test_what_is_no_utterance_is_refused(call, data, more, why):
    llm, backend = here()

    with pytest.raises(InvalidRequestError, match=why):
        call(llm, "run", data, **more)
    assert backend.requests == []


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"id": ""}, "needs an id"),
        ({"id": None}, "needs an id"),
        ({"id": "m", "function": "translation"}, "translation"),
        ({"id": "openai/m", "api_base": "http://mine"}, "has the address"),
        ({"id": "openai/m", "system": "be brief"}, "as context"),
        ({"id": "m", "url": "http://mine", "budget": "b"}, "budget belong to the client"),
        ({"id": "m", "client": object(), "ledger": True}, "budget belong to the client"),
    ],
)
def test_the_constructor_says_what_is_wrong(settings, why):
    with pytest.raises(InvalidRequestError, match=why):
        LLM(**settings)


def test_attributes_are_those_of_the_document():
    llm = LLM("openai/x", "X", "d", "secret-key", "S", "2", "text-generation", True, {"p": 1}, colour="red")

    assert (llm.id, llm.name, llm.description, llm.api_key, llm.supplier) == ("openai/x", "X", "d", "secret-key", "S")
    assert (llm.version, llm.function, llm.is_subscribed, llm.cost) == ("2", "text-generation", True, {"p": 1})
    assert (llm.temperature, llm.additional_info, llm.url) == (0.001, {"colour": "red"}, None)
    assert "secret-key" not in repr(llm)


# -- what comes back --------------------------------------------------------------------------------------------------


def test_a_response_is_an_object_and_a_dict(call):
    usage = llmkit.Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5, cost_usd=0.5, source="priced")
    llm, _ = here(reply("Hi!", usage=usage, finish_reason="length"))

    r = call(llm, "run", "hi")

    assert (r.status, r.completed, r.data, str(r), r.error_message) == (ResponseStatus.SUCCESS, True, "Hi!", "Hi!", "")
    assert r["data"] == "Hi!"
    assert r["usedCredits"] == r.used_credits == 0.5
    assert r.usage.total_tokens == 5
    assert r.run_time > 0
    assert r["runTime"] == r.run_time
    assert (r.finish_reason, r.truncated) == ("length", True)
    assert "data" in r
    assert "nope" not in r
    assert r.get("nope") is None
    assert r.get("nope", 1) == 1
    with pytest.raises(KeyError):
        r["nope"]
    assert dict(r)["data"] == "Hi!"
    assert json.loads(json.dumps(r.to_dict()))["usage"]["cost_usd"] == 0.5


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (400, "validation", False),
        (401, "authentication", False),
        (402, "billing", False),
        (403, "permission", False),
        (404, "not_found", False),
        (422, "validation", False),
        (429, "rate_limit", True),
        (500, "server", True),
        (503, "server", True),
        (504, "timeout", True),
    ],
)
def test_every_refusal_is_a_response(call, wired, server, status, code, retryable):
    server.script = [Status(status, body={"error": {"message": "the server's own words"}})] * 3

    r = call(wired, "run", "hi")

    assert (r.status, r.completed, r.error_code, r.status_code) == (ResponseStatus.FAILED, True, code, status)
    assert r.retryable is retryable
    assert "the server's own words" in r.error_message
    assert isinstance(r.cause, llmkit.ProviderError)
    assert KEY not in r.error_message


def test_no_connection_and_an_answer_that_is_none_differ(call, wired, server):
    nobody = LLM("m", client=MultiAIClient({"m": Deployment("m", "openai", "x", KEY, "http://127.0.0.1:9/v1")}))
    server.script = [Raw(b"<html>no</html>")] * 3

    refused, odd = call(nobody, "run", "hi"), call(wired, "run", "hi")

    assert (refused.error_code, refused.completed) == ("connection", True)
    assert odd.status is ResponseStatus.FAILED
    assert odd.error_message != refused.error_message


def test_a_timeout_is_honest(call, wired, server):
    server.script = [Answer(delay_s=30)] * 2  # the first call may give up before it is sent, or be answered late
    call(wired, "run", "warm up", timeout=0.01)

    began = time.monotonic()
    r = call(wired, "run", "hi", timeout=0.5)

    assert 0.45 <= time.monotonic() - began < 20
    assert (r.status, r.error_code, r.completed) == (ResponseStatus.FAILED, "timeout", True)


def test_budgets_and_the_ledger_hold(call, store):
    ledger = Ledger(store)
    llm, backend = here("Hi!", ledger=ledger, store=store, budget=Budget(name="b", limit_usd=0.000001))
    r = call(llm, "run", "hi")
    assert (r.error_code, backend.requests) == ("budget", [])

    llm, backend = here("Hi!", ledger=ledger)
    call(llm, "run", "hi", name="nightly")
    assert [row.tags for row in ledger.rows()] == [("nightly",)]


def test_the_embedded_model_runs(call):
    r = call(LLM("local/smollm2"), "run", "What is the capital of France?")

    assert "Paris" in r.data
    assert (r.used_credits, r.status) == (0.0, ResponseStatus.SUCCESS)


def test_run_works_inside_of_a_running_loop():
    llm, _ = here()

    async def main():
        return llm.run("hi")

    assert asyncio.run(main()).data == "Hi!"


# -- streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_ends_with_its_status(stream):
    llm, _ = here("Grüße data: 한")

    chunks, running = stream(llm, "hi")

    assert "".join(chunk.data for chunk in chunks) == "Grüße data: 한"
    assert [chunk.status for chunk in chunks[:-1]] == [ResponseStatus.IN_PROGRESS] * (len(chunks) - 1)
    assert (chunks[-1].status, running.status) == (ResponseStatus.SUCCESS,) * 2
    assert (running.response.data, running.response.finish_reason) == ("Grüße data: 한", "stop")


def test_a_stream_that_fails_says_so_and_keeps_what_came(stream, wired, server):
    server.script = [Answer("one two three", end="reset")]
    chunks, running = stream(wired, "hi")
    assert chunks[-1].status is ResponseStatus.FAILED
    assert chunks[-1].error_message
    assert running.response.data.startswith("one")

    server.script = [Status(401)]
    chunks, running = stream(wired, "hi")
    assert [chunk.status for chunk in chunks] == [ResponseStatus.FAILED]
    assert running.response.error_code == "authentication"


def test_a_stream_that_is_left_closes_its_connection(wired, server):
    server.script = [Answer("one two three " * 50, end="slow", delay_s=0.02)]

    with wired.run_stream("hi") as running:
        next(iter(running))

    assert server.broken.wait(5)
    assert running.status is ResponseStatus.IN_PROGRESS


# -- jobs -------------------------------------------------------------------------------------------------------------


def test_a_job_begins_at_once_and_is_polled(call, wired, server, store):
    go = threading.Event()
    server.script = [lambda _: (go.wait(60), Answer("done"))[1]]
    wired._store = store

    began = time.monotonic()
    job = call(wired, "run_async", "hi", name="nightly")

    assert time.monotonic() - began < 50  # the answer does not come before it may
    assert (job.status, job.completed, job.data) == (ResponseStatus.IN_PROGRESS, False, "")
    assert call(wired, "poll", job.url).status is ResponseStatus.IN_PROGRESS
    assert Runs(store).all()[0].name == "nightly"
    go.set()
    ended = wired.sync_poll(job.url, wait_time=0.02)
    assert (ended.status, ended.data, ended.url) == (ResponseStatus.SUCCESS, "done", job.url)
    assert call(wired, "poll", job.url) == ended
    assert ended.usage.prompt_tokens > 0
    assert LLM("other", store=store).poll(job.url) == ended


def test_a_job_that_fails_says_why(call, wired, server, store):
    server.script = [Status(401, body={"error": {"message": "no such key"}})]
    wired._store = store

    ended = wired.sync_poll(call(wired, "run_async", "hi").url, wait_time=0.02)

    assert (ended.status, ended.error_code, ended.status_code) == (ResponseStatus.FAILED, "authentication", 401)
    assert "no such key" in ended.error_message


def test_waiting_for_a_job_is_honest_and_the_job_goes_on(wired, server, store):
    go = threading.Event()
    server.script = [lambda _: (go.wait(60), Answer("late"))[1]]
    wired._store = store
    job = wired.run_async("hi")

    began = time.monotonic()
    late = wired.sync_poll(job.url, timeout=0.3)

    assert 0.25 <= time.monotonic() - began < 50  # the answer does not come before it may
    go.set()
    assert (late.status, late.error_code, late.completed, late.url) == (
        ResponseStatus.FAILED,
        "timeout",
        False,
        job.url,
    )
    assert asyncio.run(wired.async_poll(job.url, wait_time=0.02)).data == "late"


def test_a_job_is_cancelled_and_so_is_its_request(wired, server, store):
    server.script = [Answer("x " * 100, delay_s=20)]
    wired._store = store
    job = wired.run_async("hi")
    until(lambda: server.requests)

    ended = wired.cancel(job.url)

    assert (ended.status, ended.error_code) == (ResponseStatus.FAILED, "cancelled")
    assert wired.poll(job.url).error_code == "cancelled"
    assert wired.cancel(job.url).error_code == "cancelled"
    until(lambda: not any(task for tasks in llmkit.runs.worker()._tasks.values() for task in tasks))


@pytest.mark.parametrize("url", ["llmkit://runs/nothing", "http://example.com/x", "nonsense", ""])
def test_what_nobody_knows_is_a_failure_that_names_it(call, store, url):
    found = call(LLM("local", store=store), "poll", url)

    assert (found.status, found.error_code) == (ResponseStatus.FAILED, "not_found")
    assert url in found.error_message


DYING = """
import faulthandler, os, sys, time
faulthandler.dump_traceback_later(45, exit=True)  # where it hangs, if it does
from llmkit import LLM
from llmkit.testing import ScriptedBackend
class Slow(ScriptedBackend):
    async def asend(self, request):
        import asyncio
        await asyncio.sleep(60)
print(LLM("openai/gpt-4o", backend=Slow(), store=sys.argv[1]).run_async("hi").url, flush=True)
if sys.argv[2] == "kill":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("end", ["kill", "usual"])
def test_a_job_whose_process_is_gone_has_failed(database, end):
    done = subprocess.run(
        [sys.executable, "-c", DYING, database, end], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""

    found = LLM("x", store=database).poll(done.stdout.strip())

    assert (found.status, found.completed, found.error_code) == (ResponseStatus.FAILED, True, "process_died")
    assert "is gone" in found.error_message


def test_many_jobs_at_once(store):
    llm, _ = here(*["Hi!"] * 40, store=store)

    jobs = [llm.run_async(f"{number}").url for number in range(40)]

    assert [llm.sync_poll(url, wait_time=0.02).data for url in jobs] == ["Hi!"] * 40
    assert len(Runs(store).all(limit=100)) == 40
    assert Runs(store).prune(time.time() + 9) == 40
    gc.collect()


# -- the catalogue ----------------------------------------------------------------------------------------------------


def test_models_are_found_and_listed():
    assert (LLM.get("local").id, LLM.get("local").description[:18]) == ("local", "The embedded model")
    assert LLM.get("openai/gpt-4o").id == "openai/gpt-4o"
    found = LLM.list(query="scaleway")
    assert found["total"] == len(found["results"]) >= 5
    assert {each.id.partition("-")[0] for each in found["results"]} == {"scaleway"}
    assert LLM.list(page_size=2)["page_total"] > 3
    with pytest.raises(llmkit.UnknownPresetError, match="nothing"):
        LLM.get("nothing")


# -- a remote service -------------------------------------------------------------------------------------------------


class Service(FunctionServer):
    """A service of the polled shape: each path has its answers, the last one for ever."""

    def __init__(self, **answers):
        self.answers = answers
        super().__init__(self.play)

    @property
    def url(self):
        return self.address

    def play(self, path, _):
        script = self.answers[path.partition("?")[0].rpartition("/")[2]]
        status, body, *kind = script.pop(0) if len(script) > 1 else script[0]
        return (
            status,
            body if isinstance(body, bytes) else json.loads(json.dumps(body).replace("$URL", self.url)),
            *kind,
        )

    def llm(self, **settings):
        return LLM("m1", url=f"{self.url}/api/v1/execute", api_key="team-key", **settings)


DONE = {
    "status": "SUCCESS",
    "completed": True,
    "data": "Hi!",
    "details": [{"index": 0, "message": {"role": "assistant", "content": "Hi!"}, "finish_reason": "length"}],
    "runTime": 0.4,
    "usedCredits": 0.02,
    "usage": {"prompt_tokens": "3", "completion_tokens": 2, "total_tokens": "NaN"},
}
BEGUN = {"status": "IN_PROGRESS", "data": "$URL/jobs/j1"}
GOING = {"status": "IN_PROGRESS", "completed": False}


@pytest.mark.parametrize(
    "blip",
    [(503, {"error": "blip"}), (502, b"<html>"), (429, {"error": "slow"}), (200, b"<html>"), (500, {})],
    ids=["503", "502", "429", "no json", "500"],
)
def test_s13_a_poll_that_comes_to_nothing_is_not_the_end_of_a_job(call, blip):
    with Service(m1=[(201, BEGUN)], j1=[blip, blip, (200, DONE)]) as service:
        assert call(service.llm(), "run", "hi", wait_time=0.02).data == "Hi!"
    with Service(m1=[(201, BEGUN)], j1=[blip, blip, (200, DONE)]) as service:
        job = call(service.llm(), "run_async", "hi")
        first = call(service.llm(), "poll", job.url)
        assert (first.status, first.completed, first.url) == (ResponseStatus.IN_PROGRESS, False, job.url)
        assert first.error_message
        assert service.llm().sync_poll(job.url, wait_time=0.02).data == "Hi!"
        assert [path for _, path, *_ in service.requests].count("/api/v1/execute/m1") == 1


@pytest.mark.parametrize(
    "ended",
    [
        {"status": "OK", "data": "Hi!"},
        {"status": "FINISHED", "data": "Hi!"},
        {"completed": 1, "data": "Hi!"},
        {"completed": "true", "data": "Hi!"},
        {"completed": False, "status": "SUCCESS", "data": "Hi!"},
    ],
    ids=str,
)
def test_an_answer_that_comes_at_once_is_one(call, ended):
    with Service(m1=[(200, ended)]) as service:
        assert call(service.llm(), "run", "hi", wait_time=0.02).data == "Hi!"


@pytest.mark.parametrize("word", ["PENDING", "queued", "RUNNING", "SUCCESS", "something"])
def test_a_run_goes_on_until_it_is_completed(call, word):
    begun = {**BEGUN, "status": word, "completed": False}
    with Service(
        m1=[(201, begun)], j1=[(200, {"status": word, "completed": False, "data": "par"}), (200, DONE)]
    ) as service:
        assert call(service.llm(), "run", "hi", wait_time=0.02).data == "Hi!"


@pytest.mark.parametrize("word", ["ERROR", "CANCELLED", "TIMEOUT", "ABORTED", "failed", "failure"])
@pytest.mark.parametrize("completed", [{"completed": False}, {"completed": True}, {}], ids=str)
def test_a_run_that_ended_otherwise_has_failed(call, word, completed):
    with Service(m1=[(201, BEGUN)], j1=[(200, {"status": word, "error_message": "because", **completed})]) as service:
        found = call(service.llm(), "run", "hi", wait_time=0.02)

    assert (found.status, found.completed) == (ResponseStatus.FAILED, True)
    assert "because" in found.error_message


@pytest.mark.parametrize("run", [None, 5, b"llmkit:1"])
def test_what_is_no_run_has_failed(call, run):
    response = call(LLM("openai/gpt-4o", backend=ScriptedBackend()), "poll", run)

    assert (response.status, response.error_message) == ("FAILED", f"{run!r} is no run of this model")


def test_a_remote_run_is_submitted_once_and_polled(call):
    with Service(m1=[(201, BEGUN)], j1=[(200, GOING), (200, GOING), (200, DONE)]) as service:
        r = call(service.llm(), "run", "hi", context="S", history=HISTORY, prompt="P", wait_time=0.02)

    assert (r.status, r.data, r.finish_reason, r.truncated) == (ResponseStatus.SUCCESS, "Hi!", "length", True)
    assert (r.used_credits, r.run_time, r.usage.prompt_tokens, r.usage.total_tokens) == (0.02, 0.4, 3, 0)
    method, path, headers, body = service.requests[0]
    assert (method, path, headers["x-api-key"]) == ("POST", "/api/v1/execute/m1", "team-key")
    assert body == {
        "data": "hi",
        "context": "S",
        "prompt": "P",
        "history": HISTORY,
        "max_tokens": 128,
        "temperature": 0.001,
    }
    assert [entry[:2] for entry in service.requests[1:]] == [("GET", "/jobs/j1")] * 3


def test_a_remote_job(call):
    with Service(m1=[(201, BEGUN)], j1=[(200, GOING), (200, DONE)]) as service:
        llm = service.llm()
        job = call(llm, "run_async", "hi")
        assert (job.status, job.completed, job.url) == (
            ResponseStatus.IN_PROGRESS,
            False,
            f"{service.url}/jobs/j1",
        )
        assert call(llm, "poll", job.url).status is ResponseStatus.IN_PROGRESS
        assert call(llm, "poll", job.url).data == "Hi!"
        assert llm.sync_poll(job.url).data == "Hi!"


def test_a_remote_timeout_keeps_the_address(call):
    with Service(m1=[(201, BEGUN)], j1=[(200, GOING)]) as service:
        began = time.monotonic()
        r = call(service.llm(), "run", "hi", timeout=0.4, wait_time=0.05)

    assert 0.35 <= time.monotonic() - began < 30  # the job never ends
    assert (r.error_code, r.completed, r.url) == ("timeout", False, f"{service.url}/jobs/j1")


@pytest.mark.parametrize(
    ("answer", "code", "status", "told"),
    [
        ((401, {"error": "bad key"}), "authentication", 401, "bad key"),
        ((402, {"message": "no credit"}), "billing", 402, "no credit"),
        ((463, {"error": "no subscription"}), "permission", 463, "no subscription"),
        ((471, {"error": "pay"}), "billing", 471, "pay"),
        ((483, {"error": "supplier"}), "server", 483, "supplier"),
        ((495, {"error": "field"}), "validation", 495, "field"),
        ((503, {"error": "down"}), "server", 503, "down"),
        ((200, b"<html>"), "provider", None, "no JSON object"),
        ((200, {"status": "IN_PROGRESS"}), "provider", None, "no address"),
        ((200, {"status": "FAILED", "error_message": "because"}), "provider", None, "because"),
        ((200, {"completed": True, "status": "SUCCESS", "error_message": "but no"}), "provider", None, "but no"),
        ((200, {"completed": True, "supplierError": "quota"}), "provider", None, "quota"),
    ],
)
def test_a_remote_refusal_is_a_response(call, answer, code, status, told):
    with Service(m1=[answer]) as service:
        r = call(service.llm(), "run", "hi")

    assert (r.status, r.completed, r.error_code, r.status_code) == (ResponseStatus.FAILED, True, code, status)
    assert told in r.error_message
    assert "team-key" not in r.error_message
    assert len(service.requests) == 1


def test_the_key_goes_to_its_own_origin_only(call):
    with Service(j1=[(200, DONE)]) as other, Service(m1=[(200, {"status": "IN_PROGRESS", "data": "x"})]) as service:
        service.answers["m1"] = [(200, {"status": "IN_PROGRESS", "data": f"{other.url}/jobs/j1"})]
        found = call(service.llm(), "poll", f"{other.url}/jobs/j1")
        r = call(service.llm(), "run", "hi", wait_time=0.02)

    assert other.requests == []
    for each in (found, r):
        assert (each.status, each.error_code) == (ResponseStatus.FAILED, "validation")
        assert "the key stays there" in each.error_message


@pytest.mark.parametrize(
    ("events", "status", "text"),
    [
        (['{"data": "Gr\u00fc\u00dfe data: "}', '{"data": "x"}', "[DONE]"], "SUCCESS", "Grüße data: x"),
        (['{"data": "one"}'], "FAILED", "one"),
        (['{"data": "one"}', '{"error": "broke"}'], "FAILED", "one"),
        (['{"data": "one"}', '{"data": "", "status": "SUCCESS"}'], "SUCCESS", "one"),
    ],
)
def test_a_remote_stream(stream, events, status, text):
    raw = b": ping\n\n" + "".join(f"data: {event}\n\n" for event in events).encode()
    with Service(m1=[(200, raw, "text/event-stream")]) as service:
        chunks, running = stream(service.llm(), "hi")

    assert chunks[-1].status == running.status == status
    assert running.response.data == text
    assert service.requests[0][3]["options"] == {"stream": True}


def test_a_remote_catalogue():
    model = {"id": "m1", "name": "One", "description": "d", "supplier": "S", "pricing": {"p": 1}}
    with Service(m1=[(200, model)], paginate=[(200, {"items": [model], "total": 41})]) as service:
        settings = {"url": service.url, "api_key": "team-key"}
        llm = LLM.get("m1", **settings)
        found = LLM.list(query="one", **settings)

    assert (llm.name, llm.supplier, llm.pricing, llm.url) == ("One", "S", {"p": 1}, service.url)
    assert (found["total"], found["page_total"], [each.id for each in found["results"]]) == (41, 3, ["m1"])
    with pytest.raises(llmkit.APIConnectionError):
        LLM.list(url="http://127.0.0.1:9", api_key="k")


# -- the command line -------------------------------------------------------------------------------------------------


def test_runs_at_the_command_line(database, monkeypatch):
    monkeypatch.setenv("LLMKIT_DATABASE", database)
    llm, _ = here("Hi!", store=database)
    job = llm.run_async("hi", name="nightly")
    llm.sync_poll(job.url, wait_time=0.02)
    short = job.url.rpartition("/")[2][:8]

    def run(*args, code=0):
        done = commands.run(["runs", *args], text=None)
        assert done.returncode == code, done.stderr
        return done

    assert f"{short}  " in run("list").stdout
    assert "SUCCESS  nightly" in run("list").stdout
    assert json.loads(run("list", "--json").stdout)[0]["response"]["data"] == "Hi!"
    assert run("show", short).stdout == "Hi!\n"
    assert run("cancel", short).stdout == f"{short}  SUCCESS\n"
    assert "no run that begins with 'zzz'" in run("show", "zzz", code=2).stderr
