"""What can be sent: names that are slips, values that are none, deployments and schemas, before anything is paid."""

from __future__ import annotations

import asyncio

import pytest
from server import ANSWER, Answer, Raw, Status

import llmkit
from llmkit import ConfigError, Deployment, InvalidRequestError, MultiAIClient, ResponseError, Retry
from llmkit.core import params
from llmkit.presets import Preset
from llmkit.providers.litellm import sdk as litellm_sdk
from llmkit.providers.names import PROVIDERS

KEY = "sk-local-0123456789"
REAL = """
    temperature max_tokens max_completion_tokens top_p top_k top_a min_p min_tokens stop stop_token_ids seed
    random_seed n best_of logprobs top_logprobs logit_bias presence_penalty frequency_penalty
    repetition_penalty repeat_penalty length_penalty reasoning reasoning_effort include_reasoning thinking
    enable_thinking thinking_budget tools tool_choice parallel_tool_calls functions function_call
    response_format guided_json guided_regex guided_choice structured_outputs chat_template_kwargs safe_prompt
    prompt_mode prompt_cache_key safety_identifier service_tier store metadata user web_search_options
    search_domain_filter return_images transforms models provider route plugins usage modalities audio
    prediction verbosity num_ctx num_predict mirostat keep_alive cache_prompt dimensions encoding_format
    extra_body extra_headers safety_settings documents suffix typical_p drop_params
""".split()  # noqa: SIM905


def at(server):
    return {"model": "openai/gpt-4o", "api_base": f"{server.url}/v1", "api_key": KEY}


def client(server, **settings):
    return MultiAIClient({"m": Deployment("m", "openai", "gpt-4o", KEY, f"{server.url}/v1")}, **settings)


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("modle", "model"),
        ("temprature", "temperature"),
        ("max_token", "max_tokens"),
        ("tempreature", "temperature"),
        ("timout", "timeout"),
        ("respnse_format", "response_format"),
        ("reasonig_effort", "reasoning_effort"),
        ("stopp", "stop"),
        ("sysem", "system"),
        ("tool", "tools"),
    ],
)
def test_u5_a_slip_is_refused_with_the_right_name(call, read, server, slip, meant):
    for ask in (
        lambda: call(llmkit, "ask", "hi", **at(server), **{slip: 1}),
        lambda: read(llmkit, "stream", "hi", **at(server), **{slip: 1}),
        lambda: call(client(server), "invoke", "hi", "m", **{slip: 1}),
        lambda: read(client(server), "stream", "hi", "m", **{slip: 1}),
    ):
        with pytest.raises(InvalidRequestError, match=f"no parameter '{slip}'; did you mean '{meant}'"):
            ask()
    assert server.requests == []


def test_real_parameters_pass():
    assert len(REAL) >= 60
    assert {name: params.slip(name) for name in REAL if params.slip(name)} == {}


def test_every_name_that_litellm_knows_passes():
    litellm = litellm_sdk.load()
    known = {
        *litellm.types.utils.all_litellm_params,
        *litellm.constants.OPENAI_CHAT_COMPLETION_PARAMS,
        *litellm.constants.DEFAULT_CHAT_COMPLETION_PARAM_VALUES,
        *litellm.constants.DEFAULT_EMBEDDING_PARAM_VALUES,
        *litellm.constants.OPENAI_TRANSCRIPTION_PARAMS,
    }
    assert {name: params.slip(name) for name in known if params.slip(name)} == {}


def test_our_list_of_providers_is_litellms():
    assert {str(getattr(name, "value", name)) for name in litellm_sdk.load().provider_list} == PROVIDERS


