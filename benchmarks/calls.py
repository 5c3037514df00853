"""Calls a second of llmkit beside other libraries and bare HTTP clients, in one run against one instant server.

Run: python benchmarks/calls.py [--seconds 1.5] [--rounds 5] [--rivals VENV/bin/python] [--picture calls.svg]
`--rivals` is a Python in which litellm, openai, any-llm-sdk[openai] and aisuite[openai] are installed; without it those
that this Python has are measured. Each contender is a process of its own, all in turn in each round; medians are
printed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

SERVER = """
import asyncio, json
HEAD = b"HTTP/1.1 200 OK\\r\\ncontent-type: %s\\r\\ncontent-length: %d\\r\\n\\r\\n"
def answer(content, kind=b"application/json"):
    return HEAD % (kind, len(content)) + content
usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
head = {"id": "1", "created": 1, "model": "gpt-4o"}
whole = answer(json.dumps({**head, "object": "chat.completion", "usage": usage,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]}).encode())
claude = answer(json.dumps({"id": "1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": "ok"}], "stop_reason": "end_turn", "stop_sequence": None,
    "usage": {"input_tokens": 5, "output_tokens": 1}}).encode())
def chunk(choices, **more):
    data = {**head, "object": "chat.completion.chunk", "choices": choices, **more}
    return b"data: " + json.dumps(data).encode() + b"\\n\\n"
texts = [chunk([{"index": 0, "delta": {"content": f"w{n} "}, "finish_reason": None}]) for n in range(200)]
stop = [chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}]), chunk([], usage=usage), b"data: [DONE]\\n\\n"]
stream = answer(b"".join(texts + stop), b"text/event-stream")
async def serve(reader, writer):
    try:
        while True:
            lines = (await reader.readuntil(b"\\r\\n\\r\\n")).lower().split(b"\\r\\n")
            size = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
            body = await reader.readexactly(size)
            written = stream if b'"stream":true' in body.replace(b" ", b"") else whole
            writer.write(claude if b"/messages " in lines[0] else written)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
MESSAGES = [{"role": "user", "content": "hi"}]
KINDS = {
    "sync, 1": ("sync", 1),
    "sync, 16 threads": ("sync", 16),
    "async, 1": ("async", 1),
    "async, 64": ("async", 64),
    "stream, sync": ("stream", 1),
    "stream, async": ("astream", 1),
    "Anthropic, sync, 1": ("claude", 1),
    "Anthropic, async, 1": ("aclaude", 1),
    "Anthropic, async, 64": ("aclaude", 64),
}
CONTENDERS = {
    "llmkit": ["sync", "async", "stream", "astream", "claude", "aclaude"],
    "llmkit, budget": ["sync", "async"],
    "litellm": ["sync", "async", "stream", "astream", "claude", "aclaude"],
    "litellm Router": ["sync", "async"],
    "openai": ["sync", "async", "stream", "astream"],
    "any-llm": ["sync", "async"],
    "aisuite": ["sync"],
    "bare client": ["sync", "async"],
}


CLAUDE = "claude-sonnet-4-5"


# -- what is measured: each makes a function for one call --------------------------------------------------------------


def make_llmkit(url: str, kind: str, *, budget: bool = False):
    import llmkit

    store = f"sqlite:///{tempfile.mkdtemp()}/bench.db"
    options = {"budget": llmkit.Budget(name="bench", limit_usd=1000.0)} if budget else {}
    at = {
        "gpt-4o": llmkit.Deployment("gpt-4o", "openai", api_key="k", endpoint=url),
        CLAUDE: llmkit.Deployment(CLAUDE, "anthropic", api_key="k", endpoint=url.removesuffix("/v1")),
    }
    client = llmkit.MultiAIClient(at, ledger=llmkit.Ledger(store), **options)
    model = CLAUDE if "claude" in kind else "gpt-4o"
    if kind in {"sync", "claude"}:
        return lambda: client.invoke(MESSAGES, model)
    if kind in {"async", "aclaude"}:
        return lambda: client.ainvoke(MESSAGES, model)
    if kind == "stream":
        return lambda: sum(1 for _ in client.stream(MESSAGES, "gpt-4o"))

    async def read():
        async for _ in client.astream(MESSAGES, "gpt-4o"):
            pass

    return read


