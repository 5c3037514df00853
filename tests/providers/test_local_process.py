"""The process of a model on this machine: who starts it, who finds it, when it ends, and what a stranger gets of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import on_terminal, run
from server import auntil

import llmkit
from llmkit.errors import IncompleteStreamError
from llmkit.providers import local

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is left running on Windows")
QUESTION = ("-m", "local/smollm2", "-o", "max_tokens=8", "What is the capital of France?")
KEPT_S = 60


@pytest.fixture(autouse=True)
def kept(weights, tmp_path, monkeypatch):
    """The folder of what is left running, which ends with the test."""
    monkeypatch.setenv("LLMKIT_CACHE_DIR", str(weights))
    monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LLMKIT_LOCAL_KEEP_S", str(KEPT_S))
    folder = tmp_path / "data" / "local"
    yield folder
    for file in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            os.kill(json.loads(file.read_text())["pid"], signal.SIGKILL)


@pytest.fixture(scope="module")
def left(weights, tmp_path_factory):
    """The folder of one that a command on a terminal has left running, for tests that change nothing of it."""
    data = tmp_path_factory.mktemp("left")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMKIT_CACHE_DIR", str(weights))
        patch.setenv("LLMKIT_DATA_DIR", str(data))
        patch.setenv("LLMKIT_LOCAL_KEEP_S", "600")
        assert "Paris" in on_terminal(*QUESTION)
    yield data / "local"
    os.kill(address_in(data / "local").pid, signal.SIGKILL)


@pytest.fixture
def found(left, monkeypatch):
    """Its folder, where the commands of the test look."""
    monkeypatch.setenv("LLMKIT_DATA_DIR", str(left.parent))
    return left


def address_in(folder):
    """Return the address in the only file of *folder*."""
    (file,) = folder.glob("*.json")
    return local.LocalServer(**json.loads(file.read_text()))


def python(code, *arguments):
    """Run *code* in a Python of its own, which says what it leaves open; return its stdout."""
    command = [sys.executable, "-X", "dev", "-c", f"from llmkit.providers import local\n{code}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def ended(server, within_s=10):
    """Return whether a server ends within some seconds."""
    deadline = time.monotonic() + within_s
    while server.proves():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def is_busy(server):
    request = urllib.request.Request(f"{server.url[:-3]}/slots", headers={"authorization": f"Bearer {server.key}"})
    with urllib.request.urlopen(request) as response:
        return any(slot["is_processing"] for slot in json.load(response))


def answered(server):
    """Return how many tokens a server has answered with."""
    request = urllib.request.Request(f"{server.url[:-3]}/metrics", headers={"authorization": f"Bearer {server.key}"})
    with urllib.request.urlopen(request) as response:
        return int(re.search(r"^llamacpp:tokens_predicted_total (\d+)", response.read().decode(), re.MULTILINE)[1])


def crash(server):
    os.kill(server.pid, signal.SIGKILL)
    assert ended(server)


# -- on a terminal --------------------------------------------------------------------------------------------------


def test_the_next_command_on_a_terminal_finds_the_model_loaded(found):
    first = address_in(found)
    began = time.monotonic()
    assert "Paris" in on_terminal(*QUESTION)

    assert address_in(found) == first
    assert time.monotonic() - began < 5
    assert first.proves()


def test_only_the_user_can_read_where_it_is(left):
    (file,) = left.glob("*.json")
    assert stat.S_IMODE(left.stat().st_mode) == 0o700
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert address_in(left).key not in repr(address_in(left))


def test_it_ends_when_nobody_asks_and_leaves_no_file(kept, monkeypatch):
    monkeypatch.setenv("LLMKIT_LOCAL_KEEP_S", "1")
    on_terminal(*QUESTION)
    server = address_in(kept)

    assert server.proves()
    deadline = time.monotonic() + 20
    while list(kept.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert list(kept.glob("*.json")) == []
    assert ended(server)


@pytest.mark.parametrize("setting", [{"LLMKIT_LOCAL_KEEP_S": "0"}, {"CI": "true"}])
def test_it_is_not_left_where_nobody_wants_it(kept, monkeypatch, setting):
    for name, value in setting.items():
        monkeypatch.setenv(name, value)

    assert "Paris" in on_terminal(*QUESTION)
    assert list(kept.glob("*.json")) == []


def test_without_a_terminal_one_that_is_there_is_used_and_none_is_left(kept, left):
    assert "Paris" in run(QUESTION).stdout
    assert list(kept.glob("*.json")) == []

    server = address_in(left)
    before = answered(server)
    os.kill(server.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(run, QUESTION, LLMKIT_DATA_DIR=str(left.parent))
        time.sleep(0.5)
        os.kill(server.pid, signal.SIGCONT)
        assert "Paris" in answer.result().stdout
    assert answered(server) > before
    assert address_in(left) == server


def test_a_long_question_says_that_it_is_being_read(found):
    long = "international development " * 160  # few tokens for its length: it is read in some seconds
    seen = on_terminal("-m", "local/smollm2", "-o", "max_tokens=4", long)
    said = re.findall(r"\r\x1b\[K([^\r\n]*)", seen)

    assert said[0] == "llmkit: reading about 1,040 tokens"
    read = [re.fullmatch(r"llmkit: reading (\d+) tokens, (\d+) so far", line).groups() for line in said[1:-1]]
    assert len(read) > 2
    assert read[-1][0] == read[-1][1]
    assert said[-1]  # the answer takes the place of the line
    assert "reading" not in on_terminal(*QUESTION)


def test_a_long_question_that_is_left_is_read_no_further():
    server = local.serve("smollm2")

    async def leave():
        async with llmkit.astream("The quick brown fox jumps. " * 400, model="local/smollm2") as stream:
            first = asyncio.create_task(anext(stream))
            await auntil(lambda: is_busy(server))
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first

    asyncio.run(leave())
    began = time.monotonic()
    while is_busy(server):
        time.sleep(0.05)

    assert time.monotonic() - began < 5  # all of it takes half a minute


# -- one process for all, and the right one -------------------------------------------------------------------------


def test_two_commands_at_once_start_one_process():
    code = f"print(local.serve('smollm2', {KEPT_S}).pid)"
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(python, [code] * 2)

    assert first == second


def test_two_threads_get_one_server():
    gate = threading.Barrier(2)
    crash(local.serve("smollm2"))

    def serve(_):
        gate.wait()
        return local.serve("smollm2")

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(serve, range(2))

    assert first is second


def test_another_version_starts_its_own(kept):
    first = python(f"print(local.serve('smollm2', {KEPT_S}).pid)")
    other = python(f"import llmkit; llmkit.__version__ = '0.0'; print(local.serve('smollm2', {KEPT_S}).pid)")

    assert first != other
    assert len(list(kept.glob("*.json"))) == 2


# -- a program of its own -------------------------------------------------------------------------------------------


def test_it_ends_with_the_program_that_started_it(kept):
    server = local.LocalServer(**json.loads(python("print(local.serve('smollm2').as_json())")))

    assert ended(server)
    assert not kept.exists()


def test_it_ends_with_a_program_that_is_killed():
    code = "from llmkit.providers import local; print(local.serve('smollm2').as_json(), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as program:
        server = local.LocalServer(**json.loads(program.stdout.readline()))
        assert server.proves()
        program.kill()

    assert ended(server)


BUSY = """
import http.client, json, sys, threading, time
server = local.serve("smollm2")
body = {"messages": [{"role": "user", "content": "Tell me a story."}], "ignore_eos": True, "max_tokens": 4000}
def ask():
    connection = http.client.HTTPConnection(server.url[7:-3])
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"authorization": "Bearer " + server.key})
    connection.getresponse()
