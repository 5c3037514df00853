"""The user's trust in files that came with a folder: asked for once, and remembered.

A command checks what it reads (`watched`); a Python program that loads a file has chosen it. Trust belongs to the
content: of the file, of the files it builds on, and of the code it names.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from llmkit import config
from llmkit.errors import ConfigError, PresetError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

_LONGEST, _MOST = 120, 12


@dataclass(frozen=True, slots=True)
class Want:
    """One setting that only a trusted file may have: its dotted key, its value, and its location."""

    key: str
    value: Any
    place: str

    def __str__(self) -> str:
        """Return it in one line."""
        text = f"{one_line(self.key)}: {self.value!r}"
        return f"{one_line(self.place)}: {text if len(text) <= _LONGEST else text[:_LONGEST] + '…'}"


@dataclass(frozen=True, slots=True)
class Claim:
    """The settings that a file which came with a folder needs trust for.

    Attributes:
        path: the file.
        wants: the settings that only a trusted file may have.
        contents: everything that was read, each with a name: exactly this is trusted.
        code: the modules among them.
        through: files that came with the folder and are built on, if the file itself did not come with it.
    """

    path: Path
    wants: Sequence[Want]
    contents: Sequence[tuple[str, bytes]]
    code: Mapping[str, Any] = field(default_factory=dict)
    through: Sequence[Path] = ()

    def __str__(self) -> str:
        """Return the file, and the files through which it needs trust."""
        path, *through = (one_line(str(path)) for path in (self.path, *self.through))
        return f"{path}, which extends {', '.join(through)}," if through else path

    @property
    def fingerprint(self) -> str:
        """The hash of all contents."""
        import hashlib

        whole = hashlib.sha256()
        for name, content in self.contents:
            whole.update(f"{name}\0{len(content)}\0".encode(errors="surrogatepass") + content)
        return whole.hexdigest()

    @property
    def keys(self) -> str:
        """The keys, for a sentence; if there are many, the first ones, parameters last."""
        names = dict.fromkeys(one_line(want.key) for want in self.wants)
        keys = sorted(names, key=lambda name: name.startswith("params."))
        return ", ".join(keys[:_MOST]) + (f" and {len(keys) - _MOST} more" if len(keys) > _MOST else "")


def one_line(text: str) -> str:
    """Return a text of a stranger's in one line: what would begin another one, or control a terminal, is escaped."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


class Keeper(Protocol):
    """Represents the user in a command."""

    def agrees(self, claim: Claim) -> bool:
        """Ask whether the file is trusted; return False if nobody can be asked."""

    def tell(self, text: str) -> None:
        """Show a line of text."""


_keepers: list[Keeper] = []


@contextlib.contextmanager
def watched(keeper: Keeper) -> Iterator[None]:
    """Check what is read from the user's current folder; on all threads, since a server has many."""
    _keepers.append(keeper)
    try:
        yield
    finally:
        _keepers.remove(keeper)


def watching() -> bool:
    """Return whether this process is a command."""
    return bool(_keepers)


def tell(text: str) -> None:
    """Show a text to the user of a command; in a program, nothing is shown."""
    for keeper in _keepers[-1:]:
        keeper.tell(text)


def clear(claims: Sequence[Claim]) -> None:
    """Go on only if the first of *claims* needs no trust or the user trusts it; the others are trusted with it.

    Raises:
        PresetError: it is not trusted; the command to trust it is named.
    """
    claim = claims[0]
    if not claim.wants or is_trusted(claim):
        return
    if not _keepers or not _keepers[-1].agrees(claim):
        import shlex

        command = f"llmkit presets trust {shlex.quote(str(claim.path))}"
        raise PresetError(f"{claim} is not trusted, and it sets {claim.keys}; look at it, then type: {command}")
    remember(claims)


def is_trusted(claim: Claim) -> bool:
    """Return whether this content was trusted before."""
    return (_folder() / claim.fingerprint).is_file()


def remember(claims: Iterable[Claim]) -> None:
    """Trust contents from now on.

    Raises:
        ConfigError: the user's data folder cannot be written.
    """
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for claim in claims:
            (folder / claim.fingerprint).write_text(f"{claim.path}\n", encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise ConfigError(f"{error.filename or folder}: {error.strerror or error}") from error


def forget(claim: Claim) -> bool:
    """Withdraw the trust in a content; return whether it was trusted."""
    try:
        os.unlink(_folder() / claim.fingerprint)  # noqa: PTH108 - as the one that may be missing
    except OSError:
        return False
    return True


def _folder() -> Path:
    return config.data_dir() / "trusted"
