"""What a call would cost, before it is made."""

from __future__ import annotations

import json
import random

import commands
import pytest
import tiktoken
from databases import LONG
from server import Answer, ScriptedServer

import llmkit
from llmkit import Budget, Budgets, Deployment, Ledger, MultiAIClient, Price

EMBEDDED = Deployment("embedded", "local", "smollm2", price=Price(prompt=0.001, completion=0.002))


def test_a_quote_tells_tokens_price_and_whether_it_fits(call):
    found = call(llmkit, "quote", "Name a colour.", model="openai/gpt-4o", max_tokens=100)

    assert (found.model, found.window, found.fits, found.answer_tokens) == ("openai/gpt-4o", 128_000, True, 100)
    assert 4 <= found.prompt_tokens <= 15
    assert found.least_usd == pytest.approx((found.prompt_tokens * 2.5 + 10) / 1e6)
    assert found.expected_usd == pytest.approx((found.prompt_tokens * 2.5 + 1000) / 1e6)
    assert found.expected_tokens == 100
    assert found.least_usd < found.expected_usd < found.most_usd
    assert found.refused == ""


def test_without_max_tokens_the_longest_answer_is_the_most(call):
    found = call(llmkit, "quote", "hi", model="openai/gpt-4o")

    assert found.answer_tokens == 16_384
    assert found.most_usd > 0.16
    assert (found.expected_tokens, found.expected_usd) == (None, None)


def test_a_prompt_that_is_too_long_does_not_fit(call):
    assert call(llmkit, "quote", "word " * 9000, model="openai/gpt-4").fits is False


def test_what_is_unknown_is_none(call):
    found = call(llmkit, "quote", "hi", model="openai/nobody-knows")

    assert (found.window, found.fits, found.least_usd, found.most_usd) == (None, None, None, None)


def test_this_machine_is_free(call):
    found = call(llmkit, "quote", "hi", model="local/smollm2")

    assert (found.window, found.most_usd) == (8192, 0.0)


def test_a_client_quotes_by_its_own_prices():
    client = MultiAIClient({"m": Deployment("m", "openai", "it", "k", price=Price(prompt=1.0, completion=2.0))})

    assert client.quote("hi", "m", max_tokens=3).least_usd == client.quote("hi", "m").prompt_tokens + 2


def test_a_budget_that_would_refuse_says_so_and_nothing_stays_reserved(call, store):
    Budgets(store).set(Budget(name="small", limit_usd=0.0001))
    asked = {"model": "openai/gpt-4o", "store": store, "budget": "small"}

    assert "budget 'small' has 0.000100 USD left" in call(llmkit, "quote", "hi", **asked).refused
    assert call(llmkit, "quote", "hi", max_tokens=1, **asked).refused == ""
    assert Budgets(store).get("small").reserved == 0


@pytest.mark.parametrize("text", ["hi", "Grüße und 안녕하세요 " * 6, "1234567890 " * 12, "x = {'a': [1, 2, 3]}\n" * 9])
def test_the_most_is_never_below_what_the_embedded_model_counts(text):
    client = MultiAIClient({"m": EMBEDDED})

    most = client.quote(text, "m", max_tokens=4).most_usd

    assert client.invoke(text, "m", max_tokens=4).usage.cost_usd <= most


@pytest.mark.parametrize(
    ("name", "args", "most"),
    [
        ("embed", ["hi", "Grüße"], 1.0),
        ("speak", ["hello"], 0.5),
        ("image", ["an owl"], 2.0),
        ("transcribe", [b"x" * 7500], 10 / 60),
    ],
)
def test_what_is_no_chat_is_reserved_too(call, store, server, name, args, most):
    price = Price(prompt=0.01, minute=1.0, character=0.1, image=2.0)
    client = MultiAIClient(
        {"m": Deployment("m", "openai", "it", "k", f"{server.url}/v1", price=price)},
        budget=Budget(name="b", limit_usd=1e-9),
        ledger=Ledger(store),
    )

    with pytest.raises(llmkit.BudgetExceededError) as caught:
        call(client, name, args if name == "embed" else args[0], "m")

    assert caught.value.asked == pytest.approx(most, rel=0.6)
    assert server.requests == []


