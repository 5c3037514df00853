"""`llmkit presets`, `llmkit config`, `llmkit run`: what stands on stdout and stderr, and the exit code."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import jsonschema
import pytest
import yaml
from commands import MODULE
from server import ANSWER
from typer.testing import CliRunner

from llmkit import presets
from llmkit.cli import app
from llmkit.config import KEYS


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The user's own folder of settings."""
    monkeypatch.setenv("LLMKIT_CONFIG_DIR", str(tmp_path / "own"))
    (tmp_path / "own" / "presets").mkdir(parents=True)
    return tmp_path / "own"


@pytest.fixture
def run(own, server, monkeypatch):
    """Run `llmkit ARGS` in this process, with OpenAI's address pointing at the scripted server."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "k")

    def invoke(*args, stdin=""):
        done = CliRunner().invoke(app, list(args), input=stdin)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done

    return invoke


@pytest.fixture
def editor(tmp_path, monkeypatch):
    """Make the user's editor a program that writes a text over the file."""

    def make(text):
        script = tmp_path / "editor.py"
        script.write_text(f"import pathlib, sys\npathlib.Path(sys.argv[1]).write_text({text!r})\n")
        monkeypatch.delenv("VISUAL", raising=False)
        monkeypatch.setenv("EDITOR", f"{sys.executable} {script}")

    return make


def refused(done, code, *told):
    """Check that a command failed with one line on stderr and nothing on stdout."""
    assert (done.exit_code, done.stdout) == (code, "")
    assert done.stderr.startswith("llmkit: ")
    assert done.stderr.count("\n") == 1
    for text in told:
        assert text in done.stderr


def test_list_names_all_presets_and_complains_about_wrong_ones_on_stderr(run, own):
    (own / "presets" / "mine.yaml").write_text("model: openai/gpt-4o\ndescription: My own.\n")
    (own / "presets" / "wrong.yaml").write_text("modle: x\n")
    done, as_json = run("presets", "list"), run("presets", "list", "--json")
    listed = {item["name"]: item for item in json.loads(as_json.stdout)}

    assert (done.exit_code, as_json.exit_code) == (0, 0)
    rows = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert ["mine", "openai/gpt-4o", "My own."] in rows
    assert {row[0] for row in rows} == set(listed) == set(presets.names()) - {"wrong"}
    mine = {"name": "mine", "model": "openai/gpt-4o", "description": "My own.", "file": f"{own}/presets/mine.yaml"}
    assert listed["mine"] == mine
    complaint = f"llmkit: {own}/presets/wrong.yaml:1:1: unknown key 'modle'; did you mean 'model'?\n"
    assert done.stderr == as_json.stderr == complaint


def test_show_prints_what_a_preset_says_in_the_end(run, own):
    text = "extends: gpt-4o-mini\nparams: {seed: 1}\nversions: {2: {system: two}}\n"
    (own / "presets" / "mine.yaml").write_text(text)
    as_yaml, as_json = run("presets", "show", "mine").stdout, run("presets", "show", "mine@2", "--json").stdout
    for said in (yaml.safe_load(as_yaml), json.loads(as_json)):
        assert (said["model"], said["params"], said["system"]) == ("openai/gpt-4o-mini", {"seed": 1}, "two")
        assert "extends" not in said
    refused(run("presets", "show", "min"), 2, "no preset is called 'min'; did you mean", "mine")
    refused(run("presets", "show", "mine@9"), 2, "preset 'mine' has no version 9; it has: 2")


def test_explain_prints_file_and_line_of_each_value(run, own):
    path = own / "presets" / "mine.yaml"
    path.write_text("extends: gpt-4-creative-writing\nparams:\n  top_p: 0.1\n")
    rows = [line.split() for line in run("presets", "explain", "mine").stdout.splitlines()]

    assert ["params.top_p", "0.1", f"{path}:3"] in rows
    assert ["params.temperature", "0.7", f"{presets.shipped()}/gpt-4-creative-writing.yaml:6"] in rows


