"""llama.cpp on the device beside a cloud that runs the same weights in torch."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pd_core.checkpoints.loading import load_model
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.client import DeviceClient
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.outcome import Origin, Outcome
from pd_device_client.engine.llama_cpp_loading import load_llama_cpp
from pd_device_client.engine.throttled import ThrottledEngine
from pd_device_client.planning.speeds.profiles import SpeedProfile
from tests.gguf_files import gguf_config, gguf_model, write_gguf
from tests.gguf_models import TinyLlama, tiny_llama
from tests.http_client import http
from tests.real_device import real_device
from tests.real_server import RealServer, real_server

SLOW = SpeedProfile("slow", "a test", 2e-3, 1e-3)
GREEDY = SamplingParams(ignore_eos=True)
LENGTH = 40
CLOUD_TOKENS = 8


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyLlama:
    return tiny_llama(tmp_path_factory.mktemp("llama-cpp"))


@pytest.fixture(scope="module")
def server(tiny: TinyLlama, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealServer]:
    folder = tmp_path_factory.mktemp("server")
    with real_server(folder, "--model", str(tiny.directory)) as running:
        yield running


async def _answer(client: DeviceClient, mode: Mode, prompt: tuple[int, ...]) -> Outcome:
    cloud_tokens = CLOUD_TOKENS if mode is Mode.PD_DEVICE else None
    ask = Ask(mode.value, prompt, LENGTH, GREEDY, mode=mode, cloud_tokens=cloud_tokens)
    session = client.session(ask)
    async for _ in session.run():
        pass
    return session.outcome


async def test_an_answer_begins_in_the_cloud_and_ends_in_llama_cpp(
    tiny: TinyLlama, server: RealServer
) -> None:
    prompt = tuple((7 * i + 3) % 1000 for i in range(300))
    engine = load_llama_cpp(str(tiny.gguf), num_threads=1, kept_kv_bytes=1 << 20)[0]
    link = GrpcCloudLink(server.address)
    slowed = ThrottledEngine(engine, SLOW)  # so that the cloud is first
    client = DeviceClient(cloud=link, engine=slowed, pace_s=0.02, device_profile=SLOW)
    await client.start()
    assert client.cloud.handshake.mismatch == ""
    assert client.cloud.handshake.exactness == "consistent"
    both, cloud, device = [
        await _answer(client, mode, prompt)
        for mode in (Mode.PD_DEVICE, Mode.CLOUD_ONLY, Mode.DEVICE_ONLY)
    ]
    await client.close()
    origins = [shown.origin for shown in both.shown]
    assert set(origins) == {Origin.CLOUD, Origin.DEVICE}
    assert origins == sorted(origins, key=[Origin.CLOUD, Origin.DEVICE].index)
    assert both.exactness == "consistent"
    assert [len(o.token_ids) for o in (both, cloud, device)] == [LENGTH] * 3
    # Greedy choices of the same weights: only a near tie could tell the engines apart.
    num_cloud = origins.count(Origin.CLOUD)
    assert both.token_ids[:num_cloud] == cloud.token_ids[:num_cloud]


def test_the_commands_run_a_gguf_file(tiny: TinyLlama, server: RealServer, tmp_path: Path) -> None:
    options = ("--engine", "llama-cpp", "--model", str(tiny.gguf), "--cloud", server.address)
    with real_device(tmp_path, *options) as device:
        models = http.get(f"{device.url}/v1/models")
        assert tiny.gguf.stem in models.text
        body = {"model": tiny.gguf.stem, "prompt": "the page of", "max_tokens": 5}
        answer = http.post(f"{device.url}/v1/completions", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
    words = [sys.executable, "-m", "pd_device_client", "chat", "--engine", "llama-cpp"]
    for model, said in (
        (str(tiny.directory), "the engine llama-cpp runs GGUF files"),
        ("random-tiny", "the engine llama-cpp runs GGUF files"),
    ):
        refused = subprocess.run(
            [*words, "--model", model, "hello"],
            capture_output=True,
            text=True,
            timeout=100,
            env=dict(os.environ),
        )
        assert refused.returncode == 2
        assert said in refused.stderr
        assert refused.stderr.count("\n") == 1  # nothing of the library's own


def test_both_forms_of_a_file_s_model_are_the_same_to_the_handshake(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    config = gguf_config()
    path = tmp_path / "model.gguf"
    write_gguf(path, config, gguf_model(config).tensors(), kind="Q8_0")
    engine, _ = load_llama_cpp(str(path), num_threads=1)
    ours, theirs = load_model(str(path)), engine.card.fingerprints
    assert replace(ours.fingerprints, numerics_id="") == replace(theirs, numerics_id="")
    assert ours.fingerprints.numerics_id != theirs.numerics_id
    assert engine.served.chat_template is not None
    assert engine.card.eos_token_ids == ours.eos_token_ids != ()
    prompt = ours.tokenizer.encode("hello hello")
    engine.model.run(0, 0, prompt, wants_logits=False)
    engine.model.close()
