"""What inspect_model reports, against figures counted by hand and by the model itself."""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pd_core.checkpoints.inspection import inspect_model
from pd_core.checkpoints.loading import load_model, save_model
from pd_core.checkpoints.random_tiny import fill_weights, random_tiny_tokenizer
from pd_core.checkpoints.tokenizer_config import TokenizerConfig
from pd_core.errors import ModelError
from pd_core.identity.numerics import unchecked
from pd_core.models import CausalLM, ModelConfig

CONFIG = ModelConfig(
    vocab_size=1030,
    hidden_size=32,
    intermediate_size=48,
    num_layers=4,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    max_context_tokens=512,
)
SKIP = replace(CONFIG, skip_v1=True)
THREE = replace(SKIP, num_heads=9, num_kv_heads=3, skip_v1_own=2)
CASES = {
    "plain": (CONFIG, Fraction(1)),
    "skip": (SKIP, Fraction(13, 16)),
    "yoco-tied": (
        replace(SKIP, skip_v1_k_source=1, tie_word_embeddings=True),
        Fraction(9, 16),
    ),
    # (L - 1) / L of the shared values are saved; YOCO saves a quarter more, the upper keys.
    "two-of-three": (THREE, 1 - Fraction(3, 4) * Fraction(1, 6)),
    "yoco-one-of-three": (
        replace(THREE, skip_v1_own=1, skip_v1_k_source=1),
        Fraction(3, 4) - Fraction(3, 4) * Fraction(2, 6),
    ),
    "qwen3-skip": (replace(SKIP, family="qwen3"), Fraction(13, 16)),
}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def write(directory: Path, config: ModelConfig) -> CausalLM:
    model = CausalLM(config, unchecked("cpu"))
    fill_weights(model, random_tiny_tokenizer())
    settings = TokenizerConfig({"eos_token": "<eos>"}, "{{ messages[0].content }}")
    save_model(
        directory, model, random_tiny_tokenizer(), eos_token_ids=(1,), tokenizer_config=settings
    )
    return model


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_figures_are_those_of_the_model(case: str, tmp_path: Path) -> None:
    config, rest = CASES[case]
    write(tmp_path / case, config)
    report = inspect_model(tmp_path / case)
    loaded = load_model(str(tmp_path / case), fast=True)
    assert report.config == loaded.model.config == config
    loaded.float_model.tensors()  # plain, not packed
    parameters = {id(p): p.numel() for p in loaded.float_model.parameters()}
    assert report.num_parameters == sum(parameters.values())
    cache = loaded.model.make_cache(1)
    assert report.kv_bytes_per_token * 512 == cache.allocated_bytes
    assert report.kv_bytes_per_token_plain == 4 * 2 * (config.num_kv_heads * 8) * 4
    assert report.kv_bytes_per_token_by_formula == report.kv_bytes_per_token
    assert report.kv_bytes_per_token == rest * report.kv_bytes_per_token_plain
    assert inspect_model(tmp_path / case, kv_dtype="bfloat16").kv_bytes_per_token * 2 == (
        report.kv_bytes_per_token
    )


def test_facts_of_the_files(tmp_path: Path) -> None:
    write(tmp_path / "m", replace(SKIP, family="qwen2"))
    report = inspect_model(str(tmp_path / "m"))
    assert (report.name, report.architecture) == ("m", "SkipV1Qwen2ForCausalLM")
    assert report.stored_bytes == (tmp_path / "m" / "model.safetensors").stat().st_size
    assert report.stored_dtypes == ("float32",)
    assert (report.num_tokenizer_ids, report.config.vocab_size) == (1024, 1030)
    assert report.eos_token_ids == (1,)
    assert report.has_chat_template
    assert report.prefix_ids == ()
    (tmp_path / "m" / "chat_template.jinja").unlink()
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.bfloat16)
    save_file(tensors, tmp_path / "m" / "model.safetensors")
    report = inspect_model(tmp_path / "m")
    assert report.stored_dtypes == ("bfloat16", "float32")
    assert not report.has_chat_template


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no directory"):
        inspect_model(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="unknown dtype"):
        inspect_model(tmp_path, kv_dtype="int8")
