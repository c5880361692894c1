"""What a trace holds, counted in one pass: exact where it says so, near where it does not."""

import random

import numpy as np
import pytest

from pd_bench.results.result import Distribution
from pd_bench.traces.distinct import DistinctKeys
from pd_bench.traces.length_counts import LengthCounts
from pd_bench.traces.reader import SkippedRows
from pd_bench.traces.row import TraceRow
from pd_bench.traces.summary import profile_trace


def test_hand_made_rows_give_hand_computed_figures() -> None:
    rows = [
        TraceRow(1, 0.0, 8, 2, (1, 2), "a", 4),
        TraceRow(2, 1.0, 12, 4, (1, 2, 3), "a", 4),
        TraceRow(3, 4.0, 4, 6, (9,), "b", 4),
    ]
    profile = profile_trace("t", "pd-trace", rows, SkippedRows(count=2))
    assert (profile.rows, profile.skipped_rows, profile.span_s) == (3, 2, 4.0)
    assert profile.rate_per_s == 0.5
    assert profile.gap_cv == pytest.approx(0.5)  # gaps of 1 and 3: mean 2, deviation 1
    assert profile.prompt_tokens.mean == 8
    assert profile.output_tokens.p90 == pytest.approx(5.6)
    sharing = profile.sharing
    assert (sharing.blocks, sharing.distinct_blocks, sharing.block_tokens) == (6, 4, 4)
    assert sharing.repeated_share == pytest.approx(2 / 6)
    assert (sharing.sessions, sharing.rows_with_session, sharing.exact) == (2, 3, True)


def test_rows_without_hashes_have_no_sharing_and_one_instant_no_rate() -> None:
    profile = profile_trace("t", "azure", [TraceRow(1, 0.0, 8, 2), TraceRow(2, 0.0, 9, 3)])
    assert profile.rate_per_s is None
    assert profile.gap_cv is None
    assert profile.sharing.repeated_share is None
    assert profile.sharing.sessions == 0


def test_length_percentiles_are_numpy_s() -> None:
    numbers = random.Random(1)
    lengths = [int(numbers.lognormvariate(5, 1.5)) + 1 for _ in range(1001)]
    counts = LengthCounts()
    for length in lengths:
        counts.add(length)
    got, wanted = counts.distribution(), Distribution.of(lengths)
    assert got.count == wanted.count == 1001
    for field in ("mean", "p50", "p90", "p99", "max"):
        assert getattr(got, field) == pytest.approx(getattr(wanted, field), rel=1e-12)
    assert LengthCounts().distribution().mean is None


def test_few_keys_are_counted_exactly() -> None:
    keys = DistinctKeys(max_keys=100)
    for key in [*range(100), *range(50), -3, -3]:
        keys.add(key)
    assert not keys.exact  # the hundred and first
    small = DistinctKeys(max_keys=100)
    for key in [*range(60), *range(30)]:
        small.add(key)
    assert small.exact
    assert (small.distinct, small.num_keys) == (60, 90)
    assert small.repeated_share == pytest.approx(30 / 90)


def test_many_keys_are_estimated_in_fixed_memory() -> None:
    keys = DistinctKeys(max_keys=4096)
    stream = np.random.default_rng(7).integers(0, 60_000, 150_000).tolist()
    for key in stream:
        keys.add(key)
    distinct = len(set(stream))
    assert not keys.exact
    assert keys.distinct == pytest.approx(distinct, rel=0.05)
    assert keys.repeated_share == pytest.approx(1 - distinct / len(stream), abs=0.03)
