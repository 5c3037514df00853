"""What a client of `llmkit serve` may say and see: nothing of the server's own goes in or out by its words."""

from __future__ import annotations

import json
import re
import socketserver
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import web
from server import Answer, Drop, ScriptedServer, Status
from serving import error_of, preset, running, serving, wait_for

from llmkit import LLM, Budget, Budgets, ConfigError, Runs
from llmkit.core.params import ARGUMENTS, OPTIONS, SETTINGS
from llmkit.providers.aixplain.response import ModelResponse, ResponseStatus
from llmkit.providers.litellm.sdk import load
from llmkit.serve import Keys, create_app
from llmkit.serve.allowlist import OF_THE_PRESET, PARAMS
from llmkit.store import Store

HELLO = [{"role": "user", "content": "hi"}]
NEVER = {
    "tools": ["os:system"],
    "api_base": "http://127.0.0.1:9/v1",
    "base_url": "http://127.0.0.1:9/v1",
    "api_key": "sk-mine",
    "attachments": ["/etc/passwd"],
    "extra_headers": {"x-evil": "1"},
    "headers": {"x-evil": "1"},
    "extra_body": {"store": True},
    "custom_llm_provider": "azure",
    "system": "Obey.",
    "timeout": 1,
    "session": "other",
    "mock_response": "no",
    "proxy": "http://127.0.0.1:9",
    "client": "x",
    "backend": "x",
    "preset": "two",
    "budget": "other",
    "ledger": "sqlite:////tmp/other.db",
    "variables": {"a": "b"},
    "retry": {"tries": 9},
    "schema": {"type": "object"},
    "max_rounds": 99,
    "drop_params": True,
    "fallbacks": ["openai/gpt-4o"],
    "metadata": {"a": "b"},
    "tags": ["key:anna"],
    "Evil": 1,
}


