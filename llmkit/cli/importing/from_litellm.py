"""A config of LiteLLM's proxy as presets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from llmkit.cli.importing import not_taken_over, told
from llmkit.cli.setup.presets import remove_if_wrong, write_new
from llmkit.config import yaml
from llmkit.config.secrets import is_secret
from llmkit.errors import InvalidRequestError, PresetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_BUDGET = "litellm"
_PERIODS = {"24h": "day", "1d": "day", "7d": "week", "30d": "month", "1mo": "month"}
_LIMITS = {"rpm": "requests_per_minute", "tpm": "tokens_per_minute"}
_ENTRY = {"model_name", "litellm_params"}
_READ = {
    "router_settings": {"num_retries", "retry_after", "timeout", "fallbacks"},
    "litellm_settings": {"num_retries", "request_timeout", "fallbacks", "drop_params", "max_budget", "budget_duration"},
}
_REFERENCE = re.compile(r"^os\.environ/[A-Za-z_]\w*$")


def taken_over(file: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Write presets to a folder, and yield the name of each thing in the config and what became of it."""
    try:
        config = yaml.load_file(file).data
    except (OSError, yaml.YamlError) as error:
        raise InvalidRequestError(f"{file} cannot be read: {error}") from error
    models = config.get("model_list") if isinstance(config, dict) else None
    if not isinstance(models, list) or not all(_is_entry(entry) for entry in models):
        raise InvalidRequestError(f"{file}: this is no config of LiteLLM's: model_list is missing or wrong")
    settings = {name: config[name] if isinstance(config.get(name), dict) else {} for name in _READ}
    shared = _shared(settings)
    names = _names(models)
    fallbacks = _fallbacks(settings, names)
    yield from told("max_budget", _budget(settings["litellm_settings"], shared))
    written: dict[Path, str] = {}
    for number, (entry, name) in enumerate(zip(models, names, strict=True)):
        later = zip(models[number + 1 :], names[number + 1 :], strict=True)
        others = [other for model, other in later if model["model_name"] == entry["model_name"]]
        data = {**shared, "fallbacks": [*others, *fallbacks.get(name, ())]}
        label = f"model {entry['model_name'][:100]}"
        yield from told(label, _deployment(entry, name, data, folder, written))
    yield from _wrong(written)
    yield from told(file.name, _left_out(config))


def _wrong(written: dict[Path, str]) -> Iterator[tuple[str, str]]:
    """Remove the presets that can never work, and those that fall back on them; all are written by then."""
    before = None
    while before != len(written):
        before = len(written)
        for path, label in list(written.items()):
            try:
                remove_if_wrong(path)
            except PresetError as error:
                del written[path]
                yield label, not_taken_over(error)
    for path, label in written.items():
        yield label, f"preset {path}"


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("model_name"), str)
        and isinstance(entry.get("litellm_params"), dict)
        and isinstance(entry["litellm_params"].get("model"), str)
    )


def _names(models: list[dict[str, Any]]) -> list[str]:
    """Return the presets' names; deployments of one model are numbered."""
    names: list[str] = []
    for entry in models:
        name = re.sub(r"[/@\s]+", "-", entry["model_name"])
        count = sum(other["model_name"] == entry["model_name"] for other in models[: len(names)])
        names.append(f"{name}-{count + 1}" if count else name)
    return names


def _shared(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return what holds for all presets."""
    router, litellm = settings["router_settings"], settings["litellm_settings"]
    timeout = router.get("timeout", litellm.get("request_timeout"))
    shared = _retry(router.get("num_retries", litellm.get("num_retries")))
    if shared and router.get("retry_after"):
        shared["retry"]["delay_s"] = router["retry_after"]
    if timeout is not None:
        shared["timeout"] = timeout
    if litellm.get("drop_params"):
        shared["params"] = {"drop_params": True}
    return shared


def _retry(retries: Any) -> dict[str, Any]:
    return {"retry": {"tries": retries + 1}} if isinstance(retries, int) and not isinstance(retries, bool) else {}


def _fallbacks(settings: Mapping[str, Mapping[str, Any]], names: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for part in settings.values():
        for rule in _listed(part.get("fallbacks")):
            for name, others in rule.items() if isinstance(rule, dict) else ():
                found.setdefault(name, []).extend(other for other in _listed(others) if other in names)
    return found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _budget(settings: Mapping[str, Any], shared: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Make a budget of the proxy's, and name it in what all presets share."""
    from llmkit import Budget, Budgets

    limit, duration = settings.get("max_budget"), str(settings.get("budget_duration") or "")
    if limit is None:
        return
    if any(state.budget.name == _BUDGET for state in Budgets().all()):
        yield "max_budget", f"not kept: there is a budget {_BUDGET} already"
        return
    if not isinstance(limit, int | float) or isinstance(limit, bool):
        yield "max_budget", f"not kept: {limit!r} is no number"
        return
    period = _PERIODS.get(duration, "month" if duration else "total")
    Budgets().set(Budget(name=_BUDGET, limit_usd=float(limit), period=period))  # type: ignore[arg-type]
    shared["budget"] = _BUDGET
    yield "max_budget", f"budget {_BUDGET}: {limit} USD, {period}"
    if duration and duration not in _PERIODS:
        yield "budget_duration", f"not kept as it is: {duration} became a {period}"


def _deployment(
    entry: Mapping[str, Any], name: str, shared: Mapping[str, Any], folder: Path, written: dict[Path, str]
) -> Iterator[tuple[str, str]]:
    label, given = f"model {entry['model_name'][:100]}", dict(entry["litellm_params"])
    if "*" in entry["model_name"] or "*" in given["model"]:
        yield label, "not taken over: llmkit has no names with a * in them; every provider/model works without a preset"
        return
    data: dict[str, Any] = {"description": f"Was {entry['model_name']} of a config of LiteLLM's."}
    data |= {"model": given.pop("model"), **shared}
    limits = {ours: given.pop(theirs) for theirs, ours in _LIMITS.items() if given.get(theirs) is not None}
    retries = given.pop("max_retries", given.pop("num_retries", None))
    data |= {"limits": limits} if limits else {}
    data |= _retry(retries)
    data |= {"timeout": given.pop("timeout")} if given.get("timeout") is not None else {}
    plain = [key for key, value in given.items() if _is_plain_secret(key, value)]
    params = {key: value for key, value in given.items() if key not in plain}
    data |= {"params": {**data.get("params", {}), **params}}
    data = {key: value for key, value in data.items() if value not in ({}, [], None)}
    written[write_new(name, data, folder, check=False)] = label
    for key in plain:
        yield label, f"not kept: {key} is a secret, which no preset has: llmkit keys set, or os.environ/NAME"
    for key in sorted(map(str, entry.keys() - _ENTRY)):
        yield label, f"not kept: {key}"


def _is_plain_secret(name: str, value: Any) -> bool:
    return isinstance(value, str) and not _REFERENCE.match(value) and is_secret(name, value)


def _left_out(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in config.items():
        if name == "model_list":
            continue
        if name not in _READ or not isinstance(value, dict):
            yield name, "not kept: it is the proxy's; see llmkit serve"
            continue
        for key in sorted(map(str, value.keys() - _READ[name])):
            yield f"{name}.{key}", "not kept: it has no equal here"
