from pathlib import Path

import pytest

from pd_core.files.kept_results import keep
from pd_device_client.client.measure import keep_profile, kept_profile
from pd_device_client.planning.profiles import SpeedProfile


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


@pytest.mark.parametrize(
    "odd",
    [
        *(None, "fast", [], {"prefill_b_s": 0.1}, [0.001], [0.1, 0.1, 0.1]),
        *([0.001, 0.0], [0.001, -1.0], [0.001, 1], [0.001, None]),
        *([float("inf"), 0.1], [float("nan"), 0.1]),
    ],
)
def test_what_is_no_speed_is_measured_again(odd: object) -> None:
    keep("speeds", "key", odd)
    assert kept_profile("key") is None
