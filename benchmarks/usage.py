"""What `llmkit usage` takes over a large ledger: the sums made by the database, and those of a program that reads rows.

Run: python benchmarks/usage.py [ROWS]. SQLite in a temporary folder; with LLMKIT_DATABASE a PostgreSQL, whose ledger is
emptied. The rival is plain `sqlite3` or psycopg: it reads the columns that are needed and adds up in Python.
"""

from __future__ import annotations

import collections
import contextlib
import math
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit import Ledger
from llmkit.money import report
from llmkit.store import Store
from llmkit.store import ledger as rows

if TYPE_CHECKING:
    from collections.abc import Callable

GROUPINGS = ("model", "tag", "day", "model,status", "")
OFTEN = 7
SELECT = """SELECT at, call, status, asked, tags, prompt_tokens, completion_tokens, cached_tokens, cost_usd, latency_s
FROM llmkit_ledger"""


def filled(store: Store, number: int) -> None:
    chance = random.Random(7)
    kinds = ["ok"] * 19 + ["RateLimitError"]
    tags = [[], ["night"], ["night", "batch"], ["key:ann"], ["key:bob"]]
    usual: dict[str, Any] = dict.fromkeys(rows.COLUMNS) | {"kind": "chat", "answered": "m", "source": "priced"}
    added = [
        usual
        | {"at": 1.79e9 + place * 60, "call": f"{chance.getrandbits(128):032x}", "attempt": 1}
        | {"status": chance.choice(kinds), "asked": f"provider/model-{chance.randrange(12)}"}
        | {
            "deployment": "provider/model",
            "preset": chance.choice((None, "brief", "code")),
            "tags": chance.choice(tags),
        }
        | {"prompt_tokens": chance.randrange(9000), "completion_tokens": chance.randrange(2000), "cached_tokens": 0}
        | {"cost_usd": chance.random() / 100, "latency_s": chance.random() * 5}
        for place in range(number)
    ]
    with store.database.writing() as connection:
        connection.run("DELETE FROM llmkit_ledger")
        rows.add_rows(connection, added)


def by_hand(url: str) -> dict[str, tuple[Any, ...]]:
    """Add up by model, with the total, as a program of ten lines would."""
    if url.startswith("postgres"):
        import psycopg

        connection: Any = psycopg.connect(url)
    else:
        connection = sqlite3.connect(url)
    groups: dict[str, list[tuple[Any, ...]]] = collections.defaultdict(list)
    with contextlib.closing(connection):
        for row in connection.execute(SELECT):
            groups[row[3]].append(row)
            groups[""].append(row)
    return {
        name: (
            len({row[1] for row in group}),
            len(group),
            sum(row[2] not in {"ok", "interrupted"} for row in group),
            *(sum(row[place] or 0 for row in group) for place in (5, 6, 7)),
            math.fsum(row[8] for row in group if row[8] is not None),
            statistics.quantiles([row[9] for row in group if row[9] is not None], n=20, method="inclusive")[9::9],
        )
        for name, group in sorted(groups.items())
    }


def timed(call: Callable[[], object]) -> str:
    taken = []
    for _ in range(OFTEN):
        begin = time.perf_counter()
        call()
        taken.append((time.perf_counter() - begin) * 1000)
    return f"{statistics.median(taken):7.1f} ms"


def main(number: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        url = os.environ.get("LLMKIT_DATABASE") or str(Path(folder) / "llmkit.db")
        store = Store(url)
        filled(store, number)
        ledger = Ledger(store)
        print(f"{number:,} rows; medians of {OFTEN}")
        for text in GROUPINGS:
            by = report.grouping(text)
            print(f"llmkit, by {text or 'nothing':14}{timed(lambda by=by: report.summarise(ledger, by))}")
        print(f"by hand, by model       {timed(lambda: by_hand(url))}")
        (lines,) = report.summarise(ledger, ("model",))
        hand = by_hand(url)
        assert {"".join(line.key): (line.calls, line.attempts, line.errors) for line in lines} == {
            name: line[:3] for name, line in hand.items()
        }
        environment = {**os.environ, "LLMKIT_DATABASE": url}
        for name, command in (("python -c pass", ["-c", "pass"]), ("llmkit usage", ["-m", "llmkit", "usage"])):
            run = [sys.executable, *command]
            print(f"{name:24}{timed(lambda run=run: subprocess.check_output(run, env=environment))}")
        store.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
