"""Many processes at one store, processes that are killed, and how a store is opened. LLMKIT_LONG=1 makes it long."""

from __future__ import annotations

import json
import os
import random
import stat
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass

import campaign
import pytest
from databases import LONG, POSTGRES_OR_BOTH, SQLITE_OR_BOTH

from llmkit import ChatModel, Ledger
from llmkit.errors import StoreError
from llmkit.money.ledger import ledger_of
from llmkit.store import Store
from llmkit.store.tables import MIGRATIONS
from llmkit.testing import ScriptedBackend

TURNS, NAMES = (200, "abcdefgh") if LONG else (10, "abcd")
KILLS = {"sqlite": (40, 5), "postgresql": (10, 4)} if LONG else {"sqlite": (1, 5)}
pytestmark = pytest.mark.timeout(3600 if LONG else 120)


def said(text, role="user", **more):
    return {"role": role, "content": text, **more}


def make(store, *messages, session="s"):
    store.create(session, preset="campaign", version=None, snapshot=campaign.PRESET.as_dict(), messages=messages)


def texts(store, session="s"):
    return [message["content"] for message in store.messages(session)]


# -- many processes ---------------------------------------------------------------------------------------------------


def test_processes_may_open_a_new_database_at_the_same_moment(database):
    ended = campaign.go([campaign.start("create", database, name) for name in NAMES])

    assert ended == [(0, "")] * len(NAMES)
    store = Store(database)
    assert sorted(info.id for info in store.sessions()) == list(NAMES)
    assert all(texts(store, name) == [name] for name in NAMES)
    store.close()


def test_a_store_is_used_on_both_sides_of_a_fork(store, database):
    make(store)

    assert campaign.run("fork", database, "s") == (0, "")

    for name in ("parent", "child"):
        assert [text for text in texts(store) if text.startswith(name)] == [f"{name} {number}" for number in range(20)]


@POSTGRES_OR_BOTH
def test_processes_with_sessions_of_their_own_do_not_disturb_each_other(store, database):
    ended = campaign.go([campaign.start("turns", database, name, TURNS) for name in NAMES])

    assert [status for status, _ in ended] == [0] * len(NAMES)
    for name, (_, session) in zip(NAMES, ended, strict=True):
        expected = [f"{word} {name}.{turn}" for turn in range(TURNS) for word in ("question", "answer")]
        assert texts(store, session.strip()) == expected
    assert len(store.sessions(empty=True)) == len(NAMES)


def test_a_run_is_sent_all_that_stands_before_it(store):
    backend = ScriptedBackend("first answer", "second answer", "third answer", "fourth answer")
    chat = ChatModel(campaign.PRESET, store=store, backend=backend)
    for question, stream in (("first", False), ("second", True), ("third", False)):
        chat.add_messages([said(question)])
        assert not (list(chat.run(stream=True))[-1] if stream else chat.run()).error
    assert not chat.retry().error

    for request, sent in zip(backend.requests, (1, 3, 5, 5), strict=True):
        assert [message["content"] for message in request.messages] == texts(store, chat.session_uuid)[:sent]


def test_processes_in_one_session_lose_nothing_and_double_nothing(store, database):
    make(store)

    ended = campaign.go([campaign.start("share", database, "s", name, TURNS) for name in "abcd"])

    assert [status for status, _ in ended] == [0] * 4
    messages = store.messages("s")
    for name in "abcd":
        own = [message["content"] for message in messages if message["content"].startswith(name)]
        assert own == [f"{name} {turn}" for turn in range(TURNS)]
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    assert len(messages) == 4 * TURNS + len(answers)
    assert len(answers) == sum(int(printed) for _, printed in ended) == len(store.runs("s"))
    assert answers[-1] == len(messages) - 1
    for index in answers:  # it stands right behind all that it was an answer to
        assert messages[index]["content"] == f"{index} {messages[index - 1]['content']}"


# -- processes that die -----------------------------------------------------------------------------------------------


@dataclass
class Question:
    """What a user has seen of a question before the process was killed."""

    text: str
    answer: str
    added: bool = False
    ended: bool = False
    safe: str = ""


