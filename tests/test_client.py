"""MultiAIClient: tries, fallbacks, money, tools and schemas, in both colours."""

from __future__ import annotations

import asyncio
import json
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import pytest
from pydantic import BaseModel
from server import ANSWER, Answer, Drop, ScriptedServer, Status

import llmkit
from llmkit import Deployment, MultiAIClient, Retry, Usage
from llmkit.errors import (
    BadRequestError,
    BudgetExceededError,
    ConfigError,
    ContextWindowExceededError,
    IncompleteStreamError,
    InternalServerError,
    InvalidRequestError,
    LlmkitError,
    ProviderError,
    RateLimitError,
    SchemaError,
)
from llmkit.testing import ScriptedBackend, reply

MESSAGES = [{"role": "user", "content": "Raconte moi une blague."}]
KEY = "sk-local-0123456789"


def azure(url: str, **settings) -> Deployment:
    return Deployment(
        model="gpt-4o", provider="azure", deployment_name="gpt-4o-2024-05-13", api_key=KEY, endpoint=url, **settings
    )


def scripted(*script, deployments=None, **settings) -> tuple[MultiAIClient, ScriptedBackend]:
    backend = ScriptedBackend(*script)
    known = deployments or {"gpt-4o": Deployment("gpt-4o", "openai", api_key=KEY)}
    return MultiAIClient(known, backend=backend, **settings), backend


class Ledger:
    """A user's database: it is told the price of each answer."""

    def __init__(self, *, result=True):
        self.calls = []
        self.result = result

    def increment_usage(self, price, model):
        self.calls.append((price, model))
        return self.result

    async def aincrement_usage(self, price, model):
        await asyncio.sleep(0)
        return self.increment_usage(price, model)


@pytest.fixture(params=["plain", "async"])
def ledger(request):
    book = Ledger()
    book.callback = book.increment_usage if request.param == "plain" else book.aincrement_usage
    return book


# -- the document's own examples --------------------------------------------------------------------------------------


def test_the_documents_client(call, server):
    client = MultiAIClient(deployments={"gpt-4o": azure(server.url)})

    assert call(client, "invoke_to_str", messages=MESSAGES, model="gpt-4o") == ANSWER
    assert call(client, "invoke", MESSAGES, model="gpt-4o").choices[0].message.content == ANSWER
    sent = server.requests[0]
    assert sent.path == "/openai/deployments/gpt-4o-2024-05-13/chat/completions?api-version=2023-05-15"
    assert sent.headers["api-key"] == KEY


def test_the_documents_parameters(call, server):
    client = MultiAIClient(deployments={"gpt-4o": azure(server.url)})

    call(
        client, "invoke_to_str", messages=MESSAGES, model="gpt-4o", system="Tu es un assistant utile.",
        delay=0.0, tries=1, temperature=0.7, max_tokens=500, top_p=0.9,
    )  # fmt: skip
    body = server.requests[0].body

    assert (body["temperature"], body["max_tokens"], body["top_p"]) == (0.7, 500, 0.9)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]


def test_the_documents_stream(read, server):
    client = MultiAIClient(deployments={"gpt-4o": azure(server.url)})

    pieces, whole = read(client, "stream", MESSAGES, model="gpt-4o")

    assert "".join(piece.content for piece in pieces if piece.content) == ANSWER
    assert all(hasattr(piece, "content") for piece in pieces)
    assert not pieces[0].content
    assert whole.text == ANSWER


def test_one_list_can_be_sent_twice_with_a_system_message(call, server):
    client = MultiAIClient(deployments={"gpt-4o": azure(server.url)})
    messages = [{"role": "user", "content": "hi"}]

    for _ in range(2):
        call(client, "invoke", messages, "gpt-4o", "S")

    assert messages == [{"role": "user", "content": "hi"}]
    assert [[m["role"] for m in sent.body["messages"]] for sent in server.requests] == [["system", "user"]] * 2


def test_an_answer_without_choices_is_none_and_is_charged(call):
    ledger = Ledger()
    empty = llmkit.Reply(text="", model="x", usage=Usage(prompt_tokens=3, cost_usd=0.5, source="priced"))
    client, _ = scripted(empty, increment_usage=ledger.increment_usage)

    assert call(client, "invoke_to_str", MESSAGES, "gpt-4o") is None
    assert ledger.calls == [(0.5, "gpt-4o")]


# -- tries -------------------------------------------------------------------------------------------------------------


