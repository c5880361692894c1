"""Devices of several classes: their shares, and what a plan directs them to do."""

from collections import Counter
from pathlib import Path

import pytest

from pd_bench.replay.schemes import Scheme, parse_schemes
from pd_bench.simulation.cloud.cloud_profile import CLOUD_PROFILES
from pd_bench.simulation.device_mix import DeviceMix, PlannedClass, PlannedGroup
from pd_bench.simulation.past_lengths import past_lengths
from pd_bench.simulation.settings import SimulationSettings
from pd_bench.simulation.simulation import Simulation
from pd_core.errors import ConfigError
from pd_device_client.contract.ask import Mode
from pd_device_client.planning.speeds.profiles import DEVICE_PROFILES, LINK_PROFILES
from tests.unit.bench.simulation.test_capacity import CLOUD


def _group(longest: int | None, mode: Mode, k: int = 0, admitted: float = 1.0) -> PlannedGroup:
    return PlannedGroup(
        longest_prompt=longest,
        share=0.1,
        mode=mode,
        cloud_tokens=k,
        whole_prompt=longest or 4000,
        admitted=admitted,
        kept=1.0,
        cloud_s=0.0,
    )


def _mix(admitted: float = 1.0) -> DeviceMix:
    groups = (
        _group(500, Mode.DEVICE_ONLY),
        _group(2000, Mode.PD_DEVICE, 20, admitted),
        _group(None, Mode.CLOUD_ONLY, 100),
    )
    return DeviceMix(
        tuple(
            PlannedClass(
                name=name,
                share=share,
                device=DEVICE_PROFILES[name],
                link=LINK_PROFILES["wifi"],
                groups=groups,
            )
            for name, share in (("phone", 0.3), ("laptop", 0.7))
        )
    )


def test_rows_are_shared_out_and_always_alike() -> None:
    mix = _mix()
    counts = Counter(mix.place(line).devices.name for line in range(4000))
    assert counts["phone"] == pytest.approx(1200, rel=0.1)
    assert all(mix.place(line) == mix.place(line) for line in (0, 7, 10_000_001))


@pytest.mark.parametrize(
    ("prompt_tokens", "mode", "k"),
    [
        (1, "device-only", None),
        (500, "device-only", None),
        (501, "pd-device", 6),
        (2000, "pd-device", 20),
        (2001, "cloud-only", None),
    ],
)
def test_a_device_does_what_its_prompts_group_is_directed_to(
    prompt_tokens: int, mode: str, k: int | None
) -> None:
    mix = _mix()
    scheme = mix.scheme(Scheme("planned", "pd-device"), mix.place(3), prompt_tokens)
    assert scheme == Scheme("planned", mode, k)


@pytest.mark.parametrize("keep_ratio", [1.0, 0.25])
def test_a_planned_keep_ratio_is_carried_out(keep_ratio: float, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        + "".join(f"2023-11-16 18:1{i}:00.0000000,3000,60\n" for i in range(4))
    )
    # 11 tokens cover 2.2 s of a laptop's 5 s for the whole prompt, and all of it for a quarter.
    group = _group(None, Mode.PD_DEVICE, 14).model_copy(update={"keep_ratio": keep_ratio})
    laptop = _mix().classes[1].model_copy(update={"share": 1.0, "groups": (group,)})
    settings = SimulationSettings(
        trace,
        device=laptop.device,
        cloud=CLOUD_PROFILES["gpu-8b"],
        schemes=("planned",),
        pace_s=0.2,
        mix=DeviceMix((laptop,)),
    )
    found = Simulation(settings, lambda scheme, arrival_s: None).run()
    largest_s = found.schemes["planned"].largest_gap_s.max
    assert largest_s is not None
    assert (largest_s < 0.3) == (keep_ratio < 1)
    assert any("read parts of prompts" in label for label in found.labels) == (keep_ratio < 1)


def test_what_is_not_admitted_never_reaches_the_cloud() -> None:
    mix = _mix(admitted=0.25)
    planned = Scheme("planned", "pd-device")
    schemes = [mix.scheme(planned, mix.place(line), 1000) for line in range(2000)]
    asked = sum(scheme.uses_cloud for scheme in schemes)
    assert asked == pytest.approx(500, rel=0.2)
    assert all(scheme.uses_device for scheme in schemes)


def test_a_planned_scheme_needs_a_plan() -> None:
    with pytest.raises(ConfigError, match="needs the plan of a fleet"):
        parse_schemes(("planned",))
    assert parse_schemes(("planned",), planned=True)[0].planned


def test_devices_know_earlier_answers_and_learn_none_of_others(tmp_path: Path) -> None:
    trace = tmp_path / "past.csv"
    trace.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        + "".join(f"2023-11-16 18:15:{i:02}.0000000,300,{50 + i}\n" for i in range(20))
    )
    lengths = past_lengths(trace)
    before = lengths.expected(300, 1024)
    assert 65 <= before <= 70
    for _ in range(100):
        lengths.add(300, 900)
    assert lengths.expected(300, 1024) == before
    assert past_lengths(None).expected(300, 1024) == 1024


def test_the_trace_itself_is_no_past(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    with pytest.raises(ConfigError, match="answers that are still to come"):
        SimulationSettings(trace, device=DEVICE_PROFILES["laptop"], cloud=CLOUD, past=trace)
