"""`llmkit import llm` and `llmkit import litellm`, on files as those programs write them."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest
from test_cli_setup import run  # noqa: F401 - a fixture

NEW = """
    CREATE TABLE messages (hash TEXT PRIMARY KEY, parent_hash TEXT, role TEXT, provider_metadata TEXT);
    CREATE TABLE parts (id INTEGER PRIMARY KEY, message_hash TEXT, position INTEGER, type TEXT, text TEXT);
    CREATE TABLE threads (id TEXT PRIMARY KEY, name TEXT, tip_message_hash TEXT, forked_from TEXT, datetime_utc TEXT);
    CREATE TABLE turns (id TEXT PRIMARY KEY, thread_id TEXT, model TEXT, datetime_utc TEXT);
    INSERT INTO messages VALUES ('s', NULL, 'system', NULL), ('u', 's', 'user', NULL), ('a', 'u', 'assistant', NULL);
    INSERT INTO parts (message_hash, position, type, text) VALUES
        ('s', 0, 'text', 'Be brief.'), ('u', 0, 'text', 'new question'), ('u', 1, 'attachment', NULL),
        ('a', 0, 'text', 'new answer');
    INSERT INTO threads VALUES ('t1', 'a thread', 'a', NULL, '2026-11-01');
    INSERT INTO turns VALUES ('r1', 't1', 'gpt-4o', '2026-11-01');
"""
OLD = """
    CREATE TABLE conversations (id TEXT PRIMARY KEY, name TEXT, model TEXT);
    CREATE TABLE responses (id TEXT PRIMARY KEY, model TEXT, prompt TEXT, system TEXT, response TEXT,
        conversation_id TEXT, datetime_utc TEXT);
    INSERT INTO conversations VALUES ('c1', 'an old one', 'gpt-4o');
    INSERT INTO responses VALUES ('1', 'gpt-4o', 'one', 'Be kind.', 'first', 'c1', '2026-01-01');
    INSERT INTO responses VALUES ('2', 'gpt-4o', 'two', NULL, 'second', 'c1', '2026-01-02');
"""
CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params: {model: azure/my-gpt, api_base: "https://x.example", api_key: os.environ/AZURE_KEY, rpm: 60}
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, api_key: sk-plain-0123456789abcdef}
    model_info: {mode: chat}
  - model_name: claude
    litellm_params: {model: anthropic/claude-sonnet-4-5, temperature: 0.2, max_retries: 1}
  - model_name: "openai/*"
    litellm_params: {model: "openai/*"}
router_settings: {num_retries: 2, timeout: 30, fallbacks: [{gpt-4o: [claude]}], routing_strategy: simple-shuffle}
litellm_settings: {max_budget: 100, budget_duration: 30d, callbacks: [x]}
general_settings: {master_key: sk-1234}
"""


@pytest.fixture
def llm(tmp_path):
    """The folder of an `llm` that has been used."""
    folder = tmp_path / "llm"
    (folder / "templates").mkdir(parents=True)
    (folder / "templates" / "translate.yaml").write_text(
        "model: quick\nsystem: Translate to ${language} for $$5.\ndefaults: {language: French}\n"
        "options: {temperature: 0}\ntools: [x]\n"
    )
    (folder / "templates" / "sum.yaml").write_text("prompt: 'Summarise: $input'\n")
    (folder / "templates" / "broken.yaml").write_text("- a list\n")
    (folder / "keys.json").write_text(json.dumps({"// Note": "x", "openai": "sk-llm-0123456789", "nonesuch": "k"}))
    (folder / "aliases.json").write_text(json.dumps({"quick": "gpt-4o-mini"}))
    with closing(sqlite3.connect(folder / "logs.db")) as database:
        database.executescript(NEW + OLD)
    return folder


def shown(run, name):  # noqa: F811
    return json.loads(run("presets", "show", name, "--json").stdout)


