"""Other people's load generators against `pd-device serve`: they run, and see what it showed.

Each is in an environment of its own (`make clients-env`), as their pins exclude each other. A real
cloud and a real device carry the answers, one after the other. The device writes down when it
showed each token. What a tool measured from outside differs from that by its own HTTP and the
connection; it is to see no more and no less of them than our own client does.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import pd_core
from tests.real_device import RealDevice, real_device
from tests.real_server import real_server

ROOT = Path(__file__).parents[2]
MODEL = "skipv1-python-5m"
REQUESTS, PROMPT_TOKENS, OUTPUT_TOKENS = 12, 64, 24
ALLOWED_S = 0.003
# No hub can be asked, and none is needed.
OFFLINE = {"TRANSFORMERS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}


@dataclass
class Seen:
    """Medians over the answers, in seconds: what a tool says, or what the device showed."""

    ttft_s: float
    itl_s: float


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of the shipped model's tokenizer, for tools that count tokens themselves."""
    folder = tmp_path_factory.mktemp("tokenizer")
    (source,) = Path(pd_core.__file__).parent.glob(f"**/{MODEL}")
    shutil.copy(source / "tokenizer.json", folder)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealDevice]:
    folder = tmp_path_factory.mktemp("device")
    options = ["--model", MODEL, "--answer-log", str(folder / "answers.jsonl")]
    options += ["--throttle", "slow", "--pace", "0.06"]  # so slow that it needs the cloud
    with (
        real_server(folder, "--model", MODEL) as cloud,
        real_device(folder, "--cloud", cloud.address, *options) as served,
    ):
        yield served


