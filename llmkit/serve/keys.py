"""`Keys`: who may ask a server, what they may ask and spend, and the session tokens they get for a few hours.

A key is shown once and never kept: the store has its SHA-256. A session token is a JWT that one secret of the store
signs, so that every server of the store knows it.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

import jwt

from llmkit.errors import ConfigError
from llmkit.money.budgets import PERIODS, Budget, Budgets
from llmkit.serve.context import Caller
from llmkit.store import Store, opened
from llmkit.store import budgets as budget_rows
from llmkit.store import keys as key_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jwt.types import Options

    from llmkit.money.budgets import BudgetState, Period

CACHE_S = 2.0
"""How long a server believes what it last read of the keys."""
TOKEN_S = 4 * 3600.0
"""How long a session token is good for."""
_BEGIN = "llmkit-"
_SHOWN = len(_BEGIN) + 4
_NAME = re.compile(r"[A-Za-z0-9][\w.@+-]{0,63}", re.ASCII)
_DOTS = 2  # header.payload.signature
_ALGORITHM = "HS256"
_OPTIONS: Options = {"require": ["sub", "key", "exp"], "verify_exp": False, "verify_iat": False}  # by our own clock

Identity: TypeAlias = "tuple[Caller | None, Literal['', 'unknown', 'expired']]"
"""Whose a key or token is, or None's, and why: "expired" for a token that was good, else "unknown"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """What is known of a key.

    Attributes:
        name: what it is called.
        prefix: how it begins; the rest is known to its owner only.
        models: the names it may ask, None for all.
        budget: its limit and what is used of it, None for no limit.
        created_at: when it was made, seconds since 1970.
    """

    name: str
    prefix: str
    models: tuple[str, ...] | None
    budget: BudgetState | None
    created_at: float


@dataclass(frozen=True, slots=True)
class _Known:
    """The keys as they were read, by hash and by name, and whether there ever was one."""

    by_hash: Mapping[str, Caller]
    by_name: Mapping[str, Caller]
    ever: bool
    until: float


_UNKNOWN: Identity = (None, "unknown")


class Keys:
    """The keys of a store. Threads may share one object.

    Args:
        store: a Store, its URL or path; the configured one if None.
        cache_s: seconds for which the keys are not read again; so long a removed key may still work.
        clock: seconds since 1970; for tests.

    Every method raises a StoreError where the store cannot be read or written. They block: in an event loop, call them
    on a thread, but for `check` and `identify`, which read the store only once in *cache_s*.
    """

    def __init__(
        self,
        store: Store | str | None = None,
        *,
        cache_s: float = CACHE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store if isinstance(store, Store) else opened(store)
        self._cache_s = cache_s
        self._clock = clock
        self._lock = threading.Lock()
        self._known: _Known | None = None
        self._secret = b""

    # -- the keys -------------------------------------------------------------------------------------------------

    def add(
        self,
        name: str,
        budget_usd: float | None = None,
        period: Period = "month",
        models: Sequence[str] | None = None,
    ) -> str:
        """Make a key and return it; nobody can read it again.

        Args:
            name: letters, digits and `_.@+-`; the ledger has the key's calls under the tag `key:NAME`.
            budget_usd: US dollars in a period, kept as the budget `key:NAME`; None for no limit.
            period: "day", "week", "month" or "total".
            models: the names it may ask; None for all.

        Raises:
            ConfigError: there is a key of this name, or a value makes no sense.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(f"a key's name has up to 64 letters, digits and _.@+-, and not {name!r}")
        if period not in PERIODS:
            raise ConfigError(f"key {name!r}: the period is {', '.join(PERIODS)}, and not {period!r}")
        allowed = _names(name, models)
        limit = None if budget_usd is None else Budget(name=_budget(name), limit_usd=budget_usd, period=period)
        key = f"{_BEGIN}{secrets.token_urlsafe(32)}"
        database = self._store.database
        with database.writing() as connection:
            added = key_rows.add(
                connection,
                name=name,
                hash=_hash(key),
                prefix=key[:_SHOWN],
                budget=limit.name if limit else None,
                models=None if allowed is None else json.dumps(allowed),
                created_at=database.now(connection),
            )
        if not added:
            raise ConfigError(f"there is a key {name!r} already; remove it first")
        self._known = None
        if limit is not None:
            Budgets(self._store).set(limit)
        return key

    def list(self) -> Sequence[KeyInfo]:
        """Return what is known of all keys, by name."""
        with self._store.database.reading() as connection:
            rows = key_rows.every(connection)
        budgets = {state.budget.name: state for state in Budgets(self._store).all()} if rows else {}
        return [
            KeyInfo(
                name=row.name,
                prefix=row.prefix,
                models=None if row.models is None else tuple(json.loads(row.models)),
                budget=budgets.get(row.budget),
                created_at=row.created_at,
            )
            for row in rows
        ]

    def remove(self, name: str) -> None:
        """Forget a key with its budget and its session tokens; servers refuse it within `CACHE_S`.

        That there was one is remembered: a server whose last key is removed lets nobody in, rather than everybody.

        Raises:
            ConfigError: there is none of this name; those that there are are named.
        """
        with self._store.database.writing() as connection:
            if not key_rows.remove(connection, name):
                known = ", ".join(row.name for row in key_rows.every(connection)) or "none"
                raise ConfigError(f"there is no key {name!r}; there are: {known}")
            budget_rows.remove(connection, _budget(name))
        self._known = None

    # -- who asks -------------------------------------------------------------------------------------------------

    @property
    def is_fresh(self) -> bool:
        """Whether the methods below answer without reading the store."""
        return self._known is not None and self._clock() < self._known.until

    def refresh(self) -> None:
        """Read the store, where that is due."""
        self._current()

    def any(self) -> bool:
        """Return whether there is a key."""
        return bool(self._current().by_name)

    def ever(self) -> bool:
        """Return whether there is a key or ever was one: such a store's servers let nobody in without."""
        return self._current().ever

    def check(self, presented: str) -> Caller | None:
        """Return whose a key or session token is, None for nobody's."""
        return self.identify(presented)[0]

    def identify(self, presented: str) -> Identity:
        """Return whose a key or session token is, and why it is nobody's."""
        return self._of_token(presented) if presented.count(".") == _DOTS else self.of_key(presented)

    def of_key(self, key: str) -> Identity:
        """Return whose a key is; a session token is not one."""
        caller = self._current().by_hash.get(_hash(key))  # a hash: the time of a look-up tells nothing of a key
        return (caller, "") if caller else _UNKNOWN

    def _current(self) -> _Known:
        """Return the keys; read once for all callers, whether they present good keys or bad ones."""
        known = self._known
        if known is None or self._clock() >= known.until:
            with self._lock:
                known = self._known
                if known is None or self._clock() >= known.until:
                    known = self._known = self._read()
        return known

    def _read(self) -> _Known:
        until = self._clock() + self._cache_s
        with self._store.database.reading() as connection:
            rows, ever = key_rows.every(connection), key_rows.ever(connection)
        by_hash = {
            str(row.hash): Caller(
                name=row.name,
                budget=row.budget,
                models=None if row.models is None else frozenset(json.loads(row.models)),
                id=_fingerprint(row.hash),
                since=row.created_at,
            )
            for row in rows
        }
        by_name = {caller.name: caller for caller in by_hash.values()}
        return _Known(by_hash, by_name, ever or bool(rows), until)

    # -- session tokens -------------------------------------------------------------------------------------------

    def issue(self, name: str, ttl_s: float = TOKEN_S) -> tuple[str, float]:
        """Return a session token for the key called *name*, and when it ends, in seconds since 1970.

        "" is for servers without keys; the token ends with the first key that is made.

        Raises:
            ConfigError: there is no such key.
        """
        known = self._current().by_name
        if name and name not in known:
            raise ConfigError(f"there is no key {name!r}")
        now = int(self._clock())
        ends_at = now + int(ttl_s)
        claims = {"sub": name, "key": known[name].id if name else "", "iat": now, "exp": ends_at}
        return jwt.encode(claims, self._signing_secret(), _ALGORITHM), float(ends_at)

    def _of_token(self, token: str) -> Identity:
        try:
            claims = jwt.decode(token, self._signing_secret(), [_ALGORITHM], options=_OPTIONS)
        except (jwt.InvalidTokenError, UnicodeEncodeError):
            return _UNKNOWN
        if claims["exp"] <= self._clock():
            return None, "expired"
        known = self._current()
        if claims["sub"] == "":
            return _UNKNOWN if known.ever else (Caller(), "")
        caller = known.by_name.get(claims["sub"])
        # a key that was removed and made anew under the same name is another one
        return (caller, "") if caller and caller.id == claims["key"] else _UNKNOWN

    def _signing_secret(self) -> bytes:
        if not self._secret:
            with self._store.database.reading() as connection:
                self._secret = bytes.fromhex(key_rows.secret(connection))
        return self._secret


def _names(key: str, models: Sequence[str] | None) -> Sequence[str] | None:
    if models is None:
        return None
    if isinstance(models, str) or not models or not all(isinstance(each, str) and each.strip() for each in models):
        raise ConfigError(f"key {key!r}: models must be several names, not {models!r}; None for all")
    return sorted({each.strip() for each in models})


def _budget(name: str) -> str:
    return f"key:{name}"


def _hash(key: str) -> str:
    # a key has 256 random bits: a slow hash, as for passwords, would protect nothing
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def _fingerprint(digest: str) -> str:
    """Return a fingerprint of a key's hash."""
    return hashlib.sha256(digest.encode()).hexdigest()[:16]
