"""A preset that was read before is read without pydantic and YAML; what a file says now is what is asked."""

from __future__ import annotations

import copy
import json
import os
import pickle
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pydantic
import pytest
from commands import run

from llmkit import Config, PresetError, UnknownPresetError, presets
from llmkit.presets import Preset

SLOW = ("pydantic", "yaml", "asyncio", "jinja2", "rich", "litellm", "openai", "httpx", "aiohttp", "typer")
ASK = f"""
import json, sys
from llmkit.cli import quick
from llmkit.testing import ScriptedBackend
sender = ScriptedBackend("Hello.")
try:
    quick.done(sys.argv[1:], sender=sender)
finally:
    asked = [[request.model, dict(request.params), list(request.messages)] for request in sender.requests]
    print(json.dumps([asked, [name for name in {SLOW!r} if name in sys.modules]]))
"""
PLAIN = "model: openai/gpt-4o\nsystem: Be brief.\nparams:\n  temperature: 0\n  top_k: 5\n"
FULL = """
extends: below
variables: {tone: kind, to: null}
system: 'Be ${NOT_FILLED_HERE}.'
retry: {tries: 2}
fallbacks: [openai/gpt-4o-mini]
max_rounds: 2
examples:
- {user: a, assistant: b}
versions:
  1: {params: {seed: 1}, ratio: 0.0}
  2: {params: {seed: 2}, ratio: 1.0}
"""


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    """The user's own presets; the data folder is new."""
    monkeypatch.setenv("LLMKIT_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path / "data"))
    folder = tmp_path / "config" / "presets"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "data" / "remembered"


def asked(*args, code=0, **environment):
    """Ask in a process of its own; return model, parameters and messages of the request, and what slow was imported."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, *args, "hi"],
        env={**os.environ, "PYTHONPATH": ":".join(sys.path), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    requests, slow = json.loads(done.stdout.splitlines()[-1])
    return (*requests[0], slow) if requests else (done.stderr, slow)


def files(folder):
    return sorted(path for path in folder.iterdir() if path.is_file())


def said(preset):
    """Return all that a preset says."""
    return repr(preset), preset.as_dict(), preset.set_params(), preset.retry_policy(), preset.turn_options()


def test_a_second_question_imports_neither_pydantic_nor_yaml(own):
    (own / "below.yaml").write_text(PLAIN)
    (own / "full.yaml").write_text(FULL.replace("${NOT_FILLED_HERE}", "short"))
    (own.parent / "config.yaml").write_text("model:\n  default_model: openai/gpt-4o-mini\n")

    first = asked("-p", "full", "--var", "to=Ann")
    second = asked("-p", "full", "--var", "to=Ann")

    assert first[-1] == ["pydantic", "yaml"]
    assert second == (*first[:-1], [])
    assert first[:2] == ("openai/gpt-4o", {"temperature": 0.0, "top_k": 5, "seed": 2})
    assert [message["content"] for message in first[2]] == ["Be short.", "a", "b", "hi"]


def test_the_question_is_kept_as_it_is_without_a_memory(own, tmp_path):
    (own / "plain.yaml").write_text(PLAIN + "variables: {a: b, c: d}\n")
    shown = []
    for _ in range(2):
        asked("-p", "plain", "-s", "Be long.", "--var", "c=e")
        (last,) = json.loads(run(["sessions", "list", "-l", "1", "--json"]).stdout)
        shown.append(run(["sessions", "export", last["id"], "--format", "jsonl"]).stdout)

    first, second = (json.loads(text.splitlines()[0])["session"] for text in shown)
    assert first["snapshot"] == second["snapshot"]
    assert first["snapshot"]["system"] == "Be long."
    assert first["snapshot"]["variables"] == {"a": "b", "c": "e"}
    assert first["snapshot"]["params"] == {"temperature": 0.0, "top_k": 5}


@pytest.mark.parametrize("name", ["full", "full@1", "lwe", "plain"])
def test_a_remembered_preset_is_the_same(own, name):
    (own / "plain.yaml").write_text(PLAIN)
    (own / "below.yaml").write_text(PLAIN)
    (own / "full.yaml").write_text(FULL)
    (own / "lwe.yaml").write_text(
        "metadata: {provider: chat_openai, system_message: default}\nmodel_customizations: {model_name: gpt-4o}\n"
    )

    fresh, again = presets.load(name), presets.load(name)

    assert said(again) == said(fresh)
    assert again == fresh
    assert copy.deepcopy(again) == pickle.loads(pickle.dumps(again)) == fresh
    assert (again.name, again.version, again.variables) == (fresh.name, fresh.version, fresh.variables)
    assert again.params == fresh.params
    assert again.examples == fresh.examples
    assert again.model_dump() == fresh.model_dump()
    filled = again.filled({"to": "Ann"} if "full" in name else None)
    assert said(filled) == said(fresh.filled({"to": "Ann"} if "full" in name else None))
    assert filled.snapshot() == fresh.filled({"to": "Ann"} if "full" in name else None).snapshot()
    assert said(again.changed(system="x", timeout=3.0)) == said(fresh.changed(system="x", timeout=3.0))
    for preset in (fresh, again):
        with pytest.raises(pydantic.ValidationError, match="frozen"):
            preset.model = "x"
        with pytest.raises(AttributeError):
            _ = preset.nothing


def test_a_change_of_any_file_is_seen_at_once(own):
    (own / "below.yaml").write_text(PLAIN)
    (own / "full.yaml").write_text(FULL)
    presets.load("full"), presets.load("full")

    (own / "below.yaml").write_text(PLAIN.replace("top_k: 5", "top_k: 6"))
    assert presets.load("full").set_params()["top_k"] == 6
    (own / "below.yaml").write_text(PLAIN)
    assert presets.load("full").set_params()["top_k"] == 5
    (own / "full.yaml").write_text(FULL.replace("tries: 2", "tries: 3"))
    assert presets.load("full").retry.tries == 3
    (own / "full.yaml").write_text(FULL)
    assert presets.load("full").retry.tries == 2
    assert presets.load("full").version == 2
    (own / "full.yaml").write_text(FULL.replace("0.0}", "1.0}").replace("{seed: 2}, ratio: 1.0", "{seed: 2}, ratio: 0"))
    assert presets.load("full").version == 1
    (own / "full.yaml").write_text(FULL.replace("ratio: 1.0", "ratio: 0.5"))
    with pytest.raises(PresetError, match=r"the ratios sum to 0\.5"):
        presets.load("full")
    (own / "full.yaml").write_text(FULL.replace("tries: 2", "tries: 0"))
    with pytest.raises(PresetError, match="tries: Input should be greater than or equal to 1"):
        presets.load("full")


def test_a_nearer_preset_of_the_same_name_hides_the_remembered_one(own, tmp_path, monkeypatch):
    (own / "plain.yaml").write_text(PLAIN)
    presets.load("plain"), presets.load("plain")
    nearer = tmp_path / "nearer"
    nearer.mkdir()
    (nearer / "plain.yaml").write_text(PLAIN.replace("brief", "long"))
    monkeypatch.setenv("LLMKIT_PRESETS", str(nearer))

    assert presets.load("plain").system == "Be long."


def test_equal_presets_keep_their_own_names_and_places(own):
    wrong = PLAIN + "tools: [other]\n"
    for name in ("one", "two"):
        (own / f"{name}.yaml").write_text(wrong)

    assert [presets.load(name).name for name in ("one", "two", "one")] == ["one", "two", "one"]
    assert {Path(item.place.file).stem for item in presets.explain("two")} == {"two"}
    with pytest.raises(UnknownPresetError, match="'two' has no version 3; it has: none"):
        presets.load("two@3")


def test_a_word_of_the_settings_that_a_preset_names_is_looked_up_anew(own):
    (own / "lwe.yaml").write_text("metadata: {system_message: mine}\n")
    spoken = []
    for text in ("One.", "Two."):
        settings = Config()
        settings.set("model.system_message", {"mine": text})
        settings.save()
        spoken += [presets.load("lwe").system, presets.load("lwe").system]

    assert spoken == ["One.", "One.", "Two.", "Two."]


def test_a_value_of_the_environment_is_never_remembered(own, tmp_path, kept):
    (own / "keyed.yaml").write_text(PLAIN + "  user: ${WHO}\n")
    values = ["first-of-all", "second-to-none"]

    seen = [asked("-p", "keyed", "-n", WHO=value) for value in (*values, *values)]

    assert [params["user"] for _, params, *_ in seen] == [*values, *values]
    assert [slow for *_, slow in seen] == [["pydantic", "yaml"], [], [], []]
    everything = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert b"${WHO}" in everything
    assert not [value for value in values if value.encode() in everything]
    stderr, _ = asked("-p", "keyed", "-n", code=2)
    assert "needs the environment variable WHO, which is not set" in stderr


def test_what_a_variable_brings_is_still_checked(own):
    (own / "named.yaml").write_text("model: '{{ which }}'\nvariables: {which: null}\n")
    for _ in range(2):
        with pytest.raises(PresetError, match="its variables put in: model: String should have at least 1 character"):
            presets.load("named").filled({"which": ""})
        with pytest.raises(PresetError, match="its variables put in: model: Input should be a valid string"):
            presets.load("named").filled({"which": "\udcff"})


@pytest.mark.parametrize("place", ["variables: {password: hunter2hunter2}", "system: 'the key is sk-abc123def456ghi7'"])
def test_a_secret_in_a_file_is_not_written_anywhere_else(own, kept, place):
    (own / "open.yaml").write_text(f"model: openai/gpt-4o\n{place}\n")

    assert presets.load("open") == presets.load("open")

    assert not kept.exists()


def test_the_files_are_the_users_alone(own, kept):
    (own / "plain.yaml").write_text(PLAIN)
    presets.load("plain")

    assert [stat.S_IMODE(path.stat().st_mode) for path in (kept, *files(kept))] == [0o700, 0o600, 0o600]


def _cut(path):
    path.write_bytes(path.read_bytes()[:-5])


def _lie(path):
    path.write_bytes(path.read_bytes().replace(b"Be brief.", b"Be cruel."))


def _misplace(path):
    """Put every text under the name of another file."""
    others = files(path.parent)
    path.write_bytes(others[others.index(path) - 1].read_bytes())


def _open_up(path):
    _lie(path)
    path.chmod(0o644)


def _link(path):
    target = path.with_name("elsewhere")
    path.rename(target)
    path.symlink_to(target)


def _give_away(path):
    """Let it be somebody else's, who made it say something else."""
    if os.getuid() != 0:
        pytest.skip("only root gives files away")
    _lie(path)
    os.chown(path, 65534, 65534)


def _make_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [_cut, _lie, _misplace, _open_up, _give_away, _link, _make_folder])
def test_what_the_file_says_wins_over_a_harmed_memory(own, kept, harm):
    (own / "plain.yaml").write_text(PLAIN)
    before = asked("-p", "plain", "-n")
    for path in files(kept):
        harm(path)

    assert asked("-p", "plain", "-n")[:3] == before[:3]
    if harm is not _make_folder:
        assert asked("-p", "plain", "-n")[-1] == []  # it was written anew
        assert {stat.S_IMODE(path.stat().st_mode) for path in files(kept)} == {0o600}