def test_what_llm_has_is_taken_over(run, server, llm):  # noqa: F811
    done = run("import", "llm", str(llm))
    translate = shown(run, "translate")
    sessions = {one["title"]: one["id"] for one in json.loads(run("sessions", "--json").stdout)}

    assert done.exit_code == 0
    assert translate["model"] == "openai/gpt-4o-mini"
    assert translate["system"] == "Translate to {{ language }} for $5."
    assert (translate["params"], translate["variables"]) == ({"temperature": 0}, {"language": "French"})
    assert run("keys").stdout.startswith("openai  ")
    assert run("models", "alias").stdout == "quick  openai/gpt-4o-mini\n"
    assert set(sessions) == {"a thread", "an old one"}
    old = run("sessions", "show", sessions["an old one"]).stdout
    new = run("sessions", "show", sessions["a thread"]).stdout
    assert [old.index(word) for word in ("one", "first", "two", "second")] == sorted(
        old.index(word) for word in ("one", "first", "two", "second")
    )
    assert "new question" in new
    assert "new answer" in new


def test_what_llm_has_and_llmkit_has_not_is_told(run, llm):  # noqa: F811
    told = run("import", "llm", str(llm)).stderr

    assert "template translate: not kept: tools" in told
    assert "template broken: not taken over" in told
    assert "key nonesuch: not taken over: there is no provider 'nonesuch'" in told
    assert "sk-llm" not in told


def test_a_conversation_of_llms_goes_on(run, server, llm):  # noqa: F811
    run("import", "llm", str(llm))
    begin = next(one["id"] for one in json.loads(run("sessions", "--json").stdout) if one["title"] == "a thread")

    done = run("--cid", begin, "and now?")

    assert done.exit_code == 0
    assert [message["content"] for message in server.requests[0].body["messages"]] == [
        "Be brief.",
        "new question",
        "new answer",
        "and now?",
    ]


def test_a_prompt_of_llms_is_run(run, server, llm, monkeypatch):  # noqa: F811
    run("import", "llm", str(llm))
    monkeypatch.setenv("LLMKIT_MODEL", "openai/gpt-4o")

    assert run("run", "sum", "--var", "input=a text").exit_code == 0
    assert server.requests[0].body["messages"][-1]["content"].strip() == "Summarise: a text"


def test_it_can_be_repeated(run, llm):  # noqa: F811
    run("import", "llm", str(llm))
    again = run("import", "llm", str(llm))

    assert "0 conversations" in again.stdout
    assert "is here already" in again.stdout
    assert len(json.loads(run("sessions", "--json").stdout)) == 2


@pytest.mark.parametrize("damage", ["logs.db", "keys.json"])
def test_damaged_files_of_llms_are_told(run, llm, damage):  # noqa: F811
    (llm / damage).write_text("nonsense")

    done = run("import", "llm", str(llm))

    assert damage in done.stderr
    assert "Traceback" not in done.output


def test_a_folder_that_is_not_there_is_told(run):  # noqa: F811
    done = run("import", "llm", "/nowhere")

    assert done.exit_code == 2
    assert "/nowhere: there is no such folder" in done.stderr


def test_a_config_of_litellms_becomes_presets(run, tmp_path):  # noqa: F811
    (tmp_path / "config.yaml").write_text(CONFIG)

    done = run("import", "litellm", "config.yaml")
    first, claude = shown(run, "gpt-4o"), shown(run, "claude")

    assert done.exit_code == 0
    assert first["model"] == "azure/my-gpt"
    assert first["params"] == {"api_base": "https://x.example", "api_key": "os.environ/AZURE_KEY"}
    assert first["fallbacks"] == ["gpt-4o-2", "claude"]
    assert (first["retry"]["tries"], first["timeout"], first["budget"]) == (3, 30, "litellm")
    assert first["limits"]["requests_per_minute"] == 60
    assert (claude["retry"]["tries"], claude["params"]) == (2, {"temperature": 0.2})
    assert run("presets", "check", "gpt-4o", "gpt-4o-2", "claude").exit_code == 0
    assert run("budget", "show", "litellm").stdout.startswith("litellm  0.000000")


def test_what_of_a_config_cannot_be_kept_is_told(run, tmp_path):  # noqa: F811
    (tmp_path / "config.yaml").write_text(CONFIG)

    told = run("import", "litellm", "config.yaml").stderr

    for what in ("api_key is a secret", "model_info", "openai/*: not taken over", "routing_strategy", "callbacks"):
        assert what in told
    assert "general_settings: not kept" in told
    assert "sk-plain" not in told + "".join(file.read_text() for file in tmp_path.rglob("*.yaml") if "pre" in str(file))


