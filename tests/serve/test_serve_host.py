"""A model.py behind the simple protocol, asked over a real connection."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import web
from serving import error_of, running, wait_for

from llmkit import errors, presets
from llmkit.core.retry import Retry
from llmkit.endpoint import EndpointClient, get_session_token
from llmkit.money.ledger import ledger_of
from llmkit.providers.litellm.sdk import load
from llmkit.providers.transport.events import PieceParser
from llmkit.serve import Keys, ServedPreset
from llmkit.serve.context import Caller
from llmkit.serve.errors import ServeError
from llmkit.serve.hosted.host import Host
from llmkit.testing import ScriptedBackend

AT_ONCE = Retry(tries=1)
ODD = (
    "TypeError('x')",
    "KeyError('config')",
    "StopIteration",
    "StopAsyncIteration",
    "BaseException",
    "KeyboardInterrupt",
    "SystemExit(1)",
    "asyncio.CancelledError",
    "GeneratorExit",
)
RAISED = (
    ("HTTPException(418, 'a teapot')", 418, "a teapot"),
    ("ValueError('sk-secret')", 400, "the model tiny does not take this request; the server's log says why"),
    ("int('sk-secret')", 400, "the model tiny does not take this request; the server's log says why"),
    *((raised, 500, "the model tiny failed; the server's log says why") for raised in ODD),
)
SEED = """
    generator = None
    began = ended = 0

    async def init(model_meta=None, *args, **kwargs):
        global generator, began
        if generator is not None:
            return
        began += 1
        generator = lambda texts: [f"{model_meta.model_name} on {text}" for text in texts]

    async def cleanup(model_meta=None, *args, **kwargs):
        global generator, ended
        generator = None
        ended += 1

    async def predict(payload_dict: dict, **kwargs):
        sentence = payload_dict["user_prompt"]
        return {'answer': generator([sentence])[0]}
