"""The house rules of docs/decisions.md: rows, one importer of LiteLLM, a quick start, a complete public surface."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import llmkit

PACKAGE = Path(llmkit.__file__).parent
ROWS = (
    {"errors"},
    {"types", "params", "_fork"},
    {
        "retry",
        "prices",
        "presets",
        "config",
        "messages",
        "deployments",
        "schemas",
        "tools",
        "templates",
        "store",
        "_secrets",
        "_trust",
        "_yaml",
        "_weights",
        "providers",
    },
    {
        "_account",
        "_flow",
        "_turn",
        "_prepare",
        "_presetcheck",
        "_trace",
        "_conversation",
        "_session",
        "_snapshot",
        "ledger",
        "report",
        "_charts",
        "_page",
        "budgets",
        "quotes",
        "_estimate",
        "_response",
        "_remote",
        "_endpoints",
        "_utterance",
        "_catalogue",
        "runs",
        "_limits",
        "_chatreply",
        "_chatstream",
        "_transcript",
        "_work",
        "_connections",
        "_mapping",
        "_litellm",
        "_provider",
        "local",
        "streams",
        "testing",
        "_http",
        "_doors",
        "_sse",
        "_tokens",
        "_parallel",
        "_answers",
        "_chunks",
        "_sources",
        "_attempt",
        "_media",
    },
    {"api", "client", "backend", "chat", "llm", "_llms", "endpoint"},
    {"cli", "serve", "__main__"},
)
HEAVY = ("litellm", "openai", "sqlalchemy", "xllamacpp", "httpx", "aiohttp", "rich")


def modules() -> dict[str, Path]:
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
        if path != PACKAGE / "__init__.py"
    }


def row_of(module: str) -> int:
    return next(index for index, row in enumerate(ROWS) if module.split(".", maxsplit=1)[0] in row)


def imported(path: Path, *, running: bool) -> set[str]:
    """Return the llmkit modules that *path* imports when it is imported (or also inside of functions)."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not running:
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "llmkit":
            inner = node.module.split(".")[1:]
            found |= {inner[0]} if inner else {alias.name for alias in node.names if alias.name in known()}
        stack.extend(ast.iter_child_nodes(node))
    return found


def known() -> set[str]:
    return {name.split(".")[0] for name in modules()}


@pytest.mark.parametrize("name", sorted(modules()))
def test_a_module_imports_from_its_own_row_or_a_lower_one(name):
    upwards = {other for other in imported(modules()[name], running=True) if row_of(other) > row_of(name)}

    assert upwards == set()


def test_every_module_has_a_row():
    assert known() == set().union(*ROWS)


def test_only_one_module_imports_litellm():
    importers = {name for name, path in modules().items() if "litellm" in _outside_imports(path)}

    assert importers <= {"_litellm"}


def _outside_imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found.add(ast.literal_eval(node.args[0]).split(".")[0])
    return found


@pytest.mark.parametrize(
    "code",
    [
        "import llmkit",
        "import llmkit.testing",
        "import llmkit.cli.ask",
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
    assert known() & set(llmkit.__all__) == {"config", "errors", "presets", "templates", "testing"}


def test_every_error_is_public():
    from llmkit import errors

    assert {name for name in vars(errors) if isinstance(vars(errors)[name], type)} <= set(llmkit.__all__)


def test_type_checkers_see_the_types():
    assert (PACKAGE / "py.typed").is_file()


def test_no_module_is_long_and_no_function_either():
    for name, path in modules().items():
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 400, f"{name} is too long"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno - node.lineno < 60, f"{name}.{node.name} is too long"


@pytest.mark.parametrize("name", sorted(modules()))
def test_every_public_function_and_class_has_a_docstring(name):
    tree = ast.parse(modules()[name].read_text(encoding="utf-8"))

    assert ast.get_docstring(tree), f"{name} does not say what it is for"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{name}.{node.name}"