def test_check_is_silent_about_right_presets(run):
    done = run("presets", "check")
    number = len(presets.names())

    assert (done.exit_code, done.stdout, done.stderr) == (0, "", f"{number} of {number} presets are right\n")
    assert run("presets", "check", "local", "translate").stderr == "2 of 2 presets are right\n"


def test_check_fails_with_every_complaint_and_still_counts_the_right_ones(run, own):
    (own / "presets" / "bad.yaml").write_text("modle: x\ntimeout: -1\n")
    (own / "presets" / "broken.yaml").write_text("model: [\n")
    done = run("presets", "check")
    number = len(presets.names())

    assert done.exit_code == 1
    told = sorted(line.split(" ")[0].rpartition("/")[2] for line in done.stdout.splitlines())
    assert told == ["bad.yaml:1:1:", "bad.yaml:2:1:", "broken.yaml:2:1:"]
    assert done.stderr == f"{number - 2} of {number} presets are right\n"
    assert run("presets", "check", "local", "bad").stderr == "1 of 2 presets are right\n"
    assert run("presets", "check", str(own / "presets" / "bad.yaml")).exit_code == 1
    refused(run("presets", "check", "nosuchpreset"), 2, "no preset is called 'nosuchpreset'")


def test_new_writes_a_preset_that_can_be_used_at_once(run, own, tmp_path):
    done = run("presets", "new", "mine", "-m", "openai/gpt-4o", "--description", "yes: it's\nmine")
    path = own / "presets" / "mine.yaml"

    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{path}\n", "")
    assert presets.load("mine").as_dict()["model"] == "openai/gpt-4o"
    assert "yes: it's" in presets.load("mine").description
    assert path.read_text().startswith("# yaml-language-server: $schema=")
    assert run("presets", "new", "child", "--extends", "mine", "--folder", "presets").stdout == "presets/child.yaml\n"
    assert presets.load("child").model == "openai/gpt-4o"
    assert presets.find("child") == tmp_path / "presets" / "child.yaml"


def test_new_on_a_full_disk_leaves_nothing_in_the_way(own):
    command = shlex.join([*MODULE, "presets", "new", "mine", "-m", "openai/gpt-4o"])
    full = subprocess.run(["sh", "-c", f"ulimit -f 0; {command}"], capture_output=True, text=True, check=False)

    assert (full.returncode, full.stdout) == (2, "")
    assert full.stderr == f"llmkit: the preset '{own}/presets/mine.yaml' cannot be written: File too large\n"
    assert [*(own / "presets").iterdir()] == []


def test_new_in_a_folder_that_cannot_be_made_is_told(run, tmp_path):
    (tmp_path / "file").touch()

    told = "the preset 'file/x/mine.yaml' cannot be written: Not a directory"
    refused(run("presets", "new", "mine", "--folder", "file/x"), 2, told)


def test_new_keeps_what_is_there_and_refuses_what_is_no_name(run, own):
    (own / "presets" / "mine.yaml").write_text("system: precious\n")

    refused(run("presets", "new", "mine"), 2, "exists; llmkit presets edit mine")
    for name in ("", "a/b", "../a", "a@2", "brief.yaml"):
        refused(run("presets", "new", name), 2, f"{name!r} is no name of a preset")
    refused(run("presets", "new", "child", "--extends", "mien"), 2, "no preset is called 'mien'; did you mean mine")
    assert [path.name for path in (own / "presets").iterdir()] == ["mine.yaml"]
    assert presets.load("mine").system == "precious"