def test_tries_are_http_requests(call, server):
    server.script = [Status(429), Status(429), Answer()]
    client = MultiAIClient(deployments={"gpt-4o": azure(server.url)})

    assert call(client, "invoke_to_str", MESSAGES, "gpt-4o", tries=3, delay=0) == ANSWER
    assert len(server.requests) == 3


def test_spent_tries_raise_the_mapped_error(call, server):
    server.script = [Status(429)] * 5
    client = MultiAIClient(deployments={"gpt-4o": azure(server.url)})

    with pytest.raises(ValueError, match="scripted 429") as caught:
        call(client, "invoke", MESSAGES, "gpt-4o")

    assert isinstance(caught.value, RateLimitError)
    assert caught.value.__cause__ is not None
    assert len(server.requests) == 1


def test_the_delay_is_waited_between_tries_and_not_after_the_last(call):
    client, backend = scripted(*[RateLimitError("slow")] * 3)

    with pytest.raises(RateLimitError):
        call(client, "invoke", MESSAGES, "gpt-4o", tries=3, delay=0.2)

    assert backend.sleeps == [0.2, 0.2]


def test_a_long_delay_is_not_shortened(call):
    client, backend = scripted(RateLimitError("slow"), "ok")

    call(client, "invoke", MESSAGES, "gpt-4o", tries=2, delay=30)

    assert backend.sleeps == [30]


@pytest.mark.parametrize("entry", [Status(408), Status(409), Status(500), Status(503), Drop()], ids=str)
def test_every_passing_failure_is_tried_again(call, server, entry):
    server.script = [entry, Answer()]
    client = MultiAIClient(deployments={"gpt-4o": azure(server.url)})

    assert call(client, "invoke_to_str", MESSAGES, "gpt-4o", tries=2) == ANSWER


@pytest.mark.parametrize("code", [400, 401, 403, 404, 422])
def test_a_lasting_failure_is_never_tried_again(call, server, code):
    server.script = [Status(code), Answer()]
    client = MultiAIClient(deployments={"gpt-4o": azure(server.url)})

    with pytest.raises(ProviderError):
        call(client, "invoke", MESSAGES, "gpt-4o", tries=3)

    assert len(server.requests) == 1


def test_a_clients_retry_holds_where_a_call_says_nothing(call):
    client, backend = scripted(RateLimitError("slow"), RateLimitError("slow"), "ok", retry=Retry(tries=3, delay_s=1))

    assert call(client, "invoke_to_str", MESSAGES, "gpt-4o") == "ok"
    assert backend.sleeps == [1, 2]


def test_waiting_does_not_hold_the_loop_up(server):
    server.script = [Status(429), Answer()]
    client = MultiAIClient(deployments={"gpt-4o": azure(server.url)})
    ticks = []

    async def tick():
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.02)

    async def main():
        ticking = asyncio.create_task(tick())
        await client.ainvoke(MESSAGES, "gpt-4o", tries=2, delay=0.5)
        ticking.cancel()

    asyncio.run(main())

    assert len(ticks) > 10


# -- fallbacks ---------------------------------------------------------------------------------------------------------

THREE = {
    "gpt-4o": Deployment("gpt-4o", "openai", api_key=KEY),
    "claude": Deployment("claude", "anthropic", "claude-3-5-haiku-20241022", api_key=KEY),
    "small": Deployment("small", "openai", "gpt-4", api_key=KEY),
}


@pytest.mark.parametrize("error", [RateLimitError("x"), InternalServerError("x"), llmkit.AuthenticationError("x")])
def test_fallbacks_are_asked_in_order_after_the_tries_of_the_first(call, error):
    book = Ledger()
    client, backend = scripted(
        error, error, "from claude",
        deployments=THREE, fallbacks={"gpt-4o": ["small", "claude"]}, increment_usage=book.increment_usage,
    )  # fmt: skip

    answer = call(client, "invoke", MESSAGES, "gpt-4o")

    assert [request.name for request in backend.requests] == ["gpt-4o", "small", "claude"]
    assert answer.name == "claude"
    assert client.usages[0].model == "claude"


def test_a_wrong_request_does_not_fall_back(call):
    client, backend = scripted(BadRequestError("x"), deployments=THREE, fallbacks={"gpt-4o": ["claude"]})

    with pytest.raises(BadRequestError):
        call(client, "invoke", MESSAGES, "gpt-4o")

    assert len(backend.requests) == 1


