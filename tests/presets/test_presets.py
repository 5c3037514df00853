"""Presets, as a user writes and calls them: where they are found, what they build on, what is wrong in them."""

from __future__ import annotations

from collections import Counter

import pytest

from llmkit import presets
from llmkit.errors import ConfigError, PresetError, UnknownPresetError

VERSIONS = "system: base\nversions:\n  1: {system: one, ratio: 0.5}\n  2: {system: two, ratio: 0.5}\n  3: {ratio: 0}\n"
PARENT = """\
description: d
model: openai/gpt-4o
system: s
variables: {a: x}
params: {temperature: 0.5}
timeout: 60
retry: {tries: 2}
fallbacks: [local]
tools: ["os:getcwd"]
max_rounds: 2
schema: {type: object}
examples: [{user: u, assistant: a}]
"""


@pytest.fixture
def write(tmp_path):
    """Write a preset file, by default into the working directory's `presets/`."""

    def make(name, text, folder="presets"):
        path = tmp_path / folder / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return make


def complaint(name):
    with pytest.raises(ConfigError) as caught:
        presets.load(name).filled()
    return str(caught.value)


# -- where presets are found ------------------------------------------------------------------------------------------


def test_folders_are_searched_in_order(write, tmp_path, monkeypatch):
    inner = tmp_path / "project" / "src" / "deep"
    inner.mkdir(parents=True)
    (tmp_path / "project" / "pyproject.toml").touch()
    monkeypatch.chdir(inner)
    monkeypatch.setenv("LLMKIT_PRESETS", f"{tmp_path / 'one'}:{tmp_path / 'two'}")
    monkeypatch.setenv("LLMKIT_CONFIG_DIR", str(tmp_path / "own"))
    places = ["one", "two", "project/presets", "own/presets"]
    for folder in places:
        write("local", f"system: {folder}\n", folder)

    assert presets.folders() == [*(tmp_path / folder for folder in places), presets.shipped()]
    for folder in places:
        assert presets.load("local").system == folder
        (tmp_path / folder / "local.yaml").unlink()
    assert presets.load("local").model == "local/smollm2"


@pytest.mark.parametrize("mark", ["pyproject.toml", ".git"])
def test_presets_above_the_root_of_the_project_are_not_seen(write, tmp_path, monkeypatch, mark):
    write("stray", "system: s\n")
    (tmp_path / "project" / "src").mkdir(parents=True)
    (tmp_path / "project" / mark).touch()
    monkeypatch.chdir(tmp_path / "project" / "src")

    assert "no preset is called 'stray'" in complaint("stray")


def test_a_near_name_is_suggested_for_a_wrong_one():
    with pytest.raises(UnknownPresetError, match="no preset is called 'sumarize'; did you mean summarize"):
        presets.load("sumarize")
    assert "there are: anthropic, " in complaint("qqqqqq")


def test_a_path_is_a_preset_too(write, tmp_path):
    path = write("brief", "extends: base.yaml\n", "elsewhere")
    write("base", "system: base\n", "elsewhere")

    for name in (str(path), "elsewhere/brief.yaml"):
        assert (presets.load(name).name, presets.load(name).system) == ("brief", "base")
    assert complaint("elsewhere/none.yaml") == "no preset file elsewhere/none.yaml"


# -- what presets build on --------------------------------------------------------------------------------------------


def test_of_several_parents_the_later_one_wins_and_parameters_are_merged(write):
    write(
        "one", "model: openai/gpt-4o\nsystem: one\nparams: {temperature: 1, stop: [a, b], extra_body: {x: 1, y: 1}}\n"
    )
    write("two", "extends: one\nsystem: two\nparams: {top_p: 0.5}\n")
    write("three", "timeout: 3\nparams: {seed: 3}\n")
    write("child", "extends: [two, three]\nparams: {stop: [c], seed: 4, extra_body: {y: 2}}\n")
    child = presets.load("child")

    assert (child.model, child.system, child.timeout) == ("openai/gpt-4o", "two", 3)
    params = {"temperature": 1, "top_p": 0.5, "seed": 4, "stop": ["c"], "extra_body": {"x": 1, "y": 2}}
    assert child.set_params() == params


def test_a_preset_may_extend_the_shipped_one_that_it_hides(write):
    write("translate", "extends: translate\nvariables: {language: German}\n")

    assert "into German" in presets.load("translate").filled().system