def test_edit_copies_a_shipped_preset_and_checks_what_was_written(run, own, editor):
    shipped = (presets.shipped() / "openai.yaml").read_text()
    editor("model: openai/gpt-4o\n")
    done = run("presets", "edit", "openai")

    assert (done.exit_code, done.stdout) == (0, f"{own}/presets/openai.yaml\n")
    assert presets.load("openai").model == "openai/gpt-4o"
    assert (presets.shipped() / "openai.yaml").read_text() == shipped
    editor("modle: x\n")
    refused(run("presets", "edit", "openai"), 2, f"{own}/presets/openai.yaml:1:1: unknown key 'modle'")
    editor("system: mended\n")
    assert run("presets", "edit", "openai").exit_code == 0
    assert presets.load("openai").system == "mended"


def test_edit_does_not_copy_over_a_preset_of_the_user(run, own, monkeypatch):
    (own / "presets" / "openai.yaml").write_text("system: precious\n")
    monkeypatch.setenv("EDITOR", "true")
    run("presets", "edit", str(presets.shipped() / "openai.yaml"))

    assert presets.load("openai").system == "precious"


def test_an_editor_that_fails_is_named(run, own, monkeypatch):
    (own / "presets" / "mine.yaml").write_text("system: s\n")
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "false")

    refused(run("presets", "edit", "mine"), 2, "the editor cannot be run", "set EDITOR")


