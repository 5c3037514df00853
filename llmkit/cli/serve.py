"""`llmkit serve`: presets and `model.py` files over HTTP; `llmkit serve keys`: the keys of its callers."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from llmkit.cli.base import AsJson, Lists, add_group, table
from llmkit.cli.terminal import WRONG_USAGE, live_long
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from llmkit.serve import Keys, Limits
    from llmkit.serve.app import Application
    from llmkit.serve.keys import KeyInfo
    from llmkit.serve.served import Served
    from llmkit.store import Store

_NEEDED = ("starlette", "uvicorn", "httptools", "prometheus_client", "python_multipart")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_ADD = "make one with `llmkit serve keys add NAME`"


class _Serve(TyperGroup):
    """Runs `serve keys …` as a command of its own; all other words are things to serve."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Insert the command `run` before words that are not a command."""
        if not args or args[0] not in self.commands:
            args = ["run", *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


class _ServeCommand(TyperCommand):
    """The command without a name: `llmkit serve`."""

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Show the usage line as users type it."""
        formatter.write_usage(ctx.parent.command_path, " ".join(self.collect_usage_pieces(ctx)))


keys = typer.Typer(cls=Lists, help="Keys of the server: who may call it, which presets, for how much.")
serve = typer.Typer(cls=_Serve, help="Serve presets and model.py files; `serve keys` manages its keys.")
serve.add_typer(keys, name="keys")
add_group(serve, "serve")


@serve.command("run", cls=_ServeCommand, hidden=True, epilog="Keys of the server: llmkit serve keys --help")
def run(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PRESET|MODEL.PY]...", help="What to serve; by default the default preset."),
    ] = None,
    *,
    host: Annotated[str, typer.Option("--host", help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 for any free one.")] = 8000,
    open_: Annotated[bool, typer.Option("--open", help="Answer everybody, without keys.")] = False,
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Requests at the same time.")] = 64,
    queue: Annotated[int, typer.Option("--queue", min=0, help="Requests that wait; more get 429.")] = 256,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Runs at the same time, a quarter for one key.")] = 256,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="For one answer.")] = 600.0,
    max_body: Annotated[int, typer.Option("--max-body", min=1, metavar="BYTES", help="Of one request.")] = 10485760,
    grace: Annotated[
        int, typer.Option("--grace", min=0, metavar="SECONDS", help="To finish requests at the end.")
    ] = 10,
    root_path: Annotated[str, typer.Option("--root-path", help="The path a proxy puts before ours.")] = "",
) -> None:
    """Answer OpenAI's protocol for presets and model.py files, until Ctrl-C.

    Example: llmkit serve local --port 8000
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        print(f"llmkit: {missing[0]} is missing: pip install 'llmkit[serve]'", file=sys.stderr)
        raise typer.Exit(WRONG_USAGE)
    from llmkit.serve import Keys, Limits, create_app
    from llmkit.store import opened

    store = opened(None)
    keys, is_loopback = Keys(store), _is_loopback(host)
    _check_keys(keys, host, open_=open_)
    limits = Limits(
        body_bytes=max_body,
        concurrency=concurrency,
        queue=queue,
        request_timeout_s=timeout,
        jobs=jobs,
        jobs_per_key=max(1, jobs // 4),
    )
    application = create_app(
        _served(targets or [_default()], store, timeout),
        store=store,
        keys=keys,
        limits=limits,
        hosts=_LOOPBACK | {host} if is_loopback else None,
        is_open=open_ and is_loopback,
    )
    _run(application, _bound(host, port), limits=limits, grace=grace, root_path=root_path)


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_keys(keys: Keys, host: str, *, open_: bool) -> None:
    """Refuse to serve everybody on another address than loopback, unless that is wanted and there never was a key.

    A store that ever had a key stays closed without one: else removing the last key would open everything to everybody.
    """
    if _is_loopback(host):
        if keys.ever() and not keys.any() and not open_:
            _warn(f"there is no key any more, so nobody may ask: {_ADD}, or say --open")
    elif open_ and keys.ever():
        raise ConfigError(f"--open would let everybody in who reaches {host}, and this store has or had keys: {_ADD}")
    elif open_:
        _warn(f"everybody who reaches {host} may ask, and at your cost")
    elif not keys.any():
        what = "nobody who reaches {host} may ask" if keys.ever() else "everybody who reaches {host} could ask"
        advice = "" if keys.ever() else ", or say --open"
        raise ConfigError(f"there is no key, so {what.format(host=host)}: {_ADD}{advice}")


def _warn(text: str) -> None:
    print(f"llmkit: {text}", file=sys.stderr, flush=True)


def _served(targets: Sequence[str], store: Store, timeout_s: float) -> list[Served]:
    """Return the targets of the command line: files and folders with a model.py, and presets."""
    from llmkit import presets
    from llmkit.serve import ServedPreset
    from llmkit.serve.hosted.host import Host

    served: list[Served] = []
    for target in targets:
        path = Path(target).expanduser()
        # a folder that happens to be called like a preset came with the current folder; its code is not asked for
        is_preset = "/" not in target and target.partition("@")[0] in presets.names()
        if path.suffix == ".py" or (not is_preset and (path / "model.py").is_file()):
            path = path if path.suffix == ".py" else path / "model.py"
            served.append(Host(path, store=store, lost_after_s=timeout_s))
        else:
            preset = presets.load(target)
            served.append(ServedPreset(preset.name, preset, store))
    return served


def _default() -> str:
    """Return the preset to serve if none is named."""
    from llmkit import config

    return config.default_choice()[1] or "local"


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket bound to the address, so that a taken port is reported in one line."""
    import socket

    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        bound = socket.socket(family)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, port))
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise ConfigError(f"cannot listen at {host}:{port}: {error.strerror or error}") from error
    return bound


def _run(application: Application, bound: socket.socket, *, limits: Limits, grace: int, root_path: str) -> None:
    """Serve until a signal arrives; requests under way are finished, within *grace* seconds."""
    import contextlib
    import signal

    import uvicorn

    from llmkit.serve.connection import server_config

    host, port = bound.getsockname()[:2]

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                shown = f"[{host}]" if ":" in host else host
                _warn(f"serving at http://{shown}:{port}")

    live_long()
    server = Server(server_config(application, limits, root_path=root_path, timeout_graceful_shutdown=grace))
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises them again when it has stopped
        signal.signal(number, lambda *_: None)
    with bound, contextlib.suppress(SystemExit):  # uvicorn's, if it did not start
        server.run(sockets=[bound])
    if not server.started:
        raise ConfigError(f"the server did not start: {application.fault}")


# -- serve keys -------------------------------------------------------------------------------------------------------

_Name = Annotated[str, typer.Argument(help="Name of the key.")]


@keys.command()
def add(
    name: _Name,
    *,
    budget: Annotated[float | None, typer.Option("--budget", min=0, help="US dollars per period.")] = None,
    period: Annotated[str, typer.Option("--period", help="day, week, month or total.")] = "month",
    presets: Annotated[str | None, typer.Option("--presets", help="The only presets it may call, as in a,b.")] = None,
) -> None:
    """Create a key and print it, once.

    Example: llmkit serve keys add anna --budget 5 --presets fast,careful
    """
    from llmkit.serve import Keys

    models = None if presets is None else [part for name in presets.split(",") if (part := name.strip())]
    checked: Any = period  # by `Keys.add`
    print(Keys().add(name, budget, checked, models))
    print("llmkit: this key is not shown again; clients send it as a bearer token", file=sys.stderr)


@keys.command("list")
def list_(*, as_json: AsJson = False) -> None:
    """List all keys: name, prefix, used, limit, period, presets, creation date."""
    from llmkit.serve import Keys

    infos = Keys().list()
    if as_json:
        print(json.dumps([asdict(info) for info in infos], ensure_ascii=False))
        return
    for name in (info.budget_name for info in infos if info.budget is None and info.budget_name):
        _warn(f"the budget {name} is gone, so its key may not ask: llmkit budget set {name} USD")
    table(
        (
            info.name,
            f"{info.prefix}…",
            f"{info.budget.settled:.6f}" if info.budget else "",
            _limit_of(info),
            info.budget.budget.period if info.budget else "",
            "all presets" if info.models is None else ",".join(info.models),
            time.strftime("since %Y-%m-%d", time.gmtime(info.created_at)),
        )
        for info in infos
    )


def _limit_of(info: KeyInfo) -> str:
    if info.budget is not None:
        return f"of {info.budget.budget.limit_usd:g} USD"
    return "budget is gone" if info.budget_name else "no limit"


@keys.command()
def remove(name: _Name) -> None:
    """Delete a key with its budget; servers refuse it two seconds later.

    If it was the last one, nobody can use them from then on.
    """
    from llmkit.serve import Keys

    known = Keys()
    known.remove(name)
    if not known.any():
        print("llmkit: that was the last key; servers of this store let nobody in until there is one", file=sys.stderr)
