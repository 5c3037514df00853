"""Asking a model behind an HTTP endpoint, against a real server on loopback."""

from __future__ import annotations

import asyncio
import base64
import gzip
import itertools
import json
import logging
import os
import pickle
import pty
import socket
import subprocess
import sys
import threading
import time
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llmkit import endpoint, errors
from llmkit.core.retry import Retry
from llmkit.endpoint import EndpointClient, get_session_token
from llmkit.providers.practicus.parallel import PATIENCE_S
from llmkit.providers.practicus.session_tokens import Token, TokenCache
from llmkit.providers.transport.events import PieceParser, StreamFaultError

KEY = "key-that-nobody-may-see"
AT_ONCE = Retry(tries=3, delay_s=0.001, jitter=False)


@dataclass
class Said:
    """What the server answers: a body, or the chunks of one, which `cut` breaks off."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[bytes] | None = None
    cut: bool = False
    pause_s: float = 0.0


@dataclass
class Came:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any

    @property
    def token(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")


class Host:
    """A server on loopback; *play* gets each request and returns what is said."""

    def __init__(self, play: Any) -> None:
        self.play = play
        self.requests: list[Came] = []
        self.busy = 0
        self.busiest = 0
        self.lock = threading.Lock()
        host = self

        class Handler(_Handler):
            owner = host

        class Server(ThreadingHTTPServer):
            request_queue_size = 128  # 50 clients come at once

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # clients that go away are expected
        self.origin = f"http://127.0.0.1:{self._server.server_port}"
        self.url = f"{self.origin}/llm-models/test/"

    def __enter__(self) -> Host:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def paths(self) -> list[str]:
        return [f"{came.method} {came.path}" for came in self.requests]


class _Handler(BaseHTTPRequestHandler):
    owner: Host
    protocol_version = "HTTP/1.1"
    wbufsize = 0

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        came = Came(self.command, self.path, headers, json.loads(raw) if raw else None)
        with self.owner.lock:
            self.owner.requests.append(came)
            self.owner.busy += 1
            self.owner.busiest = max(self.owner.busiest, self.owner.busy)
        try:
            said = self.owner.play(came)
        finally:
            with self.owner.lock:
                self.owner.busy -= 1
        if said is None:
            self.close_connection = True
            return
        self._answer(said if isinstance(said, Said) else Said(said))

    do_GET = do_POST

    def _answer(self, said: Said) -> None:
        self.send_response(said.status)
        body = said.body if isinstance(said.body, bytes) else json.dumps(said.body).encode()
        for name, value in {"content-type": "application/json", **said.headers}.items():
            self.send_header(name, value)
        if said.chunks is None:
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for chunk in said.chunks:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            time.sleep(said.pause_s)
        if said.cut:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")


def echo(came: Came) -> dict[str, str]:
    return {"answer": f"re: {came.body['user_prompt']}" if came.body else "about"}


def scripted(*script: Any) -> Any:
    """Play a script, then echo."""
    left = list(script)
    return lambda came: left.pop(0) if left else echo(came)


def jwt(seconds: float, name: str = "someone") -> str:
    """A token that ends in so many seconds."""

    def part(data: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(data).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part({'exp': time.time() + seconds, 'sub': name})}.signature"


@pytest.fixture
def host():
    with Host(echo) as running:
        yield running


@pytest.fixture(params=["sync", "async"])
def everything(request):
    """Read `client.map` or `client.amap`, to its end or *most* items."""

    def run(client: EndpointClient, prompts: Any, most: int | None = None, **kwargs: Any) -> list[Any]:
        if request.param == "sync":
            with closing(client.map(prompts, **kwargs)) as items:
                return list(itertools.islice(items, most))

        async def main() -> list[Any]:
            found: list[Any] = []
            async with client, aclosing(client.amap(prompts, **kwargs)) as items:
                async for item in items:
                    found.append(item)
                    if len(found) == most:
                        break
            return found

        return asyncio.run(main())

    return run


def client_of(host: Host, **kwargs: Any) -> EndpointClient:
    return EndpointClient(kwargs.pop("url", host.url), **{"token": "a-token", "retry": AT_ONCE, **kwargs})


class TestAsking:
    def test_sends_the_prompt_with_the_token_and_returns_the_answer(self, host, call):
        answer = call(client_of(host), "ask", "Who is Einstein?")

        assert (str(answer), answer.data, answer.status_code) == (answer.text, {"answer": "re: Who is Einstein?"}, 200)
        assert answer.headers["Content-Type"] == answer.headers["content-type"] == "application/json"
        assert 0 < answer.elapsed_s < 5
        (came,) = host.requests
        assert (came.method, came.token, came.body) == ("POST", "a-token", {"user_prompt": "Who is Einstein?"})

    def test_a_body_goes_with_get_too(self, host, call):
        answer = call(client_of(host, method="GET"), "ask", "hi", system_context="Be short.")

        assert answer.text == "re: hi"
        assert host.requests[0].method == "GET"
        assert host.requests[0].body == {"user_prompt": "hi", "system_context": "Be short."}

    @pytest.mark.parametrize(
        ("path", "asked"),
        [("/m", "/m/"), ("/m/", "/m/"), ("", "/"), ("/m?v=1", "/m/?v=1"), ("/m/?v=1#part", "/m/?v=1")],
    )
    def test_a_slash_more_or_less_is_the_same_address(self, host, path, asked):
        with client_of(host, url=host.origin + path) as client:
            client.ask("hi")
            client.meta()

        joined = "&" if "?" in asked else "?"
        assert host.paths() == [f"POST {asked}", f"GET {asked}{joined}get_meta=true"]

    def test_meta_asks_for_the_description_without_a_body(self, host, call):
        about = {"x-prt-model-id": "7", "x-prt-model-version": "2", "x-prt-model-name": "llama"}
        host.play = lambda came: Said({"name": "llama", "version": 2}, headers=about)

        meta = call(client_of(host), "meta")

        assert meta.data == {"name": "llama", "version": 2}
        assert (meta.model_id, meta.model_version, meta.model_name) == ("7", "2", "llama")
        assert (host.requests[0].body, host.requests[0].token) == (None, "a-token")

    @pytest.mark.parametrize(
        ("body", "kind", "text"),
        [
            ({"answer": "a", "content": "c"}, "application/json", "a"),
            ({"content": "prt", "lang_model": "m", "total_tokens": 3}, "application/json", "prt"),
            ({"choices": [{"message": {"content": "chat"}}]}, "application/json", "chat"),
            ("json text", "application/json", "json text"),
            ({"answer": 3}, "application/json", '{"answer": 3}'),
            (b'{"answer": "untold"}', "text/plain", "untold"),
            ("Grüße".encode(), "text/plain", "Grüße"),
            ("Grüße".encode("latin-1"), "text/plain; charset=iso-8859-1", "Grüße"),
            (b"{not json", "application/json", "{not json"),
            (b"", "text/plain", ""),
        ],
    )
    def test_reads_the_text_of_every_shape(self, host, body, kind, text):
        host.play = lambda came: Said(body, headers={"content-type": kind})

        assert client_of(host).ask("hi").text == text

    def test_sends_any_object(self, host, call):
        host.play = lambda came: {"content": came.body["messages"][0]["content"].upper()}

        assert call(client_of(host), "send", {"messages": [{"role": "human", "content": "hi"}]}).text == "HI"

    def test_reads_compressed_answers_and_says_so_where_they_are_broken(self, host, call):
        packed = gzip.compress(b'{"answer": "small"}')
        sent = [
            Said(packed, headers={"content-encoding": "gzip"}),
            Said(b"plain", headers={"content-encoding": "gzip"}),
        ]
        host.play = scripted(*sent)
        client = client_of(host)

        assert call(client, "ask", "hi").text == "small"
        with pytest.raises(errors.ResponseError, match="cannot be unpacked"):
            call(client, "ask", "hi")

    def test_an_answer_can_be_pickled(self, host):
        answer = client_of(host).ask("hi")

        again = pickle.loads(pickle.dumps(answer))

        assert (again, again.headers["Content-Type"]) == (answer, "application/json")

    def test_a_client_works_on_after_an_event_loop_has_ended(self, host):
        client = client_of(host)

        texts = [asyncio.run(client.aask("a")).text, client.ask("b").text, asyncio.run(client.aask("c")).text]

        assert texts == ["re: a", "re: b", "re: c"]

    def test_a_closed_client_sends_nothing(self, host, call):
        client = client_of(host)
        call(client, "close")

        with pytest.raises(errors.InvalidRequestError, match="closed"):
            call(client, "ask", "hi")
        assert host.requests == []

    @pytest.mark.parametrize(
        "url", ["", "  ", None, "host/model", "ftp://host/", "https://", "http://a:b", "http://[::"]
    )
    def test_refuses_what_is_no_address(self, url):
        with pytest.raises(errors.InvalidRequestError, match="api_url"):
            EndpointClient(url, token="t")
        with pytest.raises(errors.InvalidRequestError, match="api_url"):
            get_session_token(url, key="k")

    def test_refuses_an_address_with_a_password_and_does_not_repeat_it(self):
        with pytest.raises(errors.InvalidRequestError, match="password") as caught:
            EndpointClient("https://me:hunter2@host/", token="t")
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "wrong"),
        [
            ("concurrency", {"concurrency": 0}),
            ("concurrency", {"concurrency": True}),
            ("timeout", {"timeout": 0}),
            ("tries", {"retry": 0}),
            ("method", {"method": "PUT"}),
            ("token", {"token": ""}),
            ("token", {"token": "two\nlines"}),
        ],
    )
    def test_refuses_wrong_arguments_by_name(self, host, name, wrong):
        with pytest.raises(errors.InvalidRequestError, match=name):
            client_of(host, **wrong)

    def test_refuses_what_is_no_prompt(self, host, call):
        client = client_of(host)
        for name, arguments in [("ask", (3,)), ("ask", ("hi", 3)), ("send", ([],)), ("send", ({"a": object()},))]:
            with pytest.raises(errors.InvalidRequestError, match=r"prompt|system_context|body"):
                call(client, name, *arguments)
        with pytest.raises(errors.InvalidRequestError, match="prompts"):
            client.map("one text")
        assert host.requests == []

    @pytest.mark.parametrize(
        ("name", "given", "told"),
        [
            ("send", ({"a": [1, float("nan")]},), "body cannot be sent: body.a[1]: nan is no number in JSON"),
            ("send", ({"a": "\ud800"},), "body cannot be sent: body.a: it has a half of a surrogate pair"),
            ("send", ({"a": {1, 2}},), "body cannot be sent: body.a: an object of type set cannot be said in JSON"),
            ("ask", ("\ud800",), "prompt cannot be sent: it has a half of a surrogate pair"),
            ("ask", ("hi", "\ud800"), "system_context cannot be sent: it has a half of a surrogate pair"),
        ],
    )
    def test_what_json_cannot_say_is_refused_by_its_place(self, host, call, name, given, told):
        with pytest.raises(errors.InvalidRequestError) as caught:
            call(client_of(host), name, *given)

        assert str(caught.value).startswith(told)
        assert host.requests == []


class TestFailing:
    @pytest.mark.parametrize(
        ("status", "body", "kind", "told"),
        [
            (400, {"detail": "user_prompt is missing"}, errors.BadRequestError, "user_prompt is missing"),
            (401, {"error": {"message": "who?"}}, errors.AuthenticationError, "who?"),
            (403, {"error": "not yours"}, errors.PermissionDeniedError, "not yours"),
            (404, b"<html>nginx</html>", errors.NotFoundError, "Not Found"),
            (
                422,
                {"detail": [{"loc": ["body", "x"], "msg": "extra"}]},
                errors.UnprocessableEntityError,
                "body.x: extra",
            ),
            (418, {"message": "teapot"}, errors.APIError, "teapot"),
        ],
    )
    def test_a_refusal_has_its_class_and_the_reason_and_is_not_repeated(self, host, call, status, body, kind, told):
        host.play = lambda came: Said(body, status)

        with pytest.raises(kind) as caught:
            call(client_of(host, url=f"{host.url}?secret=abc"), "ask", "hi")

        assert str(caught.value) == f"{host.url}: {told}"
        assert (type(caught.value), caught.value.status_code, len(host.requests)) == (kind, status, 1)

    def test_tries_again_where_that_helps_and_waits_as_told(self, host, call):
        host.play = scripted(Said({}, 503), Said({}, 429, {"retry-after": "0.2"}))
        started = time.monotonic()

        assert call(client_of(host), "ask", "hi").text == "re: hi"

        assert len(host.requests) == 3
        assert [came.body for came in host.requests] == [{"user_prompt": "hi"}] * 3
        assert time.monotonic() - started >= 0.2

    def test_gives_up_after_the_last_try(self, host, call):
        host.play = lambda came: Said({"error": "loading"}, 503)

        with pytest.raises(errors.ServiceUnavailableError, match="loading"):
            call(client_of(host), "ask", "hi")
        assert len(host.requests) == 3

    def test_a_broken_connection_is_tried_again(self, host, call):
        host.play = scripted(None, Said(b"", chunks=[b'{"ans'], cut=True))

        assert call(client_of(host), "ask", "hi").text == "re: hi"
        assert len(host.requests) == 3

    def test_no_server_is_a_connection_error(self, call):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}/m/"

            with pytest.raises(
                errors.APIConnectionError, match=r"no connection to http://127.0.0.1:\d+: Connection refused"
            ) as caught:
                call(EndpointClient(url, token="t", retry=1), "ask", "hi")
        assert url in str(caught.value)

    @pytest.mark.parametrize("chunks", [None, [b" "] * 20])
    def test_an_answer_that_takes_too_long_is_given_up(self, host, call, chunks):
        """Also one whose bytes keep coming."""
        left = threading.Event()

        def play(came: Came) -> Any:
            if chunks is None:
                left.wait(1)
            return Said(b"", chunks=chunks or [], pause_s=0.05)

        host.play = play
        with pytest.raises(errors.Timeout, match=r"within 0.3 s"):
            call(client_of(host, timeout=0.3, retry=1), "ask", "hi")
        left.set()

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    @pytest.mark.parametrize("where", ["the same host", "another host"])
    def test_c9_a_redirect_is_not_followed_and_the_token_stays(self, host, call, status, where):
        with Host(echo) as other:
            target = f"{host.url}new" if where == "the same host" else other.url
            host.play = lambda came: Said({}, status, {"location": f"{target}?secret=1"})

            with pytest.raises(errors.APIError, match=r"redirects to .*, which is not followed") as caught:
                call(client_of(host, retry=3), "ask", "hi")

        assert len(host.requests) == 1
        assert other.requests == []
        assert target in str(caught.value)
        assert "secret" not in str(caught.value)

    def test_no_message_repr_or_log_has_the_token(self, host, call, caplog):
        caplog.set_level(logging.DEBUG)
        host.play = lambda came: Said({"detail": f"bad header {came.headers['authorization']}"}, 400)
        client = client_of(host, token=KEY)

        with pytest.raises(errors.BadRequestError, match=r"\[key\]") as caught:
            call(client, "ask", "hi")

        assert KEY not in f"{caught.value!r} {client!r} {caplog.text} {vars(caught.value)}"


def issuing(*tokens: Any, status: int = 200) -> Any:
    """Give the tokens out, the last one again and again; echo elsewhere."""
    left = list(tokens)

    def play(came: Came) -> Any:
        if came.path != "/auth/session-token/":
            return echo(came)
        return Said(left.pop(0) if len(left) > 1 else left[0], status)

    return play


class TestTokens:
    def test_a_key_is_exchanged_once_and_the_token_used_again(self, host, call):
        token = jwt(3600)
        host.play = issuing({"token": token})

        assert [call(endpoint, "get_session_token", host.url, key=KEY) for _ in range(3)] == [token] * 3

        (came,) = host.requests
        assert (came.method, came.path, came.token) == ("POST", "/auth/session-token/", KEY)
        assert came.body == {"api_url": host.url}

    def test_the_key_of_the_environment_and_an_address_of_its_own(self, host, call, monkeypatch):
        monkeypatch.setenv("LLMKIT_ENDPOINT_KEY", f"{KEY}\n")
        host.play = lambda came: {"token": "opaque", "expires_at": time.time() + 3600}

        token = call(endpoint, "get_session_token", host.url.rstrip("/"), auth_url=f"{host.origin}/login")

        assert token == "opaque"
        assert (host.paths(), host.requests[0].token) == (["POST /login"], KEY)

    @pytest.mark.parametrize("told", [{"token": jwt(20)}, {"token": "opaque", "expires_at": time.time() + 20}])
    def test_a_token_that_ends_soon_is_not_used_again(self, host, call, told):
        host.play = issuing(told, {"access": jwt(3600)})

        first, second, third = (call(endpoint, "get_session_token", host.url, key=KEY) for _ in range(3))

        assert first == told["token"]
        assert second == third != first
        assert len(host.requests) == 2

    def test_other_keys_get_other_tokens(self, host, call):
        host.play = lambda came: {"token": jwt(3600, came.token)}

        tokens = {call(endpoint, "get_session_token", host.url, key=key) for key in ("one", "two", "one")}

        assert len(tokens) == len(host.requests) == 2

    def test_a_given_token_is_returned_as_long_as_it_is_good(self, host, call):
        good, bad = jwt(3600), jwt(20)
        host.play = issuing({"token": good})

        assert call(endpoint, "get_session_token", host.url, token=good) == good
        assert host.requests == []
        assert call(endpoint, "get_session_token", host.url, token=bad, key=KEY) == good

    def test_many_callers_are_one_fetch(self, host, everything, monkeypatch):
        monkeypatch.setenv("LLMKIT_ENDPOINT_KEY", KEY)
        token = jwt(3600)

        def play(came: Came) -> Any:
            if came.path != "/auth/session-token/":
                return echo(came)
            time.sleep(0.2)
            return {"token": token}

        host.play = play
        items = everything(EndpointClient(host.url, retry=AT_ONCE), ["hi"] * 16, concurrency=16)

        assert [item.answer.text for item in items] == ["re: hi"] * 16
        assert host.paths().count("POST /auth/session-token/") == 1
        assert {came.token for came in host.requests} == {KEY, token}

    @pytest.mark.parametrize("status", [400, 401, 403, 404])
    def test_a_refusal_raises_with_the_reason_and_without_secrets(self, host, call, status):
        host.play = lambda came: Said({"detail": f"the key {came.token} is locked"}, status)

        with pytest.raises(errors.AuthenticationError, match=r"the key \[key\] is locked") as caught:
            call(endpoint, "get_session_token", f"{host.url}?q=private", key=KEY)

        assert host.url in str(caught.value)
        assert (caught.value.status_code, len(host.requests)) == (status, 1)
        assert "private" not in str(caught.value)
        assert KEY not in repr(caught.value)

    @pytest.mark.parametrize("body", [{}, {"token": None}, {"token": ""}, [], b"<html>", {"token": "two words"}])
    def test_an_answer_without_token_raises(self, host, call, body):
        host.play = lambda came: Said(body)

        with pytest.raises(errors.AuthenticationError, match="no token or access"):
            call(endpoint, "get_session_token", host.url, key=KEY)

    def test_a_server_that_fails_is_tried_again(self, host, call):
        host.play = scripted(Said({}, 503), {"token": jwt(3600)})

        assert call(endpoint, "get_session_token", host.url, key=KEY, retry=AT_ONCE)
        host.play = lambda came: Said({}, 500)
        with pytest.raises(errors.InternalServerError):
            call(endpoint, "get_session_token", host.url, key="another", retry=1)

    def test_no_key_at_all_says_what_to_set(self, host, call):
        with pytest.raises(errors.AuthenticationError, match="LLMKIT_ENDPOINT_KEY"):
            call(endpoint, "get_session_token", host.url)
        with pytest.raises(errors.InvalidRequestError, match="password is missing"):
            call(endpoint, "get_session_token", host.url, email="a@b")
        with pytest.raises(errors.InvalidRequestError, match="either"):
            call(endpoint, "get_session_token", host.url, key="k", refresh_token="r")
        assert host.requests == []

    def test_a_client_gets_its_token_and_another_where_it_is_refused(self, host, call, monkeypatch):
        monkeypatch.setenv("LLMKIT_ENDPOINT_KEY", KEY)
        old, new = jwt(3600, "old"), jwt(3600, "new")
        give = issuing({"token": old}, {"token": new})
        host.play = lambda came: Said({"detail": "ended"}, 401) if came.token == old else give(came)

        client = EndpointClient(host.url, retry=AT_ONCE)

        assert call(client, "ask", "hi").text == call(client, "ask", "hi").text == "re: hi"
        assert [came.token for came in host.requests] == [KEY, old, KEY, new, new]

    def test_a_token_that_is_refused_twice_or_was_given_is_not_renewed(self, host, call, monkeypatch):
        monkeypatch.setenv("LLMKIT_ENDPOINT_KEY", KEY)
        host.play = lambda came: Said({}, 401) if came.token != KEY else {"token": jwt(3600)}

        with pytest.raises(errors.AuthenticationError):
            call(EndpointClient(host.url), "ask", "hi")
        assert [came.token == KEY for came in host.requests] == [True, False, True, False]
        with pytest.raises(errors.AuthenticationError):
            call(client_of(host), "ask", "hi")
        assert len(host.requests) == 5

    def test_a_function_gives_a_token_for_each_request(self, host, call):
        numbers = itertools.count(1)
        client = client_of(host, token=lambda: f"token-{next(numbers)}")

        call(client, "ask", "hi")
        call(client, "ask", "hi")

        assert [came.token for came in host.requests] == ["token-1", "token-2"]

    def test_a_token_that_does_not_say_when_it_ends_is_used_for_a_minute(self):
        now, fetched = [0.0], []
        tokens = TokenCache(clock=lambda: now[0])

        def fetch():
            fetched.append(now[0])
            return Token("opaque", None)
            yield

        for now[0] in (0.0, 59.0, 61.0, 100.0):
            with pytest.raises(StopIteration):
                next(tokens.get("name", fetch, patience_s=1))
        assert fetched == [0.0, 61.0]

    def test_where_the_one_who_fetches_is_cancelled_another_does(self):
        tokens = TokenCache()

        def fetch(text: str) -> Any:
            yield "asking"
            return Token(text, None)

        first = tokens.get("name", lambda: fetch("first"), patience_s=1)
        second = tokens.get("name", lambda: fetch("second"), patience_s=1)
        assert next(first) == "asking"
        assert next(second) != "asking"

        first.close()

        assert next(second) == "asking"
        with pytest.raises(StopIteration) as end:
            next(second)
        assert end.value.value == "second"


class TestPracticus:
    """The way to a token of Practicus'."""

    def console(self, came: Came) -> Any:
        match came.path:
            case "/console/api/auth/":
                good = came.body == {"email": "me@x.org", "password": "pass word"}
                return {"refresh": "r", "access": "acc"} if good else Said({"detail": f"wrong: {came.body}"}, 401)
            case "/console/api/auth/refresh/":
                return {"access": "acc"}
            case "/llm-models/test/":
                return Said({}, 403, {"x-prt-model-id": "42"}) if came.token == "acc" else echo(came)
            case "/console/api/modelhost/model-auth/":
                return {"token": jwt(3600)} if came.body["model_id"] == "42" and came.token == "acc" else Said({}, 403)
        return Said({}, 404)

    @pytest.mark.parametrize("by", ["account", "refresh_token"])
    def test_login_model_id_and_token(self, host, call, by):
        host.play = self.console
        known = {"email": "me@x.org", "password": "pass word"} if by == "account" else {"refresh_token": "r"}

        tokens = [call(endpoint, "get_session_token", host.url, **known) for _ in range(2)]

        assert tokens[0] == tokens[1]
        login = "/console/api/auth/" if by == "account" else "/console/api/auth/refresh/"
        rest = ["GET /llm-models/test/", "POST /console/api/modelhost/model-auth/"]
        assert host.paths() == [f"POST {login}", *rest]

    def test_a_client_takes_the_account_of_the_environment(self, host, call, monkeypatch):
        monkeypatch.setenv("LLMKIT_PRACTICUS_EMAIL", "me@x.org")
        monkeypatch.setenv("LLMKIT_PRACTICUS_PASSWORD", "pass word")
        host.play = self.console

        assert call(EndpointClient(host.url), "ask", "hi").text == "re: hi"

    def test_an_older_console_wants_get(self, host, call):
        def play(came: Came) -> Any:
            older = came.path.endswith("/model-auth/") and came.method == "POST"
            return Said({}, 405) if older else self.console(came)

        host.play = play
        assert call(endpoint, "get_session_token", host.url, refresh_token="r")
        assert host.paths()[-1] == "GET /console/api/modelhost/model-auth/"

    def test_a_wrong_password_is_not_repeated(self, host, call):
        host.play = self.console

        with pytest.raises(errors.AuthenticationError, match="wrong: ") as caught:
            call(endpoint, "get_session_token", host.url, email="me@x.org", password="hunter2")
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize("broken", ["/llm-models/test/", "/console/api/modelhost/model-auth/"])
    def test_no_model_id_or_no_right_to_it_raises(self, host, call, broken):
        host.play = lambda came: {"answer": "?"} if came.path == broken else self.console(came)

        with pytest.raises(errors.AuthenticationError, match="no session token"):
            call(endpoint, "get_session_token", host.url, refresh_token="r")


