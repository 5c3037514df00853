"""`ChatModel`: functions, tools and schemas in all four forms; streams, read and left early; runs side by side."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import test_chat
from server import Answer, Status, until
from test_chat import ASKED, CALLED, HELLO, SYSTEM, TOOL, USER, WEATHER, said, session

from llmkit import ChatModel, SchemaError, SessionBusyError
from llmkit.store import Store

ask, bot = test_chat.ask, test_chat.bot
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.fixture(params=["run", "arun"])
def stream(request):
    """Read a session's stream in one of two colours, until some text has come; return the pieces."""

    def read(chat, until=None, **options):
        pieces = []

        async def awaited():
            async with await chat.arun(stream=True, **options) as running:
                async for piece in running:
                    pieces.append(piece)
                    if until == text_of(pieces):
                        break

        if request.param == "arun":
            asyncio.run(awaited())
            return pieces
        with chat.run(stream=True, **options) as running:
            for piece in running:
                pieces.append(piece)
                if until == text_of(pieces):
                    break
        return pieces

    return read


def text_of(pieces):
    return "".join(piece.content for piece in pieces)


def asked(*calls):
    """An answer of the server that calls tools, (id, name, arguments), whole or in pieces of interleaved indexes."""
    whole = [{"id": i, "type": "function", "function": {"name": name, "arguments": text}} for i, name, text in calls]
    opening = [{"index": n, **call, "function": {**call["function"], "arguments": ""}} for n, call in enumerate(whole)]
    halves = [
        {"index": n, "function": {"arguments": text[half]}}
        for half in (slice(0, 5), slice(5, None))
        for n, (_, _, text) in enumerate(calls)
    ]
    return Answer(
        message={"role": "assistant", "content": None, "tool_calls": whole},
        deltas=[{"tool_calls": [entry]} for entry in [*opening, *halves]],
        finish_reason="tool_calls",
    )


# -- functions, tools, schemas: alike in all forms -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "args"), [('{"location": "Boston"}', {"location": "Boston"}), ('{"location": ', None)]
)
def test_a_function_call_is_given_with_its_arguments_read_and_raw(ask, tmp_path, server, text, args):
    called, chat = {"name": "get_weather", "arguments": text}, session(tmp_path, ASKED)
    server.script = [
        Answer(
            message={"role": "assistant", "content": None, "function_call": called},
            deltas=[{"function_call": {**called, "arguments": ""}}, {"function_call": {"arguments": text}}],
            finish_reason="function_call",
        ),
        Answer("It's 13 degrees."),
    ]

    res = ask(chat, functions=[WEATHER])
    chat.add_messages([{"role": "function", "content": "13"}])

    assert ask(chat).content == "It's 13 degrees."
    assert (res.error, res.content, res.function_call) == (False, None, {**called, "args": args})
    assert server.requests[0].body["functions"] == [WEATHER]
    call, result = server.requests[1].body["messages"][2:]
    assert (call["function_call"], result) == (called, {"role": "function", "name": "get_weather", "content": "13"})


def test_tools_and_tool_choice_reach_the_provider_without_the_package_mcp(ask, tmp_path, server, monkeypatch):
    monkeypatch.setitem(sys.modules, "mcp", None)
    choice = {"type": "function", "function": {"name": "get_weather"}}
    chat = session(tmp_path, ASKED)
    server.script = [asked(("call_a", "get_weather", CALLED["arguments"]))]

    res = ask(chat, tools=[TOOL], tool_choice=choice)

    assert (server.requests[0].body["tools"], server.requests[0].body["tool_choice"]) == ([TOOL], choice)
    assert res.tool_calls == [{"id": "call_a", "type": "function", "function": CALLED}]
    assert res.function_call["args"] == {"location": "Boston"}
    assert chat.get_config().message_logs[1]["tool_calls"] == res.tool_calls


