"""The one transport, over LiteLLM and by itself: forks, loops, redirects, deadlines, limits, proxies."""

from __future__ import annotations

import asyncio
import faulthandler
import gzip
import itertools
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import zlib

import pytest
from commands import program
from server import Answer, Raw, ScriptedServer, Status, auntil

import llmkit
from llmkit import errors
from llmkit.core.retry import ONCE
from llmkit.providers.transport import addresses, http
from llmkit.providers.transport.awaited import AwaitedTransport
from llmkit.providers.transport.blocking import BlockingTransport
from llmkit.providers.transport.http1 import Http1Response

KEY = "sk-local-0123456789"


def echo(body):
    return Answer(text=body["messages"][-1]["content"])


def openai(url):
    return {"model": "openai/gpt-4o", "api_base": f"{url}/v1", "api_key": KEY, "retry": ONCE}


@pytest.fixture(params=["sync", "async"])
def fetch(request):
    """Send one request by the transport alone; return (status, body, wire)."""

    def run(url, *, body=b"", timeout_s=10.0, in_parts=False, headers=()):
        wire = http.Wire(timeout_s=None if in_parts else timeout_s)
        method = "POST" if body else "GET"
        asked = http.HttpRequest(
            method=method, url=url, body=body, timeout_s=timeout_s, in_parts=in_parts, headers=headers
        )
        if request.param == "sync":
            transport = BlockingTransport()
            try:
                response = transport.open(asked, wire)
                return response.status, response.read(), wire
            finally:
                transport.close()

        async def main():
            response = await AwaitedTransport().open(asked, wire)
            return response.status, await response.aread(), wire

        return asyncio.run(main())

    return run


class Bytes:
    """A server that answers every connection with given bytes, `pause_s` after each part."""

    def __init__(self, *parts: bytes, pause_s: float = 0.0) -> None:
        self._parts, self._pause_s = parts, pause_s
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self.heads: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            with connection:
                try:
                    self.heads.append(connection.recv(65536))
                    for part in self._parts:
                        connection.sendall(part)
                        time.sleep(self._pause_s)
                except OSError:
                    continue

    def __enter__(self) -> Bytes:
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()


def test_x1_after_a_fork_parent_and_child_get_their_own_answers(server):
    server.script = [echo] * 100
    at = openai(server.url)

    async def several(who):
        replies = await asyncio.gather(*(llmkit.aask(f"{who} {number}", **at) for number in range(4)))
        return [reply.text for reply in replies]

    def mixed(who):
        asked = [f"{who} {number}" for number in range(8)]
        return [llmkit.ask(text, **at).text for text in asked] != asked or asyncio.run(several(who)) != asked[:4]

    assert not mixed("before")
    child = os.fork()
    if child == 0:
        os._exit(mixed("child"))
    assert not mixed("parent")
    assert os.waitpid(child, 0)[1] == 0


def test_x1_a_pool_of_forked_processes(server, tmp_path):
    server.script = [echo] * 100
    script = tmp_path / "pool.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import multiprocessing
            import llmkit

            at = {openai(server.url) | {"retry": 1}}
            llmkit.ask("first", **at)

            def ask(number):
                return llmkit.ask(str(number), **at).text

            with multiprocessing.get_context("fork").Pool(3) as pool:
                print(pool.map(ask, range(12)) == [str(number) for number in range(12)])
            """
        )
    )

    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100, check=False)

    assert (done.stdout, done.stderr) == ("True\n", "")


def forked(function):
    """Call a function in a child process; return its exit status, 0 where the function returned true."""
    process = os.fork()
    if process == 0:
        faulthandler.dump_traceback_later(60)  # where it hangs, if it does
        try:
            os._exit(0 if function() else 1)
        finally:
            os._exit(2)
    deadline = time.monotonic() + 200
    while not (done := os.waitpid(process, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(process, signal.SIGKILL)
        time.sleep(0.02)
    return done[1]


def test_x1_a_fork_waits_for_imports_of_other_threads(tmp_path):
    """A child would wait for ever for a module that a thread of its parent was importing."""
    (tmp_path / "slow_module.py").write_text("import time; time.sleep(0.5)")
    code = f"""
        import os, signal, sys, threading, time
        import llmkit.core.fork
        sys.path.insert(0, {str(tmp_path)!r})
        threading.Thread(target=lambda: __import__('slow_module')).start()
        while 'slow_module' not in sys.modules: time.sleep(0.01)
        if (child := os.fork()) == 0:
            signal.alarm(20)
            import slow_module
            os._exit(0)
        print(os.waitpid(child, 0)[1])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)

    assert (done.stdout, done.stderr) == ("0\n", "")


