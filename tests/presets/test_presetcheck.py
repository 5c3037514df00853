"""What can never work is found before anything is asked: by `presets check`, and by those who activate a preset."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from commands import run
from server import Answer
from typer.testing import CliRunner

import llmkit
from llmkit import ApiBackend, Config, InvalidRequestError
from llmkit.cli import app
from llmkit.core import schemas
from llmkit.presets import rendering
from llmkit.testing import ScriptedBackend

GOOD = "model: openai/gpt-4o\n"
NO_PROVIDER = "no provider is known for the model"
WRONG = {
    "provider": ("model: openia/gpt-4o", f":1:1: model: {NO_PROVIDER} 'openia/gpt-4o'; did you mean openai/gpt-4o?"),
    "provider of a version": ("versions: {1: {model: openai/x}, 2: {model: nosuch/x}}", f":1:38: model: {NO_PROVIDER}"),
    "a name without a provider": ("model: no-such-model-at-all", f":1:1: model: {NO_PROVIDER}"),
    "a local model": ("model: local/llama", ":1:1: model: there is no local model 'llama'"),
    "a wrong default": ("model: '{{ p }}/x'\nvariables: {p: openia}", f":1:1: model: {NO_PROVIDER} 'openia/x'"),
    "fallback": (f"{GOOD}fallbacks: [nope]", ":2:1: fallbacks: no preset is called 'nope'"),
    "a model to fall back on": (f"{GOOD}fallbacks: [openia/x]", f":2:1: fallbacks: {NO_PROVIDER}"),
    "a wrong preset to fall back on": (f"{GOOD}fallbacks: [broken]", ":2:1: fallbacks: "),
    "template": (f'{GOOD}system: "hi {{{{ name"', ":2:1: system: line 1 of the text: "),
    "template in params": (f'{GOOD}params: {{user: "{{% if %}}"}}', ":2:10: params.user: line 1 of the text: "),
    "filter": (f'{GOOD}system: "{{{{ 1 | nope }}}}"', ":2:1: system: line 1 of the text: No filter named 'nope'"),
    "variable": (
        f'{GOOD}system: "{{{{ name }}}}"\nvariables: {{nam: x}}',
        "'name' is no variable of it; there are: nam",
    ),
    "example": (f'{GOOD}examples: [{{user: "{{{{ a }}}}", assistant: b}}]', ":2:1: examples: 'a' is no variable"),
    "schema": (f"{GOOD}schema: {{type: banana}}", ":2:10: schema is no JSON schema: $.type: 'banana' is "),
    "schema elsewhere": (
        f"{GOOD}schema: {{$ref: 'http://127.0.0.1:9/x'}}",
        ":2:10: schema refers to 'http://127.0.0.1:9/x'; only",
    ),
    "schema in a file": (
        f"{GOOD}schema: {{items: {{$ref: 'file:///etc/passwd'}}}}",
        "schema refers to 'file:///etc/passwd'; only",
    ),
    "schema nowhere": (
        f"{GOOD}schema: {{$ref: '#/$defs/a'}}",
        ":2:10: schema refers to '#/$defs/a', which it does not have",
    ),
    "module": (f"{GOOD}tools: ['nope:fn']", ":2:1: tools: 'nope:fn' cannot be imported: there is no module 'nope'"),
    "inner module": (f"{GOOD}tools: ['os.nope:fn']", ":2:1: tools: 'os.nope:fn' cannot be imported"),
    "function": (f"{GOOD}tools: ['mine:nope']", ":2:1: tools: 'mine:nope' cannot be imported: mine has no 'nope'"),
    "no function": (f"{GOOD}tools: ['mine']", ":2:1: tools: 'mine' is no function; name one as module:function"),
}
DRAFT = "$schema: 'http://json-schema.org/draft-07/schema#'"
TEXT = "{% for i in range(3) %}{{ i ~ a }}{% endfor %}{% raw %}{{ b }}{% endraw %}"
TOOLS = ["mine:tool", "mine:Class.method", "mine:made", "mine:join", "os.path:join", "json:dumps"]
RIGHT = {
    "plain": GOOD,
    "none": "system: s\n",
    "bare": "model: gpt-4o\n",
    "colon": "model: ollama:llama3\n",
    "own names": "model: aws-bedrock/anthropic.claude-v2\n",
    "environment": "model: ${MODEL}\nparams: {api_key: '${KEY}'}\n",
    "variable": "model: '{{ m }}'\nvariables: {m: null}\n",
    "address": "model: my-model\nparams: {api_base: 'http://127.0.0.1:9/v1'}\n",
    "custom": "model: x/y\nparams: {custom_llm_provider: openai}\n",
    "jinja": f'{GOOD}system: "{TEXT}"\nvariables: {{a: 1}}\n',
    "schema": f"{GOOD}schema: {{$defs: {{a: {{type: string}}}}, items: {{$ref: '#/$defs/a'}}, not: {{$ref: '#'}}}}\n",
    "old schema": f"{GOOD}schema: {{{DRAFT}, definitions: {{a: true}}, $ref: '#/definitions/a'}}\n",
    "tools": f"{GOOD}tools: {[*TOOLS, {'type': 'function', 'function': {'name': 'f'}}]}\n",
    "fallbacks": f"{GOOD}fallbacks: [local, 'gpt-4o-mini', openai/gpt-4o, brief@2]\n",
}
MODULE = """\
import pathlib
from os.path import join