"""


@pytest.fixture(scope="module", autouse=True)
def litellm():
    """LiteLLM counts tokens; `llmkit serve` imports it before the first request, too."""
    return load()


@pytest.fixture
def made(tmp_path):
    """Write a model.py, and return its path."""

    def write(code: str, name: str = "tiny", **settings: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.py").write_text(textwrap.dedent(code), encoding="utf-8")
        if settings:
            (folder / "model.json").write_text(json.dumps(settings), encoding="utf-8")
        return folder / "model.py"

    return write


@pytest.fixture
def serve(made, sqlite):
    """Serve a model.py, given by its code or path, or a Served; return the address of the model."""
    with contextlib.ExitStack() as stack:

        def start(model: Any, **kwargs: Any) -> str:
            path = made(model) if isinstance(model, str) else model
            served = Host(path, **kwargs) if isinstance(path, Path) else path
            return f"{stack.enter_context(running(served, store=sqlite))}/{served.name}/"

        yield start


def preset(name: str, *script: Any, store: Any) -> tuple[ServedPreset, ScriptedBackend]:
    backend = ScriptedBackend(*script)
    found = presets.Preset(model="openai/gpt-4o", system="Be kind.")
    return ServedPreset(name=name, preset=found, store=store, backend=backend), backend


def asked(url: str, **kwargs: Any) -> EndpointClient:
    return EndpointClient(url, **{"token": "any", "retry": AT_ONCE, **kwargs})


def predicted(host: Host, payload: dict[str, Any], **kwargs: Any) -> Any:
    """Ask a host without a server, from start to stop."""

    async def main() -> Any:
        try:
            return await host.predict(payload, **kwargs)
        finally:
            await host.stop()

    return asyncio.run(main())


class TestTheDocument:
    def test_its_consuming_code_works(self, serve):
        """Case 44: a body goes with GET, and `?get_meta=true` asks for the description."""
        api_url = serve(SEED)
        headers = {"authorization": "Bearer any"}

        with web.client() as client:
            r = client.get(api_url + "?get_meta=true", headers=headers)
            assert r.status_code == 200
            assert r.json() == {"name": "tiny", "version": "1"}
            for method in ("GET", "POST"):
                r = client.request(method, api_url, headers=headers, json={"user_prompt": "Who is Einstein?"})
                assert (r.status_code, r.json()) == (200, {"answer": "tiny on Who is Einstein?"})

    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_without_a_slash_it_is_the_same(self, serve, method):
        """Case 56: nothing redirects, so that no body is lost."""
        api_url = serve(SEED).removesuffix("/")

        r = web.request(method, api_url, json={"user_prompt": "hi"})

        assert (r.status_code, r.json()) == (200, {"answer": "tiny on hi"})

    def test_the_description_is_model_json_and_asks_nobody(self, serve, made):
        """Case 45."""
        code = "def predict(payload_dict): raise RuntimeError('asked')"
        about = {"version": 3, "_comment": "for us", "owner": "team", "api_key": "sk-1234"}

        meta = asked(serve(made(code, **about))).meta()

        assert meta.data == {"version": "3", "_comment": "for us", "owner": "team", "name": "tiny"}
        assert (meta.model_id, meta.model_name, meta.model_version) == ("tiny", "tiny", "3")
        assert meta.headers["x-request-id"]

    def test_every_answer_says_which_model_it_is_of(self, serve):
        url = serve(SEED)
        for r in (web.post(url, json={"user_prompt": "hi"}), web.post(url, json={}), web.post(url)):
            assert [r.headers[f"x-prt-model-{part}"] for part in ("id", "name", "version")] == ["tiny", "tiny", "1"]
            assert len(r.headers.get_list("x-request-id")) == 1

    @pytest.mark.parametrize(
        ("body", "told"),
        [
            (b"", "user_prompt"),
            (b"{}", "user_prompt"),
            (b"not json", "no JSON"),
            (b"[1]", "must be a JSON object"),
            (b'{"user_prompt": "hi", "streaming": "yes"}', "streaming"),
        ],
    )
    def test_a_wrong_request_is_told_what_is_wrong(self, serve, body, told):
        """Case 47."""
        r = web.post(serve(SEED), content=body, headers={"content-type": "application/json"})

        assert r.status_code == 400
        assert told in r.json()["error"]["message"]

    def test_the_field_that_is_missing_is_named_by_a_model_that_declares_it(self, serve):
        r = web.post(serve("def predict(user_prompt): return user_prompt"), json={"prompt": "hi"})

        assert (r.status_code, r.json()["error"]["param"]) == (400, "user_prompt")

    def test_an_unknown_model_is_not_found(self, serve):
        r = web.post(serve(SEED).replace("tiny", "other"), json={"user_prompt": "hi"})

        assert r.status_code == 404

    def test_a_failing_predict_stops_nobody(self, serve, caplog):
        """Case 47: no traceback and no secret leaves the server; its log has both."""
        url = serve("""
            def predict(payload_dict):
                if payload_dict["user_prompt"] == "bad":
                    raise RuntimeError("the password is 1234")
                return {"answer": "fine"}
        """)

        r = web.post(url, json={"user_prompt": "bad"})

        assert r.status_code == 500
        assert r.json()["error"]["message"] == "the model tiny failed; the server's log says why"
        assert "1234" in caplog.text
        assert web.post(url, json={"user_prompt": "good"}).json() == {"answer": "fine"}

    @pytest.mark.parametrize("colour", ["def", "async def"])
    @pytest.mark.parametrize("when", ["at once", "when it is read"])
    def test_s11_s18_what_predict_raises_has_a_status_and_tells_nothing(self, serve, colour, when):
        url = serve(f"""
            import asyncio
            from starlette.exceptions import HTTPException
            {colour} predict(user_prompt):
                exec("raise " + user_prompt)
                {"" if when == "at once" else "yield 1"}
        """)

        for raised, status, told in RAISED:
            r = web.post(url, json={"user_prompt": raised}, timeout=20)

            assert (r.status_code, error_of(r)["message"]) == (status, told), raised
        assert web.get(url, params={"get_meta": "true"}).status_code == 200

    @pytest.mark.parametrize(
        "ended",
        [
            "raise HTTPException(99, 'low')",
            "raise HTTPException(600, 'high')",
            "raise HTTPException(400, 'named', headers={'a b': 'c'})",
            "raise HTTPException(400, 'named', headers={'\u00e9\u4f60': 'c'})",
            "return Response('sent', headers={'x-b': 'c\\nd'})",
            "return Response('sent', headers={'x:b': 'c'})",
            "return Response('sent', 99)",
        ],
    )
    def test_an_answer_that_http_cannot_begin_is_an_error_and_counted_as_one(self, serve, ended):
        url = serve(f"""
            from starlette.exceptions import HTTPException
            from starlette.responses import Response
            def predict(user_prompt):
                {ended}
        """)

        r = web.post(url, json={"user_prompt": "hi"}, timeout=20)
        measured = web.get(url.replace("/tiny/", "/metrics")).text

        assert (r.status_code, error_of(r)["code"]) == (500, "internal_error")
        assert 'llmkit_requests_total{model="tiny",route="/{model}/",status="500"} 1.0' in measured

    def test_headers_of_an_http_exception_are_texts_that_http_has(self, serve):
        url = serve("""
            from starlette.exceptions import HTTPException
            def predict(user_prompt):
                raise HTTPException(429, "later", headers={"retry-after": 5, "x-why": "a\\r\\nx-evil: 1"})
        """)

        r = web.post(url, json={"user_prompt": "hi"}, timeout=20)

        assert (r.status_code, r.headers["retry-after"], r.headers["x-why"]) == (429, "5", "a??x-evil: 1")

    def test_prt_lang_is_taken_at_the_same_address(self, serve):
        """Case 51."""
        url = serve("""
            def predict(payload_dict, system_context=None):
                roles = [each["role"] for each in payload_dict["messages"]]
                temperature = payload_dict["temperature"]
                return {"answer": f"{system_context} {payload_dict['user_prompt']} {roles} {temperature}"}
        """)
        said = [("system", "Kind."), ("human", "a"), ("ai", "b"), (None, "c")]
        body = {"messages": [{"role": role, "content": content} for role, content in said], "temperature": 0.5}

        answer = asked(url).send({**body, "max_tokens": 9, "lang_model_kwargs": {}, "lang_model": None}).data

        assert answer["content"] == "Kind. c ['system', 'user', 'assistant', 'user'] 0.5"
        assert answer["lang_model"] == "tiny"
        assert answer["input_tokens"] > 0 < answer["output_tokens"]
        assert answer["total_tokens"] == answer["input_tokens"] + answer["output_tokens"]
        assert answer["additional_kwargs"] == {"finish_reason": "stop"}

    @pytest.mark.parametrize(
        ("more", "field"),
        [
            ({"llm_kwargs": {}}, "llm_kwargs"),
            ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
            ({"messages": [{"role": "human"}]}, "messages.0.content"),
            ({"messages": []}, "messages"),
            ({"max_tokens": 0}, "max_tokens"),
        ],
    )
    def test_prt_lang_with_a_wrong_field_is_refused_by_its_name(self, serve, more, field):
        body = {"messages": [{"role": "human", "content": "hi"}], **more}

        r = web.post(serve(SEED), json=body)

        assert (r.status_code, r.json()["error"]["param"]) == (400, field)
        assert field in r.json()["error"]["message"]


class TestResults:
    @pytest.mark.parametrize(
        ("code", "data", "text"),
        [
            ("{'answer': 'a', 'n': 1}", {"answer": "a", "n": 1}, "a"),
            ("{'content': 'c'}", {"content": "c"}, "c"),
            ("'plain'", "plain", "plain"),
            ("[1, 2.5, None]", [1, 2.5, None], "[1, 2.5, null]"),
            ("Answer(answer='p')", {"answer": "p"}, "p"),
            ("Point(1, {2})", {"x": 1, "y": [2]}, '{"x": 1, "y": [2]}'),
            ("Frame()", {"column": [1]}, '{"column": [1]}'),
            ("{'frame': Frame()}", {"frame": {"column": [1]}}, '{"frame": {"column": [1]}}'),
            ("{'answer': 'half: \\ud83d'}", {"answer": "half: \ufffd"}, "half: \ufffd"),
            ("{'answer': 'a', 'price': Decimal('1.5')}", {"answer": "a", "price": 1.5}, "a"),
            ("JSONResponse({'answer': 'own'})", {"answer": "own"}, "own"),
        ],
    )
    def test_become_json_and_text(self, serve, code, data, text):
        url = serve(f"""
            from dataclasses import dataclass
            from decimal import Decimal
            from pydantic import BaseModel
            from starlette.responses import JSONResponse

            class Answer(BaseModel):
                answer: str

            @dataclass
            class Point:
                x: int
                y: set

            class Frame:
                def to_dict(self): return {{"column": [1]}}

            def predict(payload_dict): return {code}
        """)

        assert web.post(url, json={"user_prompt": "hi"}).json() == data
        body = {"messages": [{"content": "hi"}]}
        assert web.post(url, json=body).json()["content"] == text

    @pytest.mark.parametrize("value", ["object()", "float('nan')", "{(1, 2): 3}"])
    def test_that_are_no_json_are_an_error_of_the_model(self, serve, value):
        r = web.post(serve(f"def predict(payload_dict): return {value}"), json={"user_prompt": "hi"})

        assert r.status_code == 500
        assert "returned what JSON cannot say" in r.json()["error"]["message"]


GENERATOR = """
    import asyncio, time
    closed = []

    {colour} predict(payload_dict, **_):
        try:
            for piece in payload_dict["pieces"]:
                if piece == "slow":
                    {sleep}
                elif piece == "fail":
                    raise ValueError("it broke")
                yield piece.encode("latin-1") if piece[:1] == chr(0xc3) or piece == chr(0xbc) else piece
        finally:
            closed.append(True)
