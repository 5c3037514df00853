"""Sessions as wholes: exported and imported, forked, found, asked again, of one version; and stores that fail."""

from __future__ import annotations

import random

import pytest
import test_chat
from server import Answer, Status
from test_chat import HELLO, SYSTEM, USER, preset, said, session

from llmkit import ChatModel, InvalidRequestError, PresetError, StoreError, UnknownSessionError
from llmkit.core.types import Usage
from llmkit.store import Store
from llmkit.testing import ScriptedBackend, reply

ask, bot = test_chat.ask, test_chat.bot
FORMATS = ("json", "jsonl")  # that read back
HEAD = '{"id": "x", "preset": "bot", "snapshot": {}}'
BITS = (
    *("", " ", "a word", "\n", "\n\n", "\r\n", "\r", "\t", "\x00", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"),
    *(
        "```",
        "# title\n",
        "\\",
        "\\\\",
        "\\n",
        '{"session": {}}',
        "naïve 日本 🙂 \u200f",
        '"',
        "'",
        "\ufeff",
        "null",
        "{",
    ),
)


def nasty(chance):
    return "".join(chance.choice(BITS) for _ in range(chance.randrange(6)))


def message(chance):
    """One message as a program, a model or a tool may leave it."""
    text, call = nasty(chance), {"id": "x", "type": "function", "function": {"name": "f", "arguments": nasty(chance)}}
    part, picture = {"type": "text", "text": text}, {"type": "image_url", "image_url": {"url": nasty(chance)}}
    kinds = [
        ("user", {"content": text}),
        ("user", {"content": text, "name": nasty(chance)}),
        ("user", {"content": [part, picture][: chance.randrange(1, 3)]}),
        ("assistant", {"content": text, "interrupted": True}),
        ("assistant", {"content": None, "tool_calls": [call]}),
        ("assistant", {"tool_calls": [call], "reasoning": {"text": nasty(chance), "n": [1.5, None, True]}}),
        ("assistant", {"content": None, "function_call": call["function"]}),
        ("tool", {"tool_call_id": "x", "content": text}),
        ("developer", {"content": text}),
    ]
    role, more = chance.choice(kinds)
    return {"role": role, **more}


# -- export and import ---------------------------------------------------------------------------------------------


def test_what_was_exported_reads_back_without_a_loss(tmp_path):
    chance, here = random.Random(7), Store(tmp_path / "s.db")
    for number in range(300):
        chat, logs = ChatModel("bot", store=here), [message(chance) for _ in range(chance.randrange(1, 5))]
        chat.add_messages(logs)
        for form in FORMATS:
            back = ChatModel.import_(chat.export(form), store=here)

            assert back.get_config().message_logs == logs, (number, form)
            assert back.info.snapshot == chat.info.snapshot, (number, form)
            assert back.export(form) == chat.export(form).replace(chat.session_uuid, back.session_uuid), (number, form)
            back.delete()


@pytest.mark.parametrize("form", FORMATS)
def test_a_title_reads_back_whatever_it_is(tmp_path, form):
    chance, chat = random.Random(8), session(tmp_path)
    for _ in range(60):
        chat.rename(nasty(chance))

        back = ChatModel.import_(chat.export(form), store=tmp_path / "s.db")

        assert (back.info.title, back.get_config().message_logs) == (chat.info.title, [HELLO])


def test_a_markdown_export_is_readable(tmp_path):
    chat = session(tmp_path, HELLO, {"role": "assistant", "content": "Hi, *friend*.\nHow are you?"})
    chat.rename("A greeting")

    lines = [line for line in chat.export().split("\n") if line]
    assert lines == ["# A greeting", "## user", "Hello.", "## assistant", "Hi, *friend*.", "How are you?"]
    with pytest.raises(InvalidRequestError, match="there are: md, json, jsonl"):
        chat.export("html")
    with pytest.raises(InvalidRequestError, match="Markdown is for people only"):
        ChatModel.import_(chat.export(), store=tmp_path / "s.db")


@pytest.mark.parametrize("form", FORMATS)
def test_an_imported_session_goes_on(ask, tmp_path, server, form):
    preset(tmp_path, "bot", server, "versions: {1: {}, 2: {max_rounds: 2}}\n")
    chat = session(tmp_path, version=1).fork()
    file = tmp_path / "a.txt"
    file.write_text(chat.export(form))
    (tmp_path / "presets" / "bot.yaml").unlink()

    elsewhere = ChatModel.import_(file, store=tmp_path / "other.db")
    beside = ChatModel.import_(chat.export(form), store=tmp_path / "s.db")

    assert (elsewhere.session_uuid, elsewhere.info.forked_from) == (chat.session_uuid, chat.info.forked_from)
    assert beside.session_uuid != chat.session_uuid
    for made in (elsewhere, beside):
        assert made.get_config().version == 1
        assert ask(made).content == "Hello from the server."
        assert said(server.requests[-1].body["messages"]) == [SYSTEM, USER]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "llmkit exported"),
        (b"{\xff", "utf-8"),
        ("{", "llmkit exported"),
        ('{"messages": []}', "llmkit exported"),
        ('{"session": 7, "messages": []}', "llmkit exported"),
        ('{"session": {"id": "x"}, "messages": []}', "preset, snapshot missing"),
        (f'{{"session": {HEAD}}}\n\n{{"role": "user", "content": ""}}\n{{"role": "user"', "line 4"),
        (f'{{"session": {HEAD}}}\n{{"role": "banana", "content": "x"}}', "banana"),
        (f'{{"session": {HEAD}, "messages": [7]}}', "message 0"),
        (f'{{"session": {HEAD}, "messages": {{"role": "user"}}}}', "messages"),
        (f'{{"session": {HEAD}, "messages": []}}'.replace('"x"', "7"), "id"),
        (f'{{"session": {HEAD}, "messages": []}}'.replace("{}", "7"), "snapshot"),
        (f'{{"session": {HEAD}, "messages": []}}'.replace("{}", '{"no": 1}'), "no"),
    ],
)
def test_a_text_that_was_not_exported_is_refused_and_nothing_is_kept(tmp_path, text, why):
    (tmp_path / "a.txt").write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(InvalidRequestError) as caught:
        ChatModel.import_(tmp_path / "a.txt", store=tmp_path / "s.db")

    assert why in str(caught.value)
    assert Store(tmp_path / "s.db").sessions(empty=True) == []


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_that_was_cut_in_the_middle_of_a_line_is_refused(tmp_path, form):
    whole = session(tmp_path, HELLO, {"role": "assistant", "content": "Hi."}, HELLO).export(form)

    for line in [line for line in whole.splitlines() if line.startswith(("{", " "))]:
        for length in range(1, len(line) - 1, 7):
            with pytest.raises(InvalidRequestError):
                ChatModel.import_(whole[: whole.index(line) + length], store=tmp_path / "other.db")


