"""How much of `llmkit serve` one client gets: connections, heads, bodies, places, runs, and nothing that grows."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import resource
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import web
from databases import LONG
from server import Answer
from serving import command, error_of, preset, refused, running, wait_for

from llmkit.serve import Keys, Limits
from llmkit.store.database import IDLE

CHAT = {"model": "one", "messages": [{"role": "user", "content": "hi"}]}
A_WHILE_S = 10.0
"""How long an honest call may take: some milliseconds, of which a machine that others keep busy makes seconds."""


@pytest.fixture
def serve(sqlite, server):
    """Serve the preset `one`; return the port."""
    with contextlib.ExitStack() as stack:

        def start(**settings):
            url = stack.enter_context(running(preset("one", sqlite, server.url), store=sqlite, **settings))
            return int(url.rpartition(":")[2])

        yield start


@pytest.fixture
def many_files():
    """Let this process, which has both ends of each connection, have as many files as it takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(8192, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def connect():
    """Open a connection and send something, perhaps nothing."""
    with contextlib.ExitStack() as stack:

        def start(port, sent=b""):
            made = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=A_WHILE_S))
            made.sendall(sent)
            return made

        yield start


def ask(port, timeout=A_WHILE_S, **settings):
    return web.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=CHAT, timeout=timeout, **settings)


def half(length=100, key=""):
    """Return a head and the begin of a body."""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n"
    return (head + (f"x-api-key: {key}\r\n" if key else "") + "Content-Type: application/json\r\n\r\n{").encode()


def received(connection):
    """Return all that comes until the other side has closed."""
    parts = []
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


# -- connections ------------------------------------------------------------------------------------------------------