"""


@pytest.fixture(params=["sync", "async"])
def pieces(request):
    """The code of a `predict` that yields the pieces it is given, in both colours."""
    if request.param == "sync":
        return GENERATOR.format(colour="def", sleep="time.sleep(0.02)")
    return GENERATOR.format(colour="async def", sleep="await asyncio.sleep(0.02)")


def streamed(url: str, given: list[str], **headers: str) -> bytes:
    body = {"user_prompt": "hi", "pieces": given, "streaming": True}
    return web.post(url, json=body, headers=headers).raise_for_status().content


class TestStreams:
    def test_raw_text_is_the_whole_text(self, serve, pieces):
        """Case 52: a character whose bytes come apart arrives whole."""
        url = serve(pieces)
        given = ["Gr", "\xc3", "\xbc", "ße ", "", "日本"]

        with web.stream("POST", url, json={"user_prompt": "", "pieces": given, "streaming": True}) as r:
            assert r.headers["content-type"] == "text/plain; charset=utf-8"
            assert r.headers["transfer-encoding"] == "chunked"
            assert b"".join(r.iter_raw()).decode() == "Grüße 日本"

    def test_events_are_read_by_our_client(self, serve, pieces):
        url = serve(pieces)
        odd = ["a\nb", " c ", "d\r", '{"answer": "x"}', "[DONE]", "5", "{", "\n"]

        answer = streamed(url, odd, accept="text/event-stream").decode()

        assert answer.endswith("\n\ndata: [DONE]\n\n")
        reader = PieceParser("text/event-stream")
        assert [*reader.feed(answer.encode()), *reader.end()] == odd

    def test_our_client_streams(self, serve):
        url = serve("async def predict(user_prompt):\n    for word in user_prompt: yield word")

        assert list(asked(url).stream("Grüße")) == list("Grüße")

    def test_what_fails_first_has_a_status(self, serve, pieces):
        r = web.post(serve(pieces), json={"pieces": ["fail"], "streaming": True})

        assert (r.status_code, r.json()["error"]["code"]) == (400, "invalid_request")
        assert "it broke" not in r.text

    def test_what_is_missing_has_a_status(self, serve, pieces):
        r = web.post(serve(pieces), json={"streaming": True})

        assert (r.status_code, r.json()["error"]["param"]) == (400, "pieces")

    def test_what_fails_later_is_an_event(self, serve, pieces):
        answer = streamed(serve(pieces), ["a", "fail"], accept="text/event-stream").decode()

        assert answer.startswith("data: a\n\nevent: error\ndata: {")
        assert "does not take this request" in answer
        assert "it broke" not in answer
        assert "[DONE]" not in answer

    def test_what_fails_later_breaks_raw_text_off(self, serve, pieces):
        url = serve(pieces)

        with pytest.raises(httpx.RemoteProtocolError):
            streamed(url, ["a", "fail"])
        assert streamed(url, ["a"]) == b"a"

    def test_a_client_that_goes_away_closes_the_generator(self, serve, pieces, made):
        path = made(pieces)
        host = Host(path)
        url = serve(host)
        body = {"user_prompt": "hi", "pieces": ["a", *["slow"] * 1000], "streaming": True}

        with web.stream("POST", url, json=body) as r:
            assert next(r.iter_text()) == "a"
        closed = host._calls["predict"].function.__globals__["closed"]
        wait_for(lambda: closed)

        assert closed == [True]

    def test_a_whole_answer_can_be_streamed_and_a_stream_be_whole(self, serve, pieces):
        url = serve(pieces)
        assert web.post(url, json={"user_prompt": "", "pieces": ["a", "b"]}).json() == {"answer": "ab"}

    def test_halves_of_a_character_in_two_pieces_are_one(self, serve):
        url = serve(r"""
            def predict(payload_dict):
                yield "so: \ud83d"
                yield "\ude00!"
        """)

        assert "".join(asked(url).stream("hi")) == "so: \U0001f600!"

    def test_prt_lang_streams(self, serve):
        body = {"messages": [{"content": "hi"}], "streaming": True}

        assert web.post(serve(SEED), json=body).text == "tiny on hi"

    def test_a_streaming_response_of_a_model_is_a_stream(self, serve):
        url = serve("""
            from starlette.responses import StreamingResponse
            async def predict(payload_dict): return StreamingResponse(iter(["a", "b"]))
        """)

        assert "".join(asked(url).stream("hi")) == "ab"


class TestPresets:
    def test_answer_and_the_context_is_the_system_message(self, serve, sqlite):
        """Case 48."""
        served, backend = preset("kind", "hello", "again", store=sqlite)
        url = serve(served)

        assert asked(url).ask("hi", "Be short.").data == {"answer": "hello"}
        assert any(each == {"role": "system", "content": "Be short."} for each in backend.requests[0].messages)
        body = {"messages": [{"content": "hi"}], "max_tokens": 7, "lang_model_kwargs": {"top_p": 0.5}}
        answer = asked(url).send(body).data
        assert (answer["content"], answer["total_tokens"]) == ("again", 2)
        assert {name: backend.requests[1].params[name] for name in ("max_tokens", "top_p")} == {
            "max_tokens": 7,
            "top_p": 0.5,
        }

    def test_stream(self, serve, sqlite):
        served, backend = preset("kind", "one two", store=sqlite)

        assert "".join(asked(serve(served)).stream("hi")) == "one two"
        assert backend.closed == 1

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            ({}, "user_prompt"),
            ({"user_prompt": 3}, "user_prompt"),
            ({"user_prompt": "hi", "temprature": 1}, "temprature"),
            ({"messages": [{"content": "hi"}], "lang_model_kwargs": {"api_base": "x"}}, "lang_model_kwargs.api_base"),
            ({"messages": [{"content": "hi"}], "lang_model_kwargs": {"top_p": 7}}, "lang_model_kwargs.top_p"),
        ],
    )
    def test_refuse_what_they_do_not_know(self, serve, sqlite, body, field):
        """Nobody may send the server's keys to another address."""
        served, backend = preset("kind", store=sqlite)

        r = web.post(serve(served), json=body)

        assert (r.status_code, r.json()["error"]["param"]) == (400, field)
        assert backend.requests == []

    def test_a_provider_that_refuses_a_stream_has_its_status(self, serve, sqlite):
        served, _ = preset("kind", *[errors.QuotaExceededError("no credit")] * 9, store=sqlite)

        r = web.post(serve(served), json={"user_prompt": "hi", "streaming": True})

        assert (r.status_code, r.headers["x-prt-model-name"]) == (429, "kind")