def make_litellm(url: str, kind: str, *, router: bool = False):
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    litellm.suppress_debug_info = True
    at = {"model": "openai/gpt-4o", "messages": MESSAGES, "api_key": "k", "api_base": url, "max_retries": 0}
    if router:
        params = {"model": "openai/gpt-4o", "api_key": "k", "api_base": url}
        made = litellm.Router([{"model_name": "gpt-4o", "litellm_params": params}], num_retries=0)
        call = made.completion if kind == "sync" else made.acompletion
        return lambda: call(model="gpt-4o", messages=MESSAGES)
    if "claude" in kind:
        at |= {"model": f"anthropic/{CLAUDE}", "api_base": url.removesuffix("/v1")}
    if kind in {"sync", "claude"}:
        return lambda: litellm.completion(**at)
    if kind in {"async", "aclaude"}:
        return lambda: litellm.acompletion(**at)
    more = {"stream": True, "stream_options": {"include_usage": True}}
    if kind == "stream":
        return lambda: sum(1 for _ in litellm.completion(**at, **more))

    async def read():
        async for _ in await litellm.acompletion(**at, **more):
            pass

    return read


def make_openai(url: str, kind: str):
    import openai

    made = (openai.OpenAI if kind in {"sync", "stream"} else openai.AsyncOpenAI)(
        base_url=url, api_key="k", max_retries=0
    )
    create = made.chat.completions.create
    if kind in {"sync", "async"}:
        return lambda: create(model="gpt-4o", messages=MESSAGES)
    if kind == "stream":
        return lambda: sum(1 for _ in create(model="gpt-4o", messages=MESSAGES, stream=True))

    async def read():
        async for _ in await create(model="gpt-4o", messages=MESSAGES, stream=True):
            pass

    return read


def make_any_llm(url: str, kind: str):
    import any_llm

    at = {"model": "gpt-4o", "provider": "openai", "messages": MESSAGES, "api_key": "k", "api_base": url}
    call = any_llm.completion if kind == "sync" else any_llm.acompletion
    return lambda: call(**at)


def make_aisuite(url: str, _kind: str):
    import aisuite

    made = aisuite.Client({"openai": {"api_key": "k", "base_url": url}})
    return lambda: made.chat.completions.create(model="openai:gpt-4o", messages=MESSAGES)


def make_bare(url: str, kind: str):
    body = json.dumps({"model": "gpt-4o", "messages": MESSAGES}).encode()
    headers = {"content-type": "application/json", "authorization": "Bearer k"}
    if kind == "sync":
        import http.client

        here = threading.local()

        def call():
            if not hasattr(here, "connection"):
                here.connection = http.client.HTTPConnection(urlsplit(url).netloc)
            here.connection.request("POST", "/v1/chat/completions", body, headers)
            return json.loads(here.connection.getresponse().read())

        return call
    import aiohttp

    sessions = []

    async def acall():
        if not sessions:
            sessions.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        async with sessions[0].post(f"{url}/chat/completions", data=body, headers=headers) as response:
            return json.loads(await response.read())

    return acall


MAKERS = {
    "llmkit": make_llmkit,
    "llmkit, budget": lambda url, kind: make_llmkit(url, kind, budget=True),
    "litellm": make_litellm,
    "litellm Router": lambda url, kind: make_litellm(url, kind, router=True),
    "openai": make_openai,
    "any-llm": make_any_llm,
    "aisuite": make_aisuite,
    "bare client": make_bare,
}


# -- measuring ---------------------------------------------------------------------------------------------------------


def work(name: str, kind: str, at_once: int, url: str, seconds: float) -> None:
    """Call as often as possible and print the calls a second."""
    call = MAKERS[name](url, kind)
    if kind in {"async", "astream", "aclaude"}:
        print(asyncio.run(awaited(call, at_once, seconds)))
    else:
        print(blocking(call, at_once, seconds))


