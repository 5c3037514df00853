"""What editors and type checkers see: user code that is right, and slips that they refuse."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from llmkit.core import params
from llmkit.prepare import options

HERE = Path(__file__).parent / "typing"
CACHE = HERE.parents[1] / ".mypy_cache" / "typing"
"""What mypy knows of other packages takes it five seconds; it looks by itself at what has changed."""
CHECKERS = {
    "mypy": [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        f"--cache-dir={CACHE}",
        "--no-error-summary",
        "--hide-error-context",
        "--no-color-output",
    ],
    "pyright": [sys.executable, "-m", "pyright", "--pythonpath", sys.executable],
}


def complaints(checker):
    """Return the lines of each file that a checker complains of; to start it takes most of its time."""
    files = [str(HERE / "right.py"), str(HERE / "wrong.py")]
    done = subprocess.run([*CHECKERS[checker], *files], capture_output=True, text=True, check=False)
    found = {name: set() for name in ("right.py", "wrong.py")}
    for name, line in re.findall(r"(\w+\.py):(\d+):.*error", done.stdout):
        found[name].add(int(line))
    assert done.returncode == 1, done.stdout + done.stderr
    return found


@pytest.mark.parametrize("checker", CHECKERS)
def test_right_code_is_accepted_and_each_slip_is_refused(checker):
    text = (HERE / "wrong.py").read_text(encoding="utf-8").splitlines()

    assert complaints(checker) == {
        "right.py": set(),
        "wrong.py": {number for number, line in enumerate(text, 1) if line.endswith("# wrong")},
    }


def test_the_names_are_those_that_are_checked_when_a_call_is_made():
    named = {name for kind in vars(options).values() for name in getattr(kind, "__annotations__", ())}
    known = params.OPTIONS | params.STANDARD | params.OTHERS | params.SETTINGS | params.JOB
    known |= {"api_key", "delay", "tries"}

    assert named <= known
    assert named >= params.OPTIONS
