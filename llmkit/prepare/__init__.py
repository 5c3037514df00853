"""From the caller's arguments to a `Turn`: preset, variables, parameters, messages and routes."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

from llmkit import config
from llmkit.core import messages
from llmkit.core.call import CallPlan
from llmkit.core.params import check_params
from llmkit.core.retry import USUAL, Retry
from llmkit.core.tool_loop import turn
from llmkit.core.types import CallLabels
from llmkit.errors import InvalidRequestError
from llmkit.money import ledger
from llmkit.providers.deployments import Deployment, belongs_to_address
from llmkit.providers.model_info import full_name, window

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.core.call import Limiter
    from llmkit.core.tool_loop import Turn
    from llmkit.core.types import Kind, Message, Request
    from llmkit.money.account import UsageTracker
    from llmkit.money.guard import BudgetGuard
    from llmkit.money.ledger import Ledger
    from llmkit.presets import Preset

DEFAULT_TIMEOUT_S = 600.0
Routes: TypeAlias = "Sequence[tuple[str, Sequence[Deployment]]]"
"""The models that may answer, in order: a logical name ("" for none) and its deployments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """The policies of a call where neither the call nor its preset sets them."""

    retry: Retry = USUAL
    timeout_s: float = DEFAULT_TIMEOUT_S
    account: UsageTracker | None = None
    ledger: Ledger | None = None
    guard: BudgetGuard | None = None


def prepare(
    prompt: str | Sequence[Message],
    model: str | None,
    preset: str | Preset | None,
    system: str | None,
    options: Mapping[str, Any],
) -> Turn:
    """Return the turn for a model or a preset; the arguments win over the preset. Nothing is sent yet.

    Raises:
        InvalidRequestError: the arguments cannot be sent.
        ConfigError: a preset or the configuration is wrong.
    """
    given = dict(options)
    chosen = filled(preset, given.pop("variables", None), replaced=given)
    model, chosen = with_default(model, chosen)
    address = {name: given.pop(name) for name in list(given) if belongs_to_address(name)}
    check_params(address)
    first = Deployment.of_model(model, {**(chosen.set_params() if chosen else {}), **address})
    terms = Terms(
        ledger=ledger.chosen(given.pop("ledger", None)),
        guard=_guard(_first(given.pop("budget", None), chosen and chosen.budget), given.pop("store", None)),
    )
    return build(prompt, system, chosen, [("", (first,)), *_fallbacks(chosen)], given, terms)


def build(
    prompt: str | Sequence[Message],
    system: str | None,
    preset: Preset | None,
    routes: Routes,
    options: Mapping[str, Any],
    terms: Terms,
) -> Turn:
    """Return the turn for messages and the models that may answer: the one way from arguments to requests.

    *options* are the caller's, except those that choose the model; *preset* fills in what they leave out.

    Raises:
        InvalidRequestError: the arguments cannot be sent.
    """
    given = dict(options)
    conversation = messages.build(
        prompt,
        system=_first(system, preset and preset.system),
        examples=(preset.plain("examples") or ()) if preset else (),
        attachments=given.pop("attachments", ()),
    )
    shape = preset.turn_options() if preset else {}
    shape |= {name: given.pop(name) for name in ("tools", "max_rounds", "schema") if name in given}
    plan = _plan(routes, "chat", given, terms, preset, preset.name if preset else "", conversation)
    return turn(plan, conversation, **shape)


def plan_of(
    routes: Routes, kind: Kind, options: Mapping[str, Any], terms: Terms, preset: Preset | None = None
) -> CallPlan:
    """Return the plan of a call other than a chat: audio, images, embeddings.

    *preset* fills in what *options* leave out, and is recorded under the name of the first route.
    """
    return _plan(routes, kind, dict(options), terms, preset, routes[0][0] if preset else "")


def _plan(
    routes: Routes,
    kind: Kind,
    given: dict[str, Any],
    terms: Terms,
    preset: Preset | None,
    label: str,
    conversation: Sequence[Message] = (),
) -> CallPlan:
    """Return the plan for what is *given* of policies and parameters; *label* is the preset's name in the ledger."""
    timeout_s = messages.seconds(_first(given.pop("timeout", None), preset and preset.timeout, terms.timeout_s))
    retry = Retry.of(_first(given.pop("retry", None), preset and preset.retry_policy(), terms.retry))
    labels = _labels(label, given.pop("session", ""), given.pop("tags", None) or ())
    check_params(given)
    return CallPlan(
        routes=_requests(routes, kind, given, timeout_s, conversation),
        retry=retry,
        window=window,
        account=terms.account,
        limiter=_limiter(preset),
        ledger=terms.ledger,
        guard=terms.guard,
        labels=labels,
    )