@pytest.mark.parametrize("text", ["", "- a\n", "model_list: 5\n", "model_list: [{model_name: x}]\n", "a: [\n"])
def test_what_is_no_config_is_told(run, tmp_path, text):  # noqa: F811
    (tmp_path / "config.yaml").write_text(text)

    done = run("import", "litellm", "config.yaml")

    assert done.exit_code == 2
    assert "config.yaml" in done.stderr


def test_a_config_with_nonsense_in_it_is_told_and_leaves_no_wrong_preset(run, tmp_path):  # noqa: F811
    (tmp_path / "config.yaml").write_text(
        "model_list:\n"
        "  - {model_name: a, litellm_params: {model: openai/gpt-4o, rpm: many}}\n"
        "  - {model_name: b, litellm_params: {model: openai/gpt-4o, timeout: [1]}}\n"
        "  - {model_name: c, litellm_params: {model: nonesuch/x}}\n"
        "router_settings: {num_retries: x, fallbacks: {a: b}}\n"
        "litellm_settings: {max_budget: lots, fallbacks: [5, {a: b}]}\n"
    )

    done = run("import", "litellm", "config.yaml")

    assert done.exit_code == 0
    assert done.stderr.count("not taken over") == 3
    assert "max_budget: not kept: 'lots' is no number" in done.stderr
    assert not list((tmp_path / "settings" / "presets").glob("*.yaml"))


@pytest.mark.parametrize(
    "text",
    [
        "prompt: 5\n",
        "system: 7\n",
        "model: [x]\n",
        "{prompt: hi $a, defaults: [a]}\n",
        "{1: 2, prompt: hi}\n",
        "options: x\n",
    ],
)
def test_a_template_of_any_kind_hides_nothing_else(run, llm, text):  # noqa: F811
    (llm / "templates" / "a-first.yaml").write_text(text)

    done = run("import", "llm", str(llm))

    assert done.exit_code == 0
    assert "template a-first: not taken over" in done.stderr
    assert "2 conversations" in done.stdout


def test_keys_and_rows_of_any_kind_hide_nothing_else(run, llm):  # noqa: F811
    keys = {"openai": 5, "groq": ["sk"], "mistral": "", "anthropic": "a b", "local": "sk", "gemini": "AIza-right-key"}
    (llm / "keys.json").write_text(json.dumps(keys))
    (llm / "aliases.json").write_text(json.dumps({"x": "", "y": 5, "ok": "gpt-4o"}))
    with closing(sqlite3.connect(llm / "logs.db")) as database, database:
        database.execute("UPDATE responses SET model = ' '")

    done = run("import", "llm", str(llm))

    assert done.exit_code == 0
    assert run("keys").stdout.startswith("gemini")
    assert len(run("keys").stdout.splitlines()) == 1
    assert run("models", "alias").stdout == "ok  openai/gpt-4o\n"
    assert "conversation c1: not taken over" in done.stderr
    assert "1 conversations" in done.stdout


@pytest.mark.parametrize("name", ["n\\0ul", "x" * 400, "$(touch x)"])
def test_a_model_name_of_any_kind_hides_nothing_else(run, tmp_path, name):  # noqa: F811
    entry = "  - {model_name: %s, litellm_params: {model: openai/gpt-4o}}\n"
    (tmp_path / "config.yaml").write_text(
        "model_list:\n" + entry % "right" + entry % f'"{name}"' + "router_settings: {1: 2, a: b}\n"
    )

    done = run("import", "litellm", "config.yaml")

    assert done.exit_code == 0
    assert "not taken over" in done.stderr
    assert [file.stem for file in (tmp_path / "settings" / "presets").glob("*.yaml")] == ["right"]


def test_a_budget_that_is_there_is_not_changed(run, tmp_path):  # noqa: F811
    run("budget", "set", "litellm", "5")
    (tmp_path / "config.yaml").write_text(CONFIG)

    assert "there is a budget litellm already" in run("import", "litellm", "config.yaml").stderr
    assert "of 5 USD" in run("budget", "show", "litellm").stdout