def test_too_long_a_context_goes_to_the_next_with_a_larger_window(call):
    """gpt-4 has 8,192 tokens, gpt-4o 128,000, claude 200,000."""
    client, backend = scripted(
        ContextWindowExceededError("too long"), "from claude",
        deployments=THREE, fallbacks={"gpt-4o": ["small", "claude"]},
    )  # fmt: skip

    assert call(client, "invoke_to_str", MESSAGES, "gpt-4o") == "from claude"
    assert [request.name for request in backend.requests] == ["gpt-4o", "claude"]


def test_the_last_failure_is_raised_when_every_fallback_fails(call):
    client, _ = scripted(
        RateLimitError("first"), InternalServerError("second"), deployments=THREE, fallbacks={"gpt-4o": ["claude"]}
    )

    with pytest.raises(InternalServerError, match="second"):
        call(client, "invoke", MESSAGES, "gpt-4o")


def test_a_stream_falls_back_until_it_is_open(read):
    client, _ = scripted(RateLimitError("x"), "from claude", deployments=THREE, fallbacks={"gpt-4o": ["claude"]})

    _, answer = read(client, "stream", MESSAGES, "gpt-4o")

    assert answer.text == "from claude"
    assert client.usages[0].model == "claude"


def test_a_fallback_that_is_not_deployed_is_refused():
    with pytest.raises(ConfigError, match=r"'nobody'.*gpt-4o"):
        scripted(fallbacks={"gpt-4o": ["nobody"]})


# -- money -------------------------------------------------------------------------------------------------------------

PRICED = Usage(prompt_tokens=10, completion_tokens=5, total_tokens=15, cost_usd=0.25, source="priced")


