"""What mkdocs does with the pages, which are written to be read as they are too."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.structure.pages import Page

FENCE = re.compile(r"^(```[a-z]+) .*$", re.MULTILINE)
PAIR = re.compile(
    r"^([^\n]*[Bb]efore:\n\n```python not-run: [^\n]* code\n.*?^```\n)\n(Now[^\n]*\n(?:\n```.*?^```\n)+)",
    re.MULTILINE | re.DOTALL,
)
BESIDE = '<div class="beside" markdown>\n<div markdown>\n{}\n</div>\n<div markdown>\n{}\n</div>\n</div>\n'


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Return a page with old code beside new, and without the words after a block's language, which are for tests."""
    markdown, pairs = PAIR.subn(lambda pair: BESIDE.format(*pair.groups()), markdown)
    if pairs:
        page.meta["hide"] = ["toc"]  # the room is for the second column
    return FENCE.sub(r"\1", markdown)
