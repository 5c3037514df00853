"""The keys that the user has stored, by provider: in the system's keyring, or in a file that only the user can read.

A variable of the environment wins over a stored key, and what a call is given wins over both.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from llmkit.config import private
from llmkit.config.folders import config_dir
from llmkit.config.secrets import redact
from llmkit.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

_SERVICE = "llmkit"
T = TypeVar("T")


class Keyring(Protocol):
    """The system's keyring, as the package `keyring` has it."""

    def get_password(self, service: str, name: str) -> str | None:
        """Return a secret, or None if there is none."""

    def set_password(self, service: str, name: str, secret: str) -> None:
        """Keep a secret."""

    def delete_password(self, service: str, name: str) -> None:
        """Remove a secret."""


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A provider's key.

    Attributes:
        variables: the provider's environment variables; while one of them is set, the stored key is not used.
        key: the key, or "" if it is in the keyring.
    """

    variables: Sequence[str]
    key: str = field(default="", repr=False)

    @property
    def variable(self) -> str:
        """The variable that wins over this key, or "" if none is set."""
        return set_variable(self.variables)


class StoredKeys:
    """The keys in a file, and in the keyring if there is one.

    Args:
        file: where they are, or which are in the keyring.
        keyring: returns the keyring, or None if there is none.
    """

    def __init__(self, file: Path, keyring: Callable[[], Keyring | None]) -> None:
        self.file, self._keyring = file, keyring
        self._read: tuple[tuple[int, int], dict[str, StoredKey]] | None = None
        self._secrets: dict[str, str] = {}

    def of(self, provider: str) -> str | None:
        """Return a provider's stored key, or None if there is none or a variable wins.

        Raises:
            ConfigError: the file is wrong, or others can read it; the keyring does not give the key.
        """
        stored = self.all().get(provider)
        if stored is None or stored.variable:
            return None
        return stored.key or self._from_keyring(provider)

    def all(self) -> Mapping[str, StoredKey]:
        """Return the stored keys by provider; those in the keyring without the key itself."""
        try:
            status = os.stat(self.file)  # noqa: PTH116 - half the time of Path.stat, in each call
        except OSError:
            return {}
        state = (status.st_mtime_ns, status.st_mode)
        if self._read is None or self._read[0] != state:
            self._read, self._secrets = (state, self._parsed()), {}
        return self._read[1]

    def keep(self, provider: str, key: str, variables: Sequence[str]) -> str:
        """Keep a provider's key, and return where: "keyring", or the file's path."""
        ring = self._keyring()
        with self._changing() as stored:
            if ring is not None:
                _asked(ring.set_password, _SERVICE, provider, key)
            stored[provider] = StoredKey(list(variables), "" if ring is not None else key)
        return str(self.file) if ring is None else "keyring"

    def remove(self, provider: str) -> None:
        """Remove a provider's key.

        Raises:
            ConfigError: there is none.
        """
        with self._changing() as stored:
            if provider not in stored:
                there = f"; there are: {', '.join(sorted(stored))}" if stored else ""
                raise ConfigError(f"no key is stored for {provider!r}{there}")
            ring = self._keyring()
            if not stored.pop(provider).key and ring is not None:
                _asked(ring.delete_password, _SERVICE, provider)

    def _from_keyring(self, provider: str) -> str:
        if provider not in self._secrets:
            ring = self._keyring()
            key = _asked(ring.get_password, _SERVICE, provider) if ring is not None else None
            if not key:
                raise ConfigError(
                    f"the key for {provider} is in the system's keyring, which does not give it: "
                    f"`llmkit keys set {provider}` again, or set {' or '.join(self.all()[provider].variables)}"
                )
            self._secrets[provider] = key
        return self._secrets[provider]

    def _parsed(self) -> dict[str, StoredKey]:
        text = private.text_of(self.file)
        if text is None:
            why = f"it must be a file of your own that nobody else can read: chmod 600 {self.file}"
            raise ConfigError(f"{self.file} is not read: {why}")
        try:
            return {name: _stored(**entry) for name, entry in json.loads(text).items()}
        except (ValueError, TypeError, AttributeError, RecursionError):
            raise ConfigError(f"{self.file} is damaged: remove it, and set the keys again") from None

    @contextmanager
    def _changing(self) -> Iterator[dict[str, StoredKey]]:
        """Yield the stored keys, and write what has become of them; another process waits meanwhile."""
        try:
            with private.locked(self.file.with_name(f".{self.file.name}.lock")):
                stored = dict(self.all())
                yield stored
                data = {name: asdict(key) for name, key in sorted(stored.items())}
                private.write(self.file, json.dumps(data, indent=1) + "\n")
                self._read = None
        except OSError as error:
            raise ConfigError(f"{self.file} cannot be written: {error.strerror or error}") from error


def checked_key(text: Any) -> str:
    """Return a key without the spaces around it.

    Raises:
        ConfigError: it is none.
    """
    key = text.strip() if isinstance(text, str) else ""
    if not key:
        raise ConfigError("no key was given")
    if not key.isprintable() or not key.isascii() or " " in key:
        raise ConfigError("this is no key: it has spaces, control characters or other letters in it")
    return key


def _stored(variables: Any, key: Any = "") -> StoredKey:
    """Return an entry of the file, or raise a TypeError or ValueError."""
    if not isinstance(variables, list) or not all(isinstance(name, str) for name in variables):
        raise TypeError
    return StoredKey(variables, checked_key(key) if key != "" else "")


def _asked(method: Callable[..., T], *arguments: str) -> T:
    """Return what a keyring answers; each kind has errors of its own, for one that is locked or refuses."""
    try:
        return method(*arguments)
    except Exception as error:  # noqa: BLE001 - it may be anything
        why = redact(f"{type(error).__name__}: {error}", *arguments)
        raise ConfigError(f"the system's keyring refuses: {why}") from None


def set_variable(names: Iterable[str]) -> str:
    """Return the first of the variables that the environment has, or "" if it has none."""
    return next((name for name in names if os.environ.get(name)), "")


def stored_keys() -> StoredKeys:
    """Return the user's stored keys."""
    return _stored_in(config_dir())


@cache
def _stored_in(folder: Path) -> StoredKeys:
    return StoredKeys(folder / "keys.json", system_keyring)


@cache
def system_keyring() -> Keyring | None:
    """Return the system's keyring, or None where there is none or the package `keyring` is not installed."""
    try:
        import keyring
    except ImportError:
        return None
    ring: Any = keyring.get_keyring()
    return ring if ring.priority > 0 else None
