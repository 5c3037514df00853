"""`Quote`: what a call would cost, before it is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmkit.core.types import Invoke
from llmkit.errors import BudgetExceededError
from llmkit.money.estimate import estimate
from llmkit.providers.model_info import window

if TYPE_CHECKING:
    from llmkit.core.tool_loop import Turn
    from llmkit.core.types import Flow, Request
    from llmkit.money.estimate import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """The usage and cost that a call would have; US dollars are None if no price is known.

    Attributes:
        model: the model that would be called, as LiteLLM's `provider/model`.
        prompt_tokens: the prompt, by the model's tokenizer.
        answer_tokens: the longest answer: `max_tokens`, else the model's longest.
        window: the context window of the model, or None if it is not known.
        fits: whether the prompt fits it, or None if it is not known.
        least_usd: the prompt, and an answer of one token.
        expected_tokens: the length of the answer that the request plans for, its `max_tokens`, or None if it sets none,
            since nobody knows how long an answer will be.
        expected_usd: the prompt by the model's tokenizer, and such an answer.
        most_usd: the longest the prompt can be with any tokenizer, and the longest answer: what a budget reserves.
        refused: why a budget would refuse the call, or "" if none would.
    """

    model: str
    prompt_tokens: int
    answer_tokens: int
    window: int | None
    fits: bool | None
    expected_tokens: int | None
    least_usd: float | None
    expected_usd: float | None
    most_usd: float | None
    refused: str = ""


def quote_of(turn: Turn) -> Flow[Quote]:
    """Return what the first round of a turn would cost; nothing is sent, and nothing stays reserved."""
    plan = turn.plan_for(turn.messages)
    request = plan.routes[0][0]
    estimated = yield Invoke(_estimate, (request,))
    room: int | None = yield Invoke(window, (request.model,))
    answer = estimated.answer_most if estimated.limited else None
    refused = ""
    if plan.guard is not None:
        try:
            held = yield from plan.guard.reserve(request, plan.labels)
        except BudgetExceededError as error:
            refused = str(error)
        else:
            yield from plan.guard.let_go(held, may_be_paid=False)
    return Quote(
        model=request.model,
        prompt_tokens=estimated.prompt_tokens,
        answer_tokens=estimated.answer_most,
        window=room,
        fits=None if room is None else estimated.prompt_tokens < room,
        least_usd=estimated.usd(estimated.prompt_tokens, 1),
        expected_tokens=answer,
        expected_usd=None if answer is None else estimated.usd(estimated.prompt_tokens, answer),
        most_usd=estimated.most_usd(),
        refused=refused,
    )


def _estimate(request: Request) -> Estimate:
    estimated = estimate(request)
    _ = estimated.prompt_tokens  # here, where the tokenizer may take its time
    return estimated