def test_increment_usage_is_called_once_with_the_logical_name(call, server, ledger):
    server.script = [Answer(usage={"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500})]
    client = MultiAIClient({"gpt-4o": azure(server.url)}, increment_usage=ledger.callback)

    call(client, "invoke", MESSAGES, "gpt-4o")

    assert ledger.calls == [(pytest.approx(0.00825), "gpt-4o")]
    assert client.total_usage == pytest.approx(0.00825)


def test_cached_tokens_are_charged_at_their_own_price(call, server, ledger):
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "total_tokens": 1500,
        "prompt_tokens_details": {"cached_tokens": 400},
    }
    server.script = [Answer(usage=usage)]
    client = MultiAIClient({"gpt-4o": azure(server.url)}, increment_usage=ledger.callback)

    call(client, "invoke", MESSAGES, "gpt-4o")

    assert ledger.calls == [(pytest.approx(0.0077), "gpt-4o")]


def test_a_stream_is_charged_once_at_its_end(read, server, ledger):
    client = MultiAIClient({"gpt-4o": azure(server.url)}, increment_usage=ledger.callback)

    read(client, "stream", MESSAGES, "gpt-4o")

    assert ledger.calls == [(pytest.approx((11 * 2.75 + 5 * 11) / 1e6), "gpt-4o")]


def test_a_refused_call_is_not_charged(call, read, server, ledger):
    server.script = [Status(401), Status(401)]
    client = MultiAIClient({"gpt-4o": azure(server.url)}, increment_usage=ledger.callback)

    with pytest.raises(llmkit.AuthenticationError):
        call(client, "invoke", MESSAGES, "gpt-4o")
    with pytest.raises(llmkit.AuthenticationError):
        read(client, "stream", MESSAGES, "gpt-4o")

    assert ledger.calls == []
    assert client.usages == []


def test_a_stream_left_early_is_charged_by_estimate(read, server, ledger):
    server.script = [Answer("word " * 300, end="slow", delay_s=0.01)]
    client = MultiAIClient({"gpt-4o": azure(server.url)}, increment_usage=ledger.callback)

    _, answer = read(client, "stream", MESSAGES, "gpt-4o", most=5)

    assert server.broken.wait(5)
    assert answer.usage.source == "estimated"
    assert ledger.calls == [(answer.usage.cost_usd, "gpt-4o")]
    assert answer.usage.cost_usd > 0


def test_a_cut_stream_is_charged_by_estimate_and_raises(read, server, ledger):
    server.script = [Answer(end="eof")]
    client = MultiAIClient({"gpt-4o": azure(server.url)}, increment_usage=ledger.callback)

    with pytest.raises(IncompleteStreamError):
        read(client, "stream", MESSAGES, "gpt-4o")

    assert len(ledger.calls) == 1
    assert client.usages[0].usage.source == "estimated"


def test_a_failing_callback_never_loses_the_answer(call, read, caplog):
    def failing(price, model):
        raise OSError("the database is gone")

    client, _ = scripted(reply("paid", usage=PRICED), reply("paid", usage=PRICED), increment_usage=failing)

    whole = call(client, "invoke", MESSAGES, "gpt-4o")
    _, streamed = read(client, "stream", MESSAGES, "gpt-4o")

    for answer in (whole, streamed):
        assert answer.text == "paid"
        assert answer.warnings == ("increment_usage failed: OSError: the database is gone",)
    assert "the database is gone" in caplog.text


def test_a_slow_callback_does_not_delay_an_awaited_answer_unduly():
    released = []

    async def slow(price, model):
        await asyncio.sleep(0.5)
        released.append(model)

    client, _ = scripted(reply("paid", usage=PRICED), increment_usage=slow, callback_timeout=0.1)

    async def main():
        started = time.monotonic()
        answer = await client.ainvoke(MESSAGES, "gpt-4o")
        waited = time.monotonic() - started
        await asyncio.sleep(0.6)
        return answer, waited

    answer, waited = asyncio.run(main())

    assert answer.text == "paid"
    assert waited < 0.4
    assert "did not return within" in answer.warnings[0]
    assert released == ["gpt-4o"]  # it went on


def test_a_callback_that_says_no_marks_the_answer(call):
    book = Ledger(result=False)
    client, _ = scripted(reply("paid", usage=PRICED), increment_usage=book.increment_usage)

    answer = call(client, "invoke", MESSAGES, "gpt-4o")

    assert answer.text == "paid"
    assert answer.over_limit is True


def test_an_unknown_price_is_said_and_not_charged_as_zero(call):
    book = Ledger()
    client, _ = scripted(reply("paid"), increment_usage=book.increment_usage)

    answer = call(client, "invoke", MESSAGES, "gpt-4o")

    assert book.calls == []
    assert answer.usage.cost_usd is None
    assert any("increment_usage was not called" in warning for warning in answer.warnings)
    assert len(client.usages) == 1


def plain_gate(value):
    return lambda: value


def async_gate(value):
    async def get_usage():
        await asyncio.sleep(0)
        return value

    return get_usage


@pytest.mark.parametrize("gate", [plain_gate, async_gate])
def test_get_usage_refuses_with_false_and_nothing_is_sent(call, read, gate):
    book = Ledger()
    client, backend = scripted("x", "y", get_usage=gate(False), increment_usage=book.increment_usage)

    with pytest.raises(BudgetExceededError):
        call(client, "invoke", MESSAGES, "gpt-4o")
    with pytest.raises(BudgetExceededError):
        read(client, "stream", MESSAGES, "gpt-4o")

    assert backend.requests == []
    assert book.calls == []


@pytest.mark.parametrize("value", [0.0, 0, 99.5, True, None])
@pytest.mark.parametrize("gate", [plain_gate, async_gate])
def test_get_usage_lets_everything_else_pass(call, gate, value):
    client, _ = scripted("ok", get_usage=gate(value))

    assert call(client, "invoke_to_str", MESSAGES, "gpt-4o") == "ok"


def test_numpys_false_is_false_and_a_forgotten_return_is_no_number(call):
    import numpy as np

    refused, backend = scripted("ok", get_usage=lambda: np.float32(1) < np.float32(0.5))
    limited, other = scripted("ok", get_usage=lambda: None, max_usage=5)
    told, _ = scripted(reply("paid", usage=PRICED), increment_usage=lambda price, model: np.False_)

    with pytest.raises(BudgetExceededError, match="no call may be made"):
        call(refused, "invoke", MESSAGES, "gpt-4o")
    with pytest.raises(BudgetExceededError, match="must return a number or a boolean, not None"):
        call(limited, "invoke", MESSAGES, "gpt-4o")
    assert backend.requests == other.requests == []
    assert call(told, "invoke", MESSAGES, "gpt-4o").over_limit


def test_a_stop_iteration_out_of_a_users_function_is_an_error_like_any_other(call):
    def first(*_):
        return next(iter([]))

    def pick(x: int) -> int:
        return first(x)

    gated, _ = scripted("ok", get_usage=first)
    charged, _ = scripted(reply("paid", usage=PRICED), increment_usage=first)
    asked, backend = scripted(asks(("1", "pick", '{"x": 1}')), "sorry")

    with pytest.raises(BudgetExceededError, match=r"get_usage failed.*StopIteration"):
        call(gated, "invoke", MESSAGES, "gpt-4o")
    assert "StopIteration" in call(charged, "invoke", MESSAGES, "gpt-4o").warnings[0]
    assert call(asked, "invoke_to_str", MESSAGES, "gpt-4o", tools=[pick]) == "sorry"
    assert "StopIteration" in backend.requests[1].messages[-1]["content"]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"budget": 5}, "a budget is a name or a Budget"),
        ({"store": 5, "budget": "b"}, "URL or its path"),
        ({"ledger": 5}, "URL or its path"),
        ({"tags": 5}, "tags must be a list of texts"),
        ({"preset": 5}, "preset must be a preset's name"),
    ],
)
def test_an_argument_of_another_type_is_refused_in_words(call, tmp_path, wrong, error):
    with pytest.raises(LlmkitError, match=error):
        call(llmkit, "ask", "hi", model="openai/gpt-4o", api_key="k", api_base="http://127.0.0.1:9", retry=1, **wrong)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"budget": 5}, {"ledger": 5}, {"max_usage": "1"}])
