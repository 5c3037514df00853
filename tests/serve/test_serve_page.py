"""The page of `llmkit serve` in a real browser, and the polled protocol."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import browser
import pytest
import web
from server import Answer, Raw, Status
from serving import preset, running, wait_for

import llmkit
from llmkit import LLM, Budget, Budgets, ResponseStatus, Runs
from llmkit.money.ledger import ledger_of
from llmkit.serve import Keys, Limits

PAGE = Path(llmkit.__file__).parent / "serve" / "page"
SETTINGS = {
    "wide": {},
    "dark": {"color_scheme": "dark"},
    "phone": {"viewport": browser.PHONE},
    "narrow": {"viewport": {"width": 800, "height": 600}},
}
RICH = """# Head

Some **bold**, `code` and a [link](https://example.com/a?b=1&c=2).

```python
print("hi")  # a line that is longer than any window on earth, so that it has to scroll by itself, whatever the width is
```

| a | b |
|---|--:|
| x | 1 |

- [x] done
- two

> said
"""
EVIL = """<script>window.hacked = 1</script> <img src=x onerror="window.hacked = 2"> <b style="position:fixed">b</b>

[one](javascript:window.hacked=3) [two](data:text/html,<script>alert(1)</script>) [three](/usage)
[four](//evil.example/x)
[five](&#106;avascript:alert(1)) [six](https://ok.example/ "onclick=alert(1)") <javascript:alert(1)> vbscript:x

![far](https://evil.example/a.png) ![data](data:image/png;base64,iVBORw0KGgo=) ![js](javascript:alert(1))
![x" onerror="alert(1)](https://evil.example/b.png)

<iframe src="https://evil.example"></iframe><form action="https://evil.example"><input name=key></form>
<style>body { background: url(https://evil.example/c.png) }</style>
<svg onload=alert(1)><a xlink:href="javascript:alert(1)">

```"><img src=x onerror=alert(1)>
</code></pre><script>window.hacked = 4</script>
```
"""


@pytest.fixture
def url(sqlite, server):
    with running(preset("one", sqlite, server.url), preset("two", sqlite, server.url), store=sqlite) as address:
        yield address


# -- the page ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def page(chromium, request):
    with chromium.shown(**SETTINGS[getattr(request, "param", "wide")]) as shown:
        yield shown


def ask(page, text, answer=None):
    """Ask, and wait for the whole answer."""
    number = page.locator("article.user").count()
    page.fill("#prompt", text)
    page.keyboard.press("Enter")
    page.locator("article.user").nth(number).wait_for()
    page.locator("article.assistant footer").nth(number).wait_for()
    page.locator("#stop").wait_for(state="hidden")
    if answer is not None:
        assert page.locator("article.assistant .markdown").nth(number).inner_text() == answer


def test_a_chat_streams_and_is_counted_by_keyboard_alone(page, url, server):
    server.script = [Answer("Hello there, <b>you</b>", end="slow", delay_s=0.02), Answer("Again")]
    page.goto(url)
    page.locator("#model option").nth(1).wait_for(state="attached")
    seen = []
    while page.evaluate("document.activeElement.id") != "prompt":
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id"))
    page.keyboard.type("Hi!")
    page.keyboard.press("Enter")
    page.wait_for_selector("article.assistant footer")
    page.wait_for_selector("#usage th:has-text('openai/gpt-4o')")
    assert seen == ["skip", "anew", "model", "log", "prompt"]
    assert page.locator(".markdown").all_inner_texts() == ["Hello there, <b>you</b>"]
    assert re.fullmatch(r"one · 11 \+ 5 tokens · \$0\.\d+ · .* m?s", page.locator("article footer span").inner_text())

    page.keyboard.type("And?")  # the focus is in the composer again
    page.keyboard.press("Enter")
    page.wait_for_selector("article.assistant:has-text('Again')")

    assert [message["content"] for message in server.requests[1].body["messages"]] == [
        "Hi!",
        "Hello there, <b>you</b>",
        "And?",
    ]
    assert page.wrong == []


def test_an_answer_is_stopped_and_a_failure_is_told_and_tried_again(page, url, server):
    server.script = [Answer("word " * 200, end="slow", delay_s=0.05), Status(401), Answer("At last")]
    page.goto(url)
    page.fill("#prompt", "Go on")
    page.keyboard.press("Enter")
    page.wait_for_selector("article.assistant:has-text('word word')")
    page.keyboard.press("Escape")
    page.wait_for_selector("#told:has-text('Stopped.')")
    assert server.broken.wait(5)

    page.fill("#prompt", "Fail")
    page.keyboard.press("Enter")
    page.wait_for_selector('article.error:has-text("the provider refused the server\'s key")')
    page.click("article.error button")
    page.wait_for_selector("article.assistant:has-text('At last')")

    assert page.locator("article.error").count() == 0
    assert page.locator("article.user").all_inner_texts() == ["Go on", "Fail"]
    assert [each["role"] for each in server.requests[-1].body["messages"]] == ["user", "assistant", "user"]


def test_a_conversation_is_there_after_a_reload_and_in_the_list(page, url, server):
    server.script = [Answer("First"), Answer("Second")]
    page.goto(url)
    ask(page, "One?", "First")
    page.click("#anew")
    ask(page, "Two?", "Second")
    page.reload()
    page.wait_for_selector("article.assistant:has-text('Second')")
    assert page.locator("article footer span").inner_text().startswith("one · 11 + 5 tokens · $0.")
    assert page.locator("#list [aria-current] .title").inner_text() == "Two?"

    page.click("#list a:has-text('One?')")
    page.wait_for_selector("article.assistant:has-text('First')")
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("#list li:has-text('Two?') .remove")
    page.locator("#list li:has-text('Two?')").wait_for(state="detached")
    page.go_back()

    page.wait_for_selector("#told:has-text('there is no conversation')")
    assert page.locator("article").count() == 0


def test_a_reload_in_the_middle_of_the_first_answer_shows_the_conversation(page, url, server):
    server.script = [Answer("word " * 300, end="slow", delay_s=0.02)]
    page.goto(url)
    page.fill("#prompt", "One?")
    page.keyboard.press("Enter")
    page.wait_for_selector("article.assistant:has-text('word word')")

    page.reload()

    page.wait_for_selector("article.user:has-text('One?')")


@pytest.mark.parametrize("end", ["reset", "eof"])
def test_an_answer_that_breaks_off_leaves_its_question_and_can_be_asked_for_again(page, url, server, end):
    server.script = [Answer("First"), Answer("some words", end=end), Answer("Second")]
    page.goto(url)
    ask(page, "One?", "First")
    page.fill("#prompt", "Two?")
    page.keyboard.press("Enter")
    page.wait_for_selector("article.error")

    assert page.locator("article.user").all_inner_texts() == ["One?", "Two?"]
    assert page.input_value("#prompt") == ""
    page.click("article.error button")
    page.wait_for_selector("article.assistant:has-text('Second')")


def test_a_question_that_is_not_taken_goes_back_to_where_it_was_written(page, sqlite, server):
    limits = Limits(body_bytes=2000)
    with running(preset("one", sqlite, server.url), store=sqlite, limits=limits) as url:
        page.goto(url)
        ask(page, "Hi")
        page.fill("#prompt", "x" * 3000)
        page.keyboard.press("Enter")

        page.wait_for_selector("#told:has-text('larger than')")
        assert page.input_value("#prompt") == "x" * 3000
        assert page.locator("article.user").all_inner_texts() == ["Hi"]
        assert page.locator("article.error").count() == 0


def test_an_answer_that_is_left_for_another_conversation_does_not_come_after(page, url, server):
    server.script = [Answer("First"), Answer("word " * 300, end="slow", delay_s=0.02), Answer("Third")]
    page.goto(url)
    ask(page, "One?", "First")
    page.click("#anew")
    page.fill("#prompt", "Two?")
    page.keyboard.press("Enter")
    page.wait_for_selector("article.assistant:has-text('word word')")
    page.click("#list a:has-text('One?')")
    page.wait_for_selector("article.assistant:has-text('First')")
    assert server.broken.wait(5)
    ask(page, "Three?", "Third")

    assert page.locator("article.user").all_inner_texts() == ["One?", "Three?"]
    page.click("#list a:has-text('Two?')")
    page.wait_for_selector("article footer:has-text('stopped')")
    assert page.locator("article.user").all_inner_texts() == ["Two?"]
    assert page.wrong == []


def test_markdown_is_shown_as_what_it_means(page, url, server):
    server.script = [Answer(RICH)]
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(url)
    ask(page, "Hi")

    assert page.locator(".markdown h3").inner_text() == "Head"
    assert page.locator(".markdown strong").inner_text() == "bold"
    assert page.locator(".markdown td").all_inner_texts() == ["x", "1"]
    assert "☑ done" in page.locator(".markdown li").all_inner_texts()[0]
    link = page.locator(".markdown a")
    assert [link.get_attribute(name) for name in ("href", "rel", "target")] == [
        "https://example.com/a?b=1&c=2",
        "noopener noreferrer",
        "_blank",
    ]
    page.click(".markdown .code .copy")
    assert page.evaluate("navigator.clipboard.readText()").startswith('print("hi")')
    page.click("article footer .copy")
    assert page.evaluate("navigator.clipboard.readText()") == RICH
    assert page.wrong == []


def test_a_model_reaches_neither_the_page_nor_the_world(page, url, server):
    """While it streams, when it has ended, and when it is shown again."""
    name = '<img src=x onerror="window.hacked = 9">'
    server.script = [Answer(EVIL, end="slow", delay_s=0.002)]
    page.goto(url)
    ask(page, f"<b>{name}</b>")
    for _ in range(2):
        page.wait_for_selector(".markdown:has-text('window.hacked')")
        inside = "#log :is(script, img, iframe, form, input, style, svg, object, video, [onerror], [onload], [style])"
        assert page.locator(inside).count() == 0
        hrefs = page.evaluate("[...document.querySelectorAll('#log a[href]')].map((link) => link.getAttribute('href'))")
        assert sorted(hrefs) == [
            "https://evil.example/a.png",
            "https://evil.example/b.png",
            "https://ok.example/",
        ]
        assert page.evaluate("window.hacked") is None
        page.reload()

    assert {address for address in page.asked if not address.startswith(url)} == set()
    assert page.wrong == []


def test_names_and_texts_of_the_server_are_text(page, sqlite, server):
    name = "<img src=x onerror='window.hacked = 1'>"
    Budgets(sqlite).set(Budget(name=name, limit_usd=1.0))
    served = preset(name, sqlite, server.url, description=name, system="{{ tone }}", variables={"tone": name})
    with running(served, store=sqlite) as url:
        page.goto(url)
        ask(page, "hi")
        assert page.locator("#description").inner_text() == name
        page.click("summary:has-text('Python')")
        assert f"model={name!r}".replace("'", '"') in page.locator("#api").inner_text().replace("'", '"')
        curl = page.locator("#api pre").first.text_content()
    body = json.loads(shlex.split(curl.replace("\\\n", ""))[-1])
    assert body == {"model": name, "messages": [{"role": "user", "content": "Hello"}]}
    assert page.evaluate("window.hacked") is None
    assert page.locator("main img").count() == 0


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(f"line {number}" for number in range(10_000)),
        "| " + " | ".join(f"column{number}" for number in range(60)) + " |\n" + "|---" * 60 + "|\n" + "| x " * 60 * 200,
        "> " * 20_000 + "deep",
        "**a " * 20_000,
        "x" * 500_000,
    ],
    ids=["lines", "table", "deep", "stars", "long"],
)
def test_an_answer_of_any_size_leaves_the_page_in_use(page, url, server, text):
    server.script = [Answer(text, deltas=[{"content": text[at : at + 5000]} for at in range(0, len(text), 5000)])]
    page.goto(url)

    began = time.monotonic()
    ask(page, "y" * 300)

    assert time.monotonic() - began < 60
    assert page.locator(".markdown").text_content().strip()
    page.fill("#prompt", "still here")
    for window in (browser.WIDE, browser.PHONE):
        page.set_viewport_size(window)
        assert browser.cut(page) == []
        assert page.locator("#send").bounding_box()["y"] < window["height"]


@pytest.mark.parametrize("page", ["wide", "phone", "narrow"], indirect=True)  # colours change no size
def test_it_fits_every_window_and_the_composer_is_always_in_sight(page, url, server):
    server.script = [Answer(RICH * 20 + "x" * 500)]
    page.goto(url)
    ask(page, "y" * 300)
    height, width = page.viewport_size["height"], page.viewport_size["width"]

    for view in ("about", "talks", "talk"):
        button = page.locator(f"#views [data-view={view}]")
        if button.is_visible():
            button.click()
        assert browser.cut(page) == []
        assert page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == [
            width,
            height,
        ]
    send, prompt = page.locator("#send").bounding_box(), page.locator("#prompt").bounding_box()
    assert prompt["y"] > 0
    assert send["y"] + send["height"] <= height
    left, right = page.evaluate("""() => {
        const boxes = [...document.querySelectorAll("main > section")].map((one) => one.getBoundingClientRect());
        const shown = boxes.filter((box) => box.width);
        return [Math.min(...shown.map((box) => box.left)), innerWidth - Math.max(...shown.map((box) => box.right))];
    }""")
    assert left == pytest.approx(right, abs=1)
    assert page.wrong == []


def test_nothing_is_wrong_with_it_for_people_who_hear_zoom_or_type(page, sqlite, server, keys_soon):
    """What the page shows, and then the same in each window: a window of another size shows no other page."""
    server.script = [Answer(RICH), Status(401)]
    Budgets(sqlite).set(Budget(name="team", limit_usd=9))
    variables = {"tone": "calm", "age": 5, "polite": True}
    served = preset("one", sqlite, server.url, description="Short answers", system="{{ tone }}", variables=variables)

    def wrong(*views):
        """In each window, and in each view of one that has no room for all: there are buttons for them."""
        for name, window in SETTINGS.items():
            page.set_viewport_size(window.get("viewport", browser.WIDE))
            page.emulate_media(color_scheme=window.get("color_scheme", "light"))
            buttons = [button for view in views if (button := page.locator(f"#views [data-view={view}]")).is_visible()]
            for button in buttons or [None]:
                if button is not None:
                    button.click()
                yield from ((name, *fault) for fault in browser.faults(page))

    with running(served, store=sqlite) as url:
        page.goto(url)
        page.wait_for_selector("#model option", state="attached")
        assert list(wrong()) == []
        ask(page, "hi")
        page.fill("#prompt", "fail")
        page.keyboard.press("Enter")
        page.wait_for_selector("article.error")
        assert list(wrong("about", "talks", "talk")) == []
        page.goto(f"{url}/usage")
        assert list(wrong()) == []
        Keys(sqlite).add("anna")
        wait_for(lambda: web.get(f"{url}/v1/models").status_code == 401)
        page.goto(url)
        page.wait_for_selector("#keys[open]")
        assert list(wrong()) == []


def test_a_preset_is_asked_with_its_variables(page, sqlite, server):
    settings = {
        "system": "{{ tone }} {{ who }} {{ polite }} {{ age }}",
        "variables": {"tone": "calm", "who": None, "polite": True, "age": 5},
    }
    with running(preset("one", sqlite, server.url, **settings), preset("two", sqlite, server.url), store=sqlite) as url:
        page.goto(url)
        page.wait_for_selector("#variables input")
        page.fill("#prompt", "hi")
        page.keyboard.press("Enter")  # `who` has no value yet
        page.wait_for_function("document.activeElement.name === 'who'")
        page.keyboard.type("Bob")
        page.locator("[name=polite]").uncheck()
        page.locator("[name=age]").fill("7.5")
        page.focus("#prompt")
        page.keyboard.press("Enter")
        page.wait_for_selector("article.assistant footer")
        assert server.requests[0].body["messages"][0]["content"] == "calm Bob False 7.5"
        page.reload()
        page.wait_for_selector("#values:has-text('who: Bob')")
        assert not page.locator("#variables").is_visible()
        page.select_option("#model", "two")
        ask(page, "hi")
    assert [message["role"] for message in server.requests[1].body["messages"]] == ["user"]


# -- keys -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_keys(sqlite, server):
    """An address, and the keys of Anna, who may ask one model, and of Ben."""
    keys = Keys(sqlite)
    anna, ben = keys.add("anna", 5.0, models=["one"]), keys.add("ben", 7.0)
    Budgets(sqlite).set(Budget(name="team", limit_usd=9))
    with running(preset("one", sqlite, server.url), preset("two", sqlite, server.url), store=sqlite) as url:
        yield url, anna, ben


def give(page, key):
    page.wait_for_selector("#keys[open]")
    page.fill("#key", key)
    page.keyboard.press("Enter")


def enter(page, key):
    give(page, key)
    page.wait_for_selector("#model option", state="attached")


def test_a_key_is_asked_for_and_sees_what_is_its_own(page, with_keys):
    url, anna, ben = with_keys
    page.goto(url)
    enter(page, anna)
    page.wait_for_selector(".budget")
    assert page.locator("#model option").all_inner_texts() == ["one"]
    assert [text.partition(" of")[0] for text in page.locator(".budget > div").all_inner_texts()] == ["key:anna: $0.00"]
    ask(page, "Mine?")
    assert "$LLMKIT_KEY" in page.locator("#api").inner_text()
    assert anna not in page.content()
    assert page.evaluate("Object.values(localStorage)") != [anna]
    assert page.evaluate("Object.values(sessionStorage)") == [anna]
    mine = page.url

    page.click("#key-button")
    enter(page, ben)
    page.wait_for_selector("#list .none")
    page.goto(mine)
    page.wait_for_selector("#told:has-text('there is no conversation')")

    assert "Mine?" not in page.content()


def test_the_description_of_the_api_is_saved_with_the_key(page, with_keys):
    url, anna, _ = with_keys
    page.goto(url)
    enter(page, anna)
    with page.expect_download() as saved:
        page.click("#openapi")

    assert "/conversations" in json.loads(Path(saved.value.path()).read_text(encoding="utf-8"))["paths"]


def test_a_wrong_key_is_told_and_one_that_is_taken_back_asks_again(page, keys_soon, with_keys, sqlite):
    url, anna, _ = with_keys
    page.goto(url)
    give(page, "llmkit-wrong")
    page.wait_for_selector("#key-told:has-text('the key is not known')")
    enter(page, anna)
    ask(page, "Hi")

    Keys(sqlite).remove("anna")
    wait_for(lambda: web.get(f"{url}/v1/models", headers={"x-api-key": anna}).status_code == 401)
    page.fill("#prompt", "Lost?")
    page.keyboard.press("Enter")

    page.wait_for_selector("#keys[open] #key-told:has-text('the key is not known')")
    assert page.input_value("#prompt") == "Lost?"
    assert page.evaluate("Object.values(sessionStorage)") == []
    assert page.locator("article.user").all_inner_texts() == ["Hi"]


def test_a_key_with_a_character_that_no_key_has_is_told_and_asked_for_again(page, with_keys):
    url, anna, _ = with_keys
    page.goto(url)
    give(page, "a\u200bb")

    page.wait_for_selector("#keys[open] #key-told:has-text('a character that no key has')")
    page.reload()
    page.wait_for_selector("#keys[open]")
    enter(page, anna)
    ask(page, "Hi")


def test_the_usage_page_is_that_of_the_command_and_asks_for_a_key_too(page, with_keys):
    url, anna, ben = with_keys
    page.goto(f"{url}/usage")
    give(page, anna)
    page.wait_for_selector("h1:has-text('Usage')")
    page.wait_for_selector("p:has-text('Each call that llmkit makes')")

    headers = {"x-api-key": ben, "content-type": "application/json"}
    web.post(
        f"{url}/v1/chat/completions",
        json={"model": "two", "messages": [{"role": "user", "content": "hi"}]},
        headers=headers,
    )
    page.reload()
    page.wait_for_selector("p:has-text('Each call that llmkit makes')")  # Ben's call is none of Anna's
    page.evaluate("key => sessionStorage.setItem('llmkit-key', key)", ben)
    page.reload()
    page.wait_for_selector("h2:has-text('Cost by day and model')")

    assert "key ben" in page.locator("header").inner_text()
    assert page.evaluate("getComputedStyle(document.querySelector('main')).display") == "grid"
    assert page.locator("details table tbody tr").count() >= 30
    assert page.locator("section").first.evaluate("one => getComputedStyle(one).borderRadius") == "12px"


def test_a_browser_gets_the_usage_page_and_a_program_gets_numbers_the_dearest_model_first(sqlite, server, url):
    rows = [("cheap/a", 0.5), ("dear/b", 9.0), ("free/c", 0.0)]
    for model, price in rows:
        ledger_of(sqlite).increment_usage(price, model)

    page = web.get(f"{url}/usage", headers={"accept": "text/html,*/*;q=0.8"})
    numbers = web.get(f"{url}/usage")

    assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in page.headers["content-security-policy"]
    first = (datetime.now(timezone.utc).date() - timedelta(days=29)).isoformat()
    assert f"calls from {first} 00:00 UTC" in page.text
    assert page.text.index("dear/b") < page.text.index("cheap/a") < page.text.index("free/c")
    assert [line["model"] for line in numbers.json()["models"]] == ["dear/b", "cheap/a", "free/c"]
    assert (page.headers["vary"], numbers.headers["vary"]) == ("accept", "accept")


def test_what_was_possibly_paid_of_a_budget_is_told_to_programs_and_on_the_page(page, sqlite, server):
    Budgets(sqlite).set(Budget(name="team", limit_usd=9))
    server.script = [Raw(b"no json")]
    served = preset("one", sqlite, server.url, budget="team", params={"max_tokens": 1000}, retry={"tries": 1})
    with running(served, store=sqlite) as url:
        failed = url.post({"model": "one", "messages": [{"role": "user", "content": "hi"}]})
        (told,) = web.get(f"{url}/usage").json()["budgets"]
        page.goto(url)
        page.wait_for_selector(".budget")
        shown = page.locator(".budget > div").inner_text()
        used = page.locator(".budget meter").evaluate("one => one.value")

    assert failed.status_code == 502
    assert 0 < told["possibly_paid"] == Budgets(sqlite).get("team").possibly_paid
    assert (told["settled"], told["reserved"]) == (0, 0)
    assert used == pytest.approx(told["possibly_paid"])
    assert "of it possibly paid) of $9" in shown


def test_anna_and_anna_in_capitals_are_two_keys(sqlite, server):
    keys = Keys(sqlite)
    small, capital = keys.add("anna"), keys.add("ANNA")
    with running(preset("one", sqlite, server.url), store=sqlite) as url:
        body = {"model": "one", "messages": [{"role": "user", "content": "hi"}]}
        assert web.post(f"{url}/v1/chat/completions", json=body, headers={"x-api-key": small}).status_code == 200
        counts = [
            [line["calls"] for line in web.get(f"{url}/usage", headers={"x-api-key": key}).json()["models"]]
            for key in (small, capital)
        ]

    assert counts == [[1], []]


# -- what it loads ----------------------------------------------------------------------------------------------------


def test_nothing_comes_from_elsewhere_and_nothing_is_inline(url):
    answer = web.get(url)

    assert "default-src 'self'" in answer.headers["content-security-policy"]
    assert "unsafe" not in answer.headers["content-security-policy"]
    for found in ("http://", "https://", "<style", " style=", "javascript:", " onclick"):
        assert found not in answer.text
    files = re.findall(r'(?:src|href)="(page/[^"]*)"', answer.text)
    assert len(files) == 3
    for file in (*files, "page/vendor/marked.esm.js"):
        loaded = web.get(f"{url}/{file}")
        assert loaded.status_code == 200
        assert loaded.headers["content-type"].partition(";")[0] in {"text/javascript", "text/css", "image/svg+xml"}
        tag = {"if-none-match": loaded.headers["etag"]}
        assert web.get(f"{url}/{file}", headers=tag).status_code == 304
    for file in ("../page.py", "%2e%2e/app.py", "vendor/SHA256SUMS", "/etc/passwd", "index", "", "nothing.js"):
        assert web.get(f"{url}/page/{file}").status_code == 404


def test_the_files_of_others_are_what_they_were_published_as(url):
    _, *lines = (PAGE / "vendor" / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    sums = dict(reversed(line.split()) for line in lines)

    assert {file: hashlib.sha256((PAGE / "vendor" / file).read_bytes()).hexdigest() for file in sums} == sums
    assert sums.keys() == {path.name for path in (PAGE / "vendor").glob("*js")}
    for file in sums:
        assert (PAGE / "vendor" / f"{file.partition('.')[0]}.LICENSE").stat().st_size > 1000


def test_it_is_small(page, url):
    page.goto(url)
    page.wait_for_selector("#model option", state="attached")

    assert sum(path.stat().st_size for path in PAGE.rglob("*") if path.suffix in {".js", ".css", ".html"}) < 130_000
    assert len(page.asked) < 20


def test_money_is_written_as_on_the_usage_page(page, url):
    from llmkit.money.charts import short, usd

    amounts = [None, 0.0, 0.5, 0.12345, 0.000042, 1e-9, 1234.5, 1234567.891, 0.9999999, 999.999, -2.0, 3e-7, 0.0101]
    numbers = [0, 999, 999.4, 1234, 999_499, 999_999, 45_000_000, 12]
    page.goto(url)
    script = "async ([amounts, numbers]) => { const words = await import('./page/words.js');"
    script += " return [amounts.map(words.usd), numbers.map(words.short)] }"

    assert page.evaluate(script, [amounts, numbers]) == [[*map(usd, amounts)], [*map(short, numbers)]]


def test_without_keys_only_the_names_of_this_machine_are_answered(sqlite, server, keys_soon):
    body = {"model": "one", "messages": [{"role": "user", "content": "hi"}]}
    with running(preset("one", sqlite, server.url), store=sqlite, hosts={"127.0.0.1", "localhost"}) as url:
        chats = f"{url}/v1/chat/completions"
        refused = web.post(chats, json=body, headers={"host": "evil.example"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "wrong_host")
        assert server.requests == []
        assert web.post(chats, json=body).status_code == 200
        key = Keys(sqlite).add("anna", None)
        headers = {"host": "models.example", "authorization": f"Bearer {key}"}
        wait_for(lambda: web.post(chats, json=body, headers=headers).status_code == 200)


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
        wait_for(lambda: web.get(job, headers={"x-api-key": anna}).json()["status"] == "SUCCESS")
        assert web.get(job).status_code == 401
        assert web.get(job, headers={"x-api-key": ben}).status_code == 404
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
