"""Learns the routes of models that LiteLLM was loaded for, after their calls, on a thread that holds up nobody.

When the program ends, it stops. An interpreter that ends while a thread is in LiteLLM's compiled parts may abort, and
what LiteLLM says by then is no answer: its executors are shut down.
"""

from __future__ import annotations

import atexit
import logging
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from llmkit.core.fork import Lock, before_other_hooks, in_each_process
from llmkit.providers.litellm import changes
from llmkit.providers.routes.behaviour import Behaviour
from llmkit.providers.routes.learning import access
from llmkit.providers.routes.learning.access import UnlearnableError, observer_of
from llmkit.providers.routes.learning.behaviour import is_expressible
from llmkit.providers.routes.learning.models import behaviour_among, price_of, steps
from llmkit.providers.routes.learning.observe import NobodyWaitsError
from llmkit.providers.routes.route import Route
from llmkit.providers.routes.table import UNLEARNABLE

if TYPE_CHECKING:
    from collections.abc import Callable

    from llmkit.providers.routes.learning.observe import Observer
    from llmkit.providers.routes.table import Provider, Table

log = logging.getLogger("llmkit")
before_other_hooks()
_LONGEST_PROBE_S = 5.0


class Later:
    """Learns one model after the other.

    Args:
        table: where routes are known, and kept once they are learned.
        goes_on: returns whether the program does; if not, no more is asked.
    """

    def __init__(self, table: Table, goes_on: Callable[[], bool] | None = None) -> None:
        self._table, self._goes_on = table, goes_on or _main_thread_goes_on
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
        if self._table.provider(name) is None or self._table.knows(name, bare):
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
            try:
                self._learn(name, bare)
            except NobodyWaitsError:
                pass
            except Exception as error:  # noqa: BLE001 - another LiteLLM may do anything; its calls go on through it
                log.debug("the route to %s cannot be learned: %r", model, error)

    def _learn(self, name: str, model: str) -> None:
        known = self._table.provider(name)
        if known is None:
            return
        route = Route(provider=name, model=model, access=known.access, behaviour=Behaviour(effects={}))
        if not is_expressible(route):  # as things are now: a variable may name another address, or change what is sent
            return
        learned: Behaviour | None = None
        with suppress(UnlearnableError):
            observer = observer_of(name, self._is_wanted)
            if self._table.holds(name):
                learned = behaviour_among(route, known.behaviours, observer)
            else:
                learned = self._learned_anew(route, known, observer)
        price = price_of(f"{name}/{model}", known.access.dialect)
        if self._is_wanted():
            self._table.keep(name, model, learned, price)

    def _is_wanted(self) -> bool:
        """Return whether LiteLLM's answers are of use: not to a program that has ended, or has changed LiteLLM."""
        return self._goes_on() and not changes.are_there()

    def _learned_anew(self, route: Route, known: Provider, observer: Observer) -> Behaviour:
        """Return how a model behaves with a LiteLLM that has other parts than the one that the file came from."""
        at = known.place(route.model)
        if at is not None and at != UNLEARNABLE:
            expected = replace(route, behaviour=known.behaviours[at])
            if self._is_still_so(expected, observer):
                return expected.behaviour
        if not all(is_so() for is_so in access.steps(route, observer)):
            raise UnlearnableError(f"{route.provider} is reached in another way")
        return behaviour_among(route, (), observer)

    def _is_still_so(self, route: Route, observer: Observer) -> bool:
        """Return whether a route is right; what was seen before a program ended is not looked at again."""
        todo, model = steps(route, observer), f"{route.provider}/{route.model}"
        done = self._table.seen(model, of=len(todo))
        try:
            while done < len(todo):
                if not todo[done]():
                    return False
                done += 1
        finally:
            self._table.see(model, done, of=len(todo))
        return True


def _main_thread_goes_on() -> bool:
    """Return whether the program goes on; the main thread ends before anything is shut down."""
    return threading.main_thread().is_alive()
