"""`pd-train inspect` says what a checkpoint is, or why it is refused."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pd_core.checkpoints.loading import load_model, save_model
from pd_core.errors import ModelError
from pd_training.commands.app import app


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    loaded = load_model("random-tiny")
    save_model(
        tmp_path / "m", loaded.float_model, loaded.tokenizer, eos_token_ids=loaded.eos_token_ids
    )
    return tmp_path / "m"


def test_what_a_checkpoint_is(checkpoint: Path) -> None:
    done = CliRunner().invoke(app, ["inspect", str(checkpoint)])
    assert done.exit_code == 0, done.output
    words = " ".join(done.output.replace("│", " ").split())
    assert "SkipV1LlamaForCausalLM" in words
    assert "own values 1 of 2 KV heads" in words
    # 3 layers of 2 KV heads of 16, float32: (L - 1) / (4 L) of a plain model's 768 bytes saved.
    assert "640 bytes per token as allocated (float32)" in words
    assert "640 (16.7% saved)" in words
    assert "of a plain model 768" in words


def test_why_a_checkpoint_is_refused(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    done = CliRunner().invoke(app, ["inspect", str(checkpoint)])
    assert isinstance(done.exception, ModelError)
    assert "safetensors" in str(done.exception)
