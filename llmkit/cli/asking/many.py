"""What `llmkit map` does: it says what it costs, shows how far it is, stops cleanly, and says how it ended."""

from __future__ import annotations

import json
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llmkit.cli import files
from llmkit.cli.asking import question
from llmkit.cli.terminal import FAILURE, INTERRUPTED, is_asked, live_long
from llmkit.errors import BudgetExceededError, InvalidRequestError, LlmkitError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from typing_extensions import Self

    from llmkit.jobs import Job, JobInfo, MapQuote, Work

_REDRAWN_S = 0.2


def ask(rows: str, given: Mapping[str, Any]) -> None:
    """Ask the rows of a file, as the options of the command line say; see `map.run`."""
    from llmkit.jobs import opened_work

    if given["plot"] is not None:
        _check_plot(given["plot"], given["out"])
    asked = question.Question(**{name: given[name] for name in _OF_A_QUESTION if given[name] is not None})
    options = question.options_of(asked, keep=True)
    del options["ledger"]
    schema = options.pop("schema", None)
    options |= {name: given[name] for name in _OF_A_JOB if given[name] is not None}
    options["at_once"] = _at_once(given["at_once"])
    options |= {"api_key": given["api_key"]} if given["api_key"] else {}
    backend = None if given["workers"] or given["engine"] else question.backend()
    work = opened_work(rows, given["preset"], given["model"], given["system"], schema, backend, options)
    try:
        is_whole = work.output is not None and work.output.is_whole
        if not is_whole:
            _confirm(work.quote(), yes=given["yes"])
        with _drawn(work.job, given["plot"]):
            if not is_whole:
                _ask(work)
    finally:
        work.close()
    _report(work.job.info(), given["out"], as_json=given["as_json"])


_OF_A_QUESTION = ("option", "var", "schema", "budget", "timeout")
_OF_A_JOB = (
    *("prompt", "column", "key", "out", "workers", "engine", "address", "rpm", "tpm", "max_usd", "retry_errors"),
)


def join(job: str, store: str | None, *, at_once: str | None, workers: int | None, **own: str | None) -> None:
    """Ask rows of a job that was begun elsewhere; see `map.join`."""
    from llmkit.jobs import Jobs
    from llmkit.jobs.workers.join import joined, run

    found = Jobs(store).get(job)
    backend = None if workers else question.backend()
    number = None if at_once is None else _at_once(at_once)
    asking = joined(found, workers=workers or 0, backend=backend, at_once=number, **own)
    with _stopped_by_signals(asking.stop, asking.drop):
        try:
            run(asking)
        finally:
            tally = asking.tally
            said = f"{tally.done} rows answered here, {tally.failed} failed, {usd(tally.cost_usd)}"
            print(f"llmkit: {found.name}: {said}", file=sys.stderr)


def _at_once(given: str) -> int | str:
    return int(given) if given.isdecimal() else given


def _confirm(quote: MapQuote, *, yes: bool) -> None:
    """Say what it costs; at a terminal, ask whether to begin."""
    if not quote.rows:
        return
    costs = [
        f"{name} {usd(cost)}" for name, cost in (("about", quote.expected_usd), ("at most", quote.most_usd)) if cost
    ]
    left = "" if quote.left_usd is None else f"; the budget has {usd(quote.left_usd)} left"
    short = quote.left_usd is not None and (quote.most_usd is None or quote.most_usd > quote.left_usd)
    enough = ", which may not be enough" if short else ""
    print(f"llmkit: {quote.rows} rows to ask, {', '.join(costs) or 'price unknown'}{left}{enough}", file=sys.stderr)
    if quote.refused:
        raise BudgetExceededError(quote.refused)
    if not yes and is_asked("begin?") is False:
        raise typer.Exit(FAILURE)


def _check_plot(file: str, out: str) -> None:
    """Refuse now what the picture could not be written to at the end."""
    if Path(file).suffix.lower() != ".svg":
        raise InvalidRequestError(f"--plot draws SVG: the file ends in .svg, not {file!r}")
    if Path(file).resolve() == Path(out).resolve():
        raise InvalidRequestError("--plot and --out are the same file")
    files.check(file, option="--plot")


