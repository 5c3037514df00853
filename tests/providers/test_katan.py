"""Against `llm-katan`, a server somebody else wrote: OpenAI's, Anthropic's, Azure's, Bedrock's and Vertex' formats."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import pytest
from processes import running

import llmkit
from llmkit.core.retry import ONCE

if TYPE_CHECKING:
    from collections.abc import Iterator

KEYS = {"openai": "llm-katan-openai-key", "anthropic": "llm-katan-anthropic-key", "azure": "llm-katan-azure-key"}


@pytest.fixture(scope="module")
def katan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running echo server with every provider's wire format; its keys are checked."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "llm_katan.cli", "-m", "katan", "-b", "echo", "-h", "127.0.0.1", "-p", str(port)]
    command += ["--providers", "openai,anthropic,azure_openai,bedrock,vertexai", "--log-level", "ERROR"]
    command += ["--stats-file", str(tmp_path_factory.mktemp("katan") / "stats.json"), "--validate-keys"]
    command += ["--api-keys", f"openai={KEYS['openai']},anthropic={KEYS['anthropic']},azure_openai={KEYS['azure']}"]
    with running(command, f"http://127.0.0.1:{port}", "/health") as url:
        yield url


def target(provider: str, url: str) -> dict[str, object]:
    """Return the arguments that send a call of this provider's to katan."""
    return {
        "openai": {"model": "openai/katan", "api_base": f"{url}/v1", "api_key": KEYS["openai"]},
        "anthropic": {"model": "anthropic/katan", "api_base": url, "api_key": KEYS["anthropic"]},
        "azure": {"model": "azure/katan", "api_base": url, "api_key": KEYS["azure"], "api_version": "2024-10-21"},
        "bedrock": {
            "model": "bedrock/anthropic.claude-3-haiku-20240307-v1:0",
            "aws_bedrock_runtime_endpoint": url,
            "aws_access_key_id": "llm-katan-bedrock-key",
            "aws_secret_access_key": "wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPLEKEY",
            "aws_region_name": "us-east-1",
        },
        "gemini": {
            "model": "gemini/katan",
            "api_base": f"{url}/v1beta",
            "api_key": "llm-katan-vertexai-key",
            "extra_headers": {"Authorization": "Bearer llm-katan-vertexai-key"},  # katan knows no x-goog-api-key
        },
    }[provider]


@pytest.mark.parametrize("provider", ["openai", "anthropic", "azure", "bedrock", "gemini"])
def test_an_answer_from_every_wire_format(call, katan, provider):
    answer = call(llmkit, "ask", "hello katan", **target(provider, katan))

    assert "hello katan" in answer.text
    assert answer.finish_reason == "stop"
    assert answer.usage.prompt_tokens > 0
    assert answer.usage.completion_tokens > 0
    assert answer.route == ("litellm" if provider in {"bedrock", "gemini"} else "direct")


@pytest.mark.parametrize("provider", ["openai", "anthropic", "azure", "gemini"])
def test_a_stream_from_every_wire_format(read, katan, provider):
    """All but Bedrock's: katan writes its event stream without the checksums that AWS' own parser wants."""
    pieces, answer = read(llmkit, "stream", "hello katan", **target(provider, katan))

    assert "".join(piece.content for piece in pieces) == answer.text
    assert "hello katan" in answer.text
    assert answer.finish_reason == "stop"


@pytest.mark.parametrize("provider", ["openai", "anthropic", "azure"])
def test_a_wrong_key_is_an_authentication_error(call, katan, provider):
    with pytest.raises(llmkit.AuthenticationError) as caught:
        call(llmkit, "ask", "hi", retry=ONCE, **{**target(provider, katan), "api_key": "wrong-key-0123456789"})

    assert caught.value.status_code == 401
    assert "wrong-key-0123456789" not in str(caught.value)
