"""What a child process has of its own."""

from __future__ import annotations

import os
import random

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
