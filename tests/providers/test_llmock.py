"""Against `llmock`, a mock of several providers that somebody else wrote."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
from processes import running

import llmkit

HELLO = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def llmock():
    """A running server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("llmock")), "serve", "--port", str(port)]
    with running(command, f"http://127.0.0.1:{port}", "/openapi.json") as url:
        yield url


@pytest.mark.parametrize("model", ["openai/gpt-4o", "openai/gpt-5", "mistral/mistral-small-latest", "groq/x"])
def test_whole_answers(call, llmock, model):
    answer = call(llmkit, "ask", HELLO, model=model, api_key="k", api_base=f"{llmock}/v1", max_tokens=20)

    assert answer.route == "direct"
    assert "be brief hi" in answer.text
    assert answer.finish_reason == "stop"


def test_streams(read, llmock):
    pieces, answer = read(llmkit, "stream", HELLO, model="openai/gpt-4o", api_key="k", api_base=f"{llmock}/v1")

    assert answer.route == "direct"
    assert "".join(piece.content for piece in pieces) == answer.text
    assert "be brief hi" in answer.text
