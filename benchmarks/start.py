"""How long it takes to start: imports, `--version`, and a cold question as a whole process, beside LiteLLM and `llm`.

Run: python benchmarks/start.py [--rounds 9] [--rivals VENV/bin/python]
`--rivals` is a Python in which litellm and llm are installed; without it this Python's LiteLLM is measured, and no llm.
Each round starts every command once, in turn, against one instant server; medians, ratios and peak memory are printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from calls import served

SCRIPT = """
import litellm
answer = litellm.completion(model="openai/gpt-4o", messages=[{"role": "user", "content": "hi"}])
print(answer.choices[0].message.content)
"""
PRESET = "model: openai/gpt-4o\nsystem: Be brief.\nparams:\n  temperature: 0\n"
MODELS = "- model_id: instant\n  model_name: gpt-4o\n  api_base: {url}\n"


def commands(rivals: str, url: str, folder: str) -> dict[str, list[str]]:
    """Return what is started, by name."""
    found = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import llmkit": [sys.executable, "-c", "import llmkit"],
        "import litellm": [rivals, "-c", "import litellm"],
        "llmkit --version": [sys.executable, "-m", "llmkit", "--version"],
        "llmkit --help": [sys.executable, "-m", "llmkit", "--help"],
        "ask: llmkit": [sys.executable, "-m", "llmkit", "-m", "openai/gpt-4o", "hi"],
        "ask: llmkit -p": [sys.executable, "-m", "llmkit", "-p", "plain", "hi"],
        "ask: litellm, 3 lines": [rivals, "-c", SCRIPT],
    }
    Path(folder, "plain.yaml").write_text(PRESET, encoding="utf-8")
    llm = Path(rivals).with_name("llm")
    if llm.exists():
        Path(folder, "extra-openai-models.yaml").write_text(MODELS.format(url=url), encoding="utf-8")
        found["ask: llm"] = [str(llm), "-m", "instant", "hi"]
    return found


def run(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Run a command, and return its seconds and its peak memory in MB."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)
    error = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = status
    if status:
        raise SystemExit(f"{command}: {error.decode()[-400:]}")
    return seconds, used.ru_maxrss / 1024


def main(rounds: int, rivals: str) -> None:
    with tempfile.TemporaryDirectory() as folder, served() as url:
        around = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        around |= {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": url, "LLM_USER_PATH": folder, "LLMKIT_DATA_DIR": folder}
        around |= {"LLMKIT_PRESETS": folder}
        around |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
        wanted = commands(rivals, url, folder)
        for command in wanted.values():
            run(command, around)  # byte code is compiled and the disk is warm
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in wanted}
        for _ in range(rounds):
            for name, command in wanted.items():
                times[name].append(run(command, around))
        middle = {name: statistics.median(seconds for seconds, _ in found) for name, found in times.items()}
        for name, found in times.items():
            print(f"{name:22} {middle[name] * 1000:8.0f} ms   {max(memory for _, memory in found):6.1f} MB")
        ours = middle["ask: llmkit"]
        for name, seconds in middle.items():
            if name.startswith("ask: ") and name != "ask: llmkit":
                print(f"{name.removeprefix('ask: ')} takes {seconds / ours:.1f} times as long")
        for name in (name for name in wanted if name.startswith("ask: ")):
            started = time.perf_counter()
            try:
                with ThreadPoolExecutor(8) as pool:
                    list(pool.map(run, [wanted[name]] * 16, [around] * 16))
                result = f"{time.perf_counter() - started:6.2f} s"
            except SystemExit as failure:
                result = f"fails: {str(failure).splitlines()[-1]}"
            print(f"16 questions, 8 at a time, {name.removeprefix('ask: '):16} {result}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rivals", default=sys.executable, help="a Python with the rivals")
    arguments = parser.parse_args()
    main(arguments.rounds, arguments.rivals)
