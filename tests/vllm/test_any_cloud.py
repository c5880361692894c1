"""A plain `vllm serve` as the cloud: token ids both ways, and vLLM as a witness of our engines."""

import asyncio
import subprocess
import sys
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from pd_bench.exactness.held_back import HeldEngine, WatchedLink
from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.generation import Finished
from pd_core.models import Segment
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.client import DeviceClient
from pd_device_client.cloud.address import CloudAddress
from pd_device_client.cloud.egress import link_to
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.outcome import Outcome
from pd_device_client.contract.ports import NeedsModel
from pd_device_client.engine.torch_engine import TorchLocalEngine
from pd_device_client.planning.speeds.profiles import SpeedProfile
from tests.real_server import real_server
from tests.vllm.checkpoints import write_checkpoint
from tests.vllm.vllm_serve import vllm_serve

LENGTH = 32
# Where the two largest logits are nearer, rounding may choose.
NEAR_TIE = 1e-3
PROFILE = SpeedProfile("quick", "a test", 1e-5, 0.001)
PROMPTS = (
    "The device and the cloud carry one answer together. " * 4,
    "It grants each reader the right to copy the text",
    "a",
)


@dataclass
class Setup:
    """A checkpoint, loaded here, and the answers that were made elsewhere."""

    directory: Path
    loaded: LoadedModel
    plain: dict[str, list[int]]
    handed_over: list[Outcome]
    seeded: Outcome
    doctor: str
    ours: dict[str, list[int]]

    def prompt(self, text: str) -> tuple[int, ...]:
        return tuple(self.loaded.tokenizer.encode_prompt(text))

    def margins(self, prompt: tuple[int, ...], answer: list[int]) -> list[tuple[int, float]]:
        """The torch engine's greedy choice at each position of an answer, and its lead."""
        whole, model = torch.tensor([*prompt, *answer[:-1]]), self.loaded.model
        segment = Segment(model.make_cache(len(whole)), 0, len(whole))
        logits = model.logits(model.forward(whole, [segment])[len(prompt) - 1 :])
        best = logits.double().topk(2).values
        return list(
            zip(logits.argmax(-1).tolist(), (best[:, 0] - best[:, 1]).tolist(), strict=True)
        )


async def _answer(
    address: str,
    loaded: LoadedModel,
    prompt: tuple[int, ...],
    sampling: SamplingParams,
    cloud_tokens: int | None,
    mode: Mode,
) -> Outcome:
    """Answer with this cloud; in pd-device the cloud makes exactly its part."""
    link = link_to(CloudAddress(address))
    engine = TorchLocalEngine(loaded, num_threads=1)
    if isinstance(link, NeedsModel):
        link.use_model(engine.card, loaded.tokenizer)
    finished = asyncio.Event()
    telling = WatchedLink(
        link, lambda event, _: finished.set() if isinstance(event, Finished) else None
    )
    both = mode is Mode.PD_DEVICE
    client = DeviceClient(
        cloud=telling,
        engine=HeldEngine(engine, finished.wait) if both else None,
        pace_s=0.01,
        device_profile=PROFILE,
        text=loaded.tokenizer.stream,
    )
    await client.start()
    try:
        assert client.cloud.error is None
        ask = Ask("r", prompt, LENGTH, sampling, mode=mode, cloud_tokens=cloud_tokens)
        session = client.session(ask)
        async with asyncio.timeout(120), aclosing(session.run()) as shown:
            async for _ in shown:
                pass
        return session.outcome
    finally:
        await client.close()
        await engine.close()


GREEDY = SamplingParams()
SEEDED = SamplingParams(0.8, top_k=40, top_p=0.95, seed=7)
POSITIONS = (1, 2, 9, 20, LENGTH - 1)


@pytest.fixture(scope="module")
def setup(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    """Ask one server after the other: each takes gigabytes."""
    directory = tmp_path_factory.mktemp("plain")
    write_checkpoint(directory)
    loaded = load_model(str(directory), numerics="float32")
    setup = Setup(directory, loaded, {}, [], Outcome("", "", 0, 0.0), "", {})

    def ask(address: str, text: str, *rest: object) -> Outcome:
        return asyncio.run(_answer(address, loaded, setup.prompt(text), *rest))  # type: ignore[arg-type]

    with vllm_serve(directory, tmp_path_factory.mktemp("serve")) as url:
        for text in PROMPTS:
            setup.plain[text] = ask(url, text, GREEDY, None, Mode.CLOUD_ONLY).token_ids
        for position in POSITIONS:
            setup.handed_over.append(ask(url, PROMPTS[0], GREEDY, position, Mode.PD_DEVICE))
        setup.seeded = ask(url, PROMPTS[0], SEEDED, 12, Mode.PD_DEVICE)
        command = [sys.executable, "-m", "pd_device_client", "doctor", "--model", str(directory)]
        done = subprocess.run(
            [*command, "--cloud", url, "--port", "0"], capture_output=True, text=True, timeout=200
        )
        setup.doctor = done.stdout
    options = ("--engine", "vllm", "--model", str(directory), "--eager", "--kv-cache-mib", "32")
    environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    folder = tmp_path_factory.mktemp("server")
    with real_server(folder, *options, ready_within_s=600, environment=environment) as server:
        for text in PROMPTS:
            setup.ours[text] = ask(server.address, text, GREEDY, None, Mode.CLOUD_ONLY).token_ids
    return setup


def _check_greedy(setup: Setup, prompt: tuple[int, ...], answer: list[int]) -> None:
    """Check every token of an answer against the torch engine's logits behind the same prefix."""
    assert answer
    for token_id, (choice, lead) in zip(answer, setup.margins(prompt, answer), strict=True):
        assert token_id == choice or lead <= NEAR_TIE


@pytest.mark.parametrize("text", PROMPTS)
def test_three_engines_agree_wherever_a_choice_is_clear(setup: Setup, text: str) -> None:
    prompt = setup.prompt(text)
    for answer in (setup.plain[text], setup.ours[text]):
        assert len(answer) == LENGTH or answer[-1] in setup.loaded.eos_token_ids
        _check_greedy(setup, prompt, answer)


def test_an_answer_is_handed_over_anywhere(setup: Setup) -> None:
    prompt = setup.prompt(PROMPTS[0])
    for position, outcome in zip(POSITIONS, setup.handed_over, strict=True):
        assert outcome.handoff_position == position
        assert outcome.cloud_tokens == position
        assert outcome.disagreed == 0
        assert outcome.exactness == "consistent"
        _check_greedy(setup, prompt, outcome.token_ids)
        assert outcome.token_ids[:position] == setup.plain[PROMPTS[0]][:position]


def test_a_seeded_answer_is_handed_over_too(setup: Setup) -> None:
    outcome = setup.seeded
    assert outcome.handoff_position == 12
    assert outcome.exactness == "consistent"
    assert outcome.error is None


def test_doctor_says_what_the_server_can_do(setup: Setup) -> None:
    lines = setup.doctor.splitlines()
    line = next(line for line in lines if line.split()[1:2] == ["cloud"])
    assert line.startswith("ok")
    assert "tiny on vllm" in line
    assert "token ids both ways; its tokenizer gives this device's ids" in line
