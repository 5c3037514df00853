"""One question and its answer: what `llmkit ask` does, and what sends it.

Neither Typer nor pydantic is imported here, nor by what a question needs, if its preset was checked before.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from llmkit.cli.terminal import drawing, is_used_by_hand, piped
from llmkit.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmkit.core.engine import Backend
    from llmkit.core.types import Reply
    from llmkit.presets import Preset


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A question of the command line, as its options say it."""

    prompt: str = ""
    model: str | None = None
    preset: str | None = None
    system: str | None = None
    option: Sequence[str] = ()
    attachment: Sequence[str] = ()
    var: Sequence[str] = ()
    schema: str | None = None
    tool: Sequence[str] = ()
    go_on: bool = False
    session: str | None = None
    no_log: bool = False
    database: str | None = None
    budget: Sequence[str] = ()
    no_stream: bool = False
    as_json: bool = False
    extract: bool = False
    usage: bool = False
    dry_run: bool = False
    save: str | None = None
    key: str | None = None
    timeout: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether the answer is printed when it is complete."""
        return self.as_json or self.no_stream or self.extract or self.schema is not None

    @property
    def is_in_session(self) -> bool:
        """Whether it is asked in a stored conversation."""
        return self.go_on or self.session is not None


def ask(question: Question, *, sender: Backend | None = None) -> None:
    """Print the answer to a question, and keep both; *sender* is for tests."""
    import llmkit

    _check_places(question)
    prompt = question.prompt if "-" in question.attachment else joined(question.prompt)
    keep = bool(not question.no_log and llmkit.Config().get("cli.keep"))
    options = options_of(question, keep=keep)
    chosen: dict[str, Any] = {"model": question.model, "system": question.system}
    chosen["preset"] = llmkit.presets.load(question.preset) if question.preset else None
    if question.save is not None:
        from llmkit.cli.asking.extras import save

        save(question.save, chosen, options)
    if question.dry_run:
        from llmkit.cli.asking.extras import print_dry_run

        if question.is_in_session:
            raise InvalidRequestError("--dry-run shows a question of its own, not one in a conversation")
        print_dry_run(prompt, chosen, options, whole=question.is_whole)
    elif prompt or options.get("attachments") or question.save is None:
        _answer(question, prompt, {**chosen, "backend": sender or backend()}, options, keep=keep)


def _check_places(question: Question) -> None:
    """Refuse a session or a database that cannot be, before anything is paid for."""
    if question.session == "" or question.database == "":
        raise InvalidRequestError("--session and --database want a value, not an empty one")
    if question.database is not None:
        from llmkit.store import opened

        os.environ["LLMKIT_DATABASE"] = question.database  # for this command, which is the whole process
        opened().sessions(limit=1)


def _answer(question: Question, prompt: str, chosen: dict[str, Any], options: dict[str, Any], *, keep: bool) -> None:
    import llmkit

    if keep and (params := _params(options)):
        _preset(chosen["preset"], {"params": params})  # what could not be kept is refused before it is paid for
    if question.is_in_session:
        reply = _gone_on(question.session or "", prompt, chosen, options, whole=question.is_whole)
    elif question.is_whole:
        reply = llmkit.ask(prompt, **chosen, **options)
    else:
        reply = streamed(llmkit.stream(prompt, **chosen, **options)).reply
    if question.is_whole:
        print(_shown(reply, question))
    report(reply, usage=question.usage)
    if keep and not question.is_in_session:
        _keep(prompt, reply, chosen, options)


def options_of(question: Question, *, keep: bool) -> dict[str, Any]:
    """Return what a question says besides its text, as arguments of `llmkit.ask`."""
    options = pairs(question.option)
    options |= {"api_key": question.key} if question.key else {}
    if question.var:
        from llmkit.presets import templates

        options["variables"] = templates.pairs(question.var)
    options |= {"ledger": keep}
    options |= {"budget": list(question.budget)} if question.budget else {}
    options |= {"timeout": question.timeout} if question.timeout is not None else {}
    options |= {"attachments": [_file(name) for name in question.attachment]} if question.attachment else {}
    if question.schema is not None or question.tool:
        from llmkit.cli.asking import extras

        options |= {"schema": extras.schema_of(question.schema)} if question.schema is not None else {}
        options |= {"tools": extras.tools_of(question.tool)} if question.tool else {}
    return options


def _shown(reply: Reply, question: Question) -> str:
    """Return what is printed of a complete answer."""
    if question.as_json:
        return _as_json(reply)
    if question.schema is not None:
        return json.dumps(reply.parsed, ensure_ascii=False)
    if question.extract:
        from llmkit.cli.asking.extras import code_in

        return code_in(reply.text)
    return reply.text


def backend() -> Any:
    """Return the backend, with the log that the configuration asks for; used by hand it leaves a local model loaded."""
    from llmkit.config import Config
    from llmkit.providers import Providers
    from llmkit.providers.debug_log import with_log

    class Patient(Providers):
        """Says on a terminal that it waits, before it tries again or because of a limit."""

        def sleep(self, seconds: float) -> None:
            if seconds >= 1 and sys.stderr is not None and sys.stderr.isatty():
                print(f"llmkit: waiting {seconds:.0f} s", file=sys.stderr)
            super().sleep(seconds)

    settings = Config()
    keep_s = settings.get("local.keep_s") if is_used_by_hand() else 0
    return with_log(Patient(local=lambda: _local(keep_s)), settings)


def _local(keep_s: float) -> Backend:
    from llmkit.providers.local.backend import Local

    return Local(keep_s, drawing(sys.stderr) if sys.stderr is not None and sys.stderr.isatty() else None)


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
    asked = messages.build(question, attachments=attachments)
    if store.messages(conversation.session_uuid)[-len(asked) :] != asked:  # else it failed, and is repeated
        conversation.add_messages(asked)
    answered = conversation.run(**options) if whole else streamed(conversation.run(stream=True, **options)).result
    if answered.exception is not None:
        raise answered.exception
    reply: Reply = answered.reply
    return reply


def _keep(question: str, reply: Reply, chosen: dict[str, Any], options: dict[str, Any]) -> None:
    """Store question and answer, so that `llmkit -c` can go on; if the store fails, the answer is still printed."""
    from llmkit.core import messages
    from llmkit.errors import LlmkitError
    from llmkit.sessions.keeping import keep
    from llmkit.sessions.snapshot import snapshot_of
    from llmkit.store import opened

    params, preset = _params(options), chosen["preset"]
    settings: dict[str, Any] = {"model": reply.name}
    settings |= {"system": chosen["system"]} if chosen["system"] is not None else {}
    settings |= {"variables": options["variables"]} if "variables" in options else {}
    try:
        asked = messages.build(question, attachments=options.get("attachments", ()))
        if preset is None and not params:  # there is nothing in it that a preset's model would check
            keep(opened(), {**settings, "params": {}}, asked, reply)
            return
        if params:
            preset = _preset(preset, {**settings, "params": params})
        else:  # texts stand where texts stood: nothing to check either
            if "variables" in settings:
                settings["variables"] = {**preset.variables, **settings["variables"]}
            preset = preset.changed(**settings)
        keep(opened(), snapshot_of(preset), asked, reply, preset=preset.name, version=preset.version)
    except LlmkitError as error:
        print(f"llmkit: this is not kept: {error}", file=sys.stderr)


def _params(options: dict[str, Any]) -> dict[str, Any]:
    """Return what of a question's options are the model's parameters."""
    own = ("attachments", "variables", "timeout", "api_key", "ledger", "budget", "schema", "tools")
    return {key: value for key, value in options.items() if key not in own}


def _preset(chosen: Preset | None, changes: dict[str, Any]) -> Preset:
    """Return the preset of a question, with what the command line changes in it."""
    from llmkit import presets

    return presets.changed(chosen or presets.Preset(), changes)


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
            "cost_usd": None if reply.usage.cost_usd is None else round(reply.usage.cost_usd, 12),
            **({} if reply.parsed is None else {"parsed": reply.parsed}),
            "latency_s": round(reply.latency_s, 4),
            "warnings": list(reply.warnings),
        },
        ensure_ascii=False,
    )


_ELSEWHERE = {"model": "say -m", "preset": "say -p", "system": "say -s", "prompt": "it is the text itself"}


def pairs(given: Sequence[str], elsewhere: Mapping[str, str] = _ELSEWHERE) -> dict[str, Any]:
    """Return the parameters in several KEY=VALUE.

    Args:
        given: what follows each `-o`.
        elsewhere: the arguments of the call that a command gives itself, and how it is told them.

    Raises:
        InvalidRequestError: it is an argument of the call, or of programs only.
    """
    from llmkit.core.params import OBJECTS

    read = dict(map(_pair, given))
    for name in read:
        if name in OBJECTS or name in {"backend", "self"}:
            raise InvalidRequestError(f"--option {name} cannot be: it is for Python programs")
        if name in elsewhere:
            raise InvalidRequestError(f"--option {name} cannot be: {elsewhere[name]}")
    return read


def _pair(option: str) -> tuple[str, Any]:
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
    return "\n\n".join(part for part in (piped("; attach a file with -a -").rstrip("\n"), prompt) if part)


def _file(name: str) -> Any:
    """Return the message part for an attachment; `-` is stdin."""
    from llmkit.core import messages

    return messages.part_of_bytes(sys.stdin.buffer.read(), name="stdin") if name == "-" else messages.attachment(name)
