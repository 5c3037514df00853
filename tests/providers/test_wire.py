"""Real LiteLLM against a real server: how many requests are sent, and what each fault becomes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time

import pytest
from commands import program
from server import ANSWER, Answer, Drop, Raw, ScriptedServer, Status

import llmkit
from llmkit import errors
from llmkit.core.retry import ONCE, Retry
from llmkit.providers.litellm.connections import CHAT_PROVIDERS, HTTP_PROVIDERS, SDK_PROVIDERS

PROVIDERS = ("openai", "azure", "anthropic", "mistral")
KEY = "sk-local-0123456789"


def target(provider: str, url: str) -> dict[str, object]:
    """Return the arguments that send a call of this provider's to the server."""
    made = {
        "openai": {"model": "openai/gpt-4o", "api_base": f"{url}/v1"},
        "azure": {"model": "azure/my-deployment", "api_base": url, "api_version": "2024-02-01"},
        "anthropic": {"model": "anthropic/claude-haiku-4-5", "api_base": url},
        "mistral": {"model": "mistral/mistral-small-latest", "api_base": f"{url}/v1"},
    }[provider]
    return {**made, "api_key": KEY}


@pytest.fixture(params=PROVIDERS)
def at(request, server):
    return target(request.param, server.url)


def test_a_call_is_one_request_and_comes_back_whole(call, server, at):
    answer = call(llmkit, "ask", "hi", system="Be brief.", **at)

    assert answer.text == ANSWER
    assert answer.finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (11, 5, 16)
    assert answer.choices[0].message.content == ANSWER
    assert 0 < answer.latency_s < 30
    assert len(server.requests) == 1


def test_where_and_how_each_provider_is_asked(call, server, at):
    call(llmkit, "ask", "hi", temperature=0.5, max_tokens=7, **at)
    sent = server.requests[0]

    if at["model"].startswith("azure"):
        assert sent.path == "/openai/deployments/my-deployment/chat/completions?api-version=2024-02-01"
        assert sent.headers["api-key"] == KEY
    elif at["model"].startswith("anthropic"):
        assert sent.path == "/v1/messages"
        assert sent.headers["x-api-key"] == KEY
    else:
        assert sent.path == "/v1/chat/completions"
        assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.body["temperature"] == 0.5
    assert sent.body["max_tokens"] == 7


ELSEWHERE = {"cohere", "cohere_chat", "snowflake"}
"""LiteLLM reaches these, among others, with clients of its own, so that nobody sees the wire."""


@pytest.mark.parametrize("provider", sorted(HTTP_PROVIDERS - {"vertex_ai"} | ELSEWHERE))  # Google's token is a file's
def test_what_was_sent_through_litellm_may_have_been_paid(call, server, sqlite, monkeypatch, provider):
    monkeypatch.setenv("LLMKIT_ROUTES", "off")
    server.script = [Drop()] * 9
    at, address = {"model": f"{provider}/m", "api_key": KEY, "api_base": server.url}, "api_base"
    if provider == "bedrock":
        address = "aws_bedrock_runtime_endpoint"
        keys = {"aws_access_key_id": "AKIALOCAL", "aws_secret_access_key": KEY, "aws_region_name": "eu-west-3"}
        at = {"model": "bedrock/amazon.nova-lite-v1:0", address: server.url, **keys}

    with pytest.raises(errors.ProviderError) as caught:
        call(llmkit, "ask", "hi", retry=ONCE, store=sqlite, **at)

    assert caught.value.sent
    assert caught.value.may_be_paid
    assert len(server.requests) == 1 or provider in ELSEWHERE
    with pytest.raises(errors.ProviderError) as caught:
        call(llmkit, "ask", "hi", retry=ONCE, store=sqlite, **{**at, address: "http://127.0.0.1:9"})
    assert not caught.value.may_be_paid


@pytest.mark.parametrize("provider", sorted(CHAT_PROVIDERS - {"bytez"} | SDK_PROVIDERS))  # it takes no other address
def test_a_key_follows_no_redirect_on_litellms_way_either(server, monkeypatch, provider):
    """LiteLLM's own client for them would follow."""
    monkeypatch.setenv("LLMKIT_ROUTES", "off")
    server.script = [Status(307, {"location": f"{server.url}/elsewhere"})]

    with pytest.raises(errors.ProviderError) as caught:
        llmkit.ask("hi", retry=ONCE, model=f"{provider}/m", api_key=KEY, api_base=server.url)

    assert "elsewhere" in str(caught.value)
    assert len(server.requests) == 1


