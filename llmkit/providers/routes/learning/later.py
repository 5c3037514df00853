"""Learns the routes of models that LiteLLM was loaded for, after their calls, on a thread that holds up nobody.

When the program ends, it stops. An interpreter that ends while a thread is in LiteLLM's compiled parts may abort, and
what LiteLLM says by then is no answer: its executors are shut down.
"""

from __future__ import annotations

import atexit
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from llmkit.core.fork import Lock, in_each_process
from llmkit.providers.litellm import changes
from llmkit.providers.routes.behaviour import Behaviour
from llmkit.providers.routes.learning.access import UnlearnableError, observer_of
from llmkit.providers.routes.learning.models import behaviour_among
from llmkit.providers.routes.learning.observe import NobodyWaitsError
from llmkit.providers.routes.route import Route

if TYPE_CHECKING:
    from llmkit.providers.routes.table import Table


_LONGEST_PROBE_S = 5.0


class Later:
    """Learns one model after the other.

    Args:
        table: where routes are known, and kept once they are learned.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self.begin_anew()
        in_each_process(self)
        atexit.register(self.wait, _LONGEST_PROBE_S)

    def begin_anew(self) -> None:
        """Forget the parent's thread."""
        self._lock = Lock()
        self._seen: set[str] = set()
        self._wanted: list[str] = []
        self._thread: threading.Thread | None = None

    def want(self, model: str) -> None:
        """Learn the route to a model, if it is one of a provider whose address is known; returns at once."""
        name, _, bare = model.partition("/")
        known = self._table.provider(name)
        if known is None or known.place(bare) is not None or self._table.learned_place(name, bare) is not None:
            return
        with self._lock:
            if model in self._seen:
                return
            self._seen.add(model)
            self._wanted.append(model)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="llmkit-routes", daemon=True)
                self._thread.start()

    def wait(self, seconds: float) -> None:
        """Wait until everything wanted is learned, but no longer than that."""
        if (thread := self._thread) is not None:
            thread.join(seconds)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._wanted:
                    self._thread = None
                    return
                model = self._wanted.pop(0)
            name, _, bare = model.partition("/")
            if changes.are_there():  # the program's callbacks would see the probes
                continue
            with suppress(NobodyWaitsError):
                learned = self._learned(name, bare)
                if _goes_on():
                    self._table.keep(name, bare, learned)

    def _learned(self, name: str, model: str) -> Behaviour | None:
        known = self._table.provider(name)
        if known is None:
            return None
        route = Route(provider=name, model=model, access=known.access, behaviour=Behaviour(effects={}))
        try:
            return behaviour_among(route, known.behaviours, observer_of(name, _goes_on))
        except UnlearnableError:
            return None


def _goes_on() -> bool:
    """Return whether the program does; the main thread ends before anything is shut down."""
    return threading.main_thread().is_alive()
