"""What a sketch knows of the durations it has seen."""

from __future__ import annotations

import math
import random

import pytest

from sidecar.metrics import sketch

FRACTIONS = [sketch.fraction(quantile) for quantile in (0.01, 0.5, 0.99)]


def of(*buckets: tuple[int, int], zeros: int = 0, low: float = 0.0, high: float = 1e9) -> sketch.Packed:
    return sketch.Packed(dict(buckets), zeros, low, high)


def test_an_empty_sketch_has_no_quantiles() -> None:
    assert all(math.isnan(value) for value in sketch.Sketch().quantiles(FRACTIONS))


def test_a_quantile_is_the_fraction_that_was_written() -> None:
    seven = sketch.fraction(0.07)
    assert (
        seven.numerator * 100 == 7 * seven.denominator
    )  # in binary, 0.07 * 100 is a little more and would round up to 8


def test_the_ranks_at_both_ends_are_exact() -> None:
    one = sketch.Sketch()
    one.add(of((-100, 1), (0, 98), (50, 1), low=117.3, high=2954.1))

    assert one.quantiles([sketch.fraction(q) for q in (0, 0.01, 1)]) == [117.3, 117.3, 2954.1]


def test_zeros_rank_before_every_bucket() -> None:
    one = sketch.Sketch()
    one.add(of((0, 5), zeros=5, low=0.0, high=1000.0))

    assert one.quantiles([sketch.fraction(0.5)]) == [0.0]
    assert one.quantiles([sketch.fraction(0.6)])[0] == pytest.approx(1000, rel=0.0109)


def test_merging_is_exact_and_its_order_does_not_matter() -> None:
    generator = random.Random(1)
    parts = [
        of(
            *((bucket, generator.randint(1, 9)) for bucket in range(-50, 50, generator.randint(1, 7))),
            low=low,
            high=low,
        )
        for low in (5.0, 1.0, 9.0, 3.0)
    ]

    merged = []
    for _ in range(5):
        generator.shuffle(parts)
        whole = sketch.Sketch()
        for part in parts:
            whole.add(part)
        merged.append((whole.counts, whole.n, whole.low, whole.high))

    assert all(sum_ == merged[0] for sum_ in merged)
    assert merged[0][1:] == (sum(part.n for part in parts), 1.0, 9.0)


def test_merging_nothing_changes_nothing() -> None:
    one = sketch.Sketch()
    one.add(of((3, 2), low=1.0, high=2.0))

    one.add(of(low=0.0, high=0.0))

    assert (one.counts, one.n, one.low, one.high) == ({3: 2}, 2, 1.0, 2.0)


def test_merging_leaves_what_was_merged_alone() -> None:
    first, second = of((3, 2)), of((3, 5))
    whole = sketch.Sketch()

    whole.add(first)
    whole.add(second)

    assert dict(first.items()) == {3: 2}
    assert whole.counts == {3: 7}


def test_packing_keeps_everything() -> None:
    one = sketch.Sketch()
    one.add(of((-4096, 1), (0, 2**40), (525, 3), zeros=7, low=0.0, high=8.64e7))

    packed = sketch.pack(one)

    assert dict(packed.items()) == one.counts
    assert packed.columns() == one.columns()
    assert (packed.n, packed.zeros, packed.low, packed.high) == (one.n, 7, 0.0, 8.64e7)


@pytest.mark.parametrize("steps", range(9))
def test_a_coarser_schema_holds_each_value_where_client_golang_would(steps: int) -> None:
    generator = random.Random(steps)
    schema = sketch.SCHEMA - steps
    for _ in range(300):
        seconds = generator.lognormvariate(-4, 3)
        fine = math.ceil(math.log2(seconds) * 2**sketch.SCHEMA)

        (coarse,) = sketch.coarser([(fine, 1)], steps)

        assert sketch.upper_bound(coarse - 1, schema) < seconds <= sketch.upper_bound(coarse, schema)


def test_a_coarser_schema_loses_no_count() -> None:
    counts = {bucket: abs(bucket) + 1 for bucket in range(-300, 300)}

    assert sum(sketch.coarser(counts.items(), 3).values()) == sum(counts.values())
    assert sketch.coarser(counts.items(), 0) == counts
