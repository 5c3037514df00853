"""What a child process has of its own."""

from __future__ import annotations

import os
import random
import subprocess
import sys

from llmkit.core.fork import fresh_id


def test_no_two_ids_are_equal_in_a_seeded_program_or_in_a_child():
    random.seed(1)
    first = fresh_id()
    random.seed(1)
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(theirs, fresh_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    childs = os.read(ours, 100).decode()
    os.close(ours)
    os.close(theirs)

    assert len({first, childs, fresh_id()}) == 3
    assert len(childs) == 32


IMPORTED = """
import time
time.sleep(0.3)
import logging
logging.getLogger("slow")
"""
FORKED = """
import llmkit.core.fork as forks
import logging, os, sys, threading, time
forks.before_other_hooks()
sys.path.insert(0, os.getcwd())
threading.Thread(target=lambda: __import__("slow")).start()
time.sleep(0.1)
began = time.monotonic()
if not (child := os.fork()):
    import slow
    os._exit(0)
print(time.monotonic() - began < 5, os.waitpid(child, 0)[1])
"""


def test_a_fork_waits_for_an_import_that_wants_a_logger(tmp_path):
    """`logging` takes its lock before a fork; who waits for the import then would wait for ever."""
    (tmp_path / "slow.py").write_text(IMPORTED, encoding="utf-8")

    made = subprocess.run(
        [sys.executable, "-c", FORKED], check=False, capture_output=True, text=True, timeout=60, cwd=tmp_path
    )

    assert made.stdout == "True 0\n", made.stderr
