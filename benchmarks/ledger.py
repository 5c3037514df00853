"""What the ledger and a budget add to a call: the same call with and without them, taken in turn.

Run: python benchmarks/ledger.py [CALLS]. SQLite in a temporary folder. The model is a script and answers at once, so
that what is left is llmkit itself; the ledger's own thread writes while the calls go on, so its work is in the figures.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import llmkit
from llmkit import Budget, Ledger
from llmkit.testing import ScriptedBackend, reply

if TYPE_CHECKING:
    from collections.abc import Callable


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def main(calls: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "llmkit.db"
        budget = {"budget": Budget(name="b", limit_usd=1e6), "store": str(file), "max_tokens": 10}
        ways = {
            "without": {},
            "ledger": {"ledger": Ledger(file)},
            "ledger, durable": {"ledger": Ledger(file, durable=True)},
            "budget": budget,
        }
        cost = llmkit.Usage(prompt_tokens=9, completion_tokens=4, total_tokens=13, cost_usd=0.001)
        backend = ScriptedBackend(*[reply("ok", usage=cost)] * (calls + 1) * len(ways))
        times: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(calls + 1):
            for name, options in list(ways.items())[:: 1 if number % 2 else -1]:
                took = timed(lambda with_=options: llmkit.ask("hi", model="openai/gpt-4o", backend=backend, **with_))
                if number:  # the first one opens the store
                    times[name].append(took)
        for options in ways.values():
            if "ledger" in options:
                options["ledger"].flush()  # before its folder is gone
        base = statistics.mean(times["without"])
        for name, taken in times.items():
            mean, middle = statistics.mean(taken) * 1000, statistics.median(taken) * 1000
            print(f"{name:16} mean {mean:.3f} ms, median {middle:.3f} ms, adds {mean - base * 1000:.3f} ms to a call")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
