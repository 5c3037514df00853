"""Where a model's process is, how it proves that it is that one, and the file in which the next command finds it.

Nothing here starts a process. Files are read only if nobody but the user can have written them.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
import socket
import stat
import sys
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import llmkit
from llmkit.config import data_dir, private

if TYPE_CHECKING:
    from pathlib import Path

NONCE = 32
PATIENCE_S = 10.0  # a machine may be busy; whoever has got a dead server's port, and is silent, costs that once


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running server: the base address (ending in /v1), its key, the name of its model, and its process.

    Attributes:
        door: the port at which the process proves that it knows the key.
    """

    url: str
    key: str = field(repr=False)
    model: str
    door: int
    pid: int

    def proves(self) -> bool:
        """Return whether the process is there and knows the key, which is not told for that."""
        nonce = secrets.token_bytes(NONCE)
        try:
            with socket.create_connection(("127.0.0.1", self.door), timeout=PATIENCE_S) as connection:
                connection.sendall(nonce)
                answer = connection.recv(NONCE, socket.MSG_WAITALL)
        except OSError:
            return False
        return hmac.compare_digest(answer, proof(self.key, nonce))

    def as_json(self) -> str:
        """Return the whole of it, key included, as one line."""
        return json.dumps(asdict(self))


def proof(key: str, nonce: bytes) -> bytes:
    """Return what only those who know the key can make of a nonce."""
    return hmac.digest(key.encode(), nonce, "sha256")


def file_of(name: str, weights: Path) -> Path | None:
    """Return the file of a model's process, in a folder that nobody else may enter, or None if there can be none.

    Another version of llmkit, another environment and another state of the weights have files of their own.
    """
    folder = data_dir() / "local"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not _is_mine(folder.lstat()):
            return None
        state = weights.stat()
    except OSError:
        return None
    facts = (llmkit.__version__, sys.prefix, socket.gethostname(), name, weights, state.st_size, state.st_mtime_ns)
    return folder / f"{hmac.digest(b'', repr(facts).encode(), 'sha256').hex()[:32]}.json"


def found(file: Path) -> LocalServer | None:
    """Return the server that a file names, or None if it is not there any more."""
    text = private.text_of(file)
    try:
        server = LocalServer(**json.loads(text or ""))
    except (ValueError, TypeError):
        return None
    return server if server.proves() else None


def clear(folder: Path) -> None:
    """Remove the files of servers that are not there any more; the caller holds the folder's lock."""
    for file in folder.glob("*.json"):
        if found(file) is None:
            file.unlink()


def _is_mine(status: os.stat_result) -> bool:
    """Return whether it is a folder of the user's that is closed to everybody else; on Windows nothing is."""
    mine = hasattr(os, "getuid") and status.st_uid == os.getuid()
    return mine and stat.S_ISDIR(status.st_mode) and not status.st_mode & 0o077
