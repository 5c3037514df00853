"""Routes with the LiteLLM that is installed, whichever it is; CI runs this with the newest one too."""

from __future__ import annotations

import pytest
from test_direct import run

SCRIPT = """
import llmkit, sys
reply = llmkit.ask("hi", model={model!r}, api_key="k", api_base={url!r})
from llmkit.providers.routes import backend
backend.wait_for_learning(60)
print(reply.route, "litellm" in sys.modules, reply.text, reply.usage.total_tokens, reply.usage.cost_usd)
"""


@pytest.mark.parametrize("model", ["openai/gpt-4o", "groq/llama-3.3-70b-versatile", "mistral/mistral-small-latest"])
def test_the_second_program_sends_itself(server, tmp_path, monkeypatch, model):
    monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path))
    script = SCRIPT.format(model=model, url=f"{server.url}/v1")

    first, second = run(script).split(), run(script).split()

    assert second[:2] == ["direct", "False"]
    assert second[2:] == first[2:]


def test_the_second_command_or_the_third_sends_itself(server, tmp_path, monkeypatch):
    monkeypatch.setenv("LLMKIT_DATA_DIR", str(tmp_path))
    words = ["-m", "openai/gpt-4o", "-o", f"api_base={server.url}/v1", "-o", "api_key=k", "hi"]
    script = (
        "import sys\n"
        f"sys.argv = ['llmkit', *{words!r}]\n"
        "import atexit\n"
        "atexit.register(lambda: print('litellm' in sys.modules))\n"
        "from llmkit.cli import main\n"
        "main()\n"
    )
    ways = [run(script).split()[-1] for _ in range(10)]  # a busy machine takes a second for less

    assert ways[-1] == "False"
    assert ways == sorted(ways, reverse=True)
