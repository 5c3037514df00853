"""Nothing grows with the calls. 20,000 of each surface in the long form (`make faults`), 2,500 in the suite."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from pathlib import Path

import pytest
import web
from databases import LONG
from server import Answer, ScriptedServer, Status, until
from serving import running

import llmkit
from llmkit import ApiBackend, ChatModel, Deployment, EndpointClient, Ledger, MultiAIClient
from llmkit.core.retry import ONCE
from llmkit.presets import Preset
from llmkit.serve import ServedPreset
from llmkit.testing import ScriptedBackend

WARM, CALLS = 1_000, 20_000 if LONG else 2_000
KEY = "sk-local-0123456789"
AT = {"model": "openai/gpt-4o", "api_key": KEY}


class Parrot(ScriptedBackend):
    """Says the same for ever, and remembers nothing."""

    def _next(self, request):
        return "hi"


def used(settled_s):
    """Return what a process holds: objects, open files, threads."""
    time.sleep(settled_s)
    gc.collect()
    files = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    return len(gc.get_objects()), files, threading.active_count()


def asks(tmp_path):
    backend = Parrot()
    return lambda number: llmkit.ask("hi", backend=backend, user=f"u{number}", **AT)


def made_up_parameters(tmp_path):
    backend = Parrot()
    return lambda number: llmkit.ask("hi", backend=backend, **AT, **{f"parameter_{number}": 1})


def made_up_models(tmp_path):
    backend = Parrot()
    return lambda number: llmkit.ask("hi", backend=backend, model=f"openai/m{number}", api_key=KEY)


def streams(tmp_path):
    backend = Parrot()
    return lambda number: list(llmkit.stream("hi", backend=backend, **AT))


def clients_calls(tmp_path):
    client = MultiAIClient({"m": Deployment("m", "openai", "gpt-4o", KEY)}, backend=Parrot())
    return lambda number: client.invoke("hi", "m", tags=[f"tag {number}"])


def clients(tmp_path):
    backend = Parrot()

    def one(number):
        MultiAIClient({"m": Deployment("m", "openai", "gpt-4o", f"key-{number}")}, backend=backend).invoke("hi", "m")

    return one


def loops(tmp_path):
    backend = Parrot()
    return lambda number: asyncio.run(llmkit.aask("hi", backend=backend, **AT)) if number % 10 == 0 else None


def ledgers(tmp_path):
    backend, store = Parrot(), f"sqlite:///{tmp_path / 'ledger.db'}"
    return lambda number: llmkit.ask("hi", backend=backend, ledger=store, tags=[f"t{number}"], **AT)


def ledger_objects(tmp_path):
    store = llmkit.store.Store(f"sqlite:///{tmp_path / 'ledger.db'}")
    return lambda number: Ledger(store)


def backends(tmp_path):
    backend = Parrot()

    def one(number):
        assert ApiBackend(backend=backend).ask("hi").success

    return one


def endpoints(tmp_path):
    return lambda number: EndpointClient("http://127.0.0.1:9/", "a-token").close()


def sessions(tmp_path):
    backend, preset = Parrot(), Preset(name="p", model="openai/gpt-4o")
    store = llmkit.store.Store(f"sqlite:///{tmp_path / 'sessions.db'}")

    def one(number):
        if number % 20 == 0:
            chat = ChatModel(preset, store=store, backend=backend)
            chat.add_messages([{"role": "user", "content": "hi"}])
            assert not chat.run().error

    return one


@pytest.fixture
def from_now_on():
    """What was there before is neither collected nor counted: half a million objects of LiteLLM take seconds.

    Rows of an earlier test are written a moment after it, and open its store again.
    """
    until(lambda: not any(thread.name == "llmkit-ledger" for thread in threading.enumerate()))
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("from_now_on")
@pytest.mark.parametrize(
    "surface",
    [
        asks,
        made_up_parameters,
        made_up_models,
        streams,
        clients_calls,
        clients,
        loops,
        ledgers,
        ledger_objects,
        backends,
        endpoints,
        sessions,
    ],
)
@pytest.mark.timeout(900)
def test_nothing_grows_with_the_calls(surface, tmp_path):
    one = surface(tmp_path)
    for number in range(WARM):
        one(number)
    settled_s = 0.4 if surface in {ledgers, ledger_objects, sessions} else 0.05  # rows of a store are written together
    before = used(settled_s)
    for number in range(WARM, CALLS):
        one(number)

    def is_as_before():  # on a busy machine rows are written later
        objects, *others = (now - then for now, then in zip(used(settled_s), before, strict=True))
        return objects < (CALLS - WARM) // 4 and max(others) <= 2  # a leak of one object a call is four times that

    until(is_as_before)


@contextlib.contextmanager
def garbage(package):
    """Give a list, in which at the end is what of a package waited for the garbage collector, by name."""
    found = []
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found += sorted({type(item).__name__ for item in gc.garbage if type(item).__module__.startswith(package)})
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def left_early(ask):
    with llmkit.stream("hi", **ask) as pieces:
        next(pieces)


async def both_ways(ask):
    """Make a call blocking and awaited: whole, in pieces, and one that is refused."""
    for words in ("hi", "no"):
        with contextlib.suppress(llmkit.errors.ProviderError):
            await asyncio.to_thread(llmkit.ask, words, **ask)
        with contextlib.suppress(llmkit.errors.ProviderError):
            await llmkit.aask(words, **ask)
    await asyncio.to_thread(lambda: list(llmkit.stream("hi", **ask)))
    assert [piece async for piece in llmkit.astream("hi", **ask)]
    await asyncio.to_thread(left_early, ask)
    async with llmkit.astream("hi", **ask) as pieces:
        await anext(pieces)


@pytest.mark.usefixtures("from_now_on")
def test_a_call_leaves_nothing_to_the_garbage_collector():
    def answer(body):
        return Status(400) if body["messages"][0]["content"] == "no" else Answer(text="ok")

    async def run():
        await both_ways(ask)  # what is made once
        with garbage("llmkit.providers") as left:
            await both_ways(ask)
        return left

    with ScriptedServer(*[answer] * 20) as server:
        ask = {**AT, "api_base": f"{server.url}/v1", "retry": ONCE}
        assert asyncio.run(run()) == []


@pytest.mark.usefixtures("from_now_on")
def test_a_request_to_the_server_leaves_nothing_to_the_garbage_collector(sqlite):
    def requests(client):
        for stream in (False, True):
            for name in ("echo", "nobody"):
                body = {"model": name, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
                client.post("/v1/chat/completions", json=body)
        client.get("/health")
        client.get("/nothing")

    served = ServedPreset("echo", Preset(name="echo", model="openai/gpt-4o"), sqlite, Parrot())
    with running(served, store=sqlite) as url, web.client(base_url=url) as client:
        requests(client)
        with garbage("llmkit.serve") as left:
            requests(client)

    assert left == []
