"""`llmkit config`: get, set, unset, list, path, edit."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from llmkit.cli import completing
from llmkit.cli.base import AsJson, Lists, add_group, edit, table
from llmkit.errors import ConfigError

config = typer.Typer(cls=Lists, help="Show and change settings.")
add_group(config, "config")
Key = Annotated[str, typer.Argument(help="A setting, as in model.default_preset.", autocompletion=completing.settings)]
Profile = Annotated[str | None, typer.Option("--profile", help="Another profile than LLMKIT_PROFILE or the default.")]


@config.command()
def get(key: Key, *, profile: Profile = None) -> None:
    """Print a setting, or an empty line if it is not set."""
    settings = _settings(profile)
    _known(key, settings)
    value = settings.get(key)
    print("" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


@config.command("set")
def set_(key: Key, value: Annotated[str, typer.Argument(help="Its value.")], *, profile: Profile = None) -> None:
    """Change a setting in your file."""
    from llmkit.config import from_text

    settings = _settings(profile)
    _known(key, settings)
    if key == "model.default_preset":
        from llmkit import presets

        presets.find(value)
    with settings.editing():
        settings.set(key, from_text(key, value))
    print(settings.config_file)


@config.command()
def unset(key: Key, *, profile: Profile = None) -> None:
    """Remove a setting from your file, so that its default applies again."""
    settings = _settings(profile)
    _known(key, settings)
    with settings.editing():
        settings.unset(key)
    print(settings.config_file)


@config.command("list")
def list_(*, profile: Profile = None, as_json: AsJson = False) -> None:
    """List all settings: name, value, where it comes from, what it does."""
    from llmkit.config import KEYS
    from llmkit.config.secrets import masked

    settings = _settings(profile)
    if as_json:
        print(json.dumps(masked(settings.get()), ensure_ascii=False))
        return
    rows: list[tuple[str, ...]] = []
    for key in settings.names():
        value: Any = settings.get(key)
        shown = "-" if value is None else json.dumps(masked(value, key), ensure_ascii=False)
        rows.append((key, shown, settings.source(key), KEYS[key].doc if key in KEYS else "not a setting of llmkit"))
    table(rows)


@config.command()
def path(*, profile: Profile = None) -> None:
    """Print the path of your file; it need not exist."""
    print(_settings(profile).config_file)


@config.command("edit")
def edit_(*, profile: Profile = None) -> None:
    """Open your file in your editor, and check it."""
    settings = _settings(profile)
    settings.config_file.parent.mkdir(parents=True, exist_ok=True)
    settings.config_file.touch()
    edit(settings.config_file)
    settings.load_from_file()
    print(settings.config_file)


def _settings(profile: str | None) -> Any:
    from llmkit.config import Config

    return Config(profile=profile)


def _known(key: str, settings: Any) -> None:
    """Refuse an unknown key: at a terminal it is a typo."""
    from llmkit.config import KEYS
    from llmkit.config.hints import near

    if key not in settings.names() and settings.get(key) is None and key.rpartition(".")[0] not in KEYS:
        raise ConfigError(f"there is no setting {key!r}; {near(key, list(KEYS))}")