STATUSES = {
    400: errors.BadRequestError,
    401: errors.AuthenticationError,
    402: errors.PaymentRequiredError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    408: errors.Timeout,
    409: errors.ConflictError,
    422: errors.UnprocessableEntityError,
    429: errors.RateLimitError,
    500: errors.InternalServerError,
    502: errors.BadGatewayError,
    503: errors.ServiceUnavailableError,
    529: errors.InternalServerError,
}


@pytest.mark.parametrize("status", STATUSES)
def test_a_refusal_is_one_request_and_an_error_of_its_own_class(call, server, at, status):
    server.script = [Status(status)]

    with pytest.raises(errors.ProviderError) as caught:
        call(llmkit, "ask", "hi", retry=ONCE, **at)

    error = caught.value
    assert type(error) is STATUSES[status]
    assert error.status_code == status
    assert error.retryable == (status in {408, 409, 429} or status >= 500)
    assert error.provider == at["model"].split("/")[0]
    assert error.model == at["model"]
    assert f"scripted {status}" in str(error)
    assert error.__cause__ is not None
    assert len(server.requests) == 1


@pytest.mark.parametrize("entry", [Status(429), Status(500), Drop()], ids=["429", "500", "dropped"])
def test_a_stream_that_does_not_open_is_one_request(read, server, at, entry):
    server.script = [entry]

    with pytest.raises(errors.ProviderError):
        read(llmkit, "stream", "hi", retry=ONCE, **at)

    assert len(server.requests) == 1


def test_three_tries_are_three_requests_with_the_waits_between(call, server, at):
    server.script = [Status(429), Status(503), Answer()]

    answer = call(llmkit, "ask", "hi", retry=Retry(tries=3, delay_s=0.1, backoff=2), **at)

    assert answer.text == ANSWER
    assert len(server.requests) == 3
    times = [request.time for request in server.requests]
    assert times[1] - times[0] >= 0.1
    assert times[2] - times[1] >= 0.2


@pytest.mark.parametrize(
    ("headers", "least"),
    [({"retry-after": "7"}, 7), ({"retry-after-ms": "250"}, 0.25), ({"retry-after": "junk"}, None)],
)
def test_retry_after_is_read_from_the_answer(call, server, at, headers, least):
    server.script = [Status(429, headers)]

    with pytest.raises(errors.RateLimitError) as caught:
        call(llmkit, "ask", "hi", retry=ONCE, **at)

    assert caught.value.retry_after_s == least


def test_retry_after_as_a_date(call, server, at):
    from email.utils import formatdate

    end = time.time() + 60
    server.script = [Status(503, {"retry-after": formatdate(end, usegmt=True)})]

    with pytest.raises(errors.ServiceUnavailableError) as caught:
        call(llmkit, "ask", "hi", retry=ONCE, **at)

    assert time.time() + caught.value.retry_after_s == pytest.approx(end, abs=5)


@pytest.mark.parametrize("when", ["Wed, 21 Oct 2015 07:28:00 -0000", "Wed, 21 Oct 2015 07:28:00", "Wed, 21 Oct 99999"])
def test_retry_after_as_an_odd_date(call, server, at, when):
    server.script = [Status(429, {"retry-after": when})]

    with pytest.raises(errors.RateLimitError) as caught:
        call(llmkit, "ask", "hi", retry=ONCE, **at)

    assert caught.value.retry_after_s in {0, None}
    assert not caught.value.may_be_paid


def test_used_up_quota_is_not_tried_again(call, server, at):
    body = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota", "type": "x"}}
    server.script = [Status(429, body=body)]

    with pytest.raises(errors.QuotaExceededError) as caught:
        call(llmkit, "ask", "hi", **at)

    assert caught.value.retryable is False
    assert len(server.requests) == 1


