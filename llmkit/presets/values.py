"""The values of a preset, flat: each with its key and its location."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

Key: TypeAlias = tuple[Any, ...]
Scalar = str | int | float | bool


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """The location of a value; line and column from 1, or 0 if it was given in code."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """Return file:line:column."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


FlatPreset: TypeAlias = "dict[Key, tuple[Any, SourceLocation]]"