class TestHost:
    def test_answers_in_parallel_where_predict_blocks(self, serve):
        """Case 49: order is kept, and one that fails loses no other."""
        url = serve("""
            import threading
            together = threading.Barrier(8)
            def predict(payload_dict):
                together.wait(60)
                if payload_dict["user_prompt"] == "3":
                    raise RuntimeError("no")
                return {"answer": payload_dict["user_prompt"]}
        """)
        with asked(url) as client:
            items = list(client.map(map(str, range(8)), concurrency=8))

        assert [item.answer.text if item.answer else None for item in items] == [*"012", None, *"4567"]
        assert isinstance(items[3].error, errors.InternalServerError)

    def test_no_more_block_than_the_pool_has_threads(self, made):
        host = Host(
            made("""
                import threading, time
                busy = most = 0
                def predict(payload_dict):
                    global busy, most
                    busy += 1
                    most = max(most, busy)
                    time.sleep(0.02)
                    busy -= 1
                    return most
            """),
            pool=2,
        )

        async def main() -> Any:
            found = await asyncio.gather(*(host.predict({}) for _ in range(10)))
            await host.stop()
            return max(found)

        assert asyncio.run(main()) == 2

    def test_a_request_that_waits_too_long_for_a_thread_is_sent_away(self, made):
        host = Host(
            made("import time\ndef predict(payload_dict):\n    time.sleep(0.3)\n    return 1"), pool=1, max_wait_s=0.05
        )

        async def main() -> Any:
            found = await asyncio.gather(host.predict({}), host.predict({}), return_exceptions=True)
            again = await host.predict({})
            await host.stop()
            return [*found, again]

        first, second, again = asyncio.run(main())

        assert (first, again) == (1, 1)
        assert isinstance(second, ServeError)
        assert (second.status, second.headers["Retry-After"]) == (503, "1")

    @pytest.mark.parametrize("colour", ["def", "async def"])
    def test_init_and_cleanup_run_once(self, made, colour):
        """Case 50: two first requests at the same time, and a cleanup that raises."""
        host = Host(
            made(f"""
                import asyncio, time
                calls = []
                {colour} init(model_meta=None, *args, **kwargs):
                    calls.append("init " + model_meta.model_name)
                {colour} cleanup():
                    calls.append("cleanup")
                    raise RuntimeError("no")
                def predict(payload_dict): return calls
            """)
        )

        async def main() -> Any:
            first, second = await asyncio.gather(host.predict({}), host.predict({}))
            await host.start()
            await asyncio.gather(host.stop(), host.stop())
            assert first is second
            return first

        assert asyncio.run(main()) == ["init tiny", "cleanup"]

    def test_an_init_that_fails_is_the_reason_of_every_refusal(self, serve, made, caplog):
        """Case 50."""
        host = Host(
            made("""
                ended = []
                def init(): raise OSError("no weights at /models")
                def cleanup(): ended.append(1)
                def predict(payload_dict): return ended
            """)
        )
        url = serve(host)

        for _ in range(2):
            r = web.post(url, json={"user_prompt": "hi"})
            assert r.status_code == 503
            assert r.json()["error"]["message"].endswith("its init failed; the server's log says why")
            assert "/models" not in r.text
        assert "no weights at /models" in caplog.text
        ended = host._calls["predict"].function.__globals__["ended"]
        assert ended == []
        assert web.get(url, params={"get_meta": "true"}).status_code == 200
        asyncio.run(host.stop())
        assert ended == [1]

    def test_functions_get_what_they_declare(self, made):
        code = "def predict(user_prompt, *args, model_meta, requester, http_request=None, other=5):\n"
        host = Host(made(code + "    return [user_prompt, args, model_meta, requester.id, http_request, other]"))

        found = predicted(host, {"user_prompt": "hi"}, http_request="r", requester=Caller(name="anna"))

        assert found[:2] == ["hi", ()]
        assert (found[2].model_name, found[2].model_version, found[2].model_prefix) == ("tiny", "1", "")
        assert found[3:] == ["anna", "r", 5]

    def test_functions_with_kwargs_get_everything(self, made):
        host = Host(made("def predict(**kwargs): return kwargs"))

        assert sorted(predicted(host, {"user_prompt": "hi"})) == [
            "http_request",
            "model_meta",
            "payload_dict",
            "requester",
            "system_context",
            "user_prompt",
        ]

    def test_its_folder_is_importable(self, made):
        path = made("from helper_of_tiny import WORD\ndef predict(payload_dict): return WORD")
        path.with_name("helper_of_tiny.py").write_text("WORD = 'helped'", encoding="utf-8")

        assert predicted(Host(path), {}) == "helped"

    def test_two_models_do_not_share_a_module(self, made):
        one, two = (
            made("def predict(payload_dict): return 1", "one"),
            made("def predict(payload_dict): return 2", "two"),
        )

        assert (predicted(Host(one), {}), predicted(Host(two.parent), {})) == (1, 2)

    @pytest.mark.parametrize(
        ("code", "told"),
        [
            ("import nothing_of_this_name", "cannot be loaded: ModuleNotFoundError"),
            ("def predict(:", "cannot be loaded: SyntaxError"),
            ("raise SystemExit(2)", "cannot be loaded: SystemExit: 2"),
            ("x = 1", "no function predict"),
            ("predict = 3", "predict is no function"),
            ("def predict(df): pass", "predict wants 'df', which is not there; there are: payload_dict"),
            ("def predict(): pass\ndef init(payload_dict): pass", "init wants 'payload_dict'"),
        ],
    )
    def test_a_model_that_cannot_be_used_is_told_at_the_start(self, made, code, told):
        host = Host(made(code))

        with pytest.raises(errors.ConfigError, match=told):
            asyncio.run(host.start())
        asyncio.run(host.stop())

    def test_a_file_that_is_not_there_is_told_at_once(self, tmp_path, made):
        with pytest.raises(errors.ConfigError, match="no such file"):
            Host(tmp_path / "nothing.py")
        path = made(SEED)
        path.with_name("model.json").write_text("{", encoding="utf-8")
        with pytest.raises(errors.ConfigError, match=r"model\.json: it cannot be read"):
            Host(path)

    def test_replies_for_other_protocols(self, made):
        host = Host(made("def predict(user_prompt):\n    yield 'a '\n    yield user_prompt"))
        messages = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]

        async def main() -> Any:
            whole = await host.answer(messages, {"temperature": 1}, Caller())
            stream = host.stream(messages, {}, Caller())
            found = [piece async for piece in stream]
            left = host.stream(messages, {}, Caller())
            async for _ in left:
                break
            await left.aclose()
            await host.stop()
            return whole, found, stream.reply, left.reply

        whole, found, reply, left = asyncio.run(main())

        assert (whole.text, whole.model, whole.finish_reason) == ("a hi", "tiny", "stop")
        assert whole.choices[0].message.content == "a hi"
        assert (whole.usage.cost_usd, whole.usage.source) == (None, "unpriced")
        assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens > 0
        assert [piece.content for piece in found] == ["a ", "hi", ""]
        assert found[-1].finish_reason == "stop"
        assert (reply.text, reply.usage) == ("a hi", whole.usage)
        assert (left.text, left.finish_reason) == ("a ", None)


