from pathlib import Path
from typing import Any

import pytest

from pd_bench.harness.server_process import ServerOptions
from pd_bench.replay.settings import ReplaySettings
from pd_core.errors import ConfigError
from pd_core.store.model_names import DEFAULT_MODEL
from pd_device_client.cloud.address import CloudAddress

TRACE = Path("t.csv")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"schemes": ("pd-devise",)}, "unknown scheme 'pd-devise'; known: device-only, cloud"),
        ({"schemes": ()}, "no scheme is named; known schemes: device-only"),
        ({"schemes": ("pd-device", "pd-device")}, "named twice"),
        ({"fidelity": "simulated"}, "unknown fidelity 'simulated'; known: real, fleet"),
        ({"device_profile": "fridge"}, "unknown device profile 'fridge'; known profiles: .*slow"),
        ({"text": Path("book.txt")}, "--text is for --fidelity real"),
        ({"device_profile": None}, "name their --device-profile"),
        ({"link_profile": "string"}, "unknown link profile 'string'; known profiles: .*wifi"),
        ({"pace_s": 0.0}, "--pace is 0.0"),
        ({"pace_s": float("nan")}, "--pace is nan"),
        ({"timeout_s": -1.0}, "--timeout is -1"),
        ({"repeat": 0}, "--repeat is 0"),
        ({"max_num_seqs": 0}, "--max-num-seqs is 0"),
        ({"max_prompt_tokens": 0}, "--max-prompt-tokens is 0"),
        ({"max_output_tokens": -1}, "--max-output-tokens is -1"),
    ],
)
def test_wrong_settings_are_refused_with_the_known_names(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        ReplaySettings(trace=TRACE, **({"device_profile": "slow"} | changes))


def test_the_trained_model_runs_when_none_is_named() -> None:
    assert ReplaySettings(trace=TRACE, device_profile="slow").model == DEFAULT_MODEL
    assert ServerOptions().model == DEFAULT_MODEL


def test_the_order_of_the_schemes_rotates() -> None:
    settings = ReplaySettings(trace=TRACE, device_profile="slow", repeat=4)
    a, b, c = settings.schemes
    assert [tuple(s.name for s in settings.scheme_order(r)) for r in range(4)] == [
        (a, b, c),
        (b, c, a),
        (c, a, b),
        (a, b, c),
    ]


def test_a_fleet_needs_the_hash_and_a_real_device_the_model() -> None:
    assert ReplaySettings(trace=TRACE, device_profile="slow").sampler == "rolling-hash"
    real = ReplaySettings(trace=TRACE, fidelity="real")
    assert real.sampler == "model"
    assert real.speed is None


def test_the_key_of_a_given_cloud_is_not_shown() -> None:
    cloud = CloudAddress("cloud.example:1", api_key="sesame", insecure=True)
    settings = ReplaySettings(trace=TRACE, device_profile="slow", cloud=cloud)
    assert "cloud.example" in repr(settings)
    assert "sesame" not in repr(settings) + str(settings)
