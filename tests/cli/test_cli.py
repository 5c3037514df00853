"""The command line, as a user sees it: what stands on stdout and stderr, and the exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from server import ANSWER, Answer, Status
from typer.testing import CliRunner

import llmkit
from llmkit.cli import app

KEY = "sk-local-0123456789"


@pytest.fixture
def run(server, monkeypatch):
    """Run `llmkit ARGS` in this process, with OpenAI's address pointing at the scripted server."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("LLMKIT_MODEL", "openai/gpt-4o")

    def invoke(*args, stdin=""):
        return CliRunner().invoke(app, list(args), input=stdin)

    return invoke


def program(*args, **kwargs):
    """Run `llmkit ARGS` as a program of its own."""
    command = [sys.executable, "-m", "llmkit", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **kwargs)


def test_a_prompt_is_answered_on_stdout(run, server):
    done = run("hello there")

    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{ANSWER}\n", "")
    assert server.requests[0].body["messages"] == [{"role": "user", "content": "hello there"}]
    assert server.requests[0].body["stream"] is True


def test_ask_is_the_long_name_of_the_default_command(run):
    assert run("ask", "hello").stdout == run("hello").stdout


def test_stdin_is_put_before_the_prompt(run, server):
    run("summarise", stdin="first line\nsecond line\n")

    assert server.requests[0].body["messages"][0]["content"] == "first line\nsecond line\n\nsummarise"


def test_stdin_alone_is_a_prompt(run, server):
    run(stdin="what is this?\n")

    assert server.requests[0].body["messages"][0]["content"] == "what is this?"


def test_options_reach_the_request(run, server):
    run("-m", "openai:gpt-4o-mini", "-s", "Be brief.", "-o", "temperature", "0", "-o", "stop=END", "--no-stream", "hi")
    body = server.requests[0].body

    assert body["model"] == "gpt-4o-mini"
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert body["temperature"] == 0
    assert body["stop"] == "END"
    assert "stream" not in body


@pytest.mark.parametrize("flag", ["-p", "-t", "--preset"])
def test_a_preset_is_chosen_by_name(run, server, tmp_path, flag):
    (tmp_path / "presets").mkdir()
    (tmp_path / "presets" / "brief.yaml").write_text("system: One word.\nmodel: openai/gpt-4o-mini\n")

    done = run(flag, "brief", "hi")

    assert done.exit_code == 0
    assert server.requests[0].body["model"] == "gpt-4o-mini"
    assert server.requests[0].body["messages"][0]["content"] == "One word."


def test_json_is_one_object_with_text_model_usage_and_cost(run):
    done = run("--json", "hi")
    said = json.loads(done.stdout)

    assert said["text"] == ANSWER
    assert said["model"] == "gpt-4o"
    assert said["usage"]["total_tokens"] == 16
    assert said["cost_usd"] == pytest.approx(11 * 2.5e-6 + 5 * 10e-6)
    assert done.stdout.count("\n") == 1


