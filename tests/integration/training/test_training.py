"""`pd-train` from text to a served model; killed and interrupted processes; two processes."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from pd_core.checkpoints.loading import load_model
from pd_core.errors import ConfigError
from pd_core.models import Segment
from pd_training.cli import main
from pd_training.commands.app import app
from tests.held_port import held_port

pytestmark = pytest.mark.heavy

TEXTS = ["\n".join(f"def f{i}_{j}(x):\n    return x + {j}\n" for j in range(12)) for i in range(24)]
SMALL = ["--hidden", "16", "--layers", "2", "--heads", "4", "--context", "32", "--batch", "4"]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pd_train(*arguments: str | Path) -> str:
    """Run a command in this process and return what it printed."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer and a prepared corpus."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "text").mkdir()
    for i, text in enumerate(TEXTS):
        (folder / "text" / f"{i}.py").write_text(text)
    tokenizer = folder / "tokenizer.json"
    pd_train("tokenizer", folder / "text", "--out", tokenizer, "--vocab-size", "300")
    printed = pd_train(
        *("prepare", folder / "text", "--tokenizer", tokenizer),
        *("--out", folder / "data", "--held-out", "0.2"),
    )
    assert "held out: " in printed
    return folder


def loss(model: Path, data: Path) -> float:
    found = json.loads(pd_train("evaluate", model, data, "--context", "32", "--json"))
    assert found["bits_per_byte"] > 0
    return float(found["loss"])


def greedy(model: Path, prompt: str, count: int) -> str:
    """Continue a prompt with pd_core's inference."""
    loaded = load_model(str(model), fast=True)
    ids = loaded.tokenizer.encode(prompt)
    cache = loaded.model.make_cache(64)
    new, start = ids, 0
    for _ in range(count):
        segment = Segment(cache, start, len(new))
        hidden = loaded.model.forward(torch.tensor(new), [segment])
        start += len(new)
        new = [int(loaded.model.logits(hidden[-1:]).argmax())]
        ids += new
    return loaded.tokenizer.decode(ids)


def test_from_text_to_a_served_skip_v1_model(folder: Path, tmp_path: Path) -> None:
    data = folder / "data"
    once = ["--steps", "1", "--lr", "1e-9", "--threads", "1", "--kv-heads", "2"]
    pd_train("pretrain", data, tmp_path / "none", *once, *SMALL)
    often = ["--steps", "30", "--lr", "0.03", "--threads", "1", "--kv-heads", "2"]
    printed = pd_train("pretrain", data, tmp_path / "run", *often, *SMALL)
    assert "the model is" in printed
    untrained, trained = (loss(tmp_path / name / "model", data) for name in ("none", "run"))
    assert trained < untrained - 1.5
    pd_train("evaluate", tmp_path / "run" / "model", data, "--context", "32")

    printed = pd_train("convert", tmp_path / "run" / "model", tmp_path / "skip")
    assert "KV elements per token" in printed
    converted = loss(tmp_path / "skip", data)
    printed = pd_train(
        *("uptrain", tmp_path / "skip", data, tmp_path / "up", "--steps", "15", "--lr", "0.005"),
        *("--context", "32", "--batch", "4", "--threads", "1", "--max-context", "128"),
    )
    assert "10-15 % of the original 3,840 tokens is 384 to 576; this run has 1,920" in printed
    assert loss(tmp_path / "up" / "model", data) < converted
    model = load_model(str(tmp_path / "up" / "model"), fast=True).model
    assert model.config.skip_v1
    assert model.config.max_context_tokens == 128
    text = greedy(tmp_path / "up" / "model", "def f1_", 12)
    assert text.startswith("def f1_")
    assert len(text) > len("def f1_") + 5