threading.Thread(target=ask, daemon=True).start()
time.sleep(0.5)
print(server.as_json())
"""


def test_a_program_and_its_model_end_at_once_while_a_request_is_under_way():
    assert ended(local.LocalServer(**json.loads(python(BUSY))))


FORKS = """
import os, sys
mine = local.serve("smollm2")
ends = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        assert local.serve("smollm2") == mine
        sys.exit(7)
    ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(ends, mine.proves())
"""


def test_a_forked_child_uses_its_parents_and_does_not_end_it():
    assert python(FORKS) == "[7, 7] True\n"


LEFT = """
import os, sys, time
server = local.serve("smollm2")
if os.fork() == 0:
    os.close(1)
    os.close(2)
    time.sleep(2)
    os._exit(0 if server.proves() else 1)
print(server.as_json())
"""


def test_a_child_that_lives_longer_keeps_it():
    server = local.LocalServer(**json.loads(python(LEFT)))

    assert server.proves()
    assert ended(server)


def test_it_holds_no_pipe_of_the_one_who_started_it(kept):
    began = time.monotonic()
    python(f"local.serve('smollm2', {KEPT_S})")  # a process that held stdout would be waited for

    assert time.monotonic() - began < KEPT_S / 2
    assert address_in(kept).proves()


# -- crashes --------------------------------------------------------------------------------------------------------


def test_a_crash_is_an_error_of_one_call():
    server = local.serve("smollm2")
    stream = llmkit.stream("Tell me a long story.", model="local/smollm2", retry=llmkit.Retry(tries=1))
    first = next(piece.content for piece in stream if piece.content)
    crash(server)

    with pytest.raises(IncompleteStreamError) as caught:
        list(stream)

    assert caught.value.partial.startswith(first)
    assert "Paris" in llmkit.ask("What is the capital of France?", model="local/smollm2").text


def test_a_crash_before_the_answer_is_made_good_by_the_next_try():
    crash(local.serve("smollm2"))

    assert "Paris" in llmkit.ask("What is the capital of France?", model="local/smollm2").text


def test_a_server_is_started_anew_after_a_crash():
    first = local.serve("smollm2")
    assert local.serve("smollm2") is first
    crash(first)

    anew = local.serve("smollm2")

    assert anew.key != first.key
    assert anew.proves()


def test_the_file_of_one_that_crashed_is_taken_away(kept):
    other = "import llmkit; llmkit.__version__ = '0.0'\n"
    python(f"{other}local.serve('smollm2', {KEPT_S})")
    (stale,) = kept.glob("*.json")
    crash(address_in(kept))

    python(f"local.serve('smollm2', {KEPT_S})")

    assert not stale.exists()
    assert address_in(kept).proves()


# -- strangers ------------------------------------------------------------------------------------------------------


class Stranger:
    """Somebody who has got the ports of a server that has ended, answers with as much as a proof, and listens."""

    def __init__(self):
        self.heard = b""
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
        self.ports = [listener.getsockname()[1] for listener in self._sockets]
        for listener in self._sockets:
            threading.Thread(target=self._listen, args=(listener,), daemon=True).start()

    def _listen(self, listener):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                connection.settimeout(1)
                connection.sendall(b"x" * 32)
                with contextlib.suppress(OSError):
                    while part := connection.recv(4096):
                        self.heard += part
                connection.close()

    def close(self):
        for listener in self._sockets:
            listener.close()


def test_a_stranger_at_the_port_gets_neither_prompt_nor_key(kept):
    python(f"local.serve('smollm2', {KEPT_S})")
    server = address_in(kept)
    crash(server)
    stranger = Stranger()
    (file,) = kept.glob("*.json")
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, "url": f"http://127.0.0.1:{stranger.ports[0]}/v1", "door": stranger.ports[1]}))

    assert "Paris" in on_terminal(*QUESTION)

    stranger.close()
    assert address_in(kept).door not in stranger.ports
    assert len(stranger.heard) % 32 == 0  # nonces, and nothing else
    assert server.key.encode() not in stranger.heard
    assert b"France" not in stranger.heard


def readable(folder, file):
    file.chmod(0o644)


def linked(folder, file):
    file.rename(folder / "elsewhere")
    file.symlink_to(folder / "elsewhere")


def piped(folder, file):
    file.unlink()
    os.mkfifo(file, 0o600)


def noise(folder, file):
    file.write_text('{"url": 1}')


def test_a_file_that_others_may_have_written_is_not_read(kept):
    """Whatever is done to it, the next command starts a process of its own, and its file takes the other's place."""
    code = f"print(local.serve('smollm2', {KEPT_S}).pid)"
    pid = python(code)
    for change in (readable, linked, piped, noise):
        (file,) = kept.glob("*.json")
        change(kept, file)

        again = python(code)

        os.kill(int(pid), signal.SIGKILL)
        assert again != pid, change
        assert address_in(kept).proves(), change
        pid = again


@pytest.mark.parametrize("way", ["open", "link"])
def test_a_folder_that_others_may_enter_is_not_used(kept, tmp_path, way):
    kept.parent.mkdir()
    if way == "open":
        kept.mkdir()
        kept.chmod(0o755)
    else:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        kept.symlink_to(tmp_path / "elsewhere")

    assert "Paris" in on_terminal(*QUESTION)
    assert list(Path(kept).iterdir()) == []
