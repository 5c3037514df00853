"""`llmkit ask`, the default command: one question, one answer; `quote`, its cost beforehand; `run`, a template."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from llmkit.cli.base import (
    OVER_BUDGET,
    Attachment,
    BudgetNames,
    GoOn,
    Model,
    NoStream,
    Option,
    PresetName,
    Prompt,
    Session,
    ShowUsage,
    System,
    Var,
    app,
    backend,
)
from llmkit.errors import InvalidRequestError

if TYPE_CHECKING:
    from llmkit.core.types import Reply


class WithOptions(TyperCommand):
    """A command with `-o KEY VALUE` or `-o KEY=VALUE`; Typer itself knows only the latter."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Convert the first form into the second."""
        given, joined = iter(args), []
        for arg in given:
            joined.append(arg)
            if arg == "--":
                joined += given
            elif arg in {"-o", "--option"} and (key := next(given, None)) is not None:
                value = None if "=" in key else next(given, None)
                joined.append(key if value is None else f"{key}={value}")
        parsed: list[str] = super().parse_args(ctx, joined)
        return parsed


@app.command(cls=WithOptions)
def ask(
    *,
    prompt: Prompt = "",
    model: Model = None,
    preset: PresetName = None,
    system: System = None,
    option: Option = None,
    attachment: Attachment = None,
    var: Var = None,
    go_on: GoOn = False,
    session: Session = None,
    no_log: Annotated[bool, typer.Option("-n", "--no-log", help="Keep nothing of it.")] = False,
    budget: BudgetNames = None,
    no_stream: NoStream = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: text, model, usage, cost.")] = False,
    usage: ShowUsage = False,
    key: Annotated[str | None, typer.Option("--key", help="The provider's API key.")] = None,
    timeout: Annotated[float | None, typer.Option("--timeout", metavar="SECONDS", help="Give up after this.")] = None,
) -> None:
    """Ask a question and print the answer.

    Example: llmkit -m openai/gpt-4o -o temperature 0 "Name a colour."
    """
    import llmkit
    from llmkit.presets import templates

    keep = not no_log and llmkit.Config().get("cli.keep")
    stdin_is_file = "-" in (attachment or ())
    options: dict[str, Any] = dict(map(pair, option or ()))
    options |= {"api_key": key} if key else {}
    options |= {"variables": templates.pairs(var)} if var else {}
    options |= {"ledger": keep}
    options |= {"budget": budget} if budget else {}
    options |= {"timeout": timeout} if timeout is not None else {}
    options |= {"attachments": [_file(name) for name in attachment]} if attachment else {}
    chosen: dict[str, Any] = {"model": model, "system": system, "backend": backend()}
    chosen["preset"] = llmkit.presets.load(preset) if preset else None
    question = prompt if stdin_is_file else joined(prompt)
    whole = as_json or no_stream
    if go_on or session is not None:
        reply = _gone_on(session or "", question, chosen, options, whole=whole)
    elif whole:
        reply = llmkit.ask(question, **chosen, **options)
    else:
        reply = streamed(llmkit.stream(question, **chosen, **options)).reply
    if whole:
        print(_as_json(reply) if as_json else reply.text)
    report(reply, usage=usage)
    if keep and not go_on and session is None:
        _keep(question, reply, chosen, options)


def _gone_on(begin: str, question: str, chosen: dict[str, Any], options: dict[str, Any], *, whole: bool) -> Reply:
    """Ask in a stored conversation; another model or preset makes a fork of it."""
    from llmkit import ChatModel, presets
    from llmkit.core import messages
    from llmkit.store import opened

    store = opened()
    info = store.session(store.resolve(begin))
    conversation = ChatModel(info.preset, info.id, store=store, backend=chosen["backend"])
    changes = {key: chosen[key] for key in ("model", "system") if chosen[key] is not None}
    if chosen["preset"] is not None or changes:
        preset = chosen["preset"] or conversation.preset
        conversation = conversation.fork(preset=presets.changed(preset, changes))
    attachments, _ = options.pop("attachments", ()), options.pop("ledger", None)
    conversation.add_messages(messages.build(question, attachments=attachments))
    answered = conversation.run(**options) if whole else streamed(conversation.run(stream=True, **options)).result
    if answered.exception is not None:
        raise answered.exception
    reply: Reply = answered.reply
    return reply


def _keep(question: str, reply: Reply, chosen: dict[str, Any], options: dict[str, Any]) -> None:
    """Store question and answer, so that `llmkit -c` can go on; if the store fails, the answer is still printed."""
    from llmkit import ChatModel, presets
    from llmkit.core import messages
    from llmkit.errors import LlmkitError

    own = ("attachments", "variables", "timeout", "api_key", "ledger", "budget")
    params = {key: value for key, value in options.items() if key not in own}
    changes = {"model": reply.name, "params": params}
    changes |= {"system": chosen["system"]} if chosen["system"] is not None else {}
    changes |= {"variables": options["variables"]} if "variables" in options else {}
    try:
        preset = presets.changed(chosen["preset"] or presets.Preset(), changes)
        question_messages = messages.build(question, attachments=options.get("attachments", ()))
        ChatModel(preset, backend=chosen["backend"]).record(question_messages, reply)
    except LlmkitError as error:
        print(f"llmkit: this is not kept: {error}", file=sys.stderr)


