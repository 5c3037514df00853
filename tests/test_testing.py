"""`llmkit.testing`, as the tests of somebody's program use it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import llmkit
from llmkit.testing import Answer, ScriptedBackend, ScriptedServer, Status, assert_cost, reply

TEST = """
import llmkit
import pytest

def test_the_program(scripted_server, assert_llm_cost):
    with assert_llm_cost(max_usd=0.01, max_calls=1) as spent:
        assert llmkit.ask("hi", model="openai/gpt-4o").text == "Hello from the server."
    assert (spent.calls, spent.usd > 0) == (1, True)
    assert len(scripted_server.requests) == 1

def test_the_fake(scripted_backend):
    assert llmkit.ask("hi", model="openai/gpt-4o", backend=scripted_backend("yes")).text == "yes"

def test_that_asks_too_often(scripted_backend):
    backend = scripted_backend("only one")
    for _ in range(2):
        llmkit.ask("hi", model="openai/gpt-4o", backend=backend)
"""


def test_pytest_finds_the_fixtures_and_a_script_that_runs_out_is_told_in_one_frame(tmp_path):
    (tmp_path / "test_program.py").write_text(TEST)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert "1 failed, 2 passed" in done.stdout, done.stdout + done.stderr
    assert "request number 2 came, and the script has no more entries" in done.stdout
    assert "llmkit/core" not in done.stdout
    assert done.stdout.count("\n    def ") == 1


def test_a_run_of_pytest_without_them_does_not_import_llmkit(tmp_path):
    (tmp_path / "test_else.py").write_text(
        "import sys\n\ndef test_it():\n    assert 'llmkit.core' not in sys.modules\n"
    )

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout


def test_every_request_counts_and_the_message_lists_them(call):
    backend = ScriptedBackend(llmkit.RateLimitError("slow"), "one", reply("two", usage=llmkit.Usage(cost_usd=0.5)))

    with assert_cost(max_calls=3) as spent:
        call(llmkit, "ask", "hi", model="openai/gpt-4o", backend=backend)
        call(llmkit, "ask", "hi", model="openai/gpt-4o", backend=backend)
    assert spent.calls == 3
    assert spent.usd > 0.5

    told = r"1 requests were sent, 0 were allowed:\n  openai/gpt-4o: 0.0000"
    with pytest.raises(AssertionError, match=told), assert_cost(max_calls=0):
        call(llmkit, "ask", "hi", model="openai/gpt-4o", backend=ScriptedBackend("x"))


def test_streams_count_too(read):
    with ScriptedServer(Answer("a b c")) as server, assert_cost(max_usd=0.01, max_calls=1) as spent:
        read(llmkit, "stream", "hi", model="openai/gpt-4o", api_base=f"{server.url}/v1", api_key="none")

    assert spent.calls == 1


@pytest.mark.parametrize(
    ("cost", "told"), [(0.5, "cost 0.500000 USD, 0.1 were allowed"), (None, "the price of a request is not known")]
)
def test_what_is_too_dear_or_has_no_price_is_a_failure(cost, told):
    backend = ScriptedBackend(reply("x", usage=llmkit.Usage(cost_usd=cost)))

    with pytest.raises(AssertionError, match=told), assert_cost(max_usd=0.1):
        llmkit.ask("hi", model="openai/nobody-knows-it", backend=backend)


def test_an_error_of_the_program_is_not_hidden():
    with pytest.raises(ValueError, match="mine"), assert_cost(max_calls=0):
        raise ValueError("mine")


def test_a_refused_request_costs_nothing(call):
    with (
        ScriptedServer(Status(400)) as server,
        assert_cost(max_usd=0.0, max_calls=1) as spent,
        pytest.raises(llmkit.BadRequestError),
    ):
        call(llmkit, "ask", "hi", model="openai/gpt-4o", api_base=f"{server.url}/v1", api_key="none")

    assert spent.attempts == [("openai/gpt-4o", 0.0)]
