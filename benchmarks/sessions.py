"""What a long session costs: adding a turn and loading all, in a session of 10,000 messages beside one of 10.

Run: python benchmarks/sessions.py [TURNS]. SQLite in a temporary folder; turns of both sessions are taken in turn, so
that whatever else the machine does falls on both. The model is a script and answers at once. The long session is
larger than the model's window, so that its tokens are counted and it is cut; "that fits" is the same without a limit.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from llmkit import ChatModel
from llmkit.presets import Preset
from llmkit.store import Store
from llmkit.testing import ScriptedBackend

if TYPE_CHECKING:
    from collections.abc import Callable

PRESETS = {
    "adding a turn": Preset(name="bench", model="openai/gpt-4o"),
    "adding a turn that fits": Preset(name="bench", model="openai/gpt-4o", max_input_tokens=10_000_000),
}
SHORT, LONG = 10, 10_000
LOADS = 20


def session(store: Store, preset: Preset, messages: int, turns: int) -> ChatModel:
    chat = ChatModel(preset, store=store, backend=ScriptedBackend(*["It is so."] * turns))
    roles = ("user", "assistant")
    chat.add_messages([{"role": roles[number % 2], "content": f"Number {number}."} for number in range(messages)])
    return chat


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def turn(chat: ChatModel) -> None:
    chat.add_messages([{"role": "user", "content": "And now?"}])
    answered = chat.run()
    assert answered.content == "It is so.", answered.error_log


def report(name: str, times: dict[int, list[float]]) -> None:
    short, long = (statistics.median(times[size]) * 1000 for size in (SHORT, LONG))
    print(f"{name}: {SHORT} messages {short:.2f} ms, {LONG} messages {long:.2f} ms, ratio {long / short:.2f}")


def adding(store: Store, name: str, preset: Preset, turns: int) -> None:
    chats = {size: session(store, preset, size, turns + 1) for size in (SHORT, LONG)}
    times: dict[int, list[float]] = {size: [] for size in chats}
    for chat in chats.values():  # the first run of a process reads the whole session, and LiteLLM's tables
        turn(chat)
    for _ in range(turns):
        for size, chat in chats.items():
            times[size].append(timed(lambda chat=chat: turn(chat)))
    report(name, times)


def loading(store: Store) -> None:
    chats = {size: session(store, PRESETS["adding a turn"], size, 0) for size in (SHORT, LONG)}
    times: dict[int, list[float]] = {size: [] for size in chats}
    for _ in range(LOADS):
        for size, chat in chats.items():
            times[size].append(timed(chat.get_config))
    report("loading", times)


def main(turns: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "llmkit.db")
        for name, preset in PRESETS.items():
            adding(store, name, preset, turns)
        loading(store)
        store.close()


main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
