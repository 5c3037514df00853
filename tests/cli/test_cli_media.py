"""`llmkit embed`, `transcribe`, `speak` and `image`."""

from __future__ import annotations

import base64
import json

import pytest
from server import Answer, Status
from test_cli import KEY, run  # noqa: F401 - a fixture

EMBED, WHISPER, TTS, IMAGE = "openai/text-embedding-3-small", "openai/whisper-1", "openai/tts-1", "openai/gpt-image-1"


def test_a_text_becomes_a_vector(run, server):  # noqa: F811
    done = run("embed", "-m", EMBED, "-o", "dimensions", "2", "a text")

    assert isinstance(json.loads(done.stdout), list)
    assert server.requests[0].body["input"] == ["a text"]
    assert server.requests[0].body["dimensions"] == 2


def test_each_line_becomes_a_vector(run):  # noqa: F811
    done = run("embed", "-m", EMBED, "--lines", stdin="a\n\nlonger\n")

    assert [len(json.loads(line)) > 0 for line in done.stdout.splitlines()] == [True, True]


def test_sound_becomes_text(run, server, tmp_path):  # noqa: F811
    (tmp_path / "call.mp3").write_bytes(b"ID3 sound")

    done = run("transcribe", "-m", WHISPER, "call.mp3")

    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.strip()
    assert server.requests[0].path == "/v1/audio/transcriptions"


def test_text_becomes_sound(run, server, tmp_path):  # noqa: F811
    done = run("speak", "-m", TTS, "--voice", "nova", "--to", "hello.mp3", "Hello.")

    assert done.stdout == "hello.mp3\n"
    assert (tmp_path / "hello.mp3").read_bytes()
    assert server.requests[0].body["voice"] == "nova"


def test_pictures_are_written(run, server, tmp_path):  # noqa: F811
    server.script = [Answer(base64.b64encode(b"PNG").decode())]

    done = run("image", "-m", IMAGE, "-o", "n", "2", "--to", "cat.png", "a cat")

    assert done.stdout == "cat.png\ncat-2.png\n"
    assert (tmp_path / "cat.png").read_bytes() == (tmp_path / "cat-2.png").read_bytes() == b"PNG"


def test_what_is_no_picture_is_told(run, server):  # noqa: F811
    server.script = [Answer("not Base64!")]

    done = run("image", "-m", IMAGE, "--to", "cat.png", "a cat")

    assert (done.exit_code, done.stderr) == (1, "llmkit: the picture is not written in Base64\n")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["embed", "a"], "Missing option '-m'"),
        (["speak", "-m", TTS, "--to", "/nowhere/x.mp3", "hi"], "there is no such folder"),
        (["transcribe", "-m", WHISPER, "none.mp3"], "none.mp3"),
        (["embed", "-m", EMBED, ""], "text"),
    ],
)
def test_bad_input_is_told_before_anything_is_sent(run, server, args, told):  # noqa: F811
    done = run(*args)

    assert (done.exit_code, server.requests) == (2, [])
    assert told in done.stderr


@pytest.mark.parametrize("command", [["embed", "-m", EMBED], ["speak", "-m", TTS], ["image", "-m", IMAGE]])
def test_a_refusal_is_one_line(run, server, command):  # noqa: F811
    server.script = [Status(400, body={"error": {"message": "no such thing"}})]

    done = run(*command, "hi")

    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("llmkit: no such thing")
    assert KEY not in done.stderr


def test_it_is_in_the_ledger(run):  # noqa: F811
    from llmkit.money.ledger import ledger_of
    from llmkit.store import opened

    run("embed", "-m", EMBED, "a text")
    ledger_of(opened()).flush()

    assert any(line["model"] == EMBED for line in json.loads(run("usage", "--json").stdout))