class TestFiles:
    def test_are_copied_before_init(self, made, tmp_path, monkeypatch):
        """Case 55."""
        monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path / "data"))
        code = """
            def init(model_meta): assert (model_meta.files / "sub" / "weights.bin").read_text() == "w"
            def predict(model_meta): return str(model_meta.files)
        """
        path = made(code, download_files_from="cache/tiny/", _comment="ignored")
        (path.parent / "cache/tiny/sub").mkdir(parents=True)
        (path.parent / "cache/tiny/sub/weights.bin").write_text("w")

        for _ in range(2):
            assert predicted(Host(path), {}) == str(tmp_path / "data/served/tiny")

    def test_go_where_model_json_says(self, made, tmp_path):
        (tmp_path / "source").mkdir()
        (tmp_path / "source" / "a").write_text("1")
        path = made(SEED, download_files_from=str(tmp_path / "source"), download_files_to="here")

        asyncio.run(_started(Host(path)))

        assert [each.name for each in (path.parent / "here").iterdir()] == ["a"]

    def test_that_are_not_there_are_told_at_the_start(self, made):
        host = Host(made(SEED, download_files_from="cache/nothing"))

        with pytest.raises(errors.ConfigError, match=r"model\.json: download_files_from: .*tiny/cache/nothing"):
            asyncio.run(host.start())

    def test_are_not_copied_into_themselves(self, made):
        path = made(SEED, download_files_from=".", download_files_to="./copy")

        with pytest.raises(errors.ConfigError, match="is within"):
            asyncio.run(Host(path).start())