def test_a_client_is_not_made_of_what_cannot_be(wrong):
    with pytest.raises(LlmkitError, match=r"a budget is|URL or its path|must be a number"):
        scripted("x", **wrong)


def test_a_number_is_compared_with_max_usage(call):
    client, backend = scripted("ok", get_usage=lambda: 4.99, max_usage=5)
    call(client, "invoke", MESSAGES, "gpt-4o")
    refused, unused = scripted("ok", get_usage=lambda: 5.0, max_usage=5)

    with pytest.raises(BudgetExceededError) as caught:
        call(refused, "invoke", MESSAGES, "gpt-4o")

    assert (caught.value.spent, caught.value.limit) == (5.0, 5)
    assert (len(backend.requests), len(unused.requests)) == (1, 0)


def test_max_usage_counts_the_clients_own_spending(call):
    client, backend = scripted(*[reply("x", usage=PRICED)] * 9, max_usage=0.5)

    for _ in range(2):
        call(client, "invoke", MESSAGES, "gpt-4o")

    with pytest.raises(BudgetExceededError):
        call(client, "invoke", MESSAGES, "gpt-4o")

    assert len(backend.requests) == 2
    assert client.total_usage == 0.5


def test_requests_tokens_and_charges_agree_with_the_servers_own_tally(server):
    """Sync, async, both streams, 429-then-200 and a fallback, mixed over threads and loops."""
    tally = {"requests": 0, "prompt": 0, "completion": 0}

    def count(body):
        tally["requests"] += 1
        if tally["requests"] % 5 == 0:
            return Status(429)
        prompt, completion = 7 + tally["requests"], 3 + tally["requests"] % 11
        tally["prompt"] += prompt
        tally["completion"] += completion
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        return Answer(usage=usage)

    server.script = [count] * 1000
    book = Ledger()
    client = MultiAIClient(
        {"gpt-4o": azure(server.url), "other": azure(server.url)},
        increment_usage=book.increment_usage,
        fallbacks={"gpt-4o": ["other"]},
    )

    async def several():
        async def one_stream():
            async with client.astream(MESSAGES, "gpt-4o", tries=4) as stream:
                return [piece async for piece in stream]

        await asyncio.gather(
            *(client.ainvoke(MESSAGES, "gpt-4o", tries=4) for _ in range(15)), *(one_stream() for _ in range(15))
        )

    with ThreadPoolExecutor(4) as pool:
        done = [pool.submit(client.invoke, MESSAGES, "gpt-4o", tries=3) for _ in range(15)]
        done += [pool.submit(lambda: list(client.stream(MESSAGES, "gpt-4o", tries=3))) for _ in range(15)]
        asyncio.run(several())
        for future in done:
            future.result()

    used = [charge.usage for charge in client.usages]
    assert len(used) == len(book.calls) == 60
    assert sum(usage.prompt_tokens for usage in used) == tally["prompt"]
    assert sum(usage.completion_tokens for usage in used) == tally["completion"]
    assert len(server.requests) == tally["requests"]
    expected = (tally["prompt"] * 2.75 + tally["completion"] * 11) / 1e6
    assert client.total_usage == pytest.approx(expected)
    assert sum(price for price, _ in book.calls) == pytest.approx(expected)


# -- one client in many places -----------------------------------------------------------------------------------------


def test_one_client_in_two_loops_in_threads_and_below_a_running_loop(server, capfd):
    client = MultiAIClient({"gpt-4o": azure(server.url)})

    for _ in range(2):
        assert asyncio.run(client.ainvoke_to_str(MESSAGES, "gpt-4o")) == ANSWER
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: client.invoke_to_str(MESSAGES, "gpt-4o"), range(24))) == {ANSWER}

    async def notebook():
        return client.invoke_to_str(MESSAGES, "gpt-4o")

    assert asyncio.run(notebook()) == ANSWER
    assert capfd.readouterr() == ("", "")


