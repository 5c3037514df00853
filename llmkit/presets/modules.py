"""Python functions that presets name as tools: where their code is. Nothing here is imported or run."""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.config import yaml
from llmkit.errors import PresetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from importlib.machinery import ModuleSpec

_MOST_MODULES = 200


@dataclass(frozen=True, slots=True)
class Module:
    """A module of a project: its file, its content, and whether it is a package."""

    path: str
    content: bytes
    is_package: bool


def beside(tools: Iterable[str], project: Path) -> dict[str, Module]:
    """Return the modules of *project* that tools (`module:function`) name, and the project's modules they import.

    Raises:
        PresetError: a file cannot be read, or there are too many.
    """
    inside = os.path.join(os.path.realpath(project), "")  # noqa: PTH118 - a separator at the end
    modules: dict[str, Module] = {}
    pending, seen = [tool.partition(":")[0] for tool in tools], set[str]()
    while pending:
        wanted = pending.pop()
        for name, spec in _specs(wanted):
            if name in seen:
                continue
            seen.add(name)
            if not spec.has_location or not os.path.realpath(spec.origin or "").startswith(inside):
                continue
            modules[name] = module = _read(spec)
            pending += _imports(name, module)
            if len(modules) > _MOST_MODULES:
                raise PresetError(f"the tools of this folder are more than {_MOST_MODULES} modules")
    return modules


def pin(modules: Mapping[str, Module]) -> None:
    """Make Python import these modules from the content read here, whatever happens to their files."""
    sources = {name: module for name, module in modules.items() if module.path.endswith(".py")}
    if sources:
        sys.meta_path.insert(0, _Pinned(sources))


def fault(tool: str) -> str:
    """Return why a tool (`module:function`) can never be imported, or "" if it may be."""
    module, colon, attribute = tool.partition(":")
    if not colon:
        return f"{tool!r} is no function; name one as module:function"
    spec = dict(_specs(module)).get(module)
    if spec is None and module not in sys.modules:
        return f"{tool!r} cannot be imported: there is no module {module!r}"
    name = attribute.partition(".")[0]
    if not name.isidentifier():
        return f"{tool!r} is no function; name one as module:function"
    known = _names(module, spec)
    return "" if known is None or name in known else f"{tool!r} cannot be imported: {module} has no {name!r}"


def _specs(module: str) -> Iterator[tuple[str, ModuleSpec]]:
    """Yield Python's import specs for a dotted name: its packages, then itself; as far as they exist."""
    path: list[str] | None = None
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        name = ".".join(parts[:end])
        try:
            spec = importlib.util.find_spec(name) if path is None else PathFinder.find_spec(name, path)
        except (ImportError, ValueError, AttributeError):
            return
        if spec is None:
            return
        yield name, spec
        try:
            inner = list(spec.submodule_search_locations or ())
        except KeyError:  # a folder without __init__ inside one that is not imported
            inner = [os.path.join(folder, parts[end - 1]) for folder in path or ()]  # noqa: PTH118
        if not inner:
            return
        path = inner


def _read(spec: ModuleSpec) -> Module:
    path = spec.origin or ""
    try:
        content = yaml.read(Path(path))
    except (FileNotFoundError, yaml.YamlError) as error:
        raise PresetError(str(error)) from error
    return Module(path, content, spec.submodule_search_locations is not None)


def _parsed(content: bytes) -> ast.Module | None:
    try:
        return ast.parse(content)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _imports(name: str, module: Module) -> Iterator[str]:
    """Yield the names that a module imports, as far as they are explicit."""
    tree = _parsed(module.content)
    package = name if module.is_package else name.rpartition(".")[0]
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*filter(None, above), *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _names(module: str, spec: ModuleSpec | None) -> set[str] | None:
    """Return the names that a module defines, or None if only running it would tell."""
    if (loaded := sys.modules.get(module)) is not None:
        return set(dir(loaded))
    try:
        tree = _parsed(_read(spec).content) if spec and (spec.origin or "").endswith(".py") else None
    except PresetError:
        tree = None
    if tree is None:
        return None
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
    return None if names & {"*", "__getattr__", "globals", "vars", "exec", "setattr"} else names


class _Pinned(MetaPathFinder):
    """Finds modules that were read before."""

    def __init__(self, modules: Mapping[str, Module]) -> None:
        self._modules = modules

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:  # noqa: ARG002
        module = self._modules.get(fullname)
        if module is None:
            return None
        inner = [os.path.dirname(module.path)] if module.is_package else None  # noqa: PTH120
        loader = _PinnedLoader(fullname, module.path, module.content)
        return importlib.util.spec_from_file_location(
            fullname, module.path, loader=loader, submodule_search_locations=inner
        )


class _PinnedLoader(SourceFileLoader):
    """Runs the content that was read, not what is in the file by now, nor what was compiled next to it."""

    def __init__(self, fullname: str, path: str, content: bytes) -> None:
        super().__init__(fullname, path)
        self._content = content

    def get_code(self, fullname: str) -> Any:  # noqa: ARG002
        return self.source_to_code(self._content, self.path)