async def _started(host: Host) -> None:
    await host.start()
    await host.stop()


class TestTokens:
    def test_go_from_key_to_answer(self, made, sqlite, capsys, caplog):
        """Case 46: the whole way of the document, with our client."""
        caplog.set_level(logging.DEBUG)
        keys = Keys(sqlite)
        key = keys.add("anna")
        with running(Host(made(SEED)), store=sqlite, keys=keys) as origin:
            url = f"{origin}/tiny/"
            for wrong in ("llmkit-wrong", "a.b.c", keys.issue("anna", ttl_s=-1)[0]):
                with pytest.raises(errors.AuthenticationError):
                    asked(url, token=wrong).ask("hi")
            assert web.post(url, json={"user_prompt": "hi"}).status_code == 401
            with pytest.raises(errors.AuthenticationError, match="session token"):
                get_session_token(url, key="llmkit-wrong")

            token = get_session_token(url, key=key)

            assert get_session_token(url, key=key) == get_session_token(url, token=token) == token
            assert asked(url, token=token).ask("hi").text == asked(url, token=key).ask("hi").text == "tiny on hi"
            refused = web.post(f"{origin}/auth/session-token", headers={"authorization": f"Bearer {token}"})
            assert refused.status_code == 401  # a token makes no token
        shown = capsys.readouterr()
        assert token not in caplog.text + shown.out + shown.err

    def test_of_a_server_without_keys(self, serve):
        url = serve(SEED)

        token = get_session_token(url, key="anything")

        assert asked(url, token=token).ask("hi").text == "tiny on hi"

    def test_a_key_is_for_its_models(self, made, sqlite):
        keys = Keys(sqlite)
        key = keys.add("anna", models=["other"])
        with (
            running(Host(made(SEED)), store=sqlite, keys=keys) as origin,
            pytest.raises(errors.PermissionDeniedError, match="tiny"),
        ):
            asked(f"{origin}/tiny/", token=key).ask("hi")


