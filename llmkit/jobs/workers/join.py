"""Joining a job that somebody has begun, from any process that reaches its store."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Protocol

from llmkit.api import real_backend
from llmkit.core.messages import whole_number
from llmkit.errors import InvalidRequestError
from llmkit.jobs.asking import Asking
from llmkit.jobs.workers.crew import Crew
from llmkit.jobs.workers.orders import stored_orders

if TYPE_CHECKING:
    from llmkit.core.engine import Backend
    from llmkit.jobs.job import Job

LOOK_S = 0.5


def joined(job: Job, *, workers: int = 0, backend: Backend | None = None, **changed: Any) -> Asking | Crew:
    """Return what asks the rows of a job that others work on too, until none is left; while it is read, wait.

    Args:
        job: the job.
        workers: how many processes ask; 0 for this one.
        backend: what sends the requests of this one; for tests.
        changed: `at_once` and `api_key` instead of what the job began with, and `api_base`, if it has one.

    Raises:
        InvalidRequestError: it was removed, or only the program that began it can ask its rows.
        ConfigError: its preset needs what is not here.
    """
    if (at_once := changed.get("at_once")) not in {None, "auto"}:
        whole_number("at_once", at_once)
    while (orders := stored_orders(job, **changed)) is None:
        if job.info().owner is None:
            raise InvalidRequestError(f"the job {job.name} was not read whole; start it again")
        time.sleep(LOOK_S)
    return Crew(orders, workers, lambda: None) if workers else orders.asking(backend or real_backend())


class Crowd(Protocol):
    """Other processes that ask."""

    def run(self) -> None:
        """Ask."""


def run(asking: Asking | Crowd) -> None:
    """Ask until no row is left, or somebody stops it.

    Raises:
        LlmkitError: it cannot go on.
    """
    if isinstance(asking, Asking):
        asyncio.run(asking.run())
    else:
        asking.run()