def test_path_and_schema_say_where_presets_are_and_what_they_may_say(run, own):
    assert run("presets", "path", "local").stdout == f"{presets.shipped()}/local.yaml\n"
    assert run("presets", "path").stdout == f"{own}/presets\n{presets.shipped()}\n"
    schema = json.loads(run("presets", "schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["properties"].keys() >= {"model", "params", "extends", "versions", "schema"}
    assert (presets.shipped() / "preset.schema.json").read_text() == run("presets", "schema").stdout


def test_settings_are_set_read_and_unset(run, own):
    file = f"{own}/config.yaml\n"

    assert run("config", "get", "model.default_model").stdout == "\n"
    assert run("config", "set", "model.default_model", "openai/gpt-4o").stdout == file
    assert run("config", "set", "model.streaming", "yes").stdout == file
    assert run("config", "set", "model.system_message.brief", "Be brief.").stdout == file
    assert run("config", "get", "model.default_model").stdout == "openai/gpt-4o\n"
    assert run("config", "get", "model.streaming").stdout == "true\n"
    assert run("config", "get", "model.system_message").stdout == '{"brief": "Be brief."}\n'
    assert run("config", "path").stdout == file
    assert run("config", "path", "--profile", "work").stdout == f"{own}/profiles/work.yaml\n"
    for key, left in [("model.default_model", ""), ("model.system_message.brief", ""), ("model.streaming", "false")]:
        assert run("config", "unset", key).stdout == file
        assert run("config", "get", key).stdout.strip() == left


def test_list_says_where_each_setting_comes_from(run, own, monkeypatch):
    run("config", "set", "model.streaming", "true")
    monkeypatch.setenv("LLMKIT_MODEL", "openai/gpt-4o")
    rows = {line.split()[0]: line.split() for line in run("config", "list").stdout.splitlines()}

    assert rows.keys() == KEYS.keys()
    assert rows["model.default_model"][1:3] == ['"openai/gpt-4o"', "LLMKIT_MODEL"]
    assert rows["model.streaming"][1:3] == ["true", f"{own}/config.yaml"]
    assert rows["backend.persist"][1:3] == ["false", "default"]
    assert json.loads(run("config", "list", "--json").stdout)["model"]["streaming"] is True


@pytest.mark.parametrize("action", ["get", "set", "unset"])
def test_a_setting_that_does_not_exist_is_refused_with_a_near_one(run, own, action):
    args = (action, "model.defaultmodel", *(["x"] if action == "set" else []))

    refused(run("config", *args), 2, "there is no setting 'model.defaultmodel'; did you mean 'model.default_model'?")
    assert not (own / "config.yaml").exists()


def test_a_wrong_value_is_refused_and_nothing_is_written(run, own):
    refused(run("config", "set", "model.streaming", "perhaps"), 2, "must be true or false, not 'perhaps'")
    refused(run("config", "set", "model.max_submission_tokens", "many"), 2, "must be a whole number, not 'many'")
    assert not (own / "config.yaml").exists()


def test_the_file_of_settings_is_edited_and_checked(run, own, editor):
    editor("model: {streaming: true}\n")
    assert run("config", "edit").stdout == f"{own}/config.yaml\n"
    assert run("config", "get", "model.streaming").stdout == "true\n"
    editor("model:\n  streaming: perhaps\n")
    refused(run("config", "edit"), 2, f"{own}/config.yaml:2:3: model.streaming must be true or false")


def test_run_asks_what_a_template_says(run, own, server, tmp_path):
    matter = "preset: gpt-4o-mini\nvariables: {word: null, language: English}\n"
    matter += "overrides: {preset_overrides: {params: {temperature: 0}}}\n"
    (tmp_path / "explain.md").write_text(f"---\n{matter}---\nExplain {{{{ word }}}} in {{{{ language }}}}.\n")
    done = run("run", "explain.md", "--var", "word=entropy")

    assert (done.exit_code, done.stdout) == (0, f"{ANSWER}\n"), done.stderr
    body = server.requests[0].body
    assert body["messages"] == [{"role": "user", "content": "Explain entropy in English.\n"}]
    assert (body["model"], body["temperature"], body["stream"]) == ("gpt-4o-mini", 0, True)


def test_run_takes_another_preset_and_finds_templates_by_name(run, own, server):
    (own / "templates").mkdir()
    (own / "templates" / "hello.md").write_text("---\npreset: local\nname: Ada\n---\nHello {{ name }}")
    done = run("run", "hello", "-p", "gpt-4-chatbot-responses", "--var", "name=a=b", "--no-stream", "-u")

    assert (done.exit_code, done.stdout) == (0, f"{ANSWER}\n")
    assert "11 + 5 = 16 tokens" in done.stderr
    contents = [message["content"] for message in server.requests[0].body["messages"]]
    assert contents == ["You are a helpful assistant.", "Hello a=b"]
    assert "stream" not in server.requests[0].body


def test_run_asks_the_embedded_model_as_a_program(own, tmp_path):
    (tmp_path / "capital.md").write_text("What is the capital of {{ country }}?")
    command = [sys.executable, "-m", "llmkit", "run", "capital.md", "--var", "country=France", "-p", "local"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)

    assert (done.returncode, done.stderr) == (0, "")
    assert "Paris" in done.stdout


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["run", "hi.md"], "template 'hi' needs a value for the variable name"),
        (["run", "hi.md", "--var", "name"], "a variable is given as name=value, not 'name'"),
        (["run", "hi.md", "--var", "name=x", "-p", "locl"], "no preset is called 'locl'; did you mean local?"),
        (["run", "none.md"], "no template 'none.md'; looked in "),
        (["-p", "translate", "--var", "language", "hi"], "a variable is given as name=value, not 'language'"),
        (["-p", "translate", "--var", "lang=x", "hi"], "preset 'translate' has no variable 'lang'; it has: language"),
        (["--var", "language=French", "hi"], "variables belong to a preset, and none is chosen"),
        (["-p", "empty", "--var", "m=", "hi"], "model"),
    ],
)
def test_what_cannot_be_asked_is_wrong_usage(run, own, server, tmp_path, args, told):
    (tmp_path / "hi.md").write_text("Hi {{ name }}")
    (own / "presets" / "empty.yaml").write_text("model: '{{ m }}'\nvariables: {m: null}\n")

    refused(run(*args), 2, told)
    assert server.requests == []


def test_variables_of_a_preset_are_given_on_the_command_line(run, server, monkeypatch):
    monkeypatch.setenv("LLMKIT_MODEL", "openai/gpt-4o")

    assert run("-p", "translate", "--var", "language=French", "Good morning").stdout == f"{ANSWER}\n"
    assert "into French." in server.requests[0].body["messages"][0]["content"]