def test_s3_slow_clients_cost_their_connections_and_nothing_else(serve, connect, many_files):
    ask(serve())  # LiteLLM is imported, and not in the time of a call below
    port = serve(limits=Limits(head_timeout_s=20.0, body_timeout_s=20.0, concurrency=4, queue=4))
    silent = [connect(port) for _ in range(500)]
    trickling = [connect(port, b"POST /v1/chat/completions HTTP/1.1\r\nHost: ") for _ in range(20)]
    halves = [connect(port, half()) for _ in range(64)]

    answers = [ask(port) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({connection.fileno() for connection in (*silent, *trickling, *halves)} - {-1}) == 584


def test_s3_a_connection_that_is_silent_or_trickles_is_closed(serve, connect):
    port = serve(limits=Limits(head_timeout_s=0.5))
    silent, trickling = connect(port), connect(port)
    after = connect(port, b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert after.recv(65536).startswith(b"HTTP/1.1 200")
    after.sendall(b"GET /hea")

    ends = time.monotonic() + A_WHILE_S
    with contextlib.suppress(OSError):
        while time.monotonic() < ends:
            trickling.sendall(b"x")
            time.sleep(0.05)
    assert time.monotonic() < ends
    assert (received(silent), received(after)) == (b"", b"")


def test_s3_a_body_has_its_time(serve, connect):
    port = serve(limits=Limits(body_timeout_s=0.5))

    answer = received(connect(port, half()))

    assert answer.startswith(b"HTTP/1.1 408")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"
    assert ask(port, timeout=30).status_code == 200


def test_s3_a_body_on_its_way_takes_nobodys_place(serve, connect):
    port = serve(limits=Limits(concurrency=1, queue=0))
    for _ in range(8):
        connect(port, half())

    assert ask(port, timeout=30).status_code == 200
    assert "llmkit_in_flight 0.0" in web.get(f"http://127.0.0.1:{port}/metrics").text


def test_s3_the_key_is_looked_at_before_the_body(serve, connect, sqlite):
    Keys(sqlite).add("anna")
    port = serve()
    for sent in (half(9_000_000), half(9_000_000, "llmkit-wrong"), half(99_000_000), half().replace(b"json", b"x")):
        head, _, _ = connect(port, sent).recv(65536).partition(b"\r\n")
        assert head == b"HTTP/1.1 401 Unauthorized"
    refused = web.post(f"http://127.0.0.1:{port}/v1/chat/completions", content=b"no json")
    assert (refused.status_code, error_of(refused)["code"]) == (401, "missing_key")


@pytest.mark.parametrize("path", ["/", "/health", "/page/main.js", "/usage"])
@pytest.mark.parametrize("body", [b"", b"[", b"no json"])
def test_s3_what_is_told_without_a_key_waits_for_no_body_and_reads_none(serve, connect, sqlite, path, body):
    Keys(sqlite).add("anna")
    port = serve(limits=Limits(body_bytes=1_000_000))

    for length in (len(body), 900_000, 99_000_000):
        for method in ("GET", "POST"):
            head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/html\r\nContent-Length: {length}\r\n"
            sent = head.encode() + b"Content-Type: application/json\r\n\r\n" + body
            answer = connect(port, sent).recv(65536)
            told = (b"401", b"405") if method == "POST" else (b"401",) if path in {"/", "/usage"} else (b"200",)
            assert answer.split()[1] in told, (length, answer)


def test_s3_a_large_body_to_where_none_is_taken_may_come_to_its_end(serve, sqlite):
    Keys(sqlite).add("anna")
    port = serve()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=A_WHILE_S)) as connection:
        for path, status in (("/", 405), ("/health", 401), ("/page/main.js", 405), ("/v1/models", 401)):
            connection.request("POST", path, b"[{}," * 500_000, {"content-type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == status


def test_a_request_that_the_server_is_too_busy_for_is_not_parsed(serve, server):
    go_on = threading.Event()
    server.script = [lambda _: (go_on.wait(60), Answer())[1]]
    port = serve(limits=Limits(concurrency=1, queue=0))
    with ThreadPoolExecutor(1) as others:
        waits = others.submit(ask, port, 60)
        wait_for(lambda: "llmkit_in_flight 1.0" in web.get(f"http://127.0.0.1:{port}/metrics").text)
        sent = {"content-type": "application/json"}
        refused = web.post(f"http://127.0.0.1:{port}/v1/chat/completions", content=b"[{},", headers=sent)
        go_on.set()

        assert waits.result().status_code == 200
    assert (refused.status_code, error_of(refused)["code"]) == (429, "server_busy")


BEGIN = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.mark.parametrize(
    "before",
    [
        pytest.param(b"", id="the first"),
        pytest.param(BEGIN + b"\r\n", id="a later one"),
        pytest.param(half(2) + b"}", id="while another is answered"),
        pytest.param(half(3, "llmkit-wrong") + b"  ", id="after a body that nobody read"),
    ],
)
@pytest.mark.parametrize("endless", [BEGIN + b"X-Long: ", b"GET /"])
def test_s3_a_head_has_its_size(serve, connect, server, sqlite, before, endless):
    if b"x-api-key" in before:
        Keys(sqlite).add("anna")
    server.script = [Answer(delay_s=20)]
    port = serve(limits=Limits(head_bytes=20_000))
    short = web.get(f"http://127.0.0.1:{port}/health", headers={"x-long": "y" * 10_000})
    connection, sent = connect(port, before + endless), 0
    with contextlib.suppress(OSError):
        while sent < 20_000_000:
            connection.sendall(b"y" * 10_000)
            sent += 10_000

    assert short.status_code == 200
    assert sent < 20_000_000


@pytest.mark.parametrize(
    "before", [b"", BEGIN + b"\r\n", half(2) + b"}"], ids=["the first", "a later one", "after a body"]
)
@pytest.mark.parametrize("size", [70_000, 200_000, 600_000])
@pytest.mark.parametrize("name", ["X-Long: ", "Cookie: a=b\r\n", "/?"])
def test_s3_a_head_has_its_size_although_it_comes_at_once(serve, connect, server, before, size, name):
    head = f"POST {'/?' * (size // 2) if name == '/?' else '/v1/chat/completions'} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    more = "" if name == "/?" else name * (size // len(name)) if "\r\n" in name else f"{name}{'y' * size}\r\n"
    body = json.dumps(CHAT)
    sent = f"{head}{more}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
    connection = connect(serve())
    with contextlib.suppress(OSError):
        connection.sendall(before + sent)

    answer = received(connection)

    assert answer.count(b"HTTP/1.1 ") <= (before != b"")
    assert server.requests == []


def test_s3_a_large_body_with_its_head_is_no_large_head(serve, connect, server):
    body = json.dumps({**CHAT, "messages": [{"role": "user", "content": "x" * 200_000}]})
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: {'y' * 60_000}\r\n"
    kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"

    answer = connect(serve(), f"{head}{kind}{body}".encode()).recv(65536)

    assert answer.startswith(b"HTTP/1.1 200")
    assert len(server.requests) == 1


def test_s3_a_body_that_is_refused_may_come_to_its_end(serve, sqlite):
    key = Keys(sqlite).add("anna")
    port = serve()
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=A_WHILE_S)) as connection:
        for _ in range(2):
            connection.request("POST", "/v1/chat/completions", b"x" * 3_000_000, {"x-api-key": "llmkit-wrong"})
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 401
        connection.request("GET", "/v1/models", None, {"x-api-key": key})
        assert connection.getresponse().status == 200


