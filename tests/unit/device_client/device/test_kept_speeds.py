"""The first start measures; later ones plan at once with what the device did before."""

from pathlib import Path

import pytest

from pd_core.sampling_params import SamplingParams
from pd_core.store.model_names import RANDOM_TINY
from pd_device_client.client import client
from pd_device_client.client.measure import measure_engine
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.ports import LocalEngine
from pd_device_client.device.device import Device, open_device
from pd_device_client.device.settings import DeviceSettings
from pd_device_client.planning.speeds.profiles import SpeedProfile

SETTINGS = DeviceSettings(RANDOM_TINY, pace_s=0.001, polite=False)


class Measurements:
    """Counts how often an engine is measured."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self, engine: LocalEngine) -> SpeedProfile:
        """Measure it."""
        self.count += 1
        return await measure_engine(engine)


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Measurements:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    measured = Measurements()
    monkeypatch.setattr(client, "measure_engine", measured)
    return measured


async def _answer(device: Device) -> list[int]:
    sampling = SamplingParams(temperature=1.0, seed=3)
    session = device.client.session(
        Ask("one", tuple(range(40)), 12, sampling, mode=Mode.DEVICE_ONLY)
    )
    async for _ in session.run():
        pass
    return [token.token_id for token in session.outcome.shown]


async def test_what_was_learned_serves_the_next_start(measured: Measurements) -> None:
    first = await open_device(SETTINGS, None)
    assert measured.count == 1
    tokens = await _answer(first)
    learned = first.client.device_estimate.learned
    await first.close()
    second = await open_device(SETTINGS, None)
    assert measured.count == 1
    found = second.client.device_profile
    assert (found.prefill_b_s, found.decode_s) == (learned.prefill_b_s, learned.decode_s)
    assert await _answer(second) == tokens
    await second.close()


async def test_another_number_of_threads_is_measured(measured: Measurements) -> None:
    for threads in (1, 2, 1):
        settings = DeviceSettings(RANDOM_TINY, pace_s=0.001, num_threads=threads, polite=False)
        await (await open_device(settings, None)).close()
    assert measured.count == 2


async def test_a_device_slowed_down_for_show_is_measured_each_time(measured: Measurements) -> None:
    for _ in range(2):
        settings = DeviceSettings(RANDOM_TINY, pace_s=0.001, throttle="edge-box")
        await (await open_device(settings, None)).close()
    assert measured.count == 2


async def test_a_machine_that_does_not_say_what_it_is_is_measured_each_time(
    measured: Measurements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pd_device_client.device.tuned.cpu_description", lambda: None)
    for _ in range(2):
        await (await open_device(SETTINGS, None)).close()
    assert measured.count == 2