def blocking(call, at_once: int, seconds: float) -> float:
    for _ in range(20):
        call()
    counts = [0] * at_once
    ends = time.perf_counter() + seconds

    def repeat(number: int) -> None:
        while time.perf_counter() < ends:
            call()
            counts[number] += 1

    started = time.perf_counter()
    threads = [threading.Thread(target=repeat, args=(number,)) for number in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


async def awaited(call, at_once: int, seconds: float) -> float:
    for _ in range(20):
        await call()
    started, count = time.perf_counter(), 0

    async def repeat() -> None:
        nonlocal count
        while time.perf_counter() < started + seconds:
            await call()
            count += 1

    await asyncio.gather(*(repeat() for _ in range(at_once)))
    return count / (time.perf_counter() - started)


def measure(python: str, name: str, kind: str, at_once: int, url: str, seconds: float) -> float | None:
    command = [python, __file__, "--work", name, kind, str(at_once), url, str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return float(done.stdout.split()[-1]) if done.returncode == 0 and done.stdout else None


def memory(url: str, calls: int) -> None:
    """Print the memory of a process after some calls and after many, in MB."""
    call = make_llmkit(url, "sync")
    for number in (1000, calls):
        for _ in range(number):
            call()
        print(f"after {number:6} calls: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.1f} MB")


@contextlib.contextmanager
def served():
    """Run the server, and yield its address."""
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as server:
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        finally:
            server.terminate()


def main(arguments: argparse.Namespace) -> None:
    with served() as url:
        found: dict[str, dict[str, list[float]]] = {label: {} for label in KINDS}
        for _ in range(arguments.rounds):
            for label, (kind, at_once) in KINDS.items():
                for name, kinds in CONTENDERS.items():
                    if kind not in kinds:
                        continue
                    own = name.startswith("llmkit") or name == "bare client"
                    python = sys.executable if own else arguments.rivals or sys.executable
                    value = measure(python, name, kind, at_once, url, arguments.seconds)
                    if value is not None:
                        found[label].setdefault(name, []).append(value)
        medians = {label: {name: statistics.median(v) for name, v in row.items()} for label, row in found.items()}
        for label, row in medians.items():
            print(f"\n{label}: calls a second, and llmkit's times of it")
            for name, value in row.items():
                print(f"  {name:16} {value:9.0f}   {row['llmkit'] / value:6.2f}")
        if arguments.memory:
            memory(url, 20_000)
    if arguments.picture:
        Path(arguments.picture).write_text(picture(medians), encoding="utf-8")


def picture(medians: dict[str, dict[str, float]]) -> str:
    """Return a picture of bars: llmkit's times of each rival's calls a second."""
    lines, y = [], 10
    for label, row in medians.items():
        lines.append(f'<text x="10" y="{y + 14}" font-weight="bold">{label}</text>')
        y += 22
        longest = max(row.values())
        for name, value in sorted(row.items(), key=lambda each: -each[1]):
            color = "#0a7" if name.startswith("llmkit") else "#999"
            lines.append(f'<text x="10" y="{y + 12}">{name}</text>')
            lines.append(f'<rect x="140" y="{y + 2}" width="{380 * value / longest:.0f}" height="12" fill="{color}"/>')
            lines.append(f'<text x="{145 + 380 * value / longest:.0f}" y="{y + 12}">{value:.0f}</text>')
            y += 18
        y += 8
    style = 'font-family="sans-serif" font-size="12"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="600" height="{y}" {style}>{"".join(lines)}</svg>\n'


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5], float(sys.argv[6]))
    else:
        parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--seconds", type=float, default=1.5)
        parser.add_argument("--rounds", type=int, default=5)
        parser.add_argument("--rivals", help="a Python with the rivals")
        parser.add_argument("--picture", help="a file for a picture, SVG")
        parser.add_argument("--memory", action="store_true", help="memory over 20,000 calls too")
        main(parser.parse_args())
