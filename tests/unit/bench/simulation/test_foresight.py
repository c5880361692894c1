"""Foresight gives the session's own course: every token at its instant, from the same side."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pd_bench.results.result import ResultDocument
from pd_bench.simulation import foresight
from pd_bench.simulation.cloud.cloud_profile import CLOUD_PROFILES
from pd_bench.simulation.settings import SimulationSettings
from pd_bench.simulation.simulation import Simulation
from pd_device_client.planning.speeds.profiles import SpeedProfile

SCHEMES = ("cloud-only", "device-only", "pd-device", "pd-device-k7", "race-only")


def _simulate(settings: SimulationSettings) -> ResultDocument:
    return Simulation(settings, lambda scheme, arrival_s: None).run()


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.integers(0, 3000), st.integers(1, 2500), st.integers(1, 150)),
        min_size=1,
        max_size=5,
    ),
    prefill_tokens_per_s=st.sampled_from([100, 600, 3000]),
    decode_s=st.sampled_from([0.01, 0.04, 0.05, 0.09]),
    spread=st.sampled_from([0.0, 0.05, 0.4]),
    pace_s=st.sampled_from([0.005, 0.02, 0.05, 0.2]),
    max_output_tokens=st.sampled_from([60, 200]),
    seed=st.integers(0, 100),
)
@example(  # a step that takes no time, which the device's estimate leaves out
    rows=[(1249, 1249, 34)],
    prefill_tokens_per_s=600,
    decode_s=0.09,
    spread=0.4,
    pace_s=0.005,
    max_output_tokens=200,
    seed=34,
)
def test_foresight_is_the_sessions_own_course(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, int, int]],
    prefill_tokens_per_s: int,
    decode_s: float,
    spread: float,
    pace_s: float,
    max_output_tokens: int,
    seed: int,
) -> None:
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for ms, prompt, output in sorted(rows):
        lines.append(f"2023-11-16 18:00:{ms // 1000:02}.{ms % 1000:03},{prompt},{output}")
    trace = tmp_path_factory.mktemp("trace") / "trace.csv"
    trace.write_text("\n".join(lines) + "\n")
    device = SpeedProfile("test", "a test", 1 / prefill_tokens_per_s, decode_s, spread=spread)
    foreseeing = SimulationSettings(
        trace,
        device=device,
        cloud=CLOUD_PROFILES["gpu-8b"],
        link_profile="lte",
        schemes=SCHEMES,
        pace_s=pace_s,
        max_output_tokens=max_output_tokens,
        seed=seed,
        timeout_s=30.0,
    )
    ours = _simulate(foreseeing)
    theirs = _simulate(replace(foreseeing, foresight=False))
    assert len(ours.requests) == len(theirs.requests) == len(rows) * len(SCHEMES)
    for a, b in zip(ours.requests, theirs.requests, strict=True):
        assert a.shown_at_s == pytest.approx(b.shown_at_s, abs=1e-9)
        times = {"shown_at_s", "ttft_s", "tpot_s", "e2e_s", "largest_gap_s", "handoff_gap_s"}
        assert a.model_dump(exclude=times) == b.model_dump(exclude=times)
    for mine, other in zip(ours.timelines, theirs.timelines, strict=True):
        assert mine.sources == other.sources
        assert mine.arrived_at_s == pytest.approx(other.arrived_at_s, abs=1e-9)


def test_most_answers_are_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The equality above says something only where foresight takes part."""
    found: list[bool] = []
    whole = foresight._Course.foreseen

    def counted(course: foresight._Course, ends_by_s: float) -> bool:
        found.append(whole(course, ends_by_s))
        return found[-1]

    monkeypatch.setattr(foresight._Course, "foreseen", counted)
    lines = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    lines += [f"2023-11-16 18:00:{i:02}.0,{300 + i},100" for i in range(10)]
    trace = tmp_path / "trace.csv"
    trace.write_text("\n".join(lines) + "\n")
    device = SpeedProfile("test", "a test", 1 / 600, 0.04, spread=0.05)
    schemes = ("device-only", "pd-device")
    cloud = CLOUD_PROFILES["gpu-8b"]
    _simulate(
        SimulationSettings(
            trace, device=device, cloud=cloud, link_profile="wifi", schemes=schemes, pace_s=0.05
        )
    )
    assert len(found) == 22  # a warm-up each
    assert all(found)
