"""`llmkit keys`, `models`, `doctor`, and what a mistyped command is told."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from commands import MODULE
from server import Status
from terminal import Terminal
from typer.testing import CliRunner

import llmkit
from llmkit.cli import app
from llmkit.cli.setup import doctor
from llmkit.config.credentials import StoredKeys
from llmkit.money.ledger import ledger_of
from llmkit.providers.litellm import catalogue, sdk
from llmkit.providers.model_info import full_name
from llmkit.store import opened

KEY = "sk-stored-0123456789"


@pytest.fixture
def run(server, monkeypatch, tmp_path):
    """Run `llmkit ARGS` in this process, with settings of its own and OpenAI's address at the scripted server."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    monkeypatch.setenv("LLMKIT_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.null.Keyring")

    def invoke(*args, stdin=""):
        return CliRunner().invoke(app, list(args), input=stdin)

    return invoke


class Ring:
    """A keyring."""

    def __init__(self):
        self.secrets = {}

    def get_password(self, service, name):
        return self.secrets.get((service, name))

    def set_password(self, service, name, secret):
        self.secrets[service, name] = secret

    def delete_password(self, service, name):
        del self.secrets[service, name]


# -- words that are no questions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["key"], "llmkit keys"),
        (["preset", "list"], "llmkit presets"),
        (["logs"], "llmkit sessions"),
        (["templates"], "llmkit presets"),
        (["aliases"], "llmkit models"),
        (["list"], "llmkit --help"),
    ],
)
def test_a_word_that_is_nearly_a_command_is_not_sent(run, server, words, advice):
    done = run("--debug", *words)

    assert done.exit_code == 2
    assert f"see `{advice}`, or `llmkit ask {words[0]}`" in done.stderr
    assert server.requests == []


def test_help_is_help(run, server):
    assert run("help").stdout == run("--help").stdout
    assert server.requests == []


