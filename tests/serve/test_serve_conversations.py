"""Conversations that `llmkit serve` keeps: each for the one who began it, answered by what is served today."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import web
from server import Answer, Status
from serving import error_of, preset, running, wait_for

from llmkit import ChatModel, UnknownSessionError
from llmkit.money.ledger import ledger_of
from llmkit.presets import Preset
from llmkit.serve import Keys
from llmkit.serve.hosted.host import Host

ANNA, BEN = {"x-llmkit-visitor": "anna" * 8}, {"x-llmkit-visitor": "ben0" * 8}


class Caller:
    """Somebody who talks to a server."""

    def __init__(self, url, headers):
        self.url, self.headers = url, headers

    def post(self, body, where=""):
        address = f"{self.url}/conversations{where and '/' + where}"
        return web.post(address, json=body, headers=self.headers, timeout=30)

    def begin(self, content="hi", **body):
        """Begin a conversation, and return its id and its events."""
        answer = self.post({"model": "one", "content": content, **body})
        assert answer.status_code == 200, answer.text
        return answer.headers["x-llmkit-conversation"], events_of(answer)

    def list(self):
        return web.get(f"{self.url}/conversations", headers=self.headers).json()["data"]

    def get(self, where):
        return web.get(f"{self.url}/conversations/{where}", headers=self.headers)

    def messages(self, where):
        return [(each["role"], each["content"]) for each in self.get(where).json()["messages"]]


def events_of(answer):
    *events, end, rest = answer.text.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


@pytest.fixture
def url(sqlite, server):
    with running(preset("one", sqlite, server.url, system="Be brief."), store=sqlite) as address:
        yield address


@pytest.fixture
def anna(url):
    return Caller(url, ANNA)


# -- what it does ------------------------------------------------------------------------------------------------------


def test_it_is_kept_listed_and_goes_on(anna, server, sqlite):
    server.script = [Answer("Hello **you**"), Answer("Again")]

    where, events = anna.begin("  What a\nday,   and so on " + "word " * 20)
    anna.post({"content": "And?"}, where)

    assert "".join(event.get("content", "") for event in events) == "Hello **you**"
    numbers = events[-1]["answer"]
    assert (numbers["prompt_tokens"], numbers["completion_tokens"], events[-1]["kept"]) == (11, 5, True)
    assert numbers["cost_usd"] > 0
    (listed,) = anna.list()
    assert (listed["id"], listed["model"]) == (where, "one")
    assert listed["title"].startswith("What a day, and so on word")
    assert len(listed["title"]) <= 61
    assert [text for _, text in anna.messages(where)][1:] == ["Hello **you**", "And?", "Again"]
    assert anna.get(where).json()["messages"][1]["answer"] == numbers
    sent = server.requests[1].body["messages"]
    assert [message["role"] for message in sent] == ["system", "user", "assistant", "user"]
    assert [row.session for row in ledger_of(sqlite).rows()] == [where, where]


def test_a_failure_keeps_the_question_and_it_is_asked_again_once(anna, server):
    server.script = [Status(401), Answer("Now")]

    failed = anna.post({"model": "one", "content": "hi"})
    where = failed.headers["x-llmkit-conversation"]

    assert (failed.status_code, error_of(failed)["code"]) == (502, "upstream_refused_key")
    assert anna.messages(where) == [("user", "hi")]
    assert anna.post({}, where).status_code == 200
    assert anna.messages(where) == [("user", "hi"), ("assistant", "Now")]
    assert len(server.requests[-1].body["messages"]) == 2
    assert anna.post({}, where).status_code == 400  # there is nothing to answer now


def test_a_question_that_fits_no_window_is_not_kept(anna, server):
    begun, _ = anna.begin()
    for where in ("", begun):
        refused = anna.post({"content": "x" * 500_001, **({} if where else {"model": "one"})}, where)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "content")

    assert len(anna.list()) == 1
    assert len(anna.messages(begun)) == 2
    assert len(server.requests) == 1


def test_what_had_arrived_of_an_answer_that_is_left_is_kept(anna, server):
    server.script = [Answer("word " * 400, end="slow", delay_s=0.02)]

    with web.client(timeout=30) as client:
        body = {"model": "one", "content": "hi"}
        with client.stream("POST", f"{anna.url}/conversations", json=body, headers=ANNA) as answer:
            lines = answer.iter_lines()
            assert next(lines) == 'data: {"content":"word"}'
            busy = anna.post({"content": "And?"}, answer.headers["x-llmkit-conversation"])
    where = anna.list()[0]["id"]

    assert (busy.status_code, error_of(busy)["code"]) == (409, "conversation_busy")
    wait_for(lambda: len(anna.messages(where)) == 2)
    question, cut = anna.get(where).json()["messages"]
    assert (question["content"], cut["interrupted"]) == ("hi", True)
    assert cut["content"].startswith("word")


def test_a_question_that_is_refused_while_another_is_answered_is_not_kept_and_may_come_again(anna, server):
    where, _ = anna.begin()
    go_on = threading.Event()
    server.script = [lambda _: (go_on.wait(60), Answer("First"))[1], Answer("Second")]
    with ThreadPoolExecutor(1) as others:
        first = others.submit(anna.post, {"content": "one"}, where)
        wait_for(lambda: len(server.requests) == 2)
        refused = [anna.post({"content": "two"}, where) for _ in range(2)]
        go_on.set()
        assert first.result().status_code == 200

    assert [(each.status_code, error_of(each)["code"]) for each in refused] == [(409, "conversation_busy")] * 2
    assert anna.post({"content": "two"}, where).status_code == 200
    assert anna.messages(where)[2:] == [
        ("user", "one"),
        ("assistant", "First"),
        ("user", "two"),
        ("assistant", "Second"),
    ]


def test_a_stream_that_breaks_off_is_an_error_and_no_answer(anna, server):
    server.script = [Answer("half", end="eof")]

    answer = anna.post({"model": "one", "content": "hi"})

    assert "[DONE]" not in answer.text
    assert "broke off" in answer.text
    assert anna.messages(answer.headers["x-llmkit-conversation"]) == [("user", "hi")]


def test_it_is_deleted(anna, sqlite):
    where, _ = anna.begin()

    assert web.delete(f"{anna.url}/conversations/{where}", headers=ANNA).status_code == 204
    assert (anna.get(where).status_code, anna.list()) == (404, [])
    with pytest.raises(UnknownSessionError):
        sqlite.session(where)


def test_a_long_one_is_cut_to_what_fits(sqlite, server):
    with running(preset("one", sqlite, server.url, max_input_tokens=60), store=sqlite) as url:
        anna = Caller(url, ANNA)
        where, _ = anna.begin("first " * 20)
        for number in range(3):
            anna.post({"content": f"number {number} " * 8}, where)

    assert not any("first" in str(message) for message in server.requests[-1].body["messages"])
    assert server.requests[-1].body["messages"][-1]["content"].startswith("number 2")


def test_what_is_served_today_answers_and_not_what_was(sqlite, server):
    with running(preset("one", sqlite, server.url, system="Old."), store=sqlite) as url:
        where, _ = Caller(url, ANNA).begin()
    with running(preset("one", sqlite, server.url, system="New."), store=sqlite) as url:
        assert Caller(url, ANNA).post({"content": "And?"}, where).status_code == 200
    with running(preset("two", sqlite, server.url), store=sqlite) as url:
        gone = Caller(url, ANNA).post({"content": "And?"}, where)
        shown = Caller(url, ANNA).messages(where)

    assert server.requests[1].body["messages"][0]["content"] == "New."
    assert (gone.status_code, error_of(gone)["code"]) == (404, "model_not_found")
    assert len(shown) == 4


def test_a_model_py_has_conversations_too(sqlite, tmp_path):
    folder = tmp_path / "echo"
    folder.mkdir()
    (folder / "model.py").write_text(
        "def predict(payload_dict, **kwargs):\n"
        "    for message in payload_dict['messages']:\n"
        "        yield message['content'] + '|'\n"
    )
    with running(Host(folder / "model.py", store=sqlite), store=sqlite) as url:
        anna = Caller(url, ANNA)
        where, events = anna.begin("hi", model="echo")
        anna.post({"content": "you"}, where)

    assert events[0] == {"content": "hi|"}
    with running(Host(folder / "model.py", store=sqlite), store=sqlite) as url:
        assert Caller(url, ANNA).messages(where)[-1] == ("assistant", "hi|hi||you|")


# -- variables ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def asking(sqlite, server, monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "hush")
    settings = {
        "system": "You speak {{ language }} to {{ who }}, {{ mark }}.",
        "variables": {"language": "English", "who": None, "mark": "m"},
        "params": {"user": "{{ mark }}"},
    }
    with running(preset("one", sqlite, server.url, **settings), store=sqlite) as url:
        yield Caller(url, ANNA)


def test_a_conversation_keeps_the_variables_that_it_began_with(asking, server):
    where, _ = asking.begin(variables={"who": "Bob", "language": "French"})
    asking.post({"content": "And?"}, where)

    said = [request.body["messages"][0]["content"] for request in server.requests]
    assert said == ["You speak French to Bob, m."] * 2
    assert asking.get(where).json()["variables"] == {"who": "Bob", "language": "French"}


def test_the_models_say_which_variables_there_are(asking):
    (card,) = web.get(f"{asking.url}/v1/models").json()["data"]

    # one that stands in a parameter too is the server's own
    assert card["variables"] == {"language": "English", "who": None}


@pytest.mark.parametrize(
    ("variables", "field"),
    [
        ({}, "variables.who"),
        ({"who": "Bob", "mark": "x"}, "variables.mark"),
        ({"who": "Bob", "other": "x"}, "variables.other"),
        ({"who": ["Bob"]}, "variables.who"),
        ({"who": "x" * 20_001}, "variables.who"),
    ],
)
def test_other_variables_are_refused_by_name(asking, server, variables, field):
    refused = asking.post({"model": "one", "content": "hi", "variables": variables})

    assert refused.status_code == 400
    assert error_of(refused)["param"].startswith(field)
    assert (server.requests, asking.list()) == ([], [])


@pytest.mark.parametrize("value", ["${SECRET_OF_THE_SERVER}", "{{ 7 * 7 }}", "os.environ/SECRET_OF_THE_SERVER", "{% x"])
def test_a_value_is_text_and_nothing_else(asking, server, value):
    asking.begin(variables={"who": value})

    assert server.requests[0].body["messages"][0]["content"] == f"You speak English to {value}, m."


# -- whose they are ----------------------------------------------------------------------------------------------------


def test_another_visitor_finds_nothing(anna, url):
    where, _ = anna.begin()
    ben = Caller(url, BEN)

    assert ben.list() == []
    for refused in (
        ben.get(where),
        ben.post({"content": "hi"}, where),
        web.delete(f"{url}/conversations/{where}", headers=BEN),
        ben.get("%00"),
        ben.get("'; DROP TABLE llmkit_sessions; --"),
    ):
        assert (refused.status_code, error_of(refused)["code"]) == (404, "conversation_not_found")
    assert len(anna.messages(where)) == 2


@pytest.mark.parametrize("secret", [None, "", "short", "x" * 129, "é" * 30, "key:" + "0" * 30])
def test_without_a_key_a_secret_is_needed(url, server, secret):
    headers = {} if secret is None else {"x-llmkit-visitor": secret.encode()}

    refused = web.post(f"{url}/conversations", json={"model": "one", "content": "hi"}, headers=headers)

    assert (refused.status_code, error_of(refused)["code"]) == (400, "missing_visitor")
    assert server.requests == []


def test_with_keys_each_sees_its_own_whatever_else_it_sends(sqlite, server, keys_soon):
    keys = Keys(sqlite)
    first, other = keys.add("anna"), keys.add("ben", models=["two"])
    with running(preset("one", sqlite, server.url), store=sqlite) as url:
        anna = Caller(url, {"x-api-key": first, **ANNA})
        where, _ = anna.begin()
        token = web.post(f"{url}/auth/session-token/", headers={"x-api-key": first}).json()["token"]
        assert Caller(url, {"authorization": f"Bearer {token}"}).messages(where) == anna.messages(where)
        ben = Caller(url, {"x-api-key": other, **ANNA})
        assert (ben.list(), ben.get(where).status_code) == ([], 404)
        refused = ben.post({"model": "one", "content": "hi"})
        assert (refused.status_code, error_of(refused)["code"]) == (403, "model_not_allowed")
        assert Caller(url, ANNA).get(where).status_code == 401

        keys.remove("anna")
        with pytest.raises(UnknownSessionError):  # nobody could read it any more
            sqlite.session(where)
        again = Caller(url, {"x-api-key": Keys(sqlite).add("anna"), **ANNA})  # somebody else's, of the same name
        wait_for(lambda: web.get(f"{url}/v1/models", headers=again.headers).status_code == 200)
        assert (again.list(), again.get(where).status_code) == ([], 404)
        wait_for(lambda: anna.get(where).status_code == 401)
        assert anna.post({"content": "hi"}, where).status_code == 401


def test_those_of_the_command_line_and_of_callers_do_not_meet(anna, server, sqlite):
    mine = ChatModel(Preset(name="one", model="openai/gpt-4o"), store=sqlite)
    mine.add_messages([{"role": "user", "content": "mine"}])
    time.sleep(0.01)

    where, _ = anna.begin("theirs")

    assert anna.get(mine.session_uuid).status_code == 404
    assert [info.id for info in ChatModel.sessions(store=sqlite)] == [mine.session_uuid]
    assert ChatModel.sessions("theirs", store=sqlite) == []
    assert sqlite.resolve("") == mine.session_uuid
    with pytest.raises(UnknownSessionError):
        sqlite.resolve(where[:8])
    # whoever runs the server has the store, and finds one that a caller names
    assert sqlite.resolve(where) == where
    assert ChatModel("one", where, store=sqlite).get_config().message_logs[0]["content"] == "theirs"


def test_no_secret_of_the_preset_is_in_what_is_kept(anna, sqlite):
    where, _ = anna.begin()

    assert "sk-of-the-upstream" not in json.dumps(dict(sqlite.session(where).snapshot))
    assert "Be brief." not in anna.get(where).text
