"""Requests per second of `llmkit serve` beside LiteLLM's own proxy, in turn, against an instant upstream.

Run: python benchmarks/serve.py [--proxy VENV/bin/litellm] [--requests 1000] [--concurrency 64] [--rounds 5]
The proxy is `litellm[proxy]`, best in a virtual environment of its own; without it llmkit is measured alone. Upstream
and both servers are processes of their own; both have one worker, no key and the same model behind them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

UPSTREAM = """
import asyncio, json
body = json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "gpt-4o",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}}).encode()
head = b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(body)
async def serve(reader, writer):
    try:
        while True:
            lines = (await reader.readuntil(b"\\r\\n\\r\\n")).lower().split(b"\\r\\n")
            sizes = [int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length")]
            await reader.readexactly(sum(sizes))
            writer.write(head + body)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""
CONFIG = """
model_list:
  - model_name: instant
    litellm_params: {{model: openai/gpt-4o, api_base: "{url}", api_key: k}}
"""
PRESET = 'model: openai/gpt-4o\nparams: {{api_base: "{url}", api_key: "${{UPSTREAM_KEY}}"}}\n'
START_S = 120.0


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


async def one_round(port: int, requests: int, concurrency: int) -> tuple[float, int]:
    """Return requests per second, and how many were not answered with 200 and a text."""
    body = json.dumps({"model": "instant", "messages": [{"role": "user", "content": "hi"}]}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    sent, left, lost = head + b"content-length: %d\r\n\r\n" % len(body) + body, iter(range(requests)), 0

    async def client() -> None:
        nonlocal lost
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in left:
            try:
                writer.write(sent)
                lines = (await reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
                length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
                answer = await reader.readexactly(length)
                lost += lines[0].split()[1] != b"200" or b'"ok"' not in answer
            except (OSError, asyncio.IncompleteReadError, StopIteration):
                lost += 1
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*[client() for _ in range(concurrency)])
    return requests / (time.perf_counter() - started), lost


def resident_mib(process: subprocess.Popen[bytes]) -> float:
    found = subprocess.run(["ps", "-o", "rss=", "-p", str(process.pid)], capture_output=True, text=True, check=True)
    return int(found.stdout) / 1024


@contextlib.contextmanager
def running(command: list[str], port: int, path: str, **settings):
    """Start a server and wait until it answers."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **settings) as process:
        try:
            ends = time.monotonic() + START_S
            while time.monotonic() < ends and process.poll() is None:
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=1).close()
                    break
                time.sleep(0.2)
            else:
                raise SystemExit(f"{command[0]} does not answer")
            yield process
        finally:
            process.terminate()


@contextlib.contextmanager
def servers(folder: Path, proxy: str | None):
    """Yield name, port and process of each server."""
    clean = {name: os.environ[name] for name in ("PATH", "LANG", "PYTHONPATH") if name in os.environ}
    clean |= {"HOME": str(folder), "LLMKIT_PRESETS": str(folder), "NO_PROXY": "127.0.0.1", "UPSTREAM_KEY": "k"}
    clean["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"  # neither server asks for a key
    with contextlib.ExitStack() as stack:
        upstream = subprocess.Popen([sys.executable, "-c", UPSTREAM], stdout=subprocess.PIPE, text=True)
        stack.callback(upstream.wait)
        stack.callback(upstream.terminate)
        url = f"http://127.0.0.1:{int(upstream.stdout.readline())}/v1"
        (folder / "instant.yaml").write_text(PRESET.format(url=url), encoding="utf-8")
        (folder / "config.yaml.proxy").write_text(CONFIG.format(url=url), encoding="utf-8")
        found, port = [], free_port()
        ours = [sys.executable, "-m", "llmkit", "serve", "instant", "--port", str(port)]
        found.append(("llmkit", port, stack.enter_context(running(ours, port, "/health", env=clean, cwd=folder))))
        if proxy:
            port = free_port()
            shutil.copy(folder / "config.yaml.proxy", folder / "proxy.yaml")
            theirs = [proxy, "--config", str(folder / "proxy.yaml"), "--host", "127.0.0.1", "--port", str(port)]
            alive = "/health/liveliness"
            found.append(("litellm", port, stack.enter_context(running(theirs, port, alive, env=clean, cwd=folder))))
        yield found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--proxy", default=shutil.which("litellm"))
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    if not given.proxy:
        print("no `litellm` is installed here (pip install 'litellm[proxy]'): llmkit is measured alone")
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, servers(Path(folder), given.proxy) as found:
        for _, port, _ in found:
            asyncio.run(one_round(port, 200, given.concurrency))  # to be warm
        before = {name: resident_mib(process) for name, _, process in found}
        lost = dict.fromkeys(before, 0)
        for _ in range(given.rounds):
            for name, port, _ in found:
                rate, missed = asyncio.run(one_round(port, given.requests, given.concurrency))
                rates.setdefault(name, []).append(rate)
                lost[name] += missed
        for name, _, process in found:
            print(
                f"{name}: median {statistics.median(rates[name]):.0f} requests/s "
                f"({', '.join(f'{rate:.0f}' for rate in rates[name])}), {lost[name]} lost, "
                f"memory {before[name]:.0f} -> {resident_mib(process):.0f} MiB"
            )
    if "litellm" in rates:
        print(f"ratio {statistics.median(rates['llmkit']) / statistics.median(rates['litellm']):.2f}")


if __name__ == "__main__":
    main()