def test_any_word_can_be_asked(run, server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")

    assert run("ask", "-m", "openai/gpt-4o", "keys").exit_code == 0
    assert run("-m", "openai/gpt-4o", "hello").exit_code == 0
    assert [request.body["messages"][0]["content"] for request in server.requests] == ["keys", "hello"]


@pytest.mark.parametrize("group", ["presets", "keys", "models", "sessions", "budget", "config", "runs", "routes"])
def test_a_group_alone_lists(run, group):
    alone, listed = run(group), run(group, "list")

    assert (alone.exit_code, alone.stdout) == (0, listed.stdout)


def test_a_mistyped_command_of_a_group_is_told_the_right_one(run):
    done = run("presets", "lst")

    assert done.exit_code == 2
    assert "Did you mean 'list'?" in done.stderr


@pytest.mark.parametrize("word", ["helo", "modle", "hello"])
def test_a_word_typed_alone_is_never_paid_for(server, word):
    access = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": "sk-x", "LLMKIT_MODEL": "openai/gpt-4o"}
    with Terminal(word, **access) as terminal:
        assert terminal.wait() == 2
    assert f"`llmkit ask {word}`" in terminal.text()
    assert server.requests == []


def test_words_without_quotes_are_told_to_have_some(run, server):
    done = run("what", "is", "this")

    assert (done.exit_code, server.requests) == (2, [])
    assert "the text has to stand in quotes" in done.stderr


def test_a_budget_says_what_it_is_and_what_it_can_be(run):
    assert "there is no budget yet" in run("budget").stderr
    assert run("budget", "set", "team", "5").stdout.startswith("team  0.000000")
    assert "it can be day, week, month, total" in run("budget", "set", "x", "1", "--period", "year").stderr


def test_a_shipped_preset_that_is_not_changed_is_not_copied(run, tmp_path, monkeypatch):
    monkeypatch.setenv("EDITOR", "true")

    done = run("presets", "edit", "translate")

    assert (done.exit_code, done.stderr) == (0, "llmkit: translate is unchanged\n")
    assert not (tmp_path / "settings" / "presets" / "translate.yaml").exists()


def test_a_default_preset_has_to_exist(run):
    assert run("config", "set", "model.default_preset", "translat").exit_code == 2
    assert run("config", "get", "model.default_preset").stdout == "\n"


def test_a_conversation_has_its_first_words_as_title(run, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    run("-m", "openai/gpt-4o", "What   is the\ncapital of France?")

    assert json.loads(run("sessions", "--json").stdout)[0]["title"] == "What is the capital of France?"


# -- keys ----------------------------------------------------------------------------------------------------------


def test_a_stored_key_is_sent_and_never_shown(run, server, tmp_path):
    stored = run("keys", "set", "openai", stdin=f"{KEY}\n")
    file = tmp_path / "settings" / "keys.json"

    assert stored.stdout == f"openai: stored in {file}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert run("keys").stdout == f"openai  {file}\n"
    assert run("-m", "openai/gpt-4o", "hi").exit_code == 0
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in "".join(run(*args).output for args in (["keys"], ["doctor", "--no-ask"], ["config", "list"]))


def test_a_variable_wins_over_a_stored_key(run, server, monkeypatch):
    run("keys", "set", "openai", stdin=KEY)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-around")

    told = run("keys", "set", "openai", stdin=KEY)
    run("-m", "openai/gpt-4o", "hi")

    assert "OPENAI_API_KEY is set, and wins over it" in told.stderr
    assert run("keys").stdout == "openai  OPENAI_API_KEY\n"
    assert server.requests[0].headers["authorization"] == "Bearer sk-around"


def test_a_stored_key_reaches_litellm_too(run, server, monkeypatch):
    monkeypatch.setenv("LLMKIT_ROUTES", "off")
    run("keys", "set", "openai", stdin=KEY)

    assert run("-m", "openai/gpt-4o", "hi").exit_code == 0
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_stored_key_is_used_by_python_both_ways(run, server, call):
    run("keys", "set", "openai", stdin=KEY)

    assert call(llmkit, "ask", "hi", model="openai/gpt-4o").text
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_refused_key_is_told_with_its_source(run, server):
    run("keys", "set", "openai", stdin=KEY)
    server.script = [Status(401, body={"error": {"message": f"Incorrect API key provided: {KEY}"}})]

    done = run("-m", "openai/gpt-4o", "hi")

    assert done.exit_code == 1
    assert "the key came from `llmkit keys`: mend it there" in done.stderr
    assert KEY not in done.output


def test_keys_are_checked_by_a_list_that_costs_nothing(run, server):
    run("keys", "set", "openai", stdin=KEY)
    server.script = [Status(200, body={"data": [{"id": "gpt-4o"}, {"id": "gpt-4o-mini"}]})]
    accepted = run("keys", "check")
    server.script = [Status(401, body={"error": {"message": "no"}})]
    refused = run("keys", "check", "openai")

    assert (accepted.exit_code, accepted.stdout) == (0, "openai: accepted, 2 models\n")
    assert (refused.exit_code, refused.stdout.splitlines()[0][:15]) == (1, "openai: refused")
    assert [request.path for request in server.requests] == ["/v1/models"] * 2


@pytest.mark.parametrize(
    ("args", "stdin", "told"),
    [
        (["set", "openai"], "", "no key was given"),
        (["set", "openai"], "two words", "spaces, control characters"),
        (["set", "openai"], "sk\x1b[31m", "spaces, control characters"),
        (["set", "opnai"], KEY, "there is no provider 'opnai'; did you mean 'openai'?"),
        (["set", "bedrock"], KEY, "bedrock wants more than a key"),
        (["set", "ollama"], KEY, "ollama needs no key"),
        (["remove", "groq"], "", "no key is stored for 'groq'"),
        (["check", "groq"], "", "llmkit keys set groq, or set GROQ_API_KEY"),
    ],
)
def test_what_is_no_key_is_told(run, args, stdin, told):
    done = run("keys", *args, stdin=stdin)

    assert told in done.output
    assert run("keys").stdout == ""


def test_a_removed_key_is_gone(run, server):
    run("keys", "set", "openai", stdin=KEY)

    assert run("keys", "remove", "openai").exit_code == 0
    assert "no key for openai: `llmkit keys set openai`, or set OPENAI_API_KEY" in run("-m", "openai/x", "hi").stderr
    assert server.requests == []


def test_a_file_that_others_can_read_is_not_used(run, server, tmp_path):
    run("keys", "set", "openai", stdin=KEY)
    (tmp_path / "settings" / "keys.json").chmod(0o644)

    done = run("-m", "openai/gpt-4o", "hi")

    assert done.exit_code == 2
    assert "nobody else can read: chmod 600" in done.stderr
    assert server.requests == []


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "[]",
            '{"openai": 5}',
            '{"openai": {"key": "x", "more": 1}}',
            '{"openai": {"variables": null, "key": "x"}}',
        ),
        *('{"openai": {"variables": [1]}}', '{"openai": {"variables": ["A"], "key": 5}}', "[" * 100_000),
    ],
    ids=len,
)
def test_a_damaged_file_is_told(tmp_path, text):
    file = tmp_path / "keys.json"
    file.write_text(text)
    file.chmod(0o600)

    with pytest.raises(llmkit.ConfigError, match="is damaged"):
        StoredKeys(file, lambda: None).of("openai")


def test_keys_that_are_set_at_the_same_time_are_all_kept(tmp_path):
    file, names = tmp_path / "keys.json", [f"provider{number}" for number in range(24)]

    with ThreadPoolExecutor(8) as pool:  # each with an object of its own, as each command has
        list(pool.map(lambda name: StoredKeys(file, lambda: None).keep(name, KEY, ["A_KEY"]), names))

    assert sorted(StoredKeys(file, lambda: None).all()) == sorted(names)


