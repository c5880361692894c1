"""The overhead measurement runs through a real server and measures something."""

import pytest

from pd_bench.overhead.lateness import UNJUDGED_TOKENS
from pd_bench.overhead.overhead import measure_overhead


@pytest.mark.heavy
async def test_overhead_is_measured_on_the_paced_tokens() -> None:
    overhead = await measure_overhead(pace_s=0.005, num_tokens=80)
    assert overhead.num_tokens == 4 * (20 - UNJUDGED_TOKENS)
    # No token comes before its pace: the controller never bursts.
    assert overhead.paced.p50_s > 0
    assert overhead.bare.p50_s > 0
    assert overhead.added.p50_s < 0.5
    assert overhead.unpaced.p99_s > overhead.unpaced.p50_s