def test_what_is_like_nothing_goes_as_it_is(call, server):
    call(llmkit, "ask", "hi", **at(server), my_own_thing=[1], extra_body={"temprature": 2})
    assert server.requests[0].body["my_own_thing"] == [1]
    assert server.requests[0].body["temprature"] == 2


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("temperature", float("nan"), "temperature cannot be sent: nan is no number"),
        ("top_p", float("inf"), "top_p cannot be sent: inf is no number"),
        ("user", b"abc", "user cannot be sent: an object of type bytes"),
        ("stop", ("a", object()), r"stop cannot be sent: stop\[1\]: an object of type object"),
        ("foo", int, "foo cannot be sent: the class int"),
        ("metadata", {"who": {1}}, "metadata cannot be sent: metadata.who: an object of type set"),
        ("user", "\ud800", "user cannot be sent: it has a half of a surrogate pair"),
        ("tools", [{"type": "function", "function": {"name": "f", "x": float("nan")}}], "tool 0 cannot be sent"),
        ("timeout", float("inf"), "timeout must be a number of seconds"),
        ("api_base", "not a url", "address must begin with https"),
        ("api_base", "127.0.0.1:8080/v1", "address must begin with https"),
        ("api_base", "ftp://127.0.0.1/v1", "address must begin with https"),
    ],
)
def test_c5_what_cannot_be_sent_is_named_and_not_sent(call, server, name, value, told):
    with pytest.raises((InvalidRequestError, ConfigError), match=told):
        call(llmkit, "ask", "hi", **{**at(server), name: value})
    assert server.requests == []


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ("\ud800", "the prompt cannot be sent"),
        (
            [{"role": "user", "content": "x"}, {"role": "user", "content": "x", "extra": {1}}],
            "message 1 cannot be sent",
        ),
        ([{"role": "user", "content": [{"type": "text", "text": None}]}], "message 0, part 0: text must be a text"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": 5}]}],
            "message 0, part 0: image_url must be",
        ),
        ([{"role": "user", "content": "x"}, {"role": "tool", "content": "x"}], "message 1 .tool. answers no call"),
        (
            [{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}],
            "message 0: a tool call needs a function",
        ),
        ([{"role": "assistant", "content": None, "tool_calls": {"id": "1"}}], "message 0: tool_calls must be a list"),
    ],
)
def test_c5_messages_that_cannot_be_sent_are_named(call, server, messages, told):
    for ask in (
        lambda: call(llmkit, "ask", messages, **at(server)),
        lambda: call(client(server, fallbacks={}), "invoke", messages, "m"),
    ):
        with pytest.raises(InvalidRequestError, match=told):
            ask()
    assert server.requests == []


def test_a_system_message_is_a_text(call, server):
    with pytest.raises(InvalidRequestError, match="system must be a text, not int"):
        call(llmkit, "ask", "hi", system=5, **at(server))


def test_the_message_of_a_reply_can_be_sent_again(call, server):
    first = call(llmkit, "ask", "hi", **at(server))
    said = [{"role": "user", "content": "hi"}, first.choices[0].message, {"role": "user", "content": "go on"}]
    assert call(llmkit, "ask", said, **at(server)).text == ANSWER
    assert server.requests[1].body["messages"][1]["content"] == ANSWER


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"stream": True}, "use stream or astream"),
        ({"fallbacks": ["x"]}, "MultiAIClient.fallbacks"),
        ({"num_retries": 3}, "use retry=Retry"),
        ({"api_key": "other"}, "it belongs to the deployment"),
        ({"api_base": "http://127.0.0.1:1"}, "it belongs to the deployment"),
        ({"base_url": "http://127.0.0.1:1"}, "it belongs to the deployment"),
        ({"api_version": "1"}, "it belongs to the deployment"),
        ({"preset": "brief"}, "llmkit.ask and ChatModel take it"),
        ({"variables": {}}, "llmkit.ask and ChatModel take it"),
        ({"budget": "b"}, "give it to MultiAIClient"),
        ({"ledger": True}, "give it to MultiAIClient"),
    ],
)
@pytest.mark.parametrize("method", ["invoke", "embed", "image"])
def test_c6_options_of_another_surface_are_refused_by_name(call, server, option, told, method):
    with pytest.raises(InvalidRequestError, match=f"{next(iter(option))} cannot be given.*{told}"):
        call(client(server), method, "hi", "m", **option)
    assert server.requests == []


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ({"endpoint": "http://mine"}, "say api_base"),
        ({"url": "http://mine"}, "say api_base"),
        ({"apibase": "http://mine"}, "did you mean 'api_base'"),
        ({"key": "secret"}, "say api_key"),
        ({"tries": 3}, "use retry=Retry"),
        ({"request_timeout": 1}, "say timeout"),
        ({"system_prompt": "be brief"}, "say system"),
        ({"default_headers": {"x": "y"}}, "say extra_headers"),
        ({"extra_query": {"a": "1"}}, "LiteLLM cannot send it"),
    ],
)
def test_words_for_something_else_are_no_parameters_of_the_provider(call, server, option, told):
    with pytest.raises(InvalidRequestError, match=told):
        call(llmkit, "ask", "hi", **at(server), **option)
    if not option.keys() & {"endpoint", "key"}:  # a deployment's own names, nearly
        with pytest.raises(ConfigError, match=told):
            Deployment("m", "openai", "gpt-4o", "k", server.url, **option)
    with pytest.raises(ConfigError, match=told):
        call(llmkit, "ask", "hi", preset=Preset(name="p", model="openai/gpt-4o", params=option))
    assert server.requests == []