def test_usage_goes_to_stderr(run, server):
    server.script = [Answer(usage={"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500})]

    done = run("-u", "hi")

    assert done.stdout == f"{ANSWER}\n"
    assert "1000 + 500 = 1500 tokens, 0.007500 USD (priced)" in done.stderr


def test_a_key_can_be_given(run, server):
    run("--key", "sk-another-key", "hi")

    assert server.requests[0].headers["authorization"] == "Bearer sk-another-key"


def test_files_are_attached(run, server, tmp_path):
    (tmp_path / "note.txt").write_text("the note")
    (tmp_path / "dot.png").write_bytes(b"\x89PNG\r\n\x1a\n")

    run("-a", "note.txt", "-a", "dot.png", "-a", "https://example.com/cat.jpg", "what is it?")
    text, note, picture, cat = server.requests[0].body["messages"][0]["content"]

    assert text == {"type": "text", "text": "what is it?"}
    assert "the note" in note["text"]
    assert picture["image_url"]["url"].startswith("data:image/png;base64,")
    assert cat["image_url"]["url"] == "https://example.com/cat.jpg"


def test_stdin_can_be_attached(run, server):
    run("-a", "-", "what is it?", stdin=b"%PDF-1.4 fake")

    assert server.requests[0].body["messages"][0]["content"][1]["file"]["file_data"].startswith("data:application/pdf")


@pytest.mark.parametrize(
    ("args", "code", "complaint"),
    [
        (["  "], 2, "the prompt is empty"),
        (["-a", "missing.png", "hi"], 2, "cannot read the attachment missing.png: No such file or directory"),
        (["-p", "locl", "hi"], 2, "no preset is called 'locl'; did you mean local?"),
        (["-o", "temperature"], 2, "an option is a key and a value"),
        (["--timeout", "0", "hi"], 2, "timeout must be a number of seconds above 0"),
        (["-m", "nosuchprovider/x", "hi"], 1, "no provider is known for the model 'nosuchprovider/x'"),
        (["-m", "anthropic/claude-3-5-haiku-20241022", "hi"], 1, "set ANTHROPIC_API_KEY"),
    ],
)
def test_a_failure_is_one_line_and_an_exit_code(run, server, args, code, complaint):
    done = run(*args)

    assert done.exit_code == code
    assert done.stdout == ""
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("llmkit: ")
    assert server.requests == []


def test_an_unknown_option_is_wrong_usage(run):
    done = run("--nosuchoption", "hi")

    assert done.exit_code == 2
    assert "No such option" in done.stderr


def test_a_refusal_of_the_provider_is_a_failure(run, server):
    server.script = [Status(401, body={"error": {"message": "wrong key"}})]

    done = run("hi")

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "llmkit: wrong key (openai, openai/gpt-4o); the key came from OPENAI_API_KEY: mend it there\n"


def test_debug_shows_the_traceback(run, server):
    server.script = [Status(401)]

    done = run("--debug", "hi")

    assert isinstance(done.exception, llmkit.AuthenticationError)


def test_a_cut_answer_keeps_what_was_printed_and_fails(run, server):
    server.script = [Answer(end="eof")]

    done = run("hi")

    assert (done.exit_code, done.stdout) == (1, f"{ANSWER}\n")
    assert "in the middle of the answer" in done.stderr


def test_an_answer_cut_at_its_length_limit_is_said(run, server):
    server.script = [Answer(finish_reason="length")]

    assert "length limit" in run("hi").stderr


def test_version_and_help():
    done = program("--version")
    assert (done.returncode, done.stdout) == (0, f"llmkit {llmkit.__version__}\n")

    for args in (["-h"], ["--help"], ["ask", "-h"]):
        done = program(*args)
        assert done.returncode == 0
        assert "Usage" in done.stdout
        assert "\x1b" not in done.stdout


def test_control_c_keeps_what_was_printed_and_exits_with_130(server):
    server.script = [Answer("word " * 400, end="slow", delay_s=0.05)]
    command = [sys.executable, "-m", "llmkit", "-m", "openai/gpt-4o", "--key", KEY, "hi"]
    env = {**os.environ, "OPENAI_BASE_URL": f"{server.url}/v1"}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    ) as process:
        first = os.read(process.stdout.fileno(), 5)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)

    assert process.returncode == 130
    assert (first + rest).startswith(b"word")
    assert rest.endswith(b"\n")
    assert errors == b""


def test_a_closed_pipe_is_no_error_to_speak_of(server):
    server.script = [Answer("word " * 4000, end="slow", delay_s=0.01)]
    command = [sys.executable, "-m", "llmkit", "-m", "openai/gpt-4o", "--key", KEY, "hi"]
    env = {**os.environ, "OPENAI_BASE_URL": f"{server.url}/v1"}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
    ) as process:
        os.read(process.stdout.fileno(), 5)
        process.stdout.close()
        started = time.monotonic()
        process.wait(timeout=30)
        errors = process.stderr.read()

    assert time.monotonic() - started < 25  # the whole answer takes 40 s
    assert process.returncode == 1
    assert errors == b""


def test_the_embedded_model_answers_without_key_and_configuration():
    done = program("What is the capital of France?")

    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert done.stderr == (
        "llmkit: answering with the embedded model local/smollm2; choose another with model=, -m or LLMKIT_MODEL\n"
    )


def test_the_usage_of_the_embedded_model_is_free():
    done = program("-m", "local/smollm2", "-o", "max_tokens=12", "-u", "What is the capital of France?")

    assert "Paris" in done.stdout
    assert "0.000000 USD (priced)" in done.stderr


@pytest.mark.parametrize("option", [("max_tokens", "7"), ("max_tokens=7",)])
@pytest.mark.parametrize("flag", ["-o", "--option"])
def test_u8_an_option_has_one_grammar_in_every_command(run, server, flag, option):
    for command in ((), ("ask",)):
        assert run(*command, flag, *option, "--", "hi").exit_code == 0
        assert server.requests[-1].body["max_tokens"] == 7
    assert "answer up to 7 tokens" in run("quote", "-m", "openai/gpt-4o", flag, *option, "hi").stdout
    assert run("quote", flag, "max_tokens").exit_code == 2