TEXT = "Grüße, 世界 🎉 data: [DONE]"
CHAT = "".join(
    f"data: {json.dumps({'choices': [{'delta': {'content': part}}]}, ensure_ascii=False)}\n\n"
    for part in TEXT.split(" ")
)
EVENTS = {
    "plain": (
        f": hello\n\nid: 7\nevent: piece\ndata: {TEXT}\n\ndata:\ndata: b\nretry: 3\n\ndata: [DONE]\n\n",
        f"{TEXT}\nb",
    ),
    "chat": (f"\ufeff{CHAT}data: [DONE]\n\n", TEXT.replace(" ", "")),
    "answers": ('data: {"answer": "a"}\n\ndata: {"content": "ü"}\n\ndata: {"x": 1}\n\n', 'aü{"x": 1}'),
    "done without an empty line": ("data: a\n\ndata: [DONE]", "a"),
}


def pieces_of(chunks: list[bytes], kind: str = "text/event-stream") -> list[str]:
    pieces = PieceParser(kind)
    found = [piece for chunk in chunks for piece in pieces.feed(chunk)]
    return found if pieces.ended else [*found, *pieces.end()]


class TestStreams:
    @pytest.mark.parametrize("name", EVENTS)
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_events_are_the_same_however_their_bytes_are_cut(self, name, end):
        body, text = EVENTS[name]
        data = body.replace("\n", end).encode()

        whole = pieces_of([data])

        assert "".join(whole) == text
        for cut in range(len(data) + 1):
            assert pieces_of([data[:cut], data[cut:]]) == whole
        assert pieces_of([data[at : at + 1] for at in range(len(data))]) == whole

    def test_raw_text_is_the_same_however_its_bytes_are_cut(self):
        data = f"{TEXT}\r\n\u2028{TEXT}".encode()

        for cut in range(len(data) + 1):
            assert "".join(pieces_of([data[:cut], data[cut:]], "text/plain")) == data.decode()

    @pytest.mark.parametrize(
        ("body", "kind", "told"),
        [
            (b"data: a\n\ndata: b\n", "text/event-stream", "within an event"),
            (b"data: a\n\ndata", "text/event-stream", "within an event"),
            (CHAT.encode(), "text/event-stream", "finish reason"),
            (b"data: a\n\nevent: error\ndata: no memory\n\n", "text/event-stream", "no memory"),
            (b'data: {"error": {"message": "no memory"}}\n\n', "text/event-stream", "no memory"),
            ("aü".encode()[:-1], "text/plain", "within a character"),
        ],
    )
    def test_a_stream_that_cannot_end_there_is_a_fault(self, body, kind, told):
        with pytest.raises(StreamFaultError, match=told):
            pieces_of([body], kind)

    def test_a_finish_reason_ends_a_chat_as_well(self):
        assert pieces_of([b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}\n\n']) == ["a"]

    @pytest.mark.parametrize("kind", ["text/event-stream", "text/plain; charset=utf-8", "application/json"])
    def test_pieces_come_from_the_wire(self, host, read, kind):
        bodies = {"text/event-stream": EVENTS["chat"][0], "application/json": json.dumps({"answer": TEXT})}
        data = bodies.get(kind, TEXT).encode()
        chunks = [data[at : at + 3] for at in range(0, len(data), 3)]
        host.play = lambda came: Said(b"", headers={"content-type": kind}, chunks=chunks)

        pieces, reply = read(client_of(host), "stream", "hi", system_context="s")

        expected = TEXT.replace(" ", "") if kind == "text/event-stream" else TEXT
        assert "".join(pieces) == reply.text == expected
        assert (reply.status_code, reply.headers["Content-Type"]) == (200, kind)
        assert host.requests[0].body == {"user_prompt": "hi", "system_context": "s", "streaming": True}

    @pytest.mark.parametrize("kind", ["text/event-stream", "text/plain"])
    def test_a_cut_stream_raises_with_the_text_so_far(self, host, read, kind):
        chunks = [b"data: one\n\n", b"data: two\n\n"] if kind == "text/event-stream" else [b"one", b"two"]
        host.play = lambda came: Said(b"", headers={"content-type": kind}, chunks=chunks, cut=True)

        with pytest.raises(errors.IncompleteStreamError, match="middle of the answer") as caught:
            read(client_of(host), "stream", "hi")

        assert caught.value.partial == "onetwo"
        assert len(host.requests) == 1

    def test_a_silence_is_a_timeout_with_the_text_so_far(self, host, read):
        host.play = lambda came: Said(b"", headers={"content-type": "text/plain"}, chunks=[b"one", b"two"], pause_s=0.6)

        with pytest.raises(errors.Timeout) as caught:
            read(client_of(host, timeout=0.2), "stream", "hi")
        assert caught.value.partial == "one"

    def test_opening_is_tried_again_and_a_refusal_has_its_class(self, host, read):
        host.play = scripted(Said({}, 503), None, Said({"detail": "no"}, 403))

        with pytest.raises(errors.PermissionDeniedError, match="no"):
            read(client_of(host), "stream", "hi")
        assert len(host.requests) == 3

    def test_a_stream_may_be_left_early(self, host, read):
        endless = Said(b"", headers={"content-type": "text/plain"}, chunks=[b"a"] * 200, pause_s=0.02)
        host.play = lambda came: endless
        started = time.monotonic()

        pieces, reply = read(client_of(host), "stream", "hi", most=2)

        assert len(pieces) == 2
        assert reply.text.startswith("aa")
        assert time.monotonic() - started < 2

    def test_what_follows_the_end_is_not_waited_for(self, host, read):
        chunks = [b"data: a\n\ndata: [DONE]\n\n", *[b": still here\n\n"] * 50]
        host.play = lambda came: Said(b"", headers={"content-type": "text/event-stream"}, chunks=chunks, pause_s=0.1)
        started = time.monotonic()

        assert read(client_of(host), "stream", "hi")[0] == ["a"]
        assert time.monotonic() - started < 2

    def test_a_stream_is_only_sent_when_it_is_read(self, host):
        stream = client_of(host).stream("hi")

        with pytest.raises(RuntimeError):
            _ = stream.reply
        stream.close()
        assert host.requests == []


def slow(seconds: float) -> Any:
    def play(came: Came) -> Any:
        time.sleep(seconds)
        return echo(came)

    return play


class TestMany:
    def test_fifty_prompts_take_the_time_of_a_few_and_keep_their_order(self, host, everything):
        host.play = slow(0.1)
        prompts = [str(number) for number in range(50)]
        started = time.monotonic()

        items = everything(client_of(host, concurrency=25), prompts)

        assert time.monotonic() - started < 2.5  # one after the other takes 5 s
        assert [item.prompt for item in items] == prompts
        assert [item.answer.text for item in items] == [f"re: {prompt}" for prompt in prompts]
        assert host.busiest > 10

    def test_no_more_are_asked_at_once_than_was_said(self, host, everything):
        host.play = slow(0.02)

        assert len(everything(client_of(host), map(str, range(20)), concurrency=3)) == 20
        assert host.busiest <= 3

    def test_one_that_fails_disturbs_no_other(self, host, everything):
        host.play = lambda came: Said({"detail": "no"}, 400) if came.body["user_prompt"] == "b" else echo(came)

        a, b, c, d = everything(client_of(host), ["a", "b", 3, "d"], system_context="s")

        assert (a.answer.text, d.answer.text, a.error) == ("re: a", "re: d", None)
        assert isinstance(b.error, errors.BadRequestError)
        assert isinstance(c.error, errors.InvalidRequestError)
        assert b.answer is c.answer is None

    def test_endless_prompts_are_taken_as_there_is_room(self, host, everything):
        taken = []

        def prompts():
            for number in itertools.count():
                taken.append(number)
                yield str(number)

        items = everything(client_of(host), prompts(), most=3, concurrency=2)

        assert [item.answer.text for item in items] == ["re: 0", "re: 1", "re: 2"]
        assert len(taken) <= 8 + 3

    def test_leaving_early_stops_the_rest(self, host, everything):
        host.play = slow(0.05)

        everything(client_of(host), map(str, range(1000)), most=1, concurrency=2)
        time.sleep(0.2)
        sent = len(host.requests)
        time.sleep(0.2)

        assert len(host.requests) == sent < 12

    def test_leaving_early_ends_a_wait_for_another_try(self, host, everything):
        host.play = lambda came: (
            Said({}, 429, {"retry-after": "0.4"}) if came.body["user_prompt"] == "b" else echo(came)
        )

        everything(client_of(host), ["a", "b"], most=1, concurrency=2)
        time.sleep(0.6)

        assert sum(came.body["user_prompt"] == "b" for came in host.requests) <= 1

    def test_what_the_prompts_raise_comes_after_the_answers(self, host, everything):
        def prompts():
            yield "a"
            raise OSError("the file is gone")

        found = []

        with pytest.raises(OSError, match="the file is gone"):
            found += everything(client_of(host), prompts())
        assert len(host.requests) == 1

    @pytest.mark.parametrize("wrong", [0, -1, "2", True])
    def test_refuses_a_wrong_concurrency(self, host, wrong):
        for name in ("map", "amap"):
            with pytest.raises(errors.InvalidRequestError, match="concurrency"):
                getattr(client_of(host), name)(["a"], concurrency=wrong)

    def test_no_prompts_are_no_items(self, host, everything):
        assert everything(client_of(host), []) == []

    def test_a_bar_is_not_shown_where_there_is_no_terminal(self, host, everything, capsys):
        everything(client_of(host), ["a", "b"])

        assert capsys.readouterr() == ("", "")

    def test_a_bar_is_shown_anywhere_where_it_is_asked_for(self, host, everything, capsys):
        everything(client_of(host), ["a", "b"], progress=True)

        out, err = capsys.readouterr()
        assert out == ""
        assert "2/2" in err

    def test_a_bar_is_shown_on_a_terminal_when_it_takes_long(self, host):
        """The bar comes while the first answer is still waited for; a quick run shows nothing."""
        host.play = lambda came: slow(2.5 if came.body["user_prompt"] == "slow" else 0)(came)
        code = (
            "import sys, time; from llmkit.endpoint import EndpointClient\n"
            "began = time.monotonic()\n"
            "print([item.answer.text for item in EndpointClient(sys.argv[1], 't').map(sys.argv[2:])])\n"
            "print(time.monotonic() - began)"
        )

        def shown(*prompts: str) -> tuple[str, str, float]:
            ours, theirs = pty.openpty()
            done = subprocess.run(
                [sys.executable, "-c", code, host.url, *prompts],
                stdout=subprocess.PIPE,
                stderr=theirs,
                env={**os.environ, "TERM": "xterm", "PYTHONPATH": str(Path(endpoint.__file__).parents[1])},
                check=True,
            )
            os.close(theirs)
            written = b""
            with os.fdopen(ours, "rb", buffering=0) as terminal:
                try:
                    while data := terminal.read(4096):
                        written += data
                except OSError:  # Linux' word for the end of a terminal
                    pass
            answers, took = done.stdout.decode().splitlines()
            return answers, written.decode(), float(took)

        answers, bar, _ = shown("slow", "b")

        assert answers == "['re: slow', 're: b']"
        assert "2/2" in bar
        answers, bar, took_s = shown("a", "b")
        assert answers == "['re: a', 're: b']"
        assert bar == "" or took_s > PATIENCE_S  # a busy machine may be no quick run
