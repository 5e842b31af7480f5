"""What kind of file system a path is on, for whoever reads the start-up lines and wonders about latency or loss.

The problem: inotify hears nothing of what another machine writes to a network file system, and inode numbers of an
overlay are not what they seem; which one it is, the kernel tells. The promise: the type as the mount table names it,
for a path that need not exist yet, "unknown" where nobody tells. Refused: to decide anything by it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

_MOUNTS = "/proc/self/mountinfo"
_ESCAPED = re.compile(r"\\([0-7]{3})")


def kind(path: str, mounts: str = _MOUNTS) -> str:
    """Return the type of the file system that `path` is on or would be on."""
    real = os.path.realpath(path)
    best, found = "", "unknown"
    try:
        rows = Path(mounts).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return found
    for row in rows:
        place, separator, rest = row.partition(" - ")
        fields, kinds = place.split(" "), rest.split(" ")
        if not separator or len(fields) < 5:
            continue
        point = _ESCAPED.sub(lambda match: chr(int(match[1], 8)), fields[4])
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, found = point, kinds[0]  # of two on one point the later one covers the other
    return found