def test_a_provider_that_says_do_not_retry_is_obeyed(call, server, at):
    server.script = [Status(500, {"x-should-retry": "false"})]

    with pytest.raises(errors.InternalServerError):
        call(llmkit, "ask", "hi", **at)

    assert len(server.requests) == 1


def test_a_context_that_is_too_long_has_its_own_class(call, server):
    message = "This model's maximum context length is 8 tokens. However, your messages resulted in 99 tokens."
    server.script = [Status(400, body={"error": {"message": message, "code": "context_length_exceeded"}})]

    with pytest.raises(errors.ContextWindowExceededError):
        call(llmkit, "ask", "hi", **target("openai", server.url))


def test_a_refused_connection_is_a_connection_error(call, at):
    with ScriptedServer() as gone:
        nowhere = {**at, "api_base": at["api_base"].replace(at["api_base"].split("/")[2], gone.url.split("/")[2])}

    with pytest.raises(errors.APIConnectionError, match="refused") as caught:
        call(llmkit, "ask", "hi", retry=ONCE, **nowhere)

    assert caught.value.status_code is None
    assert caught.value.retryable is True
    assert gone.url in str(caught.value)


def test_a_broken_connection_is_a_connection_error_and_one_request(call, server, at):
    server.script = [Drop()]

    with pytest.raises(errors.APIConnectionError):
        call(llmkit, "ask", "hi", retry=ONCE, **at)

    assert len(server.requests) == 1


def test_no_answer_in_time_is_a_timeout(call, server, at):
    server.script = [Answer(delay_s=30)]
    started = time.monotonic()

    with pytest.raises(errors.Timeout, match=r"within 0\.3 s") as caught:
        call(llmkit, "ask", "hi", retry=ONCE, timeout=0.3, **at)

    assert time.monotonic() - started < 20
    assert caught.value.status_code == 408
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", [b"<html>proxy</html>", b"{}", b'{"choices": 5}'])
def test_an_answer_that_cannot_be_read_is_not_tried_again(call, server, at, body):
    server.script = [Raw(body)]

    with pytest.raises(errors.ResponseError):
        call(llmkit, "ask", "hi", **at)

    assert len(server.requests) == 1


def test_an_answer_without_usage_is_estimated_and_says_so(call, server, at):
    server.script = [Answer(usage=None)]

    answer = call(llmkit, "ask", "hi", **at)

    assert answer.text == ANSWER
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.source in {"estimated", "unpriced"}
    assert any("estimated" in warning for warning in answer.warnings)


def test_a_known_price_is_counted(call, server):
    answer = call(llmkit, "ask", "hi", **target("openai", server.url))

    assert answer.usage.source == "priced"
    assert answer.usage.cost_usd == pytest.approx(11 * 2.5e-6 + 5 * 10e-6)


def test_cached_tokens_are_billed_once_and_at_their_own_price(call, server):
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 500,
        "total_tokens": 1500,
        "prompt_tokens_details": {"cached_tokens": 400},
    }
    server.script = [Answer(usage=usage)]

    answer = call(llmkit, "ask", "hi", **target("openai", server.url))

    assert answer.usage.cached_tokens == 400
    assert answer.usage.cost_usd == pytest.approx(600 * 2.5e-6 + 400 * 1.25e-6 + 500 * 10e-6)


def test_an_unknown_price_is_none_and_not_zero(call, server):
    answer = call(llmkit, "ask", "hi", **target("azure", server.url))

    assert answer.usage.cost_usd is None
    assert answer.usage.source == "unpriced"
    assert any("no price" in warning for warning in answer.warnings)


def test_a_stream_has_the_same_text_and_usage_as_a_whole_answer(read, server, at):
    pieces, answer = read(llmkit, "stream", "hi", **at)

    assert "".join(piece.content for piece in pieces) == answer.text == ANSWER
    assert [piece.finish_reason for piece in pieces if piece.finish_reason] == ["stop"]
    assert answer.finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 5)
    assert answer.choices[0].message.content == ANSWER
    assert len(server.requests) == 1


def test_a_stream_without_usage_is_estimated_and_says_so(read, server, at):
    server.script = [Answer(usage=None)]

    _, answer = read(llmkit, "stream", "hi", **at)

    assert answer.usage.prompt_tokens > 0
    assert any("estimated" in warning for warning in answer.warnings)