def test_s3_of_too_many_connections_the_slowest_make_room(serve, connect):
    port = serve(limits=Limits(connections=20, head_timeout_s=60.0))
    ask(port, timeout=30)
    silent = [connect(port) for _ in range(19)]
    halves = [connect(port, half()) for _ in range(10)]

    assert ask(port).status_code == 200
    wait_for(lambda: _is_closed(silent[0]))
    assert not _is_closed(halves[-1])
    assert sum(map(_is_closed, silent)) >= 9


def _is_closed(connection):
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


# -- runs -------------------------------------------------------------------------------------------------------------


def test_s15_runs_are_bounded_for_each_key_and_in_all(serve, server, sqlite):
    go_on = threading.Event()
    server.script = [lambda _: (go_on.wait(60), Answer())[1]] * 20
    keys = {name: Keys(sqlite).add(name) for name in ("anna", "ben", "cid")}
    port = serve(limits=Limits(jobs=5, jobs_per_key=2))
    begun: dict[str, list[str]] = {name: [] for name in keys}

    def begin(name):
        found = web.post(
            f"http://127.0.0.1:{port}/runs/one", json={"data": "hi"}, headers={"x-api-key": keys[name]}, timeout=30
        )
        if found.status_code == 201:
            begun[name].append(found.json()["url"])
        return found

    assert [begin("anna").status_code for _ in range(3)] == [201, 201, 429]
    assert [begin("ben").status_code for _ in range(3)] == [201, 201, 429]
    assert [begin("cid").status_code for _ in range(2)] == [201, 429]
    refused = begin("cid")
    assert (error_of(refused)["code"], refused.headers["retry-after"]) == ("server_busy", "1")
    web.delete(begun["anna"][0], headers={"x-api-key": keys["anna"]}, timeout=30)
    wait_for(lambda: begin("anna").status_code == 201, 20)
    go_on.set()
    wait_for(lambda: begin("ben").status_code == 201, 20)
    for name, urls in begun.items():
        wait_for(lambda n=name, u=urls: all(_done(url, keys[n]) for url in u), 20)


def _done(url, key):
    return web.get(url, headers={"x-api-key": key}, timeout=30).json()["completed"]


# -- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def loud(tmp_path, monkeypatch):
    """A model.py, and a store of the test's own."""
    monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path / "data"))
    (tmp_path / "loud").mkdir()
    code = "async def predict(user_prompt):\n    return user_prompt.upper()\n"
    (tmp_path / "loud" / "model.py").write_text(code, encoding="utf-8")
    return "loud"


def prompt(url, **headers):
    return web.post(f"{url}/loud/", json={"user_prompt": "hi"}, headers=headers, timeout=30).status_code


def test_s2_the_command_stays_closed_when_the_last_key_is_removed(loud):
    keys = Keys()
    key = keys.add("bob")
    assert refused("keys", "remove", "bob")[0] == 0

    with command(loud) as (process, url):
        assert [prompt(url), prompt(url, **{"x-api-key": key})] == [401, 401]
        assert "there is no key any more, so nobody may ask" in process.lines[0]
    code, said = refused(loud, "--host", "0.0.0.0", "--open")
    assert (code, said.count("\n")) == (2, 1)
    assert "--open would let everybody in who reaches 0.0.0.0, and this store has or had keys" in said
    assert "nobody who reaches 0.0.0.0 may ask" in refused(loud, "--host", "0.0.0.0")[1]
    with command(loud, "--open") as (process, url):
        assert [prompt(url), prompt(url, host="evil.example")] == [200, 403]
        assert len(process.lines) == 1


