"""How long a test waits for what must come: longer than any machine takes, so that only what never comes fails it.

`faulthandler_timeout` in pyproject.toml is the limit of a whole test: it ends one that hangs, and says where.
"""

from __future__ import annotations

import faulthandler

PATIENCE = 60.0  # seconds


def as_long_as_it_takes() -> None:
    """Lift the limit of this test, which builds programs first: what is not in a cache yet takes many minutes."""
    faulthandler.cancel_dump_traceback_later()
