"""From what a caller gives to what is asked: preset, variables, parameters, messages and routes, in one `Turn`."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from llmkit import config, ledger, messages, prices
from llmkit._flow import LOCAL, Plan
from llmkit._limits import limiter_of
from llmkit._turn import turn
from llmkit.budgets import purse
from llmkit.deployments import slashed
from llmkit.errors import InvalidRequestError
from llmkit.retry import Retry
from llmkit.types import Request

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from llmkit._limits import Limiter
    from llmkit._turn import Turn
    from llmkit.presets import Preset
    from llmkit.types import Message

DEFAULT_TIMEOUT_S = 600.0
_RETRY = Retry()
_REFUSED = {
    "stream": "use llmkit.stream or llmkit.astream",
    "max_retries": "use retry=Retry(tries=…)",
    "num_retries": "use retry=Retry(tries=…)",
    "messages": "give the messages as the first argument",
}


def prepare(
    prompt: str | Sequence[Message],
    model: str | None,
    preset: str | Preset | None,
    system: str | None,
    options: Mapping[str, Any],
) -> Turn:
    """Return what is asked; what is given here wins over the preset. Nothing is sent yet.

    Raises:
        InvalidRequestError: the arguments cannot be sent.
        ConfigError: a preset or the configuration is wrong.
    """
    given = dict(options)
    for name, advice in _REFUSED.items():
        if name in given:
            raise InvalidRequestError(f"{name} cannot be given here: {advice}")
    chosen = filled(preset, given.pop("variables", None), replaced=given)
    model, chosen = with_default(model, chosen)
    said = messages.build(
        prompt,
        system=_first(system, chosen and chosen.system),
        examples=[example.model_dump() for example in chosen.examples] if chosen else (),
        attachments=given.pop("attachments", ()),
    )
    timeout = _first(given.pop("timeout", None), chosen and chosen.timeout, DEFAULT_TIMEOUT_S)
    retry = _first(given.pop("retry", None), chosen and chosen.retry_policy(), _RETRY)
    given = {**(chosen.turn_options() if chosen else {}), **given}
    asked = turn(
        Plan(
            routes=(),
            retry=retry,
            window=window,
            limiter=limiter(chosen),
            purse=purse(_first(given.pop("budget", None), chosen and chosen.budget), given.pop("store", None)),
            ledger=ledger.chosen(given.pop("ledger", None)),
            marks=ledger.marks(chosen.name if chosen else "", given.pop("session", ""), given.pop("tags", ())),
        ),
        said,
        given,
    )
    timeout_s = messages.seconds(timeout)
    routes = [
        [_request(to, {**params, **given}, timeout_s)]
        for to, params in [(slashed(model), chosen.set_params() if chosen else {}), *_fallbacks(chosen)]
    ]
    return replace(asked, plan=replace(asked.plan, routes=routes))


def filled(
    preset: str | Preset | None, variables: Mapping[str, Any] | None = None, *, replaced: Collection[str] = ()
) -> Preset | None:
    """Return a preset by its name, or as it is, with its variables put in; *replaced* parameters need no value."""
    if preset is None:
        if variables:
            raise InvalidRequestError("variables belong to a preset, and none is chosen")
        return None
    if isinstance(preset, str):
        from llmkit import presets

        preset = presets.load(preset)
    return preset.filled(variables, replaced=replaced)


def with_fallbacks(names: Sequence[str]) -> dict[str, Preset]:
    """Return presets by name, with those they fall back on; a model is a preset of its own."""
    from llmkit.presets import Preset

    found: dict[str, Preset] = {}
    wanted = list(names)
    while wanted:
        name = wanted.pop(0)
        if name in found:
            continue
        is_model = name not in names and ("/" in name or ":" in name)
        found[name] = Preset(model=slashed(name), name=name) if is_model else _loaded(name)
        wanted += found[name].fallbacks
    return found


def _loaded(name: str) -> Preset:
    from llmkit import presets

    model, preset = with_default(None, presets.load(name).filled())
    return preset.changed(model=model) if preset else presets.Preset(model=model)


def limiter(preset: Preset | None) -> Limiter | None:
    """Return who counts the requests of a preset; None where it sets no limits."""
    limits = preset.limits if preset else None
    return limiter_of(preset.name, limits.requests_per_minute, limits.tokens_per_minute) if preset and limits else None


def window(model: str) -> int | None:
    """Return how many tokens a model, by LiteLLM's name, can take; None when that is not known."""
    if model.startswith(LOCAL):
        from llmkit import local

        return local.WINDOW
    from llmkit import _litellm

    return _litellm.window(model)


def _request(model: str, params: dict[str, Any], timeout_s: float) -> Request:
    found = prices.find(model)
    return Request(
        model=model,
        price=found[0] if found else None,
        price_source=found[1] if found else "",
        timeout_s=timeout_s,
        api_key=params.pop("api_key", None),
        api_base=params.pop("api_base", None),
        params=messages.check_params(params),
    )


def _fallbacks(chosen: Preset | None) -> list[tuple[str, dict[str, Any]]]:
    """Return model and parameters of each fallback: a model has those of the preset, a preset its own."""
    if chosen is None:
        return []
    found = []
    for name in chosen.fallbacks:
        if "/" in name or ":" in name:
            shared = {key: value for key, value in chosen.set_params().items() if key not in {"api_key", "api_base"}}
            found.append((slashed(name), shared))
        else:
            other = _loaded(name)
            found.append((slashed(other.model or config.EMBEDDED_MODEL), other.set_params()))
    return found


def with_default(model: str | None, chosen: Preset | None) -> tuple[str, Preset | None]:
    """Return the model that is asked, and the preset; a preset without a model builds on the default one."""
    if model is None and chosen is not None:
        model = chosen.model
    if model is not None:
        return model, chosen
    model, name = config.default_choice()
    if name is not None and (default := filled(name)) is not None:
        return default.model or config.EMBEDDED_MODEL, chosen.over(default) if chosen is not None else default
    if model is None:
        _say_embedded()
    return model or config.EMBEDDED_MODEL, chosen


@cache
def _say_embedded() -> None:
    """Say once which model answers when nobody chose one."""
    advice = "choose another with model=, -m or LLMKIT_MODEL"
    print(f"llmkit: answering with the embedded model {config.EMBEDDED_MODEL}; {advice}", file=sys.stderr)  # noqa: T201


def _first(*values: Any) -> Any:
    """Return the first value that is set, None when none is."""
    return next((value for value in values if value is not None), None)
