"""`ApiBackend`: what it answers, what it remembers, and that it never raises for what happens at run time."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys

import pytest
from server import Answer, Drop, ScriptedServer, Status

import llmkit
from llmkit import ApiBackend, ChatModel, Config, RateLimitError
from llmkit.testing import ScriptedBackend, reply

KEY = "sk-a-secret-that-nobody-may-see"
CHATBOT = "gpt-4-chatbot-responses"


@pytest.fixture
def settings(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMKIT_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return Config(config={"model": {"default_preset": CHATBOT}})


def bot_of(settings, *script, **kwargs):
    model = ScriptedBackend(*script)
    return ApiBackend(settings, backend=model, **kwargs), model


def preset(tmp_path, name, text):
    folder = tmp_path / "presets"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.yaml").write_text(text)


def said(request):
    return [(message["role"], message["content"]) for message in request.messages]


# -- the document --------------------------------------------------------------------------------------------------


def test_the_documents_first_example_gets_an_answer(call, settings, capsys):
    bot, _ = bot_of(settings, "Hello!")

    success, response, message = call(bot, "ask", "Hello, world!")

    assert (success, response) == (True, "Hello!")
    assert message == "answered by openai/gpt-4o"
    assert capsys.readouterr().out == ""


def test_making_one_does_nothing_at_all(tmp_path):
    """A new process without key, network and settings; nothing printed, no file, LiteLLM not imported."""
    code = (
        "import sys, llmkit; llmkit.ApiBackend(); llmkit.ApiBackend(llmkit.Config()); print('litellm' in sys.modules)"
    )
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}

    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == ("False\n", "")
    assert list(tmp_path.iterdir()) == []


def test_the_default_preset_says_model_parameters_and_system_message(call, settings):
    bot, model = bot_of(settings, "ok")

    call(bot, "ask", "Hello")

    request = model.requests[0]
    assert (request.model, dict(request.params), request.timeout_s) == (
        "openai/gpt-4o",
        {"temperature": 0.5, "top_p": 0.5},
        60,
    )
    assert said(request) == [("system", "You are a helpful assistant."), ("user", "Hello")]


def test_the_default_model_answers_where_no_preset_is_chosen(call, settings):
    settings.set("model.default_preset", None)
    settings.set("model.default_model", "anthropic/claude-haiku-5-5")
    settings.set("model.default_system_message", "programmer")
    bot, model = bot_of(settings, "ok")

    call(bot, "ask", "Hello")

    assert model.requests[0].model == "anthropic/claude-haiku-5-5"
    assert said(model.requests[0])[0] == ("system", settings.system_messages()["programmer"])


def test_the_embedded_model_answers_where_nothing_is_chosen(call):
    assert "Paris" in call(ApiBackend(), "ask", "What is the capital of France?").response


# -- failures are answers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (Status(401, body={"error": {"message": f"Incorrect API key provided: {KEY}"}}), "the key came from "),
        (Status(400), "scripted 400"),
        (Status(404), "check the model's name and the address"),
        (Status(429), "wait, or try more often with a delay"),
        (Status(500), "try again later, or choose another model"),
        (Drop(), "check the network and the address"),
    ],
)
def test_what_the_provider_does_is_told_and_not_raised(call, settings, server, tmp_path, fault, why):
    preset(tmp_path, "here", f"model: openai/gpt-4o\nparams: {{api_base: '{server.url}/v1'}}\nretry: {{tries: 1}}\n")
    settings.set("model.default_preset", "here")
    server.script = [fault]
    bot = ApiBackend(settings)

    success, response, message = call(bot, "ask", "Hello")

    assert (success, response) == (False, None)
    assert why in message
    assert KEY not in message
    assert isinstance(bot.last_error, llmkit.ProviderError)
    assert bot.conversation.messages == []


def test_a_refused_connection_is_told(call, settings, tmp_path):
    preset(
        tmp_path, "nowhere", "model: openai/gpt-4o\nparams: {api_base: 'http://127.0.0.1:9/v1'}\nretry: {tries: 1}\n"
    )
    settings.set("model.default_preset", "nowhere")

    answer = call(ApiBackend(settings), "ask", "Hello")

    assert answer[:2] == (False, None)
    assert "no connection to http://127.0.0.1:9" in answer.message


@pytest.mark.parametrize(
    ("said", "overrides", "why"),
    [
        ("Hello", {"preset": "gpt-4-chatbot-respones"}, "did you mean gpt-4-chatbot-responses"),
        ("Hello", {"prest": "x"}, "unknown request override 'prest'; did you mean 'preset'?"),
        ("Hello", {"preset_overrides": {"params": {"temprature": 0}}}, "did you mean 'temperature'?"),
        ("Hello", {"preset_overrides": {"model_customizations": {"temprature": 0}}}, "did you mean 'temperature'?"),
        ("Hello", {"preset_overrides": {"params": {"temperature": 99}}}, "less than or equal to 2, not 99"),
        ("Hello", {"preset_overrides": ["temperature"]}, "a mapping, not ['temperature']"),
        ("Hello", {"stream_callback": "print"}, "stream_callback must be a function"),
        ("Hello", {"files": ["missing.png"]}, "cannot read the attachment missing.png"),
        ("Hello", {"files": "missing.png"}, "cannot read the attachment missing.png"),
        ("Hello", {"files": b"GIF8"}, "attachments must be a path, a URL or a message part, not bytes"),
        ("", None, "the prompt is empty"),
        ([], None, "the list of messages is empty"),
        ([{"role": "robot", "content": "x"}], None, "unknown role 'robot'"),
        (7, None, "messages must be a string or a list of messages, not int"),
    ],
)
def test_what_cannot_be_asked_is_told_and_nothing_is_sent(call, settings, said, overrides, why):
    bot, model = bot_of(settings)

    success, response, message = call(bot, "ask", said, overrides)

    assert (success, response) == (False, None)
    assert why in message
    assert model.requests == []


def test_a_typo_in_the_default_preset_never_reaches_another_model(call, settings):
    settings.set("model.default_preset", "gpt-4-chatbot-respones")
    bot, model = bot_of(settings)

    assert call(bot, "ask", "Hello") == (
        False,
        None,
        "no preset is called 'gpt-4-chatbot-respones'; did you mean gpt-4-chatbot-responses or gpt-4-code-generation?",
    )
    assert model.requests == []


def test_overrides_of_no_preset_are_refused(call, settings):
    settings.set("model.default_preset", None)
    bot, model = bot_of(settings)

    answer = call(bot, "ask", "Hello", {"preset_overrides": {"params": {"temperature": 0}}})

    assert answer == (False, None, "preset_overrides need a preset, and none is active")
    assert model.requests == []


# -- streaming -----------------------------------------------------------------------------------------------------


@pytest.fixture
def here(settings, server, tmp_path):
    """Settings whose default preset asks the scriptable server."""
    preset(tmp_path, "here", f"model: openai/gpt-4o\nparams: {{api_base: '{server.url}/v1'}}\nretry: {{tries: 1}}\n")
    settings.set("model.default_preset", "here")
    return settings


def test_streaming_prints_the_pieces_and_returns_the_whole_text(call, here, server, capsys):
    here.set("model.streaming", True)
    server.script = [Answer("a b c")]

    answer = call(ApiBackend(here), "ask", "Hello")

    assert answer[:2] == (True, "a b c")
    assert server.requests[0].body["stream"] is True
    assert capsys.readouterr().out == "a b c\n"


def test_a_callback_gets_each_piece_and_stdout_nothing(call, here, server, capsys):
    pieces = []
    overrides = {"stream_callback": pieces.append}

    for name in ("ask_stream", "ask"):
        server.script = [Answer("a b c")]
        assert call(ApiBackend(here), name, "Hello", overrides)[:2] == (True, "a b c")

    assert pieces == ["a", " b", " c"] * 2
    assert overrides == {"stream_callback": pieces.append}
    assert capsys.readouterr().out == ""


def test_ask_stream_leaves_the_callers_dictionary_and_later_requests_alone(call, here, server):
    bot, overrides = ApiBackend(here), {"system_message": "Be brief."}

    call(bot, "ask_stream", "Hello", overrides)
    call(bot, "ask", "Hello", overrides)

    assert overrides == {"system_message": "Be brief."}
    assert [request.body.get("stream", False) for request in server.requests] == [True, False]


def test_an_async_callback_is_awaited(settings):
    pieces = []

    async def take(piece):
        await asyncio.sleep(0)
        pieces.append(piece)

    bot, _ = bot_of(settings, "a b c")

    assert asyncio.run(bot.aask_stream("Hello", {"stream_callback": take}))[:2] == (True, "a b c")
    assert "".join(pieces) == "a b c"


def test_a_callback_that_fails_ends_the_stream_and_is_told(call, settings):
    def broken(piece):
        if piece == "b":
            raise RuntimeError("the screen is gone")

    bot, model = bot_of(settings, ["a", "b", "c"])

    assert call(bot, "ask_stream", "Hello", {"stream_callback": broken}) == (
        False,
        "ab",
        "RuntimeError: the screen is gone",
    )
    assert model.closed == 1
    assert bot.conversation.messages == []


def test_a_cut_stream_is_no_success_and_its_text_is_there(call, here, server):
    server.script = [Answer("one two three", end="eof")]
    bot = ApiBackend(here)

    success, response, message = call(bot, "ask_stream", "Hello")

    assert (success, response) == (False, "one two three")
    assert "ask again; the text so far is kept" in message
    assert bot.conversation.messages == []


# -- the conversation ----------------------------------------------------------------------------------------------


def test_the_conversation_goes_on_until_a_new_one(call, settings):
    bot, model = bot_of(settings, "Hi Ann.", "Ann.", "Who knows?")

    call(bot, "ask", "I am Ann.")
    call(bot, "ask", "Who am I?")
    bot.new_conversation()
    call(bot, "ask", "Who am I?")

    system = ("system", "You are a helpful assistant.")
    assert said(model.requests[1]) == [system, ("user", "I am Ann."), ("assistant", "Hi Ann."), ("user", "Who am I?")]
    assert said(model.requests[2]) == [system, ("user", "Who am I?")]


def test_a_failed_request_leaves_no_trace_in_the_conversation(call, settings):
    bot, model = bot_of(settings, RateLimitError("slow", retryable=False), "ok")

    assert not call(bot, "ask", "Hello").success
    assert call(bot, "ask", "Hello").success
    assert said(model.requests[1])[1:] == [("user", "Hello")]


def test_switching_restores_messages_and_preset_and_an_unknown_id_changes_nothing(call, settings):
    bot, model = bot_of(settings, "one", "two", "three")
    first = bot.conversation.id
    bot.activate_preset("gpt-4-code-generation")
    call(bot, "ask", "1")
    bot.new_conversation()
    bot.activate_preset(CHATBOT)
    call(bot, "ask", "2")
    second = bot.conversation.id

    assert bot.switch_to_conversation("nothing") == (False, None, "there is no conversation 'nothing'")
    assert bot.conversation.id == second
    assert bot.switch_to_conversation(first).success
    call(bot, "ask", "3")

    assert model.requests[2].model == "openai/gpt-4-turbo"
    assert said(model.requests[2])[1:] == [("user", "1"), ("assistant", "one"), ("user", "3")]
    assert [entry.id for entry in bot.get_history().response] == [second, first]
    assert bot.delete_conversation().success
    assert bot.conversation.messages == []
    assert not bot.get_conversation(first).success


def test_a_list_of_messages_goes_as_it_is(call, settings):
    bot, model = bot_of(settings, "one", "two")
    messages = [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "3"},
    ]
    before = json.dumps(messages)

    call(bot, "ask", "first")
    call(bot, "ask", messages)

    assert [dict(message) for message in model.requests[1].messages] == messages
    assert json.dumps(messages) == before


def test_history_is_cut_at_the_limit_and_the_system_message_stays(call, settings):
    settings.set("model.max_submission_tokens", 60)
    bot, model = bot_of(settings, *["word " * 12] * 4)

    for number in range(4):
        call(bot, "ask", f"question {number}")

    last = said(model.requests[3])
    assert last[0] == ("system", "You are a helpful assistant.")
    assert last[-1] == ("user", "question 3")
    assert ("user", "question 0") not in last
    assert last[1][0] == "user"
    assert len(bot.conversation.messages) == 8


def test_a_prompt_above_the_limit_alone_is_told(call, settings):
    settings.set("model.max_submission_tokens", 20)
    bot, model = bot_of(settings)

    success, response, message = call(bot, "ask", "word " * 100)

    assert (success, response) == (False, None)
    assert "at most 20 are to be sent" in message
    assert model.requests == []


# -- presets -------------------------------------------------------------------------------------------------------


def test_a_failed_activation_changes_nothing(call, settings, tmp_path):
    preset(tmp_path, "wrong", "model: openai/gpt-4\nparams: {temperature: 99, max_tokens: 5}\n")
    bot, model = bot_of(settings, *["ok"] * 3)
    bot.activate_preset("gpt-4-creative-writing")
    bot.set_system_message("programmer")

    call(bot, "ask", [{"role": "user", "content": "Hello"}])
    for name in ("wrong", "typo", "gpt-4-creative-writing@7"):
        assert not bot.activate_preset(name).success
    call(bot, "ask", [{"role": "user", "content": "Hello"}])

    assert model.requests[0] == model.requests[1]
    assert bot.active_preset_name == "gpt-4-creative-writing"
    assert bot.system_message == settings.system_messages()["programmer"]


def test_overrides_hold_for_one_request_and_stay_out_of_the_callers_dictionary(call, settings):
    bot, model = bot_of(settings, *["ok"] * 3)
    overrides = {"preset_overrides": {"model_customizations": {"temperature": 0}, "metadata": {"system_message": "X"}}}
    before = json.dumps(overrides)

    call(bot, "ask", "1", overrides)
    call(bot, "ask", "2")
    call(bot, "ask", "3", {"preset_overrides": {"params": {"top_p": 1, "max_tokens": 9}, "timeout": 5}})

    assert [dict(request.params) for request in model.requests] == [
        {"temperature": 0, "top_p": 0.5},
        {"temperature": 0.5, "top_p": 0.5},
        {"temperature": 0.5, "top_p": 1, "max_tokens": 9},
    ]
    assert [said(request)[0][1] for request in model.requests[:2]] == ["X", "You are a helpful assistant."]
    assert [request.timeout_s for request in model.requests] == [60, 60, 5]
    assert json.dumps(overrides) == before


def test_a_preset_for_one_request_brings_all_of_itself_and_sticks_only_where_it_is_activated(call, settings):
    bot, model = bot_of(settings, *["ok"] * 4)

    call(bot, "ask", "1", {"preset": "gpt-4-creative-writing"})
    call(bot, "ask", "2")
    call(bot, "ask", "3", {"preset": "gpt-4-code-generation", "activate_preset": True})
    call(bot, "ask", "4")

    assert [request.params["temperature"] for request in model.requests] == [0.7, 0.5, 0.2, 0.2]
    assert ["creative" in said(request)[0][1] for request in model.requests] == [True, False, False, False]
    assert ["programmer" in said(request)[0][1] for request in model.requests] == [False, False, True, True]


def test_a_system_message_is_a_text_or_an_alias(call, settings):
    settings.set("model.system_message.pirate", "Arr.")
    bot, model = bot_of(settings, *["ok"] * 4)

    call(bot, "ask", "1", {"system_message": "programmer"})
    call(bot, "ask", "2", {"system_message": "Be brief."})
    bot.set_system_message("pirate")
    call(bot, "ask", "3")
    call(bot, "ask", "4", {"preset": "gpt-4-creative-writing"})

    told = [said(request)[0][1] for request in model.requests]
    aliases = bot.get_system_message_aliases()
    assert told == [aliases["programmer"], "Be brief.", "Arr.", aliases["creative_writer"]]


def test_variables_of_a_system_message_are_put_in_once(call, settings, tmp_path):
    preset(tmp_path, "who", "model: openai/x\nsystem: 'You are {{ who }}.'\nvariables: {who: '{{ nobody }}'}\n")
    bot, model = bot_of(settings, "ok")

    call(bot, "ask", "1", {"preset": "who"})

    assert said(model.requests[0])[0] == ("system", "You are {{ nobody }}.")


def test_what_is_no_number_title_or_conversation_is_told_and_not_raised(settings):
    bot, _ = bot_of(settings)

    for told, why in (
        (bot.get_history("a"), "limit must be a whole number, not 'a'"),
        (bot.get_history(offset=1.5), "offset must be a whole number, not 1.5"),
        (bot.set_title(5), "a title must be a text, not 5"),
        (bot.switch_to_conversation({"a": 1}), "there is no conversation {'a': 1}"),
        (bot.get_conversation([1]), "there is no conversation [1]"),
    ):
        assert told == (False, None, why)


def test_files_join_the_question(call, settings, tmp_path):
    (tmp_path / "note.txt").write_text("42")
    bot, model = bot_of(settings, "ok")

    call(bot, "ask", "What is it?", {"files": ["note.txt"]})

    parts = model.requests[0].messages[-1]["content"]
    assert [part["text"] for part in parts] == ["What is it?", "note.txt:\n42"]


# -- tools, schemas, titles ----------------------------------------------------------------------------------------

TOOLS = """
model: openai/gpt-4o
tools: ['sample_tools:weather']
"""


@pytest.fixture
def tools(tmp_path, monkeypatch):
    (tmp_path / "sample_tools.py").write_text(
        'def weather(city: str) -> str:\n    """Tell the weather."""\n'
        "    if city == 'X': raise OSError('no such city')\n    return f'clear in {city}'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    preset(tmp_path, "tools", TOOLS)
    preset(tmp_path, "asks", TOOLS + "max_rounds: 1\n")


def asks_for(city):
    return reply(
        "", tool_calls=[{"id": "c1", "function": {"name": "weather", "arguments": json.dumps({"city": city})}}]
    )


@pytest.mark.parametrize("name", ["ask", "ask_stream"])
def test_tools_of_a_preset_are_called_and_what_they_told_is_remembered(call, settings, tools, name):
    settings.set("model.default_preset", "tools")
    bot, model = bot_of(settings, asks_for("Rome"), "It is clear.", asks_for("X"), "I cannot say.", "ok")

    assert call(bot, name, "Weather in Rome?")[:2] == (True, "It is clear.")
    assert call(bot, name, "And in X?")[:2] == (True, "I cannot say.")
    call(bot, name, "Thanks")

    roles = [message["role"] for message in model.requests[-1].messages]
    assert roles == ["user", "assistant", "tool", "assistant", "user", "assistant", "tool", "assistant", "user"]
    assert model.requests[1].messages[-1]["content"] == "clear in Rome"
    assert "no such city" in model.requests[3].messages[-1]["content"]


def test_a_call_that_is_left_to_the_program_is_the_response(call, settings, tools):
    bot, _ = bot_of(settings, asks_for("Rome"))

    answer = call(bot, "ask", "Weather in Rome?", {"preset": "asks"})

    assert answer.success
    assert answer.response[0]["function"]["name"] == "weather"


def test_a_schema_of_a_preset_gives_the_parsed_object(call, settings, tmp_path):
    preset(tmp_path, "facts", "model: openai/x\nschema: {type: object, required: [city]}\n")
    bot, _ = bot_of(settings, '{"city": "Paris"}')

    assert call(bot, "ask", "Where?", {"preset": "facts"})[:2] == (True, {"city": "Paris"})


def test_titles_are_made_only_when_asked_for_and_only_by_the_model_in_use(call, here, server):
    with ScriptedServer() as other:
        bot = ApiBackend(here)
        call(bot, "ask", "Hello")
        assert len(server.requests) == 1
        here.set("backend.generate_title", True)
        bot.new_conversation()
        server.script = [Answer("Hi."), Answer('"A short greeting"'), Answer("Again.")]
        call(bot, "ask", "Hello")
        call(bot, "ask", "Hello again")

        assert bot.conversation.title == "A short greeting"
        assert (len(server.requests), len(other.requests)) == (4, 0)
        bot.new_conversation()
        server.script = [Answer("Hi."), Status(500)]
        answer = call(bot, "ask", "Hello")
        assert answer[:2] == (True, "Hi.")
        assert "no title: " in answer.message
        bot.new_conversation()
        call(bot, "ask", "Hello", {"title": "Mine"})
        assert bot.conversation.title == "Mine"
        assert len(server.requests) == 7


# -- money and the log ---------------------------------------------------------------------------------------------


def test_tokens_and_price_of_the_last_call_and_in_total(call, here, server):
    bot = ApiBackend(here)

    call(bot, "ask", "Hello")
    call(bot, "ask_stream", "Hello")

    assert bot.last_reply.text == "Hello from the server."
    assert bot.usage.last.total_tokens == 16
    assert bot.usage.total.total_tokens == 32
    assert bot.usage.total.cost_usd == pytest.approx(2 * (11 * 2.5 + 5 * 10) / 1e6)


def test_the_debug_log_has_every_request_and_no_key_for_each_backend_on_its_own(call, here, server, tmp_path):
    logging.getLogger().addHandler(handler := logging.NullHandler())
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.CRITICAL)
    try:
        texts = []
        for number, name in enumerate(["ask", "ask_stream"]):
            file = tmp_path / "logs" / f"{number}.log"
            settings = Config(config=here.get())
            settings.set("debug.log.enabled", True)
            settings.set("debug.log.filepath", str(file))
            server.script = [Answer(f"answer {number}")]
            call(ApiBackend(settings), name, f"question {number}", {"system_message": f"the key is {KEY}"})
            texts.append(file.read_text())
    finally:
        logging.getLogger().removeHandler(handler)
        logging.getLogger().setLevel(level)

    for number, text in enumerate(texts):
        assert f"question {number}" in text
        assert f"answer {number}" in text
        assert f"question {1 - number}" not in text
        assert server.url in text
        assert KEY not in text


def test_the_debug_log_tells_of_errors_and_a_log_that_cannot_be_written_is_told(call, here, server, tmp_path):
    here.set("debug.log.enabled", True)
    server.script = [Status(500)]

    call(ApiBackend(here), "ask", "Hello")

    assert "InternalServerError" in (tmp_path / "data" / "debug.log").read_text()
    here.set("debug.log.filepath", str(tmp_path / "data" / "debug.log" / "below"))
    answer = call(ApiBackend(here), "ask", "Hello")
    assert not answer.success
    assert "debug.log.filepath" in answer.message


def test_a_template_brings_its_preset_and_overrides(call, settings, tmp_path):
    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "word.md").write_text(
        "---\npreset: gpt-4-code-generation\nvariables: {word: null}\n"
        "overrides: {system_message: Be brief.}\n---\nExplain {{ word }}.\n"
    )
    bot, model = bot_of(settings, "ok", "ok")

    assert call(bot, "run_template", "word", {"word": "entropy"})[:2] == (True, "ok")
    assert not call(bot, "run_template", "word").success
    assert "word" in bot.last_error.args[0]
    assert not call(bot, "run_template", "missing").success
    call(bot, "run_template", "word", {"word": "x"}, {"system_message": "Mine."})

    assert said(model.requests[0]) == [("system", "Be brief."), ("user", "Explain entropy.\n")]
    assert model.requests[0].model == "openai/gpt-4-turbo"
    assert said(model.requests[1])[0] == ("system", "Mine.")


def test_conversations_that_are_kept_go_on_in_another_backend(call, settings):
    settings.set("backend.persist", True)
    bot, _ = bot_of(settings, "Hi Ann.", "Ann.")
    call(bot, "ask", "I am Ann.", {"title": "About Ann"})
    call(bot, "ask", "Who am I?")
    other, model = bot_of(Config(config=settings.get()), "Still Ann.", "new")

    assert other.get_history().response[0].title == "About Ann"
    assert other.switch_to_conversation(bot.conversation.id).success
    call(other, "ask", "And now?")
    other.new_conversation()
    call(other, "ask", "Hello")

    assert [text for _, text in said(model.requests[0])][1:] == [
        "I am Ann.",
        "Hi Ann.",
        "Who am I?",
        "Ann.",
        "And now?",
    ]
    session = ChatModel(CHATBOT, bot.conversation.id)
    assert len(session.get_config().message_logs) == 6
    assert session.get_config().system_prompt == "You are a helpful assistant."
    assert other.delete_conversation(bot.conversation.id).success
    assert not bot_of(settings)[0].switch_to_conversation(bot.conversation.id).success


def test_a_store_that_fails_does_not_cost_the_answer(call, settings, tmp_path):
    settings.set("backend.persist", True)
    settings.set("database", f"sqlite:///{tmp_path}")
    bot, _ = bot_of(settings, "ok")

    success, response, message = call(bot, "ask", "Hello")

    assert (success, response) == (True, "ok")
    assert "not in the store" in message


def test_examples_stand_between_the_system_message_and_the_conversation(call, settings, tmp_path):
    preset(tmp_path, "shown", "model: openai/x\nsystem: S\nexamples: [{user: Ping, assistant: Pong}]\n")
    settings.set("model.default_preset", "shown")
    bot, model = bot_of(settings, "one", "two")

    call(bot, "ask", "1")
    call(bot, "ask", "2")

    shown = [("system", "S"), ("user", "Ping"), ("assistant", "Pong"), ("user", "1")]
    assert said(model.requests[0]) == shown
    assert said(model.requests[1]) == [*shown, ("assistant", "one"), ("user", "2")]


# -- LWE's other names ---------------------------------------------------------------------------------------------


def test_the_current_conversation_is_known_by_lwes_names():
    bot = ApiBackend(backend=ScriptedBackend("one", "two"))
    bot.ask("first")
    first = bot.conversation_id
    bot.set_title("A title")

    assert bot.get_current_conversation_title() == "A title"
    bot.new_conversation()
    bot.ask("second")
    assert bot.conversation_id != first
    assert bot.get_current_conversation_title() is None
    assert [one.id for one in bot.get_history(limit=1).response] == [bot.conversation_id]
    assert [one.id for one in bot.get_history(offset=1).response] == [first]


def test_a_model_is_chosen_by_name(call):
    backend = ScriptedBackend("one")
    bot = ApiBackend(backend=backend)

    assert bot.set_model("gpt-4o") == (True, "openai/gpt-4o", "openai/gpt-4o answers")
    call(bot, "ask", "hi")
    assert backend.requests[0].model == "openai/gpt-4o"
    assert bot.set_model("nonesuch/x").success is False
    assert bot.set_model("").success is False


def test_the_length_of_what_is_sent_can_be_limited():
    bot = ApiBackend()

    assert bot.set_max_submission_tokens(500).success
    assert bot.config.get("model.max_submission_tokens") == 500
    assert bot.set_max_submission_tokens().success
    assert bot.config.get("model.max_submission_tokens") is None
    assert bot.set_max_submission_tokens("many").success is False


def test_the_settings_in_use_are_told_without_secrets():
    bot = ApiBackend(Config(config={"database": "postgresql://me:secret-word@host/db"}))

    told = bot.get_runtime_config()

    assert "model: local/smollm2" in told
    assert "secret-word" not in told


def test_modules_of_the_documents_import_as_they_stand_there():
    from llmkit.clients import MultiAIClient
    from llmkit.models import Deployment, Model

    client = MultiAIClient({"m": Deployment(model="m", provider="openai")})
    assert client.deployments["m"][0].provider == "openai"
    assert Model is str
    with pytest.raises(TypeError):
        client.deployments["x"] = ()
