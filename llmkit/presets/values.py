"""The values of a preset, flat: each with its key and the place it stands at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

Key: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands; line and column from 1, 0 where it was given in code."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """Return file:line:column."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


Leaves: TypeAlias = "dict[Key, tuple[Any, Place]]"
