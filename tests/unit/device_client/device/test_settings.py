"""A device's settings that do not go together."""

import pytest

from pd_core.errors import ConfigError
from pd_device_client.device.settings import DeviceSettings


def test_an_option_of_another_engine_is_refused() -> None:
    with pytest.raises(ConfigError, match="--engine llama-cpp"):
        DeviceSettings(context_tokens=4096)
    assert DeviceSettings(engine="llama-cpp", context_tokens=4096).context_tokens == 4096
