"""What few questions have: --schema, -x, -T, --save, --dry-run, --cid, -d."""

from __future__ import annotations

import json
import sys

import commands
import pytest
import yaml
from commands import surroundings
from server import Answer
from terminal import Terminal
from test_cli import KEY, run  # noqa: F401 - a fixture

TOOLS = '''
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def _hidden() -> None:
    """Not a tool."""
'''
CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 2, "b": 3}'}}
CALLING = Answer(deltas=[{"tool_calls": [CALL]}], finish_reason="tool_calls")


@pytest.mark.parametrize(("end", "told"), [("3", ": 3"), ("'enough'", ": enough"), ("", "")])
def test_a_tool_that_ends_the_program_is_named(server, tmp_path, end, told):
    (tmp_path / "tools.py").write_text(f"import sys\n\n\ndef add(a: int, b: int) -> int:\n    sys.exit({end})\n")
    server.script = [CALLING]

    done = commands.run(
        ["-n", "-T", "tools.py:add", "-m", "openai/gpt-4o", "2+3"], **surroundings(tmp_path, server.url)
    )

    assert (done.returncode, done.stderr) == (1, f"llmkit: the tool add ended the program{told}\n")


# -- a schema ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "properties"),
    [
        ("name, age int", {"name": {"type": "string"}, "age": {"type": "integer"}}),
        ("ok bool,share float", {"ok": {"type": "boolean"}, "share": {"type": "number"}}),
        (
            "name: as in the passport\nage int",
            {"name": {"type": "string", "description": "as in the passport"}, "age": {"type": "integer"}},
        ),
        ('{"type": "object", "properties": {"x": {"type": "string"}}}', {"x": {"type": "string"}}),
    ],
)
def test_a_schema_is_sent(run, server, given, properties):  # noqa: F811
    run("--schema", given, "a dog")
    sent = server.requests[0].body["response_format"]["json_schema"]["schema"]

    assert sent["properties"] == properties


def test_an_answer_of_the_schema_is_printed_in_one_line(run, server, tmp_path):  # noqa: F811
    (tmp_path / "dog.json").write_text('{"type": "object", "required": ["name"]}')
    server.script = [Answer('```json\n{"name":\n "Rex"}\n```')]

    assert run("--schema", "dog.json", "a dog").stdout == '{"name": "Rex"}\n'


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("", "--schema is empty"),
        ("{", "--schema is no JSON"),
        ('{"a":' * 5000, "--schema is no JSON"),
        ("a b c", "'a b c' is no field"),
        ("name text", "write a name and str, int, float or bool"),
        ('{"type": "nothing"}', "schema is no JSON schema"),
    ],
)
def test_what_is_no_schema_is_not_sent(run, server, given, told):  # noqa: F811
    done = run("--schema", given, "hi")

    assert (done.exit_code, server.requests) == (2, [])
    assert told in done.stderr


# -- a block of code -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Here:\n```python\nprint(1)\n```\nand\n```\nmore\n```", "print(1)"),
        ("````md\n```\ninner\n```\n````", "```\ninner\n```"),
        ("~~~\nx\n~~~", "x"),
        ("no code at all", "no code at all"),
        ("```python\nnever closed", "```python\nnever closed"),
    ],
)
def test_the_first_block_of_code_is_printed(run, server, text, code):  # noqa: F811
    server.script = [Answer(text)]

    assert run("-x", "hi").stdout == f"{code}\n"


# -- tools ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tools.py", "tools.py:add"])
def test_a_function_of_a_file_is_called_for_the_model(run, server, tmp_path, name):  # noqa: F811
    (tmp_path / "tools.py").write_text(TOOLS)
    server.script = [CALLING, Answer("It is 5.")]

    done = run("-T", name, "2 + 3?")

    assert done.stdout.endswith("It is 5.\n")
    assert [tool["function"]["name"] for tool in server.requests[0].body["tools"]] == ["add"]
    assert server.requests[1].body["messages"][-1]["content"] == "5"


@pytest.mark.parametrize(
    ("typed", "result"), [("y", "5"), ("n", "the user does not allow this call"), ("", "the user")]
)
def test_at_a_terminal_each_call_is_asked_for(server, tmp_path, typed, result):
    (tmp_path / "tools.py").write_text(TOOLS)
    server.script = [CALLING, Answer("It is 5.")]
    access = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": KEY}

    with Terminal("-m", "openai/gpt-4o", "-T", "tools.py", "2 + 3?", **access) as terminal:
        terminal.wait_for("the model calls add(a=2, b=3); run it? [y/N]")
        terminal.type(f"{typed}\r")
        assert terminal.wait() == 0

    assert server.requests[1].body["messages"][-1]["content"].startswith(result)


