"""How many rows of a map are under way, and when they start: limits, pauses, and the number that finds itself."""

from __future__ import annotations

import asyncio
import time

import pytest
from commands import run
from databases import ON_POSTGRES, POSTGRES_OR_BOTH, SQLITE_OR_BOTH
from server import Answer, ScriptedServer

import llmkit
from llmkit import Retry
from llmkit.core.engine import Backend
from llmkit.core.types import Usage
from llmkit.errors import APIConnectionError, InvalidRequestError, RateLimitError
from llmkit.testing import reply

MODEL = "openai/gpt-4o"
USAGE = Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5)


class Provider(Backend):
    """Takes *most* requests at a time and refuses others with a 429; `starts` is when they came."""

    def __init__(self, most=10_000, delay_s=0.01, faults=()):
        self.most, self.delay_s, self.faults = most, delay_s, list(faults)
        self.starts, self.now, self.peak, self.refused, self.refused_at = [], 0, 0, 0, None
        self.busy_s = 0.0

    async def asend(self, request):
        self.starts.append(time.monotonic())
        if self.faults and (fault := self.faults.pop(0)) is not None:
            self.refused_at = time.monotonic()
            raise fault
        if self.now >= self.most:
            self.refused += 1
            raise RateLimitError("too many")
        self.now += 1
        self.peak = max(self.peak, self.now)
        began = time.monotonic()
        await asyncio.sleep(self.delay_s)
        self.busy_s += time.monotonic() - began
        self.now -= 1
        return reply("ok", usage=USAGE)

    def send(self, request):
        raise NotImplementedError

    open = aopen = send


def ask(number, store, **options):
    rows = [f"row {each}" for each in range(number)]
    results = list(llmkit.map(rows, model=MODEL, store=store, **options))
    assert [result.error for result in results] == [None] * number
    return results


def busiest(starts, seconds=1.0):
    """Return how many there are in the busiest second."""
    return max(sum(first <= start < first + seconds for start in starts) for first in starts)


@POSTGRES_OR_BOTH
def test_a_retry_after_pauses_all_rows(store):
    provider = Provider(faults=[None] * 12 + [RateLimitError("slow down", retry_after_s=0.6)])

    ask(30, store, backend=provider, at_once=4)

    assert [start for start in provider.starts if provider.refused_at < start < provider.refused_at + 0.6] == []
    assert len(provider.starts) == 31


@POSTGRES_OR_BOTH
def test_requests_start_evenly(store):
    provider = Provider()

    ask(30, store, backend=provider, rpm=1200, at_once=16)

    assert busiest(provider.starts) <= 22
    assert 1.4 <= provider.starts[-1] - provider.starts[0] < 4


@SQLITE_OR_BOTH
def test_a_retry_takes_a_place_too(store):
    provider = Provider(faults=[APIConnectionError("gone") for _ in range(10)])

    ask(20, store, backend=provider, rpm=1200, at_once=4, retry=Retry(tries=20, delay_s=0.0, jitter=False))

    assert len(provider.starts) == 30
    assert busiest(provider.starts) <= 22
    assert provider.starts[-1] - provider.starts[0] >= 1.4


@SQLITE_OR_BOTH
def test_tokens_are_limited(store):
    provider = Provider()

    ask(40, store, backend=provider, tpm=3000, at_once=2)  # 200 tokens, 50 a second, 100 of them at once

    assert provider.starts[-1] - provider.starts[0] >= 1.4


def test_auto_finds_how_many_a_provider_takes(sqlite):
    provider = Provider(most=20, delay_s=0.06)  # a busy machine takes some milliseconds for a row

    ask(700, sqlite, backend=provider, retry=1)

    assert provider.refused < 70
    assert provider.busy_s / (provider.starts[-1] - provider.starts[0]) >= 6  # so many were under way on average


def test_auto_finds_that_more_brings_nothing(sqlite):
    gate = asyncio.Semaphore(4)

    class Queue(Provider):
        async def asend(self, request):
            self.now += 1
            self.peak = max(self.peak, self.now)
            async with gate:
                await asyncio.sleep(0.01)
            self.now -= 1
            return reply("ok", usage=USAGE)

    provider = Queue()

    ask(400, sqlite, backend=provider)

    assert provider.peak <= 64


@pytest.mark.parametrize("wrong", [{"at_once": 0}, {"at_once": "many"}, {"rpm": 0}, {"tpm": -1}, {"workers": 0}])
def test_a_number_that_cannot_be_is_told(sqlite, wrong):
    with pytest.raises(InvalidRequestError, match=next(iter(wrong))):
        ask(1, sqlite, **wrong)


class Slow(ScriptedServer):
    """Answers after a moment."""

    def next(self, recorded):
        super().next(recorded)
        return Answer("ok", delay_s=0.03)


@pytest.fixture
def command(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMKIT_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-local-0123456789")
    (tmp_path / "in.txt").write_text("".join(f"row {number}\n" for number in range(100)))

    def mapped(server, database, *more):
        arguments = ["map", "in.txt", "-m", MODEL, "-o", "out.jsonl", "-d", database, *more]
        done = run(arguments, OPENAI_BASE_URL=f"{server.url}/v1")
        assert done.returncode == 0, done.stderr

    return mapped


@ON_POSTGRES  # the campaign has SQLite, and kills
def test_processes_share_a_rate(command, database):
    with Slow() as server:
        command(server, database, "-w", "3", "-j", "8", "--rpm", "3000")

        starts = [request.time for request in server.requests]
    assert busiest(starts) <= 54
    assert starts[-1] - starts[0] >= 1.9
