"""A replay with an OpenAI-compatible server as the cloud."""

from pathlib import Path

import pytest
from rich.console import Console

from pd_bench.replay.progress import Progress
from pd_bench.replay.replay import Replay
from pd_bench.replay.settings import ReplaySettings
from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.errors import ConfigError
from pd_device_client.cloud.address import CloudAddress
from tests.openai_server import Script, openai_server

TOKENIZER = random_tiny_tokenizer()
ANSWER = TOKENIZER.encode("It grants each reader the right to copy the text, and no more. " * 6)
PACE_S = 0.01


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,200,12\n"
        "2023-11-16 18:17:04.0319600,90,30\n"
    )
    return path


def _settings(trace: Path, url: str, **more: object) -> ReplaySettings:
    return ReplaySettings(
        trace=trace,
        schemes=("cloud-only", "pd-device"),
        model="random-tiny",
        max_output_tokens=64,
        pace_s=PACE_S,
        cloud=CloudAddress(url),
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.slow
async def test_every_scheme_runs_with_that_cloud(trace: Path) -> None:
    async with openai_server(TOKENIZER, None, ANSWER, Script("vllm")) as server:
        settings = _settings(trace, server.url, fidelity="real")
        document = await Replay(settings, Progress(Console(quiet=True), PACE_S)).run()
    assert document.exactness == "consistent"
    assert any("behind OpenAI's API" in label for label in document.labels)
    for name in ("cloud-only", "pd-device"):
        result = document.schemes[name]
        assert result.failed == 0
    alone = [r for r in document.requests if r.scheme == "cloud-only"]
    assert [len(r.shown_at_s) for r in alone] == [12, 30]
    assert {len(asked["prompt"]) for asked in server.asked} >= {200, 90}


async def test_a_fleet_needs_a_pd_server(trace: Path) -> None:
    async with openai_server(TOKENIZER, None, ANSWER, Script("vllm")) as server:
        settings = _settings(trace, server.url, fidelity="fleet", device_profile="laptop")
        with pytest.raises(ConfigError, match="rolling-hash"):
            await Replay(settings, Progress(Console(quiet=True), PACE_S)).run()
