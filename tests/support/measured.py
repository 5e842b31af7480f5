"""Request metrics under test: a clock to turn by hand, one-line observations, and answers read by others' parsers."""

from __future__ import annotations

import io
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from sidecar import routes, telemetry
from sidecar.metrics import durations, exposition
from sidecar.model import RequestGroup

if TYPE_CHECKING:
    from collections.abc import Iterable

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
EPOCH = 1_700_000_000.0  # of the wall clock, where a test does not say
OPENMETRICS = exposition.negotiate("application/openmetrics-text; version=1.0.0")


class Clock:
    """The two clocks of a process. Setting the wall clock leaves the monotonic one alone."""

    def __init__(self, wall: float = EPOCH) -> None:
        self.monotonic_now = 1000.0
        self.wall_now = wall

    def monotonic(self) -> float:
        return self.monotonic_now

    def wall(self) -> float:
        return self.wall_now

    def pass_(self, seconds: float) -> None:
        self.monotonic_now += seconds
        self.wall_now += seconds


class Measured:
    """Requests with everything around them."""

    def __init__(self, *, clock: Clock | None = None, known: Iterable[str] = (), **options: Any) -> None:
        self.clock = clock or Clock()
        self.log = io.StringIO()
        self.telemetry = telemetry.Telemetry(log=telemetry.Log(self.log))
        self.registry = self.telemetry.registry
        self.config = durations.Config(**options)
        self.table = routes.Table([*self.config.routes, *known])
        self.requests = durations.Requests(
            self.config, self.table, self.telemetry, clock=self.clock.monotonic, wall=self.clock.wall
        )

    def observe(
        self,
        *durations: float,
        method: str = "GET",
        route: str = "",
        path: str = "/orders",
        status: int = 200,
        trace_ids: Iterable[str] | None = None,
        unmeasured: int = 0,
        weighted: Iterable[tuple[float, str, int]] = (),
        times_ns: Iterable[int] = (),
    ) -> None:
        """Observe one group as the normalizer gives it: the path only where there is no route."""
        group = RequestGroup(
            list(durations),
            list(trace_ids) if trace_ids is not None else [""] * len(durations),
            unmeasured,
            list(weighted),
            list(times_ns),
        )
        self.requests.observe({(method, route, "" if route else path, status): group})

    def page(self, form: exposition.Format = exposition.TEXT, names: Iterable[str] = ()) -> str:
        return exposition.render(form, self.registry, self.requests, set(names)).decode()

    def samples(self, form: exposition.Format = exposition.TEXT) -> dict[str, float]:
        """Return every sample as prometheus_client's own parser reads it, by `name{label="value",…}`."""
        return read(self.page(form), openmetrics=form.kind is exposition.Kind.OPENMETRICS)

    def sample(self, name: str, **labels: str) -> float:
        return self.samples()[key(name, labels)]

    def own(self, name: str, **labels: str) -> float | None:
        """Return one of the sidecar's own metrics."""
        return self.registry.get_sample_value(name, labels)

    def paths(self) -> set[str]:
        return {one.path for one in self.requests.all()}


def key(name: str, labels: dict[str, str]) -> str:
    return name + "{" + ",".join(f'{label}="{value}"' for label, value in sorted(labels.items())) + "}"


def read(page: str, *, openmetrics: bool = False) -> dict[str, float]:
    """Read a page by prometheus_client's parser; a sample that stands twice is an error."""
    samples: dict[str, float] = {}
    families = openmetrics_families if openmetrics else text_families
    for family in families(page):
        for sample in family.samples:
            name = key(sample.name, sample.labels)
            assert name not in samples, name
            samples[name] = sample.value
    return samples


def nearest_rank(values: Iterable[float], quantile: float) -> float:
    """Return the value at rank ceil(φ·n), the plain way."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(1, math.ceil(Fraction(str(quantile)) * len(ordered))) - 1]
