"""What was probably meant by a name that is not known."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return the end of a message with the name that was probably meant, or "" if none is near."""
    import difflib  # seldom needed

    meant = difflib.get_close_matches(wrong, known, n=1)
    return f"; did you mean {meant[0]!r}?" if meant else ""


def near(wrong: str, known: Iterable[str]) -> str:
    """Return a hint: the name that was probably meant, or all of them."""
    return did_you_mean(wrong, known).removeprefix("; ") or f"there are: {', '.join(known)}"
