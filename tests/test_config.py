"""`Config`: layers, types, profiles and files."""

from __future__ import annotations

import json
import re

import platformdirs
import pytest

from llmkit import ApiBackend, Config, ConfigError
from llmkit.config import KEYS, config_dir, data_dir, default_choice, variable
from llmkit.testing import ScriptedBackend

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


# -- what cannot be bent --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("model.streaming.x", 1, "there is no setting 'model.streaming.x', for model.streaming is one"),
        ("model", 5, "model must be a mapping of model.default_model, model.default_preset"),
        ("debug", "x", "debug must be a mapping of debug.log.enabled, debug.log.filepath"),
        ("model", {"streaming": {"x": 1}}, "model.streaming must be true or false"),
        (None, 1, "a setting has a name such as model.streaming, not None"),
        (5, 1, "a setting has a name such as model.streaming, not 5"),
        ("", 1, "a setting has a name such as model.streaming, not ''"),
        ("a..b", 1, "a setting has a name such as model.streaming, not 'a..b'"),
        ("model", {5: 1}, "a setting has a name, not 5"),
        ("model.system_message.brief", 5, "must be a mapping of texts"),
        ("mine", object(), "mine cannot be kept"),
        ("mine", {1, 2}, "mine cannot be kept"),
    ],
)
def test_c13_a_setting_that_is_none_is_refused_and_changes_nothing(folder, key, value, told):
    settings = Config()
    before = settings.get()

    with pytest.raises(ConfigError, match=re.escape(told)):
        settings.set(key, value)

    assert settings.get() == before
    settings.save()
    assert Config().get() == before


@pytest.mark.filterwarnings("ignore:.*there is no setting:UserWarning")
@pytest.mark.parametrize(("first", "second"), [("mine", "mine.own"), ("mine.own", "mine")])
def test_c13_a_setting_of_ones_own_is_not_above_another(folder, first, second):
    settings = Config()
    settings.set(first, 1)

    with pytest.raises(ConfigError, match="mine"):
        settings.set(second, 2)
    assert settings.get(first) == 1
    (folder / "config.yaml").write_text(f"{first}: 1\n{second}: 2\n")
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        Config()


@pytest.mark.parametrize("method", ["get", "unset", "source"])
def test_c13_a_name_is_a_text(folder, method):
    for wrong in (5, ("model",), b"model"):
        with pytest.raises(ConfigError, match="a setting has a name"):
            getattr(Config(), method)(wrong)


@pytest.mark.parametrize(
    "wrong", [{"config": 5}, {"config": {5: 5}}, {"config_dir": 5}, {"data_dir": 5}, {"profile": 5}]
)
def test_c13_what_makes_no_settings_is_told(folder, wrong):
    with pytest.raises(ConfigError):
        Config(**wrong)


def test_c13_a_profile_is_no_path(folder):
    with pytest.raises(ConfigError, match="a profile has a name"):
        Config(profile="../../other")


def test_c13_settings_that_are_in_themselves_are_told(folder):
    loop = {}
    loop["a"] = loop

    for action in (
        lambda: Config(config=loop),
        lambda: Config().set("mine", loop),
        lambda: Config().set("mine", [loop]),
    ):
        with pytest.raises(ConfigError):
            action()


def test_c13_a_path_is_taken_as_one(folder, tmp_path):
    settings = Config(config={"debug": {"log": {"filepath": tmp_path / "a.log"}}})
    settings.set("directories.templates", [tmp_path, "b"])
    settings.set("database", tmp_path / "c.db")
    settings.save()

    for found in (settings, Config()):
        assert found.get("debug.log.filepath") == str(tmp_path / "a.log")
        assert found.get("directories.templates") == [str(tmp_path), "b"]
        assert found.get("database") == str(tmp_path / "c.db")
    with pytest.raises(ConfigError):
        settings.set("model.default_model", tmp_path)


def test_c13_a_file_that_cannot_be_written_is_told(folder, tmp_path):
    settings = Config(config_dir=tmp_path / "a file")
    (tmp_path / "a file").write_text("")

    with pytest.raises(ConfigError, match="cannot be written"):
        settings.save()


@pytest.mark.parametrize("file", ["/dev/full", "/", "a file/log"])
def test_c13_a_log_that_cannot_be_written_is_told_before_anything_is_sent(folder, tmp_path, call, file):
    (tmp_path / "a file").write_text("")
    backend = ScriptedBackend("one")
    bot = ApiBackend(Config(config={"debug": {"log": {"enabled": True, "filepath": file}}}), backend=backend)

    answer = call(bot, "ask", "hi")

    assert (answer.success, backend.requests) == (False, [])
    assert f"debug.log.filepath: {file} cannot be written" in answer.message


@pytest.mark.parametrize("form", ["ask", "ask_stream"])
def test_c13_an_answer_is_not_lost_to_a_log_that_becomes_full(folder, tmp_path, call, form):
    log = tmp_path / "log"

    class Filling(ScriptedBackend):
        def _next(self, request):
            log.unlink()
            log.symlink_to("/dev/full")
            return super()._next(request)

    bot = ApiBackend(Config(config={"debug": {"log": {"enabled": True, "filepath": log}}}), backend=Filling("one"))

    answer = call(bot, form, "hi")

    assert (answer.success, answer.response) == (True, "one")
    assert "cannot be written (No space left on device)" in answer.message


@pytest.mark.parametrize("given", [{}, {"XDG_CONFIG_HOME": "/x/c", "XDG_DATA_HOME": "/x/d"}, {"HOME": "here"}])
def test_the_folders_are_the_platforms_usual_ones(monkeypatch, given):
    monkeypatch.setenv("HOME", "/home/anna")
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    assert config_dir() == platformdirs.user_config_path("llmkit")
    assert data_dir() == platformdirs.user_data_path("llmkit")