@pytest.mark.parametrize(
    ("end", "message"), [("eof", "middle of the answer"), ("reset", "broke"), ("garbage", "not JSON")]
)
def test_a_damaged_stream_is_never_a_success(read, server, at, end, message):
    server.script = [Answer(end=end)]

    with pytest.raises(errors.IncompleteStreamError, match=message) as caught:
        read(llmkit, "stream", "hi", **at)

    assert caught.value.partial == ANSWER
    assert len(server.requests) == 1


def test_a_stream_that_falls_silent_is_a_timeout_with_what_came(read, server, at):
    server.script = [Answer(end="hang", delay_s=2)]

    with pytest.raises(errors.Timeout) as caught:
        read(llmkit, "stream", "hi", timeout=0.3, **at)

    assert caught.value.partial == ANSWER


def test_a_stream_left_early_closes_its_connection(read, server, at):
    server.script = [Answer("word " * 300, end="slow", delay_s=0.01)]

    pieces, answer = read(llmkit, "stream", "hi", most=5, **at)

    assert server.broken.wait(5), "the server could go on writing"
    assert answer.finish_reason is None
    assert answer.text == "".join(piece.content for piece in pieces)
    assert answer.usage.completion_tokens > 0


def test_tools_work_without_the_package_mcp(call, read, server, at):
    tool = {"type": "function", "function": {"name": "weather", "description": "w", "parameters": {"type": "object"}}}

    call(llmkit, "ask", "hi", tools=[tool], **at)
    read(llmkit, "stream", "hi", tools=[tool], **at)

    for sent in server.requests:
        assert "weather" in str(sent.body["tools"])
        assert "_skip_mcp_handler" not in sent.body


def test_tool_calls_come_back(call, read, server):
    function = {"name": "weather", "arguments": '{"city": "Boston"}'}
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
    }
    deltas = [
        {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {**function, "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ' "Boston"}'}}]},
    ]
    server.script = [
        Answer(message=message, finish_reason="tool_calls"),
        Answer(deltas=deltas, finish_reason="tool_calls"),
    ]
    at = target("openai", server.url)

    whole = call(llmkit, "ask", "hi", **at)
    _, streamed = read(llmkit, "stream", "hi", **at)

    for answer in (whole, streamed):
        assert answer.text == ""
        assert answer.finish_reason == "tool_calls"
        assert answer.tool_calls[0].function.name == "weather"
        assert answer.tool_calls[0].function.arguments == '{"city": "Boston"}'


def test_the_callers_objects_are_left_as_they_are(call, server, at):
    part = {"type": "text", "text": "hi"}
    messages = [{"role": "user", "content": [part]}]
    extra = {"user": {"nested": [1]}}

    call(llmkit, "ask", messages, system="S", metadata=extra, **at)

    assert messages == [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    assert extra == {"user": {"nested": [1]}}


def test_a_key_is_in_no_error_and_no_repr(call, server, at):
    server.script = [Status(401, body={"error": {"message": f"Incorrect API key provided: {KEY}"}})]

    with pytest.raises(errors.AuthenticationError) as caught:
        call(llmkit, "ask", "hi", **at)

    assert KEY not in str(caught.value)
    assert KEY not in repr(caught.value)
    assert KEY not in repr(llmkit.Request(model="m", messages=[], api_key=KEY))


@pytest.mark.parametrize(
    ("model", "variable"),
    [
        ("openai/gpt-4o", "OPENAI_API_KEY"),
        ("anthropic/claude-3-5-haiku-20241022", "ANTHROPIC_API_KEY"),
        ("mistral/mistral-small-latest", "MISTRAL_API_KEY"),
        ("scaleway/llama-3.3-70b-instruct", "SCW_SECRET_KEY"),
        ("groq/llama-3.3-70b-versatile", "GROQ_API_KEY"),
        ("gemini/gemini-2.0-flash", "GEMINI_API_KEY"),
        ("openrouter/openai/gpt-4o", "OPENROUTER_API_KEY"),
        ("azure/my-deployment", "AZURE_API_KEY"),
    ],
)
def test_a_missing_key_is_named_and_nothing_is_sent(call, read, model, variable):
    for failing in (call, read):
        with pytest.raises(errors.AuthenticationError, match=variable):
            failing(llmkit, "ask" if failing is call else "stream", "hi", model=model)


@pytest.mark.parametrize("model", ["nosuchprovider/x", "justaname"])
def test_an_unknown_provider_is_named(call, model):
    with pytest.raises(errors.UnknownProviderError, match=model):
        call(llmkit, "ask", "hi", model=model)


def test_the_variables_of_the_ecosystem_are_honoured(call, server, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-from-environment")

    call(llmkit, "ask", "hi", model="openai:gpt-4o")

    assert server.requests[0].headers["authorization"] == "Bearer sk-from-environment"


def test_nothing_reaches_stdout_or_stderr(call, server, at, capfd):
    server.script = [Status(400), Status(500), Drop()]

    for _ in range(3):
        with pytest.raises(errors.ProviderError):
            call(llmkit, "ask", "hi", retry=ONCE, **at)

    assert capfd.readouterr() == ("", "")


def test_many_loops_in_a_row_leave_no_socket_and_no_warning(server, capfd):
    at = target("openai", server.url)

    for _ in range(5):
        asyncio.run(llmkit.aask("hi", **at))

    assert server.connections == 5
    assert capfd.readouterr() == ("", "")


def test_calls_below_a_running_loop_and_from_threads(server):
    from concurrent.futures import ThreadPoolExecutor

    at = target("openai", server.url)

    async def main():
        return llmkit.ask("hi", **at).text  # as in a notebook

    assert asyncio.run(main()) == ANSWER
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: llmkit.ask("hi", **at).text, range(40)))
    assert answers == [ANSWER] * 40
    assert server.connections <= 12


def test_two_keys_in_many_threads_never_mix(server):
    from concurrent.futures import ThreadPoolExecutor

    server.script = [lambda body: Answer(body["messages"][0]["content"])] * 60
    at = target("openai", server.url)

    def ask(number):
        key = f"sk-key-number-{number % 2}"
        return llmkit.ask(key, **{**at, "api_key": key}).text

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(60)))

    for sent in server.requests:
        assert sent.headers["authorization"] == f"Bearer {sent.body['messages'][0]['content']}"