# -- forked, renamed, found, deleted, counted ----------------------------------------------------------------------


def test_a_fork_has_the_first_messages_and_leaves_the_session_alone(ask, tmp_path, server):
    chat = session(tmp_path)
    ask(chat)
    chat.rename("Greeting")

    fork = chat.fork(1)
    fork.add_messages([{"role": "user", "content": "Or rather: bye."}])
    ask(fork)

    assert said(server.requests[1].body["messages"]) == [SYSTEM, USER, ("user", "Or rather: bye.")]
    assert (fork.info.forked_from, fork.info.title) == (chat.session_uuid, "Greeting")
    assert said(chat.fork().get_config().message_logs) == [USER, ("assistant", "Hello from the server.")]
    for at in (-1, 3):
        with pytest.raises(InvalidRequestError, match="the session has 2 messages"):
            chat.fork(at)


def test_sessions_are_found_by_their_words_until_they_are_deleted(tmp_path):
    one, two = (session(tmp_path, {"role": "user", "content": f"Do penguins {word}?"}) for word in ("sleep", "fly"))
    store = tmp_path / "s.db"
    two.rename("Birds")
    found = ChatModel.sessions("penguins", store=store)
    assert [(info.id, info.title) for info in found] == [
        (two.session_uuid, "Birds"),
        (one.session_uuid, "Do penguins sleep?"),
    ]
    assert [info.id for info in ChatModel.sessions("sleep penguins", store=store)] == [one.session_uuid]
    one.delete()
    assert [info.id for info in ChatModel.sessions(store=store)] == [two.session_uuid]
    with pytest.raises(UnknownSessionError, match=one.session_uuid):
        one.get_config()


def test_sessions_are_kept_in_the_data_folder_of_the_moment(tmp_path, monkeypatch):
    for name in ("a", "b"):
        monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path / name))
        made = ChatModel("bot")
        made.add_messages([HELLO])

    assert [info.id for info in ChatModel.sessions()] == [made.session_uuid]
    assert (tmp_path / "b" / "llmkit.db").is_file()


def test_a_rerun_puts_two_costs_beside_each_other(tmp_path, server):
    preset(tmp_path, "cheap", server, model="openai/gpt-4o-mini")
    answers = [
        reply(text, usage=Usage(cost_usd=cost)) for text, cost in zip("abcd", (0.5, 0.25, 0.01, 0.02), strict=True)
    ]
    backend = ScriptedBackend(*answers)
    chat = session(tmp_path, backend=backend)
    chat.run()
    chat.add_messages([{"role": "user", "content": "And now?"}])
    chat.run()

    again = chat.rerun("cheap")

    assert (again.cost_before, again.cost, again.error_log) == (0.75, pytest.approx(0.03), None)
    turns = [USER, ("assistant", "c"), ("user", "And now?"), ("assistant", "d")]
    assert said(again.session.get_config().message_logs) == turns
    assert [request.model for request in backend.requests[2:]] == ["openai/gpt-4o-mini"] * 2
    assert said(chat.get_config().message_logs)[1] == ("assistant", "a")


