"""`Orders`: what a process must know to ask the rows of a job; handed over, or read from the store by who joins."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any

from llmkit.config.secrets import is_reference, masked
from llmkit.core.retry import Retry
from llmkit.errors import InvalidRequestError
from llmkit.jobs.asking import Asking
from llmkit.jobs.job import Job
from llmkit.jobs.settings import Asked, Settings
from llmkit.money.budgets import Budget
from llmkit.money.guard import guard_of
from llmkit.presets import Preset
from llmkit.store import Store
from llmkit.store import jobs as rows
from llmkit.store.quotas import Quota

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llmkit.core.engine import Backend
    from llmkit.jobs.pace import AtOnce
    from llmkit.store.url import Url


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What a process is told: the job, what is asked, its budgets and quotas, and how many rows at a time."""

    url: Url
    lease_s: float
    id: str
    name: str
    settings: Settings
    budgets: Sequence[Budget | str]
    at_once: AtOnce
    limits: Sequence[Quota]

    def asked(self, store: Store) -> Asked:
        """Return what makes the turns."""
        return Asked(self.settings, guard_of(list(self.budgets) or None, store), (f"map:{self.id}",))

    def asking(self, backend: Backend, on_settled: Callable[[], object] = lambda: None) -> Asking:
        """Return what asks the rows."""
        store = Store(self.url, lease_s=self.lease_s)
        job = Job(store, self.id, self.name)
        return Asking(job, self.asked(store), backend, at_once=self.at_once, limits=self.limits, on_settled=on_settled)

    def store(self, store: Store) -> None:
        """Store them for who joins; secrets are left out: each takes its own from its environment."""
        options = {name: value for name, value in self.settings.options.items() if name not in {"api_key", "budget"}}
        schema = options.get("schema")
        if isinstance(schema, type) and hasattr(schema, "model_json_schema"):
            options["schema"] = schema.model_json_schema()
        kept: dict[str, Any] = {"at_once": self.at_once, "limits": self.limits, "budgets": list(self.budgets)}
        try:
            text = json.dumps({**kept, "options": options}, default=_plain)
        except TypeError as error:
            text = json.dumps({"refused": str(error)})
        if any(masked(values) != values for values in (options, dict(self.settings.variables))):
            text = json.dumps({"refused": "there is a secret in its options"})
        if self.settings.preset.tools:
            text = json.dumps({"refused": "its preset has tools"})
        with store.database.writing() as connection:
            rows.note_orders(connection, self.id, text)


def orders_of(job: Job, settings: Settings, **numbers: Any) -> Orders:
    """Return the orders for a job."""
    url, lease_s = job.store.database.url, job.store.lease_s
    return Orders(url=url, lease_s=lease_s, id=job.id, name=job.name, settings=settings, **numbers)


def stored_orders(job: Job, **changed: Any) -> Orders | None:
    """Return the orders that a job has in the store, or None while its rows are still read.

    Args:
        job: the job.
        changed: `at_once`, `api_key` and `api_base` of who joins.

    Raises:
        InvalidRequestError: nobody else can ask its rows, or its address is not the one that who joins has given.
    """
    with job.store.database.reading() as connection:
        row = rows.of(connection, job.id)
    if not row.orders:
        return None
    told = json.loads(row.orders)
    if "refused" in told:
        raise InvalidRequestError(
            f"only the program that began {job.name} can ask its rows: {told['refused']}; tools are Python functions"
        )
    stored = rows.settings_of(row)
    settings = Settings(
        preset=Preset(**stored["preset"]["settings"], name=stored["preset"]["name"]),
        system=stored["system"],
        options=_options(told["options"], changed.get("api_key")),
        variables=stored["variables"],
    )
    _check_address(settings.address, changed.get("api_base"))
    return orders_of(
        job,
        settings,
        budgets=[each if isinstance(each, str) else Budget(**each) for each in told["budgets"]],
        at_once=changed.get("at_once") or told["at_once"],
        limits=[Quota(*each) for each in told["limits"]],
    )


def _options(stored: Mapping[str, Any], api_key: str | None) -> dict[str, Any]:
    options = dict(stored)
    if isinstance(options.get("retry"), dict):
        options["retry"] = Retry(**options["retry"])
    return {**options, "api_key": api_key} if api_key else options


def _check_address(address: str | None, given: str | None) -> None:
    """Refuse an address that only the store names: a key goes where its owner says."""
    if address is not None and address != given and not is_reference(address):
        raise InvalidRequestError(
            f"the job asks at {address}: join it with --api-base {address} if your key may go there"
        )


def _plain(value: Any) -> Any:
    """Return a value that JSON has."""
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    name = getattr(value, "__qualname__", type(value).__qualname__)
    raise TypeError(f"{name} cannot be stored")