def test_at_a_terminal_a_pipe_is_not_taken_for_a_yes(server, tmp_path):
    (tmp_path / "tools.py").write_text(TOOLS)
    server.script = [CALLING, Answer("It is 5.")]
    access = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": KEY}
    command = ("sh", "-c", f"echo data | {sys.executable} -m llmkit -m openai/gpt-4o -T tools.py '2 + 3?'")

    with Terminal(command=command, **access) as terminal:
        terminal.wait_for("run it? [y/N]")
        terminal.type("n\r")
        assert terminal.wait() == 0

    assert server.requests[1].body["messages"][-1]["content"] == "the user does not allow this call"


def test_what_cannot_be_kept_is_refused_before_it_is_paid_for(run, server):  # noqa: F811
    done = run("-o", "temperature", "hot", "hi")

    assert (done.exit_code, server.requests) == (2, [])
    assert "temperature" in done.stderr


@pytest.mark.parametrize("place", [["-d", "nosuch://x"], ["-d", "/tmp"], ["-d", ""], ["--cid", ""]])
def test_a_place_that_cannot_be_is_refused_before_it_is_paid_for(run, server, place, monkeypatch):  # noqa: F811
    monkeypatch.setenv("LLMKIT_DATABASE", "")  # restored afterwards

    done = run(*place, "hi")

    assert done.exit_code in {1, 2}
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("none.py", "", "no such file; write FILE.py, or FILE.py:function"),
        ("tools.py:none", TOOLS, "there is no function none in tools.py"),
        ("tools.py", "1/0", "ZeroDivisionError: division by zero"),
        ("tools.py", "import sys; sys.exit(0)", "SystemExit: 0"),
        ("tools.py", "x = 1", "there is no public function in it"),
        ("tools.txt", "x", "this is no Python file"),
    ],
)
def test_tools_that_cannot_be_read_are_told(run, server, tmp_path, name, text, told):  # noqa: F811
    if text:
        (tmp_path / name.partition(":")[0]).write_text(text)

    done = run("-T", name, "hi")

    assert (done.exit_code, server.requests) == (2, [])
    assert told in done.stderr


# -- presets and databases -----------------------------------------------------------------------------------------


def test_a_question_is_saved_as_a_preset_and_used_again(run, server, tmp_path):  # noqa: F811
    (tmp_path / "presets").mkdir()
    saved = run("-m", "openai/gpt-4o-mini", "-s", "One word.", "-o", "temperature", "0", "--save", "brief")
    file = tmp_path / "presets" / "brief.yaml"

    assert (saved.exit_code, saved.stderr, server.requests) == (0, f"{file}\n", [])
    assert yaml.safe_load(file.read_text()) == {
        "model": "openai/gpt-4o-mini",
        "system": "One word.",
        "params": {"temperature": 0},
    }
    run("-p", "brief", "hi")
    assert server.requests[0].body["temperature"] == 0
    assert "exists; llmkit presets edit brief" in run("-s", "x", "--save", "brief").stderr
    assert file.read_text().count("system") == 1