@pytest.mark.parametrize(
    ("options", "architecture", "loss_at_most"),
    [
        (["--yoco"], "SkipV1LlamaForCausalLM", 4.6),
        (["--latent-rank", "8"], "DeepseekV2ForCausalLM", 4.6),
        (["--latent-rank", "8", "--skip-v1"], "SkipV1DeepseekV2ForCausalLM", 4.6),
        (["--family", "qwen3", "--skip-v1"], "SkipV1Qwen3ForCausalLM", 4.6),
        (
            ["--hidden", "48", "--heads", "6", "--kv-heads", "3", "--skip-v1"],
            "SkipV1LlamaForCausalLM",
            4.6,
        ),
    ],
    ids=["yoco", "mla", "skip-mla", "skip-qwen3", "skip-two-of-three"],
)
def test_every_layout_is_trained_from_scratch_and_served(
    options: list[str], architecture: str, loss_at_most: float, folder: Path, tmp_path: Path
) -> None:
    data, run = folder / "data", tmp_path / "run"
    steps = ["--steps", "30", "--lr", "0.03", "--threads", "1"]
    printed = pd_train("pretrain", data, run, *SMALL, *steps, *options)
    assert ("of 3 KV heads is rounded to 2 of a layer's own" in printed) == ("3" in options)
    assert loss(run / "model", data) < loss_at_most, "chance is 5.7"
    assert architecture in pd_train("inspect", run / "model")
    assert greedy(run / "model", "def f1_", 12).startswith("def f1_")


