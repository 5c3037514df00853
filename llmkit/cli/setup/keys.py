"""`llmkit keys`: set, list, check, remove, path. No value is ever shown."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from llmkit.cli import completing
from llmkit.cli.base import Lists, Provider, add_group, table
from llmkit.cli.terminal import FAILURE, piped
from llmkit.errors import AuthenticationError, ConfigError, InvalidRequestError, LlmkitError

keys = typer.Typer(cls=Lists, help="Keys of providers: set, list, check and remove them; no value is ever shown.")
add_group(keys, "keys")
AnyProvider = Annotated[
    str | None, typer.Argument(help="A provider; all that have a key without one.", autocompletion=completing.providers)
]


@keys.command("set")
def set_(provider: Provider) -> None:
    """Store a provider's key: in the system's keyring where there is one, else in a file that only you can read.

    The key is typed, unseen, or read from stdin. A variable of the environment wins over it.

    Example: llmkit keys set openai < key.txt
    """
    from llmkit.config.credentials import set_variable, stored_keys
    from llmkit.providers.litellm import catalogue

    variables = catalogue.key_variables(provider)
    if not variables:
        raise InvalidRequestError(f"{provider} needs no key")
    place = stored_keys().keep(provider, _typed(provider), variables)
    print(f"{provider}: stored in {'the keyring' if place == 'keyring' else place}")
    if winner := set_variable(variables):
        print(f"llmkit: {winner} is set, and wins over it", file=sys.stderr)


@keys.command("list")
def list_() -> None:
    """List the providers that have a key, and where it is: a variable of the environment, the keyring, or your file."""
    from llmkit.cli.setup.access import places

    rows = sorted(places().items())
    table(rows)
    if not rows:
        print("llmkit: there is no key: llmkit keys set PROVIDER, or set the provider's variable", file=sys.stderr)


@keys.command()
def check(provider: AnyProvider = None) -> None:
    """Ask providers for the list of their models, which costs nothing, and print whether they accept the keys.

    Exits with 1 if a key is refused.
    """
    from llmkit.cli.setup.access import key_of, places
    from llmkit.providers.routes.listing import models_at

    refused = False
    for name in [provider] if provider else sorted(places()):
        try:
            said = f"accepted, {len(models_at(name, key_of(name)))} models"
        except ConfigError as error:
            said = f"not checked: {error}"
        except LlmkitError as error:
            refused = True
            said = f"refused: {error}" if isinstance(error, AuthenticationError) else str(error)
        print(f"{name}: {said}")
    if refused:
        raise typer.Exit(FAILURE)


@keys.command()
def remove(provider: Provider) -> None:
    """Remove a stored key."""
    from llmkit.config.credentials import stored_keys

    stored_keys().remove(provider)


@keys.command()
def path() -> None:
    """Print the path of your file; it need not exist."""
    from llmkit.config.credentials import stored_keys

    print(stored_keys().file)


def _typed(provider: str) -> str:
    """Return the key that the user types, or that comes through stdin."""
    from llmkit.config.credentials import checked_key

    if sys.stdin.isatty():
        import getpass

        text = getpass.getpass(f"Key for {provider} (it is not shown): ")
    else:
        text = piped()
    return checked_key(text)