@pytest.mark.parametrize(
    ("one", "two", "told"),
    [
        ("two", "one", "one → two → one"),
        ("one", "x", "one → one"),
        ("../presets/one.yaml", "x", "extends goes in a circle"),
    ],
)
def test_a_circle_is_named(write, one, two, told):
    write("one", f"extends: {one}\n")
    write("two", f"extends: {two}\n")

    assert told in complaint("one")


def test_a_missing_parent_is_named_where_it_is_wanted(write):
    path = write("child", "system: s\nextends: sumarize\n")

    assert complaint("child").startswith(f"{path}:2:1: extends: no preset is called 'sumarize'; did you mean summarize")


@pytest.mark.parametrize("key", [line.partition(":")[0] for line in PARENT.splitlines()])
def test_null_resets_what_a_parent_says(write, key):
    write("parent", PARENT)
    write("child", f"extends: parent\n{key}: null\n")
    write("empty", "{}")
    name = "answer_schema" if key == "schema" else key

    assert getattr(presets.load("parent"), name) != getattr(presets.load("empty"), name)
    assert getattr(presets.load("child"), name) == getattr(presets.load("empty"), name)


def test_null_resets_one_parameter(write):
    write("parent", "params: {temperature: 0.5, seed: 1}\n")
    write("child", "extends: parent\nparams: {temperature: null}\n")

    assert presets.load("child").set_params() == {"seed": 1}


# -- versions ---------------------------------------------------------------------------------------------------------


def test_a_version_is_chosen_by_its_number_or_is_the_latest(write):
    write("brief", VERSIONS)

    for chosen in (presets.load("brief", 2), presets.load("brief@2"), presets.load("presets/brief.yaml@2")):
        assert (chosen.name, chosen.system, chosen.version) == ("brief", "two", 2)
    assert presets.load("brief", "latest").version == presets.load("brief@latest").version == 3
    assert presets.load("brief", "latest").system == "base"
    assert presets.load("local").version is None


def test_versions_are_drawn_by_their_ratios(write):
    write("brief", VERSIONS)
    drawn = Counter(presets.load("brief").version for _ in range(100))

    assert set(drawn) == {1, 2}
    assert min(drawn.values()) > 15


def test_without_ratios_the_latest_version_is_used(write):
    write("brief", "versions: {2: {system: two}, 10: {system: ten}}\n")

    assert presets.load("brief").system == "ten"


@pytest.mark.parametrize(("name", "there"), [("brief@7", "1, 2, 3"), ("brief@newest", "1, 2, 3"), ("local@1", "none")])
def test_an_unknown_version_lists_those_there_are(write, name, there):
    write("brief", VERSIONS)

    assert complaint(name).endswith(f"it has: {there}")


# -- what is wrong in a file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "params:\n  api_key: sk-literal-0123456789\n",
        "params:\n  aws_secret_access_key: sk-literal-0123456789\n",
        "versions:\n  1: {params: {api_key: sk-literal-0123456789}}\n",
        "model_customizations:\n  openai_api_key: sk-literal-0123456789\n",
    ],
)
def test_a_secret_in_a_file_is_refused_and_not_repeated(write, text):
    path = write("mine", text)

    assert f"{path}:2:" in complaint("mine")
    assert "a secret never stands in a file" in complaint("mine")
    assert "literal" not in complaint("mine")


