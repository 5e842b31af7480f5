"""The watch for sampled logs: what zap's sampler leaves is suspected, and no real traffic is."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from sidecar.metrics import sampling
from tests.support.measured import Measured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND + 370_000_000


def poisson(rate: float, seconds: float, seed: int = 1) -> Iterator[int]:
    generator, at = random.Random(seed), 0.0
    while (at := at + generator.expovariate(rate)) < seconds:
        yield START + int(at * SECOND)


def paced(rate: float, seconds: float) -> Iterator[int]:
    for number in range(int(rate * seconds)):
        yield START + int(number / rate * SECOND)


def bursts(size: int, lasting: float, seconds: int, seed: int = 1) -> Iterator[int]:
    """Give a burst each second, and five lines in the rest of it."""
    generator = random.Random(seed)
    for second in range(seconds):
        offsets = [generator.uniform(0, lasting) for _ in range(size + generator.randrange(-size // 20, size // 20))]
        offsets += [generator.uniform(lasting, 1) for _ in range(5)]
        for offset in sorted(offsets):
            yield START + int((second + offset) * SECOND)


def waves(seconds: int) -> Iterator[int]:
    """Give traffic that swings between 20 and 1000 a second."""
    for second in range(seconds):
        rate = 20 + 980 * abs((second % 20) / 10 - 1)
        for at in poisson(rate, 1, seed=second):
            yield at + second * SECOND


def zap(times: Iterable[int], first: int = 100, thereafter: int = 100) -> Iterator[int]:
    """Do what zapcore's sampler does: count per second, which begins anew with the first line after the last one."""
    resets, count = 0, 0
    for at in times:
        if at >= resets:
            resets, count = at + SECOND, 0
        count += 1
        if count <= first or (count - first) % thereafter == 0:
            yield at


def watched(times: Iterable[int], lines: int = 40) -> sampling.Watch:
    """Return a watch that has seen these lines, some at a time."""
    watch, all_times = sampling.Watch(), list(times)
    for start in range(0, len(all_times), lines):
        watch.see({"/orders": all_times[start : start + lines]})
    return watch


@pytest.mark.parametrize("rate", [150, 200, 300, 500, 1000, 3000, 10_000])
@pytest.mark.parametrize("traffic", [poisson, paced])
def test_what_zaps_sampler_leaves_of_steady_traffic_is_suspected(
    traffic: Callable[[float, float], Iterator[int]], rate: int
) -> None:
    watch = watched(zap(traffic(rate, 60)))

    assert watch.suspected == 1


@pytest.mark.parametrize("rate", [1, 30, 90, 99, 100, 101, 105, 109, 120, 150, 200, 500, 2000])
@pytest.mark.parametrize("traffic", [poisson, paced])
def test_real_traffic_is_not_suspected_whatever_its_rate(
    traffic: Callable[[float, float], Iterator[int]], rate: int
) -> None:
    for lines in (1, 40, 400):
        assert watched(traffic(rate, 60), lines).suspected == 0


@pytest.mark.parametrize("size", [60, 95, 100, 105, 150, 400])
@pytest.mark.parametrize("lasting", [0.01, 0.1, 0.5, 0.9])
def test_real_bursts_are_not_suspected(size: int, lasting: float) -> None:
    for seed in range(5):
        assert watched(bursts(size, lasting, 60, seed)).suspected == 0


def test_real_traffic_that_comes_and_goes_is_not_suspected() -> None:
    assert watched(waves(120)).suspected == 0


@pytest.mark.parametrize("seed", range(20))
def test_poisson_traffic_around_the_knee_is_not_suspected_in_ten_minutes(seed: int) -> None:
    rate = random.Random(seed).uniform(80, 160)

    assert watched(poisson(rate, 600, seed)).suspected == 0


@pytest.mark.parametrize("resolution", [1_000_000, 1000])
def test_times_in_milliseconds_are_enough(resolution: int) -> None:
    sampled = [at // resolution * resolution for at in zap(poisson(1000, 60))]
    real = [at // resolution * resolution for at in poisson(1000, 60)]

    assert watched(sampled).suspected == 1
    assert watched(real).suspected == 0


def test_a_suspicion_is_told_once_and_withdrawn_when_sampling_ends() -> None:
    watch, told = sampling.Watch(), []
    for times in (list(zap(poisson(500, 60))), [at + 61 * SECOND for at in poisson(500, 60)]):
        for at in times:
            told += watch.see({"/orders": [at]})

    assert told == ["/orders"]
    assert watch.suspected == 0


def test_lines_that_come_late_and_together_say_what_they_would_have_said_one_by_one() -> None:
    assert watched(zap(poisson(500, 60)), lines=5000).suspected == 1
    assert watched(poisson(105, 60), lines=5000).suspected == 0


def test_the_number_of_paths_is_bounded_and_a_suspicion_outlives_a_scan() -> None:
    watch = watched(zap(poisson(500, 60)))

    watch.see({f"/{number}": [START] for number in range(100_000)})

    assert watch.suspected == 1
    assert len(watch) <= sampling.MOST_PATHS


def test_a_suspicion_is_a_gauge_and_a_warning_that_names_the_label() -> None:
    measured = Measured(routes=["/orders/:id"])
    assert measured.own("sidecar_sampling_suspected_paths") == 0

    for at in zap(poisson(500, 30)):
        measured.observe(1.0, path="/orders/17", times_ns=[at])

    assert measured.own("sidecar_sampling_suspected_paths") == 1
    warnings = [line for line in measured.log.getvalue().splitlines() if "sampling_suspected" in line]
    assert len(warnings) == 1
    assert '"path":"/orders/:id"' in warnings[0]


@pytest.mark.parametrize("rate", [90, 105, 130, 200, 500])
@pytest.mark.parametrize("resolution", [10_000_000, 100_000_000, SECOND])
def test_real_traffic_whose_times_are_coarse_is_not_suspected(rate: float, resolution: int) -> None:
    """Gin's text logger writes whole seconds; lines without a time have that of their batch."""
    assert watched(at // resolution * resolution for at in poisson(rate, 120)).suspected == 0