def test_pictures_files_and_tools_are_more(call):
    def most(content="hi", **more):
        said = [{"role": "user", "content": content}]
        return call(llmkit, "quote", said, model="anthropic/claude-sonnet-4-5", max_tokens=1, **more).most_usd

    text = {"type": "text", "text": "hi"}
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    file = {"type": "file", "file": {"file_data": "data:application/pdf;base64," + "A" * 100_000}}
    sound = {"type": "input_audio", "input_audio": {"data": "A" * 100_000, "format": "wav"}}
    tool = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}

    assert most([text]) < most([text, picture]) < most([text, picture, picture])
    assert most([text]) < most([text, sound])
    assert most([text, file]) is None  # nobody knows how many pages it has
    assert most(tools=[tool]) > most()
    assert most([{**text, "cache_control": {"type": "ephemeral"}}]) > 1.5 * most(
        [{**text, "cache_contr": {"a": "b" * 9}}]
    )


def test_dearer_tokens_of_long_prompts_are_known(call):
    short = call(llmkit, "quote", "word " * 100_000, model="gemini/gemini-2.5-pro", max_tokens=1)
    long = call(llmkit, "quote", "word " * 300_000, model="gemini/gemini-2.5-pro", max_tokens=1)

    assert long.least_usd / long.prompt_tokens > 1.9 * short.least_usd / short.prompt_tokens


def test_a_corpus_costs_never_more_than_the_most():
    """A model that repeats, one that answers in a few sentences, and the embedded one; the long form is 1,000 calls."""
    often = 450 if LONG else 36
    counted = tiktoken.get_encoding("o200k_base")
    chance = random.Random(7)

    def answer(text):
        return lambda body: Answer(
            text(body["messages"][-1]["content"]),
            usage={
                "prompt_tokens": (prompt := len(counted.encode(body["messages"][-1]["content"])) + 7),
                "completion_tokens": (completion := len(counted.encode(text(body["messages"][-1]["content"])))),
                "total_tokens": prompt + completion,
            },
        )

    few = [" ".join(["word"] * chance.randint(90, 110)) for _ in range(often)]
    with ScriptedServer() as server:
        client = MultiAIClient(
            {
                **{name: Deployment(name, "openai", "gpt-4o", "k", f"{server.url}/v1") for name in ("echo", "few")},
                "embedded": EMBEDDED,
            }
        )
        over = 0
        for name, calls in (("echo", often), ("few", often), ("embedded", often // 9 * 2)):
            for number in range(calls):
                some = few[number % often]
                server.script = [answer(str if name == "echo" else lambda _, some=some: some)]
                asked = " ".join(chance.choices(WORDS, k=chance.randint(3, 20 if name == "embedded" else 400)))
                found = client.quote(asked, name, max_tokens=6 if name == "embedded" else 4000)
                real = client.invoke(asked, name, max_tokens=6 if name == "embedded" else 4000).usage.cost_usd
                over += real > found.most_usd

    assert over == 0


WORDS = ["the", "owl", "sees", "Größe", "안녕", "x=3;", "1234", "of", "because", "tokenizer", "\n", "{'a': 1}", "house"]


def test_at_the_command_line(server, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path))
    server.script = [Answer()]

    def run(*args, code=0):
        command = ["quote", "-m", "openai/gpt-4o", "-o", "max_tokens=100", *args]
        done = commands.run(command, text="from stdin")
        assert done.returncode == code, done.stderr
        return done.stdout

    assert json.loads(run("--json", "hi"))["answer_tokens"] == 100
    assert run("hi").splitlines()[0].endswith("window 128000, fits; answer up to 100 tokens")
    Budgets(tmp_path / "llmkit.db").set(Budget(name="none", limit_usd=0))
    assert "budget 'none' has 0.000000 USD left of 0" in run("--budget", "none", "hi", code=3)
    assert server.requests == []
