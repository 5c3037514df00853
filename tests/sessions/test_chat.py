"""`ChatModel`: the document it follows, a turn, its failures, functions and tools, and the store behind it."""

from __future__ import annotations

import ast
import asyncio
import uuid

import pytest
from server import Answer, Drop, Raw, Status

import llmkit
from llmkit import ChatModel, InvalidRequestError, UnknownSessionError
from llmkit.testing import ScriptedBackend

KEY = "sk-a-secret-that-nobody-may-see"
HELLO = {"role": "user", "content": "Hello."}
WEATHER = {
    "name": "get_weather",
    "description": "Tell the weather.",
    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}},
}
CALLED = {"name": "get_weather", "arguments": '{"location": "Boston"}'}
ASKED = {"role": "user", "content": "What's the weather in Boston?"}
TOOL = {"type": "function", "function": WEATHER}


@pytest.fixture(autouse=True)
def bot(server, tmp_path, monkeypatch):
    """The preset `bot` asks the scriptable server once; other names are set beside it."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path / "data"))
    for name in ("bot", "example", "say_hello_bot", "simple_assistant"):
        preset(tmp_path, name, server)


def preset(tmp_path, name, server, more="", model="openai/gpt-4o"):
    folder = tmp_path / "presets"
    folder.mkdir(exist_ok=True)
    head = f"model: {model}\nsystem: You are a helpful assistant.\n"
    (folder / f"{name}.yaml").write_text(f"{head}retry: {{tries: 1}}\n{more}")


def session(tmp_path, *messages, name="bot", **kwargs):
    """A session with messages, "Hello." where none are given."""
    made = ChatModel(name, **{"store": tmp_path / "s.db", **kwargs})
    made.add_messages([*messages] or [HELLO])
    return made


@pytest.fixture(params=["run", "arun", "run(stream)", "arun(stream)"])
def ask(request):
    """Run a session in one of its four forms and return the whole answer."""

    async def awaited(chat, options):
        if request.param == "arun":
            return await chat.arun(**options)
        return [piece async for piece in await chat.arun(stream=True, **options)][-1].whole

    def answered(chat, **options):
        if request.param == "run":
            return chat.run(**options)
        if request.param == "run(stream)":
            return list(chat.run(stream=True, **options))[-1].whole
        return asyncio.run(awaited(chat, options))

    return answered


def said(messages):
    return [(message["role"], message.get("content")) for message in messages]


SYSTEM = ("system", "You are a helpful assistant.")
USER = ("user", "Hello.")


# -- the document --------------------------------------------------------------------------------------------------

SAMPLES = """### retry loop
max_retry = 3
trial = 0
session = ChatModel("example", session_uuid)
while trial < max_retry:
	session.add_messages([{"role": "user", "content": "..."}])
	res = session.run()
	if res.error:
		print(res.error_log)
		trial += 1
		continue
	break
print(res.content)
### config
config: ChatModelConfig = ChatModel("say_hello_bot").get_config()
print(config.system_prompt)
print(config.version_detail)
print(config.message_logs)
### add
session = ChatModel("simple_assistant", session_uuid)
session.add_messages([{"role": "user", "content": "Hello, I'm a user."}])
### run
session = ChatModel("simple_assistant")
session.add_messages([{"role": "user", "content": "Hello, I'm a user."}])
res = session.run()
print(res.content)
### stream
session = ChatModel("simple_assistant")
session.add_messages([{"role": "user", "content": "Hello, I'm a user."}])
res = session.run(stream=True)
for r in res:
	print(r.content)
