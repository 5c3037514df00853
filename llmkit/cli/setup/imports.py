"""`llmkit import`: templates, keys and logs of `llm`, a config of LiteLLM's."""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - Typer reads it
from typing import TYPE_CHECKING, Annotated

import typer

from llmkit.cli.base import add_group

if TYPE_CHECKING:
    from collections.abc import Iterable

imports = typer.Typer(no_args_is_help=True, help="Take over templates, keys and logs of llm, or a config of LiteLLM's.")
add_group(imports, "import")


@imports.command("llm")
def llm(
    folder: Annotated[Path | None, typer.Argument(help="Its folder; LLM_USER_PATH or its usual place without.")] = None,
) -> None:
    """Take over what `llm` has: templates become presets, keys stored keys, aliases aliases, logs conversations.

    It can be repeated: what is here already stays as it is. llm's own files are only read.
    """
    from llmkit.cli.importing import from_llm

    _print(from_llm.taken_over(folder or from_llm.usual_folder()))


@imports.command("litellm")
def litellm(
    file: Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="A config file of LiteLLM's proxy.")],
    *,
    folder: Annotated[Path | None, typer.Option("--folder", help="Where presets go; your own folder without.")] = None,
) -> None:
    """Make presets of the deployments in a config of LiteLLM's, with their fallbacks, retries, limits and budget.

    What has no equal here is listed.

    Example: llmkit import litellm config.yaml
    """
    from llmkit import presets
    from llmkit.cli.importing import from_litellm

    _print(from_litellm.taken_over(file, folder or presets.own_folder()))


def _print(outcomes: Iterable[tuple[str, str]]) -> None:
    """Print what was taken over as it is, and on stderr what was not and why; each is a name and what became of it."""
    nothing = True
    for name, text in outcomes:
        nothing = False
        if text.startswith("not "):
            print(f"llmkit: {name}: {text}", file=sys.stderr)
        else:
            print(f"{name}: {text}", flush=True)
    if nothing:
        print("llmkit: there is nothing to take over", file=sys.stderr)
