"""What is no model, given to each command that takes one: one line that says what to do instead."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pd_bench.cli import main as bench
from pd_core.store.model_names import DEFAULT_MODEL, model_directory
from pd_device_client.cli import main as device
from pd_server.cli import main as server
from pd_training.cli import main as train
from tests.command_here import run_here

pytestmark = pytest.mark.heavy

NO_MODELS = {
    "m.gguf": "m.gguf: the file ends at byte 8, but its header goes on to byte 16; it is truncated",
    "./quantised": "the weights are quantised (quantization_config, 'awq', 4 bits), which is not",
    "./quantized": "is it 'quantised'?",
    "./panics": "tokenizer.json: not a tokenizer.json: Precompiled",
}
COMMANDS: dict[str, tuple[Callable[[], None], tuple[str, ...]]] = {
    "pd-server": (server, ("--grpc-port", "0", "--http-port", "0", "--model")),
    "chat": (device, ("chat", "hello", "--model")),
    "serve": (device, ("serve", "--port", "0", "--model")),
    "doctor": (device, ("doctor", "--port", "0", "--model")),
    "calibrate": (device, ("calibrate", "--model")),
    "plan": (device, ("plan", "--model")),
    "pd-bench": (bench, ("ticker", "--model")),
    "pd-train": (train, ("inspect",)),
}


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.gguf").write_bytes(b"GGUF\3\0\0\0")
    for name in ("quantised", "panics"):
        shutil.copytree(model_directory(DEFAULT_MODEL), name)
    config = json.loads(Path("quantised/config.json").read_text())
    config["quantization_config"] = {"quant_method": "awq", "bits": 4}
    Path("quantised/config.json").write_text(json.dumps(config))
    tokenizer = json.loads(Path("panics/tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    Path("panics/tokenizer.json").write_text(json.dumps(tokenizer))


@pytest.mark.parametrize("model", NO_MODELS)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_model_is_one_line_in_every_command(command: str, model: str) -> None:
    main, words = COMMANDS[command]
    done = run_here(main, *words, model)
    said = [line for line in (done.stdout + done.stderr).splitlines() if NO_MODELS[model] in line]
    assert len(said) == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if command == "doctor" else 2)