@contextmanager
def _drawn(job: Job, file: str | None) -> Iterator[None]:
    """Draw the job when it ends, however it does; if that fails, say so, and end as the job ends."""
    try:
        yield
    finally:
        if file is not None:
            from llmkit.jobs.plot import picture

            try:
                files.write(picture(job), file, option="--plot")
            except LlmkitError as error:
                print(f"llmkit: {error}", file=sys.stderr)


def _ask(work: Work) -> None:
    """Ask the rows; Ctrl-C waits for the answers under way, a second one does not."""
    try:
        with _stopped_by_signals(work.stop, work.stop), _Progress(work) as progress:
            for result in work.results(after=0 if work.output is None else work.output.written.rows):
                progress.show(result.number)
    finally:
        info = work.job.info()
        if info.ended_at is None:
            left = info.waiting + info.under_way
            print(f"llmkit: {left} of {info.rows} rows are left; the same command goes on with them", file=sys.stderr)


@contextmanager
def _stopped_by_signals(stop: Callable[[], None], drop: Callable[[], None]) -> Iterator[None]:
    """Call *stop* at Ctrl-C, and at SIGTERM, which clusters send before they kill, and *drop* at each further one.

    Exits then when the block ends.
    """
    came: list[int] = []

    def interrupt(number: int, _: Any) -> None:
        came.append(number)
        (stop if len(came) == 1 else drop)()
        if len(came) == 1:
            print("llmkit: waiting for the answers under way; Ctrl-C again gives them up", file=sys.stderr)

    live_long()
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise SystemExit(INTERRUPTED if came[0] == signal.SIGINT else 128 + came[0])


class _Progress:
    """The bar of a job at a terminal: rows written, rate, cost so far, cost and time to come, errors."""

    def __init__(self, work: Work) -> None:
        from llmkit.providers.progress import progress_bar  # 10 ms, which every `--help` would take

        self._work = work
        self._since, self._drawn_at = time.monotonic(), 0.0
        self._bar = progress_bar("asking", with_note=True) if sys.stderr is not None and sys.stderr.isatty() else None

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._task = self._bar.add_task("", total=self._work.rows, note="")
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, number: int) -> None:
        """Show that so many rows are written."""
        now = time.monotonic()
        if self._bar is None or (now - self._drawn_at < _REDRAWN_S and number < self._work.rows):
            return
        self._drawn_at = now
        self._bar.update(self._task, completed=number, note=self._note(number, now - self._since))

    def _note(self, number: int, seconds: float) -> str:
        if self._work.asking is None:
            return ""
        tally = self._work.asking.tally
        asked = tally.done + tally.failed
        rate = asked / seconds if seconds else 0.0
        left = self._work.rows - number
        words = [f"{rate:.1f}/s", usd(tally.cost_usd)]
        if asked and left:
            to_come = timedelta(seconds=round(left / rate)) if rate else "?"
            words.append(f"to come {to_come}, {usd(tally.cost_usd / asked * left)}")
        return ", ".join([*words, *([f"{tally.failed} errors"] if tally.failed else [])])


def _report(info: JobInfo, out: str, *, as_json: bool) -> None:
    """Say how a job ended; exits with 1 if rows failed."""
    if as_json:
        print(json.dumps(asdict(info)))
    else:
        same = f", {info.same} of them like an earlier one" if info.same else ""
        print(f"llmkit: {out}: {info.rows} rows{same}, {info.failed} failed, {usd(info.cost_usd)}", file=sys.stderr)
    if info.failed:
        print("llmkit: --retry-errors asks again what failed", file=sys.stderr)
        raise typer.Exit(FAILURE)


def usd(cost: float | None) -> str:
    """Return a cost in words."""
    return "unknown" if cost is None else f"{cost:.6f} USD" if cost < 1 else f"{cost:.2f} USD"
