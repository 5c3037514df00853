"""Compares the two ways: what a route sends with what LiteLLM sends, and what llmkit makes of the same answers."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from llmkit.core.types import Reply, Request
from llmkit.errors import LlmkitError
from llmkit.providers.routes.dialects import ANTHROPIC, GEMINI, OPENAI
from llmkit.providers.routes.dialects import openai as reading
from llmkit.providers.routes.direct import Direct
from llmkit.providers.routes.learning import answers, anthropic_answers, gemini_answers, probes
from llmkit.providers.routes.learning.loopback import AwaitedLoopback, Canned, Loopback
from llmkit.providers.routes.learning.observe import KEY, Observer, outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from llmkit.providers.routes.route import Route


_ANSWERS: Mapping[str, Any] = {OPENAI: answers, ANTHROPIC: anthropic_answers, GEMINI: gemini_answers}
SEVERAL = "two choices"
_MADE_UP = re.compile(r"call_[0-9a-f]{28}")
"""The ids of calls of a provider that gives them none, by chance another one each time."""
_DECIDING = {
    reading.CALLS: (answers.WHOLE["tools and stop"], False),
    reading.REASONING: (answers.WHOLE["reasoning"], False),
    reading.THOUGHT: (answers.WHOLE["think"], False),
    reading.NULL: (answers.WHOLE["empty text"], False),
    reading.ONE_WORD: (answers.STREAMS["reasoning_content"], True),
}


def habits_of(route: Route, observer: Observer) -> list[str]:
    """Return how LiteLLM reads a provider's answers, as far as providers differ."""
    kept: list[str] = []
    if route.access.dialect != OPENAI:
        return kept
    for habit, (answer, stream) in _DECIDING.items():
        if stream and "stream" not in route.behaviour.effects:
            continue
        for habits in ([], [habit]):
            tried = replace(route, behaviour=replace(route.behaviour, habits=habits))
            if not list(_of_answer(tried, observer, answer, stream=stream)):
                kept += habits
                break
    return kept


def differences(
    route: Route, observer: Observer, *, awaited: bool = False, every: int = 1, first: int = 0, unasked: bool = True
) -> Iterator[str]:
    """Yield each answer of which llmkit makes something else on the route than on LiteLLM's way.

    Of all answers one in *every* is tried, beginning with the *first*; without *unasked* those are left out that only
    follow requests that no route covers: versions of LiteLLM differ in them.
    """
    for at, (name, answer, stream) in enumerate(_recorded(route, unasked=unasked), first + 1):
        if at % every == 0:
            for what in _of_answer(route, observer, answer, stream=stream, awaited=awaited):
                yield f"{name}: {what}"


def steps(route: Route, observer: Observer) -> list[Callable[[], bool]]:
    """Return what has to be so that the answers to what it covers are read on the route as on LiteLLM's way."""
    asked = _recorded(route, unasked=False)
    return [partial(_is_read_so, route, observer, answer, stream=stream) for _, answer, stream in asked]


def _is_read_so(route: Route, observer: Observer, answer: Canned, *, stream: bool) -> bool:
    return next(_of_answer(route, observer, answer, stream=stream), None) is None


def _recorded(route: Route, *, unasked: bool) -> Iterator[tuple[str, Canned, bool]]:
    """Yield the name of each answer that a route may get, the answer, and whether it is one to a stream."""
    recorded = _ANSWERS[route.access.dialect]
    kinds: list[tuple[str, bool, Mapping[str, Canned]]] = [
        ("answer", False, recorded.WHOLE),
        ("refusal", False, recorded.REFUSALS),
    ]
    if "stream" in route.behaviour.effects:
        kinds += [("stream", True, recorded.STREAMS), ("refused stream", True, recorded.REFUSALS)]
    for kind, stream, several in kinds:
        for name, answer in several.items():
            if stream and name == SEVERAL and not route.behaviour.covers(["n=many", "stream"]):
                continue
            if unasked or name not in recorded.UNASKED:
                yield f"{kind} {name}", answer, stream


def _of_answer(
    route: Route, observer: Observer, answer: Canned, *, stream: bool = False, awaited: bool = False
) -> Iterator[str]:
    request = Request(model=f"{route.provider}/{route.model}", messages=probes.HELLO, api_key=KEY, timeout_s=30)
    if not route.access.base:
        path = "" if "{model}" in route.access.path else "/v1"
        request = replace(request, api_base=f"https://probe.invalid{path}")
    ours = _on_route(route, request, answer, stream=stream, awaited=awaited)
    theirs = observer.outcome(request, answer, stream=stream, awaited=awaited)
    for what, (one, other) in _unequal(ours, theirs).items():
        if what != "raw" or not stream:  # of a stream it is llmkit's own
            yield f"{what}: {one!r} on the route, {other!r} from LiteLLM"


def _on_route(route: Route, request: Request, answer: Canned, *, stream: bool, awaited: bool) -> Reply | LlmkitError:
    blocking, unblocking = Loopback(answer), AwaitedLoopback(answer)
    direct = Direct(lambda _: route, _nobody, (lambda: blocking, lambda: unblocking))
    return outcome(direct, request, stream=stream, awaited=awaited)


def _nobody() -> Any:
    raise AssertionError("the route covers what it is compared with")


def _unequal(ours: Reply | LlmkitError, theirs: Reply | LlmkitError) -> dict[str, tuple[Any, Any]]:
    one, other = _shown(ours), _shown(theirs)
    return {
        name: (one.get(name), other.get(name)) for name in one.keys() | other.keys() if one.get(name) != other.get(name)
    }


def _shown(result: Reply | LlmkitError) -> dict[str, Any]:
    """Return what a user can see of a result, in a form that can be compared."""
    if isinstance(result, LlmkitError):
        names = ("status_code", "retryable", "retry_after_s", "partial", "may_be_paid", "sent", "provider")
        return {"class": type(result).__name__, **{name: getattr(result, name, None) for name in names}}
    usage = asdict(result.usage)
    cost = usage.pop("cost_usd")
    return {
        "class": "Reply",
        "text": result.text,
        "model": result.model,
        "finish_reason": result.finish_reason,
        "usage": usage,
        "cost": None if cost is None else float(f"{cost:.9g}"),
        "choices": [_without_chance(choice.model_dump(exclude_none=True)) for choice in result.choices],
        "warnings": result.warnings,
        "raw": result.raw,
    }


def _without_chance(value: Any) -> Any:
    """Return a choice in which ids that were made up have their form only."""
    if isinstance(value, dict):
        return {name: _without_chance(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_chance(item) for item in value]
    return _MADE_UP.sub("call_?", value) if isinstance(value, str) else value
