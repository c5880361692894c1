"""Two clouds behind nginx, with the configuration that is shipped: one address, least connections.

Needs nginx on the path; skipped where there is none.
"""

import asyncio
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pd_core.checkpoints.loading import LoadedModel, load_model
from pd_core.errors import CloudUnavailable
from pd_core.generation import Admitted, CloudEvent, Finished, Start, Tokens
from pd_core.sampling_params import SamplingParams
from pd_device_client.client.client import DeviceClient
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_device_client.contract.ask import Ask, Mode
from pd_device_client.contract.outcome import Shown
from tests.held_port import held_port
from tests.real_server import RealServer, real_server
from tests.server_harness import plain_loop, prompt_of

DEPLOY = Path(__file__).parents[3] / "deploy"
LENGTH = 40
SEEDED = SamplingParams(temperature=0.9, seed=11, ignore_eos=True)

pytestmark = pytest.mark.skipif(
    shutil.which("nginx") is None, reason="nginx is not installed (Debian: apt install nginx-light)"
)


@dataclass
class Balanced:
    """Replicas, and the one address in front of them."""

    replicas: list[RealServer]
    address: str
    secrets: Path

    def link(self) -> GrpcCloudLink:
        key = (self.secrets / "api.key").read_text(encoding="utf-8").strip()
        return GrpcCloudLink(self.address, tls_ca=self.secrets / "tls.crt", api_key=key)

    async def tokens_made(self) -> list[int]:
        """How many tokens each replica has made, asked past the balancer."""
        made = []
        for replica in self.replicas:
            key = (self.secrets / "api.key").read_text(encoding="utf-8").strip()
            link = GrpcCloudLink(replica.address, tls_ca=self.secrets / "tls.crt", api_key=key)
            made.append((await link.info()).load.tokens_generated)
            await link.close()
        return made


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load_model("random-tiny")


@pytest.fixture
def balanced(tmp_path: Path) -> Iterator[Balanced]:
    secrets = tmp_path / "secrets"
    environment = {**os.environ, "PD_SECRETS": str(secrets)}
    subprocess.run([DEPLOY / "make-secrets.sh"], env=environment, check=True, timeout=30)
    options = [f"--tls-cert={secrets / 'tls.crt'}", f"--tls-key={secrets / 'tls.key'}"]
    options += [f"--api-key-file={secrets / 'api.key'}", "--max-num-seqs=4"]
    with ExitStack() as stack:
        replicas = []
        for name in ("cloud-1", "cloud-2"):
            (tmp_path / name).mkdir()
            replicas.append(stack.enter_context(real_server(tmp_path / name, *options)))
        port = stack.enter_context(held_port())
        stack.enter_context(_nginx(tmp_path, secrets, [r.address for r in replicas], port))
        yield Balanced(replicas, f"localhost:{port}", secrets)


@contextmanager
def _nginx(folder: Path, secrets: Path, addresses: list[str], port: int) -> Iterator[None]:
    """Start nginx with the shipped file; only addresses, port and paths are this machine's."""
    text = (DEPLOY / "replicas.nginx.conf").read_text(encoding="utf-8")
    for ours, shipped in [
        (f"{folder}/", "/tmp/"),
        *zip(addresses, ("cloud-1:50051", "cloud-2:50051"), strict=True),
        (str(secrets / "tls.crt"), "/run/secrets/tls_cert"),
        (str(secrets / "tls.key"), "/run/secrets/tls_key"),
        (f"listen 127.0.0.1:{port} ", "listen 50050 "),
    ]:
        assert shipped in text
        text = text.replace(shipped, ours)
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    command = ["nginx", "-e", "stderr", "-c", str(folder / "nginx.conf"), "-g", "daemon off;"]
    with (folder / "nginx.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not _listens(port):
            assert process.poll() is None, (folder / "nginx.log").read_text()
            assert time.monotonic() < deadline, "nginx does not listen"
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(60)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def _complete(link: GrpcCloudLink, number: int) -> tuple[list[CloudEvent], list[int]]:
    """Stream one whole answer."""
    start = Start(
        request_id=f"through-{number}",
        prompt_token_ids=tuple(prompt_of(40 + number, number)),
        sampling=SEEDED,
        token_limit=LENGTH,
    )
    stream = await link.open(start)
    events = [event async for event in stream.events()]
    return events, [t for e in events if isinstance(e, Tokens) for t in e.token_ids]


async def test_streams_spread_and_stay_exact(balanced: Balanced, loaded: LoadedModel) -> None:
    link = balanced.link()
    answers = await asyncio.gather(*(_complete(link, number) for number in range(8)))
    for number, (events, token_ids) in enumerate(answers):
        assert token_ids == plain_loop(loaded, prompt_of(40 + number, number), LENGTH, SEEDED)
        assert isinstance(events[0], Admitted), "the load came with the admission"
        assert events[0].load.max_num_seqs == 4
        assert isinstance(events[-1], Finished)
    # Fewest streams first: eight at once are four and four, each as many as it has slots.
    assert await balanced.tokens_made() == [4 * LENGTH, 4 * LENGTH]
    await link.close()


async def test_a_dead_replica_costs_no_token(balanced: Balanced, loaded: LoadedModel) -> None:
    """One replica is killed in mid-answer: its sessions go on through the same address."""
    client = DeviceClient(cloud=balanced.link(), engine=None, pace_s=0.01)
    await client.start()
    prompts = [prompt_of(64, number) for number in range(4)]
    shown: list[list[int]] = [[] for _ in prompts]

    async def read(number: int) -> None:
        request = Ask(
            f"dead-{number}", tuple(prompts[number]), LENGTH, SEEDED, mode=Mode.CLOUD_ONLY
        )
        async for token in client.session(request).run():
            assert isinstance(token, Shown)
            shown[number].append(token.token_id)

    readers = [asyncio.create_task(read(number)) for number in range(4)]
    while min(map(len, shown)) < 5:
        await asyncio.sleep(0.005)
        assert not any(reader.done() for reader in readers), "an answer ended too early"
    balanced.replicas[0].process.kill()
    await asyncio.gather(*readers)
    for prompt, tokens in zip(prompts, shown, strict=True):
        assert tokens == plain_loop(loaded, prompt, LENGTH, SEEDED)
    await client.close()


async def test_no_replica_is_an_unavailable_cloud(balanced: Balanced) -> None:
    for replica in balanced.replicas:
        replica.process.kill()
        replica.process.wait(60)
    link = balanced.link()
    with pytest.raises(CloudUnavailable):
        await link.info()
    with pytest.raises(CloudUnavailable):
        await _complete(link, 0)
    await link.close()
