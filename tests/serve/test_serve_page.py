"""The page of `llmkit serve` in a real browser, and the polled protocol."""

from __future__ import annotations

import shutil
import time

import pytest
import web
from server import Answer, Status
from serving import preset, running

from llmkit import LLM, Budget, Budgets, ResponseStatus, Runs
from llmkit.serve import Keys

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def url(sqlite, server):
    with running(preset("one", sqlite, server.url), preset("two", sqlite, server.url), store=sqlite) as address:
        yield address


# -- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def page(request):
    """A page of headless Chromium, of the width that a mark says; an error in it fails the test."""
    if BROWSER is None:
        pytest.skip("there is no Chromium here to show the page in")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": getattr(request, "param", 1200), "height": 900})
        wrong = []
        shown.on("pageerror", lambda error: wrong.append(str(error)))
        shown.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
        shown.wrong = wrong
        yield shown
        browser.close()


def test_a_chat_streams_and_is_counted_by_keyboard_alone(page, url, server):
    server.script = [Answer("Hello there, <b>you</b>", end="slow", delay_s=0.02), Answer("Again")]
    page.goto(url)
    page.locator("#model option").nth(1).wait_for(state="attached")
    while page.evaluate("document.activeElement.id") != "prompt":
        page.keyboard.press("Tab")
    page.keyboard.type("Hi!")
    page.keyboard.press("Enter")
    page.wait_for_selector("article.assistant:has-text('you')")
    page.wait_for_selector("#usage td:has-text('openai/gpt-4o')")
    assert page.locator("article").all_inner_texts() == ["Hi!", "Hello there, <b>you</b>"]

    page.keyboard.type("And?")
    page.keyboard.press("Enter")
    page.wait_for_selector("article.assistant:has-text('Again')")

    assert [message["content"] for message in server.requests[1].body["messages"]] == [
        "Hi!",
        "Hello there, <b>you</b>",
        "And?",
    ]
    assert page.wrong == []


def test_an_answer_is_stopped_and_a_failure_is_told(page, url, server):
    server.script = [Answer("word " * 200, end="slow", delay_s=0.05), Status(401)]
    page.goto(url)
    page.fill("#prompt", "Go on")
    page.keyboard.press("Enter")
    page.wait_for_selector("article.assistant:has-text('word word')")
    page.keyboard.press("Escape")
    page.wait_for_selector("#told:has-text('Stopped.')")
    assert server.broken.wait(5)

    page.fill("#prompt", "Fail")
    page.keyboard.press("Enter")
    page.wait_for_selector("#told.error")
    assert page.input_value("#prompt") == "Fail"
    assert page.locator("article.user").all_inner_texts() == ["Go on"]


def test_budgets_are_shown_and_with_keys_one_is_asked_for(page, sqlite, server):
    keys = Keys(sqlite)
    mine = keys.add("anna", 5.0, models=["one"])
    keys.add("ben", 7.0)
    Budgets(sqlite).set(Budget(name="team", limit_usd=9))
    with running(preset("one", sqlite, server.url), preset("two", sqlite, server.url), store=sqlite) as url:
        page.goto(url)
        page.wait_for_selector("#key")
        page.fill("#key", mine)
        page.keyboard.press("Enter")
        page.wait_for_selector(".budget")

        assert page.locator("#model option").all_inner_texts() == ["one"]
        assert [line.partition(" of")[0] for line in page.locator(".budget").all_inner_texts()] == ["key:anna: $0.00"]
        assert mine not in page.content()


@pytest.mark.parametrize("page", [360], indirect=True)
def test_it_fits_a_phone(page, url, server):
    server.script = [Answer("x" * 500)]
    page.goto(url)
    page.fill("#prompt", "y" * 300)
    page.keyboard.press("Enter")
    page.wait_for_selector("#usage td:has-text('openai/gpt-4o')")

    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.wrong == []


