"""`llmkit presets`: list, show, explain, check, trust, new, edit, path, schema. None runs any code of a preset."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from llmkit.cli import completing, files
from llmkit.cli.base import AsJson, Lists, add_group, edit, table
from llmkit.cli.terminal import FAILURE
from llmkit.errors import InvalidRequestError, PresetError

presets = typer.Typer(cls=Lists, help="List, show, check and write presets.")
add_group(presets, "presets")
Name = Annotated[
    str, typer.Argument(help="Name (or name@version) or path of a preset.", autocompletion=completing.presets)
]
_NAME = re.compile(r"\w[\w.+-]{0,99}")
_SHORT = 20
_HINTS = """\
# system: You are brief.
# params:
#   temperature: 0.2
"""


@presets.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List all presets: name, model, description. Invalid ones are named on stderr."""
    from llmkit import presets as library

    rows, wrong = [], []
    for path in library.files():
        try:
            preset = library.peek(path)
        except PresetError as error:
            wrong.append(str(error))
        else:
            rows.append((preset.name, preset.model or "", preset.description, str(path)))
    if as_json:
        keys = ("name", "model", "description", "file")
        print(json.dumps([dict(zip(keys, row, strict=True)) for row in rows], ensure_ascii=False))
    else:
        table(row[:-1] for row in rows)
    for complaint in [*wrong, *(f"{folder}: this folder may not be read" for folder in _unreadable())]:
        print(f"llmkit: {complaint}", file=sys.stderr)


def _unreadable() -> list[Path]:
    from llmkit import presets as library

    return [folder for folder in library.folders() if folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK)]


@presets.command()
def show(name: Name, *, as_json: AsJson = False) -> None:
    """Print a preset's final settings, with all it extends."""
    import yaml

    from llmkit import presets as library

    data = library.peek(name).as_dict()
    print(
        json.dumps(data, ensure_ascii=False)
        if as_json
        else yaml.safe_dump(data, allow_unicode=True, sort_keys=False).rstrip()
    )


@presets.command()
def explain(name: Name) -> None:
    """Print each final value of a preset with the file and the line it comes from."""
    from llmkit import presets as library

    rows = [
        (item.key, json.dumps(item.value, ensure_ascii=False), f"{item.place.file}:{item.place.line}")
        for item in library.explain(name)
    ]
    if sys.stdout.isatty():  # a text of many lines is told by its beginning
        around = max(len(key) + len(place) for key, _, place in rows) + 4
        room = max(shutil.get_terminal_size().columns - around, _SHORT)
        rows = [(key, value if len(value) <= room else value[: room - 1] + "…", place) for key, value, place in rows]
    table(rows)


@presets.command()
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Names or paths; all presets without one.")] = None,
) -> None:
    """Check presets, and exit with 1 if one is wrong."""
    from llmkit import presets as library
    from llmkit.prepare.check import faults

    paths = [library.find(name) for name in names] if names else list(library.files())
    wrong = 0
    for path in paths:
        lines = faults(path)
        wrong += bool(lines)
        for complaint in lines:
            print(complaint)
    hidden = [] if names else _unreadable()
    for folder in hidden:
        print(f"{folder}: this folder may not be read")
    print(f"{len(paths) - wrong} of {len(paths)} presets are right", file=sys.stderr)
    if wrong or hidden:
        raise typer.Exit(FAILURE)