@pytest.mark.parametrize(
    "content", ["[]", "3", '{"None": []}', '{"None": {"values": [1], "data": {}}}', "[[1], [[1]]]"]
)
def test_a_memory_of_another_shape_is_no_memory(own, kept, content):
    import hashlib

    (own / "plain.yaml").write_text(PLAIN)
    fresh = presets.load("plain")
    for path in files(kept):  # a file that is sealed as llmkit seals it
        seal = hashlib.sha256(f"{path.name}\n{content}".encode()).hexdigest()
        path.write_text(f"{seal}\n{content}")

    assert presets.load("plain") == fresh


def test_a_home_that_cannot_be_written_is_no_error(own, tmp_path):
    (own / "plain.yaml").write_text(PLAIN)
    (tmp_path / "data").write_text("a file stands where the folder would be")

    assert asked("-p", "plain", "-n")[0] == "openai/gpt-4o"


def test_a_full_disk_is_no_error(own, kept):
    (own / "plain.yaml").write_text(PLAIN)
    full = ["bash", "-c", 'ulimit -f 0; exec "$@"', "bash", sys.executable, "-c", ASK, "-p", "plain", "-n", "hi"]

    done = subprocess.run(full, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout.splitlines()[0], done.stderr) == (0, "Hello.", "")
    assert files(kept) == []  # no half of one


