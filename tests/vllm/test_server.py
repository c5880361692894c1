"""`pd-server --engine vllm` as production runs it: vLLM's processes, gRPC, and a real device."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from pd_bench.exactness.held_back import HeldEngine, WatchedLink
from pd_core.checkpoints.loading import load_model
from pd_core.generation import CloudEvent, Finished, RefinedPrompt
from pd_core.refinement import Ranges, check_kept, num_positions
from pd_core.sampling_params import SamplingParams
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.engine.torch_engine import TorchLocalEngine
from pd_device_client.planning.planner import Plan
from pd_device_client.session.sides import CloudTimeouts
from tests.integration.device.test_carry import carry
from tests.integration.device.test_refined import continued
from tests.real_server import RealServer, real_server
from tests.server_harness import Stream, connect, prompt_of, start_message, typed_error
from tests.vllm.checkpoints import write_checkpoint

PROMPT = "The device and the cloud carry one answer together. " * 4
ENDLESS = SamplingParams(ignore_eos=True)
PATIENT = CloudTimeouts(admitted_s=60, first_token_s=60, idle_s=60, finish_s=5)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("skip-v1")
    write_checkpoint(path, skip_v1=True)
    return path


@pytest.fixture
def server(directory: Path, tmp_path: Path) -> Iterator[RealServer]:
    options = ("--engine", "vllm", "--model", str(directory), "--eager", "--kv-cache-mib", "32")
    # In-process is this test process's own choice.
    environment = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    with real_server(tmp_path, *options, ready_within_s=600, environment=environment) as running:
        yield running


def _chat(server: RealServer, directory: Path, mode: str) -> tuple[str, str]:
    """Text and figures of one answer."""
    command = [
        *(sys.executable, "-m", "pd_device_client", "chat", PROMPT, "--model", str(directory)),
        *("--cloud", server.address, "--mode", mode, "--max-tokens", "24", "--pace", "0.01"),
        *("--seed", "7", "--temperature", "0.8", "--show-origin"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    text, _, figures = done.stdout.rstrip("\n").partition("\ncloud ")
    return text, figures


def _children(server: RealServer) -> list[psutil.Process]:
    children: list[psutil.Process] = psutil.Process(server.process.pid).children(recursive=True)
    return children


def _status(server: RealServer, path: str) -> int:
    from urllib.error import HTTPError
    from urllib.request import urlopen

    try:
        with urlopen(f"http://{server.http_address}{path}", timeout=10) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def _within(seconds: float, condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


async def _open_stream(stub: Any, limit: int) -> Stream:
    """A stream that has begun to answer."""
    stream = Stream(stub)
    await stream.send(start_message(prompt_of(20), limit, ENDLESS))
    await stream.receive_tokens(3)
    return stream


async def test_devices_chat_cancel_and_see_it_die(
    server: RealServer, directory: Path, tmp_path: Path
) -> None:
    assert _status(server, "/readyz") == 200
    texts = {mode: _chat(server, directory, mode) for mode in ("device-only", "cloud-only")}
    assert texts["cloud-only"][1].startswith("24 tokens")
    # Two numerics, one sampler: on this model they agree.
    assert texts["cloud-only"][0] == texts["device-only"][0]
    assert "consistent" in texts["cloud-only"][1], "vLLM never promises identical bits"
    assert _chat(server, directory, "pd-device")[0] == texts["device-only"][0]
    log = (tmp_path / "server.log").read_text()
    assert "self-information" not in log, "prompts are scored by attention, the warm-up's too"

    async with connect(server.address) as stub:
        too_long = Stream(stub)
        await too_long.send(start_message(prompt_of(2049), 3, ENDLESS))
        assert (await typed_error(too_long))[:2] == ("INVALID_ARGUMENT", "PromptTooLong")

        cancelled = await _open_stream(stub, 1500)
        cancelled.call.cancel()
        stream = await _open_stream(stub, 1500)
        engine = next(p for p in _children(server) if "EngineCore" in "".join(p.cmdline()))
        engine.kill()
        code, name, message, _ = await typed_error(stream)
        assert (code, name) == ("UNAVAILABLE", "EngineDead")
        assert "restart the server" in message
    await asyncio.to_thread(server.process.wait, 120)
    assert server.process.returncode == 70


async def test_a_device_goes_on_from_what_vllm_kept_of_a_prompt(
    server: RealServer, directory: Path
) -> None:
    """The refined prompt comes over gRPC while vLLM makes the first tokens."""
    loaded = load_model(str(directory))
    words = (f"Part {i} of the text says {i * i % 97}. " for i in range(40))
    prompt = tuple(loaded.tokenizer.encode("".join(words)))
    came, kept, released = list[type](), list[Ranges](), asyncio.Event()

    def watch(event: CloudEvent, _: int) -> None:
        came.append(type(event))
        if isinstance(event, RefinedPrompt):
            kept.append(event.kept_ranges)
        if isinstance(event, Finished):
            released.set()  # the device has read nothing before

    inner = TorchLocalEngine(loaded, chunk_tokens=64)
    link = WatchedLink(GrpcCloudLink(server.address), watch)
    plan = Plan(Mode.PD_DEVICE, 8, 0.004, keep_ratio=0.5, adapts=False)
    ask = Ask("refined", prompt, 24, ENDLESS)
    outcome = await carry(ask, plan, link, HeldEngine(inner, released.wait), loaded, PATIENT)
    [ranges] = kept
    assert came.index(RefinedPrompt) < came.index(Finished)
    check_kept(ranges, len(prompt))
    assert 0.5 * len(prompt) <= num_positions(ranges) <= 0.5 * len(prompt) + 64
    # The first chunk was asked of the engine, whole, before anything was known to be left out.
    read: Ranges = ((0, max(64, *(end for first, end in ranges if first <= 64))),)
    read += tuple(kept for kept in ranges if kept[0] > 64)
    assert outcome.left_out_tokens == len(prompt) - num_positions(read)
    assert (outcome.handoff_position, outcome.exactness) == (8, "refined")
    first = outcome.token_ids[:8]
    assert outcome.token_ids == continued(loaded, prompt, read, first, ENDLESS)
    await link.close()
    await inner.close()


async def test_ctrl_c_drains_and_leaves_no_process(server: RealServer) -> None:
    children = _children(server)
    assert any("EngineCore" in "".join(p.cmdline()) for p in children)
    async with connect(server.address) as stub:
        stream = await _open_stream(stub, 300)
        # As a terminal does: to all processes of the group.
        for pid in (server.process.pid, *(p.pid for p in children)):
            os.kill(pid, signal.SIGINT)
        _within(30, lambda: _status(server, "/readyz") == 503, "it is ready while it drains")
        answer = await stream.rest()
        assert len(answer.token_ids) == 300
        with pytest.raises(grpc.aio.AioRpcError):
            await _open_stream(stub, 3)
    await asyncio.to_thread(server.process.wait, 120)
    assert server.process.returncode == 0
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