def test_a_keyring_keeps_the_key_and_the_file_only_says_so(tmp_path):
    ring = Ring()
    keys = StoredKeys(tmp_path / "keys.json", lambda: ring)

    assert keys.keep("openai", KEY, ["OPENAI_API_KEY"]) == "keyring"
    assert keys.of("openai") == KEY
    assert KEY not in keys.file.read_text()
    assert KEY not in repr(keys.all())
    keys.remove("openai")
    assert ring.secrets == {}
    assert keys.of("openai") is None


def test_a_keyring_that_is_gone_is_told(tmp_path):
    StoredKeys(tmp_path / "keys.json", Ring).keep("openai", KEY, ["OPENAI_API_KEY"])

    with pytest.raises(llmkit.ConfigError, match="llmkit keys set openai"):
        StoredKeys(tmp_path / "keys.json", lambda: None).of("openai")


class Locked(Ring):
    """A keyring that refuses."""

    def get_password(self, service, name):
        raise RuntimeError("locked")

    set_password = delete_password = get_password


def test_a_keyring_that_refuses_is_told(tmp_path):
    ring = Ring()
    StoredKeys(tmp_path / "keys.json", lambda: ring).keep("openai", KEY, ["OPENAI_API_KEY"])
    keys = StoredKeys(tmp_path / "keys.json", Locked)

    for use in (lambda: keys.of("openai"), lambda: keys.remove("openai"), lambda: keys.keep("groq", KEY, ["G"])):
        with pytest.raises(llmkit.ConfigError, match=r"keyring refuses: .*Error") as error:
            use()
        assert KEY not in str(error.value)


def test_the_key_is_typed_unseen(tmp_path):
    keyless = {"PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring", "LLMKIT_CONFIG_DIR": str(tmp_path)}
    with Terminal("keys", "set", "openai", **keyless) as terminal:
        terminal.wait_for("it is not shown")
        terminal.type(f"{KEY}\r")
        assert terminal.wait() == 0

    assert KEY not in terminal.text()
    assert json.loads((tmp_path / "keys.json").read_text())["openai"]["key"] == KEY


# -- models --------------------------------------------------------------------------------------------------------


def test_models_of_ones_own_machine_need_no_key(run):
    heading, *lines = run("models", "ollama/llama3").stdout.splitlines()

    assert lines
    assert {line[heading.index("key") :].split()[0] for line in lines} == {"none"}


def test_models_are_found_by_words_and_abilities(run, monkeypatch):
    monkeypatch.setenv("GROQ_API_KEY", "gsk")
    lines = run("models", "gpt-4o-mini", "tools").stdout.splitlines()
    shown = json.loads(run("models", "show", "gpt-4o-mini", "--json").stdout)
    usable = json.loads(run("models", "--json").stdout)

    assert lines[0].split() == ["model", "window", "$/M", "in", "$/M", "out", "key", "abilities"]
    assert next(line for line in lines if line.startswith("openai/gpt-4o-mini ")).split()[1:5] == [
        "128k",
        "0.15",
        "0.6",
        "no",
    ]
    assert (shown["name"], shown["input_usd"], shown["key"]) == ("openai/gpt-4o-mini", 0.15, "missing")
    assert {model["name"].partition("/")[0] for model in usable} == {"groq", "local"}


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("gpt4o", "openai/gpt-4o"),
        ("opnai/gpt-4o", "openai/gpt-4o"),
        ("antropic/claude", "anthropic/claude"),
        ("openai/gpt-4o-minni", "openai/gpt-4o-mini"),
    ],
)
def test_a_mistyped_model_is_told_the_nearest(run, name, meant):
    done = run("models", "show", name)

    assert done.exit_code == 2
    assert f"did you mean {meant}" in done.stderr


def test_what_nobody_knows_of_a_model_is_not_quoted_as_nothing(run):
    quoted = run("quote", "-m", "openai/nobody-knows", "hi").stdout

    assert "unknown window, may fit; answer of unknown length\n" in quoted


@pytest.mark.parametrize("name", ["opnai/gpt-4o", "gpt4o"])
def test_a_call_of_a_mistyped_model_is_told_the_nearest(call, name):
    with pytest.raises(llmkit.UnknownProviderError, match="did you mean openai/gpt-4o"):
        call(llmkit, "ask", "hi", model=name)


def test_commands_at_once_lose_no_setting_of_one_another(run, monkeypatch):
    made = [subprocess.Popen([*MODULE, "models", "alias", f"q{number}.x", "openai/gpt-4o"]) for number in range(6)]
    assert [process.wait(60) for process in made] == [0] * 6

    assert run("models", "alias").stdout.count("openai/gpt-4o") == 6
    assert run("models", "unalias", "q3.x").exit_code == 0
    assert "q3.x" not in run("models", "alias").stdout


