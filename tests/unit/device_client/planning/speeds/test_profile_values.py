"""A profile that comes from a file is checked, and an error names the field."""

import json
from pathlib import Path

import pytest

from pd_core.errors import ConfigError
from pd_device_client.planning.speeds.profile_values import (
    profile_from,
    profile_values,
    read_device_profile,
)
from pd_device_client.planning.speeds.profiles import DEVICE_PROFILES, LINK_PROFILES, SpeedProfile

PROFILE = SpeedProfile("mine", "a test", 0.001, 0.02, 0.003, 1e-8, 0.05, 1e-6)


def test_a_profile_comes_back_as_it_was() -> None:
    values = json.loads(json.dumps(profile_values(PROFILE)))
    assert profile_from(values, "it") == PROFILE
    for name in ("prefill_a_s", "prefill_c_s", "decode_l_s", "spread"):
        del values[name]
    assert profile_from(values, "it") == SpeedProfile("mine", "a test", 0.001, 0.02)


@pytest.mark.parametrize("field", ["prefill_b_s", "decode_s"])
@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf"), 1e9, 1e-30, "1", None, True])
def test_a_speed_that_cannot_be_is_refused_by_its_name(field: str, speed: object) -> None:
    with pytest.raises(ConfigError, match=f"it: {field} is .*; it must lie from"):
        profile_from({**profile_values(PROFILE), field: speed}, "it")


@pytest.mark.parametrize("field", ["prefill_a_s", "prefill_c_s", "decode_l_s", "spread"])
@pytest.mark.parametrize("value", [-1e-9, float("nan"), 1e6, [], "0"])
def test_so_is_any_other_coefficient(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"it: {field} is"):
        profile_from({**profile_values(PROFILE), field: value}, "it")


def test_a_missing_speed_is_named() -> None:
    with pytest.raises(ConfigError, match="decode_s is None"):
        profile_from({"prefill_b_s": 0.1}, "it")
    for other in (None, [0.1, 0.2], "fast"):
        with pytest.raises(ConfigError, match="it is no device profile"):
            profile_from(other, "it")


def test_a_profile_is_read_by_name_or_from_a_file(tmp_path: Path) -> None:
    assert read_device_profile("laptop") is DEVICE_PROFILES["laptop"]
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"profile": profile_values(PROFILE), "passes": []}))
    assert read_device_profile(str(file)) == PROFILE
    file.write_text(json.dumps({"profile": {**profile_values(PROFILE), "decode_s": -1}}))
    with pytest.raises(ConfigError, match=r"mine\.json: decode_s is -1"):
        read_device_profile(str(file))
    file.write_text("{")
    with pytest.raises(ConfigError, match=r"mine\.json is not JSON"):
        read_device_profile(str(file))
    with pytest.raises(ConfigError, match="unknown device profile 'fridge'"):
        read_device_profile("fridge")


@pytest.mark.parametrize("profile", DEVICE_PROFILES.values(), ids=lambda p: p.name)
def test_every_named_profile_is_sound_and_has_a_source(profile: SpeedProfile) -> None:
    assert profile_from(profile_values(profile), "it") == profile
    assert (
        "https://" in profile.source
        or "chosen by us" in profile.source
        or "docs/" in (profile.source)
    )


def test_a_published_profile_gives_the_published_rates() -> None:
    board = DEVICE_PROFILES["arm-board-1b"]
    assert 512 / board.prefill_s(512) == pytest.approx(194.49)
    assert 4096 / board.prefill_s(4096) == pytest.approx(132.65)
    assert 1 / board.decode_s == pytest.approx(38.81)


def test_every_link_has_a_source() -> None:
    for link in LINK_PROFILES.values():
        assert link.source
        assert link.rtt_s >= 0