### function
session = ChatModel("simple_assistant")
session.add_messages([{"role": "user", "content": "What's the weather in Boston?"}])
res = session.run(functions=[get_weather_function])
print(res.function_call)
### result
session.add_messages([{"role": "function", "content" : "13 degrees celsius"}])
res = session.run()
print(res.content)
### arun
session = ChatModel("simple_assistant")
session.add_messages([{"role": "user", "content": "Hello, I'm a user."}])
res = await session.arun()
print(res.content)
### prompts
prompts = ChatModel("simple_assistant").get_prompts()
print(prompts)
### messages
chat_logs = ChatModel("simple_assistant", session_uuid).get_messages()
print(chat_logs)
"""


def sample(title, **names):
    """Do what a sample of the document does, without its comments; return its names."""
    code = dict(part.split("\n", 1) for part in SAMPLES.split("### ")[1:])[title]
    names = {"ChatModel": ChatModel, "ChatModelConfig": llmkit.ChatModelConfig, **names}
    compiled = compile(code, "document", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    running = eval(compiled, names)  # a coroutine where the sample awaits
    if running is not None:
        asyncio.run(running)
    return names


def test_the_documents_retry_loop_ends_with_the_answer(server, capsys):
    made = ChatModel("example")
    server.script = [Status(500), Status(503), Answer("Here I am.")]

    sample("retry loop", session_uuid=made.session_uuid)

    first, second, third = capsys.readouterr().out.splitlines()
    assert ("scripted 500" in first, "scripted 503" in second, third) == (True, True, "Here I am.")


def test_the_documents_get_config_shows_prompt_and_version(capsys):
    settings = sample("config")["config"]

    assert capsys.readouterr().out.startswith("You are a helpful assistant.\n{'model': 'openai/gpt-4o', 'uuid': ")
    assert settings.version_detail["uuid"] == settings.version_uuid
    assert settings.message_logs == []


def test_the_documents_add_messages_and_deprecated_looks(server, capsys):
    made = ChatModel("simple_assistant")
    sample("add", session_uuid=made.session_uuid)
    made.run()

    with pytest.warns(DeprecationWarning, match="get_config"):
        sample("prompts")
    with pytest.warns(DeprecationWarning, match="get_config"):
        names = sample("messages", session_uuid=made.session_uuid)

    assert capsys.readouterr().out.splitlines()[0] == "[{'role': 'system', 'content': 'You are a helpful assistant.'}]"
    assert said(names["chat_logs"]) == [SYSTEM, ("user", "Hello, I'm a user."), ("assistant", "Hello from the server.")]


@pytest.mark.parametrize("title", ["run", "arun", "stream"])
def test_the_documents_run_stream_and_arun_print_the_answer(server, capsys, title):
    server.script = [Answer("Hello, I'm a assistant.")]

    sample(title)

    assert capsys.readouterr().out.split() == ["Hello,", "I'm", "a", "assistant."]
    assert said(server.requests[0].body["messages"]) == [SYSTEM, ("user", "Hello, I'm a user.")]


def test_the_documents_function_call_goes_on_with_a_nameless_result(server, capsys):
    server.script = [
        Answer(message={"role": "assistant", "content": None, "function_call": CALLED}, finish_reason="function_call"),
        Answer("It's 13 degrees celsius in Boston."),
    ]

    names = sample("function", get_weather_function=WEATHER)
    asked = names["res"]
    sample("result", **names)

    assert (asked.content, asked.function_call) == (None, {**CALLED, "args": {"location": "Boston"}})
    assert capsys.readouterr().out.endswith("\nIt's 13 degrees celsius in Boston.\n")
    assert server.requests[0].body["functions"] == [WEATHER]
    call, result = server.requests[1].body["messages"][2:]
    assert (call["role"], call["function_call"]) == ("assistant", CALLED)
    assert result == {"role": "function", "name": "get_weather", "content": "13 degrees celsius"}


# -- a turn --------------------------------------------------------------------------------------------------------


def test_a_new_session_says_what_it_is_made_of(tmp_path):
    one, other = (ChatModel("bot", store=tmp_path / "s.db") for _ in range(2))

    settings = one.get_config()

    assert one.session_uuid not in {"", other.session_uuid}
    assert (settings.name, settings.model, settings.version) == ("bot", "openai/gpt-4o", None)
    assert settings.version_detail["uuid"] == settings.version_uuid == other.get_config().version_uuid
    assert settings.message_logs == []


def test_a_run_sends_system_and_user_and_keeps_the_answer(ask, tmp_path, server):
    chat = session(tmp_path)
    server.script = [Answer("Hi!")]

    res = ask(chat)

    assert said(server.requests[0].body["messages"]) == [SYSTEM, USER]
    assert (res.content, res.raw_output, str(res), res.error, res.error_log) == ("Hi!", "Hi!", "Hi!", False, None)
    assert (res.message, res.finish_reason) == ({"role": "assistant", "content": "Hi!"}, "stop")
    assert (res.usage.prompt_tokens, res.usage.completion_tokens, res.latency_s > 0) == (11, 5, True)
    assert res.detail["version_uuid"] == chat.get_config().version_uuid
    assert chat.get_config().message_logs == [HELLO, {"role": "assistant", "content": "Hi!"}]


def test_a_second_object_goes_on_with_the_session(ask, tmp_path, server):
    first = session(tmp_path)
    server.script = [Answer("Hi!"), Answer("Of course."), Answer("Bye.")]
    ask(first)
    second = session(tmp_path, {"role": "user", "content": "Do you know me?"}, session_uuid=first.session_uuid)
    ask(second)
    first.add_messages([{"role": "user", "content": "Bye."}])

    ask(first)

    earlier = [SYSTEM, USER, ("assistant", "Hi!"), ("user", "Do you know me?"), ("assistant", "Of course.")]
    assert said(server.requests[1].body["messages"]) == earlier[:4]
    assert said(server.requests[2].body["messages"]) == [*earlier, ("user", "Bye.")]


def test_half_a_character_in_an_answer_does_not_end_the_session(ask, tmp_path, server):
    server.script = [Answer("\ud83dx"), Answer("ok")]
    chat = session(tmp_path)

    assert ask(chat).message["content"] == "\ufffdx"
    chat.add_messages([HELLO])
    assert ask(chat).message["content"] == "ok"


def test_variables_of_the_preset_have_their_defaults_and_can_be_given(ask, tmp_path, server):
    preset(tmp_path, "mood", server, "variables: {mood: kind}\n")
    path = tmp_path / "presets" / "mood.yaml"
    path.write_text(path.read_text().replace("a helpful assistant", "{{ mood }}"))
    chat = session(tmp_path, name="mood")

    ask(chat)
    ask(chat.fork(1), variables={"mood": "rude"})

    assert chat.get_config().system_prompt == "You are kind."
    systems = [request.body["messages"][0]["content"] for request in server.requests]
    assert systems == ["You are kind.", "You are rude."]


def test_missing_counts_are_an_estimate_and_an_unknown_price_is_none(ask, tmp_path, server):
    preset(tmp_path, "odd", server, model="openai/nobody-knows-this")
    server.script = [Answer(usage=None), Answer()]

    counted = ask(session(tmp_path))
    odd = session(tmp_path, name="odd")
    unpriced = ask(odd)

    assert (counted.usage.source, counted.usage.prompt_tokens > 0) == ("estimated", True)
    assert "the provider reported no usage; the tokens are estimated" in counted.warnings
    assert (unpriced.usage.cost_usd, odd.cost) == (None, None)


def test_a_run_and_a_new_session_work_inside_of_a_running_loop(tmp_path, server):
    async def main():
        made = session(tmp_path)
        return made.run().content, list(made.retry(stream=True))[-1].whole.content, (await made.aretry()).content

    server.script = [Answer("a"), Answer("b"), Answer("c")]

    assert asyncio.run(main()) == ("a", "b", "c")


def test_the_embedded_model_answers(tmp_path):
    chat = session(tmp_path, {"role": "user", "content": "What is the capital of France?"}, name="local")

    assert "Paris" in chat.run().content


# -- failures are answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (Status(401, body={"error": {"message": f"Incorrect API key provided: {KEY}"}}), "Incorrect API key"),
        (Status(429), "scripted 429"),
        (Status(500), "scripted 500"),
        (Drop(), "check the network"),
        (Answer(end="hang", delay_s=1.5), "0.3"),
        (Raw(b"<html>"), ""),
        (None, "no connection to http://127.0.0.1:9"),
    ],
)
def test_a_failure_is_told_and_the_question_is_asked_once_more_and_no_more(ask, tmp_path, server, fault, why):
    chat = session(tmp_path)
    server.script = [fault, fault, Answer("Hi!")] if fault else [Answer("Hi!")]
    options = {"timeout": 0.3 if why == "0.3" else 9}  # where it is short, a busy machine may not even send
    options |= {} if fault else {"api_base": "http://127.0.0.1:9/v1"}

    failed = [ask(chat, **options), ask(chat, **options)]

    for res in failed:
        assert (res.error, res.content, res.reply, dict(res.message)) == (True, None, None, {})
        assert isinstance(res.exception, llmkit.ProviderError)
        assert why in res.error_log
        assert KEY not in res.error_log
    assert chat.get_config().message_logs == [HELLO]
    assert ask(chat).content == "Hi!"
    assert said(server.requests[-1].body["messages"]) == [SYSTEM, USER]
    assert said(chat.get_config().message_logs) == [USER, ("assistant", "Hi!")]


@pytest.mark.parametrize("options", [{"timeout": -1}, {"max_rounds": 0}, {"messages": []}, {"stop": object()}])
def test_an_option_that_cannot_be_sent_is_told_and_not_raised(ask, tmp_path, server, options):
    chat = session(tmp_path)

    res = ask(chat, **options)

    assert isinstance(res.exception, InvalidRequestError)
    assert server.requests == []
    assert not ask(chat).error


def test_nothing_to_answer_is_told_and_nothing_is_sent(ask, tmp_path, server):
    empty = ChatModel("bot", store=tmp_path / "s.db")
    done = session(tmp_path)
    ask(done)

    assert "add a message of the user first" in ask(empty).error_log
    assert "add a message of the user first" in ask(done).error_log
    assert len(server.requests) == 1


WRONG_CALLS = [
    ({"tool_calls": 5}, "message 1: tool_calls must be a list"),
    ({"tool_calls": {"id": "x"}}, "message 1: tool_calls must be a list"),
    ({"tool_calls": ["x"]}, "message 1: a tool call needs a function with a name"),
    ({"tool_calls": [{"id": "x"}]}, "message 1: a tool call needs a function with a name"),
    ({"function_call": "f"}, "message 1: a tool call needs a function with a name"),
]


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([], "the list of messages is empty"),
        (HELLO, "not dict"),
        ([HELLO, {"role": "banana", "content": "x"}], "message 1 has an unknown role 'banana'"),
        ([HELLO, {"content": "x"}], "message 1 has no role"),
        ([HELLO, {"role": "user"}], "message 1 (user) has no content"),
        ([HELLO, {"role": "user", "content": "x", "when": object()}], "message 1"),
        ([HELLO, {"role": "user", "content": "half a character: \ud83d"}], "message 1"),
        ([{"role": "function", "content": "13"}], "message 0 (function) answers no call; give it its name"),
        ([{"role": "tool", "content": "13"}], "message 0 (tool) answers no call; give it its tool_call_id"),
        *(([HELLO, {"role": "assistant", "content": None, **calls}], why) for calls, why in WRONG_CALLS),
        (
            [{"role": "assistant", "tool_calls": [{"function": CALLED}]}, {"role": "tool", "content": "13"}],
            "message 1 (tool) answers no call; give it its tool_call_id",
        ),
    ],
)
def test_messages_that_are_none_are_refused_and_none_is_kept(tmp_path, messages, why):
    chat = ChatModel("bot", store=tmp_path / "s.db")

    with pytest.raises(InvalidRequestError) as caught:
        chat.add_messages(messages)

    assert why in str(caught.value)
    assert chat.get_config().message_logs == []


def test_an_unknown_session_is_named_and_can_be_made(ask, tmp_path):
    with pytest.raises(UnknownSessionError, match="there is no session of-monday"):
        ChatModel("bot", "of-monday", store=tmp_path / "s.db")

    made = ChatModel("bot", "of-monday", store=tmp_path / "s.db", create=True)
    made.add_messages([HELLO], metadata_list=[{"source": "promptmodel"}])

    again = ChatModel("bot", "of-monday", store=tmp_path / "s.db", create=True)
    assert again.get_config().message_logs == [HELLO]
    again.delete()
    assert "there is no session of-monday" in ask(made).error_log
    with pytest.raises(UnknownSessionError):
        made.add_messages([HELLO])


def test_the_key_goes_to_the_wire_and_nowhere_else(ask, tmp_path, server, caplog):
    caplog.set_level("DEBUG")
    chat = session(tmp_path, api_key="sk-mine-and-nobody-elses")
    server.script = [Status(401, body={"error": {"message": "bad key sk-mine-and-nobody-elses"}}), Answer(), Answer()]

    refused, answered = ask(chat), ask(chat)
    chat.add_messages([HELLO])
    ask(chat, api_key="sk-mine-of-this-run")

    kept = b"".join(path.read_bytes() for path in tmp_path.glob("s.db*"))
    assert b"Hello from the server." in kept
    assert "sk-mine" not in f"{kept!r} {refused!r} {answered!r} {chat!r} {chat.info!r} {caplog.text}"
    used = [request.headers["authorization"] for request in server.requests]
    assert used == ["Bearer sk-mine-and-nobody-elses"] * 2 + ["Bearer sk-mine-of-this-run"]


@pytest.mark.parametrize("name", ["model", "preset", "system"])
def test_what_is_the_sessions_own_cannot_be_given_to_a_run(tmp_path, name):
    chat = ChatModel("local", store=tmp_path / "s.db", backend=ScriptedBackend())
    chat.add_messages([HELLO])

    res = chat.run(**{name: "other"})

    assert res.error
    assert f"{name} is the session's own" in res.error_log


def test_a_preset_with_a_variable_that_must_be_given_can_be_looked_at(ask, tmp_path, server):
    text = "system: 'You like {{ what }}.'\nvariables: {what: null}\nmodel: openai/gpt-4o\nretry: {tries: 1}\n"
    (tmp_path / "presets" / "given.yaml").write_text(f"{text}params: {{user: '${{NOBODY_SETS_THIS}}'}}\n")
    chat = session(tmp_path, name="given")

    assert chat.get_config().system_prompt == "You like {{ what }}."
    (tmp_path / "presets" / "given.yaml").write_text(text)
    chat = session(tmp_path, name="given")
    assert not ask(chat, variables={"what": "owls"}).error
    assert server.requests[0].body["messages"][0]["content"] == "You like owls."
    assert chat.get_config().system_prompt == "You like {{ what }}."
    (tmp_path / "presets" / "given.yaml").write_text(text.replace("null", "tea"))
    assert session(tmp_path, name="given").get_config().system_prompt == "You like tea."


def test_a_sessions_id_may_be_a_uuid(ask, tmp_path):
    name = uuid.uuid4()

    made = session(tmp_path, session_uuid=name, create=True)

    assert made.session_uuid == str(name)
    assert ChatModel("bot", name, store=tmp_path / "s.db").get_config().message_logs == [HELLO]


def test_a_place_or_title_that_is_none_is_refused(tmp_path):
    chat = session(tmp_path)

    for at in ("1", 1.5, [1]):
        with pytest.raises(InvalidRequestError, match="has 1 messages; it cannot be forked at"):
            chat.fork(at)
    with pytest.raises(InvalidRequestError, match="a title must be a text, not 5"):
        chat.rename(5)
