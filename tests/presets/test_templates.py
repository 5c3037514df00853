"""Texts with variables, in presets and in prompt files."""

from __future__ import annotations

from pathlib import Path

import pytest

import llmkit
from llmkit import presets
from llmkit.errors import ConfigError, PresetError
from llmkit.presets import templates
from llmkit.testing import ScriptedBackend


@pytest.fixture
def write(tmp_path):
    """Write a preset file into the working directory's `presets/`."""

    def make(name, text):
        path = tmp_path / "presets" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    return make


@pytest.fixture
def template(tmp_path):
    """Write a prompt file and read it."""

    def make(text):
        (tmp_path / "explain.md").write_text(text)
        return templates.load("explain.md")

    return make


def complaint(action, *args):
    with pytest.raises(ConfigError) as caught:
        action(*args)
    return str(caught.value)


def sent(preset, **options):
    """Ask a scripted model with a preset; return the request."""
    backend = ScriptedBackend("ok")
    llmkit.ask("Hi", preset=preset, backend=backend, **options)
    return backend.requests[0]


# -- variables of presets ----------------------------------------------------------------------------------


def test_variables_have_defaults_and_can_be_given(write):
    write("say", "system: '{{ word }} in {{ language }}'\nvariables: {word: null, language: English}\n")

    assert sent("say", variables={"word": "Tee"}).messages[0]["content"] == "Tee in English"
    assert presets.load("say").filled({"word": "Tee", "language": "German"}).system == "Tee in German"
    assert complaint(presets.load("say").filled) == "preset 'say' needs a value for the variable word"
    with pytest.raises(PresetError, match="preset 'say' has no variable 'lang'; it has: word, language"):
        presets.load("say").filled({"lang": "x"})


def test_a_value_is_taken_as_it_is(write, monkeypatch):
    monkeypatch.setenv("HIDDEN", "of the environment")
    write("say", "system: '{{ a }}'\nvariables: {a: null, b: b}\nparams: {user: '{{ a }}'}\n")

    for value in ("{{ b }}", "{% for x in y %}", "${HIDDEN}", "os.environ/HIDDEN"):
        request = sent(presets.load("say").filled({"a": value}), model="openai/gpt-4o")
        assert (request.messages[0]["content"], request.params["user"]) == (value, value)


def test_a_value_that_makes_the_preset_wrong_is_an_error_of_llmkit(write):
    write("say", "model: '{{ m }}'\nvariables: {m: null}\n")

    with pytest.raises(llmkit.LlmkitError, match="model"):
        presets.load("say").filled({"m": ""})


@pytest.mark.parametrize("reference", ["${SOME_KEY}", "os.environ/SOME_KEY"])
def test_the_environment_is_read_when_a_preset_is_used(write, monkeypatch, reference):
    write("mine", f"model: openai/gpt-4o\nparams: {{api_key: '{reference}', user: '{reference}'}}\n")

    assert presets.load("mine").params.user == reference
    assert (
        complaint(presets.load("mine").filled)
        == "preset 'mine' needs the environment variable SOME_KEY, which is not set"
    )
    monkeypatch.setenv("SOME_KEY", "sk-from-environment")
    request = sent("mine")
    assert (request.api_key, request.params) == ("sk-from-environment", {"user": "sk-from-environment"})


def test_braces_in_a_system_text_that_are_no_variable_stay(write, monkeypatch):
    monkeypatch.setenv("HOME", "/home/of/user")
    write("say", "system: 'Write ${HOME} and {x: 1} and { { a } } and os.environ/HOME.'\n")

    assert sent("say", model="openai/gpt-4o").messages[0]["content"] == (
        "Write ${HOME} and {x: 1} and { { a } } and os.environ/HOME."
    )


# -- prompt files -----------------------------------------------------------------------------------------------------

FULL = """\
---
description: Explain a word.
preset: brief
variables: {word: null, language: English}
overrides: {preset_overrides: {params: {temperature: 0}}}
tone: kind
---
Explain "{{ word }}" in {{ language }}, {{ tone }}.
"""


def test_the_front_matter_says_preset_variables_and_overrides(template):
    found = template(FULL)

    assert (found.name, found.description, found.preset) == ("explain", "Explain a word.", "brief")
    assert found.variables == {"word": None, "language": "English", "tone": "kind"}
    assert found.overrides == {"preset_overrides": {"params": {"temperature": 0}}}
    assert found.render({"word": "Tee"}) == 'Explain "Tee" in English, kind.\n'
    assert found.render({"word": "Tee", "tone": "short"}) == 'Explain "Tee" in English, short.\n'


def test_the_example_of_the_documentation_can_be_asked(write, tmp_path):
    write("brief", "model: openai/gpt-4o\n")
    lines = [line.removeprefix("    ") for line in templates.__doc__.splitlines() if line.startswith("    ")]
    (tmp_path / "explain.md").write_text("\n".join(lines))
    backend = ScriptedBackend("ok")
    answer = llmkit.ApiBackend(backend=backend).run_template("explain.md", {"word": "Tee"})

    assert answer.success, answer.message
    assert backend.requests[0].params == {"temperature": 0}
    assert backend.requests[0].messages[0]["content"] == 'Explain "Tee" in English.'


