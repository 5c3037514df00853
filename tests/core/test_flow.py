"""What a call does, in both colours, with a scripted backend: retries, waits, callbacks, interruption."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from server import auntil

import llmkit
from llmkit.core import engine
from llmkit.core.brief import may_wait
from llmkit.core.engine import ainvoke, invoke
from llmkit.core.retry import Retry
from llmkit.core.types import Invoke, Piece
from llmkit.errors import (
    APIConnectionError,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    InvalidRequestError,
    QuotaExceededError,
    RateLimitError,
    Timeout,
)
from llmkit.presets import Preset
from llmkit.testing import ScriptedBackend, reply

MODEL = "openai/gpt-4o"


def test_one_answer_is_one_request(call):
    backend = ScriptedBackend("hello")

    answer = call(llmkit, "ask", "hi", model=MODEL, backend=backend)

    assert str(answer) == answer.text == answer.content == "hello"
    assert answer.choices[0].message.content == "hello"
    assert len(backend.requests) == 1


@pytest.mark.parametrize(
    "error",
    [RateLimitError("x"), InternalServerError("x"), APIConnectionError("x"), Timeout("x")],
    ids=lambda error: type(error).__name__,
)
def test_a_passing_failure_is_tried_again(call, error):
    backend = ScriptedBackend(error, error, "hello")

    answer = call(llmkit, "ask", "hi", model=MODEL, backend=backend)

    assert answer.text == "hello"
    assert len(backend.requests) == 3
    assert len(backend.sleeps) == 2


@pytest.mark.parametrize(
    "error",
    [BadRequestError("x"), AuthenticationError("x"), QuotaExceededError("x"), RateLimitError("x", retryable=False)],
    ids=lambda error: type(error).__name__,
)
def test_a_lasting_failure_is_raised_at_once(call, error):
    backend = ScriptedBackend(error)

    with pytest.raises(type(error)):
        call(llmkit, "ask", "hi", model=MODEL, backend=backend)

    assert backend.sleeps == []


def test_tries_is_the_number_of_requests_and_no_wait_follows_the_last(call):
    backend = ScriptedBackend(*[RateLimitError(f"no {number}") for number in range(1, 5)])

    with pytest.raises(RateLimitError, match="no 4") as caught:
        call(llmkit, "ask", "hi", model=MODEL, backend=backend, retry=Retry(tries=4))

    assert isinstance(caught.value, ValueError)
    assert len(backend.requests) == 4
    assert len(backend.sleeps) == 3


def test_waits_grow_and_are_capped(call):
    backend = ScriptedBackend(*[RateLimitError("slow")] * 5, "hello")
    policy = Retry(tries=6, delay_s=1, backoff=2, max_delay_s=5)

    call(llmkit, "ask", "hi", model=MODEL, backend=backend, retry=policy)

    assert backend.sleeps == [1, 2, 4, 5, 5]


def test_without_a_delay_the_waits_are_random_and_short(call):
    backend = ScriptedBackend(*[RateLimitError("slow")] * 3, "hello")

    call(llmkit, "ask", "hi", model=MODEL, backend=backend, retry=Retry(tries=4, delay_s=0))

    assert all(0 <= wait <= 0.5 * 2**number for number, wait in enumerate(backend.sleeps))
    assert len(set(backend.sleeps)) == 3


def test_retry_after_is_a_lower_bound_of_the_wait(call):
    backend = ScriptedBackend(RateLimitError("slow", retry_after_s=7), "hello")

    call(llmkit, "ask", "hi", model=MODEL, backend=backend, retry=Retry(delay_s=1))

    assert backend.sleeps == [7]


def test_a_provider_that_asks_for_too_long_a_wait_is_not_tried_again(call):
    backend = ScriptedBackend(RateLimitError("come back tomorrow", retry_after_s=86_400))

    with pytest.raises(RateLimitError):
        call(llmkit, "ask", "hi", model=MODEL, backend=backend)

    assert backend.sleeps == []


def test_the_deadline_counts_tries_and_waits(call):
    backend = ScriptedBackend(*[InternalServerError("slow", elapsed_s=3)] * 3)

    with pytest.raises(InternalServerError):
        call(llmkit, "ask", "hi", model=MODEL, backend=backend, retry=Retry(tries=9, delay_s=1, deadline_s=10))

    assert [request.timeout_s for request in backend.requests] == [10, 6, 1]  # what is left of the deadline
    assert backend.sleeps == [1, 2]


def test_the_deadline_counts_waits_for_a_rate_limit(call, tmp_path):
    preset = Preset(name=str(tmp_path), model=MODEL, limits={"requests_per_minute": 1})
    backend = ScriptedBackend(InternalServerError("slow", elapsed_s=1), "late")

    with pytest.raises(InternalServerError):
        call(llmkit, "ask", "hi", preset=preset, backend=backend, retry=Retry(tries=3, delay_s=1, deadline_s=10))

    assert backend.sleeps == [1]
    assert len(backend.requests) == 1


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"tries": 0}, "tries"),
        ({"tries": 1.5}, "tries"),
        ({"tries": True}, "tries"),
        ({"delay_s": -1}, "delay_s"),
        ({"delay_s": float("nan")}, "delay_s"),
        ({"backoff": 0.5}, "backoff"),
        ({"deadline_s": -1}, "deadline_s"),
        ({"max_delay_s": "8"}, "max_delay_s"),
    ],
)
def test_a_retry_that_makes_no_sense_is_refused(settings, complaint):
    with pytest.raises(InvalidRequestError, match=complaint):
        Retry(**settings)


def test_a_stream_gives_pieces_and_then_the_reply(read):
    backend = ScriptedBackend("one two three")

    pieces, answer = read(llmkit, "stream", "count", model=MODEL, backend=backend)

    assert "".join(piece.content for piece in pieces) == answer.text == "one two three"
    assert answer.finish_reason == "stop"
    assert backend.closed == 1


def test_a_stream_is_opened_with_the_first_piece_and_tried_again_until_it_opens(read):
    backend = ScriptedBackend(RateLimitError("slow"), "hello")

    _, answer = read(llmkit, "stream", "hi", model=MODEL, backend=backend)

    assert answer.text == "hello"
    assert len(backend.requests) == 2


def test_nothing_is_sent_for_a_stream_that_nobody_reads():
    backend = ScriptedBackend()

    llmkit.stream("hi", model=MODEL, backend=backend).close()

    assert backend.requests == []


def test_a_cut_stream_raises_with_the_text_so_far(read):
    backend = ScriptedBackend(["one", " two"])

    with pytest.raises(llmkit.IncompleteStreamError) as caught:
        read(llmkit, "stream", "count", model=MODEL, backend=backend)

    assert caught.value.partial == "one two"
    assert backend.closed == 1


def test_a_failure_in_the_middle_is_not_tried_again(read):
    """The pieces are with the caller already; a second answer would be another one."""
    backend = ScriptedBackend(["one", RateLimitError("slow")])

    with pytest.raises(RateLimitError):
        read(llmkit, "stream", "count", model=MODEL, backend=backend)

    assert len(backend.requests) == 1


def test_a_stream_left_early_is_closed_and_has_what_came(read):
    backend = ScriptedBackend("one two three")

    pieces, answer = read(llmkit, "stream", "count", model=MODEL, backend=backend, most=2)

    assert len(pieces) == 2
    assert answer.text == "one two"
    assert answer.finish_reason is None
    assert backend.closed == 1


def test_a_stream_left_by_break_is_closed_without_a_context_manager():
    backend = ScriptedBackend("one two three")

    for _ in llmkit.stream("count", model=MODEL, backend=backend):
        break

    assert backend.closed == 1


def test_the_reply_of_a_running_stream_is_an_error():
    stream = llmkit.stream("count", model=MODEL, backend=ScriptedBackend("one two"))
    next(stream)

    with pytest.raises(RuntimeError, match="ended"):
        _ = stream.reply


def test_pieces_carry_tool_calls_and_reasoning(read):
    delta = {"index": 0, "function": {"name": "f", "arguments": "{}"}}
    script = [Piece(reasoning="hm"), Piece(tool_calls=[delta]), Piece(finish_reason="tool_calls")]

    pieces, _ = read(llmkit, "stream", "hi", model=MODEL, backend=ScriptedBackend(script))

    assert pieces[0].reasoning == "hm"
    assert pieces[1].tool_calls == [delta]
    assert [piece.content for piece in pieces] == ["", "", ""]


def plain(number):
    return number + 1


async def asynchronous(number):
    await asyncio.sleep(0)
    return number + 1


@pytest.mark.parametrize("function", [plain, asynchronous])
def test_a_flow_calls_plain_and_async_functions_in_both_colours(call, function):
    class Owner:
        def run(self):
            return engine.drive(flow(), ScriptedBackend())

        async def arun(self):
            return await engine.adrive(flow(), ScriptedBackend())

    def flow():
        return (yield Invoke(function, (1,)))

    assert call(Owner(), "run") == 2


def test_an_async_callback_works_below_a_running_loop():
    async def main():
        return invoke(Invoke(asynchronous, (1,)))

    assert asyncio.run(main()) == 2


def test_a_plain_callback_does_not_hold_the_loop_up():
    started, release = threading.Event(), threading.Event()

    def slow():
        started.set()
        return release.wait(5)

    async def main():
        task = asyncio.create_task(ainvoke(Invoke(slow)))
        await auntil(started.is_set)
        release.set()
        return await task

    assert asyncio.run(main()) is True


@pytest.mark.parametrize("waits", [False, True])
def test_brief_work_is_done_on_the_loop_unless_it_has_to_wait(waits):
    def brief():
        if waits:
            may_wait()
        return threading.get_ident()

    def flow():
        return (yield Invoke(brief, is_brief=True))

    here = threading.get_ident()
    assert engine.drive(flow(), ScriptedBackend()) == here
    assert (asyncio.run(engine.adrive(flow(), ScriptedBackend())) == here) is not waits


@pytest.mark.parametrize("ends_first", ["the function", "the caller"])
def test_a_result_that_nobody_waits_for_any_more_is_undone_once(ends_first):
    started, release, undone = threading.Event(), threading.Event(), []

    def slow():
        started.set()
        assert release.wait(5)
        return 2

    async def main():
        task = asyncio.create_task(ainvoke(Invoke(slow, undo=undone.append)))
        await auntil(started.is_set)
        if ends_first == "the function":
            release.set()
            time.sleep(0.2)  # noqa: ASYNC251 - it ends, and the loop is not to know yet
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        release.set()

    asyncio.run(main())
    assert undone == [2]


def test_errors_of_steps_reach_the_flow_and_leave_it_with_their_cause(call):
    class Owner:
        def run(self):
            return engine.drive(flow(), ScriptedBackend())

        async def arun(self):
            return await engine.adrive(flow(), ScriptedBackend())

    def fail():
        raise KeyError("inner")

    def flow():
        try:
            yield Invoke(fail)
        except KeyError as error:
            raise RuntimeError("outer") from error

    with pytest.raises(RuntimeError) as caught:
        call(Owner(), "run")

    assert isinstance(caught.value.__cause__, KeyError)


def test_a_scripted_reply_is_returned_as_it_is(call):
    whole = reply("hi", tool_calls=["call"])

    answer = call(llmkit, "ask", "hi", model=MODEL, backend=ScriptedBackend(whole))

    assert answer.choices is whole.choices
    assert answer.tool_calls == ["call"]


def test_a_script_that_is_too_short_says_so(call):
    with pytest.raises(AssertionError, match="request number 1"):
        call(llmkit, "ask", "hi", model=MODEL, backend=ScriptedBackend())


def test_limits_of_a_preset_make_further_requests_wait(call, tmp_path):
    preset = Preset(name=str(tmp_path), model="openai/gpt-4o", limits={"requests_per_minute": 2})
    backend = ScriptedBackend("1", "2", "3", "4")

    for _ in range(4):
        call(llmkit, "ask", "x", preset=preset, backend=backend)

    assert [round(wait_s) for wait_s in backend.sleeps] == [60, 60]


def test_a_minute_has_only_so_many_tokens(call, tmp_path):
    usage = llmkit.Usage(prompt_tokens=50, completion_tokens=50, total_tokens=100)
    preset = Preset(name=str(tmp_path), model="openai/gpt-4o", limits={"tokens_per_minute": 150})
    backend = ScriptedBackend(*[reply("x", usage=usage)] * 3)

    for _ in range(3):
        call(llmkit, "ask", "x", preset=preset, backend=backend)

    assert [round(wait_s) for wait_s in backend.sleeps] == [60]
