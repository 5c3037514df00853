"""Runs the programs of `test_quiet.py`: one fork for each, of a process that has imported LiteLLM; prints what came."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from pathlib import Path

from llmkit.providers.litellm import sdk as litellm_sdk

LONGEST_S = 400.0


def main() -> None:
    folder = Path(sys.argv[1])
    litellm_sdk.warm_up()
    gc.collect()
    gc.freeze()  # the ends of the children are then quick
    waiting = sorted(path for path in folder.iterdir() if path.is_dir())
    running: dict[int, Path] = {}
    outcomes: dict[str, list[object]] = {}
    deadline = time.monotonic() + LONGEST_S
    while waiting or running:
        while waiting and len(running) < 4:
            path = waiting.pop()
            pid = os.fork()
            if pid == 0:
                become(path)
                return  # to the end of the interpreter, as any program
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
    print(json.dumps(outcomes))


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
