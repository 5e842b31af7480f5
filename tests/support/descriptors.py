"""What this process holds open, while other threads of it open and close files."""

from __future__ import annotations

import os
from contextlib import suppress


def open_files() -> list[str]:
    """Return what each descriptor is of."""
    targets = []
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208  names are all that is wanted
        with suppress(FileNotFoundError):  # the listing's own is closed by now, and maybe others
            targets.append(os.readlink(f"/proc/self/fd/{number}"))  # noqa: PTH115
    return targets