def test_many_processes_at_once_leave_whole_files(own, kept):
    (own / "plain.yaml").write_text(PLAIN)
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: asked("-p", "plain", "-n"), range(12)))

    assert {json.dumps(result[:3]) for result in results} == {json.dumps(results[0][:3])}
    assert asked("-p", "plain", "-n")[-1] == []
    assert len(files(kept)) == 2


def test_the_memory_does_not_grow_without_end(own, kept):
    for number in range(130):
        (own / "plain.yaml").write_text(PLAIN.replace("top_k: 5", f"top_k: {number + 1}"))
        presets.load("plain")

    assert len(files(kept)) == 200
    assert asked("-p", "plain", "-n")[-1] == []  # the newest are there


def test_trust_is_asked_for_although_the_preset_is_remembered(own, tmp_path, monkeypatch):
    project = tmp_path / "cloned"
    (project / "presets").mkdir(parents=True)
    (project / ".git").mkdir()
    wanting = PLAIN + "  api_base: http://127.0.0.1:9/v1\n"
    (project / "presets" / "theirs.yaml").write_text(wanting)
    (own / "mine.yaml").write_text(wanting)
    asked("-p", "mine", "-n")  # the same content, trusted by its place
    monkeypatch.chdir(project)

    stderr, slow = asked("-p", "theirs", "-n", code=2)

    assert "theirs.yaml is not trusted, and it sets params.api_base" in stderr
    assert "pydantic" not in slow
    assert asked("-p", str(project / "presets" / "theirs.yaml"), "-n")[0] == "openai/gpt-4o"
    assert asked("-p", "theirs", "-n", code=2)[0] == stderr


def test_new_data_is_checked(own):
    with pytest.raises(pydantic.ValidationError, match="1 validation error for Preset\ntimeout"):
        Preset(timeout=-1)
    with pytest.raises(PresetError, match="its variables put in: timeout"):
        Preset(model="a/b").changed(timeout="long").filled()
