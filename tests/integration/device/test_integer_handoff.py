"""Unlike machines carry one answer: cloud and device compute integers by different kernels."""

from collections.abc import Iterator

import pytest

from pd_core.checkpoints.loading import load_model
from pd_core.integer.kernel_library import kernel_library
from pd_core.sampling_params import SamplingParams
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.engine.torch_engine import TorchLocalEngine
from pd_device_client.planning.planner import Plan
from tests.integer_models import way
from tests.integration.device.test_carry import BOTH, carry, check_every_handoff
from tests.real_server import RealServer, real_server

pytestmark = pytest.mark.heavy

LENGTH = 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    """A cloud with the best kernels of this machine, on two threads."""
    options = ("--numerics", "integer", "--threads", "2")
    with real_server(tmp_path_factory.mktemp("server"), *options) as running:
        yield running


@pytest.mark.parametrize("name", ["off", "portable", "avx2"])
@BOTH
@pytest.mark.usefixtures("forced_budget")
async def test_every_handoff_between_unlike_machines_gives_the_same_tokens(
    name: str, sampling: SamplingParams, server: RealServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with way(monkeypatch, name):
        loaded = load_model("random-tiny", numerics="integer")
        if name != "off":
            assert kernel_library() is not None
        prompt = tuple(loaded.tokenizer.encode("The cloud and the device carry one answer. " * 12))
        link, inner = GrpcCloudLink(server.address), TorchLocalEngine(loaded, chunk_tokens=64)
        info = await link.info()
        assert info.model.fingerprints == loaded.fingerprints, "the promise is: identical"
        alone = Ask("alone", prompt, LENGTH, sampling)
        plan = Plan(Mode.DEVICE_ONLY, 0, 0.0001)
        expected = (await carry(alone, plan, None, inner, loaded)).token_ids
        assert len(expected) == LENGTH
        await check_every_handoff(link, inner, loaded, prompt, sampling, expected)
        await link.close()
        await inner.close()