def test_a_question_is_asked_and_saved_at_once(run, server, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("LLMKIT_CONFIG_DIR", str(tmp_path))
    assert run("-s", "One word.", "--save", "brief-2", "hi").exit_code == 0
    assert len(server.requests) == 1
    assert run("presets", "show", "brief-2").exit_code == 0


def test_a_preset_that_cannot_work_is_not_saved(run, tmp_path):  # noqa: F811
    (tmp_path / "presets").mkdir()

    done = run("-m", "opnai/gpt-4o", "--save", "bad")

    assert done.exit_code == 2
    assert "did you mean openai/gpt-4o?" in done.stderr
    assert list((tmp_path / "presets").iterdir()) == []


def test_many_fields_make_no_name_of_a_file(run, server):  # noqa: F811
    fields = "\n".join(f"field_{number}: what it is, at some length, so that it is described" for number in range(20))

    run("--schema", fields, "x")

    assert len(server.requests[0].body["response_format"]["json_schema"]["schema"]["properties"]) == 20


def test_a_dry_run_shows_the_request_without_the_key_and_sends_nothing(run, server):  # noqa: F811
    done = run("--dry-run", "-s", "Be brief.", "-o", "max_tokens", "5", "hi")
    shown = json.loads(done.stdout)

    assert (done.exit_code, server.requests) == (0, [])
    assert shown["request"]["url"] == f"{server.url}/v1/chat/completions"
    assert shown["request"]["body"]["max_tokens"] == 5
    assert shown["request"]["body"]["stream"] is True
    assert shown["quote"]["most_usd"] > 0
    assert KEY not in done.output
    run("-s", "Be brief.", "-o", "max_tokens", "5", "hi")
    assert server.requests[0].body == shown["request"]["body"]


def test_a_dry_run_shows_no_header_that_may_be_a_secret(run):  # noqa: F811
    for model in ("openai/gpt-4o", "gemini/gemini-2.5-flash"):
        headers = '{"X-Foo-Key": "abcdef123456"}'
        assert "abcdef123456" not in run("--dry-run", "-m", model, "-o", f"extra_headers={headers}", "hi").output


@pytest.mark.parametrize("name", ["$(x)", "-m", "a\nb", ".", "a" * 300, "a/b", "x.yaml"])
def test_a_preset_has_a_name_that_is_one(run, name):  # noqa: F811
    assert run("-s", "x", f"--save={name}").exit_code == 2


def test_a_dry_run_shows_what_litellm_would_be_told(run, server):  # noqa: F811
    done = run("--dry-run", "-m", "gemini/gemini-2.5-flash", "hi")

    assert json.loads(done.stdout)["request"]["model"] == "gemini/gemini-2.5-flash"
    assert server.requests == []


def test_a_conversation_is_kept_in_the_database_that_is_named(run, server, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("LLMKIT_DATABASE", "")  # restored afterwards
    database = str(tmp_path / "other.db")

    run("-d", database, "first")
    begin = json.loads(run("sessions", "--json").stdout)[0]["id"]
    run("-d", database, "--cid", begin[:8], "second")

    assert [m["content"] for m in server.requests[1].body["messages"] if m["role"] == "user"] == ["first", "second"]
    assert (tmp_path / "other.db").is_file()


def test_a_file_that_is_no_picture_is_not_sent_as_one(run, server, tmp_path):  # noqa: F811
    (tmp_path / "noise.png").write_bytes(bytes(range(200, 256)))

    done = run("-a", "noise.png", "what is it?")

    assert (done.exit_code, server.requests) == (2, [])
    assert "noise.png is no picture, whatever its name says" in done.stderr


# -- what is no parameter ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "name", "advice"),
    [
        ((), "model", "say -m"),
        (("-c",), "preset", "say -p"),
        (("chat",), "system", "say -s"),
        (("--dry-run",), "backend", "it is for Python programs"),
        (("--save", "new"), "client", "it is for Python programs"),
        (("-c",), "self", "it is for Python programs"),
        ((), "prompt", "it is the text itself"),
        (("quote",), "model", "say -m"),
        (("embed", "-m", "openai/e"), "texts", "it is the text itself"),
        (("speak", "-m", "openai/s", "--to", "it.mp3"), "voice", "say --voice"),
        (("image", "-m", "openai/i", "--to", "it.png"), "prompt", "it is the text itself"),
    ],
)
def test_an_option_that_is_an_argument_of_the_call_is_told(run, server, tmp_path, words, name, advice):  # noqa: F811
    text = () if "chat" in words else ("hi",)
    done = run(*words, "-o", name, "x", *text)

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == f"llmkit: --option {name} cannot be: {advice}"
    assert server.requests == []
    assert not [*tmp_path.rglob("new.yaml")]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("extra_body", "5", "extra_body must be a mapping, not int"),
        ("extra_body", "[1]", "extra_body must be a mapping, not list"),
        ("extra_headers", "5", "extra_headers must be a mapping of headers, not int"),
        ("cache", "abc", "cache must be a mapping, not str"),
        ("functions", "x", "functions must be a list, not str"),
    ],
)
def test_a_parameter_of_the_wrong_shape_is_told(run, server, name, value, told):  # noqa: F811
    done = run("-o", name, value, "hi")

    assert (done.exit_code, done.stderr) == (2, f"llmkit: {told}\n")
    assert server.requests == []
