"""What llmkit adds to a call: `llmkit.ask` beside `litellm.completion`, in turn, against an instant server.

Run: python benchmarks/overhead.py [CALLS]. Blocking and awaited calls; medians of the pairs' differences are printed.
The server is a process of its own that answers every request with the same bytes.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time

SERVER = """
import asyncio, json
body = json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "gpt-4o",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}}).encode()
head = b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(body)
async def serve(reader, writer):
    try:
        while True:
            lines = (await reader.readuntil(b"\\r\\n\\r\\n")).lower().split(b"\\r\\n")
            await reader.readexactly(next(int(l.split(b":")[1]) for l in lines if l.startswith(b"content-length")))
            writer.write(head + body)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def report(name: str, plain: list[float], ours: list[float]) -> None:
    share = statistics.median(b - a for a, b in zip(plain, ours, strict=True))
    print(
        f"{name}: litellm {statistics.median(plain) * 1000:.3f} ms, llmkit {statistics.median(ours) * 1000:.3f} ms, "
        f"llmkit's share {share * 1000:+.3f} ms a call"
    )


def blocking(calls: int, url: str) -> None:
    import litellm

    import llmkit

    messages = [{"role": "user", "content": "hi"}]

    def plain() -> None:
        litellm.completion(model="openai/gpt-4o", messages=messages, api_key="k", api_base=url, max_retries=0)

    def ours() -> None:
        llmkit.ask(messages, model="openai/gpt-4o", api_key="k", api_base=url)

    times: tuple[list[float], list[float]] = ([], [])
    for number in range(calls + 20):
        for found, call in zip(times, (plain, ours), strict=True):
            started = time.perf_counter()
            call()
            if number >= 20:
                found.append(time.perf_counter() - started)
    report("blocking", *times)


async def awaited(calls: int, url: str) -> None:
    import litellm

    import llmkit

    messages = [{"role": "user", "content": "hi"}]

    async def plain() -> None:
        await litellm.acompletion(model="openai/gpt-4o", messages=messages, api_key="k", api_base=url, max_retries=0)

    async def ours() -> None:
        await llmkit.aask(messages, model="openai/gpt-4o", api_key="k", api_base=url)

    times: tuple[list[float], list[float]] = ([], [])
    for number in range(calls + 20):
        for found, call in zip(times, (plain, ours), strict=True):
            started = time.perf_counter()
            await call()
            if number >= 20:
                found.append(time.perf_counter() - started)
    report("awaited ", *times)


def main(calls: int) -> None:
    from llmkit.providers.litellm.sdk import load

    load()
    with subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True) as server:
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        blocking(calls, url)
        asyncio.run(awaited(calls, url))
        server.terminate()


main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