def test_without_keys_only_the_names_of_this_machine_are_answered(sqlite, server):
    body = {"model": "one", "messages": [{"role": "user", "content": "hi"}]}
    with running(preset("one", sqlite, server.url), store=sqlite, hosts={"127.0.0.1", "localhost"}) as url:
        chats = f"{url}/v1/chat/completions"
        refused = web.post(chats, json=body, headers={"host": "evil.example"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "wrong_host")
        assert server.requests == []
        assert web.post(chats, json=body).status_code == 200
        key = Keys(sqlite).add("anna", None)
        time.sleep(2.1)
        headers = {"host": "models.example", "authorization": f"Bearer {key}"}
        assert web.post(chats, json=body, headers=headers).status_code == 200


def test_nothing_comes_from_elsewhere(url):
    answer = web.get(url)

    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "NONCE" not in answer.text
    assert "http://" not in answer.text
    assert "https://" not in answer.text


# -- the polled protocol ----------------------------------------------------------------------------------------------


def test_llm_talks_to_it(call, url, server):
    server.script = [Answer("done")]
    llm = LLM("one", url=f"{url}/runs")

    r = call(llm, "run", "hi", context="S", prompt="P", wait_time=0.02)

    assert (r.status, r.data, r.finish_reason) == (ResponseStatus.SUCCESS, "done", "stop")
    assert r.usage.total_tokens > 0
    assert r.used_credits > 0
    sent = server.requests[0].body
    assert [message["content"] for message in sent["messages"]] == ["S", "P\nhi"]
    assert sent["max_tokens"] == 128


def test_a_stream_of_it(url, server):
    server.script = [Answer("Grüße aus Köln"), Answer("cut off", end="eof")]
    llm = LLM("one", url=f"{url}/runs")

    assert "".join(chunk.data for chunk in llm.run_stream("hi")) == "Grüße aus Köln"
    *_, last = llm.run_stream("hi")
    assert last.status is ResponseStatus.FAILED


def test_a_job_goes_on_in_the_store(url, server, sqlite):
    server.script = [Answer("done", delay_s=0.5), Status(401, body={"error": {"message": "no such key"}})]
    llm = LLM("one", url=f"{url}/runs")

    job = llm.run_async("hi")

    assert llm.poll(job.url).status is ResponseStatus.IN_PROGRESS
    assert llm.sync_poll(job.url, wait_time=0.02).data == "done"
    assert llm.poll(job.url).data == "done"
    assert Runs(sqlite).all()[0].model == "one"
    failed = llm.run("hi", wait_time=0.02)
    assert (failed.status, failed.completed) == (ResponseStatus.FAILED, True)
    assert "the provider refused the server's key" in failed.error_message
    assert "no such key" not in failed.error_message  # whose key it is, and what is wrong with it, is in the log


def test_s17_a_store_of_before_gets_the_column_that_says_whom_a_run_is_for(store, sql, database):
    from llmkit.store import Store

    assert Runs(store).all() == []
    store.close()
    sql("ALTER TABLE llmkit_runs DROP COLUMN served_to")
    sql("UPDATE llmkit_meta SET value = '5' WHERE key = 'schema'")

    opened = Store(database)
    assert Runs(opened).all() == []
    assert sql("SELECT served_to FROM llmkit_runs") == []
    opened.close()


def test_a_run_is_cancelled(url, server):
    server.script = [Answer("x", delay_s=20)]
    job = LLM("one", url=f"{url}/runs").run_async("hi").url

    assert web.delete(job).json()["error_code"] == "cancelled"
    assert web.get(job).json()["status"] == "FAILED"


def test_runs_are_their_keys_alone(sqlite, server):
    keys = Keys(sqlite)
    anna, ben = keys.add("anna", None, models=["one"]), keys.add("ben", None)
    with running(preset("one", sqlite, server.url), preset("two", sqlite, server.url), store=sqlite) as url:
        job = LLM("one", url=f"{url}/runs", api_key=anna).run_async("hi").url
        time.sleep(0.3)
        assert web.get(job).status_code == 401
        assert web.get(job, headers={"x-api-key": ben}).status_code == 404
        assert web.get(job, headers={"x-api-key": anna}).json()["status"] == "SUCCESS"
        refused = LLM("two", url=f"{url}/runs", api_key=anna).run("hi")
        assert (refused.status_code, refused.error_code) == (403, "permission")


@pytest.mark.parametrize(
    ("path", "body", "status", "told"),
    [
        ("nothing", {"data": "hi"}, 404, "nothing"),
        ("one", {}, 400, "data"),
        ("one", {"data": 5}, 400, "data"),
        ("one", {"data": "hi", "history": [{"role": "banana"}]}, 400, "history.0.role"),
    ],
)
def test_what_cannot_be_run_is_refused(url, server, path, body, status, told):
    answer = web.post(f"{url}/runs/{path}", json=body)

    assert answer.status_code == status
    assert told in answer.json()["error"]["message"] + str(answer.json()["error"]["param"])
    assert server.requests == []