def test_x1_a_fork_while_litellm_hands_something_to_its_threads(server):
    """LiteLLM's executor is locked for as long as a thread of it starts; a child has neither the thread nor the key."""
    server.script = [echo] * 10
    code = f"""
        import asyncio, os, signal, threading, warnings
        import llmkit
        from llmkit.providers.litellm.sdk import load
        warnings.simplefilter("ignore", DeprecationWarning)  # Python's, of any fork
        litellm = load()
        litellm.success_callback = [lambda *arguments: None]
        at = dict(model="openai/gpt-4o", api_base="{server.url}/v1", api_key="{KEY}")
        asyncio.run(llmkit.aask("first", **at))
        locked = threading.Event()
        def hold():
            with litellm.utils.executor._shutdown_lock:
                locked.set()
                threading.Event().wait()
        threading.Thread(target=hold, daemon=True).start()
        locked.wait()
        if (child := os.fork()) == 0:
            signal.alarm(30)
            print(asyncio.run(llmkit.aask("child", **at)).text, flush=True)
            os._exit(0)
        print(os.waitpid(child, 0)[1], flush=True)
        os._exit(0)
    """
    done = program(code)

    assert (done.stdout, done.stderr) == ("child\n0\n", "")


@pytest.mark.timeout(600)
def test_x1_a_fork_at_any_moment(server, tmp_path):
    """Threads and loops ask all the time, with a ledger and a budget, while children are forked that ask too."""
    server.script = [echo] * 100_000
    store = f"sqlite:///{tmp_path / 'store.db'}"
    budget = llmkit.Budget(name="b", limit_usd=1000)
    at = {**openai(server.url), "ledger": store, "store": store, "budget": budget, "max_tokens": 10}
    llmkit.ask("first", **at)
    ended, mixed = threading.Event(), []

    def work(who):
        for number in itertools.count():
            if ended.wait(0.02):  # the children need the processors too
                return
            asked = f"{who} {number}"
            reply = llmkit.ask(asked, **at) if who % 2 else asyncio.run(llmkit.aask(asked, **at))
            if reply.text != asked:
                mixed.append((asked, reply.text))

    def child(number):
        asked = [f"child {number} {each}" for each in range(3)]
        answered = [llmkit.ask(asked[0], **at).text, llmkit.ask(asked[1], **at).text]
        return [*answered, asyncio.run(llmkit.aask(asked[2], **at)).text] == asked

    threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    outcomes = []
    try:
        for number in range(8):
            time.sleep(0.1)
            outcomes.append(forked(lambda number=number: child(number)))
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)

    assert outcomes == [0] * 8
    assert mixed == []


@pytest.mark.parametrize("provider", ["openai", "azure", "anthropic"])
def test_c9_a_redirect_is_not_followed_and_the_key_stays(call, server, provider):
    with ScriptedServer() as elsewhere:
        server.script = [Status(307, {"location": f"{elsewhere.url}/v1/messages?key=1"}) for _ in range(3)]
        at = {
            "openai": {"model": "openai/gpt-4o", "api_base": f"{server.url}/v1"},
            "azure": {"model": "azure/mine", "api_base": server.url, "api_version": "2024-02-01"},
            "anthropic": {"model": "anthropic/claude-3-5-haiku-20241022", "api_base": server.url},
        }[provider]

        with pytest.raises(errors.APIError) as caught:
            call(llmkit, "ask", "hi", api_key=KEY, **at)

        assert elsewhere.requests == []
        assert len(server.requests) == 1
        assert f"redirects to {elsewhere.url}/v1/messages, which is not followed" in str(caught.value)
        assert "key=1" not in str(caught.value)


def test_c9_a_loop_of_redirects_is_one_request(call, read, server):
    server.script = [Status(302, {"location": "/v1/chat/completions"}) for _ in range(50)]

    with pytest.raises(errors.APIError, match="not followed"):
        call(llmkit, "ask", "hi", **openai(server.url))
    with pytest.raises(errors.APIError, match="not followed"):
        read(llmkit, "stream", "hi", **openai(server.url))

    assert len(server.requests) == 2


def test_c16_a_timeout_is_kept_while_bytes_drip(call):
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"
    with Bytes(head, *([b" " * 10] * 100), pause_s=0.12) as dripping:
        began = time.monotonic()

        with pytest.raises(errors.Timeout, match=r"no complete answer from .* within 0\.5 s"):
            call(llmkit, "ask", "hi", timeout=0.5, **openai(dripping.url))

        assert time.monotonic() - began < 10  # the whole answer takes 12 s


