"""Texts with variables: `{{ name }}` by Jinja, `${NAME}` from the environment."""

from __future__ import annotations

import os
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from llmkit.errors import ConfigError, PresetError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}|^os\.environ/([A-Za-z_][A-Za-z0-9_]*)$")


def fill(value: Any, variables: Mapping[str, Any], where: str, *, environment: bool = False) -> Any:
    """Return *value* with the variables, and if wanted environment variables, filled into every text in it.

    `${NAME}` and `os.environ/NAME` are environment variables. Filled-in text is never expanded again.

    Raises:
        ConfigError: a variable is missing; it is named.
    """
    if isinstance(value, dict):
        return {key: fill(item, variables, where, environment=environment) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, variables, where, environment=environment) for item in value]
    if not isinstance(value, str):
        return value
    if not environment or not _VARIABLE.search(value):
        return render(value, variables, where)
    if not _has_marks(value):
        return _VARIABLE.sub(lambda match: _environment(match[1] or match[2], where), value)
    names = {match[1] or match[2] for match in _VARIABLE.finditer(value)}
    values = {f"environment_{name}": _environment(name, where) for name in names}
    marked = _VARIABLE.sub(lambda match: "{{ environment_" + (match[1] or match[2]) + " }}", value)
    return render(marked, {**variables, **values}, where)


def _has_marks(text: str) -> bool:
    return "{{" in text or "{%" in text or "{#" in text


def render(text: str, variables: Mapping[str, Any], where: str) -> str:
    """Return *text* with its `{{ name }}` replaced, by Jinja with access to nothing but the variables.

    Raises:
        ConfigError: a variable is missing, which is named, or the text is not valid Jinja.
    """
    return renderer(text, where)(variables) if _has_marks(text) else text


def renderer(text: str, where: str) -> Callable[[Mapping[str, Any]], str]:
    """Return what renders *text* many times; it raises as `render` does.

    Raises:
        ConfigError: the text is not valid Jinja.
    """
    import jinja2

    try:
        template = _jinja().from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise ConfigError(f"{where}, line {error.lineno} of the text: {error.message}") from error
    except Exception as error:
        raise ConfigError(f"{where}: {type(error).__name__}: {error}") from error

    def rendered(variables: Mapping[str, Any]) -> str:
        try:
            made: str = template.render(variables)
        except jinja2.UndefinedError as error:
            missing = ", ".join(sorted(_undeclared(_jinja().parse(text)) - variables.keys())) or error.message
            raise PresetError(f"{where} needs a value for the variable {missing}") from error
        except Exception as error:
            raise PresetError(f"{where}: {type(error).__name__}: {error}") from error
        return made

    return rendered


def fault(text: str, variables: set[str]) -> str:
    """Return why a text can never be rendered with these variables, or "" if it may be."""
    if not _has_marks(text):
        return ""
    import jinja2

    try:
        tree = _jinja().parse(text)
        modifier = tree.find(jinja2.nodes.EvalContextModifier)
        if modifier is not None:  # its value would be calculated here
            return f"line {modifier.lineno} of the text: autoescape is for pages, and not available"
        _jinja().compile(tree)
        missing = sorted(_undeclared(tree) - variables - _jinja().globals.keys())
    except jinja2.TemplateSyntaxError as error:
        return f"line {error.lineno} of the text: {error.message}"
    except RecursionError:
        return "the text is nested too deep"
    known = ", ".join(sorted(variables)) or "none"
    return f"{missing[0]!r} is no variable of it; there are: {known}" if missing else ""


def is_plain(text: str) -> bool:
    """Return whether a text has names of variables at the most, so that nothing is calculated to fill it in."""
    if not _has_marks(text):
        return True
    from jinja2 import TemplateSyntaxError, nodes

    try:
        found = {type(node) for node in _jinja().parse(text).find_all(nodes.Node)}
    except (TemplateSyntaxError, RecursionError):
        return False
    return found <= {nodes.Output, nodes.TemplateData, nodes.Name}


def _undeclared(tree: Any) -> set[str]:
    from jinja2.meta import TrackingCodeGenerator

    found = TrackingCodeGenerator(_jinja())
    found.optimizer = None  # which `find_undeclared_variables` uses, whatever the environment says
    found.visit(tree)
    return found.undeclared_identifiers


@cache
def _jinja() -> Any:
    from jinja2 import StrictUndefined, pass_context
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # A text that is only checked calculates nothing: without the optimizer, and since what is done with each value at
    # the end wants a context, of which there is none before a text is rendered.
    finalize = pass_context(lambda _, value: "" if value is None else value)
    return ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, optimized=False, finalize=finalize
    )


def _environment(name: str, where: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise ConfigError(f"{where} needs the environment variable {name}, which is not set") from None
