"""The sketch: exact while small, within its error for ever."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pd_bench.results.result import Distribution
from pd_bench.results.sketch import MAX_EXACT, RELATIVE_ERROR, QuantileSketch


def test_few_values_are_described_exactly() -> None:
    values = [0.25, 0.0, 3.5, 1.0]
    sketch = QuantileSketch()
    for value in values:
        sketch.add(value)
    assert sketch.distribution() == Distribution.of(values)
    assert QuantileSketch().distribution() == Distribution.of(())
    assert QuantileSketch().quantiles((0.5,)) == []


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 3.0), st.integers(1, 5))
def test_many_values_are_within_the_error(seed: int, sigma: float, parts: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.lognormal(-3.0, sigma, size=MAX_EXACT + 5000)
    values[:200] = 0.0
    rng.shuffle(values)
    sketch = QuantileSketch()
    for part in np.array_split(values, parts * 7):
        sketch.add(part)
    shares = np.linspace(0, 1, 41)
    lower = np.percentile(values, shares * 100, method="lower")
    higher = np.percentile(values, shares * 100, method="higher")
    for found, low, high in zip(sketch.quantiles(shares), lower, higher, strict=True):
        assert low * (1 - RELATIVE_ERROR) - 1e-9 <= found <= high * (1 + RELATIVE_ERROR) + 1e-9
    figures = sketch.distribution()
    assert figures.count == len(values)
    assert figures.max == values.max()
    assert figures.mean == pytest.approx(values.mean())


def test_memory_is_bounded_by_the_range_not_the_count() -> None:
    sketch = QuantileSketch()
    rng = np.random.default_rng(0)
    for _ in range(50):
        sketch.add(rng.uniform(0.001, 100.0, size=20_000))
    assert sketch.count == 1_000_000
    assert sketch.num_buckets < 6000
