"""Money is what the provider will bill, or unknown (C1, S6, S10, U12); what may have been paid counts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time

import commands
import pytest
from databases import LONG
from server import Answer, Drop, Raw, ScriptedServer, Status, auntil, until

import llmkit
from llmkit import Budget, BudgetExceededError, Budgets, Deployment, MultiAIClient, Price, Retry, errors
from llmkit.money.ledger import ledger_of
from llmkit.providers.litellm import model_map
from llmkit.providers.litellm import sdk as litellm_sdk
from llmkit.providers.litellm.attempt import completion_of
from llmkit.testing.wire import event

KEY = "sk-local-0123456789"
MODEL = "openai/gpt-4o"


def at(server, **more):
    return {"model": MODEL, "api_base": f"{server.url}/v1", "api_key": KEY, "max_tokens": 50, "retry": 1, **more}


# -- prices -----------------------------------------------------------------------------------------------------------

INVENTED = """openai/gpt-6 openai/gpt-5.9 openai/o5 azure/gpt-6 anthropic/claude-opus-9 anthropic/claude-sonnet-6
    gemini/gemini-9-pro bedrock/anthropic.claude-opus-9 openrouter/openai/gpt-6 openai/tts-1""".split()  # noqa: SIM905


@pytest.mark.parametrize("name", INVENTED)
def test_c1_a_model_that_is_not_in_the_map_has_no_price(name):
    counts = {"prompt_tokens": 1_000_000, "completion_tokens": 1_000_000}
    assert model_map.map_cost(name, counts) is None
    assert name == "openai/tts-1" or model_map.map_price(name) is None


def test_c1_a_new_model_is_unpriced_and_stops_at_a_budget(call, server, store):
    paid = []
    client = MultiAIClient(
        {"gpt-6": Deployment("gpt-6", "openai", "gpt-6", KEY, f"{server.url}/v1")},
        increment_usage=lambda usd, name: paid.append(usd),
    )
    reply = call(client, "invoke", "hi", "gpt-6")

    assert (reply.usage.cost_usd, reply.usage.source) == (None, "unpriced")
    assert any("no price is known" in warning for warning in reply.warnings)
    assert paid == []
    with pytest.raises(BudgetExceededError, match="no price is known for openai/gpt-6"):
        call(llmkit, "ask", "hi", budget=Budget(name="b", limit_usd=1), store=store, **at(server, model="openai/gpt-6"))


def grid():
    """Every way in which an answer can be counted: (name, fields of the usage, fields of the response)."""
    prompt, answer = 1200, 400
    yield "plain", {}, {}
    yield "cached", {"prompt_tokens_details": {"cached_tokens": 1000}}, {}
    written = {"cache_creation_tokens": 1000}
    yield "cache write", {"cache_creation_input_tokens": 1000, "prompt_tokens_details": written}, {}
    hour = {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 0}
    yield (
        "cache write of an hour",
        {
            "cache_creation_input_tokens": 1000,
            "prompt_tokens_details": {**written, "cache_creation_token_details": hour},
        },
        {},
    )
    yield "reasoning", {"completion_tokens_details": {"reasoning_tokens": 300}}, {}
    yield "sound in", {"prompt_tokens_details": {"audio_tokens": 1000}}, {}
    yield "sound out", {"completion_tokens_details": {"audio_tokens": 300}}, {}
    yield "searches", {"server_tool_use": {"web_search_requests": 3}}, {}
    yield "searches of Google", {"prompt_tokens_details": {"web_search_requests": 2}}, {}
    for tier in ("priority", "flex", "default"):
        yield f"tier {tier}", {}, {"service_tier": tier}
    for edge in (128_000, 200_000, 256_000, 272_000, 512_000):
        yield f"below {edge}", {"prompt_tokens": edge - 1000}, {}
        yield f"above {edge}", {"prompt_tokens": edge + 1000}, {}
    assert prompt > answer


def chat_models():
    """Every chat model of LiteLLM's map; in the short form one of those of a provider that have the same prices."""
    litellm = litellm_sdk.load()
    found = {}
    for name, entry in litellm.model_cost.items():
        if entry.get("mode") == "chat" and entry.get("litellm_provider"):
            provider = entry["litellm_provider"]
            prices = {field: value for field, value in entry.items() if "cost" in field}
            kind = (provider, name if LONG else repr(sorted(prices.items())))
            found.setdefault(kind, (name, name if name.startswith(f"{provider}/") else f"{provider}/{name}"))
    return list(found.values())


