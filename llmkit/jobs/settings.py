"""What a job asks of each row: the preset and the options, the same for all, and the question that a row makes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from llmkit.config.secrets import masked
from llmkit.errors import InvalidRequestError, PresetError
from llmkit.jobs.inputs import QUESTION
from llmkit.prepare import prepare, with_default
from llmkit.presets import Preset, load
from llmkit.presets.rendering import renderer
from llmkit.store.jobs import Row
from llmkit.store.text import as_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llmkit.core.tool_loop import Turn
    from llmkit.money.guard import BudgetGuard

_NOT_STORED = frozenset({"api_key", "api_base", "retry", "timeout", "budget", "tags"})
"""Options that do not change what is asked: a job may go on with others."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is asked of each row.

    Attributes:
        preset: with the model that answers.
        system, options: as for `llmkit.ask`.
        template: the question, with `{{ column }}` for what a row has, or None for the column's text.
        column: the column that is the question.
        key: the column that names a row in the output, or None for its number.
        variables: the preset's that are the same for all rows.
    """

    preset: Preset
    system: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    template: str | None = None
    column: str | None = None
    key: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)

    @property
    def address(self) -> str | None:
        """Where the model is asked, if that is not its provider's own address."""
        params = {**self.preset.set_params(), **self.options}
        address: str | None = params.get("api_base") or params.get("base_url")
        return address

    def stored(self) -> dict[str, Any]:
        """Return what a job keeps, to tell whether it goes on with the same; secrets are left out."""
        snapshot, _ = self.preset.snapshot()
        options = {name: value for name, value in self.options.items() if name not in _NOT_STORED}
        return {
            "preset": {"name": self.preset.name, "version": self.preset.version, "settings": snapshot},
            "system": self.system,
            "options": json.loads(json.dumps(masked(options), default=_named, sort_keys=True)),
            "prompt": self.template,
            "column": self.column,
            "key": self.key,
            "variables": json.loads(json.dumps(masked(dict(self.variables)), default=str)),
        }

    def reader(self) -> Callable[[str, Mapping[str, Any]], Row]:
        """Return what makes a row of the store of a row of the input.

        Raises:
            ConfigError: the template is wrong.
        """
        render = None if self.template is None else renderer(self.template, "the prompt")
        filled = [name for name in self.preset.variables if name not in self.variables]

        def read(place: str, row: Mapping[str, Any]) -> Row:
            prompt = self._text(place, row) if render is None else _rendered(render, place, row)
            variables = {name: row[name] for name in filled if name in row}
            missing = [name for name in filled if name not in row and self.preset.variables[name] is None]
            if missing:
                raise InvalidRequestError(
                    f"{place}: there is no column {missing[0]!r}, which preset {self.preset.name!r} needs; "
                    f"there are: {', '.join(map(str, row))}"
                )
            key = "null" if self.key is None else _json(place, _column(place, row, self.key))
            question = _json(place, {"prompt": prompt, "variables": variables} if variables else {"prompt": prompt})
            return Row(key, hashlib.blake2b(question.encode(), digest_size=16).hexdigest(), question)

        return read

    def _text(self, place: str, row: Mapping[str, Any]) -> Any:
        name = self.column or QUESTION
        value = _column(place, row, name)
        if not isinstance(value, str | list) or not value or (isinstance(value, str) and not value.strip()):
            raise InvalidRequestError(
                f"{place}: the column {name!r} must be a text or a list of messages, not {value!r:.40}"
            )
        return value


class Asked:
    """Makes the turn of each question of a job.

    Args:
        settings: what is asked.
        guard: the budgets of the job, or None.
        tags: labels of the attempts in the ledger.
    """

    def __init__(self, settings: Settings, guard: BudgetGuard | None, tags: tuple[str, ...]) -> None:
        self._settings = settings
        self.guard = guard
        self.model = settings.preset.model or ""
        options = {name: value for name, value in settings.options.items() if name != "budget"}
        self._options = {**options, "tags": (*options.pop("tags", ()), *tags)}
        replaced = set(options)
        own = settings.preset.variables.keys() & settings.variables.keys() == settings.preset.variables.keys()
        # a preset that no row changes is filled in once
        self._preset = settings.preset.filled(settings.variables, replaced=replaced) if own else None

    def check(self) -> None:
        """Check the options, as far as no row changes them.

        Raises:
            InvalidRequestError: they cannot be sent.
        """
        if self._preset is not None:
            self.turn('{"prompt": "?"}')

    def turn(self, question: str, *, guarded: bool = True) -> Turn:
        """Return the turn of a question, as the store has it."""
        asked = json.loads(question)
        options = self._options
        if self._preset is None:
            options = {**options, "variables": {**self._settings.variables, **asked.get("variables", {})}}
        turn = prepare(asked["prompt"], None, self._preset or self._settings.preset, self._settings.system, options)
        plan = replace(
            turn.plan, guard=self.guard if guarded else None, limiter=None
        )  # its limits are a quota of the job
        return replace(turn, plan=plan)


def settings_of(preset: str | Preset | None, model: str | None, **others: Any) -> Settings:
    """Return the settings of a job, with the preset and the model that it keeps to its end.

    Raises:
        ConfigError: there is no such preset, or it is wrong.
    """
    chosen = load(preset) if isinstance(preset, str) else preset
    variables = dict(others.get("variables") or {})
    if unknown := variables.keys() - (chosen.variables.keys() if chosen is not None else set()):
        known = ", ".join(chosen.variables if chosen is not None else ()) or "none"
        name = chosen.name if chosen is not None else ""
        raise PresetError(f"preset {name!r} has no variable {min(unknown)!r}; it has: {known}")
    name, whole = with_default(model, chosen)
    return Settings(preset=(whole or Preset()).changed(model=name), **{**others, "variables": variables})


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return what is not the same in two settings, in words, or ""."""
    names = {"options": "other options", "variables": "other variables"}
    different = [names.get(key, f"another {key}") for key in now if now[key] != before.get(key)]
    return " and ".join(different)


def _column(place: str, row: Mapping[str, Any], name: str) -> Any:
    if name not in row:
        raise InvalidRequestError(f"{place}: there is no column {name!r}; there are: {', '.join(map(str, row))}")
    return row[name]


def _rendered(render: Callable[[Mapping[str, Any]], str], place: str, row: Mapping[str, Any]) -> str:
    try:
        text = render(row)
    except ValueError as error:
        raise InvalidRequestError(f"{place}: {error}") from error
    if not text.strip():
        raise InvalidRequestError(f"{place}: the prompt is empty")
    return text


def _json(place: str, value: Any) -> str:
    try:
        return as_json(value)
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(f"{place}: {error}") from error


def _named(value: Any) -> str:
    """Return the name of a class or a function, which stands for it."""
    name = cast("Any", value)
    return f"{name.__module__}.{name.__qualname__}" if hasattr(name, "__qualname__") else str(value)