def test_no_setting_of_litellm_changes_from_call_to_call(call, server, at):
    import litellm

    call(llmkit, "ask", "hi", **at)
    before = {name: repr(value) for name, value in vars(litellm).items() if isinstance(value, str | int | float | list)}

    call(llmkit, "ask", "hi", temperature=1, **at)
    server.script = [Status(500)]
    with pytest.raises(errors.ProviderError):
        call(llmkit, "ask", "hi", retry=ONCE, **at)

    after = {name: repr(value) for name, value in vars(litellm).items() if isinstance(value, str | int | float | list)}
    assert {name for name in before if before[name] != after.get(name)} == set()


PLAIN_LITELLM_FIRST = """
import asyncio, sys, litellm, llmkit
at = {"model": "azure/my-deployment", "api_base": sys.argv[1], "api_version": "2024-02-01", "api_key": "k"}
asked = {**at, "messages": [{"role": "user", "content": "hi"}]}
for first, call in (
    (litellm.completion, llmkit.ask),
    (lambda **kwargs: asyncio.run(litellm.acompletion(**kwargs)), lambda *q, **kw: asyncio.run(llmkit.aask(*q, **kw))),
):
    first(**asked)
    try:
        call("hi", retry=llmkit.Retry(tries=1), **at)
    except llmkit.InternalServerError:
        print("failed as it should")
"""


def test_azure_is_asked_once_also_when_litellm_was_used_before(server):
    """LiteLLM caches the client of its first call for a key and address, that call's hidden retries included."""
    server.script = [Answer(), Status(500), Answer(), *[Status(500)] * 5]

    done = program(PLAIN_LITELLM_FIRST, server.url)

    assert done.stdout == "failed as it should\n" * 2, done.stderr
    assert len(server.requests) == 4


def test_a_dotenv_file_is_not_read(tmp_path):
    (tmp_path / ".env").write_text("OPENAI_API_KEY=sk-planted\n")
    code = "import os; from llmkit.providers.litellm.sdk import load; load(); print(os.environ.get('OPENAI_API_KEY'))"

    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == ("None\n", "")