class TestItsOwnLoop:
    @pytest.mark.parametrize("order", ["runs first", "direct first"])
    def test_s5_runs_and_direct_requests_under_load_do_not_disturb_each_other(self, serve, order):
        url = serve("""
            import time
            def predict(payload_dict):
                time.sleep(0.05)
                return {"answer": "fine"}
        """)
        runs = url.replace("/tiny/", "/runs/tiny")

        def begin(client):
            return [client.post(runs, json={"data": "hi"}).json()["url"] for _ in range(20)]

        def direct():
            with asked(url) as client:
                return [item.answer and item.answer.text for item in client.map(["hi"] * 20, concurrency=20)]

        with web.client(timeout=30) as client:
            jobs, answers = (begin(client), direct()) if order == "runs first" else (None, direct())
            jobs = jobs or begin(client)
            wait_for(lambda: all(client.get(job).json()["completed"] for job in jobs), 60)
            assert {client.get(job).json()["status"] for job in jobs} == {"SUCCESS"}
        assert answers == ["fine"] * 20
        assert direct() == ["fine"] * 20

    def test_s5_what_init_makes_for_a_loop_is_used_on_it_whoever_asks(self, serve):
        url = serve("""
            import asyncio
            async def init():
                global loop, lock
                loop, lock = asyncio.get_running_loop(), asyncio.Lock()
                await lock.acquire()
                loop.call_later(0.3, lock.release)
            async def predict(payload_dict):
                async with lock:
                    await asyncio.sleep(0.02)
                    return {"answer": str(asyncio.get_running_loop() is loop)}
            async def cleanup():
                assert asyncio.get_running_loop() is loop
        """)
        chat = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}

        with web.client(timeout=30) as client:
            job = client.post(url.replace("/tiny/", "/runs/tiny"), json={"data": "hi"}).json()["url"]
            chats = client.post(url.replace("/tiny/", "/v1/chat/completions"), json=chat).json()
            assert client.post(url, json={"user_prompt": "hi"}).json() == {"answer": "True"}
            assert chats["choices"][0]["message"]["content"] == "True"
            wait_for(lambda: client.get(job).json()["completed"])
            assert client.get(job).json()["data"] == "True"

    def test_a_generator_may_have_a_scope_open_between_two_pieces(self, serve):
        url = serve("""
            import anyio, asyncio
            async def predict(payload_dict):
                with anyio.fail_after(30):
                    for word in ("a", "b", "c"):
                        await asyncio.sleep(0)
                        yield word
        """)

        assert "".join(asked(url).stream("hi")) == "abc"

    def test_a_generator_that_is_left_is_closed_on_its_own_loop(self, made):
        """Whatever it awaits or catches when it is closed, and also where it is in the middle of a step."""
        host = Host(
            made("""
                import asyncio
                closed = []
                async def predict(payload_dict):
                    loop = asyncio.get_running_loop()
                    try:
                        yield "a"
                        await asyncio.sleep(60)
                    finally:
                        await asyncio.sleep(0.02)
                        closed.append(asyncio.get_running_loop() is loop)
            """)
        )

        async def main() -> Any:
            texts = await host.predict({})
            first = await anext(texts)
            second = asyncio.ensure_future(anext(texts))
            await asyncio.sleep(0.05)
            second.cancel()
            await asyncio.gather(second, return_exceptions=True)
            await texts.aclose()
            closed = list(host._calls["predict"].function.__globals__["closed"])
            await host.stop()
            return first, closed

        assert asyncio.run(main()) == ("a", [True])

    def test_an_async_predict_that_blocks_holds_up_its_own_model_only(self, made, sqlite):
        """As that of the document does, whose generator is no coroutine."""
        slow = Host(
            made("""
                import threading
                began, go_on = threading.Event(), threading.Event()
                async def predict(payload_dict):
                    began.set()
                    go_on.wait(30)
                    return {"answer": "at last"}
            """)
        )
        quick = Host(made("async def predict(payload_dict): return {'answer': 'now'}", "quick"))
        with running(slow, quick, store=sqlite) as origin:
            found = []
            body = {"user_prompt": "hi"}
            thread = threading.Thread(
                target=lambda: found.append(web.post(f"{origin}/tiny/", json=body, timeout=60).json())
            )
            thread.start()
            module = slow._calls["predict"].function.__globals__
            assert module["began"].wait(30)

            assert web.get(f"{origin}/health", timeout=20).json()["status"] == "ok"
            assert web.post(f"{origin}/quick/", json=body, timeout=20).json() == {"answer": "now"}
            assert found == []
            module["go_on"].set()
            thread.join(30)
        assert found == [{"answer": "at last"}]

    def test_the_request_that_predict_gets_has_its_body_and_knows_when_the_client_is_gone(self, serve, made):
        code = """
            import asyncio
            seen = []
            async def predict(http_request):
                if await http_request.json() == {"wait": False}:
                    return {"answer": http_request.headers["x-mine"], "gone": await http_request.is_disconnected()}
                try:
                    await asyncio.sleep(60)
                finally:
                    seen.append(await http_request.is_disconnected())
        """
        host = Host(made(code))
        url = serve(host)

        r = web.post(url, json={"wait": False}, headers={"x-mine": "yes"})
        with pytest.raises(httpx.ReadTimeout):
            web.post(url, json={"wait": True}, timeout=0.3)

        assert r.json() == {"answer": "yes", "gone": False}
        wait_for(lambda: host._calls["predict"].function.__globals__["seen"] == [True])

    def test_a_run_that_does_not_end_is_given_up(self, made, sqlite):
        host = Host(made("import asyncio\nasync def predict(payload_dict): await asyncio.sleep(600)"), lost_after_s=0.3)
        with running(host, store=sqlite) as origin:
            job = web.post(f"{origin}/runs/tiny", json={"data": "hi"}).json()["url"]
            wait_for(lambda: web.get(job).json()["completed"])
            assert web.get(job).json()["error_message"] == "no whole answer within 0.3 s"


class TestThreads:
    def test_s20_calls_that_do_not_end_lose_their_threads_and_not_the_model(self, made, caplog):
        host = Host(
            made("""
                import threading
                go_on = threading.Event()
                def predict(payload_dict):
                    if payload_dict["user_prompt"] == "hang":
                        go_on.wait(60)
                    return "fine"
            """),
            pool=2,
            max_wait_s=0.05,
            lost_after_s=0.2,
        )

        async def hang(count: int) -> list[asyncio.Task[Any]]:
            tasks = [asyncio.ensure_future(host.predict({"user_prompt": "hang"})) for _ in range(count)]
            await asyncio.sleep(0.05)
            return tasks

        async def until(condition: Any) -> None:
            ends = time.monotonic() + 20
            while not condition():
                assert time.monotonic() < ends
                await asyncio.sleep(0.01)

        async def main() -> list[Any]:
            await host.start()
            found: list[Any] = []
            tasks = await hang(2)
            found.append(await asyncio.gather(host.predict({"user_prompt": "hi"}), return_exceptions=True))
            await until(lambda: host._threads.overdue == 2)
            found.append(await host.predict({"user_prompt": "hi"}))
            tasks += await hang(2)
            await until(lambda: host.is_stuck)
            found.append(await asyncio.gather(host.predict({"user_prompt": "hi"}), return_exceptions=True))
            host._calls["predict"].function.__globals__["go_on"].set()
            found.append(await asyncio.gather(*tasks))
            await until(lambda: not host.is_stuck)
            found.append(await asyncio.gather(*(host.predict({"user_prompt": "hi"}) for _ in range(2))))
            await host.stop()
            return found

        busy, again, stuck, late, after = asyncio.run(main())

        assert (busy[0].status, busy[0].code) == (stuck[0].status, stuck[0].code) == (503, "overloaded")
        assert (again, late, after) == ("fine", ["fine"] * 4, ["fine"] * 2)
        assert "its thread cannot be ended" in caplog.text

    def test_s20_health_says_when_a_model_is_stuck(self, made, sqlite):
        code = "import time\nasync def predict(payload_dict):\n    time.sleep(0.8)\n    return 1"
        host = Host(made(code), lost_after_s=0.2)
        with running(host, store=sqlite) as origin, contextlib.suppress(httpx.ReadTimeout):
            for _ in range(2):
                with contextlib.suppress(httpx.ReadTimeout):
                    web.post(f"{origin}/tiny/", json={"user_prompt": "hi"}, timeout=0.3)
            health = web.get(f"{origin}/health")
            assert (health.status_code, health.json()["status"]) == (503, "stuck")
            wait_for(lambda: web.get(f"{origin}/health").status_code == 200)


