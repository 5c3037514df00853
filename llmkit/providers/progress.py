"""The one progress bar: on stderr, for anything that takes long."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


def progress_bar(description: str, *, of_bytes: bool = False, with_note: bool = False) -> Progress:
    """Return a bar that counts things, or bytes with their speed; `add_task`, `start` and `stop` are rich's.

    *with_note* shows a task's field `note` in the place of the time.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TransferSpeedColumn,
    )

    last = TextColumn("{task.fields[note]}", markup=False) if with_note else TimeElapsedColumn()
    counts = (DownloadColumn(), TransferSpeedColumn()) if of_bytes else (MofNCompleteColumn(), last)
    console = Console(file=getattr(sys.stderr, "raw", sys.stderr))  # the command line's own lets texts through only
    # A library leaves the program's own stdout and stderr as they are.
    return Progress(description, BarColumn(), *counts, console=console, redirect_stdout=False, redirect_stderr=False)