def _labels(preset: str, session: str, tags: Any) -> CallLabels:
    if not isinstance(tags, Collection) or isinstance(tags, str) or not all(isinstance(tag, str) for tag in tags):
        raise InvalidRequestError(f"tags must be a list of texts, not {tags!r}")
    return CallLabels(preset=preset, session=session, tags=tuple(tags))


def _requests(
    routes: Routes, kind: Kind, params: Mapping[str, Any], timeout_s: float, conversation: Sequence[Message]
) -> list[list[Request]]:
    """Return the requests that reach each deployment of each route."""
    given: dict[str, Any] = {"kind": kind, "messages": conversation, "params": params, "timeout_s": timeout_s}
    return [[deployment.request(**given, name=name) for deployment in deployments] for name, deployments in routes]


def filled(
    preset: str | Preset | None, variables: Mapping[str, Any] | None = None, *, replaced: Collection[str] = ()
) -> Preset | None:
    """Return a preset, by name or as given, with its variables filled in; *replaced* parameters need no value."""
    if preset is None:
        if variables:
            raise InvalidRequestError("variables belong to a preset, and none is chosen")
        return None
    from llmkit import presets

    if isinstance(preset, str):
        preset = presets.load(preset)
    if not isinstance(preset, presets.Preset):
        raise InvalidRequestError(f"preset must be a preset's name or a Preset, not {preset!r:.80}")
    return preset.filled(variables, replaced=replaced)


def with_fallbacks(names: Sequence[str], given: Mapping[str, Preset] | None = None) -> dict[str, Preset]:
    """Return presets by name, those that are given too, with what they fall back on; a model counts as a preset."""
    from llmkit.presets import Preset

    loaded = dict(given or {})
    wanted = [*names, *(fallback for preset in loaded.values() for fallback in preset.fallbacks)]
    while wanted:
        name = wanted.pop(0)
        if name in loaded:
            continue
        is_model = name not in names and ("/" in name or ":" in name)
        loaded[name] = Preset(model=full_name(name), name=name) if is_model else _loaded(name)
        wanted += loaded[name].fallbacks
    return loaded


def _loaded(name: str) -> Preset:
    from llmkit import presets

    model, preset = with_default(None, presets.load(name).filled())
    return preset.changed(model=model) if preset else presets.Preset(model=model)


def _limiter(preset: Preset | None) -> Limiter | None:
    """Return what keeps a preset's calls within its limits; the store is opened if it sets any."""
    if preset is None or preset.plain("limits") is None:
        return None
    from llmkit.prepare.limits import limiter_of

    return limiter_of(preset)


def _guard(budgets: Any, store: Any) -> BudgetGuard | None:
    """Return the guard of budgets, which is imported if there are any."""
    if budgets is None:
        return None
    from llmkit.money.guard import guard_of

    return guard_of(budgets, store)


def _fallbacks(chosen: Preset | None) -> list[tuple[str, Sequence[Deployment]]]:
    """Return the fallbacks of a preset: models take its parameters, presets their own; keys stay with theirs."""
    if chosen is None or not chosen.fallbacks:
        return []
    shared = {name: value for name, value in chosen.set_params().items() if not belongs_to_address(name)}
    routes: list[tuple[str, Sequence[Deployment]]] = []
    for name in chosen.fallbacks:
        if "/" in name or ":" in name:
            routes.append(("", (Deployment.of_model(name, shared),)))
        else:
            other = _loaded(name)
            routes.append(("", (Deployment.of_model(other.model or config.EMBEDDED_MODEL, other.set_params()),)))
    return routes


def with_default(model: str | None, chosen: Preset | None) -> tuple[str, Preset | None]:
    """Return the model to call and the preset; a preset without a model builds on the default one."""
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
    """Log once which model answers if none was chosen."""
    advice = "choose another with model=, -m or LLMKIT_MODEL"
    print(f"llmkit: answering with the embedded model {config.EMBEDDED_MODEL}; {advice}", file=sys.stderr)  # noqa: T201


def _first(*values: Any) -> Any:
    """Return the first value that is set, or None if none is."""
    for value in values:
        if value is not None:
            return value
    return None
