"""`Keys`: who may call a server, what they may call and spend, and their session tokens for a few hours.

A key is shown once and never stored: the store has its SHA-256. A session token is a JWT signed with one secret of
the store, so that every server of the store can check it.
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
from llmkit.store import sessions as session_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jwt.types import Options

    from llmkit.money.budgets import BudgetState, Period

CACHE_S = 2.0
"""How long a server relies on what it last read of the keys."""
TOKEN_S = 4 * 3600.0
"""How long a session token is valid."""
_BEGIN = "llmkit-"
_SHOWN = len(_BEGIN) + 4
_NAME = re.compile(r"[A-Za-z0-9][\w.@+-]{0,63}", re.ASCII)
_DOTS = 2  # header.payload.signature
_ALGORITHM = "HS256"
_OPTIONS: Options = {"require": ["sub", "key", "exp"], "verify_exp": False, "verify_iat": False}  # by our own clock

Identity: TypeAlias = "tuple[Caller | None, Literal['', 'unknown', 'expired']]"
"""The caller of a key or token, or None, and why: "expired" for a token that was valid, else "unknown"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyInfo:
    """The description of a key.

    Attributes:
        name: its name.
        prefix: its first characters; only its owner knows the rest.
        models: the names it may call, or None for all.
        budget: its limit and what is used of it, or None if there is none.
        created_at: when it was created, in seconds since 1970.
        budget_name: of its limit, or None for no limit. If it has a name and no `budget`, that was removed, and every
            call of the key fails until there is a budget of this name again.
    """

    name: str
    prefix: str
    models: tuple[str, ...] | None
    budget: BudgetState | None
    created_at: float
    budget_name: str | None = None


@dataclass(frozen=True, slots=True)
class _KeyCache:
    """The keys as last read, by hash and by name, and whether there ever was one."""

    by_hash: Mapping[str, Caller]
    by_name: Mapping[str, Caller]
    ever: bool
    until: float


_UNKNOWN: Identity = (None, "unknown")


class Keys:
    """The keys of a store. Threads may share one object.

    Args:
        store: a Store, its URL or path; the configured one if None.
        cache_s: seconds for which the keys are not read again; a removed key may still work that long.
        clock: seconds since 1970; for tests.

    Every method raises a StoreError if the store cannot be read or written. They block: in an event loop, call them
    on a thread, except `check` and `identify`, which read the store only once in *cache_s*.
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
        self._known: _KeyCache | None = None
        self._secret = b""

    # -- the keys -------------------------------------------------------------------------------------------------

    def add(
        self,
        name: str,
        budget_usd: float | None = None,
        period: Period = "month",
        models: Sequence[str] | None = None,
    ) -> str:
        """Create a key and return it; nobody can read it again.

        Args:
            name: letters, digits and `_.@+-`; the ledger has the key's calls under the tag `key:NAME`.
            budget_usd: US dollars per period, kept as the budget `key:NAME`, or None for no limit.
            period: "day", "week", "month" or "total".
            models: the names it may call, or None for all.

        Raises:
            ConfigError: a key of this name exists, or a value is invalid.
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
        """Return the descriptions of all keys, by name."""
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
                budget_name=row.budget,
            )
            for row in rows
        ]

    def remove(self, name: str) -> None:
        """Delete a key with its budget, its session tokens and its conversations; servers refuse it within `CACHE_S`.

        That there was a key is remembered: a server whose last key is removed admits nobody, rather than everybody.

        Raises:
            ConfigError: there is none of this name; the message lists those there are.
        """
        with self._store.database.writing() as connection:
            hashed = key_rows.remove(connection, name)
            if hashed is None:
                known = ", ".join(row.name for row in key_rows.every(connection)) or "none"
                raise ConfigError(f"there is no key {name!r}; there are: {known}")
            budget_rows.remove(connection, _budget(name))
            session_rows.forget(connection, Caller(id=_fingerprint(hashed)).owner)
        self._known = None

    # -- callers --------------------------------------------------------------------------------------------------

    @property
    def is_fresh(self) -> bool:
        """Whether the methods below answer without reading the store."""
        return self._known is not None and self._clock() < self._known.until

    def refresh(self) -> None:
        """Read the store, if that is due."""
        self._current()

    def any(self) -> bool:
        """Return whether there is a key."""
        return bool(self._current().by_name)

    def ever(self) -> bool:
        """Return whether there is a key or ever was one: servers of such a store admit nobody without a key."""
        return self._current().ever

    def check(self, presented: str) -> Caller | None:
        """Return the caller with a key or session token, or None if it is invalid."""
        return self.identify(presented)[0]

    def identify(self, presented: str) -> Identity:
        """Return the caller with a key or session token, or why it is invalid."""
        return self._of_token(presented) if presented.count(".") == _DOTS else self.of_key(presented)

    def of_key(self, key: str) -> Identity:
        """Return the caller with a key; a session token does not count."""
        known = self._current().by_hash
        caller = known.get(_hash(key)) if key else None  # a hash: the time of a look-up reveals nothing about a key
        return (caller, "") if caller else _UNKNOWN

    def _current(self) -> _KeyCache:
        """Return the keys; read once for all callers, whether their keys are valid or not."""
        known = self._known
        if known is None or self._clock() >= known.until:
            with self._lock:
                known = self._known
                if known is None or self._clock() >= known.until:
                    known = self._known = self._read()
        return known

    def _read(self) -> _KeyCache:
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
        return _KeyCache(by_hash, by_name, ever or bool(rows), until)

    # -- session tokens -------------------------------------------------------------------------------------------

    def issue(self, name: str, ttl_s: float = TOKEN_S) -> tuple[str, float]:
        """Return a session token for the key called *name*, and when it expires, in seconds since 1970.

        "" is for servers without keys; the token expires with the first key that is created.

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
        # a key that was removed and created again under the same name is a different one
        return (caller, "") if caller and caller.id == claims["key"] else _UNKNOWN

    def _signing_secret(self) -> bytes:
        if not self._secret:
            with self._store.database.reading() as connection:
                self._secret = bytes.fromhex(key_rows.secret(connection))
        return self._secret


def _names(key: str, models: Sequence[str] | None) -> Sequence[str] | None:
    if models is None:
        return None
    if isinstance(models, str) or not models or not all(isinstance(model, str) and model.strip() for model in models):
        raise ConfigError(f"key {key!r}: models must be several names, not {models!r}; None for all")
    return sorted({model.strip() for model in models})


def _budget(name: str) -> str:
    return f"key:{name}"


def _hash(key: str) -> str:
    # a key has 256 random bits: a slow hash, as for passwords, would protect nothing
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()


def _fingerprint(digest: str) -> str:
    """Return a fingerprint of a key's hash."""
    return hashlib.sha256(digest.encode()).hexdigest()[:16]