pathlib.Path("IMPORTED").touch()


def tool():
    return 1


class Class:
    def method(self):
        return 1


made = tool
"""


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Write a preset into the folder one stands in and check it; return what is said and the exit code."""
    monkeypatch.setenv("LLMKIT_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "broken.yaml").write_text("model: [\n")
    (tmp_path / "presets" / "brief.yaml").write_text(f"{GOOD}versions: {{2: {{}}}}\n")
    (tmp_path / "mine.py").write_text(MODULE)

    def check(text):
        (tmp_path / "presets" / "p.yaml").write_text(text)
        done = CliRunner().invoke(app, ["presets", "check", "p"])
        assert not Path("IMPORTED").exists()
        return done.stdout, done.exit_code

    return check


@pytest.mark.parametrize("kind", WRONG)
def test_c2c_what_can_never_work_is_found(check, tmp_path, kind):
    text, told = WRONG[kind]

    said, code = check(text)

    assert (said.count("\n"), code) == (1, 1), said
    assert said.startswith(f"{tmp_path}/presets/p.yaml:")
    assert told in said


@pytest.mark.parametrize("kind", RIGHT)
def test_c2c_what_may_work_is_right(check, kind):
    assert check(RIGHT[kind]) == ("", 0)


def test_c2c_everything_is_found_at_once(check):
    said, _ = check("model: openia/x\nfallbacks: [nope, nope2]\nsystem: '{{ a }}'\nschema: {type: 5}")

    told = [line.split(": ")[1].split()[0] for line in said.splitlines()]
    assert told == ["fallbacks", "fallbacks", "system", "schema", "model"]


def test_editing_tells_what_can_never_work(check, tmp_path, monkeypatch):
    check("model: openia/x\n")
    monkeypatch.setenv("EDITOR", "true")

    done = CliRunner().invoke(app, ["presets", "edit", "p"])

    assert done.exit_code == 2
    assert "did you mean openai/x?" in done.stderr


@pytest.mark.parametrize(
    "schema", [{"type": "banana"}, {"$ref": "http://127.0.0.1:9/"}, {"$ref": "#/a"}, {"a": {1, 2}}]
)
def test_c10_a_wrong_schema_is_told_before_anything_is_asked(call, schema):
    backend = ScriptedBackend("{}")

    with pytest.raises(InvalidRequestError, match="schema"):
        call(llmkit, "ask", "hi", model="openai/gpt-4o", schema=schema, backend=backend)

    assert backend.requests == []


def test_a_schema_fetches_nothing(server):
    with pytest.raises(ValueError, match="which it does not have"):
        schemas.parse({"properties": {"a": {"$id": "b", "$ref": f"{server.url}/x"}}}, '{"a": 1}')

    assert server.requests == []


def test_c_annoying_13_pydantic_advertises_nothing(server):
    from pydantic import BaseModel

    class City(BaseModel):
        name: str
        people: int

    backend = ScriptedBackend('{"name": 5}', '{"name": 5}')
    with pytest.raises(llmkit.SchemaError) as caught:
        llmkit.ask("hi", model="openai/gpt-4o", schema=City, backend=backend)
    told = backend.requests[1].messages[-1]["content"]
    for text in (str(caught.value), told):
        assert "name: Input should be a valid string; people: Field required" in text
        assert "errors.pydantic.dev" not in text

    def tool(city: str) -> str:
        """Tell."""
        return city

    call = {"id": "1", "type": "function", "function": {"name": "tool", "arguments": '{"town": 1}'}}
    server.script = [Answer(message={"role": "assistant", "content": None, "tool_calls": [call]}), Answer()]
    llmkit.ask("hi", model="openai/gpt-4o", tools=[tool], api_base=f"{server.url}/v1", api_key="k")
    assert server.requests[1].body["messages"][-1]["content"].startswith("error: ")
    assert "pydantic.dev" not in server.requests[1].body["messages"][-1]["content"]


# -- activation -----------------------------------------------------------------------------------------------------

UNUSABLE = {
    "a variable": (f"{GOOD}system: hi {{{{ who }}}}\nvariables: {{who: null}}\n", "needs a value for the variable who"),
    "the environment": (f"{GOOD}params: {{user: '${{NOBODY_SETS_THIS}}'}}\n", "NOBODY_SETS_THIS"),
    "a provider": ("model: openia/gpt-4o\n", f"{NO_PROVIDER} 'openia/gpt-4o'"),
    "a fallback": (f"{GOOD}fallbacks: [nope]\n", "no preset is called 'nope'"),
    "a model to fall back on": (f"{GOOD}fallbacks: [openia/x]\n", f"{NO_PROVIDER} 'openia/x'"),
    "a tool": (f"{GOOD}tools: ['nope:fn']\n", "'nope:fn' cannot be imported"),
    "a schema": (f"{GOOD}schema: {{type: banana}}\n", "schema is no JSON schema"),
    "the file": ("modle: openai/gpt-4o\n", "did you mean 'model'"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_c2b_activation_is_all_or_nothing(call, tmp_path, kind):
    text, told = UNUSABLE[kind]
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "p.yaml").write_text(text)
    (tmp_path / "presets" / "good.yaml").write_text("model: openai/gpt-4o\nsystem: good\n")
    scripted = ScriptedBackend("one", "two")
    bot = ApiBackend(Config(config_dir=tmp_path / "config"), backend=scripted)
    assert bot.activate_preset("good").success

    activated = bot.activate_preset("p")
    asked = call(bot, "ask", "hi", {"preset": "p", "activate_preset": True})

    for answer in (activated, asked):
        assert answer.success is False
        assert told in answer.message
    assert (bot.active_preset_name, bot.system_message, scripted.requests) == ("good", "good", [])
    assert call(bot, "ask", "hi").success
    assert scripted.requests[0].messages[0]["content"] == "good"


def test_c2b_a_preset_that_can_be_used_stays(call, tmp_path):
    (tmp_path / "p.yaml").write_text(f"{GOOD}system: '{{{{ who }}}}'\nvariables: {{who: me}}\ntools: ['json:dumps']\n")
    scripted = ScriptedBackend("one", "two")
    bot = ApiBackend(Config(config_dir=tmp_path / "config"), backend=scripted)

    assert call(bot, "ask", "hi", {"preset": str(tmp_path / "p.yaml"), "activate_preset": True}).success
    assert call(bot, "ask", "hi").success
    assert [request.messages[0]["content"] for request in scripted.requests] == ["me", "me"]


@pytest.mark.parametrize("text", [5, ["x"], b"x", {}])
def test_c_annoying_11_a_system_message_is_a_text(tmp_path, text):
    bot = ApiBackend(Config(config_dir=tmp_path / "config"), backend=ScriptedBackend("one"))
    bot.set_system_message("kind")

    answer = bot.set_system_message(text)

    assert answer.success is False
    assert "a system message is a text" in answer.message
    assert bot.system_message == "kind"
    assert not bot.ask("hi", {"system_message": text}).success
    assert bot.ask("hi").success


@pytest.mark.parametrize(
    "text",
    [
        "{{ 'a' * 1000000000 }}",
        "{{ 10 ** 10000000 }}",
        "{{ 'a'|center(1000000000) }}",
        "{% set x = 10 ** 10000000 %}{{ x }}",
        "{% autoescape 'a' * 1000000000 %}x{% endautoescape %}",
    ],
)
@pytest.mark.parametrize("key", ["system", "model"])
def test_what_a_text_would_calculate_is_not_calculated_by_a_check(tmp_path, text, key):
    """It would take seconds, and gigabytes."""
    (tmp_path / "p.yaml").write_text(json.dumps({"model": "openai/gpt-4o", key: text}))

    began = time.process_time()
    done = run(["presets", "check", str(tmp_path / "p.yaml")])

    assert time.process_time() - began < 1
    assert ("autoescape" in done.stderr + done.stdout) == ("autoescape" in text)


def test_a_text_calculates_when_it_is_rendered():
    assert rendering.render("{{ 1 + 1 }}{% if a %} {{ a|upper }}{% endif %}", {"a": "b"}, "") == "2 B"