@pytest.mark.parametrize(
    ("text", "place", "told"),
    [
        ("system: s\nmodle: x\n", "2:1", "unknown key 'modle'; did you mean 'model'?"),
        ("retry:\n  trys: 2\n", "2:3", "unknown key 'retry.trys'; did you mean 'tries'?"),
        ("params:\n  temprature: 1\n", "2:3", "unknown key 'params.temprature'; did you mean 'temperature'?"),
        ("params:\n  request_timeout: 5\n", "2:3", "params.request_timeout is no parameter: say timeout"),
        ("versions:\n  1:\n    sistem: x\n", "3:5", "unknown key 'versions.1.sistem'; did you mean 'system'?"),
        ("params:\n  temperature: 99\n", "2:3", "params.temperature: Input should be less than or equal to 2, not 99"),
        ("params:\n  top_p: 2\n", "2:3", "params.top_p: Input should be less than or equal to 1, not 2"),
        ("timeout: -1\n", "1:1", "timeout: Input should be greater than 0, not -1"),
        ("timeout: soon\n", "1:1", "timeout: Input should be a valid number, not 'soon'"),
        ("retry: {tries: 0}\n", "1:9", "retry.tries: Input should be greater than or equal to 1, not 0"),
        ("model: ''\n", "1:1", "model: String should have at least 1 character"),
        ("params:\n  system: s\n", "2:3", "'system' stands beside 'params', not in it"),
        ("params:\n  model: m\n", "2:3", "'model' stands beside 'params', not in it"),
        ("examples: [{user: u}]\n", "1:1", "examples.0.assistant is missing"),
        ("versions: {one: {model: x}}\n", "1:", "versions.one: Input should be a valid integer, not 'one'"),
        ("versions:\n  1: {ratio: 0.5}\n  2: {ratio: 0.2}\n", "2:", "versions: the ratios sum to 0.7, not to 1"),
        ("extends: 5\n", "1:1", "extends must be the name of a preset or a list of names, not 5"),
        ("params:\n  seed: 1\n  seed: 2\n", "3:3", "the key 'seed' stands here for the second time"),
        ("- model\n", "1:1", "expected keys and values, found something else"),
        ("model: x\nstop: [a\nb: c\n", "3:2", "did not find expected"),
        ("model: x\n  system: s\n", "2:9", "mapping values are not allowed in this context"),
        ("name: mine\n", "1:1", "a preset's name is its file's name; leave 'name' out"),
        ("system: s\n1: x\n", "2:1", "1"),
    ],
)
def test_a_wrong_file_is_told_with_its_place_and_what_was_meant(write, text, place, told):
    path = write("mine", text)

    assert complaint("mine").startswith(f"{path}:{place}")
    assert told in complaint("mine")
    assert complaint("mine").count("\n") == 0


def test_every_fault_of_a_file_is_reported_at_once(write):
    path = write("mine", "name: x\nmodle: x\ntimeout: -1\nparams:\n  temprature: 1\n  api_key: sk-0123\n")

    assert sorted(line.split(" ")[0] for line in complaint("mine").splitlines()) == [
        f"{path}:{place}:" for place in ("1:1", "2:1", "3:1", "5:3", "6:3")
    ]


def test_a_fault_of_a_parent_is_told_at_its_place_and_other_presets_load(write):
    path = write("parent", "system: s\ntimeout: -1\n")
    write("child", "extends: parent\n")
    write("good", "system: s\n")

    assert complaint("child").startswith(f"{path}:2:1: timeout")
    assert presets.load("good").system == "s"
    assert {"parent", "child", "good", "local"} < set(presets.names())


def test_parameters_of_providers_and_words_inside_of_a_schema_are_not_slips(write):
    schema = "schema: {type: object, properties: {params: {type: object, examples: [], temprature: {}}}}\n"
    write("mine", f"params: {{top_k: 5, some_new_thing: 1, speed: 1.2}}\n{schema}")

    assert presets.load("mine").set_params() == {"top_k": 5, "some_new_thing": 1, "speed": 1.2}


# -- looking at and changing presets ----------------------------------------------------------------------------------


def test_explain_gives_the_file_and_the_line_of_every_value(write):
    parent = write("parent", "system: s\nparams:\n  seed: 1\n  top_p: 1\n")
    child = write("child", "extends: parent\n\nparams: {seed: 2}\nversions:\n  1:\n    timeout: 5\n")

    assert {item.key: (item.value, item.place.file, item.place.line) for item in presets.explain("child")} == {
        "system": ("s", str(parent), 1),
        "params.top_p": (1, str(parent), 4),
        "params.seed": (2, str(child), 3),
        "timeout": (5, str(child), 6),
    }


def test_changed_lays_values_over_a_preset_and_leaves_it_as_it_is(write):
    write("mine", "model: openai/gpt-4o\nparams: {seed: 1, top_p: 1}\nversions: {1: {system: one}}\n")
    mine = presets.load("mine")
    before = mine.as_dict()
    changes = {"params": {"seed": 2}, "timeout": 5}
    new = presets.changed(mine, changes)
    lwe = presets.changed(mine, {"model_customizations": {"temperature": 0}})

    assert (new.set_params(), new.timeout, new.system) == ({"seed": 2, "top_p": 1}, 5, "one")
    assert (new.name, new.version) == ("mine", 1)
    assert lwe.set_params() == {"temperature": 0, "seed": 1, "top_p": 1}
    assert mine.as_dict() == before
    assert changes == {"params": {"seed": 2}, "timeout": 5}
    with pytest.raises(PresetError, match="unknown key 'modle'; did you mean 'model'"):
        presets.changed(mine, {"modle": "x"})