@pytest.mark.parametrize("family", ["Llama", "Qwen2", "Qwen3"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_checkpoint_of_transformers_is_converted_and_uptrained(
    family: str, folder: Path, tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    config = getattr(transformers, f"{family}Config")(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        eos_token_id=0,
    )
    theirs = getattr(transformers, f"{family}ForCausalLM")(config)
    theirs.generation_config.eos_token_id = [0, 1]
    theirs.save_pretrained(tmp_path / "hf", max_shard_size="40KB")
    (tmp_path / "hf" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    tokenizer = (folder / "tokenizer.json").read_text()
    (tmp_path / "hf" / "tokenizer.json").write_text(tokenizer)
    fit = ("--fit", folder / "data", "--context", "32")
    pd_train("convert", tmp_path / "hf", tmp_path / "skip", "--init", "first", *fit)
    printed = pd_train(
        *("uptrain", tmp_path / "skip", folder / "data", tmp_path / "up", "--steps", "12"),
        *("--lr", "0.01", "--context", "32", "--batch", "4", "--threads", "1"),
        *("--original-tokens", "10000"),
    )
    assert "is 1,000 to 1,500; this run has 1,536 (15.4%)" in printed
    before, after = (loss(p, folder / "data") for p in (tmp_path / "skip", tmp_path / "up/model"))
    assert after < before - 0.3
    served = load_model(str(tmp_path / "up" / "model"), fast=True)
    assert served.eos_token_ids == (0, 1)
    assert served.chat_template is not None
    assert served.model.config.skip_v1
    notes = json.loads((tmp_path / "up" / "model" / "training.json").read_text())
    assert notes["trained_tokens"] == 10000 + 1536


def process(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """Start pd-train as a process of its own, without the tests' arithmetic settings."""
    plain = {k: v for k, v in os.environ.items() if k != "MKL_CBWR"}
    return subprocess.Popen(
        [sys.executable, "-m", "pd_training", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=plain | environment,
    )


def ended(child: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        output, _ = child.communicate(timeout=60)
    finally:
        child.kill()
    return child.returncode, output


def losses(directory: Path) -> list[str]:
    file = directory / "metrics.csv"
    if not file.exists():
        return []
    with file.open() as lines:
        return [row["loss"] for row in csv.DictReader(lines)]


def wait_for(condition: Callable[[], bool], child: subprocess.Popen[str]) -> None:
    deadline_s = time.perf_counter() + 60
    while not condition():
        assert child.poll() is None, child.communicate()[0]
        assert time.perf_counter() < deadline_s
        time.sleep(0.01)


@pytest.mark.slow
def test_a_run_interrupted_and_killed_ends_as_if_nothing_had_been(
    folder: Path, tmp_path: Path
) -> None:
    steps, out = 200, tmp_path / "out"
    command: list[str | Path] = ["pretrain", folder / "data", out, "--steps", str(steps)]
    options = [*SMALL, "--checkpoint-every", "20", "--threads", "1", "--skip-v1"]
    first = process(*command, *options)
    wait_for(lambda: len(losses(out)) >= 20, first)
    first.send_signal(signal.SIGINT)
    code, output = ended(first)
    assert code == 130
    assert "interrupted after step" in output
    assert "--resume" in output
    stopped_at = len(losses(out))
    assert 20 <= stopped_at < steps

    second = process(*command, *options, "--resume")
    wait_for(lambda: len(losses(out)) >= stopped_at + 30, second)
    second.kill()
    ended(second)
    assert not (out / "model").exists(), "the run was too short to be killed in its middle"

    again: list[str | Path] = [command[0], command[1], tmp_path / "whole", *command[3:]]
    whole = process(*again, *options)
    third = process(*command, *options, "--resume")
    assert ended(third)[0] == 0
    assert ended(whole)[0] == 0
    assert losses(out) == losses(tmp_path / "whole")
    weights = (out / "model" / "model.safetensors").read_bytes()
    assert weights == (tmp_path / "whole" / "model" / "model.safetensors").read_bytes()


def test_two_processes_give_the_losses_of_one(folder: Path, tmp_path: Path) -> None:
    options = [*SMALL, "--steps", "8", "--threads", "1", "--lr", "0.01", "--accumulate", "2"]
    with held_port() as port:
        together = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        children = [
            process(
                "pretrain",
                folder / "data",
                tmp_path / "two",
                *options,
                **together,
                RANK=str(rank),
                LOCAL_RANK=str(rank),
            )
            for rank in range(2)
        ]
        pd_train("pretrain", folder / "data", tmp_path / "one", *options)
        for child in children:
            code, output = ended(child)
            assert code == 0, output
    one, two = ([float(x) for x in losses(tmp_path / name)] for name in ("one", "two"))
    assert len(one) == 8
    assert one == pytest.approx(two, abs=1e-5)
    assert one[-1] < one[0] - 0.1


def test_a_selection_is_prepared_and_written_down(folder: Path, tmp_path: Path) -> None:
    common: list[str | Path] = [
        "prepare",
        folder / "text",
        "--tokenizer",
        folder / "tokenizer.json",
    ]
    chosen = ["--select", "micro", "--budget", "3000"]
    pd_train(*common, "--out", tmp_path / "data", "--held-out", "0.2", *chosen)
    facts, whole = (
        json.loads((path / "data.json").read_text())
        for path in (tmp_path / "data", folder / "data")
    )
    assert facts["selection"] == {"strategy": "micro", "budget_tokens": 3000, "seed": 0}
    assert 0 < facts["train"]["tokens"] <= 3000 < whole["train"]["tokens"]
    assert facts["held_out"] == whole["held_out"]


def test_bad_input_is_one_line_and_an_exit_code(folder: Path, tmp_path: Path) -> None:
    child = process("pretrain", tmp_path / "nothing", tmp_path / "out", "--steps", "1")
    code, output = ended(child)
    assert code == 2
    assert output.count("\n") == 1
    assert "data.json does not exist" in output
    pretrain = ["pretrain", str(folder / "data"), str(tmp_path / "z"), "--steps", "1"]
    evaluate = ["evaluate", "x", str(folder / "data")]
    convert = ["convert", "x", "y", "--fit", str(folder / "data")]
    tokenizer = ["tokenizer", str(folder / "text"), "--out", str(tmp_path / "t.json")]
    for arguments, message in (
        (["convert", "x", "y", "--to", "mla"], "unknown --to"),
        ([*convert, "--seed", "-1"], "the seed is -1"),
        ([*convert, "--context", "0"], "--context is 0"),
        ([*convert, "--fit-tokens", "0"], "--fit-tokens is 0"),
        ([*pretrain, "--heads", "3"], "by 3 heads"),
        ([*pretrain, "--layers", "3", "--yoco"], "3 is odd"),
        ([*pretrain, "--max-context", "0"], "--max-context is 0"),
        (["uptrain", "x", *pretrain[1:], "--original-tokens", "0"], "--original-tokens is 0"),
        ([*evaluate, "--dtype", "float16"], "unknown dtype"),
        ([*evaluate, "--context", "0"], "--context is 0"),
        ([*evaluate, "--max-tokens", "0"], "--max-tokens is 0"),
        ([*tokenizer, "--held-out", "5"], "--held-out is 5"),
        (["judge", "x", str(folder / "data"), "--count", "0"], "--count is 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert CliRunner().invoke(app, [*pretrain, "--threads", "0"]).exit_code == 2


def test_ctrl_c_says_that_it_ended_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pd_core.checkpoints.inspection.inspect_model", interrupted)
    monkeypatch.setattr("sys.argv", ["pd-train", "inspect", "x"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err.startswith("pd-train: interrupted")


def test_a_model_is_not_evaluated_beyond_its_context(folder: Path, tmp_path: Path) -> None:
    pd_train("pretrain", folder / "data", tmp_path / "run", "--steps", "1", *SMALL)
    with pytest.raises(ConfigError, match="--context 64 exceeds the 32 tokens"):
        pd_train("evaluate", tmp_path / "run" / "model", folder / "data", "--context", "64")
