"""Threads are measured once, and once more after a first time beside a busy program."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.store.model_names import RANDOM_TINY
from pd_device_client.device.battery import BatteryPolicy
from pd_device_client.device.manners import Manners
from pd_device_client.device.tuned import tuned
from pd_device_client.engine.torch_engine import TorchLocalEngine
from pd_device_client.engine.tuning import Tuning


class CountingEngine(TorchLocalEngine):
    """Counts how often it is measured."""

    count = 0

    def measure(self, most_threads: int | None) -> Tuning:
        """Measure it."""
        self.count += 1
        return super().measure(most_threads)


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model(RANDOM_TINY)


@pytest.fixture(autouse=True)
def _restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _manners(others: float | None) -> Manners:
    """Return manners at a fixed load on two cores."""
    policy = BatteryPolicy()
    return Manners(2, 2, policy, lambda: 0.0, others=lambda: others, battery=lambda: None)


async def test_what_was_measured_beside_a_busy_program_is_measured_again(
    loaded: LoadedModel,
) -> None:
    engine = CountingEngine(loaded, num_threads=2)
    for others, count in (
        *((2.0, 1), (2.0, 1)),  # no calmer than before
        *((None, 1), (0.0, 2)),
        *((2.0, 2), (0.0, 2), (None, 2)),  # kept for good
    ):
        tuned(engine, loaded, 2, fixed=False, manners=_manners(others))
        assert engine.count == count, others
    await engine.close()


async def test_a_number_that_the_user_wants_is_the_only_one(loaded: LoadedModel) -> None:
    engine = CountingEngine(loaded, num_threads=2)
    tuning = tuned(engine, loaded, 2, fixed=True, manners=None)
    assert [t.threads for t in tuning.times] == [2]
    assert tuning.calm
    assert 16 <= tuning.chunk_tokens <= 512
    assert tuning.chunk_tokens % 16 == 0
    await engine.close()