def test_a_head_that_drips_is_late_too(fetch):
    with Bytes(b"HTTP/1.1 200 OK\r\n", *([b"x: y\r\n"] * 100), pause_s=0.12) as dripping:
        began = time.monotonic()

        with pytest.raises(http.DeadlineError):
            fetch(dripping.url, timeout_s=0.5)

        assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nshort", http.BrokenConnectionError),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nshort\r\n", http.BrokenConnectionError),
        (b"SSH-2.0-OpenSSH\r\n\r\n", http.MalformedResponseError),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000 + b"\r\n\r\n", http.MalformedResponseError),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\nno gzip", http.MalformedResponseError),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\n\r\nx", http.MalformedResponseError),
        (b"", http.BrokenConnectionError),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 70_000 + b"\r\n", http.MalformedResponseError),
        (b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", http.MalformedResponseError),
        (b"HTTP/1.1 20 OK\r\n\r\n", http.MalformedResponseError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\nshort", http.MalformedResponseError),
        (b"HTTP/1.1 200 OK\r\ncontent-le", http.BrokenConnectionError),
    ],
    ids=[
        "cut",
        "cut chunk",
        "no http",
        "long head",
        "no gzip",
        "other packing",
        "nothing",
        "many headers",
        "no header",
        "no status",
        "negative length",
        "cut head",
    ],
)
def test_an_answer_that_is_none_is_an_error(fetch, answer, error):
    with Bytes(answer) as broken, pytest.raises(error):
        fetch(broken.url)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 200\r\nContent-Length:5\r\n\r\nhello", b"hello"),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello"),
        (b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"hello"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nx: y\r\n\r\n",
            b"hello",
        ),
        (b"HTTP/1.1 204 None\r\n\r\n", b""),
    ],
    ids=["length", "no reason", "until the end", "interim answer", "chunks", "no content"],
)
def test_an_answer_is_the_same_in_whatever_parts_it_arrives(answer, body):
    parts = [[answer], [bytes([byte]) for byte in answer], [answer[:40], answer[40:]]]

    for arriving in map(iter, parts):
        response = Http1Response(lambda arriving=arriving: next(arriving, b""), "GET")
        assert b"".join(iter(response.part, b"")) == body


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-5\r\nshort\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nlonger\r\n0\r\n\r\n",
    ],
    ids=["another version", "no length", "another coding", "no length of a chunk", "chunk with another length"],
)
def test_what_is_not_quite_http_is_not_guessed(answer):
    arriving = iter([answer])

    with pytest.raises(http.TransportError):
        list(iter(Http1Response(lambda: next(arriving, b""), "GET").part, b""))


def test_a_connection_with_bytes_that_nobody_asked_for_is_not_used_again():
    with Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", pause_s=0.5) as talking:
        transport = BlockingTransport()
        for _ in range(2):
            response = transport.open(http.HttpRequest(method="GET", url=talking.url), http.Wire())
            assert response.read() == b"ok"
        transport.close()
        assert len(talking.heads) == 2


@pytest.mark.parametrize("packed", [gzip.compress(b"hello"), zlib.compress(b"hello")], ids=["gzip", "deflate"])
def test_packed_answers_are_unpacked(fetch, packed):
    encoding = b"gzip" if packed[:2] == b"\x1f\x8b" else b"deflate"
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: " + encoding + b"\r\ncontent-length: %d\r\n\r\n" % len(packed)
    with Bytes(head + packed) as packing:
        assert fetch(packing.url)[:2] == (200, b"hello")