def test_a_rerun_that_fails_says_why_and_keeps_what_there_is(tmp_path, server):
    chat = session(tmp_path)
    chat.run()
    server.script = [Status(500)]

    again = chat.rerun("example")

    assert ("scripted 500" in again.error_log, again.session.get_config().message_logs) == (True, [HELLO])
    assert again.cost_before == pytest.approx(11 * 2.5e-6 + 5 * 10e-6)


def test_a_retry_after_an_answer_puts_another_in_its_place(call, tmp_path, server):
    chat = session(tmp_path)
    server.script = [Answer("one"), Answer("two"), Status(500), Answer("three"), Answer("four")]
    call(chat, "run")
    other = ChatModel("bot", chat.session_uuid, store=tmp_path / "s.db")

    assert call(other, "retry", temperature=0.5).content == "two"
    assert call(chat, "retry").error
    assert said(chat.get_config().message_logs) == [USER, ("assistant", "two")]
    assert call(chat, "retry").content == "three"
    chat.add_messages([HELLO])
    call(chat, "run")

    assert server.requests[1].body["temperature"] == 0.5
    assert {len(request.body["messages"]) for request in server.requests[:4]} == {2}
    assert said(server.requests[4].body["messages"]) == [SYSTEM, USER, ("assistant", "three"), USER]


# -- versions and the snapshot -------------------------------------------------------------------------------------

VERSIONS = "versions:\n  1: {ratio: 0.5, max_rounds: 1}\n  2: {ratio: 0.5, max_rounds: 2}\n  3: {max_rounds: 3}\n"


def test_a_version_is_drawn_or_the_latest_or_the_one_that_is_named(tmp_path, server):
    preset(tmp_path, "bot", server, VERSIONS)
    store = Store(tmp_path / "s.db")
    random.seed(3)

    drawn = [ChatModel("bot", store=store).get_config().version for _ in range(200)]

    assert (set(drawn), 75 < drawn.count(1) < 125) == ({1, 2}, True)
    for name, version, number in (("bot", "latest", 3), ("bot", 2, 2), ("bot@1", "deploy", 1)):
        assert ChatModel(name, version=version, store=store).get_config().version == number


@pytest.mark.parametrize(
    ("name", "version", "why"),
    [("bto", "deploy", "did you mean bot"), ("bot", 7, "no version 7; it has: 1, 2, 3"), ("uneven", "deploy", "ratio")],
)
def test_an_unknown_name_or_version_is_refused_and_so_are_uneven_ratios(tmp_path, server, name, version, why):
    preset(tmp_path, "bot", server, VERSIONS)
    preset(tmp_path, "uneven", server, VERSIONS.replace("0.5", "0.7"))

    with pytest.raises(PresetError, match=why):
        ChatModel(name, version=version, store=tmp_path / "s.db")


def test_another_name_or_version_than_the_sessions_is_refused(tmp_path, server):
    preset(tmp_path, "bot", server, VERSIONS)
    chat = session(tmp_path, version=2)

    for name, version in (("example", "deploy"), ("bot", 1), ("bot@1", "deploy")):
        with pytest.raises(InvalidRequestError, match=r"was made with (the preset 'bot'|version 2), not"):
            ChatModel(name, chat.session_uuid, version, store=tmp_path / "s.db")
    for name, version in (("bot", "deploy"), ("bot", 2), ("bot@2", "deploy"), ("presets/bot.yaml", 2)):
        assert ChatModel(name, chat.session_uuid, version, store=tmp_path / "s.db").get_config().version == 2


def test_the_same_line_makes_a_session_of_the_latest_version_and_continues_it(tmp_path, server):
    preset(tmp_path, "bot", server, VERSIONS)

    for _ in range(2):
        chat = ChatModel("bot", "of-monday", "latest", store=tmp_path / "s.db", create=True)
        assert chat.get_config().version == 3


