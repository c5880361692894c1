"""Every command with no --model at all: the trained model in the package, on both sides."""

import io
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from pd_bench.commands.demo import run_demo
from pd_bench.results.result import ResultDocument
from pd_core.store.model_names import DEFAULT_MODEL, model_directory
from pd_device_client.cli import main
from tests.command_here import run_here

pytestmark = pytest.mark.heavy

PROMPT = "def read_lines(path):\n    with open(path) as file:\n" * 8


def environment() -> dict[str, str]:
    ours = ("PD_SERVER_", "PD_DEVICE_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A server that was told of no model; its addresses."""
    folder = tmp_path_factory.mktemp("server")
    ready, log = folder / "ready.json", folder / "server.log"
    command = [sys.executable, "-m", "pd_server", "--grpc-port", "0", "--http-port", "0"]
    command += ["--threads", "1", "--ready-file", str(ready)]
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=out, env=environment()) as process,
    ):
        try:
            while not ready.exists():
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
            yield json.loads(ready.read_text())
        finally:
            process.terminate()


def test_the_server_s_card_names_it(server: dict[str, str]) -> None:
    with urllib.request.urlopen(f"http://{server['http']}/v1/info", timeout=60) as answer:
        card = json.load(answer)
    assert card["model_name"] == DEFAULT_MODEL
    assert card["limits"]["max_context_tokens"] == 2048


def test_chat_gives_the_same_text_alone_and_with_the_cloud(server: dict[str, str]) -> None:
    texts = set()
    for mode in ("device-only", "pd-device"):
        done = run_here(
            main,
            *("chat", PROMPT, "--cloud", server["grpc"], "--mode", mode, "--max-tokens", "24"),
            *("--pace", "0.02", "--seed", "7", "--temperature", "0.7", "--top-p", "0.9"),
            *("--throttle", "slow", "--show-origin"),
        )
        assert done.returncode == 0, done.stderr
        text, _, figures = done.stdout.rpartition("\ncloud ")
        assert "identical" in figures
        texts.add(text)
    assert len(texts) == 1
    assert texts.pop().strip()


def replayed(folder: Path, *options: str) -> tuple[ResultDocument, str]:
    """Replay three rows, one of them far too long; return the document and what was printed."""
    trace, out = folder / "trace.csv", folder / "out.json"
    trace.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,14000,6\n"
        "2023-11-16 18:17:04.0319600,90,200\n"
        "2023-11-16 18:17:05.0319600,400,3\n"
    )
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pd_bench", "replay", str(trace), "--fidelity", "real"),
            *("--schemes", "pd-device", "--device-profile", "edge-box", "--pace", "0.02"),
            *("--max-output-tokens", "40", "--json", str(out), *options),
        ],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return ResultDocument.model_validate_json(out.read_text()), " ".join(done.stdout.split())


def test_a_replay_cuts_what_the_model_has_no_room_for_and_says_so(tmp_path: Path) -> None:
    document, printed = replayed(tmp_path)
    assert document.settings["model"] == DEFAULT_MODEL
    cut = document.cut_rows
    assert (cut.rows, cut.prompt, cut.output) == (3, 1, 1)
    assert (cut.max_context_tokens, cut.max_prompt_tokens) == (2048, 2008)
    said = "cut of 3 rows: 1 prompts to 2008 tokens, 1 answers to 40 tokens (room for both: 2048"
    assert said in printed
    lengths = {(r.id, r.prompt_tokens, r.output_tokens) for r in document.requests}
    assert lengths == {(0, 2008, 6), (1, 90, 40), (2, 400, 3)}
    assert (document.equal_rows.equal, document.equal_rows.rows) == (3, 3)


def test_rows_are_cut_to_a_device_s_window_where_that_is_the_smaller_one(
    server: dict[str, str], tmp_path: Path
) -> None:
    small = tmp_path / DEFAULT_MODEL
    shutil.copytree(model_directory(DEFAULT_MODEL), small)
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 512}))
    document, _ = replayed(tmp_path, "--model", str(small), "--cloud", server["grpc"])
    assert document.cut_rows.max_context_tokens == 512
    assert [r.prompt_tokens for r in document.requests] == [512 - 40, 90, 400]
    assert not any(r.error for r in document.requests)


@pytest.mark.timeout(300)
async def test_the_demo_tells_the_same_tokens_three_times() -> None:
    """Which side is sooner can be wrong once, when others keep the cloud's core busy."""
    for _attempt in range(3):
        out = io.StringIO()
        outcomes = await run_demo(
            Console(file=out, width=100), DEFAULT_MODEL, answer_tokens=12, pace_s=0.03
        )
        text = out.getvalue()
        assert len(outcomes) == 3
        assert len({tuple(o.token_ids) for o in outcomes}) == 1
        assert all(o.exactness == "identical" for o in outcomes)
        assert "same tokens in all three modes: yes" in text
        assert "you have already defined." in " ".join(text.split())  # where the page ends
        device, cloud, _ = outcomes
        assert device.ttft_s is not None
        assert cloud.ttft_s is not None
        device_s, cloud_s = device.ttft_s, cloud.ttft_s
        if device_s > cloud_s:
            break
    assert device_s > max(2.5, cloud_s)  # a page at 400 tokens a second, and not
