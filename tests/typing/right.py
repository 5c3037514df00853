"""User code that mypy and pyright accept. Nothing of it is run; `test_typing.py` checks what is revealed."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from typing_extensions import assert_type

import llmkit
from llmkit import ChatModel, Deployment, MultiAIClient, Retry


class Dog(BaseModel):
    """A schema."""

    name: str


def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def asks() -> None:
    """Ask in all ways."""
    reply = llmkit.ask("hi", model="openai/gpt-4o", temperature=0, retry=3, timeout=5, tools=[add], tags=["x"])
    assert_type(reply.text, str)
    assert_type(reply.choices[0].message.content, "str | None")
    assert_type(reply.usage.cost_usd, "float | None")
    dog = llmkit.ask("a dog", schema=Dog, retry=Retry(tries=2))
    assert_type(dog.parsed, Dog)
    assert_type(llmkit.ask("a dog", schema={"type": "object"}).parsed, Any)
    for piece in llmkit.stream("hi", max_tokens=5, extra_body={"anything": 1}):
        assert_type(piece.content, str)
    assert_type(llmkit.quote("hi", max_tokens=5).most_usd, "float | None")


async def awaits() -> None:
    """Ask, awaited."""
    dog = await llmkit.aask("a dog", schema=Dog)
    assert_type(dog.parsed, Dog)
    async for piece in llmkit.astream("hi"):
        assert_type(piece.content, str)


def clients(client: MultiAIClient) -> None:
    """Use a client."""
    assert_type(client.invoke("hi", "gpt-4o", schema=Dog, tries=2).parsed, Dog)
    assert_type(client.invoke_to_str("hi", "gpt-4o", delay=0.5, tries=2), "str | None")
    assert_type(client.embed(["a"], "embedder", dimensions=3), "list[list[float]]")
    assert_type(client.deployments["gpt-4o"][0], Deployment)
    client.transcribe("a.mp3", "whisper", language="en", prompt="names")


def sessions(session: ChatModel) -> None:
    """Use a session."""
    reply = session.run(temperature=0, schema=Dog)
    assert_type(reply.error, bool)
    for piece in session.run(stream=True, tools=[add]):
        assert_type(piece.content, str)
