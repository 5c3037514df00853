"""On which databases a test runs, and whether it is the long form of a campaign.

The store promises the same of both databases, and most tests run on both. What starts many processes or waits runs on
one of them in the short form, now on this and now on that, and on both in the long form: LLMKIT_LONG=1, `make faults`.
"""

from __future__ import annotations

import os

import pytest

LONG = bool(os.environ.get("LLMKIT_LONG"))  # read before the tests' environment is cleaned

ON_SQLITE, ON_POSTGRES = (
    pytest.mark.parametrize("database", [name], indirect=True) for name in ("sqlite", "postgresql")
)
"""For what does not depend on the database."""

SQLITE_OR_BOTH, POSTGRES_OR_BOTH = (
    pytest.mark.parametrize("database", ["sqlite", "postgresql"] if LONG else [name], indirect=True)
    for name in ("sqlite", "postgresql")
)
"""For what takes long: on this one in the short form, on both in the long one."""
