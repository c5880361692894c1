"""Measuring a cloud whose profile is known gives that profile back."""

import pytest

from pd_bench.commands.profile_cloud import measurement_table
from pd_bench.emulation.virtual_loop import run_virtual
from pd_bench.simulation.cloud.cloud_measure import CloudMeasurement, measure_cloud
from pd_bench.simulation.cloud.cloud_profile import CloudProfile
from pd_bench.simulation.cloud.simulated_cloud import SimulatedCloud, SimulatedLink
from pd_core.errors import CloudTimeout, ConfigError
from pd_core.generation import ServerInfo
from pd_device_client.planning.speeds.profiles import LinkProfile

CLOUD = CloudProfile(
    name="known",
    source="a test",
    step_s=0.004,
    prefill_token_s=0.0001,
    prefill_token2_s=2e-9,
    decode_s=0.0005,
    decode_key_s=1e-7,
    message_s=0.0007,
    kv_bytes_per_token=1000,
    kv_tokens=64 * 1000,
    max_num_seqs=16,
    max_num_batched_tokens=None,
    max_num_waiting=100,
    max_context_tokens=8192,
    max_output_tokens=1024,
)


def _measure(cloud: CloudProfile, batched: int | None = None) -> CloudMeasurement:
    async def main() -> CloudMeasurement:
        link = SimulatedLink(SimulatedCloud(cloud), LinkProfile("plain", "a test", rtt_s=0.002))
        return await measure_cloud(link, "found", max_num_batched_tokens=batched)

    return run_virtual(main())


@pytest.mark.parametrize("batched", [None, 512])
def test_a_known_cloud_is_found_again(batched: int | None) -> None:
    known = CLOUD.model_copy(update={"max_num_batched_tokens": batched})
    found = _measure(known, batched)
    profile = found.profile
    for field in ("step_s", "prefill_token_s", "decode_s"):
        assert getattr(profile, field) == pytest.approx(getattr(known, field), rel=0.02), field
    for field in ("prefill_token2_s", "decode_key_s"):
        assert getattr(profile, field) == pytest.approx(getattr(known, field), rel=0.2), field
    assert profile.message_s == pytest.approx(0.0007, abs=1e-6)
    assert found.rtt_s == pytest.approx(0.002)
    assert profile.max_num_seqs == 16
    assert profile.step_tokens() == known.step_tokens()
    assert CloudProfile.model_validate_json(profile.model_dump_json()) == profile


def test_the_spread_is_found() -> None:
    found = _measure(CLOUD.model_copy(update={"spread": 0.1}))
    assert found.profile.spread == pytest.approx(0.1, abs=0.05)


def test_the_table_shows_each_measurement_beside_the_fit() -> None:
    found = _measure(CLOUD)
    table = measurement_table(found)
    assert table.row_count == len(found.prefills) + len(found.decodes) + 2


def test_a_context_too_short_to_measure_in_is_refused() -> None:
    with pytest.raises(ConfigError, match="too short to measure"):
        _measure(CLOUD.model_copy(update={"max_context_tokens": 130}))


@pytest.mark.parametrize(("silent", "answers"), [(3, True), (99, False)])
def test_a_server_that_has_just_started_is_asked_again(silent: int, answers: bool) -> None:
    class Slow(SimulatedLink):
        asked = 0

        async def info(self) -> ServerInfo:
            self.asked += 1
            if self.asked <= silent:
                raise CloudTimeout("no answer in time")
            return await super().info()

    told: list[str] = []

    async def main() -> CloudMeasurement:
        link = Slow(SimulatedCloud(CLOUD), LinkProfile("plain", "a test", rtt_s=0.002))
        return await measure_cloud(link, "found", max_prompt_tokens=64, tick=told.append)

    if answers:
        assert run_virtual(main()).profile.max_num_seqs == 16
        assert told[:3] == ["nothing yet, the server does not answer"] * 3
    else:
        with pytest.raises(CloudTimeout):
            run_virtual(main())
