"""No key stands in a repr, a snapshot, a store, a trace, an export or an error, whoever gave it and however."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys

import commands
import pytest
from server import Status

import llmkit
from llmkit import ApiBackend, ChatModel, Config, Deployment, InvalidRequestError, Ledger, MultiAIClient, presets
from llmkit.config.secrets import masked, redact
from llmkit.presets import Preset
from llmkit.providers.debug_log import with_log
from llmkit.store import Store
from llmkit.testing import ScriptedBackend, reply

KEYS = {
    "openai": "sk-proj-A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6",
    "anthropic": "sk-ant-api03-A1b2C3d4-E5f6G7h8_I9j0K1l2M3n4",
    "openrouter": "sk-or-v1-0123456789abcdef0123456789abcdef",
    "google": "AIzaSyA1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6Q",
    "google token": "ya29.a0AfH6SMBx1234567890abcdefghij",
    "groq": "gsk_A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6",
    "xai": "xai-A1b2C3d4E5f6G7h8I9j0K1l2M3n4O5p6",
    "perplexity": "pplx-A1b2C3d4E5f6G7h8I9j0K1l2M3n4",
    "hugging face": "hf_AbCdEfGhIjKlMnOpQrStUvWxYzAbCdEfGh",
    "replicate": "r8_A1b2C3d4E5f6G7h8I9j0K1l2M3n4",
    "fireworks": "fw_A1b2C3d4E5f6G7h8I9j0K1l2",
    "nvidia": "nvapi-A1b2C3d4E5f6G7h8I9j0K1l2M3n4",
    "cerebras": "csk-a1b2c3d4e5f6g7h8i9j0k1l2m3n4",
    "aws id": "AKIAIOSFODNN7EXAMPLE",
    "aws secret": "wJalrXUtnFEMI+K7MDENG+bPxRfiCYEXAMPLEKEY",
    "azure": "0123456789abcdef0123456789abcdef",
    "azure token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "mistral": "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeF",
    "scaleway": "11111111-2222-3333-4444-555555555555",
    "practicus": "a.plain-password-without-digits",
}
PLACES = {
    "api_key": lambda key: {"api_key": key},
    "Authorization": lambda key: {"extra_headers": {"Authorization": f"Bearer {key}"}},
    "x-api-key": lambda key: {"extra_headers": {"x-api-key": key}},
    "api-key in a list": lambda key: {"extra_body": {"headers": [{"api-key": key}]}},
    "aws_secret_access_key": lambda key: {"aws_access_key_id": "AKIAIOSFODNN7EXAMPLE", "aws_secret_access_key": key},
    "aws_session_token": lambda key: {"aws_session_token": key},
    "azure_ad_token": lambda key: {"azure_ad_token": key},
    "user info": lambda key: {"api_base": f"https://user:{key}@host.example/v1"},
    "user": lambda key: {"api_base": f"https://{key}@host.example/v1"},
    "query": lambda key: {"api_base": f"https://host.example/v1?a=b&key={key}"},
    "query api-key": lambda key: {"base_url": f"https://host.example/v1?api-key={key}"},
    "vertex": lambda key: {"vertex_credentials": json.dumps({"type": "x", "private_key": _pem(key)})},
    "vertex, nested": lambda key: {"vertex_credentials": {"private_key": _pem(key)}},
}


def _pem(key):
    return f"-----BEGIN PRIVATE KEY-----\n{key.replace('-', '')}\n-----END PRIVATE KEY-----\n"


@pytest.fixture(autouse=True)
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LLMKIT_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment-1234567890")
    return tmp_path / "data"


def seen(key, *texts):
    """Return whether a key, or what it is without marks, stands in one of the texts."""
    return any(part in str(text) for text in texts for part in {key, key.replace("-", "")})


def everything(folder):
    """Return all that stands in the files of a folder."""
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file()).decode(errors="replace")


def logged(tmp_path, *script):
    """A scripted backend, and the same with a trace of what it does."""
    config = Config(config={"debug": {"log": {"enabled": True, "filepath": str(tmp_path / "trace.log")}}})
    backend = ScriptedBackend(*script)
    return backend, with_log(backend, config)


@pytest.mark.parametrize("place", PLACES)
def test_s8_a_key_in_a_preset_is_nowhere_to_be_seen(tmp_path, place, recwarn):
    store, shown = Store(tmp_path / "s.db"), []
    for key in KEYS.values():
        tool = {"type": "mcp", "headers": {"api-key": key}}
        preset = Preset(name="x", model="openai/gpt-4o", params=PLACES[place](key), tools=[tool])
        backend, watched = logged(tmp_path, "hello", llmkit.AuthenticationError("no"))
        chat = ChatModel(preset, store=store, backend=watched)
        chat.add_messages([{"role": "user", "content": "hi"}])
        chat.run()
        chat.add_messages([{"role": "user", "content": "hi"}])
        failed = chat.run()
        fork = chat.fork()

        assert len(backend.requests) == 2
        objects = (preset, preset.params, preset.filled(), chat, fork.preset, chat.info, chat.get_config(), failed)
        shown += [*map(repr, objects), str(preset), repr(backend.requests)]
        shown += [chat.export(form) for form in ("md", "json", "jsonl")]
    store.close()

    shown += [str(warning.message) for warning in recwarn]
    assert "does not keep" in shown[-1]
    assert "hello" in (tmp_path / "trace.log").read_text()
    written = everything(tmp_path)
    assert not [key for key in KEYS.values() if seen(key, written, *shown)]


@pytest.mark.parametrize("place", PLACES)
def test_a_key_in_a_call_or_a_deployment_is_nowhere_to_be_seen(tmp_path, place):
    store, shown = Store(tmp_path / "s.db"), []
    ledger = Ledger(store.url)
    for key in KEYS.values():
        params = PLACES[place](key)
        backend, watched = logged(tmp_path, *["hello"] * 3)
        deployment = Deployment("m", "openai", "gpt-4o", endpoint=params.pop("api_base", ""), **params)
        client = MultiAIClient({"m": [deployment]}, backend=watched, ledger=ledger)
        answered = client.invoke("hi", "m")
        whole = PLACES[place](key)
        asked = llmkit.ask("hi", model="openai/gpt-4o", ledger=ledger, backend=watched, **whole)
        chat = ChatModel(Preset(model="openai/gpt-4o"), store=store, backend=watched, api_key=key)
        chat.add_messages([{"role": "user", "content": "hi"}])
        chat.run(**whole)

        assert len(backend.requests) == 3
        shown += [
            *map(repr, (deployment, client, client.resolve("m"), answered, asked, backend.requests)),
            chat.export(),
        ]
    ledger.flush()
    store.close()

    written = everything(tmp_path)
    assert not [key for key in KEYS.values() if seen(key, written, *shown)]


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
@pytest.mark.parametrize("how", ["key", "environment", "header"])
def test_a_key_that_a_provider_repeats_is_in_no_error(server, tmp_path, monkeypatch, key, how):
    server.script = [Status(401, body={"error": {"message": f"wrong: {key!r} Bearer {key} api_key={key}"}})] * 2
    given = {"api_key": key} if how == "key" else {}
    given |= {"extra_headers": {"X-Api-Key": key}} if how == "header" else {}
    if how == "environment":
        monkeypatch.setenv("OPENAI_API_KEY", key)
    store = Store(tmp_path / "s.db")

    with pytest.raises(llmkit.AuthenticationError) as caught:
        llmkit.ask("hi", model="openai/gpt-4o", api_base=f"{server.url}/v1", ledger=Ledger(store.url), **given)
    with pytest.raises(llmkit.AuthenticationError) as awaited:
        asyncio.run(llmkit.aask("hi", model="openai/gpt-4o", api_base=f"{server.url}/v1", **given))
    store.close()

    assert not seen(key, caught.value, repr(caught.value), awaited.value, everything(tmp_path))


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_key_that_is_written_with_a_slip_is_not_repeated(key, tmp_path):
    for wrong in ({"parms": {"api_key": key}}, {"params": {"api_key": [key]}}, {"tools": {"authorization": key}}):
        with pytest.raises(ValueError, match="validation error") as caught:
            Preset(**wrong)
        assert not seen(key, caught.value)
    preset = Preset(model="openai/gpt-4o")
    for changes in (
        {"params": {"api_key": [key]}},
        {"params": {"temprature": {"api_key": key}}},
        {"tools": {"secret": key}},
    ):
        with pytest.raises(llmkit.PresetError) as caught:
            presets.changed(preset, changes)
        assert not seen(key, caught.value)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_a_job_keeps_no_key(tmp_path, key):
    from llmkit import LLM

    store = Store(tmp_path / "s.db")
    llm = LLM("openai/gpt-4o", api_key=key, store=store, backend=ScriptedBackend(reply("hello")))
    begun = llm.run_async("hi", parameters={"extra_headers": {"api-key": key}})
    done = llm.sync_poll(begun.url, timeout=20, wait_time=0.02)
    store.close()

    assert done.completed
    assert not seen(key, repr(begun), repr(done), repr(llm), everything(tmp_path))


# -- what is kept instead -------------------------------------------------------------------------------------------


def kept(tmp_path):
    """The snapshots in the store of the commands."""
    store = Store(tmp_path / "data" / "llmkit.db")
    found = [info.snapshot for info in store.sessions()]
    store.close()
    return found


def test_s8_a_snapshot_keeps_the_name_of_a_variable(tmp_path, server, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEYS["openai"])
    monkeypatch.setenv("MY_BASE", f"{server.url}/v1")
    monkeypatch.setenv("LLMKIT_PRESETS", str(tmp_path))
    params = {"api_key": "${MY_KEY}", "api_base": "${MY_BASE}", "extra_headers": {"Authorization": "Bearer ${MY_KEY}"}}
    (tmp_path / "p.yaml").write_text(
        f"model: openai/gpt-4o\nsystem: '{{{{ who }}}}'\nvariables: {{who: null}}\nparams: {json.dumps(params)}\n"
    )

    done = commands.run(["-p", "p", "--var", "who=me", "hi"])

    assert (done.returncode, done.stderr) == (0, "")
    (snapshot,) = kept(tmp_path)
    assert snapshot["params"] == params
    assert snapshot["variables"] == {"who": "me"}
    assert KEYS["openai"] not in everything(tmp_path)
    again = commands.run(["-c", "hi"])
    assert (again.returncode, again.stderr) == (0, "")
    assert [request.headers["authorization"] for request in server.requests] == [f"Bearer {KEYS['openai']}"] * 2
    assert [request.body["messages"][0]["content"] for request in server.requests] == ["me", "me"]


def test_s8_a_default_preset_below_another_keeps_its_variables_names(tmp_path, server, monkeypatch):
    monkeypatch.setenv("MY_KEY", KEYS["openai"])
    monkeypatch.setenv("LLMKIT_PRESET", str(tmp_path / "p.yaml"))
    (tmp_path / "p.yaml").write_text(
        f"model: openai/gpt-4o\nparams: {{api_key: '${{MY_KEY}}', api_base: '{server.url}/v1'}}\n"
    )

    chat = ChatModel("summarize")
    chat.add_messages([{"role": "user", "content": "hi"}])

    assert chat.run().error_log is None
    assert chat.info.snapshot["params"]["api_key"] == "${MY_KEY}"
    assert server.requests[0].headers["authorization"] == f"Bearer {KEYS['openai']}"


def test_s8_a_literal_secret_is_dropped_with_a_warning_and_the_environment_takes_its_place(tmp_path, server):
    params = {"api_key": KEYS["openai"], "api_base": f"{server.url}/v1", "temperature": 0.5}
    preset = Preset(name="x", model="openai/gpt-4o", params=params)
    with pytest.warns(UserWarning, match=r"the session does not keep params\.api_key, a secret"):
        chat = ChatModel(preset, store=tmp_path / "s.db")
    chat.add_messages([{"role": "user", "content": "hi"}])
    chat.run()

    again = ChatModel("x", chat.session_uuid, store=tmp_path / "s.db")
    again.add_messages([{"role": "user", "content": "hi"}])
    again.run()

    assert again.info.snapshot["params"] == {"api_base": f"{server.url}/v1", "temperature": 0.5}
    keys = [request.headers["authorization"].removeprefix("Bearer ") for request in server.requests]
    assert keys == [KEYS["openai"], "sk-of-the-environment-1234567890"]
    assert again.get_config().version_uuid == chat.get_config().version_uuid


def test_s8_a_conversation_of_the_backend_says_what_its_store_does_not_keep(tmp_path, data):
    config = Config(config={"backend": {"persist": True}})
    bot = ApiBackend(config, backend=ScriptedBackend("one", "two"))
    (tmp_path / "p.yaml").write_text("model: openai/gpt-4o\n")
    overrides = {"params": {"api_key": KEYS["openai"], "api_base": f"https://u:{KEYS['azure']}@host.example/v1"}}

    first = bot.ask("hi", {"preset": str(tmp_path / "p.yaml"), "preset_overrides": overrides})
    second = bot.ask("hi")

    assert "the store does not keep params.api_key, a secret" in first.message
    assert "does not keep" not in second.message
    (snapshot,) = kept(tmp_path)
    assert snapshot["params"] == {"api_base": "https://host.example/v1"}
    assert not seen(KEYS["azure"], everything(data))


@pytest.mark.parametrize("place", PLACES)
def test_a_secret_is_refused_in_a_file_and_a_reference_is_not(tmp_path, place):
    path = tmp_path / "p.yaml"
    for key in KEYS.values():
        path.write_text(json.dumps({"model": "openai/gpt-4o", "params": PLACES[place](key)}))
        with pytest.raises(llmkit.PresetError, match="a secret never stands in a file") as caught:
            presets.check(path)
        assert not seen(key, caught.value)

    if "vertex" in place:
        return
    reference = json.dumps(PLACES[place]("${KEY}")).replace("AKIAIOSFODNN7EXAMPLE", "${ID}")
    path.write_text(f'{{"model": "openai/gpt-4o", "params": {reference}}}')
    presets.check(path)


def test_settings_are_listed_without_the_password_of_the_database(tmp_path):
    url = f"postgresql://me:{KEYS['azure']}@host/db"
    commands.run(["config", "set", "database", url])
    listed = [
        subprocess.run(
            [sys.executable, "-m", "llmkit", "config", "list", *form], check=True, capture_output=True, text=True
        )
        for form in ([], ["--json"])
    ]

    assert not seen(KEYS["azure"], *(done.stdout for done in listed))


# -- texts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Incorrect API key provided: sk-proj-****c123. You can", None),
        ("Incorrect API key provided: sk-abcdef1234567890. You can", "Incorrect API key provided: sk-[key]. You can"),
        ("Bearer authentication required, no api key given", None),
        ("Invalid token: unexpected character", None),
        ("API key: not provided", None),
        ("use scikit sk-learn-something and task-oriented-2024", None),
        ("total_tokens: 12345678, max_tokens=12345678", None),
        ("password: hunter22hunter", "password: [key]"),
        ('{"api-key": "abcdefghijkl"}', '{"api-key": "[key]"}'),
        ("https://user:pass@host/v1?key=x&a=b", "https://[key]@host/v1?key=[key]&a=b"),
        ("https://host/v1?max_tokens=5", None),
    ],
)
def test_u6_a_word_is_not_taken_for_a_secret(text, left):
    assert redact(text) == (text if left is None else left)


def test_u6_the_first_error_of_a_beginner_can_be_read(server):
    server.script = [Status(401, body={"error": {"message": "Incorrect API key provided: sk-proj-****c123."}})]

    with pytest.raises(llmkit.AuthenticationError, match=r"Incorrect API key provided: sk-proj-\*\*\*\*c123\."):
        llmkit.ask("hi", model="openai/gpt-4o", api_base=f"{server.url}/v1")


def test_long_texts_are_looked_through_at_once():
    for text in (
        "://",
        "://a",
        "sk-a-",
        "api_key=",
        "eyJ",
        "eyJa.",
        "Bearer a",
        "?key=",
        "-----BEGIN PRIVATE KEY-----",
    ):
        assert redact(text * 40_000)
        assert redact(text + "a" * 300_000)


def test_a_reference_is_shown():
    said = {
        "api_key": "${A}",
        "Authorization": "Bearer ${A}",
        "api_base": "https://${U}:${P}@h",
        "other": "os.environ/A",
    }

    assert masked(said) == said
    assert masked({"prompt_cache_key": "a", "max_tokens": 5}) == {"prompt_cache_key": "a", "max_tokens": 5}


@pytest.mark.parametrize("wrong", [None, 5, ["x"], b"x"])
def test_a_session_is_made_with_a_name(wrong, tmp_path):
    with pytest.raises(InvalidRequestError, match="Preset, not"):
        ChatModel(wrong, store=tmp_path / "s.db")