def test_a_small_answer_that_unpacks_to_a_huge_one_is_refused(fetch):
    bomb = gzip.compress(b"\0" * (http.MAX_BODY_BYTES + 1))
    with (
        Bytes(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n" + bomb) as bombing,
        pytest.raises(http.MalformedResponseError, match="more than 64 MB"),
    ):
        fetch(bombing.url)


def test_connections_are_kept_and_one_that_the_server_closed_is_not_used_again(server):
    transport = BlockingTransport()

    def get():
        response = transport.open(http.HttpRequest(method="GET", url=server.url), http.Wire())
        return response.status, len(response.read()) > 0

    assert [get() for _ in range(5)] == [(200, True)] * 5
    assert server.connections == 1

    with Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok") as closing:
        for _ in range(3):
            response = transport.open(http.HttpRequest(method="GET", url=closing.url), http.Wire())
            assert response.read() == b"ok"
            time.sleep(0.05)  # until the end of the connection has arrived
        assert len(closing.heads) == 3
    transport.close()


def test_a_header_cannot_begin_another_one(fetch, server):
    with pytest.raises(http.TransportError):
        fetch(server.url, headers=[("x-key", "a\r\nx-other: b")])
    assert server.requests == []


def test_plain_http_goes_through_a_proxy_with_its_password(fetch, server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", server.url.replace("http://", "http://ann:p%40ss@"))
    monkeypatch.delenv("NO_PROXY")

    assert fetch("http://models.example/v1")[0] == 200

    sent = server.requests[0]
    assert sent.path == "http://models.example/v1"
    assert sent.headers["proxy-authorization"] == "Basic YW5uOnBAc3M="
    assert sent.headers["host"] == "models.example"


def test_https_goes_through_a_tunnel(fetch, monkeypatch):
    with Bytes(b"HTTP/1.1 403 No\r\n\r\n") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY")

        with pytest.raises(http.ConnectError):
            fetch("https://models.example/v1", headers=[("authorization", "Bearer secret")])

        assert proxy.heads[0].startswith(b"CONNECT models.example:443 HTTP/1.1\r\n")
        assert b"secret" not in proxy.heads[0]


def test_loopback_and_what_the_user_excludes_go_to_no_proxy(fetch, server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY")
    assert fetch(server.url)[0] == 200
    assert addresses.proxy_for("http://models.example/v1") is not None

    monkeypatch.setenv("NO_PROXY", "models.example")
    assert addresses.proxy_for("http://models.example/v1") is None
    assert addresses.proxy_for("http://eu.models.example/v1") is None


@pytest.fixture
def certificate(tmp_path):
    """Return the file of a certificate that only this machine's own server has."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    made = subprocess.run(
        [*command, "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        capture_output=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    return certificate


@pytest.fixture
def secure(certificate):
    """Return the address of a server with that certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    with ScriptedServer() as server:
        server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
        yield server.url.replace("http://", "https://")


def test_certificates_are_checked(fetch, secure, certificate, monkeypatch):
    with pytest.raises(http.ConnectError, match="certificate"):
        fetch(secure)

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert fetch(secure)[0] == 200


def test_an_endpoint_too_is_checked_as_ssl_verify_says(call, secure, monkeypatch):
    with pytest.raises(llmkit.APIConnectionError, match="certificate"):
        call(llmkit.EndpointClient(secure, "t", retry=1), "ask", "hi")

    monkeypatch.setenv("SSL_VERIFY", "false")
    assert call(llmkit.EndpointClient(secure, "t", retry=1), "ask", "hi").status_code == 200


@pytest.mark.parametrize("first", [b"retry: 3000\n\n", b"id: 1\n", b":\n\n", b"dat"])
def test_a_stream_is_one_whatever_its_head_says_and_its_first_line_is(read, first):
    deltas = [({"content": "Hel"}, None), ({"content": "lo"}, None), ({}, "stop")]
    events = [{"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]} for delta, reason in deltas]
    data = "".join(f"data: {json.dumps(event)}\n\n" for event in events).encode() + b"data: [DONE]\n\n"
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\n\r\n"
    with Bytes(head, first, data[3:] if first == b"dat" else data, pause_s=0.05) as server:
        _, reply = read(llmkit, "stream", "hi", **openai(server.url))

    assert (reply.text, reply.finish_reason) == ("Hello", "stop")


def test_a_cancelled_call_closes_its_connection(server):
    server.script = [Answer(delay_s=30)]

    async def main():
        asking = asyncio.create_task(llmkit.aask("hi", **openai(server.url)))
        await auntil(lambda: server.requests)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking

    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.parametrize("routes", ["on", "off"])
def test_the_first_awaited_call_does_not_hold_the_loop_up(server, tmp_path, routes):
    """C7: LiteLLM's import takes seconds, and aiohttp's a part of one; the loop goes on in them."""
    script = tmp_path / "first.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import asyncio, time, llmkit

            async def main():
                gaps = [0.0]

                async def beat():
                    last = time.monotonic()
                    while True:
                        await asyncio.sleep(0.005)
                        now = time.monotonic()
                        gaps.append(now - last)
                        last = now

                beating = asyncio.create_task(beat())
                began = time.monotonic()
                await llmkit.aask("hi", **{openai(server.url) | {"retry": 1}})
                print(max(gaps) / (time.monotonic() - began))
                beating.cancel()

            asyncio.run(main())
            """
        )
    )

    around = {**os.environ, "LLMKIT_ROUTES": routes}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=100, check=True, env=around
    )

    assert done.stderr == ""
    assert float(done.stdout) < 0.5  # nearly 1 where the import holds the loop up


def test_an_event_that_is_too_long_is_refused(fetch):
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    with (
        Bytes(head, b"data: " + b"x" * (http.MAX_EVENT_BYTES + 1)) as endless,
        pytest.raises(http.MalformedStreamError, match="more than 8 MB"),
    ):
        fetch(endless.url, in_parts=True)


def test_what_came_before_a_connection_broke_is_not_lost(read, server):
    for _ in range(20):
        server.script = [Answer("one two three", end="reset")]
        with pytest.raises(errors.IncompleteStreamError) as caught:
            read(llmkit, "stream", "hi", **openai(server.url))
        assert caught.value.partial == "one two three"


def test_raw_bytes_come_as_they_are(fetch, server):
    server.script = [Raw(b"\x00\xff", content_type="application/octet-stream")]
    assert fetch(server.url, body=b"{}")[1] == b"\x00\xff"