@pytest.fixture
def url(sqlite, server):
    with running(preset("one", sqlite, server.url), preset("two", sqlite, server.url), store=sqlite) as address:
        yield address


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A server that all refusals are asked of, and its provider, which is never asked."""
    store = Store(tmp_path_factory.mktemp("store") / "llmkit.db")
    with ScriptedServer() as upstream, running(preset("one", store, upstream.url), store=store) as address:
        yield address, upstream
    store.close()


def chat(**fields):
    return "/v1/chat/completions", {"model": "one", "messages": HELLO, **fields}


def polled(**fields):
    return "/runs/one", {"data": "hi", **fields}


def streamed_run(**fields):
    return "/runs/one", {"data": "hi", "options": {"stream": True}, **fields}


def document(**fields):
    return "/one/", {"user_prompt": "hi", **fields}


def lang(**fields):
    return "/one/", {"messages": [{"content": "hi"}], **fields}


def lang_kwargs(**fields):
    return "/one/", {"messages": [{"content": "hi"}], "lang_model_kwargs": fields}


def vectors(**fields):
    return "/v1/embeddings", {"model": "one", "input": "hi", **fields}


PROTOCOLS = (chat, polled, streamed_run, document, lang, lang_kwargs, vectors)
PARAMETERS = (chat, polled, streamed_run, lang_kwargs)
every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda each: each.__name__)
every_parameter = pytest.mark.parametrize("protocol", PARAMETERS, ids=lambda each: each.__name__)


# -- what goes in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", NEVER)
@every_protocol
def test_s1_what_only_the_server_may_set_is_refused_by_its_name(shared, protocol, field):
    url, upstream = shared
    path, body = protocol(**{field: NEVER[field]})

    answer = web.post(url + path, json=body)

    assert answer.status_code == 400
    assert field in error_of(answer)["param"]
    assert upstream.requests == []


@pytest.mark.parametrize("protocol", [polled, streamed_run])
def test_s1_a_run_asks_the_preset_that_its_address_names(shared, protocol):
    url, upstream = shared
    path, body = protocol(model="azure/gpt-4o")

    answer = web.post(url + path, json=body)

    assert (answer.status_code, error_of(answer)["param"]) == (400, "model")
    assert upstream.requests == []


def test_s1_a_form_has_no_other_fields_either(shared):
    url, upstream = shared

    answer = web.post(
        f"{url}/v1/audio/transcriptions", data={"model": "one", "api_base": "x"}, files={"file": ("a.wav", b"RIFF")}
    )
    text = web.post(f"{url}/v1/audio/transcriptions", files={"model": (None, "one"), "file": (None, "/etc/passwd")})

    assert (answer.status_code, error_of(answer)["param"]) == (400, "api_base")
    assert (text.status_code, error_of(text)["message"]) == (400, "file: it must be a file")
    assert upstream.requests == []


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "image_url", "image_url": "/etc/passwd"},
        {"type": "image_url", "image_url": {"url": "gs://bucket/of/the/server.png"}},
        {"type": "video_url", "video_url": {"url": "s3://bucket/x"}},
        {"type": "image_url", "image_url": {"url": "https://a.example/x.png", "api_key": "x"}},
        {"type": "file", "file": {"file_id": "file-of-the-server"}},
        {"type": "file", "file": {"file_id": "https://a.example/x.pdf"}},
        {"type": "file", "file": {"file_data": "https://a.example/x.pdf"}},
        {"type": "document", "source": {"type": "url", "url": "https://a.example/x.pdf"}},
        {"type": "image_url"},
        {"type": "text", "text": "x", "citations": {}},
    ],
    ids=str,
)
@pytest.mark.parametrize("protocol", ["chat", "history"])
def test_s1_a_message_has_no_address_that_the_server_would_read(shared, protocol, part):
    url, upstream = shared
    messages = [{"role": "user", "content": [part]}]
    path, body = chat(messages=messages) if protocol == "chat" else polled(history=messages)

    answer = web.post(url + path, json=body)

    assert answer.status_code == 400
    assert error_of(answer)["param"].startswith(f"{'messages' if protocol == 'chat' else 'history'}.0.content.0")
    assert upstream.requests == []


@pytest.mark.parametrize(
    "tools",
    [
        [{"type": "web_search"}],
        [{"type": "web_search_preview", "search_context_size": "high"}],
        [{"googleSearch": {}}],
        [{"type": "function", "function": {"name": "x"}, "googleSearch": {}}],
        [{"type": "code_interpreter", "container": {"type": "auto"}}],
        [{"type": "mcp", "server_url": "http://evil"}],
    ],
    ids=str,
)
@every_parameter
def test_s6_tools_that_run_elsewhere_are_the_presets_to_give(shared, protocol, tools):
    url, upstream = shared
    path, body = protocol(tools=tools)

    answer = web.post(url + path, json=body)

    assert answer.status_code == 400
    assert "tools.0" in error_of(answer)["param"]
    assert upstream.requests == []


SPECIAL = {
    "service_tier": "priority",
    "store": True,
    "prediction": {"type": "content", "content": "x" * 20},
    "web_search_options": {"search_context_size": "high"},
}


@pytest.mark.parametrize("field", SPECIAL)
@every_parameter
def test_s6_what_costs_more_or_is_kept_is_refused_where_the_preset_does_not_set_it(shared, protocol, field):
    url, upstream = shared
    path, body = protocol(**{field: SPECIAL[field]})

    answer = web.post(url + path, json=body)

    assert SPECIAL.keys() == OF_THE_PRESET
    assert (answer.status_code, error_of(answer)["code"]) == (400, "field_not_allowed")
    assert error_of(answer)["param"].endswith(field)
    assert upstream.requests == []


def test_s6_and_passed_on_where_the_preset_sets_it(sqlite, server):
    served = preset("one", sqlite, server.url, params={"service_tier": "flex", "store": False})
    with running(served, store=sqlite) as url:
        path, body = chat(service_tier="default", store=True)
        assert web.post(url + path, json=body, timeout=30).status_code == 200

    assert (server.requests[0].body["service_tier"], server.requests[0].body["store"]) == ("default", True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", "9" * 4000),
        ("max_tokens", "99999999"),
        ("seed", "9" * 19),
        ("temperature", "1e999"),
        ("temperature", "NaN"),
        ("top_p", "-Infinity"),
        ("logit_bias", '{"1": 1e300}'),
        ("n", "1000000"),
        ("user", json.dumps("x" * 10_000)),
        ("stop", json.dumps(["x"] * 1000)),
        ("tools", '[{"type": "function", "function": {"name": "f", "parameters": {"default": NaN}}}]'),
        ("response_format", '{"type": "json_schema", "json_schema": {"name": "x", "schema": {"maximum": Infinity}}}'),
    ],
)
@every_parameter
def test_s22_values_have_bounds_and_numbers_are_numbers_of_json(shared, protocol, field, value):
    url, upstream = shared
    path, body = protocol(**{field: "HERE"})
    content = json.dumps(body).replace('"HERE"', value)

    answer = web.post(url + path, content=content, headers={"content-type": "application/json"})

    assert answer.status_code == 400
    error_of(answer)
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("sent_as", "encoding"),
    [
        ("application/json", "utf-16"),
        ("application/json", "utf-32-be"),
        ("application/json; charset=utf-16", "utf-16"),
        ("application/json; charset=latin-1", "utf-8"),
        ("text/plain", "utf-8"),
        ("application/x-www-form-urlencoded", "utf-8"),
        ("application/vnd.api+json", "utf-8"),
        ("", "utf-8"),
    ],
)
@every_protocol
def test_s7_a_body_is_json_in_utf8_that_says_so(shared, protocol, sent_as, encoding):
    url, upstream = shared
    path, body = protocol()

    answer = web.post(url + path, content=json.dumps(body).encode(encoding), headers={"content-type": sent_as})

    assert (answer.status_code, error_of(answer)["code"][:8]) == (400, "invalid_")
    assert upstream.requests == []


def test_s7_utf8_may_be_said(url):
    path, body = chat()
    headers = {"content-type": "application/json; charset=UTF-8"}

    assert web.post(url + path, content=json.dumps(body), headers=headers, timeout=30).status_code == 200


# -- pages of other sites ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate"},
    ],
    ids=str,
)
@every_protocol
def test_s7_a_page_of_another_site_cannot_ask(shared, protocol, headers):
    url, upstream = shared
    path, body = protocol()

    answer = web.post(url + path, json=body, headers=headers)
    form = web.post(f"{url}/v1/audio/transcriptions", files={"file": ("a", b"x")}, headers=headers)

    assert (answer.status_code, error_of(answer)["code"]) == (403, "cross_site")
    assert (form.status_code, error_of(form)["code"]) == (403, "cross_site")
    for path in ("/metrics", "/usage", "/health", "/openapi.json", "/v1/models"):
        assert web.get(url + path, headers=headers).status_code == 403
    assert upstream.requests == []


def test_s7_our_own_page_can_and_a_link_leads_to_it(url):
    path, body = chat()
    own = {"origin": url, "sec-fetch-site": "same-origin"}

    assert web.post(url + path, json=body, headers=own, timeout=30).status_code == 200
    assert web.get(url, headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}).status_code == 200


# -- addresses that clients name --------------------------------------------------------------------------------------


@contextmanager
def elsewhere():
    """A server that a client names; it counts who comes."""
    seen = []

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            seen.append(self.client_address)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}", seen
        server.shutdown()


PROVIDERS = {
    "openai/gpt-4o": ("http", "https"),
    "openrouter/openai/gpt-4o": ("http", "https"),
    "azure/gpt-4o": ("http", "https"),
    "anthropic/claude-sonnet-4-5": ("https",),
    "gemini/gemini-2.5-flash": (),
    "ollama_chat/llava": (),
    "bedrock/anthropic.claude-3-5-sonnet-20240620-v1:0": (),
    "mistral/mistral-small-latest": (),
}


@pytest.mark.parametrize("usage", [True, False])
@pytest.mark.parametrize("model", PROVIDERS)
def test_s10_an_address_is_handed_to_the_provider_or_refused_and_never_fetched(
    sqlite, server, monkeypatch, model, usage
):
    """Neither to send it nor to count tokens, before or after; LiteLLM would be let through to it here."""
    with elsewhere() as (host, seen):
        monkeypatch.setattr(load(), "user_url_allowed_hosts", [host])
        server.script = [Answer(usage=None if not usage else Answer().usage)] * 4
        Budgets(sqlite).set(Budget(name="team", limit_usd=1.0, unpriced="allow"))
        params = {"api_version": "2024-10-21"} if model.startswith("azure") else {}
        served = preset("one", sqlite, server.url, model=model, budget="team", params=params, retry={"tries": 1})
        with running(served, store=sqlite) as url:
            for scheme in ("http", "https"):
                address = {"url": f"{scheme}://{host}/a.png", "detail": "high"}
                messages = [{"role": "user", "content": [{"type": "image_url", "image_url": address}]}]
                for stream in (False, True):
                    answer = url.post(chat(messages=messages, stream=stream)[1], timeout=60)
                    if scheme in PROVIDERS[model]:
                        assert answer.status_code == 200, answer.text
                        assert address["url"] in json.dumps(server.requests[-1].body)
                    else:
                        assert answer.status_code == 400
                        assert error_of(answer)["param"] == "messages.0.content.0.image_url"

    assert seen == []
    assert len(server.requests) == 2 * len(PROVIDERS[model])


# -- who is let in to what --------------------------------------------------------------------------------------------


READ = ("/metrics", "/usage", "/openapi.json", "/v1/models", "/v1/models/one", "/one/?get_meta=true", "/runs/x", "/no")


def test_s16_with_keys_nothing_of_the_server_is_told_without_one(sqlite, server):
    key = Keys(sqlite).add("anna")
    with running(preset("one", sqlite, server.url), store=sqlite) as url:
        for path in READ:
            refused = web.get(url + path)
            assert (refused.status_code, error_of(refused)["code"]) == (401, "missing_key"), path
            assert web.get(url + path, headers={"x-api-key": key}).status_code != 401
        assert web.get(f"{url}/health").json() == {"status": "ok"}
        assert web.get(f"{url}/health", headers={"x-api-key": key}).json() == {"status": "ok", "models": ["one"]}
        assert web.get(f"{url}/page/main.js").status_code == 200
        for nothing in ("no.js", "%2e%2e/auth.py", "/etc/passwd", "main.js/"):
            told = web.get(f"{url}/page/{nothing}")
            assert (told.status_code, error_of(told)["code"]) == (404, "not_found"), nothing
        page = web.get(url)
        assert page.status_code == 401
        assert "one" not in re.sub(r"<script.*?</script>|<style.*?</style>", "", page.text, flags=re.DOTALL).split()
        assert web.get(url, headers={"x-api-key": key}).status_code == 200


def test_s16_behind_a_proxy_that_puts_a_path_before_ours_it_is_the_same(sqlite, server):
    key = Keys(sqlite).add("anna")
    app = create_app([preset("one", sqlite, server.url)], store=sqlite)
    with serving(app, root_path="/llm") as url:
        assert (web.get(f"{url}/health").json(), web.get(url).status_code) == ({"status": "ok"}, 401)
        assert web.get(f"{url}/metrics").status_code == 401
        assert web.get(f"{url}/metrics", headers={"x-api-key": key}).status_code == 200


def test_s16_a_key_for_some_models_is_not_told_of_others(sqlite, server):
    key = Keys(sqlite).add("anna", models=["one"])
    headers = {"x-api-key": key}
    with running(preset("one", sqlite, server.url), preset("two", sqlite, server.url), store=sqlite) as url:
        assert web.get(f"{url}/health", headers=headers).json()["models"] == ["one"]
        assert [each["id"] for each in web.get(f"{url}/v1/models", headers=headers).json()["data"]] == ["one"]
        assert web.get(f"{url}/metrics", headers=headers).status_code == 403


@pytest.mark.parametrize("path", [*READ, "/", "/health"])
def test_s16_without_keys_the_name_of_the_host_is_looked_at_everywhere(sqlite, server, path):
    with running(preset("one", sqlite, server.url), store=sqlite, hosts={"127.0.0.1"}) as url:
        refused = web.get(url + path, headers={"host": "evil.example"})
        assert (refused.status_code, error_of(refused)["code"]) == (403, "wrong_host")


def test_s2_the_last_key_that_is_removed_closes_the_server(sqlite, server):
    keys = Keys(sqlite, cache_s=0.0)
    path, body = chat()
    with running(preset("one", sqlite, server.url), store=sqlite, keys=keys) as url:
        assert web.post(url + path, json=body, timeout=30).status_code == 200  # there never was one
        key = keys.add("bob")
        Keys(sqlite).remove("bob")  # another process does

        for headers in ({}, {"x-api-key": key}, {"host": "evil.example"}):
            refused = web.post(url + path, json=body, headers=headers)
            assert (refused.status_code, len(server.requests)) == (401, 1)
        token = web.post(f"{url}/auth/session-token/", headers={"x-api-key": "any"})
        assert token.status_code == 401


def test_s2_an_open_server_asks_for_no_key_although_there_are_some(sqlite, server):
    keys = Keys(sqlite)
    key = keys.add("anna")
    path, body = chat()
    with running(preset("one", sqlite, server.url), store=sqlite, is_open=True, hosts={"127.0.0.1"}) as url:
        for headers in ({}, {"authorization": "Bearer none"}, {"x-api-key": key}):
            assert web.post(url + path, json=body, headers=headers, timeout=30).status_code == 200
        assert web.post(url + path, json=body, headers={"host": "evil.example"}).status_code == 403
        token = web.post(f"{url}/auth/session-token/", headers={"authorization": "Bearer any"}).json()["token"]
        assert web.post(url + path, json=body, headers={"authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "", "Basic eDp5"])
def test_s21_an_empty_bearer_token_leaves_the_other_header(sqlite, server, scheme):
    key = Keys(sqlite).add("anna")
    with running(preset("one", sqlite, server.url), store=sqlite) as url:
        found = web.get(f"{url}/v1/models", headers=[("authorization", scheme), ("x-api-key", key)])

    assert found.status_code == 200


def test_a_budgets_name_is_a_text_and_shown_as_one(sqlite, server):
    name = "<script>alert(1)</script>"
    Budgets(sqlite).set(Budget(name=name, limit_usd=1.0))
    for wrong in ("a\x1b[2J", "a\nb", "\u202ea", ""):
        with pytest.raises(ConfigError, match="name"):
            Budget(name=wrong, limit_usd=1.0)
    with running(preset("one", sqlite, server.url), store=sqlite) as url:
        answer = web.get(f"{url}/usage")

    assert [each["name"] for each in answer.json()["budgets"]] == [name]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_s17_a_name_gives_a_key_nothing_that_merely_has_it_too(sqlite, server, keys_soon):
    keys = Keys(sqlite)
    Budgets(sqlite).set(Budget(name="team", limit_usd=9))
    first = keys.add("team", 5.0)
    with running(preset("one", sqlite, server.url), store=sqlite) as url, web.client(timeout=30) as client:
        client.headers["x-api-key"] = first
        assert client.post(url + chat()[0], json=chat()[1]).status_code == 200
        job = client.post(f"{url}/runs/one", json={"data": "hi"}).json()["url"]
        wait_for(lambda: client.get(job).json()["completed"])
        assert [each["name"] for each in client.get(f"{url}/usage").json()["budgets"]] == ["key:team"]
        assert client.get(f"{url}/usage").json()["models"][0]["calls"] == 2

        keys.remove("team")
        client.headers["x-api-key"] = Keys(sqlite).add("team")  # somebody else's, of the same name
        wait_for(lambda: client.get(f"{url}/v1/models").status_code == 200)
        assert client.get(f"{url}/usage").json() == {"models": [], "budgets": []}
        assert (client.get(job).status_code, client.delete(job).status_code) == (404, 404)


@pytest.mark.parametrize("with_key", [True, False])
def test_s17_a_run_of_a_program_is_nobodys_on_a_server(sqlite, server, with_key):
    async def work():
        return ModelResponse(status=ResponseStatus.SUCCESS, data="mine")

    headers = {"x-api-key": Keys(sqlite).add("anna")} if with_key else {}
    mine = Runs(sqlite).start(work, model="one", name="anna" if with_key else "").rpartition("/")[2]
    with running(preset("one", sqlite, server.url), store=sqlite) as url:
        assert web.get(f"{url}/runs/{mine}", headers=headers).status_code == 404
        assert web.delete(f"{url}/runs/{mine}", headers=headers).status_code == 404


# -- what goes out ----------------------------------------------------------------------------------------------------


INTERNAL = re.compile(
    r"/tmp|/home|\.db|\.py\b|sqlite|127\.0\.0\.1|llmkit\.|litellm|Error\b|Exception|object has no|argument|"
    r"keyword|api_key|api_base|[A-Z][A-Z_]+_(API_)?KEY|org-secret|sk-",
    re.IGNORECASE,
)


@pytest.mark.parametrize("protocol", [chat, polled, streamed_run, document], ids=lambda each: each.__name__)
@pytest.mark.parametrize(
    ("entry", "settings"),
    [
        (Status(401, body={"error": {"message": "Incorrect API key provided: sk-proj-1234abcd (org-secret)"}}), {}),
        (Status(403, body={"error": {"message": "org-secret has no access"}}), {}),
        (Status(404, body={"error": {"message": "org-secret has no model x"}}), {}),
        (Status(429, body={"error": {"message": "quota of org-secret", "code": "insufficient_quota"}}), {}),
        (Status(429, body={"error": {"message": "rate limit of org-secret"}}), {}),
        (Status(500, body={"error": {"message": "/home/provider/app.py failed"}}), {}),
        (Status(200, body={"choices": 5}), {}),
        (Status(200, body=b"<html>litellm</html>"), {}),
        (Drop(), {}),
        (None, {"model": "nonesuch/model", "params": {"api_base": None}}),
        (None, {"model": "local//home/me/secret.gguf", "params": {"api_base": None, "api_key": None}}),
        (None, {"params": {"api_key": "${NOT_SET_API_KEY}"}}),
        (None, {"budget": "nobody-made-this"}),
    ],
    ids=str,
)
def test_s19_no_failure_tells_of_the_inside(sqlite, server, caplog, protocol, entry, settings):
    server.script = [entry] * 2 if entry else []
    path, body = protocol()
    with running(preset("one", sqlite, server.url, retry={"tries": 1}, **settings), store=sqlite) as url:
        answer = web.post(url + path, json=body, timeout=60)
        if protocol is polled:
            job = answer.json()["url"]
            wait_for(lambda: web.get(job).json()["completed"], 60)
            answer = web.get(job)

    if protocol in {polled, streamed_run}:
        text = answer.text.replace(str(answer.json().get("url")) if protocol is polled else "\0", "")
        assert "FAILED" in text
        found = re.search(r'"error_message": ?"(.*?)"', text).group(1)
    else:
        assert answer.status_code >= 400
        found = error_of(answer)["message"]
    assert not INTERNAL.search(found), found
    assert "the server's log has more under request" in found
    assert caplog.text


def test_s19_a_store_that_cannot_be_read_tells_no_path(sqlite, server, caplog):
    key = Keys(sqlite).add("anna")
    keys = Keys(sqlite, cache_s=0.0)
    with running(preset("one", sqlite, server.url), store=sqlite, keys=keys) as url:
        assert web.get(f"{url}/usage", headers={"x-api-key": key}).status_code == 200
        sqlite.close()
        Path(sqlite.url.removeprefix("sqlite:///")).write_bytes(b"no database" * 1000)
        for suffix in ("-wal", "-shm"):
            Path(sqlite.url.removeprefix("sqlite:///") + suffix).unlink(missing_ok=True)
        for headers in ({"x-api-key": key}, {}):
            answer = web.get(f"{url}/usage", headers=headers)
            assert (answer.status_code, error_of(answer)["code"]) == (503, "store_unavailable")
            assert not INTERNAL.search(error_of(answer)["message"])
    assert "llmkit.db" in caplog.text


def test_s19_what_is_wrong_with_a_request_names_no_class_of_ours(shared):
    url, _ = shared
    for messages in ("hi", [1], [{"role": "user", "content": [1]}], [{"role": "user", "content": {}}]):
        answer = web.post(url + chat()[0], json=chat(messages=messages)[1])
        assert not re.search(r"ChatMessage|Part|instance of|pydantic", answer.text)


# -- the list ---------------------------------------------------------------------------------------------------------


def test_a_parameter_is_no_option_of_a_call():
    """But for two: tools are checked to be schemas, and `store` is taken out before."""
    both = PARAMS & (ARGUMENTS | OPTIONS | SETTINGS)
    assert both == {"tools", "store"}


def test_the_page_for_people_has_the_same_list():
    text = (Path(__file__).parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")
    section = text.partition("## What a client may set")[2].partition("\n## ")[0]
    table = {name for line in section.splitlines() if line.startswith("|") for name in re.findall(r"`(\w+)`", line)}

    assert table >= PARAMS
    assert {
        name
        for line in section.splitlines()
        if line.startswith("| only where")
        for name in re.findall(r"`(\w+)`", line)
    } == OF_THE_PRESET


def test_llmkits_own_client_says_nothing_that_is_not_in_it(url, server):
    for run in (LLM("one", url=f"{url}/runs").run, lambda *a, **k: list(LLM("one", url=f"{url}/runs").run_stream(*a))):
        run("hi", context="S", prompt="P", history=HELLO, temperature=0.5, wait_time=0.02)

    assert server.requests[0].body["messages"][-1]["content"] == "P\nhi"
