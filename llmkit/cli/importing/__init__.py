"""What other programs have, and how it becomes llmkit's. Imported by the one command that wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def told(name: str, outcomes: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield the outcomes for one thing; whatever is wrong with it is one more, for the files are somebody else's."""
    try:
        yield from outcomes
    except Exception as error:  # noqa: BLE001 - a file may be wrong in any way
        yield name, not_taken_over(error)


def not_taken_over(error: Exception) -> str:
    """Return the outcome for what an error is in the way of."""
    return f"not taken over: {error if str(error) else type(error).__name__}"