def test_the_cost_of_every_chat_model_is_litellms_or_unknown():
    """Where llmkit and the user have no price of their own. What LiteLLM itself gets wrong is taken over as it is."""
    litellm = litellm_sdk.load()
    wrong, known = [], 0
    cases = list(grid())
    for number, (name, asked) in enumerate(chat_models()):
        # in the short form each model has the plain case and each tenth of the others, in turn
        for case, of_usage, of_response in cases if LONG else [cases[0], *cases[1 + number % 10 :: 10]]:
            fields = {"prompt_tokens": 1200, "completion_tokens": 400, **of_usage}
            usage = litellm.Usage(**fields, total_tokens=fields["prompt_tokens"] + 400)
            response = litellm.ModelResponse(model=name, usage=usage, **of_response)
            ours = model_map.map_cost(asked, usage.model_dump(), completion_of(response))
            if ours is None:
                continue
            known += 1
            found = model_map._in_price_map(asked)
            theirs = litellm.completion_cost(response, model=found.name, custom_llm_provider=found.provider)
            if ours != pytest.approx(theirs, rel=1e-9, abs=1e-15):
                wrong.append((name, case, ours, theirs))
    assert wrong == []
    assert known > (10_000 if LONG else 2_500)  # the map was not simply empty


def test_s6_the_tier_that_answered_is_what_is_billed(call, read, server):
    body = {
        "model": "gpt-5",
        "service_tier": "priority",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 1000, "total_tokens": 2000},
    }
    server.script = [Raw(json.dumps(body).encode())]
    paid = call(llmkit, "ask", "hi", service_tier="priority", **at(server, model="openai/gpt-5"))

    litellm = litellm_sdk.load()
    counts = {"prompt_tokens": 1000, "completion_tokens": 1000, "total_tokens": 2000}
    plain = model_map.map_cost("openai/gpt-5", counts)
    assert paid.usage.cost_usd == pytest.approx(
        litellm.completion_cost(
            litellm.ModelResponse(model="gpt-5", usage=litellm.Usage(**counts), service_tier="priority")
        )
    )
    assert paid.usage.cost_usd > 1.5 * plain


def most(**options):
    return llmkit.quote("hi", **{"model": "openai/gpt-5", "max_tokens": 1000, **options}).most_usd


def test_s6_the_most_that_a_call_can_cost_knows_tiers_and_predictions():
    assert most(service_tier="priority") > 1.5 * most()
    predicted = {"type": "content", "content": "x" * 20_000}
    assert most(prediction=predicted) > most() + 20_000 * 1e-5
    assert most(n=3) > 2.5 * most()
    assert most(extra_body={"max_tokens": 50_000}) > 10 * most()


def test_the_most_counts_every_text_that_is_sent_and_no_limit_that_is_not():
    assert most(documents=[{"text": "x " * 10_000}]) > most() + 20_000 * 1e-6
    assert most(extra_body={"messages": [{"role": "user", "content": "x " * 10_000}]}) > most() + 20_000 * 1e-6
    assert most(additional_drop_params=["max_tokens"]) > 10 * most()
    assert most(n="3") == most(n=3)
    assert most(stop=["x" * 100], user="someone", metadata={"a": "b" * 1000}) == most()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"model": "openai/gpt-4o-search-preview", "web_search_options": {}}, "a hosted search has no limit"),
        ({"web_search_options": {"search_context_size": "high"}}, "a hosted search has no limit"),
        ({"tools": [{"type": "web_search_preview"}]}, "a hosted tool has no limit"),
        ({"model": "openai/my-own", "max_tokens": None}, "longest answer of this model is not known: set max_tokens"),
    ],
)
def test_s6_what_has_no_bound_is_refused_under_a_budget(call, server, store, options, why):
    asked = {name: value for name, value in at(server, **options).items() if value is not None}
    with pytest.raises(BudgetExceededError, match=why):
        call(llmkit, "ask", "hi", budget=Budget(name="b", limit_usd=1000), store=store, **asked)
    assert server.requests == []


