"""Whole replays on real server processes: documents, exactness, interruption, a given server."""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from rich.console import Console

from pd_bench.harness.server_process import ServerOptions, own_server
from pd_bench.replay.progress import Progress
from pd_bench.replay.replay import Replay
from pd_bench.replay.settings import ReplaySettings
from pd_bench.results.result import ResultDocument
from pd_core.checkpoints.loading import load_model, save_model
from pd_core.errors import CloudUnavailable, ConfigError, FingerprintMismatch
from pd_device_client.cloud.address import CloudAddress

pytestmark = pytest.mark.heavy

TEXT = Path(__file__).parents[3] / "README.md"
PACE_S = 0.02


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,300,12\n"
        "2023-11-16 18:17:04.0319600,90,50\n"
        "2023-11-16 18:17:04.1781490,700,1\n"
    )
    return path


class Listener(Progress):
    """Tells a test that the replay has come to a certain point."""

    def __init__(self) -> None:
        super().__init__(Console(file=sys.stderr, force_terminal=False), PACE_S)
        self.begun: list[str] = []
        self.first_token = asyncio.Event()

    def begin(self, name: str, num_requests: int) -> None:
        super().begin(name, num_requests)
        self.begun.append(name)

    def token(self, request: int) -> None:
        super().token(request)
        self.first_token.set()


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pd_bench", *arguments, "--model", "random-tiny"]
    return subprocess.run(command, capture_output=True, text=True, timeout=110)


def test_a_fleet_replay_gives_equal_answers_in_every_scheme(trace: Path) -> None:
    done = bench(
        *("replay", str(trace), "--fidelity", "fleet", "--device-profile", "edge-box"),
        *("--link-profile", "lan", "--pace", str(PACE_S), "--max-output-tokens", "24"),
        *("--max-prompt-tokens", "512", "--temperature", "0.8", "--json", "-"),
    )
    assert done.returncode == 0, done.stderr
    *table, last = done.stdout.splitlines()
    assert "rows with equal answers in all schemes: 3/3" in table
    document = ResultDocument.model_validate_json(last)
    assert (document.fidelity, document.arrivals) == ("fleet", "trace")
    assert list(document.schemes) == ["device-only", "cloud-only", "pd-device"]
    assert (document.cut_rows.prompt, document.cut_rows.output) == (1, 1)
    assert document.equal_rows.equal == 3
    # On a busy machine the dispatch lag may spoil the run; then it must say so.
    assert document.valid != any(line.startswith("INVALID") for line in table)
    assert any("devices: emulated, edge-box" in label for label in document.labels)
    assert any("link: emulated, lan" in label for label in document.labels)
    assert any("rolling hash" in label for label in document.labels)
    device, cloud, both = document.schemes.values()
    assert device.failed == cloud.failed == both.failed == 0
    # The cloud's own count: nothing for device-only, every token for cloud-only.
    assert (device.cloud_tokens_generated, device.cloud_busy_s) == (0, 0.0)
    assert cloud.cloud_tokens == cloud.cloud_tokens_generated == 12 + 24 + 1
    assert cloud.kv_bytes_peak is not None
    assert cloud.kv_bytes_peak.cloud > 0 == cloud.kv_bytes_peak.device
    assert both.cloud_tokens + both.device_tokens == 12 + 24 + 1
    assert device.kv_bytes_peak is not None
    assert device.kv_bytes_peak.device > 0
    # Every row fits the sample: each is kept token by token in each scheme, none of it invented.
    assert {(t.id, t.scheme) for t in document.timelines} == {
        (row, scheme) for row in range(3) for scheme in document.schemes
    }
    shown = {(r.id, r.scheme): r.shown_at_s for r in document.requests}
    for t in document.timelines:
        assert t.shown_at_s == shown[t.id, t.scheme]
        assert len(t.sources) == len(t.shown_at_s) == len(t.arrived_at_s)
    # The load was watched in each pass; device-only gives the cloud none. These answers are over
    # between two looks: test_cloud_meter.py has a load that changes.
    assert set(document.cloud_load) == set(document.schemes)
    assert document.cloud_load["device-only"]
    assert all(p.running == p.waiting == 0 for p in document.cloud_load["device-only"])
    lengths = {r.id: len(r.shown_at_s) for r in document.requests}
    assert lengths == {0: 12, 1: 24, 2: 1}
    assert str(trace.parent) not in last  # no path of this machine in a result


