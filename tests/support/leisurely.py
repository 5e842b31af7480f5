"""The sidecar with deadlines that no machine is too slow for: `python -m tests.support.leisurely run …`.

For tests of what happens before such a deadline, where no setting moves it.
"""

from __future__ import annotations

import functools
import sys

from sidecar import cli, shutdown
from sidecar.sources import kubepace, kubernetes
from tests.support.patience import PATIENCE

if __name__ == "__main__":
    shutdown._LAST_SECOND = PATIENCE
    kubernetes.Pace = functools.partial(kubepace.Pace, drain=PATIENCE)  # type: ignore[misc,assignment]
    sys.exit(cli.main())
