"""The rules of docs/architecture.md: one way for imports, small rooms, a quick start, a complete public surface."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import llmkit

PACKAGE = Path(llmkit.__file__).parent
LINES = (
    {"cli", "serve"},
    {"testing"},
    {"llm"},
    {"client", "chat", "backend", "endpoint"},
    {"jobs"},
    {"api"},
    {"sessions", "runs"},
    {"prepare"},
    {"money"},
    {"providers"},
    {"presets", "store"},
    {"core"},
    {"config"},
    {"errors"},
)
"""A room imports from the lines below its own; within a line only the command line from the server."""
DOCUMENTS = {"clients", "models"}
"""Modules of one line that keep the import path of a document."""
HEAVY = (
    *("litellm", "openai", "sqlalchemy", "xllamacpp", "httpx", "aiohttp", "rich", "jinja2", "llmkit.presets"),
    *("asyncio", "yaml"),
)


@cache
def modules() -> dict[str, Path]:
    """Return all modules but the package's own, by the name under which they are imported, without `llmkit.`."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return {name: path for name, path in found.items() if name}


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text(encoding="utf-8"))


def room(name: str) -> str:
    return name.split(".", maxsplit=1)[0]


def line(name: str) -> int:
    return next(index for index, rooms in enumerate(LINES) if room(name) in rooms | DOCUMENTS)


def imported(name: str) -> set[str]:
    """Return the modules of llmkit that a module imports anywhere, for type checkers too."""
    homes = vars(llmkit)["_HOME_OF"]
    seen = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            seen |= {alias.name.removeprefix("llmkit.") for alias in node.names if alias.name.startswith("llmkit.")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "llmkit":
            base = (node.module or "").removeprefix("llmkit").removeprefix(".")
            for alias in node.names:
                full = f"{base}.{alias.name}" if base else homes.get(alias.name, alias.name)
                seen.add(full if full in modules() else base)
    return seen & set(modules()) - {name}


def test_imports_go_one_way():
    upwards = [
        f"{name} imports {other}"
        for name in sorted(modules())
        for other in sorted(imported(name))
        if name != "__main__"
        and room(other) != room(name)
        and line(other) <= line(name)
        and (room(name), room(other)) != ("cli", "serve")
    ]

    assert upwards == []


def test_no_import_leads_back():
    """Modules that import each other, over however many others; a package's own imports count."""
    waiting = {name: imported(name) for name in modules()}
    while free := {name for name, others in waiting.items() if not others & waiting.keys()}:
        waiting = {name: others for name, others in waiting.items() if name not in free}

    assert {name: sorted(others & waiting.keys()) for name, others in waiting.items()} == {}


def test_rooms_are_small():
    rooms = {room(name) for name in modules()} - {"__main__"} - DOCUMENTS
    folders = {path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE}
    crowded = {
        str(folder.relative_to(PACKAGE)): count
        for folder in folders
        if (count := len([path for path in folder.glob("*.py") if path.name != "__init__.py"])) > 14
    }

    assert rooms == set().union(*LINES)
    assert len(rooms) <= 20
    assert crowded == {}


def test_no_module_is_long_and_no_function_either():
    long = [name for name, path in modules().items() if path.read_text(encoding="utf-8").count("\n") > 350]
    long += [
        f"{name}.{node.name}"
        for name in modules()
        for node in ast.walk(tree(name))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 50
    ]

    assert long == []


def test_only_one_module_imports_litellm():
    assert {name for name in modules() if "litellm" in _outside_imports(name)} == {"providers.litellm.sdk"}


def _outside_imports(name: str) -> set[str]:
    seen = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            seen |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            seen.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            seen.add(ast.unparse(node.args[0]).strip("'").split(".")[0])
    return seen


@pytest.mark.parametrize(
    "code",
    [
        "import llmkit",
        "import llmkit.testing",
        "import llmkit.cli.asking.ask",
        "import sys; sys.argv = ['llmkit', '--help']; from llmkit.cli import main; main()",
        "import sys; sys.argv = ['llmkit', 'ask', '--help']; from llmkit.cli import main; main()",
        "import sys; sys.argv = ['llmkit', '--version']; from llmkit.cli import main; main()",
    ],
)
def test_nothing_heavy_is_imported_at_the_start(code):
    check = f"import atexit, sys; atexit.register(lambda: print('HEAVY', [m for m in {HEAVY!r} if m in sys.modules]))"

    done = subprocess.run([sys.executable, "-c", f"{check}\n{code}"], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "HEAVY []"


def test_what_editors_see_is_what_there_is():
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    seen = {alias.name for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names}

    assert seen | {"__version__"} == set(llmkit.__all__) == set(dir(llmkit))
    assert sorted(llmkit.__all__) == llmkit.__all__
    for name in llmkit.__all__:
        assert getattr(llmkit, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = llmkit.nothing


def test_no_module_hides_a_public_name():
    assert {room(name) for name in modules()} & set(llmkit.__all__) == {"config", "errors", "presets", "testing"}


def test_every_error_is_public():
    from llmkit import errors

    assert {name for name in vars(errors) if isinstance(vars(errors)[name], type)} <= set(llmkit.__all__)


def test_type_checkers_see_the_types():
    assert (PACKAGE / "py.typed").is_file()


def test_every_module_and_what_it_offers_has_a_docstring():
    silent = [name for name in modules() if not ast.get_docstring(tree(name))]
    silent += [
        f"{name}.{node.name}"
        for name in modules()
        for node in tree(name).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]

    assert silent == []
