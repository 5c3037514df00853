"""A parsed YAML text, how large one may be, and the error of one that is wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

MOST_BYTES, SIZE = 1_000_000, "1 MB"
MOST_DEPTH = 64
MOST_NODES = 10_000
"""How many nodes a text may have, each alias counted as the nodes it stands for."""
Places: TypeAlias = "dict[tuple[Any, ...], tuple[int, int]]"


class YamlError(ValueError):
    """The text is not YAML, not a mapping, or too large; the message is one line with file, line and column."""


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed mapping.

    Attributes:
        data: the mapping.
        places: (line, column), both from 1, of each key, by its path in the data.
    """

    data: dict[str, Any]
    places: Places = field(default_factory=dict)
