"""The store of sessions, in SQLite and in PostgreSQL: what goes in comes out, and nothing goes in by half."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmkit import Budget, Budgets
from llmkit.errors import SessionBusyError, StoreError, UnknownSessionError
from llmkit.store import Run, Store

LARGE = "data:image/png;base64," + "iVBORw0KGgo" * 1000
SNAPSHOT = {"model": "openai/gpt-4o", "system": "Sei kurz.", "params": {"temperature": 0.5}}

QUERIES = {  # session: what finds it
    "a": ["tokio", "TOKIO zugfahrt", "zugfahrt   tokio"],
    "b": ["Größe", "café"],
    "c": ["co-op", "it's", '"quoted', 'say "quoted words"', "words (in"],
    "d": ["AND", "cats AND dogs NOT birds", "cats*", "cats *", "-cats", "^cats:"],
    "e": ["100%", "tool"],
    "": [
        "tokio café",
        "cats OR elephants",
        "NEAR(cats dogs)",
        "text:cats",
        "cats & dogs | !x",
        "elephant",
        "iVBORw0KGgo",
    ],
}
NO_WORDS = ["", " ", '"', "*", "(", '""', "* \" ( '", "\x00", "\ud83d", "'; --", "x" * 9999]


def said(text, role="user", **more):
    return {"role": role, "content": text, **more}


def picture(data=LARGE):
    return said([{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": data}}])


def make(store, *messages, session="s", **more):
    """Make a session and return its id."""
    store.create(session, **{"preset": "p", "version": None, "snapshot": {}, "messages": messages, **more})
    return session


def answer(store, session, text="ok", *, again=False, **details):
    """Run once; return what was to be answered."""
    run = store.begin(session, again=again)
    store.end(session, run, [said(text, "assistant")], details)
    return run.history


def texts(store, session="s"):
    return [message["content"] for message in store.messages(session)]


def ids(found):
    return [info.id for info in found]


# -- what goes in comes out -------------------------------------------------------------------------------------------


def test_a_session_comes_back_as_it_was_made(store):
    make(store, said("hi"), preset="brief", version=3, snapshot=SNAPSHOT, title="Täglich", forked_from="other")

    info = store.session("s")

    assert (info.id, info.preset, info.version, info.snapshot) == ("s", "brief", 3, SNAPSHOT)
    assert (info.title, info.forked_from) == ("Täglich", "other")
    assert info.created_at == info.updated_at > 1_700_000_000


def test_a_session_is_made_once(store):
    make(store, said("first"))

    with pytest.raises(StoreError, match="there is a session s already"):
        make(store, said("second"))

    assert texts(store) == ["first"]


@pytest.mark.parametrize(
    "message",
    [
        said("Grüße, 世界 🎉\r\n\t\u2028'\"\\ %s :x {{y}}"),
        said(""),
        said(" "),
        said(None, "assistant", tool_calls=[{"id": "1", "type": "function", "function": {"name": "f"}}]),
        said("42", "tool", tool_call_id="call_1"),
        said("hi", name="ann", unknown={"deep": [1, 2.5, None, True, {"x": []}]}, empty=None),
        said([{"type": "text", "text": "Look"}, {"type": "input_audio", "input_audio": {"data": "UklGRg=="}}]),
        picture(),
        said([{"type": "text", "text": LARGE}, {"type": "x", "list": [LARGE, {"$part": LARGE}]}]),
        said("x" * 3_000_000),
        said(" ".join(f"word{number}" for number in range(300_000))),
        said("hi", meta={"$part": "x"}),
        said([{"$part": "x"}, {"$escaped": {"$part": "x"}}, {"$part": {"$escaped": 1}}, {"$part": 1, "other": 2}]),
        said([{"type": "x", "value": {"$escaped": {"$part": LARGE}}}]),
        {"role": "assistant"},
    ],
    ids=lambda message: str(message)[:50],
)
def test_a_message_comes_back_as_it_was_added(store, message):
    make(store, message)
    store.add("s", [message, said("after")])

    assert store.messages("s") == [message, message, said("after")]
    assert store.begin("s").history == [message, message, said("after")]


@pytest.mark.parametrize("text", ["a\x00word", "word \ud83d cut", "\udcff word"], ids=["nul", "surrogate", "byte"])
@pytest.mark.parametrize("size", [1, 5000])
def test_characters_that_a_database_refuses_come_back(store, text, size):
    messages = [said(text * size), said([{"type": "text", "text": text * size}])]
    make(store, *messages)
    answer(store, "s", text)

    assert store.messages("s") == [*messages, said(text, "assistant")]
    assert ids(store.sessions("word")) == ["s"]


@pytest.mark.parametrize("text", ["a\x00word", "word \ud83d"], ids=["nul", "surrogate"])
def test_characters_that_a_database_refuses_come_back_from_a_run_that_was_cut(store, text):
    make(store, said("hi"))
    run = store.begin("s")
    store.note("s", run, text)

    assert store.messages("s") == [said("hi"), said(text, "assistant", interrupted=True)]


def test_a_title_has_spaces_for_characters_that_a_database_refuses(store):
    make(store, said("hi"))
    store.rename("s", "a\x00b\ud83dc")

    assert store.session("s").title == "a b c"


def test_messages_stay_in_the_order_in_which_they_were_added(store):
    make(store, said("0"), said("1"))
    for number in range(2, 122, 3):
        store.add("s", [said(str(number + more)) for more in range(3)])

    assert texts(store) == [str(number) for number in range(122)]


def test_messages_are_added_all_or_none(store, sql):
    make(store, said("before"))

    with pytest.raises((StoreError, TypeError)):
        store.add("s", [picture(), said("second", bad=object())])

    assert texts(store) == ["before"]
    assert len(sql("SELECT turn FROM llmkit_turns")) == 1


def test_a_session_is_made_with_all_its_messages_or_not_at_all(store):
    with pytest.raises((StoreError, TypeError)):
        make(store, said("first"), said("second", bad=object()))

    with pytest.raises(UnknownSessionError):
        store.session("s")


def test_threads_share_a_store(store):
    make(store)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.add("s", [said(str(number)), said(f"{number}b")]), range(80)))

    found = texts(store)
    assert sorted(found[::2], key=int) == [str(number) for number in range(80)]
    assert found[1::2] == [f"{text}b" for text in found[::2]]


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.session("gone-1"),
        lambda store: store.rename("gone-1", "x"),
        lambda store: store.delete("gone-1"),
        lambda store: store.add("gone-1", [said("x")]),
        lambda store: store.messages("gone-1"),
        lambda store: store.cost("gone-1"),
        lambda store: store.runs("gone-1"),
        lambda store: store.begin("gone-1"),
        lambda store: store.end("gone-1", Run(turn=1, revision=0, history=[], replaces=None, whole=True), [], {}),
    ],
    ids=["session", "rename", "delete", "add", "messages", "cost", "runs", "begin", "end"],
)
def test_a_session_that_is_not_there_is_named(store, call):
    make(store, said("another"))

    with pytest.raises(UnknownSessionError, match="gone-1"):
        call(store)


# -- sessions ---------------------------------------------------------------------------------------------------------


def test_sessions_come_the_last_changed_first(store):
    for session in "abcd":
        make(store, said(session), session=session)
    make(store, session="empty")
    store.add("b", [said("more"), said("and more")])
    answer(store, "a")

    found = store.sessions()
    assert ids(found) == ["a", "b", "d", "c"]
    assert [info.count for info in found] == [2, 3, 1, 1]
    assert ids(store.sessions(limit=2)) == ["a", "b"]
    assert ids(store.sessions(empty=True)) == ["a", "b", "empty", "d", "c"]


def test_a_session_is_renamed(store):
    make(store, said("hi"))
    store.rename("s", "Grüße")
    assert [info.title for info in store.sessions()] == ["Grüße"]
    store.rename("s", None)
    assert store.session("s").title is None


def test_a_deleted_session_leaves_nothing(store, sql):
    make(store, picture(), picture("data:own" * 1000), said("unmistakable"))
    answer(store, "s", "also unmistakable")
    store.note("s", store.begin("s"), "never ended")
    make(store, picture(), said("kept"), session="other")

    store.delete("s")

    with pytest.raises(UnknownSessionError):
        store.messages("s")
    assert store.sessions("unmistakable") == []
    assert store.messages("other") == [picture(), said("kept")]
    assert ids(store.sessions("kept")) == ["other"]
    for table in ("llmkit_messages", "llmkit_turns"):
        assert {row[0] for row in sql(f"SELECT session_id FROM {table}")} == {"other"}
    make(store, said("anew"))
    assert texts(store) == ["anew"]


def test_a_replaced_answer_leaves_nothing(store):
    make(store, said("draw"))
    run = store.begin("s")
    store.end("s", run, [picture()], {})
    answer(store, "s", "no picture", again=True)

    assert texts(store) == ["draw", "no picture"]
    assert store.sessions("Look") == []


@pytest.mark.parametrize(("expected", "query"), [(found, query) for found, all_ in QUERIES.items() for query in all_])
def test_search_takes_every_character_as_text(store, expected, query):
    make(store, said("eine Zugfahrt durch Tokio"), session="a")
    make(store, said("Die Größe im Café"), said("only here: zugfahrt"), session="b")
    make(store, said([{"type": "text", "text": 'it\'s a co-op: say "quoted words" (in it)'}]), session="c")
    make(store, said("cats AND dogs, NOT birds"), said("nothing"), session="d")
    make(store, picture(), session="e")
    answer(store, "e", "100% from the tool")

    assert ids(store.sessions(query)) == list(expected)


@pytest.mark.parametrize(
    "query", ["main", "local zzdir", "<zqdiv>", "zqhost", "zqhost.example.com", "zqbeta", "zqbeta_gamma"]
)
def test_search_finds_the_words_of_paths_hosts_and_tags(store, query):
    make(store, said("open main.py in /usr/local/zzdir and <zqdiv> at zqhost.example.com; zq-alpha/zqbeta_gamma"))
    make(store, said("something else"), session="other")

    assert ids(store.sessions(query)) == ["s"]


@pytest.mark.parametrize("query", NO_WORDS)
def test_search_for_what_is_no_word_finds_nothing(store, query):
    make(store, said("something, 'quoted' AND (more)"))

    assert store.sessions(query) == []


def test_a_snippet_shows_the_newest_place_and_marks_the_words(store):
    long = " ".join(["before"] * 200 + ["the needle here"] + ["after"] * 200)
    make(store, said("an old needle"), said(long), title="T")
    make(store, said("other needle"), session="newer")

    found = store.sessions("NEEDLE")

    assert ids(found) == ["newer", "s"]
    assert found[0].snippet == "other [needle]"
    assert "[needle] here" in found[1].snippet
    assert len(found[1].snippet) < 200
    assert ids(store.sessions("needle", limit=1)) == ["newer"]


# -- runs -------------------------------------------------------------------------------------------------------------


def test_an_answer_stands_where_its_run_began(store):
    make(store, said("first"))
    run = store.begin("s")
    store.add("s", [said("second")])
    store.note("s", run, "par")
    assert store.messages("s") == [said("first"), said("par", "assistant", interrupted=True), said("second")]

    store.end("s", run, [said("called", "assistant"), said("answer", "assistant")], {"model": "m"})

    assert run.history == [said("first")]
    assert texts(store) == ["first", "called", "answer", "second"]
    assert not [message for message in store.messages("s") if "interrupted" in message]


def test_one_run_of_a_session_at_a_time(store):
    make(store, said("hi"))
    make(store, said("hi"), session="other")
    run = store.begin("s")

    with pytest.raises(SessionBusyError, match="another run of session s is under way"):
        store.begin("s")
    with pytest.raises(SessionBusyError):
        store.begin("s", again=True)
    answer(store, "other")
    store.drop("s", run)

    assert answer(store, "s") == [said("hi")]
    assert texts(store) == ["hi", "ok"]


def test_a_dropped_run_leaves_nothing(store):
    make(store, said("hi"))
    run = store.begin("s")
    store.note("s", run, "partial")
    store.drop("s", run)

    assert texts(store) == ["hi"]
    assert store.runs("s") == []


def test_again_replaces_the_last_answer_when_the_new_one_is_there(store):
    make(store, said("hi"))
    answer(store, "s", "first")

    failing = store.begin("s", again=True)
    assert failing.history == [said("hi")]
    store.drop("s", failing)
    assert texts(store) == ["hi", "first"]

    answer(store, "s", "second", again=True)
    assert texts(store) == ["hi", "second"]
    assert store.sessions("first") == []
    store.add("s", [said("more")])
    assert answer(store, "s", "third", again=True) == store.messages("s")[:3]
    assert texts(store) == ["hi", "second", "more", "third"]


def test_a_run_gives_only_what_its_caller_has_not_seen_unless_something_was_replaced(store):
    make(store, said("hi"))
    run = store.begin("s")
    assert run.whole
    store.end("s", run, [said("first", "assistant")], {})
    store.add("s", [said("more")])

    later = store.begin("s", seen=(run.revision, run.turn))
    assert (later.whole, later.history) == (False, [said("more")])
    store.drop("s", later)
    store.end("s", store.begin("s"), [said("second", "assistant")], {})
    answer(store, "s", "new", again=True)

    later = store.begin("s", seen=(run.revision, run.turn))
    assert (later.whole, later.history) == (True, store.messages("s"))


def test_runs_have_their_details_and_a_session_its_cost(store):
    make(store, said("hi"))
    assert store.runs("s") == []
    answer(store, "s", model="m", cost_usd=0.25, usage={"prompt_tokens": 3}, odd=Path("x"))
    store.add("s", [said("more")])
    answer(store, "s", model="n", cost_usd=0.5)

    (_, first), (_, second) = store.runs("s")
    assert first == {"model": "m", "cost_usd": 0.25, "usage": {"prompt_tokens": 3}, "odd": "x"}
    assert second["model"] == "n"
    assert store.cost("s") == 0.75

    store.add("s", [said("more")])
    answer(store, "s", model="unknown", cost_usd=None)
    assert store.cost("s") is None


def test_a_relative_path_is_of_the_folder_where_the_store_was_made(tmp_path, monkeypatch):
    for name, url in (("a", "a.db"), ("b", "sqlite:///b.db")):
        store = Store(url)
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        Budgets(store).set(Budget(name="x", limit_usd=1))
        monkeypatch.chdir(tmp_path)
        assert (tmp_path / f"{name}.db").exists()
        assert list((tmp_path / name).iterdir()) == []
        store.close()