def test_a_closed_client_says_so(call):
    client, _ = scripted("x")
    with client:
        pass

    with pytest.raises(InvalidRequestError, match="closed"):
        call(client, "invoke", MESSAGES, "gpt-4o")


def test_an_async_client_closes_too():
    client, _ = scripted("x")

    async def main():
        async with client:
            return await client.ainvoke_to_str(MESSAGES, "gpt-4o")

    assert asyncio.run(main()) == "x"


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "model", "options", "complaint"),
    [
        (MESSAGES, "gpt-5", {}, r"'gpt-5' is not deployed; deployed: gpt-4o"),
        (MESSAGES, "gpt-4o", {"tries": 0}, "tries"),
        (MESSAGES, "gpt-4o", {"delay": -1}, "delay"),
        ([], "gpt-4o", {}, "empty"),
        ([{"content": "hi"}], "gpt-4o", {}, "message 0 has no role"),
        ([*MESSAGES, {"role": "banana", "content": "x"}], "gpt-4o", {}, "message 1 has an unknown role 'banana'"),
        ([{"role": "user", "content": [{"typ": "text"}]}], "gpt-4o", {}, "message 0, part 0 is no part"),
        (MESSAGES, "gpt-4o", {"metadata": {"when": object()}}, "metadata cannot be sent"),
        (MESSAGES, "gpt-4o", {"tools": ["weather"]}, "tool 0"),
        (MESSAGES, "gpt-4o", {"schema": "json"}, "schema must be"),
        (MESSAGES, "gpt-4o", {"max_rounds": 0}, "max_rounds"),
        (MESSAGES, "gpt-4o", {"timeout": -1}, "timeout"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_sent(call, read, messages, model, options, complaint):
    client, backend = scripted("never")

    for method, run in (("invoke", call), ("stream", read)):
        with pytest.raises(InvalidRequestError, match=complaint):
            run(client, method, messages, model, **options)

    assert backend.requests == []


def test_what_a_provider_does_not_take_is_left_out_only_on_request_and_said(call, server):
    deployment = Deployment("claude", "anthropic", "claude-3-5-haiku-20241022", api_key=KEY, endpoint=server.url)
    client = MultiAIClient({"claude": deployment})

    with pytest.raises(llmkit.UnsupportedParamsError, match="presence_penalty"):
        call(client, "invoke", MESSAGES, "claude", presence_penalty=1.0)
    answer = call(client, "invoke", MESSAGES, "claude", presence_penalty=1.0, drop_params=True)

    assert len(server.requests) == 1
    assert any("presence_penalty" in warning for warning in answer.warnings)


# -- structured output -------------------------------------------------------------------------------------------------


class City(BaseModel):
    """A city and its country."""

    name: str
    country: Literal["France", "Italy"]


PARIS = '{"name": "Paris", "country": "France"}'


@pytest.mark.parametrize("schema", [City, City.model_json_schema()], ids=["class", "JSON schema"])
@pytest.mark.parametrize("text", [PARIS, f"```json\n{PARIS}\n```"], ids=["plain", "fenced"])
def test_a_schema_gives_the_parsed_answer(call, schema, text):
    client, backend = scripted(text)

    answer = call(client, "invoke", MESSAGES, "gpt-4o", schema=schema)

    assert answer.parsed == (City(name="Paris", country="France") if schema is City else json.loads(PARIS))
    sent = backend.requests[0].params["response_format"]
    assert sent["type"] == "json_schema"
    assert sent["json_schema"]["schema"]["required"] == ["name", "country"]


def test_an_answer_that_does_not_fit_is_asked_once_more_with_the_reason(call):
    client, backend = scripted(reply('{"name": "Oslo", "country": "Norway"}', usage=PRICED), reply(PARIS, usage=PRICED))

    answer = call(client, "invoke", MESSAGES, "gpt-4o", schema=City)

    assert answer.parsed.name == "Paris"
    assert answer.usage.cost_usd == 0.5
    wrong, reason = backend.requests[1].messages[-2:]
    assert (wrong["role"], reason["role"]) == ("assistant", "user")
    assert "country" in reason["content"]


def test_a_second_misfit_is_an_error_with_the_text(call):
    client, _ = scripted("no json", "still none")

    with pytest.raises(SchemaError) as caught:
        call(client, "invoke", MESSAGES, "gpt-4o", schema=City)

    assert caught.value.partial == "still none"
    assert len(client.usages) == 2


def test_a_stream_is_parsed_at_its_end(read):
    client, _ = scripted(PARIS, "nothing")

    _, answer = read(client, "stream", MESSAGES, "gpt-4o", schema=City)
    assert answer.parsed.name == "Paris"

    with pytest.raises(SchemaError):
        read(client, "stream", MESSAGES, "gpt-4o", schema=City)


def test_a_schema_on_the_embedded_model(call):
    class Capital(BaseModel):
        city: str

    answer = call(llmkit, "ask", "What is the capital of France?", model="local/smollm2", schema=Capital, max_tokens=60)

    assert isinstance(answer.parsed.city, str)
    assert answer.parsed.city


# -- tools -------------------------------------------------------------------------------------------------------------


def asks(*calls, text=""):
    """Return a reply that asks for tools: (id, name, arguments)."""
    tool_calls = [{"id": i, "type": "function", "function": {"name": n, "arguments": a}} for i, n, a in calls]
    return reply(text, finish_reason="tool_calls", tool_calls=tool_calls, usage=PRICED)


def weather(city: str, days: int = 1) -> dict:
    """Tell the weather of a city."""
    return {"city": city, "days": days, "sky": "clear"}


async def aweather(city: str) -> str:
    """Tell the weather of a city."""
    await asyncio.sleep(0)
    return f"clear in {city}"


def run_in(form, call, read, client, *args, **kwargs):
    if form == "whole":
        return call(client, "invoke", *args, **kwargs)
    return read(client, "stream", *args, **kwargs)[1]


@pytest.fixture(params=["whole", "streamed"])
def form(request):
    return request.param


@pytest.mark.parametrize("tool", [weather, aweather])
def test_a_python_function_is_called_for_the_model(call, read, form, tool):
    client, backend = scripted(asks(("1", tool.__name__, '{"city": "Boston"}')), reply("It is clear.", usage=PRICED))

    answer = run_in(form, call, read, client, MESSAGES, "gpt-4o", tools=[tool])

    assert answer.text == "It is clear."
    assert answer.usage.cost_usd == 0.5
    described = backend.requests[0].params["tools"][0]["function"]
    assert described["name"] == tool.__name__
    assert described["description"] == "Tell the weather of a city."
    assert described["parameters"]["properties"]["city"] == {"type": "string"}
    asked, told = backend.requests[1].messages[-2:]
    assert asked["tool_calls"][0]["id"] == told["tool_call_id"] == "1"
    assert "Boston" in told["content"]
    assert len(client.usages) == 2


def test_parallel_calls_run_together(call, read, form):
    import threading

    meeting = threading.Barrier(2, timeout=5)

    def wait(name: str) -> str:
        meeting.wait()
        return name

    client, backend = scripted(asks(("1", "wait", '{"name": "a"}'), ("2", "wait", '{"name": "b"}')), "done")

    run_in(form, call, read, client, MESSAGES, "gpt-4o", tools=[wait])

    told = [message for message in backend.requests[1].messages if message["role"] == "tool"]
    assert [(message["tool_call_id"], message["content"]) for message in told] == [("1", "a"), ("2", "b")]


def test_what_goes_wrong_in_a_tool_is_told_to_the_model(call, read, form):
    def failing(x: int) -> int:
        raise ZeroDivisionError("no")

    calls = [
        ("1", "failing", '{"x": 1}'),
        ("2", "failing", '{"x": "one"}'),
        ("3", "failing", "{"),
        ("4", "ghost", "{}"),
        ("5", "failing", '{"x": ' + "[" * 100_000),
    ]
    client, backend = scripted(asks(*calls), "sorry")

    answer = run_in(form, call, read, client, MESSAGES, "gpt-4o", tools=[failing])

    told = [message["content"] for message in backend.requests[1].messages if message["role"] == "tool"]
    assert answer.text == "sorry"
    assert told[0] == "error: ZeroDivisionError: no"
    assert told[1].startswith("error: the arguments do not fit")
    assert told[2].startswith("error: the arguments do not fit")
    assert told[3] == "error: there is no tool 'ghost'"
    assert told[4] == "error: the arguments do not fit: they are nested too deeply"


@pytest.mark.parametrize("ending", [SystemExit, KeyboardInterrupt])
def test_a_tool_that_ends_the_program_ends_it(call, read, form, ending):
    def leave() -> None:
        raise ending

    client, backend = scripted(asks(("1", "leave", "{}")), "goodbye")

    with pytest.raises(ending):
        run_in(form, call, read, client, MESSAGES, "gpt-4o", tools=[leave])

    assert len(backend.requests) == 1


def test_a_tools_result_that_has_fields_is_told_as_json(call, read, form):
    class Dog(BaseModel):
        name: str
        age: int

    @dataclass
    class Place:
        city: str
        dogs: list[Dog]

    def found() -> Place:
        return Place("Rome", [Dog(name="Rex", age=3)])

    client, backend = scripted(asks(("1", "found", "{}")), "done")

    run_in(form, call, read, client, MESSAGES, "gpt-4o", tools=[found])

    told = backend.requests[1].messages[-1]["content"]
    assert json.loads(told) == {"city": "Rome", "dogs": [{"name": "Rex", "age": 3}]}


def test_a_tools_parameters_may_have_any_name(call, read, form):
    def file(schema: str, _a: int = 1, model_config: str = "", json: str = "", copy: int = 0) -> str:
        return f"{schema} {_a} {model_config} {json} {copy}"

    given = {"schema": "s", "_a": "2", "model_config": "m", "json": "j", "copy": 3}
    client, backend = scripted(asks(("1", "file", json.dumps(given)), ("2", "file", '{"schema": "s", "b": 1}')), "done")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_in(form, call, read, client, MESSAGES, "gpt-4o", tools=[file])

    described = backend.requests[0].params["tools"][0]["function"]["parameters"]
    assert list(described["properties"]) == list(given)
    assert described["properties"]["_a"] == {"type": "integer", "default": 1}
    assert described["required"] == ["schema"]
    first, second = (message["content"] for message in backend.requests[1].messages if message["role"] == "tool")
    assert first == "s 2 m j 3"
    assert second == "error: the arguments do not fit: b: Extra inputs are not permitted"


@pytest.mark.parametrize("texts", [None, 5, b"ab", {"a": 1}])
def test_what_is_no_text_to_embed_is_refused(call, texts):
    client, backend = scripted("never")

    with pytest.raises(InvalidRequestError, match=f"a text or a list of texts, not {type(texts).__name__}"):
        call(client, "embed", texts, "gpt-4o")

    assert backend.requests == []


def test_two_tools_of_one_name_are_refused(call, read, form):
    client, backend = scripted("never")
    schema = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}

    for tools in ([weather, weather], [weather, schema], [schema, schema]):
        with pytest.raises(InvalidRequestError, match="tool 1 has the name 'weather' of another tool"):
            run_in(form, call, read, client, MESSAGES, "gpt-4o", tools=tools)

    assert backend.requests == []


def test_the_loop_is_bounded(call, read, form):
    client, backend = scripted(*[asks(("1", "weather", '{"city": "x"}'))] * 9)

    answer = run_in(form, call, read, client, MESSAGES, "gpt-4o", tools=[weather], max_rounds=3)

    assert len(backend.requests) == 3
    assert "after 3 rounds" in answer.warnings[-1]
    assert answer.finish_reason == "tool_calls"


def test_tools_given_as_schemas_are_the_callers_business(call):
    schema = {"type": "function", "function": {"name": "mine", "parameters": {"type": "object"}}}
    client, backend = scripted(asks(("1", "mine", "{}")))

    answer = call(client, "invoke", MESSAGES, "gpt-4o", tools=[schema])

    assert answer.tool_calls[0]["function"]["name"] == "mine"
    assert len(backend.requests) == 1


def test_the_embedded_model_says_that_it_knows_no_tools(call):
    answer = call(llmkit, "ask", "What is the capital of France?", model="local/smollm2", tools=[weather], max_tokens=4)

    assert "the embedded model knows no tools; they were not used" in answer.warnings


def test_the_whole_loop_on_the_wire(call, read, form):
    deltas = [
        {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "weather", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": "Boston"}'}}]},
    ]
    function = {"name": "weather", "arguments": '{"city": "Boston"}'}
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "a", "type": "function", "function": function}],
    }
    with ScriptedServer(Answer(message=message, deltas=deltas, finish_reason="tool_calls"), Answer("Clear.")) as server:
        client = MultiAIClient({"gpt-4o": azure(server.url)})

        answer = run_in(form, call, read, client, MESSAGES, "gpt-4o", tools=[weather])

        assert answer.text == "Clear."
        assert server.requests[1].body["messages"][-1]["role"] == "tool"
        assert json.loads(server.requests[1].body["messages"][-1]["content"])["city"] == "Boston"
    assert client.total_usage == pytest.approx(2 * (11 * 2.75 + 5 * 11) / 1e6)
