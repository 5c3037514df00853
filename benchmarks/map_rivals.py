"""Many prompts: `llmkit map` beside other ways to ask them, as whole processes against a server that takes 100 ms.

Run: python benchmarks/map_rivals.py [--rows 2000] [--rounds 3] [--rivals VENV/bin/python]
`--rivals` is a Python in which openai, async-batch-llm[openai], ray[data] and pandas are installed; those that are
missing are left out, and it says so. In each round all take their turn, 64 requests at a time. Medians are printed:
seconds until the first request is there, seconds from that to the last answer, and the peak memory of the largest
process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

AT_ONCE = 64
SERVER = """
import asyncio, json, time
body = json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "gpt-4o",
    "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "a few words"}, "finish_reason": "stop"}]})
head = f"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: {len(body)}"
answer = f"{head}\\r\\n\\r\\n{body}".encode()
seen = {"first": 0.0, "last": 0.0, "number": 0}
async def serve(reader, writer):
    try:
        while True:
            lines = (await reader.readuntil(b"\\r\\n\\r\\n")).lower().split(b"\\r\\n")
            size = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length")), 0)
            await reader.readexactly(size)
            if lines[0].startswith(b"get /seen"):
                told = json.dumps(seen).encode()
                writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-length: %d\\r\\n\\r\\n%s" % (len(told), told))
                seen.update(first=0.0, last=0.0, number=0)
                continue
            seen["first"] = seen["first"] or time.time()
            await asyncio.sleep(0.1)
            writer.write(answer)
            seen.update(last=time.time(), number=seen["number"] + 1)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
BY_HAND = """
import asyncio, sys
from openai import AsyncOpenAI
async def main():
    client, places = AsyncOpenAI(max_retries=0), asyncio.Semaphore(64)
    async def one(prompt):
        async with places:
            answer = await client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": prompt}], max_tokens=20)
            return answer.choices[0].message.content
    answers = await asyncio.gather(*map(one, open("in.txt").read().splitlines()))
    open("out.txt", "w").writelines(f"{answer}\\n" for answer in answers)
asyncio.run(main())
"""
BARE = """
import asyncio, llmkit
async def main():
    places = asyncio.Semaphore(64)
    async def one(prompt):
        async with places:
            return (await llmkit.aask(prompt, model="openai/gpt-4o", max_tokens=20)).text
    answers = await asyncio.gather(*map(one, open("in.txt").read().splitlines()))
    open("out.txt", "w").writelines(f"{answer}\\n" for answer in answers)
asyncio.run(main())
"""
BATCH = """
import asyncio, os
from async_batch_llm import llm, process_prompts
async def main():
    batch = await process_prompts(llm("openai-compatible:gpt-4o", base_url=os.environ["OPENAI_BASE_URL"]),
        open("in.txt").read().splitlines(), concurrency=64)
    open("out.txt", "w").writelines(f"{each.output}\\n" for each in batch.results)
asyncio.run(main())
"""
RAY = """
import asyncio, os, ray
from openai import AsyncOpenAI
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False,
    runtime_env={"env_vars": {name: os.environ[name] for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY")}})
class Ask:
    def __init__(self):
        self.client, self.places = AsyncOpenAI(max_retries=0), asyncio.Semaphore(32)
    async def one(self, prompt):
        async with self.places:
            answer = await self.client.chat.completions.create(
                model="gpt-4o", messages=[{"role": "user", "content": prompt}], max_tokens=20)
            return answer.choices[0].message.content
    async def __call__(self, batch):
        batch["answer"] = await asyncio.gather(*map(self.one, batch["text"]))
        yield batch
rows = ray.data.read_text("in.txt").repartition(16)
rows.map_batches(Ask, batch_size=128, compute=ray.data.ActorPoolStrategy(size=2), num_cpus=0.5).write_json("out")
"""
NEEDS = {"by hand, openai": "openai", "async-batch-llm": "async_batch_llm", "Ray Data, 2 actors": "ray.data"}


def contenders(rivals: str, url: str) -> dict[str, list[str]]:
    """Return the command of each."""
    mapped = [sys.executable, "-m", "llmkit", "map", "in.txt", "-m", "openai/gpt-4o", "-o", "out.jsonl", "-y"]
    mapped += ["--option", "max_tokens=20", "-d", url]
    found = {
        "by hand, openai": [rivals, "-c", BY_HAND],
        "by hand, llmkit.aask": [sys.executable, "-c", BARE],
        "async-batch-llm": [rivals, "-c", BATCH],
        "Ray Data, 2 actors": [rivals, "-c", RAY],
        "llmkit map -j 64": [*mapped, "-j", "64"],
        "llmkit map -j 64, budget": [*mapped, "-j", "64", "--max-usd", "1000"],
        "llmkit map -j 32 -w 2": [*mapped, "-j", "32", "-w", "2"],
        "llmkit map, Dask, 2 workers": [*mapped, "-j", "32", "-w", "2", "--engine", "dask"],
    }
    for name, module in NEEDS.items():
        if subprocess.run([rivals, "-c", f"import {module}"], capture_output=True, check=False).returncode:
            print(f"{name} is left out: {module} is not installed")
            del found[name]
    return found


def measured(command: list[str], port: int, rows: int) -> tuple[float, float, float]:
    """Return the seconds until the first request and from there to the last answer, and the peak memory in MB."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in.txt").write_text("".join(f"What is {number} and one?\n" for number in range(rows)))
        environment = {
            **os.environ,
            "OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1",
            "OPENAI_API_KEY": "sk-local-0123456789",
            "LLMKIT_DATA_DIR": folder,
            "LLMKIT_CONFIG_DIR": folder,
        }
        began = time.time()
        wrapped = [sys.executable, __file__, "--child", *command]
        done = subprocess.run(wrapped, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    peak = float(done.stdout.splitlines()[-1])
    import urllib.request

    seen = json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/seen", timeout=10))
    if seen["number"] != rows:
        raise SystemExit(f"{seen['number']} requests for {rows} rows")
    return seen["first"] - began, seen["last"] - seen["first"], peak


def child(command: list[str]) -> None:
    """Run a command, and print the peak memory of the largest of its processes."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)


def main(rows: int, rounds: int, rivals: str, url: str) -> None:
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    try:
        port = int(server.stdout.readline())
        wanted = contenders(rivals, url)
        taken: dict[str, list[tuple[float, float, float]]] = {name: [] for name in wanted}
        for _ in range(rounds):
            for name, command in wanted.items():
                taken[name].append(measured(command, port, rows))
    finally:
        server.kill()
    least_s = rows / AT_ONCE / 10
    print(f"{rows} rows, {AT_ONCE} at a time, answers after 100 ms; the least that is possible: {least_s:.1f} s")
    base = None
    for name, times in taken.items():
        start, run, peak = (statistics.median(column) for column in zip(*times, strict=True))
        base = run if "aask" in name else base
        share = "" if base is None else f", {base / run:4.0%} of the bare loop"
        figures = f"first request {start:5.1f} s, then {run:5.1f} s, {rows / run:5.0f} rows/s, {peak:5.0f} MB"
        print(f"{name:28} {figures}{share}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("--rows", type=int, default=2000)
        parser.add_argument("--rounds", type=int, default=3)
        parser.add_argument("--rivals", default=sys.executable, help="a Python with the rivals")
        parser.add_argument("--store", default="bench.db", help="a store of its own for each run, or a PostgreSQL")
        given = parser.parse_args()
        main(given.rows, given.rounds, given.rivals, given.store)
