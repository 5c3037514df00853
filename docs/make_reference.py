"""Write the pages of docs/reference from the code: Python's names, settings, a preset's fields, providers' keys.

`make docs` runs it; CI checks that the pages are current.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import textwrap
from pathlib import Path
from typing import Any

import llmkit
from llmkit import presets
from llmkit.config import KEYS, variable
from llmkit.errors import ConfigError
from llmkit.providers.litellm import catalogue

FOLDER = Path(__file__).parent / "reference"
MADE = "Made from the code by `make docs`."
CHAPTERS = {  # a heading, and the modules of `llmkit/__init__.py` whose public names stand below it
    "One question": ("api", "core.types", "core.retry", "core.streams", "money.quotes"),
    "Many questions": ("jobs", "jobs.workers.partitions"),
    "MultiAIClient": ("client", "providers.deployments", "prepare.deployed", "money.account"),
    "ChatModel": ("chat", "sessions.replies", "sessions.requests"),
    "ApiBackend and Config": ("backend", "config"),
    "LLM": ("llm", "providers.aixplain.response", "runs"),
    "EndpointClient": ("endpoint", "providers.practicus.answers"),
    "Ledger and budgets": ("money.ledger", "money.budgets"),
}
MODULES = {"llmkit.presets": presets, "llmkit.templates": llmkit.templates, "llmkit.testing": llmkit.testing}
PARTS = {"llmkit.presets": ("Preset", "check", "explain", "folders", "json_schema", "load", "names")}
VARIABLES = {  # those that are no setting
    "LLMKIT_CONFIG_DIR": "the folder of `config.yaml`, `prices.yaml` and your own presets; else the platform's",
    "LLMKIT_DATA_DIR": "the folder of the store and of what was learned about models",
    "LLMKIT_CACHE_DIR": "the folder of the embedded model's weights",
    "LLMKIT_PRESETS": "folders of presets, separated as in `PATH`, searched before all others",
    "LLMKIT_PROFILE": "which settings: `profiles/NAME.yaml` in place of `config.yaml`",
    "LLMKIT_ROUTES": "`off` sends everything through LiteLLM",
    "LLMKIT_ENDPOINT_KEY": "the key that `get_session_token` exchanges for a token",
    "LLMKIT_PRACTICUS_EMAIL": "Practicus: the account of `get_session_token`, with `LLMKIT_PRACTICUS_PASSWORD`",
    "LLMKIT_PRACTICUS_PASSWORD": "Practicus: its password",
    "LLMKIT_PRACTICUS_REFRESH_TOKEN": "Practicus: in place of email and password",
}
PACKAGE = Path(llmkit.__file__).parent


def pages() -> dict[str, str]:
    """Return the pages by the names of their files."""
    return {"python.md": python(), "settings.md": settings(), "preset.md": preset(), "providers.md": providers()}


# -- Python ------------------------------------------------------------------------------------------------------------


def python() -> str:
    """Return the page of all public names: signature and docstring of each."""
    homes: dict[str, tuple[str, ...]] = vars(llmkit)["_HOMES"]
    parts = [f"# Python\n\n{MADE} All names are imported from `llmkit`; [which one to take](../doors.md)."]
    for heading, modules in CHAPTERS.items():
        parts.append(f"## {heading}")
        parts += [_described(name, getattr(llmkit, name)) for module in modules for name in _pairs(homes[module])]
    for heading, module in MODULES.items():
        parts.append(f"## {heading}")
        names = PARTS.get(heading) or getattr(module, "__all__", dir(module))
        own = [name for name in names if _is_own(module, name)]
        parts += [_described(f"{heading.partition('.')[2]}.{name}", getattr(module, name)) for name in own]
    tree = inspect.getdoc(llmkit.errors) or ""
    parts.append(f"## Errors\n\n{_prose(tree)}")
    left = homes.keys() - {module for modules in CHAPTERS.values() for module in modules} - {"errors"}
    if left:
        raise SystemExit(f"docs/make_reference.py: no chapter has the names of {', '.join(sorted(left))}")
    return "\n\n".join(parts) + "\n"


def _pairs(names: tuple[str, ...]) -> list[str]:
    """Return names with each async one after its twin."""
    twins = {name for name in names if name[0] == "a" and name[1:] in names}
    return sorted(names, key=lambda name: (name[1:] if name in twins else name, name in twins))


def _is_own(module: Any, name: str) -> bool:
    value = getattr(module, name)
    named = name in getattr(module, "__all__", [name]) and not name.startswith("_")
    home = getattr(value, "__module__", "")
    return named and (inspect.isfunction(value) or inspect.isclass(value)) and home.startswith(module.__name__)


def _described(name: str, value: Any) -> str:
    parts = [f"### {name}"]
    if callable(value):
        parts.append(_signature(name.rpartition(".")[2], value))
    parts.append(_prose(_doc(value)))
    if inspect.isclass(value):
        parts += [_member(name, attribute, member) for attribute, member in vars(value).items() if _is_told(attribute)]
    return "\n\n".join(filter(None, parts))


def _doc(value: Any) -> str:
    """Return a docstring; not the one that dataclasses make up, nor that of the class above."""
    text = vars(value).get("__doc__") if inspect.isclass(value) else getattr(value, "__doc__", None)
    return (
        "" if not text or (inspect.isclass(value) and text.startswith(f"{value.__name__}(")) else inspect.cleandoc(text)
    )


def _is_told(attribute: str) -> bool:
    return not attribute.startswith("_")


def _member(owner: str, name: str, member: Any) -> str:
    kind = "property" if isinstance(member, property) else ""
    function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
    text = _doc(function) if callable(function) else ""
    if not text or not (kind or inspect.isfunction(function)):
        return ""
    title = f"#### {owner}.{name}"
    shown = "" if kind else _signature(name, function)
    return "\n\n".join(filter(None, [title, shown, _prose(text)]))


def _signature(name: str, value: Any) -> str:
    try:
        node = _node(value)
        text = _arguments(name, value, node)
    except (OSError, TypeError, ValueError):
        return ""
    return f"```text\n{text}\n```" if text else ""


def _node(value: Any) -> ast.AST:
    source = inspect.getsource(value)
    return ast.parse(textwrap.dedent(source)).body[0]


def _arguments(name: str, value: Any, node: ast.AST) -> str:
    """Return a signature as it stands in the source, an argument a line where it is long."""
    prefix = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    if isinstance(node, ast.ClassDef):
        made = next((part for part in node.body if getattr(part, "name", "") == "__init__"), None)
        if made is None:
            fields = getattr(value, "__dataclass_fields__", {})
            listed = [
                FIELD.sub(lambda found: found[1] or "...", ast.unparse(part))
                for part in node.body
                if isinstance(part, ast.AnnAssign) and getattr(part.target, "id", "_").lstrip("_") in fields
            ]
            return _lines(f"{name}(", listed, ")") if listed else ""
        node = made
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return ""
    listed = _unparsed(node.args)
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and node.name != "__init__" else ""
    return _lines(f"{prefix}{name}(", listed, f"){returns}")


def _unparsed(arguments: ast.arguments) -> list[str]:
    """Return the arguments one by one, without `self`."""
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[Any] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    listed = [_one(argument, default) for argument, default in zip(positional, defaults, strict=True)]
    listed = listed[1:] if positional and positional[0].arg in {"self", "cls"} else listed
    if arguments.vararg:
        listed.append(f"*{_one(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        listed.append("*")
    listed += [_one(*pair) for pair in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return [*listed, f"**{_one(arguments.kwarg, None)}"] if arguments.kwarg else listed


def _one(argument: ast.arg, default: ast.expr | None) -> str:
    text = ast.unparse(argument)
    if default is None:
        return text
    return f"{text}{' = ' if argument.annotation else '='}{ast.unparse(default)}"


def _lines(head: str, listed: list[str], tail: str) -> str:
    short = f"{head}{', '.join(listed)}{tail}"
    return short if len(short) <= 100 else "\n".join([head, *(f"    {item}," for item in listed), tail])


FIELD = re.compile(r"\bfield\((?:default=(.*?)(?:, .*)?|default_factory=.*)\)$")
SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$")


def _prose(text: str) -> str:
    """Return a docstring as Markdown: its lists of arguments as lists, its drawings as blocks."""
    made: list[str] = []
    section, drawing = False, False
    for line in text.splitlines():
        if found := SECTION.match(line):
            made += [f"**{found[1]}**", ""]
            section = True
            continue
        section = section and (not line or line.startswith(" "))
        indented = line.startswith("    ") and not section
        if indented and not drawing and not (made and made[-1]):
            made.append("```text")
            drawing = True
        elif drawing and line and not indented:
            made.insert(len(made) - 1 if not made[-1] else len(made), "```")
            drawing = False
        if section and (item := re.match(r"    (\w[\w, .*]*):(?: (.*))?$", line)):
            made.append(f"- `{item[1]}`: {item[2] or ''}".rstrip())
        elif section and line.startswith("    "):
            made.append(f"  {line.strip()}")
        else:
            made.append(line[4:] if drawing and indented else line)
    if drawing:
        made.append("```")
    return "\n".join(made)


# -- tables ------------------------------------------------------------------------------------------------------------


def settings() -> str:
    """Return the page of all settings and variables of the environment."""
    rows = [
        f"| `{name}` | `{variable(name)}` | {key.kind.__name__} | {_value(key.default)} | {key.doc} |"
        for name, key in KEYS.items()
    ]
    sources = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")]
    used = {name for source in sources for name in re.findall(r"\bLLMKIT_[A-Z_]+\b", source)}
    known = VARIABLES.keys() | {variable(name) for name in KEYS} | {"LLMKIT_PRACTICUS_", "LLMKIT_"}
    if untold := used - known:
        raise SystemExit(f"docs/make_reference.py: nothing is said about {', '.join(sorted(untold))}")
    others = [f"| `{name}` | {text} |" for name, text in VARIABLES.items()]
    return "\n".join(
        [
            "# Settings and variables",
            "",
            f"{MADE} `llmkit config list` shows what is set, and where. The variable wins over the file.",
            "",
            "| setting | variable | type | default | what it does |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "## Other variables",
            "",
            "| variable | what it does |",
            "|---|---|",
            *others,
            "",
            "The variables of providers' keys are [a page of their own](providers.md).",
            "",
        ]
    )


def _value(default: Any) -> str:
    if default in (None, "", []) or isinstance(default, dict):
        return ""
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def preset() -> str:
    """Return the page of a preset's fields."""
    schema = json.loads((presets.shipped() / "preset.schema.json").read_text(encoding="utf-8"))
    parts = [f"# Fields of a preset\n\n{MADE} `llmkit presets schema` prints the JSON Schema for your editor."]
    parts.append(_fields(schema["properties"], schema["$defs"]))
    for name, heading in {"Params": "params", "RetryKeys": "retry", "Limits": "limits", "Example": "examples"}.items():
        definition = schema["$defs"][name]
        parts.append(f"## {heading}\n\n{definition['description']}")
        parts.append(_fields(definition["properties"], schema["$defs"]))
    ratio = schema["$defs"]["Version"]["properties"]["ratio"]["description"]
    every = "A version may set every field but `extends` and `versions`"
    parts.append(f"## versions\n\n{every}, and `ratio`: {ratio}.")
    return "\n\n".join(parts) + "\n"


