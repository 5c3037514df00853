"""User code that mypy and pyright refuse, each line that ends in `# wrong`; `test_typing.py` checks it."""

from __future__ import annotations

import llmkit
from llmkit import ChatModel, MultiAIClient


def asks() -> None:
    """Slips."""
    llmkit.ask("hi", modle="openai/gpt-4o")  # wrong
    llmkit.ask("hi", temprature=0)  # wrong
    llmkit.ask("hi", timeout="x")  # wrong
    llmkit.ask("hi", retry="3")  # wrong
    llmkit.ask("hi", temperature="hot")  # wrong
    llmkit.ask("hi", schema="name")  # wrong
    llmkit.stream("hi", max_token=3)  # wrong
    _ = llmkit.ask("hi").choices[0].massage  # wrong


async def awaits() -> None:
    """Slips, awaited."""
    await llmkit.aask("hi", retry="3")  # wrong
    llmkit.astream("hi", timeout="x")  # wrong


def clients(client: MultiAIClient, session: ChatModel) -> None:
    """Slips of clients and sessions."""
    client.invoke("hi", "gpt-4o", trys=2)  # wrong
    client.invoke("hi", "gpt-4o", tries="2")  # wrong
    client.embed(["a"], "embedder", dimension=3)  # wrong
    session.run(temprature=0)  # wrong
    session.run(strem=True)  # wrong
