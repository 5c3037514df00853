"""`Config`: layers, types, profiles and files."""

from __future__ import annotations

import json

import pytest

from llmkit import Config, ConfigError
from llmkit.config import KEYS, default_choice, variable

FILE = """
model:
  default_preset: local
  streaming: true
  system_message: {pirate: Arr.}
debug: {log: {filepath: /tmp/x.log}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMKIT_CONFIG_DIR", str(tmp_path))
    return tmp_path


def test_set_over_environment_over_file_over_default(folder, monkeypatch):
    assert Config().get("model.default_preset") is None
    (folder / "config.yaml").write_text(FILE)
    settings = Config()
    assert settings.get("model.default_preset") == "local"
    assert settings.source("model.default_preset") == str(folder / "config.yaml")
    monkeypatch.setenv("LLMKIT_PRESET", "of-environment")
    assert settings.get("model.default_preset") == "of-environment"
    assert settings.source("model.default_preset") == "LLMKIT_PRESET"
    settings.set("model.default_preset", "of-code")
    assert settings.get("model.default_preset") == "of-code"
    settings.load_from_file()
    assert settings.get("model.default_preset") == "of-code"
    assert settings.get("model.streaming") is True
    settings.unset("model.streaming")
    assert settings.get("model.streaming") is False


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("model.streaming", "true", True),
        ("model.streaming", "OFF", False),
        ("model.max_submission_tokens", "100", 100),
        ("model.system_message", "{brief: Be brief.}", {"brief": "Be brief."}),
        ("directories.templates", "/a:/b", ["/a", "/b"]),
        ("database", "sqlite:///x.db", "sqlite:///x.db"),
    ],
)
def test_the_environment_is_read_by_the_type_of_the_key(folder, monkeypatch, key, text, value):
    monkeypatch.setenv(variable(key), text)

    assert Config().get(key) == value


def test_every_key_is_documented_and_has_a_variable_of_its_own():
    assert all(key.doc for key in KEYS.values())
    assert len({variable(key) for key in KEYS}) == len(KEYS)


def test_what_is_missing_is_none_whatever_stands_above_it(folder):
    settings = Config(config={"model": {"default_preset": "local"}})

    assert settings.get("a.b.c") is None
    assert settings.get("model.default_preset.name") is None
    assert settings.get("database.url.port") is None
    assert settings.get("") is None


def test_sections_and_the_whole_come_as_mappings_of_their_own(folder):
    settings = Config(config={"debug": {"log": {"enabled": True}}})

    assert settings.get("debug.log") == {"enabled": True, "filepath": None}
    whole = settings.get()
    whole["debug"]["log"]["enabled"] = False
    whole["model"]["system_message"]["x"] = "y"
    assert settings.get("debug.log.enabled") is True
    assert settings.get("model.system_message") == {}


def test_the_callers_mapping_is_left_alone(folder):
    given = {"model": {"system_message": {"a": "b"}, "default_preset": "local"}}
    before = json.dumps(given)

    settings = Config(config=given)
    settings.set("model.system_message.c", "d")

    assert json.dumps(given) == before
    assert settings.get("model.system_message") == {"a": "b", "c": "d"}
    assert settings.get("model.system_message.c") == "d"
    assert settings.system_messages()["default"] == "You are a helpful assistant."


def test_an_unknown_key_is_kept_with_a_warning_that_names_the_nearest(folder):
    with pytest.warns(UserWarning, match=r"there is no setting 'model.streming'; did you mean 'model.streaming'\?"):
        settings = Config(config={"model": {"streming": True}})

    assert settings.get("model.streming") is True
    (folder / "config.yaml").write_text("# mine\nmodel:\n  default_prest: x\n")
    with pytest.warns(UserWarning, match=r"config.yaml:3:3: there is no setting 'model.default_prest'; did you mean"):
        Config()


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("model.streaming", "yes", "model.streaming must be true or false, not 'yes'"),
        ("model.streaming", 1, "model.streaming must be true or false, not 1"),
        ("model.max_submission_tokens", True, "must be a whole number, not True"),
        ("model.max_submission_tokens", 1.5, "must be a whole number, not 1.5"),
        ("model.default_preset", 4, "must be a text, not 4"),
        ("model.system_message", {"a": 1}, "must be a mapping of texts, not {'a': 1}"),
        ("directories.templates", "x", "must be a list of texts, not 'x'"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_wherever_it_comes_from(folder, key, value, told):
    with pytest.raises(ConfigError) as caught:
        Config().set(key, value)
    assert told in str(caught.value)

    section, _, name = key.rpartition(".")
    (folder / "config.yaml").write_text(f"# a comment\n{section}: {json.dumps({name: value})}\n")
    with pytest.raises(ConfigError) as caught:
        Config()
    assert f"{folder / 'config.yaml'}:2:" in str(caught.value)
    assert told in str(caught.value)


def test_a_wrong_variable_is_named(folder, monkeypatch):
    monkeypatch.setenv("LLMKIT_MODEL_STREAMING", "perhaps")

    with pytest.raises(
        ConfigError, match=r"LLMKIT_MODEL_STREAMING: model.streaming must be true or false, not 'perhaps'"
    ):
        Config().get("model.streaming")


@pytest.mark.parametrize(
    ("text", "told"),
    [("a: [", ":1:"), ("- 1\n", "expected keys and values"), ("model: x\n", "model must be a mapping, not 'x'")],
)
def test_a_file_that_is_wrong_is_named(folder, text, told):
    (folder / "config.yaml").write_text(text)

    with pytest.raises(ConfigError) as caught:
        Config()
    assert str(folder / "config.yaml") in str(caught.value)
    assert told in str(caught.value)


def test_saving_and_reading_again_gives_the_same_for_each_profile(folder, monkeypatch):
    (folder / "config.yaml").write_text(FILE)
    settings = Config()
    settings.set("model.default_model", "openai/gpt-4o")
    assert settings.save() == folder / "config.yaml"

    again = Config()
    assert again.get() == settings.get()
    assert again.get("model.system_message") == {"pirate": "Arr."}

    other = Config(profile="work")
    assert other.get("model.default_model") is None
    other.set("model.default_preset", "review")
    assert other.save() == folder / "profiles" / "work.yaml"
    monkeypatch.setenv("LLMKIT_PROFILE", "work")
    assert Config().get("model.default_preset") == "review"
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["config.yaml", "work.yaml"]


def test_reading_makes_nothing(tmp_path):
    settings = Config(config_dir=tmp_path / "a", data_dir=tmp_path / "b")

    settings.get()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="no such file"):
        settings.load_from_file(tmp_path / "missing.yaml")


def test_another_file_can_be_read(folder, tmp_path):
    (tmp_path / "other.yaml").write_text("model: {default_preset: review}\n")
    settings = Config()

    settings.load_from_file(tmp_path / "other.yaml")

    assert settings.get("model.default_preset") == "review"


@pytest.mark.parametrize(
    ("file", "environment", "chosen"),
    [
        ("", {}, (None, None)),
        ("model: {default_preset: a}", {}, (None, "a")),
        ("model: {default_preset: a, default_model: x/y}", {}, ("x/y", None)),
        ("model: {default_model: x/y}", {"LLMKIT_PRESET": "b"}, (None, "b")),
        ("model: {default_model: x/y}", {"LLMKIT_PRESET": "b", "LLMKIT_MODEL": "e/f"}, ("e/f", None)),
    ],
)
def test_the_default_model_and_preset_of_calls(folder, monkeypatch, file, environment, chosen):
    (folder / "config.yaml").write_text(file)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert default_choice() == chosen
