"""A device without the native kernels computes integers where its cloud does."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from pd_core.checkpoints.loading import save_model
from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.errors import CloudUnavailable
from pd_core.generation import Fingerprints, Limits, Load, ModelCard, ServerInfo
from pd_core.identity.fingerprint import numerics_id
from pd_core.identity.numerics import INTEGER, unchecked
from pd_core.models.causal_lm import CausalLM
from pd_core.models.config import ModelConfig
from pd_core.models.latent_shape import LatentShape
from pd_core.store.model_names import RANDOM_TINY
from pd_device_client.device import followed_numerics
from pd_device_client.device.device import open_device
from pd_device_client.device.followed_numerics import following
from pd_device_client.device.settings import DeviceSettings
from tests.scripted_cloud import Script, ScriptedCloud

TINY = ModelCard("m", "torch", Fingerprints(), 1024, (1,), 16384)
INTEGERS = numerics_id("integer", numerics=INTEGER)
SETTINGS = DeviceSettings(RANDOM_TINY, pace_s=0.001, polite=False)


class _Cloud(ScriptedCloud):
    """Says how it computes; counts how often it is asked."""

    def __init__(self, numerics_id: str | None) -> None:
        super().__init__(Script())
        self._id = numerics_id
        self.asked = 0

    async def info(self) -> ServerInfo:
        self.asked += 1
        if self._id is None:
            raise CloudUnavailable("nobody listens there")
        card = replace(TINY, fingerprints=Fingerprints(numerics_id=self._id))
        return ServerInfo("v", card, Limits(100, 4, 4), Load())


class _SilentCloud(_Cloud):
    async def info(self) -> ServerInfo:
        await asyncio.Event().wait()
        raise AssertionError("it never answers")


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followed_numerics, "kernel_library", lambda: None)


@pytest.mark.usefixtures("no_kernels")
@pytest.mark.parametrize(
    ("cloud", "numerics"),
    [
        (INTEGERS, "integer"),
        ("float32/torch/avx512/sampler2/e00c357bc27f18c1", "auto"),
        (None, "auto"),
    ],
)
async def test_the_cloud_s_integers_are_followed(cloud: str | None, numerics: str) -> None:
    assert (await following(SETTINGS, _Cloud(cloud))).numerics == numerics


@pytest.mark.usefixtures("no_kernels")
async def test_a_cloud_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followed_numerics, "_WAIT_S", 0.01)
    assert await following(SETTINGS, _SilentCloud(None)) is SETTINGS


@pytest.mark.usefixtures("no_kernels")
@pytest.mark.parametrize("chosen", [{"numerics": "float32"}, {"fast_numerics": True}])
async def test_what_the_user_chose_stands(chosen: dict[str, object]) -> None:
    settings = DeviceSettings(RANDOM_TINY, **chosen)  # type: ignore[arg-type]
    cloud = _Cloud(INTEGERS)
    assert await following(settings, cloud) is settings
    assert await following(SETTINGS, None) is SETTINGS
    assert cloud.asked == 0


async def test_with_the_kernels_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followed_numerics, "kernel_library", object)
    cloud = _Cloud(INTEGERS)
    assert await following(SETTINGS, cloud) is SETTINGS
    assert cloud.asked == 0


@pytest.mark.usefixtures("no_kernels")
async def test_a_model_that_has_no_integers_stays_as_it_is(tmp_path: Path) -> None:
    tokenizer = random_tiny_tokenizer()
    latent = LatentShape(kv_rank=4, nope_dim=4, value_dim=4)
    config = ModelConfig(
        tokenizer.vocab_size, 16, 16, 2, 2, 2, 4, 64, family="deepseek_v2", latent=latent
    )
    save_model(tmp_path, CausalLM(config, unchecked("test")), tokenizer)
    settings = DeviceSettings(str(tmp_path), pace_s=0.001)
    assert await following(settings, _Cloud(INTEGERS)) is settings


@pytest.mark.usefixtures("no_kernels")
async def test_the_answer_is_then_promised_to_be_the_cloud_s() -> None:
    device = await open_device(SETTINGS, _Cloud(INTEGERS))
    try:
        assert device.loaded.fingerprints.numerics_id == INTEGERS
        assert device.client.cloud.handshake.exactness == "identical"
    finally:
        await device.close()
