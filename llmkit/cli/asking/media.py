"""`llmkit embed`, `transcribe`, `speak`, `image`: what is not a chat. One model, one call, one result."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmkit.cli import completing
from llmkit.cli.asking import question
from llmkit.cli.asking.ask import WithOptions
from llmkit.cli.base import BudgetNames, Key, NoLog, Option, ShowUsage, Timeout, app
from llmkit.errors import InvalidRequestError, ResponseError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmkit import MultiAIClient
    from llmkit.core.types import Reply

MediaModel = Annotated[
    str,
    typer.Option(
        "-m", "--model", help="provider/model; `llmkit models --does …` lists them.", autocompletion=completing.models
    ),
]
Text = Annotated[str, typer.Argument(metavar="TEXT", help="A text; what comes through stdin is put before it.")]
Target = Annotated[str | None, typer.Option("--to", metavar="FILE", help="Where to write it; - is stdout.")]


@app.command(cls=WithOptions)
def embed(
    text: Text = "",
    *,
    model: MediaModel,
    lines: Annotated[bool, typer.Option("--lines", help="Each line is a text of its own; one vector a line.")] = False,
    option: Option = None,
    budget: BudgetNames = None,
    no_log: NoLog = False,
    key: Key = None,
    timeout: Timeout = None,
) -> None:
    """Print a text's embedding as a JSON list of numbers.

    Example: llmkit embed -m openai/text-embedding-3-small "a text"

    Example: llmkit embed -m openai/text-embedding-3-small --lines < titles.txt > vectors.jsonl
    """
    whole = question.joined(text)
    texts = [line for line in whole.split("\n") if line.strip()] if lines else [whole]
    client, name = _client(model, key, budget, timeout, no_log=no_log)
    for vector in client.embed(texts, name, **_params(option, texts=_TEXT, input=_TEXT)):
        print(json.dumps(vector))


@app.command(cls=WithOptions)
def transcribe(
    file: Annotated[str, typer.Argument(help="An audio file; - is stdin.")],
    *,
    model: MediaModel,
    option: Option = None,
    budget: BudgetNames = None,
    usage: ShowUsage = False,
    no_log: NoLog = False,
    key: Key = None,
    timeout: Timeout = None,
) -> None:
    """Print what is said in an audio file.

    Example: llmkit transcribe -m openai/whisper-1 call.mp3
    """
    client, name = _client(model, key, budget, timeout, no_log=no_log)
    reply = client.transcribe(sys.stdin.buffer.read() if file == "-" else file, name, **_params(option))
    print(reply.text)
    question.report(reply, usage=usage)


@app.command(cls=WithOptions)
def speak(
    text: Text = "",
    *,
    model: MediaModel,
    to: Target = None,
    voice: Annotated[str, typer.Option("--voice", help="The voice, by the provider's name.")] = "alloy",
    option: Option = None,
    budget: BudgetNames = None,
    usage: ShowUsage = False,
    no_log: NoLog = False,
    key: Key = None,
    timeout: Timeout = None,
) -> None:
    """Write a text as speech to a file.

    Example: llmkit speak -m openai/tts-1 --to hello.mp3 "Hello there."
    """
    _check(to)
    client, name = _client(model, key, budget, timeout, no_log=no_log)
    params = _params(option, text=_TEXT, input=_TEXT, voice="say --voice")
    reply = client.speak(question.joined(text), name, voice, **params)
    _write(reply.data, to)
    question.report(reply, usage=usage)


@app.command(cls=WithOptions)
def image(
    text: Text = "",
    *,
    model: MediaModel,
    to: Target = None,
    option: Option = None,
    budget: BudgetNames = None,
    usage: ShowUsage = False,
    no_log: NoLog = False,
    key: Key = None,
    timeout: Timeout = None,
) -> None:
    """Write the picture that a text describes to a file, or print its address if the provider gives one.

    Example: llmkit image -m openai/gpt-image-1 --to cat.png "A cat on a roof."
    """
    _check(to)
    client, name = _client(model, key, budget, timeout, no_log=no_log)
    reply = client.image(question.joined(text), name, **_params(option, prompt=_TEXT))
    _put_picture(reply, to)
    question.report(reply, usage=usage)


def _client(
    model: str, key: str | None, budget: Sequence[str] | None, timeout: float | None, *, no_log: bool
) -> tuple[MultiAIClient, str]:
    """Return a client that has one model, and the model's name."""
    from llmkit import Config, Deployment, MultiAIClient

    deployment = Deployment.of_model(model, {"api_key": key} if key else {})
    settings: dict[str, Any] = {"ledger": bool(not no_log and Config().get("cli.keep")), "budget": budget or None}
    settings |= {"timeout": timeout} if timeout is not None else {}
    client = MultiAIClient({deployment.model: deployment}, backend=question.backend(), **settings)
    return client, deployment.model


_TEXT = "it is the text itself"


def _params(option: Sequence[str] | None, **elsewhere: str) -> dict[str, Any]:
    return question.pairs(option or (), {"model": "say -m", **elsewhere})


def _check(to: str | None) -> None:
    """Refuse a result that would have no place, before it is paid for."""
    if to is None and sys.stdout.isatty():
        raise InvalidRequestError("say where to write it: --to FILE, or - for stdout")
    if to not in {None, "-"} and not Path(str(to)).absolute().parent.is_dir():
        raise InvalidRequestError(f"--to {to}: there is no such folder")


def _put_picture(reply: Reply, to: str | None) -> None:
    for number, picture in enumerate(reply.data or (), 1):
        if picture.startswith(("http://", "https://")):
            print(picture)
            continue
        try:
            data = base64.b64decode(picture, validate=True)
        except ValueError:
            raise ResponseError("the picture is not written in Base64", model=reply.model) from None
        place = to if number == 1 or to in {None, "-"} else _numbered(str(to), number)
        _write(data, place)


def _numbered(name: str, number: int) -> str:
    path = Path(name)
    return str(path.with_name(f"{path.stem}-{number}{path.suffix}"))


def _write(data: bytes, to: str | None) -> None:
    """Write bytes to a file, or to stdout."""
    if to is None or to == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        Path(to).write_bytes(data)
    except OSError as error:  # it is paid for: the first place that can be written has it
        import tempfile

        with tempfile.NamedTemporaryFile(delete=False, suffix=Path(to).suffix) as other:
            other.write(data)
        raise InvalidRequestError(f"{to} cannot be written: {error.strerror}; it is in {other.name}") from error
    print(to)
