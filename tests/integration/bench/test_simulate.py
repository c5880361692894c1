"""A real server measured into a profile, and a simulation with it against a real replay.

The server is the real one behind real gRPC; only its forward passes take a known time, long beside
the disturbances of a busy machine.
"""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from pd_bench.replay.progress import Progress
from pd_bench.replay.replay import Replay
from pd_bench.replay.settings import ReplaySettings
from pd_bench.simulation.cloud.cloud_measure import measure_cloud
from pd_bench.simulation.cloud.cloud_profile import CloudProfile
from pd_bench.simulation.simulation import Simulation
from pd_bench.simulation.validation import (
    FigureComparison,
    comparisons,
    read_replay,
    settings_of,
    table_of,
)
from pd_core.checkpoints.loading import load_model
from pd_core.errors import ConfigError
from pd_device_client.cloud.address import CloudAddress
from pd_device_client.cloud.grpc_link import GrpcCloudLink
from pd_server.config import EngineConfig
from pd_server.torch_engine.model_runner import ModelRunner, Work, WorkResult
from tests.real_server import real_server
from tests.server_harness import running_server

pytestmark = pytest.mark.heavy

PACE_S = 0.12


class Passes:
    """What forward passes took, by their number of tokens."""

    def __init__(self) -> None:
        self.took_s = defaultdict[int, list[float]](list)

    def median_s(self, num_tokens: int) -> float:
        return statistics.median(self.took_s[num_tokens])


@pytest.fixture
def slow_steps(monkeypatch: pytest.MonkeyPatch) -> Passes:
    """Forward passes of 40 ms and half a millisecond a token, and what a busy machine adds."""
    run, passes = ModelRunner.run, Passes()

    def slow(runner: ModelRunner, works: Sequence[Work]) -> list[WorkResult]:
        began_s, num_tokens = time.perf_counter(), sum(len(w.token_ids) for w in works)
        results = run(runner, works)
        ends_s = began_s + 0.04 + 0.0005 * num_tokens
        time.sleep(max(ends_s - time.perf_counter(), 0.0))
        passes.took_s[num_tokens].append(time.perf_counter() - began_s)
        return list(results)

    monkeypatch.setattr(ModelRunner, "run", slow)
    return passes


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    arrivals = [f"2023-11-16 18:00:0{0.81 * i:.3f}" for i in range(8)]
    rows = [f"{arrival},{300 + 40 * i},{14 + i}" for i, arrival in enumerate(arrivals)]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]) + "\n")
    return path


@pytest.mark.slow
async def test_a_simulation_says_what_a_replay_measures(
    slow_steps: Passes, trace: Path, tmp_path: Path
) -> None:
    engine = EngineConfig(max_num_seqs=8, max_num_batched_tokens=128, sampler="rolling-hash")
    async with running_server(load_model("random-tiny"), engine_config=engine) as server:
        access = CloudAddress(server.grpc_address)
        link = GrpcCloudLink.to(access)
        found = await measure_cloud(
            link, "test", max_num_batched_tokens=128, max_prompt_tokens=512, repeats=2
        )
        await link.close()
        settings = ReplaySettings(
            trace,
            schemes=("cloud-only", "pd-device"),
            device_profile="slow",
            pace_s=PACE_S,
            max_output_tokens=64,
            model="random-tiny",
            max_num_seqs=8,
            cloud=access,
        )
        quiet = Progress(Console(file=sys.stderr, force_terminal=False), PACE_S)
        profile = found.profile
        decode_s, chunk_s = slow_steps.median_s(1), slow_steps.median_s(128)
        assert profile.step_s + profile.decode_s == pytest.approx(decode_s, rel=0.15)
        assert profile.prefill_token_s == pytest.approx((chunk_s - decode_s) / 127, rel=0.15)
        # A busy machine may disturb one replay, but hardly two.
        off = await _differences(settings, quiet, profile, tmp_path)
        if off:
            off = await _differences(settings, quiet, profile, tmp_path)
    assert not off, f"replay and simulation differ: {off}"


async def _differences(
    settings: ReplaySettings, progress: Progress, profile: CloudProfile, folder: Path
) -> list[FigureComparison]:
    """Replay, and simulate the same; return the figures that do not agree."""
    replayed = await Replay(settings, progress).run()
    file = folder / "replay.json"
    file.write_text(replayed.model_dump_json())
    again = settings_of(read_replay(file), settings.trace, profile)
    assert again.schemes == settings.schemes
    simulated = await asyncio.to_thread(Simulation(again, lambda *_: None).run)
    compared = comparisons(replayed, simulated)
    Console().print(table_of(compared))
    assert len(compared) == 10
    return [c for c in compared if not c.agrees and not _is_lateness(c)]


@pytest.mark.slow
def test_the_commands_profile_and_simulate(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "cloud.json"
    document = tmp_path / "simulated.json"
    with real_server(tmp_path, "--max-num-seqs", "4") as server:
        done = _bench(
            *("profile", "--cloud", server.address, "--out", str(out), "--name", "tiny"),
            *("--max-prompt-tokens", "256"),
        )
    assert done.returncode == 0, done.stderr
    assert "prefill of 256" in done.stdout
    profile = CloudProfile.model_validate_json(out.read_bytes())
    assert profile.max_num_seqs == 4
    assert profile.kv_bytes_per_token > 0
    assert profile.step_s + profile.decode_s > 0
    done = _bench("simulate", str(trace), "--cloud-profile", str(out), "--json", str(document))
    assert done.returncode == 0, done.stderr
    found = json.loads(document.read_bytes())
    assert found["fidelity"] == "simulated"
    assert found["profiles"]["cloud"]["name"] == "tiny"
    assert found["valid"]
    # A simulation is no replay to be compared with.
    done = _bench("simulate", str(trace), "--validate", str(document))
    assert done.returncode != 0
    assert "fidelity is 'simulated'" in done.stderr


def test_a_replay_of_another_trace_is_refused(trace: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_replay(tmp_path / "missing.json")
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(ConfigError, match="no result"):
        read_replay(tmp_path / "broken.json")


def _is_lateness(c: FigureComparison) -> bool:
    """Whether a largest gap is longer in the replay by what a busy machine's timers are late."""
    if not c.figure.startswith("largest gap") or c.replayed is None or c.simulated is None:
        return False
    return 0 < c.replayed - c.simulated < 40


def _bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pd_bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=110)
