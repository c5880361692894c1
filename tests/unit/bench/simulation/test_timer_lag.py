"""Late timers of a real client, drawn again on a virtual clock."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pd_bench.results.result import Distribution, ResultDocument
from pd_bench.simulation.cloud.cloud_profile import CLOUD_PROFILES
from pd_bench.simulation.settings import SimulationSettings
from pd_bench.simulation.simulation import Simulation
from pd_bench.simulation.timer_lag import TimerLag
from pd_device_client.planning.speeds.profiles import device_profile

MEASURED = Distribution(count=50, mean=0.003, p50=0.002, p90=0.006, p99=0.02, max=0.03)


def test_lags_are_drawn_as_they_were_measured() -> None:
    lag = TimerLag(MEASURED, seed=1)
    drawn = [lag.draw_s() for _ in range(20_000)]
    assert min(drawn) >= 0
    assert max(drawn) <= 0.03
    found = np.percentile(drawn, (50, 90, 99))
    assert found == pytest.approx((0.002, 0.006, 0.02), rel=0.08)
    again = TimerLag(MEASURED, seed=1)
    assert [again.draw_s() for _ in range(100)] == drawn[:100]


def _simulate(settings: SimulationSettings) -> ResultDocument:
    return Simulation(settings, lambda scheme, arrival_s: None).run()


def test_late_timers_are_seen_in_dispatch_and_gaps_and_cost_the_cloud_nothing(
    tmp_path: Path,
) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"2023-11-16 18:00:{i:02},{200 + i},{40 + i}" for i in range(30)]
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]) + "\n")
    cloud = CLOUD_PROFILES["gpu-8b"].model_copy(update={"spread": 0.0, "decode_key_s": 0.0})
    settings = SimulationSettings(
        trace,
        device=device_profile("laptop"),
        cloud=cloud,
        schemes=("cloud-only",),
        foresight=False,
    )
    punctual, late = _simulate(settings), _simulate(replace(settings, timer_lag_s=MEASURED))
    assert late.dispatch_lag_s.p50 == pytest.approx(0.002, abs=0.001)
    assert punctual.dispatch_lag_s.max == pytest.approx(0.0, abs=1e-9)
    before, after = punctual.schemes["cloud-only"], late.schemes["cloud-only"]
    assert before.largest_gap_s.p50 == pytest.approx(0.1, abs=1e-6)
    # The longest of some fifty gaps is about as late as one timer in fifty.
    assert after.largest_gap_s.p50 is not None
    assert 0.106 < after.largest_gap_s.p50 < 0.13
    assert after.gap_s.p50 == pytest.approx(0.102, abs=0.0005)
    assert after.cloud_tokens_generated == before.cloud_tokens_generated
    assert after.failed == 0
    assert any("timers ring late" in label for label in late.labels)