def test_parallel_tool_calls_come_whole_and_their_results_keep_their_ids(ask, tmp_path, server):
    chat = session(tmp_path, ASKED)
    calls = [("call_a", "get_weather", '{"location": "Boston"}'), ("call_b", "get_time", '{"zone": "EST"}')]
    server.script = [asked(*calls), Answer("13 degrees at noon.")]

    res = ask(chat, tools=[TOOL, {"type": "function", "function": {"name": "get_time", "parameters": {}}}])
    noon = {"role": "tool", "tool_call_id": "call_b", "content": "noon"}
    chat.add_messages([noon, {"role": "tool", "content": "13"}])
    ask(chat)

    found = [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in res.tool_calls]
    assert found == calls
    sent = server.requests[1].body["messages"][2:]
    assert [call["id"] for call in sent[0]["tool_calls"]] == ["call_a", "call_b"]
    results = [(message["tool_call_id"], message["content"]) for message in sent[1:]]
    assert results == [("call_b", "noon"), ("call_a", "13")]


def get_weather(location: str) -> dict:
    """Tell the weather."""
    return {"celsius": 13, "at": location}


def test_a_python_function_is_called_and_the_exchange_is_in_the_history(ask, tmp_path, server):
    chat = session(tmp_path, ASKED)
    server.script = [asked(("call_a", "get_weather", CALLED["arguments"])), Answer("13 degrees."), Answer("Yes.")]

    res = ask(chat, tools=[get_weather])
    chat.add_messages([HELLO])
    ask(chat)

    call, result, answer = chat.get_config().message_logs[1:4]
    assert call["tool_calls"] == [{"id": "call_a", "type": "function", "function": CALLED}]
    assert result == {"role": "tool", "tool_call_id": "call_a", "content": '{"celsius": 13, "at": "Boston"}'}
    assert (answer, res.content) == ({"role": "assistant", "content": "13 degrees."}, "13 degrees.")
    roles = [message["role"] for message in server.requests[2].body["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert res.usage.total_tokens == 32


def test_a_schema_gives_an_object_and_a_misfit_is_told(ask, tmp_path, server):
    chat = session(tmp_path, ASKED)
    server.script = [Answer('{"city": "Boston"}'), Answer('{"town": 1}'), Answer("no"), Answer('{"town": 1}')]

    fits = ask(chat.fork(), schema=SCHEMA)
    misfit = ask(chat.fork(), schema=SCHEMA)

    assert fits.parsed == {"city": "Boston"}
    assert server.requests[0].body["response_format"]["json_schema"]["schema"]["required"] == ["city"]
    assert isinstance(misfit.exception, SchemaError)
    assert "does not fit the schema" in misfit.error_log


# -- streams -------------------------------------------------------------------------------------------------------


def test_a_stream_comes_in_pieces_and_the_last_has_the_whole_answer(stream, tmp_path, server):
    chat = session(tmp_path)
    server.script = [Status(401), Answer("one two three")]

    (refused,) = stream(chat)
    *pieces, last = stream(chat)

    assert (refused.content, refused.error, "scripted 401" in refused.error_log) == ("", True, True)
    assert [piece.content for piece in pieces if piece.content] == ["one", " two", " three"]
    assert {piece.whole for piece in pieces} == {None}
    assert len({piece.log_uuid for piece in [*pieces, last]}) == 1
    assert last.log_uuid != refused.log_uuid
    assert (last.content, last.error, last.error_log) == ("", False, None)
    assert last.message == {"role": "assistant", "content": "one two three"}
    assert (last.usage.total_tokens, last.latency_s > 0) == (16, True)
    assert chat.get_config().message_logs == [HELLO, last.message]


@pytest.mark.parametrize("end", ["eof", "reset", "garbage"])
def test_a_cut_stream_is_an_error_with_the_text_so_far(stream, tmp_path, server, end):
    chat = session(tmp_path)
    server.script = [Answer("one two three", end=end), Answer("All.")]

    *pieces, last = stream(chat)

    assert text_of(pieces) == "one two three"
    assert (last.error, last.whole.partial, last.whole.finish_reason) == (True, "one two three", None)
    assert chat.get_config().message_logs == [HELLO]
    assert stream(chat)[-1].whole.content == "All."


def test_a_stream_that_is_never_read_does_nothing(tmp_path, server):
    chat = session(tmp_path)

    chat.run(stream=True)
    chat.run(stream=True).close()
    asyncio.run(chat.arun(stream=True))

    assert server.requests == []
    assert chat.run().content == "Hello from the server."


# -- streams that are left -----------------------------------------------------------------------------------------

CUT = {"role": "assistant", "content": "one two", "interrupted": True}
SLOW = Answer("one two three", end="slow", delay_s=0.03)
STUCK = Answer("one two", end="hang", delay_s=20)


def goes_on(chat, server):
    """The text so far is kept, and the next run sends it without the mark."""
    kept = chat.get_config().message_logs
    chat.add_messages([{"role": "user", "content": "Go on."}])
    server.script = [Answer("three.")]
    answered = chat.run()
    assert answered.error_log is None
    sent = server.requests[-1].body["messages"]
    assert said(sent) == [SYSTEM, *said(kept), ("user", "Go on.")]
    assert not [message for message in sent if "interrupted" in message]
    return kept


def test_a_stream_that_is_closed_early_keeps_its_text_marked(stream, tmp_path, server):
    chat = session(tmp_path)
    server.script = [SLOW]

    stream(chat, until="one two")

    assert goes_on(chat, server) == [HELLO, CUT]


def test_an_answer_that_was_cut_is_not_run_again_but_replaced_by_a_retry(stream, tmp_path, server):
    chat = session(tmp_path)
    server.script = [SLOW]
    stream(chat, until="one two")

    assert "there is nothing to answer" in chat.run().error_log
    assert chat.get_config().message_logs == [HELLO, CUT]
    assert chat.retry().content == "Hello from the server."
    assert said(chat.get_config().message_logs) == [USER, ("assistant", "Hello from the server.")]


@pytest.mark.parametrize("reason", [None, KeyboardInterrupt])
def test_a_loop_that_is_left_drops_the_stream_and_keeps_its_text_marked(tmp_path, server, reason):
    chat = session(tmp_path)
    server.script = [SLOW]

    def loop():
        for piece in chat.run(stream=True):
            if piece.content == " two":
                if reason:
                    raise reason
                break

    with contextlib.suppress(KeyboardInterrupt):
        loop()

    assert goes_on(chat, server) == [HELLO, CUT]


def test_an_async_loop_that_is_broken_out_of_keeps_its_text_marked(tmp_path, server):
    chat = session(tmp_path)
    server.script = [SLOW]

    async def main():
        async for piece in await chat.arun(stream=True):
            if piece.content == " two":
                break
        await asyncio.sleep(0.2)
        return chat.get_config().message_logs

    assert asyncio.run(main()) == [HELLO, CUT]
    goes_on(chat, server)


def test_a_stream_that_is_left_in_its_second_round_keeps_the_tool_calls(stream, tmp_path, server):
    chat = session(tmp_path, ASKED)
    server.script = [asked(("call_a", "get_weather", CALLED["arguments"])), SLOW]

    stream(chat, until="one two", tools=[get_weather])

    _, call, result, cut = goes_on(chat, server)
    assert (call["tool_calls"][0]["id"], result["tool_call_id"], cut) == ("call_a", "call_a", CUT)


HOWEVER = pytest.mark.parametrize(("streamed", "kept"), [(True, [HELLO, CUT]), (False, [HELLO])])


@HOWEVER
def test_ctrl_c_while_an_answer_is_waited_for_leaves_the_session_usable(tmp_path, server, streamed, kept):
    chat = session(tmp_path)
    chat.fork().run()  # LiteLLM is imported
    server.script, before = [STUCK], len(server.requests)

    def interrupt():
        until(lambda: len(server.requests) > before)
        time.sleep(0.2)  # now it is waited for, and nothing else runs that could swallow the interrupt
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()

    with pytest.raises(KeyboardInterrupt):
        list(chat.run(stream=True)) if streamed else chat.run()

    assert goes_on(chat, server) == kept


@HOWEVER
def test_a_cancelled_task_leaves_the_session_usable(tmp_path, server, streamed, kept):
    chat = session(tmp_path)
    server.script = [STUCK]

    async def read():
        if not streamed:
            return await chat.arun()
        return [piece async for piece in await chat.arun(stream=True)]

    async def main():
        task = asyncio.create_task(read())
        while not server.requests:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        task.cancel()
        await task

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())

    assert goes_on(chat, server) == kept


def test_a_task_that_is_cancelled_while_the_run_begins_leaves_the_session_usable(tmp_path, server):
    class Slow(Store):
        def begin(self, *args, **kwargs):
            run = super().begin(*args, **kwargs)
            time.sleep(0.3)
            return run

    chat = session(tmp_path, store=Slow(tmp_path / "s.db"))

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(asyncio.wait_for(chat.arun(), 0.1))

    assert goes_on(chat, server) == [HELLO]


def test_a_process_that_is_killed_leaves_what_had_arrived(tmp_path, server):
    chat = session(tmp_path)
    server.script = [STUCK]
    code = f"""
import llmkit
for piece in llmkit.ChatModel("bot", {chat.session_uuid!r}, store="s.db").run(stream=True):
    print(piece.content, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=tmp_path) as child:
        while child.stdout.readline() != " two\n":
            pass
        assert isinstance(chat.run().exception, SessionBusyError)
        time.sleep(1.2)  # what has arrived is written down every half second
        child.kill()

    assert goes_on(chat, server) == [HELLO, CUT]


# -- at the same time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("same", [True, False])
def test_of_two_runs_of_one_session_the_second_is_told_that_it_is_busy(ask, tmp_path, server, same):
    chat = session(tmp_path)
    other = chat if same else ChatModel("bot", chat.session_uuid, store=Store(tmp_path / "s.db"))
    go_on = threading.Event()
    server.script = [lambda _: (go_on.wait(60), Answer("Hi!"))[1], Answer("Both.")]
    thread = threading.Thread(target=chat.run)
    thread.start()
    while not server.requests:
        time.sleep(0.01)

    busy = ask(other)
    other.add_messages([{"role": "user", "content": "And you?"}])  # comes after the answer that is under way
    go_on.set()
    thread.join()

    assert isinstance(busy.exception, SessionBusyError)
    assert "try again when it has ended" in busy.error_log
    assert ask(other).content == "Both."
    told = [SYSTEM, USER, ("assistant", "Hi!"), ("user", "And you?")]
    assert said(server.requests[1].body["messages"]) == told


def test_sessions_that_run_at_the_same_time_do_not_mix(tmp_path, server):
    chats = [session(tmp_path, {"role": "user", "content": f"first {number}"}) for number in range(8)]
    server.script = [lambda body: Answer(f"re: {body['messages'][-1]['content']}", delay_s=0.05)] * 16

    async def main():
        first = await asyncio.gather(*(chat.arun() for chat in chats))
        for number, chat in enumerate(chats):
            chat.add_messages([{"role": "user", "content": f"second {number}"}])
        return first, await asyncio.gather(*(chat.arun() for chat in chats))

    first, second = asyncio.run(main())

    for number, chat in enumerate(chats):
        assert (first[number].content, second[number].content) == (f"re: first {number}", f"re: second {number}")
        texts = [message["content"] for message in chat.get_config().message_logs]
        assert texts == [f"first {number}", f"re: first {number}", f"second {number}", f"re: second {number}"]