@pytest.mark.parametrize(
    ("part", "why"),
    [
        ({"type": "file", "file": {"file_id": "https://files.example/a.pdf"}}, "how many tokens the file has"),
        ({"type": "video_url", "video_url": {"url": "https://files.example/a.mp4"}}, "how many tokens the video has"),
        ({"type": "input_audio", "input_audio": {"url": "https://x.example"}}, "how many tokens the sound has"),
    ],
)
def test_media_of_unknown_size_are_refused_under_a_budget(call, server, store, part, why):
    messages = [{"role": "user", "content": [{"type": "text", "text": "hi"}, part]}]
    with pytest.raises(BudgetExceededError, match=why):
        call(llmkit, "ask", messages, budget=Budget(name="b", limit_usd=1000), store=store, **at(server))
    assert server.requests == []


def test_s10_a_picture_elsewhere_is_not_fetched_and_its_answer_is_not_lost(call, server, store):
    with ScriptedServer() as elsewhere:
        url = {"url": f"{elsewhere.url}/a.png", "detail": "high"}
        messages = [{"role": "user", "content": [{"type": "image_url", "image_url": url}]}]
        server.script = [Answer(usage=None)] * 2

        reply = call(llmkit, "ask", messages, budget=Budget(name="b", limit_usd=1), store=store, **at(server))
        quote = call(llmkit, "quote", messages, **at(server))

        assert reply.text == "Hello from the server."
        assert reply.usage.source == "estimated"
        assert quote.most_usd > 0
        assert elsewhere.requests == []


# -- what may have been paid ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Answer(delay_s=3), errors.Timeout),
        (Drop(), errors.APIConnectionError),
        (Raw(b"<html>"), errors.ResponseError),
    ],
    ids=["silence", "broken", "unreadable"],
)
def test_an_attempt_of_unknown_outcome_counts_as_possibly_paid(call, server, store, fault, error):
    server.script = [fault]
    budget = Budget(name="b", limit_usd=1, period="total")
    time_s = 0.6 if error is errors.Timeout else 9  # it is sent within that

    with pytest.raises(error):
        call(llmkit, "ask", "hi", budget=budget, timeout=time_s, ledger=ledger_of(store), **at(server, store=store))

    state = Budgets(store).get("b")
    assert state.reserved == 0
    assert state.possibly_paid == pytest.approx(llmkit.quote("hi", model=MODEL, max_tokens=50).most_usd)
    (row,) = rows(store)
    assert row.possibly_usd == pytest.approx(state.possibly_paid)
    assert Budgets(store).release("b") == pytest.approx(state.possibly_paid)
    assert Budgets(store).get("b").possibly_paid == 0


@pytest.mark.parametrize("fault", [Status(500), Status(429), Status(400), "refused"])
def test_what_was_refused_or_never_arrived_is_given_back(call, server, store, fault):
    target = at(server, store=store)
    if fault == "refused":
        with ScriptedServer() as gone:
            target["api_base"] = f"{gone.url}/v1"
    else:
        server.script = [fault]

    with pytest.raises(errors.ProviderError):
        call(llmkit, "ask", "hi", budget=Budget(name="b", limit_usd=1), **target)

    state = Budgets(store).get("b")
    assert (state.settled, state.reserved, state.possibly_paid) == (0, 0, 0)


