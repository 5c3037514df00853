"""One preset, ready to be called with: plain data, which pydantic has checked at some time."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from llmkit.config import secrets
from llmkit.core.retry import Retry
from llmkit.errors import ConfigError, PresetError
from llmkit.presets import rendering
from llmkit.presets.values import Scalar

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pydantic import PrivateAttr

    from llmkit.presets.model import PresetKeys as _Attributes
else:
    _Attributes = object

_SECTIONS = frozenset({"params", "retry", "limits", "examples"})  # pydantic's own models, made when they are asked for
_IN_A_FILE = {"answer_schema": "schema"}
_NOT_IN_A_FILE = ("name", "version")
_FILLED = ("model", "system", "params", "examples")


class Preset(_Attributes):
    """One preset, as `llmkit.presets.load` returns it: its file, the files it extends, and one version of it.

    The attributes are the keys of the file. `name` is the name it is loaded by, the file's name without its ending;
    `version` is the number of the version, or None if there are none.
    """

    # To type checkers it is the pydantic model that checks it, with the same attributes. It holds plain data instead,
    # since pydantic takes as long to import as all the rest of a question: it is imported to check new data, and for
    # what only its models can do.
    if TYPE_CHECKING:
        _data: dict[str, Any] = PrivateAttr()  # what is set, as in a file
        _changes: dict[str, Any] = PrivateAttr()  # what of it was never checked
        _base: Preset | None = PrivateAttr()  # what it was before these
        _is_filled: bool = PrivateAttr()
        _origin: Preset | None = PrivateAttr()  # what it was filled from
    else:  # type checkers see the arguments of the model

        def __init__(self, **data: Any) -> None:
            from llmkit.presets.model import PresetKeys

            keys = PresetKeys(**data)
            values = {name: value for name, value in keys if name not in _SECTIONS}
            vars(self).update(values, _data=keys.model_dump(by_alias=True, exclude_unset=True), _keys=keys)
            vars(self).update(_changes={}, _base=None, _is_filled=False, _origin=None)

    def as_dict(self) -> dict[str, Any]:
        """Return the preset's settings, as they would be in a file."""
        return {key: _plain(value) for key, value in self._data.items()}

    def plain(self, key: str) -> Any:
        """Return what the preset sets under a key of its file, as plain data, or None."""
        return _plain(self._data.get(key))

    def snapshot(self) -> tuple[dict[str, Any], list[str]]:
        """Return the settings to store, and the keys of the secrets that are left out.

        `${NAME}` stays, even if its value was filled in.
        """
        return _without_secrets((self._origin or self).as_dict())

    def changed(self, **changes: Any) -> Preset:
        """Return the preset with other values, which are not validated."""
        return self._with(changes, self._origin and self._origin._with(changes, None))  # noqa: SLF001 - its own class

    def over(self, default: Preset) -> Preset:
        """Return the preset with a filled default preset's parameters where it has none of its own."""
        below = default if self._is_filled else default._origin or default
        params = {**below.set_params(), **self.set_params()}
        return self._with({"params": params}, self._origin and self._origin.over(default))

    def system_text(self) -> str:
        """Return the system message as far as it is known before a call; if a value is missing, the unfilled text."""
        known = {name: value for name, value in self.variables.items() if value is not None}
        try:
            return self.system or "" if self._is_filled else rendering.render(self.system or "", known, "")
        except ConfigError:
            return self.system or ""

    def set_params(self) -> dict[str, Any]:
        """Return the parameters that the preset sets."""
        return {name: value for name, value in (self.plain("params") or {}).items() if value is not None}

    def turn_options(self) -> dict[str, Any]:
        """Return the preset's tools and schema as options of a call."""
        options = {"tools": self.tools or None, "max_rounds": self.max_rounds, "schema": self.answer_schema}
        return {name: value for name, value in options.items() if value is not None}

    def retry_policy(self) -> Retry | None:
        """Return the preset's retry policy, or None if it sets none."""
        retry = self.plain("retry")
        return None if retry is None else Retry(**retry)

    def filled(self, variables: Mapping[str, Any] | None = None, *, replaced: Collection[str] = ()) -> Preset:
        """Return the preset with its variables and environment variables filled in.

        Args:
            variables: values for them; the others have their defaults.
            replaced: parameters that the caller sets itself, so that these need no value.

        Raises:
            ConfigError: a variable has no value, or the preset does not have a given one.
        """
        given = dict(variables or {})
        if self._is_filled and not given:
            return self  # a value may look like a variable
        if unknown := given.keys() - self.variables.keys():
            known = ", ".join(self.variables) or "none"
            raise PresetError(f"preset {self.name!r} has no variable {min(unknown)!r}; it has: {known}")
        values = {**{key: value for key, value in self.variables.items() if value is not None}, **given}
        data = self.as_dict()
        where = f"preset {self.name!r}"
        if "params" in data:
            data["params"] = {key: value for key, value in data["params"].items() if key not in replaced}
        for key in _FILLED:
            if key in data:
                data[key] = rendering.fill(data[key], values, where, environment=key in {"model", "params"})
        origin = None
        if all(isinstance(value, Scalar) for value in given.values()):  # other values cannot be in a preset
            origin = self._origin or self
            origin = origin.changed(variables={**origin.variables, **given}) if given else origin
        made = self._refilled(data, where)
        vars(made).update(_is_filled=True, _origin=origin)
        return made

    def _refilled(self, data: dict[str, Any], where: str) -> Preset:
        """Return the preset with filled data. What was checked stays right: a text has taken the place of a text."""
        if not self._changes and data.get("model") != "" and _is_text({key: data.get(key) for key in _FILLED}):
            made = self._with({}, None)
            texts: dict[str, Any] = {key: data[key] for key in ("model", "system") if key in data}
            vars(made).update(texts, _data=data)
            return made
        from pydantic import ValidationError

        try:
            return Preset(**data, name=self.name, version=self.version)
        except ValidationError as error:
            wrong = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
            raise PresetError(f"{where}, its variables put in: {'; '.join(wrong)}") from error

    def _with(self, changes: Mapping[str, Any], origin: Preset | None) -> Preset:
        """Return a copy with other values, which are not checked, and with what it was filled from."""
        plain = {name: _plain(value) for name, value in changes.items()}
        said = {_IN_A_FILE.get(name, name): value for name, value in plain.items() if name not in _NOT_IN_A_FILE}
        values = {name: value for name, value in {**vars(self), **changes}.items() if name not in {*_SECTIONS, "_keys"}}
        made = object.__new__(Preset)
        vars(made).update(values, _data={**self._data, **said}, _origin=origin)
        if changes:
            vars(made).update(_changes={**self._changes, **changes}, _base=self._base or self)
        return made

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Preset:
        """Return a copy with other values, which are not validated; its `snapshot` stays if it was filled."""
        made = self._with(update or {}, self._origin)
        return copy.deepcopy(made) if deep else made

    def _model(self) -> _Attributes:
        """Return the preset as pydantic's model, for what only that can do."""
        if "_keys" not in vars(self):
            from llmkit.presets.model import Params, PresetKeys

            if self._base is None:
                keys = PresetKeys(**self._data, name=self.name, version=self.version)
            else:
                plain = {n: Params(**v) for n, v in self._changes.items() if n == "params" and isinstance(v, dict)}
                keys = self._base._model().model_copy(update={**self._changes, **plain})  # noqa: SLF001 - its own class
            vars(self)["_keys"] = keys
        made: _Attributes = vars(self)["_keys"]
        return made

    def __getattr__(self, name: str) -> Any:
        """Return a section of the preset, or a method of pydantic's models."""
        if name.startswith("_"):  # Python asks for its own
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._model(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse, as pydantic does: a preset does not change."""
        setattr(self._model(), name, value)

    def __delattr__(self, name: str) -> None:
        """Refuse, as pydantic does."""
        delattr(self._model(), name)

    def __eq__(self, other: object) -> bool:
        """Return whether two presets say the same and were filled from the same."""
        return isinstance(other, Preset) and self._known() == other._known()

    __hash__ = None  # type: ignore[assignment]

    def _known(self) -> tuple[Any, ...]:
        return self._model(), self._is_filled, self._origin

    def __repr__(self) -> str:
        """Return all values but secrets."""
        return repr(self._model())

    def __str__(self) -> str:
        """Return all values but secrets."""
        return str(self._model())


def state_of(preset: Preset) -> dict[str, Any]:
    """Return all that a preset was checked to be, besides its name and its version, for `of_state`."""
    values = {k: v for k, v in vars(preset).items() if not k.startswith("_") and k not in _NOT_IN_A_FILE}
    return {"values": values, "data": preset.as_dict()}


def of_state(state: Mapping[str, Any], name: str, version: int | None) -> Preset:
    """Return the preset whose `state_of` this is, without a check."""
    made = object.__new__(Preset)
    vars(made).update(state["values"], name=name, version=version, _data=state["data"])
    vars(made).update(_changes={}, _base=None, _is_filled=False, _origin=None)
    return made


def _plain(value: Any) -> Any:
    """Return a copy of a value without pydantic's models; what is no data, such as a client, stays what it is."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.model_dump(by_alias=True, exclude_unset=True) if hasattr(value, "model_dump") else value


def _is_text(data: Mapping[str, Any]) -> bool:
    """Return whether all texts in the data can be written, which a variable of the environment need not."""
    try:
        json.dumps(data, ensure_ascii=False, default=str).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _without_secrets(data: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a preset's settings without secrets, and the keys that are left out."""
    lost: list[str] = []

    def kept(value: Any, key: str) -> Any:
        """Return a value without its secrets, or None if nothing is left."""
        name = key.rpartition(".")[2]
        if isinstance(value, dict):
            inner = {name: kept(item, f"{key}.{name}") for name, item in value.items()}
            return {name: item for name, item in inner.items() if item is not None or value[name] is None}
        if isinstance(value, list):
            return [left for item in value if (left := kept(item, key)) is not None]
        if not isinstance(value, str) or not secrets.is_secret(name, value):
            return value
        lost.append(key)
        return secrets.without(value) or None

    cleaned: dict[str, Any] = {name: kept(data[name], name) for name in ("params", "tools") if name in data}
    if "variables" in data:  # a variable without a default has to be given
        cleaned["variables"] = {name: kept(value, f"variables.{name}") for name, value in data["variables"].items()}
    return {**data, **cleaned}, lost