def test_an_alias_is_a_model_everywhere(run, server, call, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    assert run("models", "alias", "quick", "gpt-4o-mini").exit_code == 0

    run("-m", "quick", "hi")
    call(llmkit, "ask", "hi", model="quick")

    assert run("models", "alias").stdout == "quick  openai/gpt-4o-mini\n"
    assert [request.body["model"] for request in server.requests] == ["gpt-4o-mini"] * 2
    assert run("models", "unalias", "quick").exit_code == 0
    assert run("models", "alias").stdout == ""


@pytest.mark.parametrize("name", ["a/b", "-m", "two words", "line\nbreak", "x" * 61, ""])
def test_what_is_no_short_name_is_refused(run, name):
    assert run("models", "alias", "--", name, "openai/gpt-4o").exit_code == 2
    assert run("models", "alias").stdout == ""


def test_a_short_name_with_a_dot_can_be_removed(run):
    run("models", "alias", "a.b", "openai/gpt-4o")

    assert run("models", "unalias", "a.b").exit_code == 0
    assert run("models", "alias").stdout == ""


def test_a_model_without_a_name_is_no_default(run):
    assert run("models", "default", "openai/").exit_code == 2
    assert run("models", "--does", "nonsense").exit_code == 2


def test_the_default_model_can_be_chosen(run, server, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")

    assert run("models", "default").stdout == "local/smollm2\n"
    assert run("models", "default", "gpt-4o").stdout == "openai/gpt-4o\n"
    assert run("models", "default", "gpt4o").exit_code == 2
    run("hi")
    assert server.requests[0].body["model"] == "gpt-4o"


def test_one_model_has_one_name_in_the_ledger(run, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    for model in ("gpt-4o", "openai/gpt-4o", "openai:gpt-4o"):
        run("-m", model, "hi")
    ledger_of(opened()).flush()

    assert [line["model"] for line in json.loads(run("usage", "--json").stdout)] == ["openai/gpt-4o"]


def test_bare_names_mean_what_they_mean_to_litellm():
    litellm = sdk.load()
    bare = [name.partition("/")[2] for name in catalogue.models() if name.startswith(("openai/", "anthropic/"))]
    named = {name: full_name(name) for name in bare if "/" not in name}
    ours = {name: full.partition("/")[0] for name, full in named.items() if "/" in full and sdk.is_known(name)}

    assert len(ours) > 100
    assert ours == {name: litellm.get_llm_provider(name)[1] for name in ours}


def test_listed_models_are_reached_by_their_names():
    litellm = sdk.load()
    apart = {"github_copilot", "chatgpt", "local", "ai21"}  # the first two log in as they are looked up
    names = [name for name in catalogue.models() if name.partition("/")[0] not in apart]
    wrong = [name for name in names if litellm.get_llm_provider(name)[1] != name.partition("/")[0]]

    assert len(names) > 3000
    assert wrong == ["azure/mistral-large-latest"]  # LiteLLM takes it for OpenAI's


# -- doctor --------------------------------------------------------------------------------------------------------


def test_the_doctor_says_what_there_is(run, tmp_path):
    run("keys", "set", "groq", stdin="gsk")
    done = run("doctor")
    found = {line["what"]: line for line in json.loads(run("doctor", "--no-ask", "--json").stdout)}

    assert done.exit_code == 0
    assert "embedded model  answers" in done.stdout
    assert found["litellm"]["state"] == "ok"
    assert found["key"]["text"] == f"groq: {tmp_path / 'settings' / 'keys.json'}"
    assert found["store"]["text"].endswith("0 conversations")


def test_the_doctor_finds_what_is_wrong(run, tmp_path):
    run("keys", "set", "groq", stdin="gsk")
    (tmp_path / "settings" / "keys.json").chmod(0o640)
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "bad.yaml").write_text("modle: x\n")

    done = run("doctor", "--no-ask")

    assert done.exit_code == 1
    assert "others can read" in done.stdout
    assert "did you mean 'model'" in done.stdout


@pytest.mark.parametrize(
    ("installed", "told"),
    [
        ("", "is not installed"),
        ("1.82.7", "compromised release"),
        ("1.82.8", "compromised release"),
        ("1.90.0", "older than llmkit needs"),
    ],
)
def test_the_doctor_knows_releases_of_litellm_that_must_not_stay(installed, told):
    finding = doctor.litellm_finding(installed)

    assert finding.state == "WRONG"
    assert told in finding.text


def test_the_doctor_finds_what_they_left(tmp_path):
    (tmp_path / "litellm_init.pth").touch()

    assert doctor.stealers(["/nowhere", str(tmp_path)]) == [tmp_path / "litellm_init.pth"]
    assert doctor.stealers([os.devnull]) == []