def test_s2_an_open_server_beyond_this_machine_warns_and_closes_with_the_first_key(loud):
    with command(loud, "--host", "0.0.0.0", "--open") as (process, url):
        assert "everybody who reaches 0.0.0.0 may ask, and at your cost" in process.lines[0]
        assert prompt(url, host="models.example") == 200
        Keys().add("bob")
        wait_for(lambda: prompt(url) == 401)


def test_nothing_that_clients_do_is_on_stderr(loud, connect):
    with command(loud) as (process, url):
        for sent in (
            b"\x16\x03\x01\x02\x00",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
            b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
            half() + b"\xff" * 200,
            b"POST /loud/ HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        ):
            connect(url.port, sent).close()
        body = json.dumps({"user_prompt": "hi" * 1000, "streaming": True}).encode()
        head = (
            f"POST /loud/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        connect(url.port, head.encode() + b"\r\n\r\n" + body).close()
        assert prompt(url) == 200
        process.send_signal(signal.SIGTERM)
        assert (process.wait(20), process.stderr.read()) == (0, "")


def test_nothing_grows_with_what_clients_make_up(loud):
    """Names of models and paths, keys, ids, tags, and calls: after the first they leave memory, labels, files and
    threads as they were. The long form sends 20,000 of each.
    """
    key = Keys().add("anna")
    first, then = (1000, 20_000) if LONG else (50, 200)
    with (
        command(loud) as (process, url),
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", url.port, timeout=60)) as connection,
    ):
        measured = psutil.Process(process.pid)
        seen = set()

        def send(number):
            tag = f', "tag{number}": 1'
            body = json.dumps({"model": f"m{number}", "messages": CHAT["messages"]})[:-1] + tag + "}"
            good = {"x-api-key": key, "content-type": "application/json"}
            for method, path, sent, headers in (
                ("POST", "/v1/chat/completions", body.replace(tag, ""), good),
                ("POST", "/v1/chat/completions", body, good),
                ("POST", "/v1/chat/completions", body, {**good, "x-api-key": f"llmkit-{number}"}),
                ("POST", "/v1/chat/completions", body, {**good, "x-api-key": f"a{number}.b.c"}),
                ("POST", f"/runs/m{number}", '{"data": "hi"}', good),
                ("GET", f"/runs/m{number}", None, {**good, "x-request-id": f"r{number}"}),
                ("POST", f"/m{number}/", '{"user_prompt": "hi"}', good),
                ("GET", f"/no/m{number}", None, {**good, "host": f"h{number}.example"}),
                ("POST", "/loud/", f'{{"user_prompt": "hi {number}"}}', good),
                ("POST", "/v1/chat/completions", body.replace(f'"m{number}"', '"loud"').replace(tag, ""), good),
                ("POST", "/runs/loud", f'{{"data": "hi {number}"}}', good),
            )[: 10 if number % 10 else 11]:
                connection.request(method, path, sent, headers)
                answer = connection.getresponse()
                answer.read()
                seen.add(answer.status)

        def labels():
            connection.request("GET", "/metrics", None, {"x-api-key": key})
            text = connection.getresponse().read().decode()
            return {line.partition(" ")[0] for line in text.splitlines() if not line.startswith("#")}

        def sizes():
            return measured.memory_info().rss, measured.num_fds(), measured.num_threads(), labels()

        def burst(number):
            """Have every pool of threads and connections as large as it gets."""
            with web.client(base_url=url, headers={"x-api-key": key}, timeout=60) as client:
                client.get("/usage")
                client.post("/runs/loud", json={"data": f"hi {number}"})

        with ThreadPoolExecutor(32) as pool:
            list(pool.map(burst, range(96)))
        for number in range(first):
            send(number)
        wait_for(lambda: len(measured.net_connections()) <= 2)
        sizes()
        before = sizes()
        for number in range(first, then):
            send(number)
        after = sizes()

    assert seen == {200, 201, 400, 401, 404}
    assert after[3] == before[3]
    assert not [label for label in after[3] if re.search(r"m\d|h\d", label)]
    assert after[1] <= before[1] + 2 * IDLE  # of the store: up to IDLE connections, of two files each
    assert after[2] <= before[2] + 1
    assert after[0] - before[0] < 6 * 2**20  # each of them kept, with a hundred bytes, would be more in the long form