@contextlib.contextmanager
def a_port_that_takes_no_more():
    """Listen somewhere with a queue that is full: a connection is neither made nor refused."""
    with contextlib.ExitStack() as ends:
        listening = ends.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            waiting = ends.enter_context(socket.socket())
            waiting.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                waiting.connect(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"


@pytest.mark.parametrize("routes", ["on", "off"])
def test_what_got_no_connection_in_time_is_given_back(call, server, store, monkeypatch, routes):
    monkeypatch.setenv("LLMKIT_ROUTES", routes)
    with a_port_that_takes_no_more() as nowhere:
        target = at(server, store=store) | {"api_base": nowhere}
        with pytest.raises(errors.Timeout) as caught:
            call(llmkit, "ask", "hi", budget=Budget(name="b", limit_usd=1), timeout=0.3, **target)

    state = Budgets(store).get("b")
    assert (caught.value.may_be_paid, state.reserved, state.possibly_paid) == (False, 0, 0)


def test_a_call_that_is_cancelled_before_it_is_connected_is_given_back(server, store):
    async def main(nowhere):
        target = at(server, store=store) | {"api_base": nowhere}
        asking = asyncio.ensure_future(llmkit.aask("hi", budget=Budget(name="b", limit_usd=1), **target))
        await asyncio.sleep(0.3)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    with a_port_that_takes_no_more() as nowhere:
        asyncio.run(main(nowhere))

    state = Budgets(store).get("b")
    assert (state.settled, state.reserved, state.possibly_paid) == (0, 0, 0)


def test_a_retry_reserves_anew_or_is_refused(call, server, store):
    once = llmkit.quote("hi", model=MODEL, max_tokens=50).most_usd
    server.script = [Drop(), Answer()]
    retry = Retry(tries=2, delay_s=0.01)

    reply = call(
        llmkit, "ask", "hi", budget=Budget(name="b", limit_usd=2.5 * once), **at(server, store=store, retry=retry)
    )

    state = Budgets(store).get("b")
    assert state.possibly_paid == pytest.approx(once)
    assert state.settled == pytest.approx(reply.usage.cost_usd)
    server.script = [Drop(), Answer()]
    with pytest.raises(BudgetExceededError, match="possibly paid"):  # before its second try
        call(llmkit, "ask", "hi", budget="b", **at(server, store=store, retry=retry))
    assert len(server.requests) == 3
    assert Budgets(store).get("b").possibly_paid <= 2.5 * once


def test_a_cancelled_call_may_have_been_paid(server, store):
    server.script = [Answer(delay_s=3)]
    Budgets(store).set(Budget(name="b", limit_usd=1))

    async def main():
        asking = asyncio.create_task(llmkit.aask("hi", budget="b", **at(server, store=store)))
        await auntil(lambda: server.requests)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(asyncio.wait_for(main(), 60))
    assert Budgets(store).get("b").possibly_paid > 0


def test_a_killed_process_may_have_paid(server, store, database):
    server.script = [Answer(delay_s=60)]
    Budgets(store).set(Budget(name="b", limit_usd=1, period="total"))
    program = f"import llmkit; llmkit.ask('hi', budget='b', store={database!r}, **{at(server)!r})"
    child = subprocess.Popen([sys.executable, "-c", program])
    until(lambda: server.requests)
    assert Budgets(store).get("b").reserved > 0

    child.send_signal(signal.SIGKILL)
    child.wait()

    state = Budgets(store).get("b")
    assert state.reserved == 0
    assert state.possibly_paid > 0


def test_what_may_have_been_paid_ends_with_the_period(call, server, store, sql):
    server.script = [Drop(), Drop()]
    for name, period in (("day", "day"), ("ever", "total")):
        with pytest.raises(errors.APIConnectionError):
            call(llmkit, "ask", "hi", budget=Budget(name=name, limit_usd=1, period=period), **at(server, store=store))
    ends = dict(sql("SELECT budget, expires FROM llmkit_holds"))
    assert ends["day"] == Budgets(store).get("day").ends_at
    assert 29 * 86400 < ends["ever"] - time.time() < 31 * 86400

    sql("UPDATE llmkit_holds SET expires = 1")

    assert Budgets(store).get("ever").possibly_paid == 0


def test_a_release_leaves_calls_under_way_alone(server, store):
    looked_at = threading.Event()
    server.script = [Drop(), lambda _: Answer() if looked_at.wait(60) else Drop()]
    Budgets(store).set(Budget(name="b", limit_usd=1))

    async def main():
        with pytest.raises(errors.APIConnectionError):
            await llmkit.aask("hi", budget="b", **at(server, store=store))
        asking = asyncio.create_task(llmkit.aask("hi", budget="b", **at(server, store=store)))
        await auntil(lambda: len(server.requests) == 2)
        before = await asyncio.to_thread(Budgets(store).get, "b")
        released = await asyncio.to_thread(Budgets(store).release, "b")
        after = await asyncio.to_thread(Budgets(store).get, "b")
        looked_at.set()
        await asking
        return before, released, after

    before, released, after = asyncio.run(asyncio.wait_for(main(), 60))
    assert released == before.possibly_paid > 0
    assert after.reserved == before.reserved > 0


def test_a_stream_that_is_left_settles_at_once(read, server, store):
    _, reply = read(llmkit, "stream", "hi", most=2, budget=Budget(name="b", limit_usd=1), **at(server, store=store))
    state = Budgets(store).get("b")
    assert (state.reserved, state.possibly_paid) == (0, 0)
    assert state.settled == pytest.approx(reply.usage.cost_usd)
    assert reply.usage.source == "estimated"


WORDS = "word " * 200


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": WORDS},
        {"refusal": WORDS},
        {"tool_calls": [{"index": 0, "id": "1", "function": {"name": "f", "arguments": json.dumps({"x": WORDS})}}]},
    ],
    ids=lambda delta: next(iter(delta)),
)
def test_what_is_no_text_counts_too_where_the_provider_does_not_count(read, server, store, delta):
    pieces = [event({"choices": [{"index": 0, "delta": each}]}) for each in (delta, {"content": "x"}, {"content": "y"})]
    server.script = [Raw(b"".join(pieces), "text/event-stream")]

    with contextlib.suppress(errors.ProviderError):
        read(llmkit, "stream", "hi", budget=Budget(name="b", limit_usd=1), **at(server, store=store, max_tokens=900))

    state = Budgets(store).get("b")
    assert state.reserved == 0
    assert state.settled + state.possibly_paid >= 200 * 1e-5