def test_nothing_but_the_command_writes_on_stderr(trace: Path) -> None:
    # The second server is started while gRPC's threads run, outside a terminal without a bar.
    words = ["replay", str(trace), "--limit", "1", "--schemes", "cloud-only,pd-device"]
    words += ["--device-profile", "edge-box", "--pace", "0.02", "--max-output-tokens", "16"]
    done = subprocess.run(
        [sys.executable, "-m", "pd_bench", *words, "--model", "random-tiny"],
        env={k: v for k, v in os.environ.items() if not k.startswith("GRPC_")},
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_real_replay_uses_a_real_engine_one_request_after_another(
    trace: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.json"
    done = bench(
        *("replay", str(trace), "--fidelity", "real", "--device-profile", "slow"),
        *("--schemes", "device-only,pd-device", "--limit", "2", "--text", str(TEXT)),
        *("--pace", str(PACE_S), "--max-output-tokens", "16", "--json", str(out)),
    )
    assert done.returncode == 0, done.stderr
    document = ResultDocument.model_validate_json(out.read_text())
    assert (document.fidelity, document.arrivals) == ("real", "sequential")
    assert f"prompts: pieces of {TEXT.name}" in document.labels
    assert document.settings["text"] == TEXT.name
    assert document.exactness == "identical"
    assert (document.equal_rows.equal, document.equal_rows.rows) == (2, 2)
    assert any("throttled to slow" in label for label in document.labels)
    assert any(label.startswith("device KV bytes: computed") for label in document.labels)
    assert document.settings["max_output_tokens"] == 16
    assert document.settings["max_prompt_tokens"] is None
    assert document.settings["own_server"] is True
    assert all(r.arrival_s == 0 for r in document.requests)
    # The device's 300 prompt tokens take 0.75 s at 400 tokens a second; the cloud has no throttle.
    alone, both = document.schemes["device-only"], document.schemes["pd-device"]
    assert alone.ttft_s.max is not None
    assert both.ttft_s.max is not None
    assert alone.ttft_s.max > max(0.7, both.ttft_s.max)
    if len(os.sched_getaffinity(0)) > 1:
        assert not set(document.cores["server"]) & set(document.cores["client"])


async def test_an_interrupted_replay_returns_what_it_has_marked_partial(trace: Path) -> None:
    settings = ReplaySettings(
        trace=trace,
        schemes=("cloud-only", "pd-device"),
        device_profile="slow",
        pace_s=PACE_S,
        model="random-tiny",
    )
    listener = Listener()
    affinity = os.sched_getaffinity(0)
    task = asyncio.ensure_future(Replay(settings, listener).run())
    await listener.first_token.wait()
    task.cancel()
    document = await task
    assert document.partial
    assert not document.valid
    assert "interrupted" in document.invalid_because[0]
    assert listener.begun == ["cloud-only"]
    assert list(document.schemes) == ["cloud-only"]
    assert document.schemes["cloud-only"].requests < 3
    assert document.equal_rows.equal == 0  # no row has been through both schemes
    assert os.sched_getaffinity(0) == affinity


def tokens_generated(http_address: str) -> float:
    """What a server has made since its start, by its own count."""
    with urllib.request.urlopen(f"http://{http_address}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(x.split()[1]) for x in lines if x.startswith("pd_tokens_generated_total "))


def test_sigterm_stops_the_command_with_a_partial_document(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    trace.write_text(trace.read_text() + "2023-11-16 18:17:04.2781490,30,900\n")
    command = [sys.executable, "-m", "pd_bench", "replay", str(trace), "--json", str(out)]
    command += ["--fidelity", "real", "--schemes", "cloud-only", "--pace", str(PACE_S)]
    command += ["--model", "random-tiny"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    ) as process:
        try:
            while not (ready := list(tmp_path.glob("pd-serving-*/ready.json"))):
                assert process.poll() is None, "the command ended before its server was ready"
                time.sleep(0.05)
            server = json.loads(ready[0].read_text())
            # One request after the other: more tokens than those of the warm-up and three rows
            # are the last row's, which has not ended before 900 paces (18 s) are over.
            while tokens_generated(server["http"]) <= 16 + 12 + 50 + 1:
                time.sleep(0.05)
            process.terminate()
            printed, _ = process.communicate(timeout=60)
        finally:
            process.terminate()  # in order, so that its server ends with it
    assert process.returncode == 130
    assert b"(PARTIAL)" in printed
    document = ResultDocument.model_validate_json(out.read_text())
    assert document.partial
    assert [r.id for r in document.requests] == [0, 1, 2]
    assert not Path("/proc", str(server["pid"])).exists()


async def test_a_given_server_is_used_and_left_running(trace: Path) -> None:
    async with own_server(ServerOptions(model="random-tiny", sampler="rolling-hash")) as target:
        settings = ReplaySettings(
            trace=trace,
            schemes=("cloud-only",),
            device_profile="slow",
            pace_s=PACE_S,
            repeat=2,
            model="random-tiny",
            cloud=CloudAddress(target),
        )
        document = await Replay(settings, Listener()).run()
        assert document.equal_rows.equal == 3
        assert document.schemes["cloud-only"].requests == 6
        assert document.schemes["cloud-only"].cloud_tokens_generated == 2 * (12 + 50 + 1)
        assert document.cores == {"server": (), "client": ()}
        assert any("not ours" in label for label in document.labels)
        # A real device has no hash to take tokens from.
        real = ReplaySettings(
            trace=trace, fidelity="real", model="random-tiny", cloud=CloudAddress(target)
        )
        with pytest.raises(ConfigError, match="start it with --sampler model"):
            await Replay(real, Listener()).run()


async def test_a_given_server_with_another_model_is_refused_before_the_run(
    trace: Path, tmp_path: Path
) -> None:
    loaded = load_model("random-tiny")
    next(iter(loaded.float_model.tensors().values())).mul_(2.0)
    other = tmp_path / "other"
    save_model(other, loaded.float_model, loaded.tokenizer, eos_token_ids=loaded.eos_token_ids)
    listener = Listener()
    async with own_server(ServerOptions(model="random-tiny")) as target:
        settings = ReplaySettings(
            trace=trace, fidelity="real", model=str(other), cloud=CloudAddress(target)
        )
        with pytest.raises(FingerprintMismatch, match=r"the weights of .* give --model"):
            await Replay(settings, listener).run()
    assert listener.begun == []


async def test_an_unreachable_given_server_is_an_error(trace: Path) -> None:
    settings = ReplaySettings(
        trace=trace, device_profile="slow", model="random-tiny", cloud=CloudAddress("127.0.0.1:1")
    )
    with pytest.raises(CloudUnavailable):
        await Replay(settings, Listener()).run()
