"""A model that does not fit is refused before it is loaded, and one that fits is not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pd_core.checkpoints import loading
from pd_core.checkpoints.any_model import read_model_files
from pd_core.checkpoints.hf_config import write_config
from pd_core.checkpoints.loading import load_model
from pd_core.checkpoints.memory_need import check_memory, memory_need
from pd_core.checkpoints.quantization_config import PackedScheme, quantization_config
from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.errors import ModelError
from pd_core.identity.numerics import unchecked
from pd_core.integer import choice
from pd_core.integer.integer_cache import IntegerKVCache
from pd_core.integer.kernel_library import kernel_library
from pd_core.models import CausalLM, ModelConfig
from pd_core.store.model_names import DEFAULT_MODEL, RANDOM_TINY, model_path

MIB = 1 << 20

# Prints by how many bytes loading a model raises the peak, once its numerics are known.
LOAD = """
import sys
from pathlib import Path
from pd_core.host.torch_environment import prepare_environment
prepare_environment()
from pd_core.checkpoints.loading import load_model
from pd_core.host.free_memory import trim_heap
from pd_core.models.numerics_probe import probe
def kib(name):
    return int(Path("/proc/self/status").read_text().partition(name)[2].split()[0])
if sys.argv[2] == "float32":
    probe()
trim_heap()
Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
before = kib("VmRSS:")
load_model(sys.argv[1], numerics=sys.argv[2])
print((kib("VmHWM:") - before) * 1024)
"""


def test_a_model_that_does_not_fit_is_refused() -> None:
    check_memory(DEFAULT_MODEL, 0, available=lambda: 120 * MIB)
    with pytest.raises(ModelError, match="20 MiB are free") as raised:
        check_memory(DEFAULT_MODEL, 0, available=lambda: 20 * MIB)
    assert "smaller model" in str(raised.value)
    assert "kept" not in str(raised.value)
    with pytest.raises(ModelError, match="500 MiB kept for conversations"):
        check_memory(DEFAULT_MODEL, 500 * MIB, available=lambda: 100 * MIB)
    check_memory(RANDOM_TINY, 0, available=lambda: 0)


def test_the_words_name_the_option_that_keeps_the_rest() -> None:
    with pytest.raises(ModelError, match="lower --kv-cache-mib") as raised:
        check_memory(
            *(DEFAULT_MODEL, 900 * MIB, "integer"),
            kept_for="KV caches",
            mend="--kv-cache-mib",
            available=lambda: 800 * MIB,
        )
    assert "900 MiB kept for KV caches" in str(raised.value)
    assert "weights as integer" in str(raised.value)


def test_integers_take_a_quarter_of_floats() -> None:
    files = read_model_files(model_path(DEFAULT_MODEL))
    parameters = sum(tensor.numel() for tensor in files.shapes.values())
    whole, floats = memory_need(files, "integer"), memory_need(files, "float32")
    assert parameters <= whole.weights <= 1.1 * parameters
    assert floats.weights >= 4 * parameters
    assert whole.numerics == "integer"
    config = files.config
    tokens = min(config.max_context_tokens, 4096)
    cache = IntegerKVCache(
        config.layer_heads(), config.head_dim, tokens, device=torch.device("meta")
    )
    assert whole.context == cache.allocated_bytes + cache.growth_bytes
    assert 0.2 < whole.context / floats.context < 0.4
    assert memory_need(files, "auto", "bfloat16").context == floats.context // 2


def test_auto_means_floats_wherever_integers_would_not_be_chosen() -> None:
    files = read_model_files(model_path(DEFAULT_MODEL))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(choice, "_LEAST_PARAMETERS", 0)
        if kernel_library() is not None:
            assert memory_need(files, "auto").numerics == "integer"
        assert memory_need(files, "auto", fast=True) == memory_need(files, "float32")
        assert memory_need(files, "auto", "bfloat16").numerics == "bfloat16"
        loaded = load_model(DEFAULT_MODEL, numerics="auto", fast=True)
    assert "float32" in loaded.fingerprints.numerics_id


def test_what_the_check_read_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load_model(DEFAULT_MODEL).fingerprints

    def read_again(_: Path) -> None:
        raise AssertionError("the files are read twice")

    monkeypatch.setattr(loading, "read_model_files", read_again)
    files = check_memory(DEFAULT_MODEL, 0)
    assert load_model(DEFAULT_MODEL, files=files).fingerprints == expected


def medium_model(folder: Path, bits: int) -> Path:
    """Write a random model of 35 million parameters, of 16 bits, or its layers of 4 bits."""
    tokenizer = random_tiny_tokenizer()
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=512,
        intermediate_size=1536,
        num_layers=12,
        num_heads=8,
        num_kv_heads=2,
        head_dim=64,
        max_context_tokens=512,
    )
    shapes = CausalLM(config, unchecked("meta"), device=torch.device("meta")).tensors()
    tensors = {}
    for name, shape in shapes.items():
        if bits == 4 and name.endswith("_proj.weight"):
            rows, cols = shape.shape
            words = torch.randint(-(1 << 31), 1 << 31, (rows, cols // 8), dtype=torch.int32)
            tensors[f"{name}_packed"] = words
            tensors[f"{name}_scale"] = torch.randint(1, 64, (rows, cols // 32)) * 2.0**-14
            tensors[f"{name}_shape"] = torch.tensor([rows, cols])
        else:
            tensors[name] = torch.randn(shape.shape).mul_(0.02).to(torch.float16)
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    raw = write_config(config)
    if bits == 4:
        scheme = PackedScheme("pack-quantized", 4, 32)
        raw["quantization_config"] = quantization_config({scheme: ["down_proj"]})
    (folder / "config.json").write_text(json.dumps(raw))
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    return folder


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("numerics", "bits"), [("float32", 16), ("integer", 16), ("integer", 4)])
def test_what_a_load_takes_was_predicted(numerics: str, bits: int, tmp_path: Path) -> None:
    folder = medium_model(tmp_path / "m", bits)
    need = memory_need(read_model_files(folder), numerics)
    command = [sys.executable, "-c", LOAD, str(folder), numerics]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
    predicted = max(need.loading, need.weights) + need.spare
    assert 0.75 < int(done.stdout) / predicted < 1.25
