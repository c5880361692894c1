"""A device's settings that do not go together."""

import pytest

from pd_core.errors import ConfigError
from pd_device_client.device.promise_settings import PromiseSettings
from pd_device_client.device.settings import DeviceSettings


def test_an_option_of_another_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match="--engine llama-cpp"):
        DeviceSettings(context_tokens=4096)
    assert DeviceSettings(engine="llama-cpp", context_tokens=4096).context_tokens == 4096


def test_a_gap_below_the_reading_speed_is_refused_by_what_was_asked_for() -> None:
    promises = PromiseSettings(largest_gap_s=0.1)
    with pytest.raises(ConfigError, match=r"0.1 s, and the 0.19 s .* at --reading-wpm 240 is long"):
        DeviceSettings(reading_wpm=240, promises=promises)
    with pytest.raises(ConfigError, match=r"0.1 s, and --pace 0.2 s is longer"):
        DeviceSettings(pace_s=0.2, promises=promises)
    assert DeviceSettings(reading_wpm=600, promises=promises).planned_pace_s < 0.1
