"""Stated quantiles of the ready time hold on passes that a forecaster has not seen."""

import json
from pathlib import Path

import pytest

from pd_bench.commands.forecasts import judged
from pd_bench.emulation.device_engine import EmulatedDeviceEngine
from pd_bench.emulation.virtual_loop import run_virtual
from pd_bench.forecasts.judgement import METHODS, Judged, judge
from pd_bench.forecasts.pass_series import (
    RECORDED,
    SIMULATED,
    PassSeries,
    read_series,
    simulated_series,
)
from pd_bench.forecasts.recording import record
from pd_core.errors import ConfigError
from pd_device_client.planning.speeds.profiles import SpeedProfile

Q = 0.9


def test_the_quantile_holds_in_88_to_92_of_100_and_better_than_by_single_passes() -> None:
    """The seeds are fixed, and the recordings too: this says the same each time."""
    series = [simulated_series(name, 0, 400) for name in SIMULATED]
    series += map(read_series, RECORDED)
    overall = judged(series, Q)["overall"]
    for when in ("start", "halfway"):
        ours, plain = overall["forecast-errors"][when], overall["single-passes"][when]
        assert 0.88 <= ours["coverage"] <= 0.92
        assert ours["pinball"] < plain["pinball"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SIMULATED)
def test_a_lower_quantile_holds_less_often(name: str) -> None:
    series = simulated_series(name, 1, 300)
    make = METHODS["forecast-errors"]
    shares = []
    for q in (0.25, 0.5, 0.9):
        start, _ = judge(series, make(series.profile(), series.chunk_tokens), q)
        shares.append(start.held / start.count)
    assert shares == sorted(shares)
    assert shares[0] < 0.8 < shares[-1]


def test_a_forecast_that_is_right_loses_nothing() -> None:
    judgement = Judged()
    judgement.add(2.0, 2.0, Q)
    assert judgement.figures() == {"coverage": 1.0, "pinball": 0.0, "forecasts": 1}
    judgement.add(1.0, 2.0, Q)  # too early by half
    assert judgement.pinball == pytest.approx(0.45)
    judgement.add(3.0, 2.0, Q)  # too late by half
    assert judgement.pinball == pytest.approx(0.45 + 0.05)


def test_a_recording_is_read_back(tmp_path: Path) -> None:
    profile = SpeedProfile("p", "a test", 1e-3, 0.01)
    engine = EmulatedDeviceEngine(profile, vocab_size=100, eos_token_ids=[99], chunk_tokens=64)

    async def main() -> PassSeries:
        return await record(engine, 20, 300, busy=False, seed=1, say=lambda _: None)

    series = run_virtual(main())
    assert len(series.answers) == 20
    path = tmp_path / "recording.json"
    path.write_text(json.dumps(series.document()))
    found = read_series(path)
    assert found.document() == series.document()
    figures = judged([found], Q)["overall"]["forecast-errors"]["start"]
    assert figures["pinball"] < 0.001  # an emulated engine without spread


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("answers"),
        lambda d: d["answers"][0].pop(),
        lambda d: d["answers"][0][0].pop(),
        lambda d: d["answers"][0][0].__setitem__(2, -5),
        lambda d: d.update(calibration=[]),
        lambda d: d.update(chunk_tokens=None),
    ],
)
def test_what_is_no_recording_is_refused(damage: object, tmp_path: Path) -> None:
    assert callable(damage)
    document = {
        **{"name": "n", "conditions": "c", "chunk_tokens": 8},
        "calibration": [[0, 8, 100], [8, 1, 20]],
        "answers": [[[0, 8, 100], [8, 1, 20]]],
    }
    path = tmp_path / "recording.json"
    path.write_text(json.dumps(document))
    read_series(path)
    damage(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ConfigError, match="is no recording of passes"):
        read_series(path)