@pytest.mark.parametrize("change", ["edited", "deleted"])
def test_a_session_keeps_its_preset_whatever_becomes_of_the_file(ask, tmp_path, server, monkeypatch, change):
    monkeypatch.setenv("MY_KEY", "sk-of-the-environment")
    more = (
        "variables: {mood: kind}\nexamples: [{user: '1+1?', assistant: '2'}]\ntimeout: 9\nmax_input_tokens: 1000\n"
        "tools: ['test_chat_stream:get_weather']\nschema: {type: object}\nextends: example\n"
    )
    preset(tmp_path, "rich", server, more + VERSIONS.replace("max_rounds", "timeout"))
    file = tmp_path / "presets" / "rich.yaml"
    file.write_text(f"{file.read_text()}params: {{api_key: '${{MY_KEY}}', logit_bias: {{'7': 1}}}}\n")
    chat = session(tmp_path, name="rich", version=1)
    before = chat.get_config()
    ask(chat, schema=None)
    for path in (file, tmp_path / "presets" / "example.yaml"):
        path.unlink() if change == "deleted" else path.write_text("model: openai/another\nsystem: Another.\n")

    again = session(tmp_path, name="rich", session_uuid=chat.session_uuid)
    ask(again, schema=None)

    after = again.get_config()
    assert (after.version, after.version_uuid, after.model) == (1, before.version_uuid, "openai/gpt-4o")
    first, second = (request.body for request in server.requests)
    assert {**second, "messages": first["messages"]} == first
    assert second["messages"][: len(first["messages"])] == first["messages"]
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer sk-of-the-environment"}
    assert b"sk-of-the-environment" not in b"".join(path.read_bytes() for path in tmp_path.glob("s.db*"))


# -- long histories ------------------------------------------------------------------------------------------------

OLD, LOOKED = ("user", "assistant"), ("user", "assistant", "tool", "assistant")


def long_history(found):
    """Three turns of some 2,000 tokens each, one with a tool call and a result of *found* tokens, and a question."""
    old = [{"role": "user", "content": "old " * 1000}, {"role": "assistant", "content": "answer " * 1000}] * 3
    call = {"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "x", "content": "found " * found}
    looked = [HELLO, {"role": "assistant", "content": None, "tool_calls": [call]}, result]
    return [*old, *looked, {"role": "assistant", "content": "Done."}, {"role": "user", "content": "the newest " * 100}]


@pytest.mark.parametrize(
    ("model", "more", "result", "kept"),
    [
        ("openai/gpt-4", "", 1000, [*OLD, *OLD, *LOOKED, "user"]),
        ("openai/gpt-4", "", 6900, ["user"]),
        ("openai/gpt-4", "max_input_tokens: 2000", 1000, [*LOOKED, "user"]),
        ("openai/nobody-knows-this", "", 6900, None),
    ],
)
def test_a_long_history_is_cut_to_what_the_model_takes(ask, tmp_path, server, model, more, result, kept):
    preset(tmp_path, "bot", server, more, model=model)
    chat = session(tmp_path, *long_history(result))

    assert ask(chat).error_log is None

    *logs, _ = [message["role"] for message in chat.get_config().message_logs]
    assert len(logs) == 11
    assert [message["role"] for message in server.requests[0].body["messages"]] == ["system", *(kept or logs)]


def test_a_message_that_is_too_long_by_itself_is_told(ask, tmp_path, server):
    preset(tmp_path, "bot", server, model="openai/gpt-4")

    assert "at most" in ask(session(tmp_path, {"role": "user", "content": "word " * 9000})).error_log
    assert server.requests == []


# -- stores that fail ----------------------------------------------------------------------------------------------


class Failing(Store):
    """A store whose disk is full at the next call of one method."""

    def __init__(self, url, method):
        super().__init__(url)

        def fail(*args, **kwargs):
            delattr(self, method)
            raise StoreError("the disk is full")

        setattr(self, method, fail)


def test_a_store_that_fails_at_the_end_does_not_cost_the_answer(ask, tmp_path, server):
    chat = session(tmp_path, store=Failing(tmp_path / "s.db", "end"))

    res = ask(chat)

    assert (res.error, res.content) == (False, "Hello from the server.")
    assert [text for text in res.warnings if "the answer is not in the store: the disk is full" in text]
    assert chat.get_config().message_logs == [HELLO]
    assert str(ask(chat)) == "Hello from the server."
    assert said(server.requests[1].body["messages"]) == [SYSTEM, USER]


def test_a_store_that_fails_at_the_beginning_is_told_and_nothing_is_sent(ask, tmp_path, server):
    chat = session(tmp_path, store=Failing(tmp_path / "s.db", "begin"))

    res = ask(chat)

    assert (res.error, type(res.exception), "the disk is full" in res.error_log) == (True, StoreError, True)
    assert server.requests == []
    assert ask(chat).content == "Hello from the server."


def test_a_store_that_fails_after_a_failed_answer_does_not_hide_its_reason(ask, tmp_path, server):
    server.script = [Status(500)]

    assert "scripted 500" in ask(session(tmp_path, store=Failing(tmp_path / "s.db", "drop"))).error_log
