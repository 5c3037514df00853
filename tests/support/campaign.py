"""What the child processes of the tests run: `python campaign.py WORD URL ...`; each word is a function below.

A child says "ready" when everything is imported and its store is open, and begins when it is told to.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import sys
import time

from llmkit import ChatModel
from llmkit.core.types import Piece
from llmkit.errors import InvalidRequestError, SessionBusyError
from llmkit.presets import Preset
from llmkit.store import Store
from llmkit.testing import ScriptedBackend, ScriptedSource, reply

PRESET = Preset(name="campaign", model="openai/gpt-4o", max_input_tokens=10_000_000)
PIECES, PAUSE_S = 60, 0.025


def start(word, *args):
    """Start a child."""
    command = [sys.executable, __file__, word, *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def go(children):
    """Let all children begin at the same moment, and return how they ended: (status, what they printed)."""
    begin(children)
    return [finished(child) for child in children]


def finished(child):
    """Return how a child ended."""
    printed, _ = child.communicate()
    return child.returncode, printed


def begin(children):
    """Let all children begin at the same moment."""
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()


def run(word, *args):
    """Run one child to its end."""
    return go([start(word, *args)])[0]


def _wait():
    print("ready", flush=True)
    sys.stdin.readline()


# -- what children do -------------------------------------------------------------------------------------------------


def create(url, session):
    """Open a database that may not be there yet, at the same moment as others, and make a session."""
    _wait()
    Store(url).create(session, preset="p", version=None, snapshot={}, messages=[{"role": "user", "content": session}])


def die(url, session, text):
    """Die in the middle of a run."""
    _wait()
    store = Store(url)
    running = store.begin(session)
    if text:
        store.note(session, running, text)
    os._exit(0)


def fork(url, session):
    """Use a store on both sides of a fork, at the same time."""
    store = Store(url)
    store.session(session)
    _wait()
    child = os.fork()
    name = "parent" if child else "child"
    for number in range(20):
        store.add(session, [{"role": "user", "content": f"{name} {number}"}])
        assert {"role": "user", "content": f"{name} {number}"} in store.messages(session)
    if not child:
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class Echo(ScriptedBackend):
    """Answers with the number of messages it was sent and the last of them."""

    def send(self, request):
        time.sleep(random.random() / 200)
        return reply(f"{len(request.messages)} {request.messages[-1]['content']}")


class Slow(ScriptedBackend):
    """Streams an answer that follows from the question, with a pause before each piece."""

    def open(self, request):
        return ScriptedSource(self, _slowly(request.messages[-1]["content"]), None)


def pieces(question):
    """Return the pieces of `Slow`'s answer."""
    return [f"{question}:{number} " for number in range(PIECES)]


def _slowly(question):
    for piece in pieces(question):
        time.sleep(PAUSE_S)
        yield piece
    yield Piece(finish_reason="stop")


def turns(url, name, number):
    """Run turns in a session of one's own, and print its id."""
    answers = [f"answer {name}.{turn}" for turn in range(int(number))]
    chat = ChatModel(PRESET, store=Store(url), backend=ScriptedBackend(*answers))
    _wait()
    for turn in range(int(number)):
        chat.add_messages([{"role": "user", "content": f"question {name}.{turn}"}])
        answered = chat.run()
        assert answered.content == answers[turn], answered.error_log
        assert not answered.warnings, answered.warnings
    print(chat.session_uuid)


def share(url, session, name, number):
    """Run turns in a session that others use too, and print how many answers there were."""
    chat = ChatModel(PRESET, session, store=Store(url), backend=Echo())
    _wait()
    answers = 0
    for turn in range(int(number)):
        chat.add_messages([{"role": "user", "content": f"{name} {turn}"}])
        while isinstance((answered := chat.run()).exception, SessionBusyError):
            time.sleep(random.random() / 100)
        # where the run of another has answered this question as well, there is nothing left to answer
        assert answered.content or isinstance(answered.exception, InvalidRequestError), answered.error_log
        assert not answered.warnings, answered.warnings
        answers += answered.content is not None
    print(answers)


def stream(url, session, log):
    """Stream answers until one is killed; log, unbuffered, what a user has seen: [time, what, question, piece]."""
    chat = ChatModel(PRESET, session, store=Store(url), backend=Slow())
    seen = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(*what):
        os.write(seen, json.dumps([time.monotonic(), *what]).encode() + b"\n")

    _wait()
    for number in itertools.count():
        question = f"{os.getpid()}.{number}"
        write("adding", question, "")
        chat.add_messages([{"role": "user", "content": question}])
        write("added", question, "")
        for piece in chat.run(stream=True):
            assert not piece.error, piece.error_log
            write("piece", question, piece.content)
        write("ended", question, "")


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
