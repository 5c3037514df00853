"""The user's settings: where they are kept and how they are read. Reading them creates no file and no folder there.

Four layers, later ones win: the defaults of `KEYS`, the profile's file, the environment, `set` calls in code.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import warnings
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.config import private
from llmkit.config.folders import config_dir, data_dir
from llmkit.config.hints import did_you_mean
from llmkit.config.keys import KEYS, SYSTEM_MESSAGES, Key, variable
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

__all__ = ["KEYS", "SYSTEM_MESSAGES", "Config", "Key", "config_dir", "data_dir", "default_choice", "variable"]

EMBEDDED_MODEL = "local/smollm2"
EMBEDDED_WINDOW = 8192
DEFAULT_PROFILE = "default"
_DEEPEST = 20
_TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


class Config:
    """Settings by dotted names, as in `config.get("model.streaming")`; `llmkit.config.KEYS` lists them all.

    Args:
        config_dir: the folder of `config.yaml`; the user's if None.
        data_dir: the folder of logs and of the store; the user's if None.
        profile: which file: `config.yaml` for "default", `profiles/NAME.yaml` for any other; `LLMKIT_PROFILE` says it
            if None.
        config: settings to apply at once, nested; the mapping is not changed.

    Raises:
        ConfigError: the file cannot be read, or a setting in it or in the environment has the wrong type.
    """

    def __init__(
        self,
        config_dir: str | Path | None = None,
        data_dir: str | Path | None = None,
        profile: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.profile = _profile(profile or os.environ.get("LLMKIT_PROFILE") or DEFAULT_PROFILE)
        self.config_dir = _folder("config_dir", config_dir)
        self.data_dir = _folder("data_dir", data_dir)
        self._file, self._set = dict[str, Any](), dict[str, Any]()
        self.load_from_file()
        for key, value in _leaves({} if config is None else config, "", "config"):
            self.set(key, value)

    @property
    def config_file(self) -> Path:
        """The file of this profile; it need not exist."""
        named = self.profile != DEFAULT_PROFILE
        return self.config_dir / "profiles" / f"{self.profile}.yaml" if named else self.config_dir / "config.yaml"

    def get(self, key: str | None = None) -> Any:
        """Return a setting, or None if it is not known; for a section a mapping, and without a key all of them.

        Raises:
            ConfigError: the key is not a name.
        """
        if key is not None and key != "":
            _check_name(key)
        if key is None or any(known.startswith(f"{key}.") for known in KEYS):
            section = "" if key is None else f"{key}."
            return _nested({name: self.get(name) for name in self.names() if name.startswith(section)}, section)
        if key in self._set:
            return copy.deepcopy(self._set[key])
        known = KEYS.get(key)
        if known is not None and (text := os.environ.get(variable(key))):
            return _from_text(key, text)
        if key in self._file:
            return copy.deepcopy(self._file[key])
        return copy.deepcopy(known.default) if known else self._part(key)

    def set(self, key: str, value: Any) -> None:
        """Change a setting; it wins over file and environment. An unknown key is kept, with a warning.

        Raises:
            ConfigError: the key is not a name, or conflicts with another one; the value is of the wrong type.
        """
        _check_name(key)
        if isinstance(value, dict) and key not in KEYS:
            for name, inner in _leaves(value, f"{key}.", "set"):
                self.set(name, inner)
            return
        above = next((known for known in KEYS if key.startswith(f"{known}.")), "")
        if above and KEYS[above].kind is dict:
            key, value = above, {**self.get(above), key.removeprefix(f"{above}."): value}
        self._set[key] = copy.deepcopy(_checked(key, value, "set", self.names()))

    def unset(self, key: str) -> None:
        """Remove a setting, whether it was set or read, so that its default applies again."""
        _check_name(key)
        above, _, name = key.rpartition(".")
        for layer in (self._set, self._file):
            layer.pop(key, None)
            if isinstance(layer.get(above), dict):
                layer[above] = {inner: value for inner, value in layer[above].items() if inner != name}

    def load_from_file(self, path: str | Path | None = None) -> None:
        """Read the profile's file, or *path*, again. What was `set` stays.

        Raises:
            ConfigError: it cannot be read or is wrong; file, line and column are named.
        """
        file = Path(path) if path is not None else self.config_file
        try:
            state = file.stat()
            self._file = copy.deepcopy(_settings_in(file, state.st_ino, state.st_mtime_ns, state.st_size))
        except FileNotFoundError:
            if path is not None:
                raise ConfigError(f"{file}: no such file") from None
            self._file = {}
        except OSError as error:
            raise ConfigError(f"{file}: {error.strerror or error}") from error

    def save(self) -> Path:
        """Write the settings from the file and from `set` to the profile's file, and return its path.

        Raises:
            ConfigError: it cannot be written.
        """
        import yaml as pyyaml

        data = _nested({**self._file, **self._set})
        new = self.config_file.with_name(f"{self.config_file.name}.{os.getpid()}.new")
        try:
            self.config_file.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(pyyaml.safe_dump(data, allow_unicode=True, sort_keys=True), encoding="utf-8")
            new.replace(self.config_file)
        except OSError as error:
            raise ConfigError(f"{self.config_file} cannot be written: {error.strerror or error}") from error
        finally:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
        return self.config_file

    @contextlib.contextmanager
    def editing(self) -> Iterator[None]:
        """Read the profile's file anew, save what the block changes, and let no other process do so meanwhile.

        Raises:
            ConfigError: the file cannot be read or written.
        """
        lock = self.config_file.with_name(f".{self.config_file.name}.lock")
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(private.locked(lock))
            except OSError as error:
                raise ConfigError(f"{self.config_file} cannot be written: {error.strerror or error}") from error
            self.load_from_file()
            yield
            self.save()

    def names(self) -> list[str]:
        """Return the names of all settings, known ones first."""
        return [*KEYS, *sorted((self._file.keys() | self._set.keys()) - KEYS.keys())]

    def source(self, key: str) -> str:
        """Return where a setting comes from: "set", a variable's name, the file's path, or "default"."""
        _check_name(key)
        if key in self._set:
            return "set"
        if key in KEYS and os.environ.get(variable(key)):
            return variable(key)
        return str(self.config_file) if key in self._file else "default"

    def system_messages(self) -> dict[str, str]:
        """Return the aliases of system messages; the user's win over llmkit's."""
        return {**SYSTEM_MESSAGES, **self.get("model.system_message")}

    def _part(self, key: str) -> Any:
        """Return a value inside a mapping, such as `model.system_message.brief`."""
        above, _, name = key.rpartition(".")
        inner = self.get(above) if above else None
        return inner.get(name) if isinstance(inner, dict) else None


@lru_cache(maxsize=16)
def _settings_in(file: Path, *_state: int) -> dict[str, Any]:
    """Return the settings in a file; cached until the file changes, since a command asks several times."""
    from llmkit.config import yaml

    try:
        document = yaml.document(yaml.read(file), str(file))
    except yaml.YamlError as error:
        raise ConfigError(str(error)) from error
    read: dict[str, Any] = {}
    for key, value in _leaves(document.data, "", str(file)):
        place = document.places.get(tuple(key.split(".")), (1, 1))
        read[key] = _checked(key, value, f"{file}:{place[0]}:{place[1]}", read)
    return read


def default_choice() -> tuple[str | None, str | None]:
    """Return (model, preset) for calls that name neither, each None if it is not set.

    The environment comes before the file, and in each the model before the preset: `LLMKIT_MODEL`, `LLMKIT_PRESET`,
    then `model.default_model` and `model.default_preset` of the file.
    """
    model, preset = os.environ.get("LLMKIT_MODEL"), os.environ.get("LLMKIT_PRESET")
    if not model and not preset:
        settings = Config()
        model, preset = settings.get("model.default_model"), settings.get("model.default_preset")
    return (model, None) if model else (None, preset or None)


def _folder(name: str, given: Any) -> Path:
    if given is None:
        return {"config_dir": config_dir, "data_dir": data_dir}[name]()
    if not isinstance(given, str | os.PathLike):
        raise ConfigError(f"{name} must be a path, not {given!r}")
    return Path(os.path.expanduser(given))  # noqa: PTH111 - a path with an unknown user is no error here


def _profile(name: Any) -> str:
    if not isinstance(name, str) or "/" in name or os.sep in name or name in {".", ".."}:
        raise ConfigError(f"a profile has a name, not {name!r}")
    return name


def _check_name(key: Any) -> None:
    if not isinstance(key, str) or not all(key.split(".")):
        raise ConfigError(f"a setting has a name such as model.streaming, not {key!r}; llmkit.config.KEYS has them all")


def _check_place(key: str, value: Any, where: str, others: Collection[str]) -> None:
    """Check that a key is neither above nor below another one, so that all of them fit into one mapping."""
    if inner := [known for known in KEYS if known.startswith(f"{key}.")]:
        raise ConfigError(f"{where}: {key} must be a mapping of {', '.join(inner)}, not {value!r}")
    for other in (*KEYS, *others):
        if key.startswith(f"{other}."):
            raise ConfigError(f"{where}: there is no setting {key!r}, for {other} is one")
        if other.startswith(f"{key}."):
            raise ConfigError(f"{where}: {key} must be a mapping, for {other} is a setting")


def _checked(key: str, value: Any, where: str, others: Collection[str] = ()) -> Any:
    """Return *value* if it fits the key; *others* are the keys next to it."""
    known = KEYS.get(key)
    if known is None:
        _check_name(key)
        _check_place(key, value, where, others)
        _check_data(key, value, where)
        warnings.warn(f"{where}: there is no setting {key!r}{did_you_mean(key, KEYS)}", UserWarning, stacklevel=3)
        return value
    if known.is_path:
        value = _path(value) if known.kind is str else [*map(_path, value)] if isinstance(value, list) else value
    fits = value is None or (isinstance(value, known.kind) and (known.kind is bool or not isinstance(value, bool)))
    items: Any = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if not fits or not all(isinstance(item, str) for item in items):
        expected = {str: "a text", int: "a whole number", bool: "true or false", list: "a list of texts"}
        raise ConfigError(f"{where}: {key} must be {expected.get(known.kind, 'a mapping of texts')}, not {value!r}")
    return known.default if value is None else value


def _path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _check_data(key: str, value: Any, where: str) -> None:
    """Check that a value can be written to a file."""
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: {key} cannot be kept: {error}") from error


def from_text(key: str, text: str) -> Any:
    """Return the value that *text* stands for in a setting.

    Raises:
        ConfigError: it does not fit the setting.
    """
    kind = KEYS[key].kind if key in KEYS else str
    if kind is str:
        return text
    if kind is bool:
        return _checked(key, _TRUTHS.get(text.lower(), text), "set")
    if kind is list:
        return [item for item in text.split(os.pathsep) if item]
    from llmkit.config import yaml

    try:
        return _checked(key, yaml.load(f"value: {text}", "set").data["value"], "set")
    except yaml.YamlError:
        return _checked(key, text, "set")


def _from_text(key: str, text: str) -> Any:
    try:
        return from_text(key, text)
    except ConfigError as error:
        raise ConfigError(str(error).replace("set:", f"{variable(key)}:", 1)) from None


def _leaves(data: Mapping[str, Any], above: str, where: str) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values; a known mapping is one value."""
    if not isinstance(data, dict):
        raise ConfigError(f"{where}: settings are a mapping, not {data!r}")
    if above.count(".") > _DEEPEST:
        raise ConfigError(f"{where}: settings are nested at most {_DEEPEST} levels deep")
    for name, value in data.items():
        if not isinstance(name, str):
            raise ConfigError(f"{where}: a setting has a name, not {name!r}")
        key = f"{above}{name}"
        if isinstance(value, dict) and key not in KEYS:
            yield from _leaves(value, f"{key}.", where)
        elif value is not None and any(known.startswith(f"{key}.") for known in KEYS):
            raise ConfigError(f"{where}: {key} must be a mapping, not {value!r}")
        elif value is not None or key in KEYS:
            yield key, value


def _nested(flat: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key, value in flat.items():
        *sections, name = key.removeprefix(above).split(".")
        inner = data
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[name] = value
    return data
