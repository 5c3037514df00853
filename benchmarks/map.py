"""What `map` adds to a row, how near it comes to a bare loop, and whether its memory is flat.

Run: python benchmarks/map.py [ROWS] [MANY] [URL]. SQLite in a temporary folder, or the database at URL.

1. llmkit's own work: CPU for a row through `amap`, with a budget and without, beside a bare loop over `llmkit.aask`,
   with and without a ledger. The model is a script that answers at once.
2. 64 at a time against a script that takes 100 ms: rows a second of `amap` and of the bare loop, in turn.
3. Peak memory of a process that maps a file of 1,000 rows and one of MANY (50,000).
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import llmkit
from llmkit import Ledger, Usage
from llmkit.core.engine import Backend
from llmkit.testing import reply

COST = Usage(prompt_tokens=9, completion_tokens=4, total_tokens=13, cost_usd=0.001, source="priced")
MODEL, AT_ONCE = "openai/gpt-4o", 64


class Script(Backend):
    """Answers after a while."""

    def __init__(self, delay_s: float) -> None:
        self._delay_s = delay_s

    async def asend(self, _):
        await asyncio.sleep(self._delay_s)
        return reply("an answer of a few words", usage=COST)

    def send(self, _):
        raise NotImplementedError

    open = aopen = send


async def bare(questions, backend, ledger):
    """Ask with a semaphore, as one writes it by hand: nothing is kept."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(question):
        async with places:
            return await llmkit.aask(question, model=MODEL, backend=backend, ledger=ledger, max_tokens=20)

    return await asyncio.gather(*map(one, questions))


async def mapped(questions, backend, store, **options):
    results = llmkit.amap(
        questions, model=MODEL, backend=backend, store=store, at_once=AT_ONCE, max_tokens=20, **options
    )
    return [result async for result in results]


def timed(make):
    """Return the seconds and the seconds of CPU of a run."""
    wall, cpu = time.perf_counter(), time.process_time()
    asyncio.run(make())
    return time.perf_counter() - wall, time.process_time() - cpu


def compare(rows: int, delay_s: float, store: str) -> None:
    questions, backend = [f"What is {number} and one?" for number in range(rows)], Script(delay_s)
    ledger = Ledger(store)
    ways = {
        "bare loop, no ledger": lambda: bare(questions, backend, None),
        "bare loop, ledger": lambda: bare(questions, backend, ledger),
        "map": lambda: mapped(questions, backend, store),
        "map, --max-usd": lambda: mapped(questions, backend, store, max_usd=1e6),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    timed(lambda: mapped(questions[:50], backend, store))  # the first one opens the store
    for _ in range(3):
        for name, make in ways.items():
            taken[name].append(timed(make))
    ledger.flush()
    base_wall, base_cpu = (statistics.median(column) for column in zip(*taken["bare loop, no ledger"], strict=True))
    for name, times in taken.items():
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        print(
            f"{name:22} {rows / wall:8.0f} rows/s ({base_wall / wall:5.0%}), CPU {cpu / rows * 1000:.3f} ms a row, "
            f"adds {(cpu - base_cpu) / rows * 1000:+.3f} ms"
        )


def memory(rows: int, folder: str) -> float:
    """Return the peak memory in MB of a process that maps so many rows."""
    program = [sys.executable, __file__, "--one", str(rows), folder]
    return float(subprocess.run(program, capture_output=True, text=True, check=True).stdout)


def one(rows: int, folder: str) -> None:
    source = Path(folder) / f"in{rows}.txt"
    with source.open("w") as file:
        file.writelines(f"What is {number} and one?\n" for number in range(rows))
    out = Path(folder) / f"out{rows}.jsonl"
    options = {"model": MODEL, "backend": Script(0), "store": Path(folder) / f"{rows}.db", "out": out}
    for _ in llmkit.map(source, at_once=AT_ONCE, **options):
        pass
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main(rows: int, many: int, url: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = url or str(Path(folder) / "llmkit.db")
        print(f"{rows} rows, {AT_ONCE} at a time, answers at once")
        compare(rows, 0.0, store)
        print(f"{rows} rows, {AT_ONCE} at a time, answers after 100 ms")
        compare(rows, 0.1, store)
        if many:
            print(f"peak memory: {memory(1000, folder):.0f} MB for 1000 rows, {memory(many, folder):.0f} MB for {many}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(int(sys.argv[2]), sys.argv[3])
    else:
        given = dict(enumerate(sys.argv[1:]))
        main(int(given.get(0, 2000)), int(given.get(1, 50_000)), given.get(2))