def streamed(pieces: Any) -> Any:
    """Print the pieces as they arrive; what was printed stays, even if the answer is cut or interrupted."""
    printed = ""
    try:
        with pieces:
            for piece in pieces:
                printed = piece.content or printed
                sys.stdout.write(piece.content)
                sys.stdout.flush()
    finally:
        if printed and not printed.endswith("\n"):
            sys.stdout.write("\n")
            sys.stdout.flush()
    return pieces


def report(reply: Reply, *, usage: bool) -> None:
    """Print warnings on stderr, and tokens and price if requested."""
    for warning in reply.warnings:
        if usage or not warning.startswith(("no price", "the provider reported no usage")):
            print(f"llmkit: {warning}", file=sys.stderr)
    if reply.finish_reason == "length":
        print("llmkit: the answer was cut at its length limit", file=sys.stderr)
    if usage:
        counted = reply.usage
        cost = "price unknown" if counted.cost_usd is None else f"{counted.cost_usd:.6f} USD ({counted.source})"
        tokens = f"{counted.prompt_tokens} + {counted.completion_tokens} = {counted.total_tokens} tokens"
        print(f"llmkit: {tokens}, {cost}, {reply.latency_s:.2f} s, {reply.model}", file=sys.stderr)


def _as_json(reply: Reply) -> str:
    return json.dumps(
        {
            "text": reply.text,
            "model": reply.model,
            "finish_reason": reply.finish_reason,
            "usage": asdict(reply.usage),
            "cost_usd": reply.usage.cost_usd,
            "latency_s": round(reply.latency_s, 4),
            "warnings": list(reply.warnings),
        },
        ensure_ascii=False,
    )


def pair(option: str) -> tuple[str, Any]:
    """Split KEY=VALUE; a value that is JSON (numbers, true, lists) is parsed, any other is a text."""
    key, equals, text = option.partition("=")
    if not equals or not key:
        raise InvalidRequestError(f"-o {option}: an option is a key and a value, as in -o temperature 0")
    try:
        return key, json.loads(text)
    except ValueError:
        return key, text


def joined(prompt: str) -> str:
    """Return the prompt after the text from stdin."""
    if sys.stdin is None or sys.stdin.isatty():
        return prompt
    try:
        piped = sys.stdin.read()
    except UnicodeDecodeError:
        raise InvalidRequestError("stdin is not text; attach a file with -a -") from None
    return "\n\n".join(part for part in (piped.rstrip("\n"), prompt) if part)


def _file(name: str) -> Any:
    """Return the message part for an attachment; `-` is stdin."""
    from llmkit.core import messages

    return messages.part_of_bytes(sys.stdin.buffer.read(), name="stdin") if name == "-" else messages.attachment(name)


@app.command(cls=WithOptions)
def quote(
    *,
    prompt: Prompt = "",
    model: Model = None,
    preset: PresetName = None,
    system: System = None,
    option: Option = None,
    budget: BudgetNames = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what a question would cost; nothing is sent. Exits with 3 if a budget would refuse it.

    Example: llmkit quote -m openai/gpt-4o -o max_tokens 200 "Name a colour."
    """
    import llmkit

    options: dict[str, Any] = dict(map(pair, option or ()))
    options |= {"budget": budget} if budget else {}
    cost = llmkit.quote(joined(prompt), model=model, preset=preset, system=system, **options)
    if as_json:
        print(json.dumps(asdict(cost)))
    else:
        room = "unknown window" if cost.window is None else f"window {cost.window}"
        fits = {True: "fits", False: "does not fit", None: "may fit"}[cost.fits]
        print(f"{cost.model}: {cost.prompt_tokens} tokens, {room}, {fits}; answer up to {cost.answer_tokens} tokens")
        prices = (("least", cost.least_usd), ("expected", cost.expected_usd), ("most", cost.most_usd))
        print(", ".join(f"{name} {'unknown' if usd is None else f'{usd:.6f} USD'}" for name, usd in prices))
        if cost.refused:
            print(cost.refused)
    if cost.refused:
        raise typer.Exit(OVER_BUDGET)


@app.command()
def run(
    template: Annotated[str, typer.Argument(help="A prompt file, or the name of one of your templates.")],
    *,
    var: Var = None,
    preset: PresetName = None,
    no_stream: NoStream = False,
    usage: ShowUsage = False,
) -> None:
    """Send a template's prompt, and print the answer.

    Example: llmkit run explain.md --var word=entropy
    """
    from llmkit import ApiBackend
    from llmkit.presets import templates

    bot = ApiBackend(backend=backend())
    overrides = {"preset": preset} if preset else {}
    streamed = {} if no_stream else {"print_stream": True}
    answer = bot.run_template(template, templates.pairs(var or ()), {**overrides, **streamed})
    if bot.last_error is not None:
        raise bot.last_error
    if no_stream:
        print(answer.response)
    if bot.last_reply is not None:
        report(bot.last_reply, usage=usage)
