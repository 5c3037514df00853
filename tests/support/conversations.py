"""Conversations by chance, and whose answer a request on a route gets."""

from __future__ import annotations

from llmkit.core.types import Request
from llmkit.providers.routes.direct import Direct
from llmkit.providers.routes.table import table
from llmkit.testing import ScriptedBackend

OF_LITELLM = "from LiteLLM"


_AT = {"url": "https://a.example/a.png"}
A_PICTURE_BY_ADDRESS = [{"role": "user", "content": [{"type": "image_url", "image_url": _AT}]}]


def answered_by(**given):
    """Return the answer to a request: `OF_LITELLM` if its route hands it on; else there is nothing to send it with."""
    request = Request(**{"messages": [{"role": "user", "content": "hi"}], "api_key": "k", **given})
    direct = Direct(lambda request: table().route_of(request.model), lambda: ScriptedBackend(OF_LITELLM), (None, None))
    return direct.send(request).text


def conversation(chance, *, parts, call, thought, beside, pictures_in_results):
    """Return some conversation, as a person or a program could have it.

    Args:
        chance: decides.
        parts: makes a content; called with `pictures`, whether it may have some.
        call: makes a call with an id that has this text in it.
        thought: makes what an assistant's message has besides.
        beside: what a user's message may have besides.
        pictures_in_results: whether results of tools may have some.
    """
    made = [{"role": role, "content": parts(pictures=False)} for role in chance.choice(["", ["system"], ["developer"]])]
    for turn in range(chance.randint(1, 6)):
        made.append({"role": "user", "content": parts(pictures=True), **chance.choice(beside)})
        for _ in range(chance.randint(0, 2)):
            calls = [call(f"{turn}_{len(made)}_{at}") for at in range(chance.randint(0, 2))]
            said = {"role": "assistant", "content": parts(pictures=False) if not calls else chance.choice([None, "so"])}
            made.append({**said, **thought(), **({"tool_calls": calls} if calls else {})})
            results = [(each["id"], parts(pictures=pictures_in_results)) for each in calls]
            made += [{"role": "tool", "tool_call_id": identity, "content": content} for identity, content in results]
    return made
