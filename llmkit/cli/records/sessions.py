"""`llmkit sessions`: list, show, search, fork, export, import, rename, delete, rerun."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmkit.cli import completing, files
from llmkit.cli.asking.question import backend
from llmkit.cli.base import AsJson, Lists, add_group, table
from llmkit.cli.terminal import FAILURE
from llmkit.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llmkit import ChatModel

sessions = typer.Typer(cls=Lists, help="Show, search and change stored conversations.")
add_group(sessions, "sessions")
Id = Annotated[
    str, typer.Argument(metavar="ID", help="A session, by the beginning of its id.", autocompletion=completing.sessions)
]
Limit = Annotated[int, typer.Option("-l", "--limit", min=1, help="How many at most.")]
_SHORT = 8


@sessions.command("list")
def list_(*, limit: Limit = 20, as_json: AsJson = False) -> None:
    """List the conversations, latest first: id, time, preset, messages, title."""
    from llmkit import ChatModel

    _print(ChatModel.sessions(limit=limit), as_json=as_json)


@sessions.command()
def search(
    words: Annotated[list[str], typer.Argument(help="Words that one message has all of.")],
    *,
    limit: Limit = 20,
    as_json: AsJson = False,
) -> None:
    """Search the messages of all conversations."""
    from llmkit import ChatModel

    infos = ChatModel.sessions(" ".join(words), limit=limit)
    _print(infos, as_json=as_json)
    if not infos:
        raise typer.Exit(FAILURE)


@sessions.command()
def show(session: Id) -> None:
    """Print a conversation."""
    from llmkit.sessions.transcript import shown

    session_model = _opened(session)
    info, cost = session_model.info, session_model.cost
    price = "price unknown" if cost is None else f"{cost:.6f} USD"
    print(f"# {info.title or info.preset or info.id}\n{info.id}, {session_model.get_config().model}, {price}")
    for message in session_model.get_config().message_logs:
        mark = " (interrupted)" if message.get("interrupted") else ""
        print(f"\n## {message['role']}{mark}\n{shown(message)}")


@sessions.command()
def fork(
    session: Id, *, at: Annotated[int | None, typer.Option("--at", min=0, help="How many messages.")] = None
) -> None:
    """Copy a conversation, or its beginning, and print the new id."""
    print(_opened(session).fork(at).session_uuid)


@sessions.command()
def export(
    session: Id,
    *,
    form: Annotated[str, typer.Option("-f", "--format", help="md, json or jsonl.")] = "md",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="A file; stdout without.")] = None,
) -> None:
    """Export a conversation as text: Markdown for people; `import` reads JSON and JSON lines back."""
    text = _opened(session).export(form)  # type: ignore[arg-type]  # a wrong one is refused there
    if output is None:
        sys.stdout.write(text)
    else:
        files.write(text, str(output), option="--output")


@sessions.command("import")
def import_(
    file: Annotated[str, typer.Argument(help="A file written by `export -f json`; - is stdin.")],
) -> None:
    """Create a conversation from an exported text, and print its id."""
    from llmkit import ChatModel

    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        text = data.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"cannot read {file}: {error}") from error
    print(ChatModel.import_(text).session_uuid)


@sessions.command()
def rename(session: Id, title: Annotated[str, typer.Argument(help="Its title.")]) -> None:
    """Give a conversation a title."""
    _opened(session).rename(title)


@sessions.command()
def delete(session: Id) -> None:
    """Delete a conversation with all its messages."""
    _opened(session).delete()


@sessions.command()
def rerun(
    session: Id, *, preset: Annotated[str, typer.Option("-p", "--preset", "-t", help="The preset that answers now.")]
) -> None:
    """Answer all questions of a conversation again with another preset, and print both costs."""
    done = _opened(session).rerun(preset)
    costs = ("unknown" if cost is None else f"{cost:.6f} USD" for cost in (done.cost_before, done.cost))
    table(zip(("before", preset, "session"), (*costs, done.session.session_uuid), strict=True))
    if done.error_log is not None:
        print(f"llmkit: {done.error_log}", file=sys.stderr)
        raise typer.Exit(FAILURE)


def _opened(begin: str) -> ChatModel:
    from llmkit import ChatModel
    from llmkit.store import opened

    if not begin.strip():  # of the store it would be the last one
        raise InvalidRequestError("the conversation's id is empty; llmkit sessions lists them")
    store = opened()
    info = store.session(store.resolve(begin))
    return ChatModel(info.preset, info.id, store=store, backend=backend())


def _print(infos: Iterable[Any], *, as_json: bool) -> None:
    if as_json:
        keys = ("id", "title", "preset", "version", "forked_from", "created_at", "updated_at", "count", "snippet")
        print(json.dumps([{key: getattr(info, key) for key in keys} for info in infos], ensure_ascii=False))
        return
    table(
        (
            info.id[:_SHORT],
            time.strftime("%Y-%m-%d %H:%M", time.localtime(info.updated_at)),
            info.preset or info.snapshot.get("model", ""),
            str(info.count),
            info.snippet or info.title or "",
        )
        for info in infos
    )
