"""The planner against hindsight: the timeline, the search, and the figures."""

import json
from pathlib import Path

import numpy as np
import pytest

from pd_bench.cli import main
from pd_bench.simulation.planner_check import check_planner, draw_situation
from pd_bench.simulation.virtual_timeline import Drawn, VirtualTimeline
from pd_device_client.contract.ask import Mode
from pd_device_client.planning.handoff_time import ready_s
from pd_device_client.planning.planner import CloudForecast
from pd_device_client.planning.speeds.profiles import SpeedProfile
from tests.command_here import run_here

DEVICE = SpeedProfile("d", "a test", 1 / 400, 0.05)


def _exact(prompt: int, output: int) -> Drawn:
    return Drawn.of(np.random.default_rng(0), prompt, output, 0.0, 0.0)


def test_without_errors_the_timeline_is_that_of_the_formula() -> None:
    timeline = VirtualTimeline(DEVICE, 0.3, 0.02, 1152, 211, _exact(1152, 211))
    for k in (1, 14, 56, 200):
        formula = ready_s(k, 1152, DEVICE, CloudForecast(0.3, 0.02))
        assert timeline.ready_s(k) == pytest.approx(formula)


def test_gaps_of_a_timeline_by_hand() -> None:
    device = SpeedProfile("d", "a test", 1 / 128, 0.1)  # 128 tokens take a second
    timeline = VirtualTimeline(device, 0.5, 0.1, 128, 4, _exact(128, 4))
    # From the cloud at 0.5 and 0.6; ready at 1 s + 2 tokens + 0.1 s; then a token each 0.1 s.
    ready = 1.0 + 2 / 128 + 0.1
    assert timeline.ready_s(2) == pytest.approx(ready)
    assert timeline.worst_gap_s(2, 0.2) == pytest.approx(ready - 0.7)
    assert timeline.worst_gap_s(4, 0.2) == pytest.approx(0.2)
    assert timeline.worst_gap_s(0, 0.2) == pytest.approx(0.2)


def test_what_is_drawn_is_the_same_for_every_k() -> None:
    rng = np.random.default_rng(3)
    drawn = Drawn.of(rng, 1000, 100, 0.1, 0.05)
    timeline = VirtualTimeline(DEVICE, 0.3, 0.02, 1000, 100, drawn)
    assert timeline.ready_s(10) == timeline.ready_s(10)
    gaps = [timeline.worst_gap_s(k, 0.1) for k in range(1, 101)]
    assert gaps[-1] <= gaps[0]


def test_the_planner_misses_little_and_wastes_little() -> None:
    found = check_planner(300, 1, lambda _: None)
    assert found.situations == 300
    assert found.infeasible_missed == 0
    assert found.miss_rate <= 0.03
    assert found.extra_cloud_tokens <= 0.15
    assert len(found.plan_s) == 300
    assert found.kept > 200


def test_fewer_tokens_than_planned_are_not_enough() -> None:
    """Without errors in the forecast the planned k is close to the least one."""
    rng, close = np.random.default_rng(5), 0
    for _ in range(60):
        situation = draw_situation(rng)
        plan = situation.plan()
        exact = _exact(situation.prompt_tokens, situation.output_tokens)
        timeline = situation.timeline(exact)
        if plan.broken or plan.mode is not Mode.PD_DEVICE or plan.takes_turns:
            continue
        limit_s = situation.promise.gap_limit_s + 1e-9
        assert timeline.worst_gap_s(plan.cloud_tokens, plan.pace_s) <= limit_s
        if situation.device.spread == 0 and plan.cloud_tokens > 4:
            close += 1
            assert timeline.worst_gap_s(plan.cloud_tokens // 2, plan.pace_s) > limit_s
    assert close >= 3


def test_the_command_writes_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "planner.json"
    done = run_here(main, "planner", "--situations", "20", "--json", str(out))
    assert done.returncode == 0, done.stderr
    assert "called impossible though possible" in done.stdout
    document = json.loads(out.read_text())
    assert {"miss_rate", "extra_cloud_tokens", "infeasible_missed", "plan_s"} <= document.keys()
    assert document["plan_s"].keys() == {"p50", "p99"}
