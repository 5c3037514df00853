"""Replies to requests other than chats: embeddings, transcriptions, speech, images."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from llmkit.core.types import Price, Reply, Request, Usage
from llmkit.errors import BadRequestError
from llmkit.providers.litellm.model_map import map_price
from llmkit.providers.prices import cost_of_audio, cost_of_tokens

if TYPE_CHECKING:
    from collections.abc import Mapping


def other_reply(request: Request, raw: Any, body: Any, started: float) -> Reply:
    """Return LiteLLM's response to such a request as a Reply, priced by what was used; *body* is its JSON."""
    price = request.price or map_price(request.priced_as or request.model) or Price()
    counts = getattr(raw, "usage", None)
    prompt = getattr(counts, "prompt_tokens", 0) or 0
    completion = getattr(counts, "completion_tokens", 0) or 0
    params, text, data, cost = request.params, "", None, None
    if request.kind == "embed":
        data = [entry["embedding"] for entry in sorted(raw.data, key=lambda entry: entry.get("index", 0))]
        cost = cost_of_tokens(price, prompt, 0) if prompt else None
    elif request.kind == "transcribe":
        text = raw.text or ""
        cost = cost_of_audio(price, _seconds_of(raw, params))
        cost = cost_of_tokens(price, prompt, completion) if cost is None and prompt else cost
    elif request.kind == "speak":
        data = raw.content
        cost = None if price.character is None else price.character * len(params["input"])
    elif not getattr(raw, "data", None):
        raise BadRequestError(f"LiteLLM makes no pictures with {request.model}", model=request.model)
    else:
        data = [entry.b64_json or entry.url for entry in raw.data]
        cost = price.image * len(data) if price.image is not None else None
    if cost is None and request.price is None:
        cost = (getattr(raw, "_hidden_params", None) or {}).get("response_cost") or None
        cost = None if cost is not None and cost < 0 else cost  # of a sound that lasts less than no time
    named = request.priced_as or request.model
    why = f"no price is known for {named}"
    if request.kind == "transcribe" and price.minute is not None:
        why = "the provider does not say how long the sound is, so its price is not known: give its duration"
    return Reply(
        text=text,
        model=getattr(raw, "model", None) or request.model,
        usage=Usage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            cost_usd=cost,
            source="unpriced" if cost is None else "priced",
        ),
        latency_s=time.monotonic() - started,
        warnings=request.notes if cost is not None else (*request.notes, why),
        raw=body,
        data=data,
    )


def _seconds_of(raw: Any, params: Mapping[str, Any]) -> float | None:
    hidden = getattr(raw, "_hidden_params", None) or {}
    duration = getattr(raw, "duration", None) or hidden.get("duration") or params.get("duration")
    return float(duration) if duration is not None and float(duration) >= 0 else None