def test_none_for_retry_and_tags_is_the_clients_own(call, server):
    server.script = [Status(500), Answer()]
    retrying = MultiAIClient(
        {"m": Deployment("m", "openai", "gpt-4o", "k", server.url)}, retry=Retry(tries=2, delay_s=0.01)
    )

    assert call(retrying, "invoke", "hi", "m", retry=None, tags=None, timeout=None).text == ANSWER
    with pytest.raises(InvalidRequestError, match="give one"):
        call(retrying, "invoke", "hi", "m", retry=2, tries=2)
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("mine", "theirs"), [("max_completion_tokens", "max_tokens"), ("max_tokens", "max_completion_tokens")]
)
def test_a_calls_limit_replaces_a_presets_under_its_other_name(call, server, mine, theirs):
    preset = Preset(name="p", model="openai/gpt-4o", params={theirs: 100, "seed": 1})

    call(llmkit, "ask", "hi", preset=preset, **{**at(server), "model": None, mine: 5})

    assert {name: server.requests[0].body.get(name) for name in (mine, theirs, "seed")} == {
        mine: 5,
        theirs: None,
        "seed": 1,
    }


def test_what_litellm_keeps_back_is_told(call, server):
    reply = call(llmkit, "ask", "hi", metadata={"a": "b"}, stop=list("abcdef"), **at(server))

    assert [warning.split()[0] for warning in reply.warnings] == ["metadata", "stop"]
    assert server.requests[0].body["stop"] == list("abcd")
    assert "metadata" not in server.requests[0].body


def test_c6_attachments_and_retries_mean_the_same_in_a_client(call, server, tmp_path):
    (tmp_path / "note.txt").write_text("remember")
    server.script = [Status(500), Answer()]

    reply = call(client(server), "invoke", "hi", "m", retry=Retry(tries=2, delay_s=0.01), attachments=["note.txt"])

    assert reply.text == ANSWER
    assert "remember" in str(server.requests[1].body["messages"])


def test_u5_a_number_of_tries_is_a_retry(call, server):
    server.script = [Status(500)] * 2
    assert call(llmkit, "ask", "hi", retry=3, **at(server)).text == ANSWER
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "banana"}, "schema is no JSON schema"),
        ({"$ref": "http://127.0.0.1:1/schema"}, "schema refers to 'http://127.0.0.1:1/schema'"),
        ({"properties": {"a": {"$ref": "other.json"}}}, "schema refers to 'other.json'"),
        ({"type": "object", "x": float("nan")}, "schema cannot be sent"),
        (5, "schema must be a pydantic class or a JSON schema"),
    ],
)
def test_c10_a_wrong_schema_is_found_before_anything_is_paid(call, read, server, schema, told):
    with pytest.raises(InvalidRequestError, match=told):
        call(llmkit, "ask", "hi", schema=schema, **at(server))
    with pytest.raises(InvalidRequestError, match=told):
        read(client(server), "stream", "hi", "m", schema=schema)
    assert server.requests == []


def test_c11_fewer_vectors_than_texts_are_an_error(call, server):
    body = b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1.0]}],"usage":{"prompt_tokens":1}}'
    server.script = [Raw(body)]
    embedder = MultiAIClient({"e": Deployment("e", "openai", "text-embedding-3-small", KEY, f"{server.url}/v1")})

    with pytest.raises(ResponseError, match="gave 1 vectors for 2 texts"):
        call(embedder, "embed", ["a", "b"], "e")
    for wrong in (b"[1.0, NaN]", b"[1" + b"0" * 400 + b", 1.0]", b'["1.0"]'):
        server.script = [Raw(body.replace(b"[1.0]", wrong))]
        with pytest.raises(ResponseError, match=r"gave a vector with something else than numbers|cannot be read"):
            call(embedder, "embed", ["a"], "e")
    with pytest.raises(InvalidRequestError, match="batch must be a whole number from 1 up, not 0"):
        call(embedder, "embed", ["a", "b"], "e", batch=0)


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("transcribe", {"duration": -5}, "duration must be a number of seconds above 0"),
        ("transcribe", {"duration": "x"}, "duration must be a number of seconds above 0"),
        ("speak", {"text": 5}, "the text to speak must be a text"),
    ],
)
def test_c11_sound_that_cannot_be_is_refused_before_it_is_paid(call, server, name, arguments, told):
    given = {"file": b"RIFF", "model": "m"} if name == "transcribe" else {"model": "m"}
    with pytest.raises(InvalidRequestError, match=told):
        call(client(server), name, **{**given, **arguments})
    assert server.requests == []