def test_all_answers_and_all_tools_count_where_the_provider_does_not_count(call, server):
    choice = {"index": 0, "message": {"role": "assistant", "content": WORDS}, "finish_reason": "stop"}
    server.script = [Raw(json.dumps({"choices": [choice, {**choice, "index": 1}]}).encode())]
    tool = {"type": "function", "function": {"name": "f", "description": WORDS, "parameters": {"type": "object"}}}

    usage = call(llmkit, "ask", "hi", n=2, tools=[tool], **at(server)).usage

    assert usage.source == "estimated"
    assert usage.completion_tokens >= 400
    assert usage.prompt_tokens >= 200


def test_counts_below_zero_pay_nothing_back(call, server, store):
    details = {"cache_creation_input_tokens": 5, "cache_creation": {"ephemeral_1h_input_tokens": -1_000_000}}
    told = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": -5}
    told["completion_tokens_details"] = {"reasoning_tokens": -1_000_000}
    server.script = [Raw(json.dumps(anthropic(details)).encode()), Answer(usage=told)]
    asked = at(server, store=store, budget=Budget(name="b", limit_usd=1))

    cached = call(llmkit, "ask", "hi", **{**asked, "model": "anthropic/claude-haiku-4-5", "api_base": server.url})
    thought = call(llmkit, "ask", "hi", **asked)

    for reply in (cached, thought):
        assert reply.usage.cost_usd > 0
        assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
        assert reply.usage.reasoning_tokens == 0
        assert any("below zero" in warning for warning in reply.warnings)
    assert Budgets(store).get("b").settled == pytest.approx(cached.usage.cost_usd + thought.usage.cost_usd)


