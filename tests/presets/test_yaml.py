"""YAML that may come from anybody: bounded before anything is built, one line for what is wrong, none hides another."""

from __future__ import annotations

import json
import os
import time

import commands
import pytest
from typer.testing import CliRunner

import llmkit
from llmkit import Config, ConfigError, PresetError, presets
from llmkit.cli import app
from llmkit.config import yaml
from llmkit.presets import templates
from llmkit.providers import prices

BOMB = "a: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
TOO_MUCH = {
    "bomb": (BOMB, "more than 10,000 values, aliases counted"),
    "in itself": ("model: openai/gpt-4o\nparams: &p\n  extra_body: *p\n", ":3:15: 'p' stands in itself"),
    "deep": ("a: " + "[" * 100_000, ":1:67: nested more than 64 levels deep"),
    "deep by aliases": (
        "a: &a0 [x]\n" + "".join(f"b{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 80)),
        "nested more than 64 levels deep",
    ),
    "many": ("".join(f"k{n}: v\n" for n in range(6_000)), "more than 10,000 values, aliases counted"),
    "long by aliases": ("a: &a " + "x" * 300_000 + "\nb: [*a, *a, *a]\n", "more than 1 MB, aliases counted"),
    "large": ("a: " + "x" * 1_000_000, "more than 1 MB"),
    "a long number": ("a: " + "1" * 200_000, ":1:4: a number of 200000 digits"),
    "a long number of base 60": ("a: " + ":".join(["1"] * 300_000), ":1:4: a number of 599999 digits"),
}
WRONG = {
    "no text": (b"\xff\xfe\x00", ":1: this is no UTF-8 text"),
    "binary": (b"a: 1\nb: \x00\x01", ":2: a character that no YAML has"),
    "no mapping": (b"- a\n", ":1:1: expected keys and values"),
    "python": (b"a: !!python/object/apply:os.system ['touch RAN']", ":1:4: could not determine a constructor"),
    "a wrong number": (b"a: !!int x\n", ":1:4: 'x' is no int"),
    "a wrong truth": (b"a: !!bool x\n", ":1:4: 'x' is no bool"),
    "twice": (b"a: 1\na: 2\n", ":2:1: the key 'a' stands here for the second time"),
    "two documents": (b"a: 1\n---\nb: 2\n", ":2:1: "),
    "a merge of nothing": (b"<<: 5\n", ":1:5: expected a mapping"),
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The user's own folder of settings."""
    monkeypatch.setenv("LLMKIT_CONFIG_DIR", str(tmp_path / "own"))
    (tmp_path / "own" / "presets").mkdir(parents=True)
    return tmp_path / "own"


def one_line(error, told):
    text = str(error.value)
    assert "\n" not in text
    assert told in text
    assert len(text) < 400


@pytest.mark.parametrize("kind", TOO_MUCH)
def test_c2_nothing_is_built_of_too_much(own, kind):
    text, told = TOO_MUCH[kind]
    began = time.process_time()

    (own / "presets" / "p.yaml").write_text(text)
    for action, args in ((presets.load, ("p",)), (presets.check, (own / "presets" / "p.yaml",))):
        with pytest.raises(PresetError) as caught:
            action(*args)
        one_line(caught, told)
    (own / "config.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        Config()
    one_line(caught, told)
    (own / "config.yaml").unlink()
    (own / "prices.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        prices.user_prices()
    one_line(caught, told)
    (own / "t.md").write_text(f"---\n{text}\n---\nhello\n")
    with pytest.raises(ConfigError) as caught:
        templates.load(own / "t.md")
    one_line(caught, told.partition(": ")[2] if told.startswith(":") and kind != "large" else told)

    assert time.process_time() - began < 20  # the bomb took minutes


@pytest.mark.parametrize("kind", WRONG)
def test_c2_what_is_wrong_is_one_line_with_its_place(own, kind):
    content, told = WRONG[kind]
    (own / "presets" / "p.yaml").write_bytes(content)
    with pytest.raises(PresetError) as caught:
        presets.load("p")
    one_line(caught, f"{own}/presets/p.yaml{told}")
    (own / "config.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Config()
    one_line(caught, f"{own}/config.yaml{told}")
    (own / "prices.yaml").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        prices.user_prices()
    one_line(caught, f"{own}/prices.yaml{told}")


def test_c2_no_bad_file_hides_another(own):
    folder = own / "presets"
    for kind, (text, _) in TOO_MUCH.items():
        (folder / f"much {kind}.yaml").write_text(text)
    for kind, (content, _) in WRONG.items():
        (folder / f"wrong {kind}.yaml").write_bytes(content)
    (folder / "loop.yaml").symlink_to("loop.yaml")
    (folder / "gone.yaml").symlink_to("nowhere.yaml")
    (folder / "around.yaml").write_text("extends: around2\n")
    (folder / "around2.yaml").write_text("extends: around\n")
    (folder / "at@1.yaml").write_text("model: openai/gpt-4o\n")
    os.mkfifo(folder / "pipe.yaml")
    (folder / "zero.yaml").symlink_to("/dev/zero")
    (folder / "folder.yaml").mkdir()
    (folder / ".hidden.yaml").write_bytes(b"\0")
    (folder / "good.yaml").write_text("model: openai/gpt-4o\n")
    bad = len(list(folder.iterdir())) - 3  # the good one, the folder, and the hidden one

    done = {words: commands.run(["presets", *words.split()], text=None) for words in ("list", "list --json", "check")}

    number = len(set(presets.names()))
    assert (done["list"].returncode, done["check"].returncode) == (0, 1)
    assert "good  " in done["list"].stdout
    assert [item for item in json.loads(done["list --json"].stdout) if item["name"] == "good"]
    for told in (done["list"].stderr.splitlines(), done["check"].stdout.splitlines()):
        assert len(told) == bad, told
        assert not [line for line in told if str(folder) not in line or len(line) > 500]
    everything = done["list"].stderr
    for reason in (
        "loop.yaml: Too many levels of symbolic links",
        "gone.yaml: No such file",
        "at@1.yaml: a preset's name",
    ):
        assert reason in everything
    assert done["check"].stderr == f"{number - bad + 1} of {number + 1} presets are right\n"
    assert not any("Traceback" in each.stderr for each in done.values())


def test_c17_a_folder_is_no_preset(own):
    (own / "presets" / "dir.yaml").mkdir()

    with pytest.raises(llmkit.UnknownPresetError) as caught:
        presets.load("dir")
    assert "did you mean dir" not in str(caught.value)
    assert "dir" not in presets.names()


def test_c17_keys_are_merged_as_yaml_merges_them(own):
    (own / "presets" / "p.yaml").write_text(
        "model: openai/gpt-4o\n"
        "versions:\n"
        "  1: &one\n    params: &cold {temperature: 0, top_p: 1}\n    system: one\n"
        "  2:\n    <<: *one\n    system: two\n"
        "  3: {params: {<<: [*cold, {seed: 1, top_p: 0.5}], temperature: 1}}\n"
    )

    assert presets.load("p", 2).system == "two"
    assert presets.load("p", 2).set_params() == {"temperature": 0, "top_p": 1}
    assert presets.load("p", 3).set_params() == {"temperature": 1, "top_p": 1, "seed": 1}
    found = {item.key: item.place.line for item in presets.explain("p", 2)}
    assert (found["system"], found["params.top_p"]) == (8, 4)


def test_c17_a_truth_is_no_number(own):
    (own / "presets" / "p.yaml").write_text("model: openai/gpt-4o\nparams: {temperature: true, max_tokens: '5'}\n")

    with pytest.raises(PresetError) as caught:
        presets.load("p")
    first, second = str(caught.value).splitlines()
    assert "p.yaml:2:10: params.temperature: " in first
    assert first.endswith(", not True")
    assert second.endswith(", not '5'")


@pytest.mark.parametrize("number", [".inf", ".nan", "-.inf"])
def test_a_number_that_is_none_is_refused(own, number):
    (own / "presets" / "p.yaml").write_text(f"model: openai/gpt-4o\ntimeout: {number}\n")

    with pytest.raises(PresetError, match="timeout"):
        presets.load("p")


def test_a_date_is_the_text_it_is():
    assert yaml.load("a: 2024-01-01\nb: [2024-13-45]", "f").data == {"a": "2024-01-01", "b": ["2024-13-45"]}


@pytest.mark.parametrize("name", ["p.yml", "p.YAML", "p.Yml"])
def test_c_annoying_1_every_ending_of_yaml_is_found(own, name):
    (own / "presets" / name).write_text("model: openai/gpt-4o\nsystem: found\n")

    assert presets.load("p").system == "found"
    assert presets.load(str(own / "presets" / name)).system == "found"
    assert "p" in presets.names()
    assert "p  " in CliRunner().invoke(app, ["presets", "list"]).stdout
    (own / "presets" / name).write_text("modle: x\n")
    assert "did you mean 'model'" in CliRunner().invoke(app, ["presets", "check"]).stdout


def test_c_annoying_1_of_two_endings_the_usual_one_wins(own):
    for ending in ("yml", "yaml"):
        (own / "presets" / f"p.{ending}").write_text(f"system: {ending}\n")

    assert presets.load("p").system == "yaml"


def test_a_file_of_another_program_is_one_line(own):
    (own / "presets" / "ci.yaml").write_text("on: push\njobs: {a: {steps: []}}\nrun: 1\nnames: 2\nenv: {}\n")

    done = CliRunner().invoke(app, ["presets", "check"])

    (line,) = done.stdout.splitlines()
    assert line.startswith(f"{own}/presets/ci.yaml:1:1: this is no preset: ")


def test_c2_extending_too_much_is_told(own):
    folder = own / "presets"
    for number in range(30):
        (folder / f"p{number}.yaml").write_text(f"extends: [p{number + 1}, p{number + 1}]\n")
    (folder / "p30.yaml").write_text("model: openai/gpt-4o\n")
    with pytest.raises(PresetError, match="more than 64 files"):
        presets.load("p0")
    for number in range(3):
        (folder / f"q{number}.yaml").write_text("variables:\n" + "".join(f"  v{number}x{n}: 1\n" for n in range(4_900)))
    (folder / "q.yaml").write_text("extends: [q0, q1, q2]\n")
    with pytest.raises(PresetError, match="more than 10,000 values with all it extends"):
        presets.load("q")


def test_c2_a_mapping_that_is_in_itself_is_told_where_it_is_given():
    loop = {}
    loop["params"] = loop

    with pytest.raises(llmkit.LlmkitError, match="levels deep"):
        presets.changed(presets.Preset(), loop)


@pytest.mark.parametrize("name", ["~nobody-here/x.yaml", "a\0b.yaml", "x" * 5000 + "/y", "\ud800", "", "..", "."])
def test_a_name_that_is_none_is_unknown(own, name):
    with pytest.raises(llmkit.UnknownPresetError):
        presets.load(name)
    (own / "presets" / "p.yaml").write_text(f"extends: {json.dumps(name)}\n")
    with pytest.raises(PresetError):
        presets.load("p")


def test_a_folder_that_was_deleted_is_no_project(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    assert "local" in presets.names()
