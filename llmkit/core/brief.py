"""Brief work: done on the event loop itself where it need not wait, and on a thread where it must.

To hand work to a thread and back costs more than a transaction in a local file.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_here = threading.local()


class MustWaitError(Exception):
    """Brief work would have to wait: it is to be done on a thread, from its beginning."""


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Raise a MustWaitError where something would wait."""
    _here.at_once = True
    try:
        yield
    finally:
        _here.at_once = False


def is_at_once() -> bool:
    """Return whether nothing may wait here."""
    return getattr(_here, "at_once", False)


def may_wait() -> None:
    """Mark what may wait: for a lock, a server, an import; brief work ends here.

    Raises:
        MustWaitError: this is brief work.
    """
    if is_at_once():
        raise MustWaitError