class TestLedger:
    CODE = """
        from starlette.exceptions import HTTPException
        def predict(payload_dict):
            asked = payload_dict["user_prompt"]
            if asked == "fail":
                raise ValueError("no")
            if asked == "refuse":
                raise HTTPException(409, "no")
            if asked == "stream":
                return iter(["a", "b"])
            return {"answer": asked, "cost_usd": 0.4, "input_tokens": 3, "output_tokens": 2}
    """

    def test_s12_every_call_is_a_row(self, made, sqlite):
        key = Keys(sqlite).add("anna")
        headers = {"x-api-key": key}
        host = Host(made(self.CODE), store=sqlite)
        with running(host, store=sqlite) as origin, web.client(headers=headers, timeout=30) as client:
            for asked_for in ("hi", "fail", "refuse", "stream"):
                client.post(f"{origin}/tiny/", json={"user_prompt": asked_for})
            client.post(f"{origin}/tiny/", json={"user_prompt": "stream", "streaming": True})
            client.post(f"{origin}/tiny/", json={})
            for stream in (False, True):
                chat = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
                client.post(f"{origin}/v1/chat/completions", json=chat)
            job = client.post(f"{origin}/runs/tiny", json={"data": "hi"}).json()["url"]
            wait_for(lambda: client.get(job).json()["completed"])
            usage = client.get(f"{origin}/usage").json()["models"]

        rows = ledger_of(sqlite).rows()
        told = (0.4, "priced", 3, 2)
        assert [(row.status, row.cost_usd, row.source, row.prompt_tokens, row.completion_tokens) for row in rows] == [
            ("ok", *told),
            ("ValueError", None, None, None, None),
            ("HTTPException", None, None, None, None),
            ("ok", None, "unpriced", 0, 0),
            ("ok", None, "unpriced", 0, 0),
            ("MissingFieldError", None, None, None, None),
            ("ok", *told),
            ("ok", *told),
            ("ok", *told),
        ]
        assert {(row.asked, row.deployment, row.tags) for row in rows} == {("tiny", "model.py/tiny", ("key:anna",))}
        assert all(row.latency_s is not None for row in rows if row.status == "ok")
        assert [(line["model"], line["calls"]) for line in usage] == [("tiny", 9)]

    def test_s12_a_stream_that_is_left_is_told_apart(self, made, sqlite):
        host = Host(made("def predict(payload_dict): yield from ['a', 'b']"), store=sqlite)

        async def main() -> None:
            stream = host.stream([{"role": "user", "content": "hi"}], {}, Caller())
            async for _ in stream:
                break
            await stream.aclose()
            texts = await host.predict({})
            await anext(texts)
            await texts.aclose()
            await host.stop()

        asyncio.run(main())

        assert [row.status for row in ledger_of(sqlite).rows()] == ["interrupted", "interrupted"]

    @pytest.mark.parametrize("protocol", ["document", "openai", "runs"])
    def test_s12_a_key_whose_budget_is_spent_is_refused(self, made, sqlite, protocol):
        key = Keys(sqlite).add("anna", 0.5)
        headers = {"x-api-key": key}
        host = Host(made(self.CODE), store=sqlite)
        with running(host, store=sqlite) as origin, web.client(headers=headers, timeout=30) as client:

            def ask() -> Any:
                if protocol == "document":
                    return client.post(f"{origin}/tiny/", json={"user_prompt": "hi"})
                if protocol == "openai":
                    chat = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}
                    return client.post(f"{origin}/v1/chat/completions", json=chat)
                job = client.post(f"{origin}/runs/tiny", json={"data": "hi"}).json()["url"]
                wait_for(lambda: client.get(job).json()["completed"])
                return client.get(job)

            found = [ask() for _ in range(3)]

        if protocol == "runs":
            assert [r.json()["status"] for r in found] == ["SUCCESS", "SUCCESS", "FAILED"]
            assert found[2].json()["error_code"] == "budget"
        else:
            assert [r.status_code for r in found] == [200, 200, 429]
            assert error_of(found[2])["code"] == "budget_exceeded"
        assert len(ledger_of(sqlite).rows()) == 2
        assert Keys(sqlite).list()[0].budget.settled == pytest.approx(0.8)
