"""Runs the programs of `test_quiet.py`: one fork for each, of a process that has imported all; prints what came.

`python quiet.py FOLDER NAME ...`: the programs in FOLDER; those of these names when LiteLLM was imported too, which
takes seconds, and a quarter of one at each end.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from pathlib import Path

import aiohttp

import llmkit
from llmkit.providers.litellm import sdk as litellm_sdk

LONGEST_S = 400.0


def main() -> None:
    folder, *late = sys.argv[1:]
    assert all((aiohttp, llmkit.ChatModel, llmkit.LLM, llmkit.MultiAIClient, llmkit.Ledger))
    assert llmkit.quote("x", model="openai/gpt-4o").prompt_tokens  # the table of its tokens is read
    paths = sorted(path for path in Path(folder).iterdir() if path.is_dir())
    outcomes = outcomes_of([path for path in paths if path.name not in late])
    litellm_sdk.warm_up()
    print(json.dumps(outcomes | outcomes_of([path for path in paths if path.name in late])))


def outcomes_of(waiting: list[Path]) -> dict[str, list[object]]:
    """Run programs, four at a time."""
    gc.collect()
    gc.freeze()  # the ends of the children are then quick
    running: dict[int, Path] = {}
    outcomes: dict[str, list[object]] = {}
    deadline = time.monotonic() + LONGEST_S
    while waiting or running:
        while waiting and len(running) < 4:
            path = waiting.pop()
            pid = os.fork()
            if pid == 0:
                become(path)
                sys.exit()  # to the end of the interpreter, as any program
            running[pid] = path
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            path = running.pop(pid)
            outcomes[path.name] = [os.waitstatus_to_exitcode(status), (path / "stderr").read_text()]
        elif time.monotonic() > deadline:
            for child, path in running.items():
                os.kill(child, signal.SIGKILL)
                outcomes[path.name] = ["it did not end", (path / "stderr").read_text()]
            break
        else:
            time.sleep(0.02)
    return outcomes


def become(path: Path) -> None:
    """Be the program in a folder."""
    os.chdir(path)
    os.environ["HOME"] = str(path)
    for name, number in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(path / name, os.O_CREAT | os.O_WRONLY), number)
    names = {"__name__": "__main__"}
    sys.modules["__main__"].__dict__.update(names)
    exec(compile((path / "program.py").read_text(), "program.py", "exec"), sys.modules["__main__"].__dict__)


if __name__ == "__main__":
    main()