@pytest.fixture(scope="module")
def ours(device: RealDevice, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """What our own client sees above what the device showed: its HTTP, and a connection."""
    folder = tmp_path_factory.mktemp("ours")
    skip = answers(device)
    rows = ["TIMESTAMP,ContextTokens,GeneratedTokens"]
    for i in range(REQUESTS):
        rows.append(f"2023-11-16 18:00:{i * 3:02d}.0000000,{PROMPT_TOKENS},{OUTPUT_TOKENS}")
    (folder / "trace.csv").write_text("\n".join(rows) + "\n")
    run(
        [sys.executable, "-m", "pd_bench", "replay", str(folder / "trace.csv")],
        ["--endpoint", f"{device.url}/v1", "--endpoint-prompts", "text", "--endpoint-plain"],
        ["--model", MODEL, "--json", str(folder / "ours.json")],
    )
    document = json.loads((folder / "ours.json").read_text())
    # The others send when the answer before has ended: they have no schedule to be late against.
    sent_s = [row["ttft_s"] - row["dispatch_lag_s"] for row in document["requests"]]
    tpot_s = document["schemes"]["endpoint"]["tpot_s"]["p50"]
    seen = Seen(statistics.median(sent_s), tpot_s)
    return above("pd-bench replay --endpoint", seen, shown(device, skip))


def test_our_own(ours: Seen) -> None:
    assert 0.0 < ours.ttft_s <= 2 * ALLOWED_S, f"{ours.ttft_s * 1e3:.1f} ms before the first token"
    assert abs(ours.itl_s) <= ALLOWED_S


def test_guidellm(device: RealDevice, ours: Seen, tokenizer: Path, tmp_path: Path) -> None:
    skip = answers(device)
    run(
        [ROOT / ".venv-guidellm/bin/guidellm", "run", "--disable-progress"],
        ["--backend", f"kind=openai_http,target={device.url},model={MODEL}"],
        ["--tokenizer", f"kind=huggingface_auto,model={tokenizer}"],
        ["--profile", "kind=synchronous"],
        [
            "--data",
            f"kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},output_tokens={OUTPUT_TOKENS}",
        ],
        ["--constraint", f"kind=max_requests,count={REQUESTS}"],
        ["--output", f"kind=json,path={tmp_path / 'guidellm.json'}"],
        environment=OFFLINE,
    )
    document = json.loads((tmp_path / "guidellm.json").read_text())
    metrics = document["benchmarks"][0]["metrics"]
    ttft_ms = metrics["time_to_first_token_ms"]["successful"]["median"]
    itl_ms = metrics["inter_token_latency_ms"]["successful"]["median"]
    agree("guidellm", Seen(ttft_ms / 1e3, itl_ms / 1e3), shown(device, skip), ours)


def test_aiperf(device: RealDevice, ours: Seen, tokenizer: Path, tmp_path: Path) -> None:
    skip = answers(device)
    run(
        [ROOT / ".venv-aiperf/bin/aiperf", "profile", "--ui-type", "none"],
        ["--model", MODEL, "--url", device.url, "--endpoint-type", "chat", "--streaming"],
        ["--tokenizer", str(tokenizer), "--use-server-token-count"],
        ["--synthetic-input-tokens-mean", str(PROMPT_TOKENS)],
        ["--output-tokens-mean", str(OUTPUT_TOKENS), "--extra-inputs", "ignore_eos:true"],
        ["--request-count", str(REQUESTS), "--concurrency", "1"],
        ["--artifact-dir", str(tmp_path)],
        # Told to stay offline it takes no directory for a tokenizer; it finds this one without.
    )
    (file,) = tmp_path.glob("**/profile_export_aiperf.json")
    document = json.loads(file.read_text())
    seen = Seen(
        document["time_to_first_token"]["p50"] / 1e3, document["inter_token_latency"]["p50"] / 1e3
    )
    agree("aiperf", seen, shown(device, skip), ours)


def test_vllm_bench_serve(device: RealDevice, ours: Seen, tokenizer: Path, tmp_path: Path) -> None:
    skip = answers(device)
    run(
        [ROOT / ".venv-vllm/bin/python", ROOT / "tests/clients/vllm_bench_serve.py"],
        ["--backend", "openai-chat", "--endpoint", "/v1/chat/completions"],
        ["--base-url", device.url, "--model", MODEL, "--tokenizer", str(tokenizer)],
        ["--dataset-name", "random", "--random-input-len", str(PROMPT_TOKENS)],
        ["--random-output-len", str(OUTPUT_TOKENS), "--ignore-eos"],
        ["--num-prompts", str(REQUESTS), "--max-concurrency", "1"],
        ["--percentile-metrics", "ttft,tpot,itl,e2el"],
        ["--save-result", "--result-dir", str(tmp_path)],
        environment=OFFLINE,
    )
    (file,) = tmp_path.glob("*.json")
    document = json.loads(file.read_text())
    assert document["completed"] == REQUESTS
    seen = Seen(document["median_ttft_ms"] / 1e3, document["median_itl_ms"] / 1e3)
    agree("vllm bench serve", seen, shown(device, skip), ours)


def run(*parts: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
    command = [str(word) for part in parts for word in part]
    assert Path(command[0]).exists(), f"{command[0]} is not there; run make clients-env"
    whole = {**os.environ, **(environment or {})}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=whole)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def log_of(device: RealDevice) -> list[dict[str, Any]]:
    file = device.log.parent / "answers.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()]


def answers(device: RealDevice) -> int:
    """Return how many answers the device has given so far."""
    return len(log_of(device))


def shown(device: RealDevice, skip: int) -> Seen:
    """Return what the device showed of the last answers: a tool may warm up with others."""
    lines = log_of(device)[skip:]
    assert len(lines) >= REQUESTS, f"only {len(lines)} answers"
    lines = lines[-REQUESTS:]
    assert all(line["finish_reason"] == "length" for line in lines)
    assert all(len(line["shown_at_s"]) == OUTPUT_TOKENS for line in lines)
    assert all(line["handoff_position"] for line in lines), "both sides take part in each answer"
    per_answer = [
        (times[-1] - times[0]) / (len(times) - 1) for times in (x["shown_at_s"] for x in lines)
    ]
    return Seen(
        statistics.median(line["shown_at_s"][0] for line in lines), statistics.median(per_answer)
    )


def above(tool: str, seen: Seen, shown: Seen) -> Seen:
    """Return what a tool sees above what the device showed, and print all of it."""
    sys.stdout.write(
        f"{tool}: TTFT {seen.ttft_s * 1e3:.1f} ms, ITL {seen.itl_s * 1e3:.1f} ms; the device: "
        f"{shown.ttft_s * 1e3:.1f} ms, {shown.itl_s * 1e3:.1f} ms\n"
    )
    return Seen(seen.ttft_s - shown.ttft_s, seen.itl_s - shown.itl_s)


def agree(tool: str, seen: Seen, shown: Seen, ours: Seen) -> None:
    """Hold a tool against our own client; each against what the device showed it."""
    theirs = above(tool, seen, shown)
    for name, value_s, own_s in (
        ("TTFT", theirs.ttft_s, ours.ttft_s),
        ("ITL", theirs.itl_s, ours.itl_s),
    ):
        text = f"{tool}: {name} {value_s * 1e3:+.1f} ms above the device's, ours {own_s * 1e3:+.1f}"
        assert abs(value_s - own_s) <= ALLOWED_S, text