def _fields(properties: dict[str, Any], definitions: dict[str, Any]) -> str:
    rows = []
    for name, field in properties.items():
        kinds = [kind for part in field.get("anyOf", [field]) if (kind := _kind(part)) and kind != "null"]
        link = next((part["$ref"] for part in field.get("anyOf", [field]) if "$ref" in part), "")
        said = field.get("description") or definitions.get(link.rpartition("/")[2], {}).get("description", "")
        rows.append(f"| `{name}` | {' or '.join(dict.fromkeys(kinds))} | {_value(field.get('default'))} | {said} |")
    return "\n".join(["| field | type | default | what it says |", "|---|---|---|---|", *rows])


def _kind(part: dict[str, Any]) -> str:
    if "$ref" in part:
        return "mapping"
    if part.get("type") == "array":
        return f"list of {_kind(part.get('items', {})) or 'anything'}"
    names = {"object": "mapping", "string": "text"}
    if "anyOf" in part:
        return " or ".join(_kind(item) for item in part["anyOf"])
    return names.get(part.get("type", ""), part.get("type", ""))


def providers() -> str:
    """Return the page of all providers with the variables of their keys."""
    rows = []
    for name in catalogue.providers():
        try:
            variables = catalogue.key_variables(name)
            said = " or ".join(f"`{key}`" for key in variables) or "needs none"
        except ConfigError as error:
            said = str(error).partition(" wants ")[2] or str(error)
        rows.append(f"| `{name}` | {said} |")
    return "\n".join(
        [
            "# Providers and their keys",
            "",
            f"{MADE} `llmkit keys set PROVIDER` stores a key; a variable that is set wins over it.",
            "",
            "| provider | variable of the key |",
            "|---|---|",
            *rows,
            "",
        ]
    )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, content in pages().items():
        (FOLDER / file).write_text(content, encoding="utf-8")