def anthropic(usage):
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-haiku-4-5",
        "content": [{"type": "text", "text": "Hi."}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 10, "output_tokens": 5, **usage},
    }


def test_a_sound_of_less_than_no_time_has_no_price(call, server):
    server.script = [Raw(json.dumps({"text": "hi", "duration": -500}).encode())]
    client = MultiAIClient({"w": Deployment("w", "openai", "whisper-1", KEY, f"{server.url}/v1")})

    usage = call(client, "transcribe", b"RIFF", "w").usage

    assert (usage.cost_usd, client.total_usage) == (None, 0.0)


@pytest.mark.parametrize("index", ["0", -1, None, 0.5])
def test_a_stream_with_an_index_that_cannot_be_is_settled(read, server, store, index):
    odd = event({"choices": [{"index": index, "delta": {"content": "x"}}]})
    last = event({"choices": [{"index": 0, "delta": {"content": "y"}, "finish_reason": "stop"}]})
    server.script = [Raw(odd + last + b"data: [DONE]\n\n", "text/event-stream")]

    _, reply = read(llmkit, "stream", "hi", budget=Budget(name="b", limit_usd=1), **at(server, store=store))

    assert (reply.text, len(reply.choices), Budgets(store).get("b").reserved) == ("xy", 1, 0)


@pytest.mark.parametrize(
    ("price", "why"),
    [
        ({"prompt": 1}, "a price is a Price"),
        (Price(prompt="1"), "prompt is a number"),
        (Price(prompt=-1), "prompt is a number"),
        (Price(completion=float("nan")), "completion is a number"),
    ],
)
def test_a_price_that_cannot_be_is_refused_before_anything_is_paid(price, why):
    with pytest.raises(errors.ConfigError, match=why):
        Deployment("m", "openai", "gpt-4o", KEY, price=price)


# -- rows of what was sent --------------------------------------------------------------------------------------------


def rows(store):
    ledger_of(store).flush()
    return ledger_of(store).rows()


@pytest.mark.parametrize(
    "refused",
    [
        {"model": "mistral/mistral-small-latest"},
        {"model": "antropic/claude", "api_key": KEY},
        {"model": MODEL, "api_key": KEY, "temprature": 1},
        {"model": "local/no-such-file.gguf"},
        {"model": "azure/gpt-5", "api_key": KEY, "api_base": "http://127.0.0.1:9", "logit_bias": {"1": 1}},
    ],
    ids=["no key", "unknown provider", "a slip", "no file", "unsupported"],
)
def test_u12_what_was_never_sent_is_no_row(call, store, refused):
    with pytest.raises(llmkit.LlmkitError):
        call(llmkit, "ask", "hi", ledger=ledger_of(store), **refused)
    assert rows(store) == []


def test_u12_a_connection_that_was_tried_is_a_row(call, store):
    with ScriptedServer() as gone:
        nowhere = at(gone)
    with pytest.raises(errors.APIConnectionError):
        call(llmkit, "ask", "hi", ledger=ledger_of(store), **nowhere)
    (row,) = rows(store)
    assert (row.status, row.possibly_usd) == ("APIConnectionError", None)


def test_budget_release_at_the_command_line(server, tmp_path):
    environment = {"LLMKIT_DATA_DIR": str(tmp_path), "LLMKIT_CONFIG_DIR": str(tmp_path)}
    environment |= {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": f"{server.url}/v1"}

    def run(*arguments):
        return commands.run(arguments, **environment)

    run("budget", "set", "team", "1", "--period", "total")
    server.script = [Drop()] * 3
    assert run("-m", MODEL, "--budget", "team", "-o", "max_tokens", "50", "--no-stream", "hi").returncode != 0
    assert "possibly paid" in run("budget", "show", "team").stdout
    assert run("budget", "release", "team").stdout.endswith(" USD released\n")
    assert "possibly paid" not in run("budget", "show", "team").stdout
