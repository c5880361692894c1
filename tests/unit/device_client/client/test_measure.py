from dataclasses import replace
from pathlib import Path

import pytest

from pd_core.files.kept_results import keep
from pd_device_client.client.measure import keep_profile, kept_profile
from pd_device_client.planning.speeds.profiles import SpeedProfile

SOUND = {"name": "measured", "source": "now", "prefill_b_s": 0.001, "decode_s": 0.02}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_a_profile_is_kept_under_its_key() -> None:
    assert kept_profile(["a cpu", 2]) is None
    keep_profile(["a cpu", 2], SpeedProfile("measured", "now", prefill_b_s=0.001, decode_s=0.02))
    found = kept_profile(["a cpu", 2])
    assert found is not None
    assert (found.prefill_b_s, found.decode_s) == (0.001, 0.02)
    assert (found.name, found.source) == ("measured", "what this device did at an earlier start")
    assert kept_profile(["a cpu", 1]) is None


def test_a_whole_profile_is_kept() -> None:
    whole = SpeedProfile("measured", "now", 0.001, 0.02, 0.003, 1e-8, 0.05, 1e-6)
    keep_profile("key", whole)
    found = kept_profile("key")
    assert found is not None
    assert replace(found, source="now") == whole


@pytest.mark.parametrize(
    "odd",
    [
        *(None, "fast", [], {"prefill_b_s": 0.1}, [0.001], [0.1, 0.1], {}),
        *({**SOUND, "decode_s": odd} for odd in (0.0, -1.0, 1e9, None, "1", float("nan"))),
        {**SOUND, "prefill_b_s": float("inf")},
        {**SOUND, "prefill_c_s": -1e-9},
    ],
)
def test_what_is_no_speed_is_measured_again(odd: object, caplog: pytest.LogCaptureFixture) -> None:
    keep("speeds", "key", odd)
    assert kept_profile("key") is None
    if isinstance(odd, dict):
        assert "this device is measured anew: the kept speeds: " in caplog.text


def test_a_damaged_file_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keep("speeds", "key", SOUND)
    assert kept_profile("key") is not None
    assert not caplog.text
    (tmp_path / "pd-device" / "speeds.json").write_text("{")
    assert kept_profile("key") is None
    assert "speeds.json is damaged" in caplog.text
