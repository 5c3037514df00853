"""How long it takes to start: `import llmkit` beside `import litellm`, `llmkit --version` beside a bare Python.

Run: python benchmarks/start.py [ROUNDS]. Each round starts every command once, in turn; medians and ratios are printed.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
ENVIRONMENT["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import llmkit": ["-c", "import llmkit"],
    "import litellm": ["-c", "import litellm"],
    "llmkit --version": ["-m", "llmkit", "--version"],
    "llmkit --help": ["-m", "llmkit", "--help"],
}


def seconds(arguments: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
    return time.perf_counter() - started


def main(rounds: int) -> None:
    for arguments in COMMANDS.values():
        seconds(arguments)  # byte code is compiled and the disk is warm
    times = {name: [] for name in COMMANDS}
    for _ in range(rounds):
        for name, arguments in COMMANDS.items():
            times[name].append(seconds(arguments))
    middle = {name: statistics.median(found) for name, found in times.items()}
    for name, value in middle.items():
        print(f"{name:18} {value * 1000:8.1f} ms")
    bare = middle["python -c pass"]
    ratio = middle["import llmkit"] / middle["import litellm"]
    net = (middle["import llmkit"] - bare) / (middle["import litellm"] - bare)
    print(
        f"import llmkit / import litellm: 1/{1 / ratio:.0f} as whole processes, 1/{1 / net:.0f} without the interpreter"
    )


main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