@presets.command()
def trust(
    file: Annotated[str, typer.Argument(metavar="PATH", help="A preset or a template that came with a folder.")],
    *,
    forget: Annotated[bool, typer.Option("--forget", help="Withdraw the trust.")] = False,
) -> None:
    """Trust a file that came with a folder: it may then set addresses, keys, tools and `${NAME}`.

    This holds for the file as it is now, with what it extends and falls back on, and the code of its tools next to it.

    Example: llmkit presets trust presets/review.yaml
    """
    from llmkit import presets as library
    from llmkit.config import trust as _trust
    from llmkit.presets import templates

    path = Path(file)
    is_template = path.is_file() and path.suffix.lower() not in library.SUFFIXES
    claims = templates.claims(path) if is_template else library.claims(library.find(file))
    if forget:
        forgotten = [_trust.forget(claim) for claim in claims]
        if not any(forgotten):
            raise InvalidRequestError(f"{file} was not trusted")
        return
    _trust.remember(claims)
    for want in claims[0].wants:
        print(want)
    for name, module in claims[0].code.items():
        print(f"{module.path}: the module {name}")


@presets.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the preset.")],
    *,
    model: Annotated[str | None, typer.Option("-m", "--model", help="provider/model.")] = None,
    extends: Annotated[
        str | None, typer.Option("--extends", help="A preset to build on.", autocompletion=completing.presets)
    ] = None,
    description: Annotated[str, typer.Option("--description", help="One line for people.")] = "",
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Where to write it; the project's or your own without.")
    ] = None,
) -> None:
    """Write a new preset and print its path."""
    given = {"description": description or name, "extends": extends, "model": model}
    path = write_new(name, {key: value for key, value in given.items() if value}, folder, hints=_HINTS)
    print(path)


def write_new(
    name: str, data: dict[str, Any], folder: Path | None = None, *, hints: str = "", check: bool = True
) -> Path:
    """Write a new preset to *folder*, or where new ones usually are; return its path. *hints* are comments after it.

    Raises:
        InvalidRequestError: it cannot have this name, exists, or cannot be written.
        PresetError: what it extends does not exist, or it is wrong.
    """
    import yaml

    from llmkit import presets as library

    if not _NAME.fullmatch(name) or name.endswith(".yaml"):
        why = "it has letters, digits, and . _ + - between them, 100 at most, and no .yaml"
        raise InvalidRequestError(f"{name[:100]!r} is no name of a preset; {why}")
    if "extends" in data:
        library.find(data["extends"])
    path = (folder or library.usual_folder()) / f"{name}.yaml"
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    if path.exists():
        raise InvalidRequestError(f"{path} exists; llmkit presets edit {name}")
    head = f"# yaml-language-server: $schema={library.shipped() / library.SCHEMA_FILE}\n"
    files.create(f"{head}{text}{hints}", path, option="the preset")
    if check:
        remove_if_wrong(path)
    return path


def remove_if_wrong(path: Path) -> None:
    """Remove a preset that was just written, if it can never work.

    Raises:
        PresetError: it cannot; why.
    """
    from llmkit.prepare.check import faults

    if lines := faults(path):
        path.unlink()
        raise PresetError("\n".join(lines))


@presets.command("edit")
def edit_(name: Name) -> None:
    """Edit a preset in your editor, and check it; one that comes with llmkit is copied to your own folder first."""
    from llmkit import presets as library
    from llmkit.prepare.check import faults

    path = original = library.find(name)
    if path.parent == library.shipped():
        copy = library.own_folder() / path.name
        if not copy.exists():
            files.create(path.read_text(encoding="utf-8"), copy, option="the preset")
        path = copy
    edit(path)
    if path != original and path.read_bytes() == original.read_bytes():
        path.unlink()  # a copy would hide what later versions of llmkit bring
        print(f"llmkit: {name} is unchanged", file=sys.stderr)
        return
    if lines := faults(path):
        raise PresetError("\n".join(lines))
    print(path)


@presets.command()
def path(name: Annotated[str | None, typer.Argument(help="Name of a preset.")] = None) -> None:
    """Print the file of a preset, or the folders that are searched, in order."""
    from llmkit import presets as library

    print(library.find(name) if name else "\n".join(map(str, library.folders())))


@presets.command()
def schema() -> None:
    """Print the JSON Schema of a preset's file, for editors."""
    from llmkit import presets as library

    print(json.dumps(library.json_schema(), indent=2, ensure_ascii=False))