def seen(log, killed_at):
    """Return the questions of a log; safe is what arrived more than a second before the end."""
    questions = []
    lines = log.read_text().splitlines() if log.exists() else []
    for moment, what, question, piece in map(json.loads, lines):
        if what == "adding":
            questions.append(Question(question, "".join(campaign.pieces(question))))
        elif what == "piece" and moment < killed_at - 1:
            questions[-1].safe += piece
        elif what != "piece":
            setattr(questions[-1], what, True)
    return questions


def check(messages, questions):
    """Every question and answer is there, in order; of an answer that was cut, at most the last second is missing."""
    rest = list(messages)
    for question in questions:
        if not rest or rest[0] != said(question.text):
            assert not question.added, f"{question} is lost"
            continue
        del rest[0]
        if question.ended or (rest and rest[0] == said(question.answer, "assistant")):
            assert rest.pop(0) == said(question.answer, "assistant")
        elif rest and rest[0]["role"] == "assistant":
            partial = rest.pop(0)
            assert partial == said(partial["content"], "assistant", interrupted=True)
            assert question.answer.startswith(partial["content"])
            assert partial["content"].startswith(question.safe)
        else:
            assert question.safe == ""
    assert rest == []


@SQLITE_OR_BOTH
def test_killed_streams_leave_all_but_the_last_second(store, database, tmp_path):
    rounds, width = KILLS[database.partition(":")[0]]
    history = {f"s{number}": [] for number in range(width)}
    cut = 0
    for session in history:
        make(store, session=session)
    for number in range(rounds):
        logs = [tmp_path / f"{number}.{session}" for session in history]
        children = [
            campaign.start("stream", database, session, log) for session, log in zip(history, logs, strict=True)
        ]
        campaign.begin(children)
        began = time.monotonic()
        moments = sorted([1.3, *(random.uniform(0, 2.5) for _ in children[1:])])  # one in the middle of an answer
        for child, session, log, moment in zip(children, history, logs, moments, strict=True):
            time.sleep(max(0.0, began + moment - time.monotonic()))
            killed_at = time.monotonic()
            child.kill()
            assert campaign.finished(child)[0] == -9
            history[session] += seen(log, killed_at)
            opened = Store(database)
            messages = opened.messages(session)
            check(messages, history[session])
            cut += bool(messages and messages[-1].get("interrupted"))
            chat = ChatModel(campaign.PRESET, session, store=opened, backend=ScriptedBackend("after all"))
            chat.add_messages([said(f"after {number}")])
            assert chat.run().content == "after all"
            history[session].append(Question(f"after {number}", "after all", added=True, ended=True))
            check(opened.messages(session), history[session])
            ledger_of(opened).flush()  # what waits there would be written when the database is gone
            opened.close()
    assert cut > 0


@pytest.mark.parametrize("partial", ["what had arr", ""])
def test_a_run_whose_process_died_leaves_what_had_arrived(store, database, partial):
    make(store, said("hi"))
    assert campaign.run("die", database, "s", partial) == (0, "")
    cut = [said(partial, "assistant", interrupted=True)] if partial else []
    assert store.messages("s") == [said("hi"), *cut]

    store.add("s", [said("go on")])

    run = store.begin("s")
    store.end("s", run, [said("ok", "assistant")], {})
    assert run.history == [said("hi"), *cut, said("go on")]
    assert store.messages("s") == [said("hi"), *cut, said("go on"), said("ok", "assistant")]
    assert [info.id for info in store.sessions("what had arr")] == (["s"] if partial else [])


def test_a_run_whose_process_died_and_was_not_waited_for_is_over(store, database):
    make(store, said("hi"))
    child = campaign.start("die", database, "s", "part")
    campaign.begin([child])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    try:
        store.drop("s", store.begin("s"))
    finally:
        assert campaign.finished(child) == (0, "")


# -- opening ----------------------------------------------------------------------------------------------------------