def test_request_overrides_is_another_name_of_overrides(template):
    found = template("---\nrequest_overrides:\n  title: A title\n---\nHi\n")

    assert found.overrides == {"title": "A title"}
    assert found.variables == {}


@pytest.mark.parametrize(
    "text", ["Hi {{ name }}\n", "---\n---\nHi {{ name }}\n", "---\n# nothing\n---\nHi {{ name }}\n"]
)
def test_a_file_needs_no_front_matter(template, text):
    found = template(text)

    assert (found.preset, found.description, found.variables, found.overrides) == (None, "", {}, {})
    assert found.render({"name": "Ada"}) == "Hi Ada\n"


@pytest.mark.parametrize("text", ["Rules:\n---\nmore\n---\n", "--- not this\na: 1\n---\n", "---\nno second mark\n"])
def test_dashes_elsewhere_are_text(template, text):
    assert template(text).render() == text


def test_empty_values_in_the_front_matter_mean_nothing(template):
    found = template("---\ndescription:\npreset:\nvariables:\noverrides:\n---\nHi\n")

    assert (found.preset, found.description, found.variables, found.overrides) == (None, "", {}, {})


def test_a_text_without_variables_is_untouched(template):
    text = "  {a: 1} { {b} } } ${HOME}  100 %\n\n\n"

    assert template(text).render() == text


@pytest.mark.parametrize("value", ["{{ other }}", "{% raw %}", "${HOME}", "<b> & 'x'"])
def test_a_value_is_not_rendered_again(template, value):
    assert template("{{ a }}").render({"a": value, "other": "x"}) == value


def test_templates_know_conditions_and_loops(template):
    text = "{% for word in words %}{{ loop.index }}. {{ word | upper }}\n{% endfor %}{% if more %}more{% endif %}"

    assert template(text).render({"words": ["a", "b"], "more": True}) == "1. A\n2. B\nmore"


def test_missing_variables_are_named(template):
    found = template("---\nvariables: {word: null}\n---\n{{ word }} {{ tone }} {{ known }}")

    assert complaint(found.render, {"known": 1}) == "template 'explain' needs a value for the variable tone, word"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("---\npreset: brief\nvariables: [a\n---\nHi\n", ":4:1: did not find expected"),
        ("---\npreset: brief\n  tone: x\n---\nHi\n", ":3:7: mapping values are not allowed in this context"),
        ("---\npreset: a\npreset: b\n---\nHi\n", ":3:1: the key 'preset' stands here for the second time"),
        ("---\n- preset\n---\nHi\n", "expected keys and values, found something else"),
        ("---\npreset: 5\n---\nHi\n", "preset must be a name, not 5"),
        ("---\nvariables: [word]\n---\nHi\n", "variables must be a mapping, not ['word']"),
        ("---\noverrides: brief\n---\nHi\n", "overrides must be a mapping, not 'brief'"),
    ],
)
def test_a_wrong_front_matter_is_told_with_file_and_line(template, text, told):
    said = complaint(template, text)

    assert said.startswith("explain.md")
    assert told in said


def test_a_template_is_found_by_path_and_by_name(tmp_path):
    for folder, name in [("one", "a.md"), ("two", "a.md"), ("two", "b.j2"), ("two", "c.txt"), ("two", "d")]:
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text(f"{folder}/{name}")
    folders = [tmp_path / "one", tmp_path / "two"]

    for name, wanted in [
        ("a", "one/a.md"),
        ("b", "two/b.j2"),
        ("b.j2", "two/b.j2"),
        ("c", "two/c.txt"),
        ("d", "two/d"),
    ]:
        assert templates.load(name, folders).text == wanted
    assert templates.load(tmp_path / "two" / "a.md").text == "two/a.md"
    assert templates.load("two/a.md", folders).text == "two/a.md"


def test_a_missing_template_names_the_folders(tmp_path):
    said = complaint(templates.load, "none", [Path("/one"), Path("/two")])

    assert said == f"no template 'none'; looked in {tmp_path}, /one, /two"


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "explain.md").write_bytes(b"\xff\xfe\x00")

    assert complaint(templates.load, "explain.md").startswith("explain.md:1: ")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("one\n{{ a b }}\n", "template 'explain', line 2 of the text: expected token 'end of print statement'"),
        ("{% for x in y %}", "template 'explain', line 1 of the text: Unexpected end of template"),
        ("{{ 1 / 0 }}", "template 'explain': ZeroDivisionError"),
        ("{{ 'a' | nosuchfilter }}", "template 'explain', line 1 of the text: No filter named 'nosuchfilter'"),
    ],
)
def test_what_is_no_jinja_is_told_with_its_line(template, text, told):
    assert complaint(template(text).render).startswith(told)


@pytest.mark.parametrize(
    "text",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ().__class__.__base__.__subclasses__() }}",
        "{{ thing.method.__globals__ }}",
        "{{ thing.items_.append(1) }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{% include '/etc/passwd' %}",
        "{{ range(10 ** 9) | list }}",
        "{{ '%s'.format.__self__.__class__ }}",
    ],
)
def test_a_template_reaches_nothing_but_its_variables(template, text):
    class Thing:
        items_: tuple = ()

        def method(self):
            return self

    thing = Thing()
    thing.items_ = [0]

    assert "root:" not in complaint(template(text).render, {"thing": thing})
    assert thing.items_ == [0]
