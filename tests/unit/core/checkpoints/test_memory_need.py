"""A model that does not fit is refused before it is loaded, and one that fits is not."""

import subprocess
import sys

import pytest
import torch

from pd_core.checkpoints.any_model import read_model_files
from pd_core.checkpoints.memory_need import check_memory, memory_need
from pd_core.errors import ModelError
from pd_core.integer.integer_cache import IntegerKVCache
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


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("numerics", ["float32", "integer"])
def test_what_a_load_takes_was_predicted(numerics: str) -> None:
    need = memory_need(read_model_files(model_path(DEFAULT_MODEL)), numerics)
    command = [sys.executable, "-c", LOAD, DEFAULT_MODEL, numerics]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    taken = int(done.stdout)
    assert need.weights / 2 <= taken <= need.total(0)