def test_the_files_of_a_store_are_its_users_alone(tmp_path):
    before = os.umask(0)
    try:
        store = Store(tmp_path / "new" / "folder" / "llmkit.db")
        make(store, said("hi"))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new" / "folder").iterdir()}
    finally:
        os.umask(before)
        store.close()

    assert modes == {"llmkit.db": 0o600, "llmkit.db-wal": 0o600, "llmkit.db-shm": 0o600}


@pytest.mark.parametrize("name", ["a b.db", "Größe.db", "100%41.db", "what?.db", "a#b.db", "a@b:c.db"])
def test_a_path_is_taken_as_it_is(tmp_path, name):
    for given in (tmp_path / "folder" / name, f"folder/{name}"):
        store = Store(given)
        make(store, said("hi"), session=str(given))
        store.close()

    store = Store(tmp_path / "folder" / name)
    assert len(store.sessions()) == 2
    store.close()
    assert [path.name for path in (tmp_path / "folder").iterdir()] == [name]


def test_a_closed_store_is_opened_again_when_it_is_used(store, database):
    make(store, said("hi"))
    store.close()
    assert texts(store) == ["hi"]
    assert store.url.startswith(database.partition(":")[0])


FORGETTING = """
import gc, os, sys
from llmkit.store import Store
fds = lambda: len(os.listdir("/proc/self/fd"))
for _ in range(2):  # the first time modules are loaded, too
    before = fds()
    store = Store(sys.argv[1])
    store.sessions()
    during = fds()
    del store
    gc.collect()
print(during > before, fds() - before)
"""


def test_a_store_that_is_forgotten_leaves_nothing_open(database):
    command = [sys.executable, "-W", "error", "-c", FORGETTING, database]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("True 0\n", "")


@pytest.mark.parametrize("version", [None, "0"])
def test_a_database_without_tables_is_brought_to_this_version(store, sql, version):
    sql("CREATE TABLE llmkit_meta (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
    if version:
        sql(f"INSERT INTO llmkit_meta VALUES ('schema', '{version}')")

    make(store, said("hi"))

    assert texts(store) == ["hi"]
    assert sql("SELECT value FROM llmkit_meta") == [(str(len(MIGRATIONS)),)]


def test_a_database_of_the_first_version_keeps_its_sessions_and_gets_what_is_new(store, sql):
    make(store, said("hi"))
    store.close()
    sql("DROP TABLE llmkit_ledger")
    sql("UPDATE llmkit_meta SET value = '1' WHERE key = 'schema'")

    assert texts(store) == ["hi"]
    assert Ledger(store).rows() == []
    assert sql("SELECT value FROM llmkit_meta") == [(str(len(MIGRATIONS)),)]


def test_a_database_of_a_newer_version_is_left_alone(store, sql, database):
    make(store, said("hi"))
    store.close()
    sql("UPDATE llmkit_meta SET value = '999' WHERE key = 'schema'")

    with pytest.raises(StoreError, match=r"schema 999 .* newer llmkit .* upgrade"):
        store.add("s", [said("more")])

    assert len(sql("SELECT body FROM llmkit_messages")) == 1


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ann:s3cret@127.0.0.1:1/x",
        "postgresql://127.0.0.1:1/x?user=ann&password=s3cret",
        "postgresql://ann:s3cret@127.0.0.1:port/x",
        "postgresql://ann:s3cret@127.0.0.1:1/x?unknown=1",
        "mysql://ann:s3cret@127.0.0.1/x",
        "postgresql+other://ann:s3cret@127.0.0.1/x",
    ],
)
def test_a_database_that_cannot_be_reached_is_a_store_error_without_the_password(url):
    with pytest.raises(StoreError) as caught:
        Store(url).sessions()

    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", [".", "text", "text/below", "/proc/llmkit/llmkit.db"])
def test_a_path_that_cannot_be_a_database_is_a_store_error(tmp_path, name):
    (tmp_path / "text").write_text("no database, but a text that is long enough to have a header" * 100)

    with pytest.raises(StoreError, match=str((tmp_path / name).resolve())):
        Store(tmp_path / name).sessions()