@pytest.mark.parametrize(
    ("deployments", "told"),
    [
        ({"m": "openai/gpt-4o"}, r"deployments\['m'\] must be a Deployment or a list of them, not 'openai/gpt-4o'"),
        ({"m": [None]}, r"deployments\['m'\] must be a Deployment"),
        ({"m": []}, r"deployments\['m'\] must be a Deployment"),
        (None, "deployments must be a mapping of names to Deployments, not NoneType"),
        ([1], "deployments must be a mapping of names to Deployments, not list"),
    ],
)
def test_c15_deployments_are_checked_when_the_client_is_made(deployments, told):
    with pytest.raises(ConfigError, match=told):
        MultiAIClient(deployments)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"provider": "nonesuch"}, "there is no provider 'nonesuch'"),
        ({"provider": "OpenAI"}, "there is no provider 'OpenAI'; did you mean 'openai'"),
        ({"provider": "openai", "endpoint": "nota url"}, "the address must begin with https"),
        ({"provider": "openai", "endpoint": "http://u:secret@/v1"}, "the address must begin with https"),
        ({"provider": "openai", "api_key": b"x"}, "api_key must be a text, not bytes"),
    ],
)
def test_c15_a_deployment_is_checked_when_it_is_made(arguments, told):
    with pytest.raises(ConfigError, match=told) as caught:
        Deployment("m", **arguments)
    assert "secret" not in str(caught.value)


def test_c15_fallbacks_are_lists(server):
    with pytest.raises(ConfigError, match=r"fallbacks\['m'\] must be a list of names, not 'claude'"):
        client(server, fallbacks={"m": "claude"})


def test_c14_azure_takes_the_parameters_of_the_model_behind_a_name(call, server):
    asking = MultiAIClient({"gpt-5": Deployment("gpt-5", "azure", "prod5", KEY, server.url)})
    call(asking, "invoke", "hi", "gpt-5", reasoning_effort="low", max_tokens=7)
    body = server.requests[0].body
    assert (body["reasoning_effort"], body["max_completion_tokens"], body["model"]) == ("low", 7, "prod5")


def test_c14_the_advice_is_ours(call, server):
    asking = MultiAIClient({"mine": Deployment("mine", "azure", "prod5", KEY, server.url)})
    with pytest.raises(llmkit.UnsupportedParamsError) as caught:
        call(asking, "invoke", "hi", "mine", reasoning_effort="low")
    assert "litellm.drop_params" not in str(caught.value)
    assert "drop_params=True" in caught.value.advice


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"jitter": 5}, "jitter must be True, False or None, not 5"),
        ({"deadline_s": 0}, "deadline_s must be above 0"),
    ],
)
def test_c17_a_retry_is_checked(arguments, told):
    with pytest.raises(InvalidRequestError, match=told):
        Retry(**arguments)


def test_a_callback_that_is_none_is_refused_when_the_client_is_made(server):
    for name in ("increment_usage", "get_usage"):
        with pytest.raises(ConfigError, match=f"{name} must be a function, not str"):
            client(server, **{name: "x"})


@pytest.mark.parametrize("answer", [RuntimeError("no database"), "much"])
def test_a_gate_that_cannot_be_asked_is_closed(call, server, answer):
    def get_usage():
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(llmkit.BudgetExceededError, match="get_usage"):
        call(client(server, get_usage=get_usage, max_usage=1.0), "invoke", "hi", "m")
    assert server.requests == []


def test_an_answer_without_groqs_service_tier_is_not_lost(call, server):
    reply = call(llmkit, "ask", "hi", model="groq/llama-3.3-70b-versatile", api_base=f"{server.url}/v1", api_key=KEY)
    assert reply.text == ANSWER


def test_keys_given_to_a_call_go_to_no_fallback(call, server, monkeypatch):
    from llmkit.presets import Preset

    monkeypatch.setenv("DEEPSEEK_API_KEY", "deepseek-key-0123456789")
    monkeypatch.setenv("DEEPSEEK_API_BASE", f"{server.url}/v1")
    server.script = [Status(500)]
    preset = Preset(model="openai/gpt-4o", fallbacks=["deepseek/deepseek-chat"], name="p")

    address = {"api_base": f"{server.url}/v1", "api_key": KEY, "extra_headers": {"x-secret": "mine"}}
    call(llmkit, "ask", "hi", preset=preset, retry=1, temperature=0.5, **address)

    first, second = server.requests
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert second.headers["authorization"] == "Bearer deepseek-key-0123456789"
    assert "x-secret" not in second.headers
    assert second.body["temperature"] == 0.5


def test_asking_below_a_loop_refuses_in_the_same_words(server):
    async def main():
        with pytest.raises(InvalidRequestError, match="did you mean 'temperature'"):
            llmkit.ask("hi", temprature=1, **at(server))

    asyncio.run(main())
