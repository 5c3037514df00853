"""A user's model.py and the model.json next to it: found, read, loaded, and called by declared arguments.

Nothing in this module knows about requests.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import shutil
import sys
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.config import data_dir
from llmkit.config.secrets import NAMES
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import ModuleType

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelMeta:
    """The information for a model.py about itself.

    Attributes:
        model_prefix: of its address, or ""; `model_name` and `model_version` as clients see them.
        files: the folder that `download_files_from` was copied to, or None if model.json has none.
    """

    model_prefix: str = ""
    model_name: str = ""
    model_version: str = "1"
    files: Path | None = None


class ModelFile:
    """A model.py and the model.json next to it.

    Args:
        path: the file, or the folder that contains it as model.py.
        name: the name to serve it under; else the one in model.json, else that of the file, or of the folder if
            the file is model.py.

    Raises:
        ConfigError: there is no such file, or model.json cannot be read.
    """

    def __init__(self, path: str | Path, name: str | None = None) -> None:
        given = Path(path).expanduser().absolute()
        self.path = given / "model.py" if given.is_dir() else given
        if not self.path.is_file():
            raise ConfigError(f"{self.path}: there is no such file")
        self.settings = _read(self.path.with_name("model.json"))
        named = self.settings.get("name")
        usual = self.path.parent.name if self.path.stem == "model" else self.path.stem
        self.name = name or (named if isinstance(named, str) and named else usual or "model")
        if "/" in self.name:
            raise ConfigError(f"{self.path}: a model cannot be served as {self.name!r}: there is a slash in it")
        version = self.settings.get("version")
        self.version = "1" if version is None else str(version)
        self._module = ""

    def meta(self) -> dict[str, Any]:
        """Return the content of model.json without secrets, with name and version."""
        public = {key: value for key, value in self.settings.items() if not NAMES.search(key)}
        return {**public, "name": self.name, "version": self.version}

    def fetch(self) -> ModelMeta:
        """Copy `download_files_from` to `download_files_to`, and return the model's information about itself.

        Files that exist already with the same size and time are not copied again.

        Raises:
            ConfigError: the source is not a folder, or it cannot be copied; the path is named.
        """
        prefix = str(self.settings.get("prefix") or "")
        about = ModelMeta(model_prefix=prefix, model_name=self.name, model_version=self.version)
        if not self.settings.get("download_files_from"):
            return about
        source = self._folder("download_files_from")
        chosen = bool(self.settings.get("download_files_to"))
        target = self._folder("download_files_to") if chosen else data_dir() / "served" / self.name
        where = self.path.with_name("model.json")
        if not source.is_dir():
            raise ConfigError(f"{where}: download_files_from: there is no folder {source}")
        if target.resolve() != source.resolve():
            if target.resolve().is_relative_to(source.resolve()):
                raise ConfigError(f"{where}: download_files_to: {target} is within {source}, which is copied")
            try:
                shutil.copytree(source, target, copy_function=_copy, dirs_exist_ok=True)
            except (OSError, shutil.Error) as error:
                raise ConfigError(f"{where}: {source} cannot be copied to {target}: {error}") from error
        return replace(about, files=target)

    def load(self) -> ModuleType:
        """Run the file as a module with a name of its own; its folder is importable from then on.

        Raises:
            ConfigError: it raises an exception, or cannot be read.
        """
        name = f"llmkit_served_{uuid.uuid4().hex}"
        spec = importlib.util.spec_from_file_location(name, self.path)
        if spec is None or spec.loader is None:
            raise ConfigError(f"{self.path}: that is no Python file")
        module = importlib.util.module_from_spec(spec)
        folder = str(self.path.parent)
        if folder not in sys.path:
            sys.path.insert(0, folder)  # as for a script that is run
        sys.modules[name] = module  # dataclasses and pickle look for it there
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[name]
            raise ConfigError(f"{self.path}: it cannot be loaded: {shown(error)}") from error
        self._module = name
        return module

    def unload(self) -> None:
        """Forget the module."""
        sys.modules.pop(self._module, None)

    def _folder(self, key: str) -> Path:
        return self.path.parent / Path(str(self.settings[key])).expanduser()


class Call:
    """A function of a model.py, called with the arguments it declares.

    Args:
        function: sync or async, or a generator of either kind.
        offered: the names of all arguments it can declare.
        where: its name in messages.

    Raises:
        ConfigError: it declares an argument that is not offered.
    """

    def __init__(self, function: Callable[..., Any], offered: Sequence[str], where: str) -> None:
        if not callable(function):
            raise ConfigError(f"{where} is no function")
        self.function = function
        self.is_generator = inspect.isgeneratorfunction(function)
        inner = type(function).__call__
        self.is_async = any(
            inspect.iscoroutinefunction(callee) or inspect.isasyncgenfunction(callee) for callee in (function, inner)
        )
        parameters = inspect.signature(function).parameters.values()
        self._takes_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        named = [parameter for parameter in parameters if parameter.kind in _BY_NAME and parameter.name in offered]
        self._names = frozenset(parameter.name for parameter in named)
        self.required = frozenset(parameter.name for parameter in named if parameter.default is parameter.empty)
        for parameter in parameters:
            variable = parameter.kind in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
            if not variable and parameter.default is parameter.empty and parameter not in named:
                raise ConfigError(
                    f"{where} wants {parameter.name!r}, which is not there; there are: {', '.join(offered)}"
                )

    def arguments(self, offered: Mapping[str, Any]) -> dict[str, Any]:
        """Return those of *offered* that the function declares."""
        return {name: value for name, value in offered.items() if self._takes_all or name in self._names}


def shown(error: BaseException) -> str:
    """Return an error's class and message in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")[:400]


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        settings = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: it cannot be read: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{file}: it must be an object, not {type(settings).__name__}")
    return settings


def _copy(source: str, target: str) -> str:
    """Copy a file whole or not at all; one that exists already stays."""
    new, old = Path(source).stat(), Path(target)
    if old.exists() and (old.stat().st_size, old.stat().st_mtime_ns) == (new.st_size, new.st_mtime_ns):
        return target
    part = f"{target}.{os.getpid()}.part"
    shutil.copy2(source, part)
    Path(part).replace(target)
    return target
