"""`llmkit routes`: which requests llmkit sends itself, and whether it sends them as LiteLLM does."""

from __future__ import annotations

from typing import Annotated

import typer

from llmkit.cli.base import Lists, add_group, table
from llmkit.cli.terminal import FAILURE
from llmkit.errors import InvalidRequestError

group = typer.Typer(help="Which requests llmkit sends itself, without LiteLLM.", cls=Lists)
add_group(group, "routes")
Model = Annotated[str, typer.Argument(help="provider/model.")]


@group.command("list")
def list_routes() -> None:
    """List the providers that llmkit sends to itself, with their models and the ways in which these behave.

    Example: llmkit routes list
    """
    from llmkit.providers.routes.table import table as routes

    rows = []
    for name in routes().names():
        if (shipped := routes().provider(name)) is not None:
            known = routes().current(name)
            number = len(known.models) if known is not None else 0
            ways = f"{len(shipped.behaviours)} ways" if known is shipped else "learned anew, as they are called"
            rows.append((name, shipped.access.base or "(no address)", f"{number} models", ways))
    table(rows)


@group.command()
def show(model: Model) -> None:
    """Print the route to a model as JSON; there is no secret in it.

    Example: llmkit routes show openai/gpt-4o
    """
    from llmkit.providers.routes.table import table as routes

    route = routes().route_of(model)
    if route is None:
        raise InvalidRequestError(f"there is no route to {model}; its requests go through LiteLLM")
    print(route.as_json())


@group.command()
def learn(model: Model) -> None:
    """Ask LiteLLM how it sends to a model, and remember it; nothing leaves the machine.

    Example: llmkit routes learn openai/a-new-model
    """
    from llmkit.providers.routes.backend import later
    from llmkit.providers.routes.table import table as routes

    name, slash, _ = model.partition("/")
    if not slash or routes().provider(name) is None:
        raise InvalidRequestError(f"llmkit does not send to {name} itself; see `llmkit routes list`")
    routes().drop(model)
    later().want(model)
    later().wait(60.0)
    found = routes().route_of(model)
    print(f"{model}: {'llmkit sends to it itself' if found is not None else 'its requests go through LiteLLM'}")


@group.command()
def check(
    models: Annotated[
        list[str] | None, typer.Argument(help="Models to check; one of each kind if none is named.")
    ] = None,
) -> None:
    """Compare what llmkit sends and reads with LiteLLM, and print each difference. Exits with 1 if there is one.

    Example: llmkit routes check openai/gpt-4o
    """
    from llmkit.providers.routes.learning.verify import of_models

    number = 0
    for difference in of_models(models or ()):
        number += 1
        print(difference)
    if number:
        raise typer.Exit(FAILURE)
    print("no difference")
