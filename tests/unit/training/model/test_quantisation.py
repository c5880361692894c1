"""A directory of rounded weights: what is in it, and that it computes as its source rounded."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pd_core.checkpoints.loading import load_model
from pd_core.checkpoints.model_directory import ModelDirectory
from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.errors import ConfigError, ModelError
from pd_core.integer.group_rounding import round_groups
from pd_core.integer.integer_lm import IntegerLM
from pd_core.integer.weights import IntegerWeight
from pd_core.models import ModelConfig, Segment
from pd_core.models.latent_shape import LatentShape
from pd_training.model.conversion import convert_to_skip_v1
from pd_training.model.error_feedback import round_with_feedback
from pd_training.model.model import TrainingModel
from pd_training.model.model_directory import read_training_model, write_training_model
from pd_training.model.quantisation import LAYERS, quantise

TOKENIZER = random_tiny_tokenizer()
PLAIN = ModelConfig(
    vocab_size=TOKENIZER.vocab_size,
    hidden_size=72,
    intermediate_size=100,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    max_context_tokens=64,
    attention_bias=True,
)
SHARED = replace(PLAIN, family="qwen3", skip_v1=True, attention_bias=False, num_layers=3)
TIED = replace(PLAIN, tie_word_embeddings=True)
CONFIGS = {"biased": PLAIN, "shared values": SHARED, "tied": TIED}
TOKENS = torch.arange(40) % 50
CALIBRATION = [torch.randint(0, 50, (2, 48), generator=torch.Generator().manual_seed(1))] * 2


def directory(folder: Path, config: ModelConfig) -> Path:
    folder.mkdir()
    model = TrainingModel(config, seed=2)
    content = TOKENIZER.to_str()
    extra = {"generation_config.json": '{"do_sample": true, "temperature": 0.5}'}
    write_training_model(folder, model, tokenizer=content, eos_token_ids=(1,), companions=extra)
    return folder


def integer_lm(folder: Path, *, stored: bool) -> IntegerLM:
    """Open a directory in integer numerics, by its own integers or by its floats, rounded."""
    files = ModelDirectory(folder)

    def take(name: str) -> Tensor:
        return dict(files.checkpoint.stored([name]))[name].float()

    rounded = files.checkpoint.integers if stored else None
    return IntegerLM(files.config, take, device=torch.device("cpu"), rounded=rounded)


def logits(model: IntegerLM) -> Tensor:
    hidden = model.forward(TOKENS, [Segment(model.make_cache(40), 0, 40)])
    return model.logits(hidden)


def floats(weight: IntegerWeight) -> Tensor:
    return weight.integers().float() * weight.scales[:, None]


@pytest.mark.parametrize("name", CONFIGS)
def test_eight_bits_are_those_of_rounding_at_load(name: str, tmp_path: Path) -> None:
    source = directory(tmp_path / "plain", CONFIGS[name])
    quantise(source, tmp_path / "out", 8)
    expected = logits(integer_lm(source, stored=False))
    assert torch.equal(logits(integer_lm(tmp_path / "out", stored=True)), expected)
    assert torch.equal(logits(integer_lm(source, stored=True)), expected)


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.parametrize("wide", [(), ("down_proj",), ("q_proj", "gate_proj")])
@pytest.mark.parametrize("name", CONFIGS)
def test_four_bits_are_taken_as_they_are(name: str, wide: tuple[str, ...], tmp_path: Path) -> None:
    config = CONFIGS[name]
    source, out = directory(tmp_path / "plain", config), tmp_path / "out"
    seen: list[tuple[int, int]] = []
    quantise(
        *(source, out, 4),
        calibration=CALIBRATION,
        wide=wide,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(i + 1, config.num_layers) for i in range(config.num_layers)]
    checkpoint = ModelDirectory(out).checkpoint
    opened = read_training_model(out).model.state_dict()
    for layer in LAYERS:
        for name in [n for n in opened if n.endswith(f"{layer}.weight")]:
            whole = checkpoint.integers(name)
            assert whole.bits == (8 if layer in wide else 4)
            assert torch.equal(floats(whole), opened[name])
    assert torch.isfinite(logits(integer_lm(out, stored=True))).all()


def test_what_is_no_layer_stays_as_it_was(tmp_path: Path) -> None:
    source, out = directory(tmp_path / "plain", PLAIN), tmp_path / "out"
    quantise(source, out, 4, calibration=CALIBRATION)
    before, after = (load_file(f / "model.safetensors") for f in (source, out))
    same = {name for name in before if not name.endswith("_proj.weight")}
    assert len(same) > 6
    assert all(torch.equal(before[name], after[name]) for name in same)
    for name in ("tokenizer.json", "generation_config.json"):
        assert (source / name).read_bytes() == (out / name).read_bytes()
    raw = json.loads((out / "config.json").read_text())
    assert raw["quantization_config"]["quant_method"] == "compressed-tensors"
    assert raw.items() >= json.loads((source / "config.json").read_text()).items()


def test_feedback_lowers_the_outputs_error() -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(96, 96, generator=generator) / 8 + torch.eye(96)
    inputs = torch.randn(1000, 96, generator=generator) @ mixing
    weight = torch.randn(40, 96, generator=generator)
    moments = inputs.T @ inputs

    def error(rounded: IntegerWeight) -> float:
        return float((inputs @ (floats(rounded) - weight).T).square().sum())

    plain = error(round_groups(weight, moments.diagonal() / 1000))
    assert error(round_with_feedback(weight, moments)) < 0.8 * plain


def test_inputs_that_are_always_zero_do_no_harm() -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    rounded = round_with_feedback(weight, torch.zeros(64, 64))
    assert torch.allclose(floats(rounded), weight, atol=0.5)


def test_what_cannot_be_rounded_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    source, out = directory(tmp_path / "plain", TIED), tmp_path / "out"
    quantise(source, out, 8)
    again = tmp_path / "again"
    with pytest.raises(ModelError, match="out is quantised already"):
        quantise(out, again, 8)
    with pytest.raises(ConfigError, match="--bits 5 is not supported"):
        quantise(source, again, 5)
    shape = LatentShape(8, 16, 16)
    latent = replace(PLAIN, family="deepseek_v2", num_kv_heads=4, latent=shape)
    with pytest.raises(ModelError, match=r"latent attention \(MLA\)"):
        quantise(directory(tmp_path / "latent", latent), again, 8)
    with pytest.raises(ConfigError, match="exists already"):
        quantise(source, out, 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latent", "out", "plain"]


def test_a_converted_model_s_config_speaks_of_no_integers(tmp_path: Path) -> None:
    quantise(directory(tmp_path / "plain", PLAIN), tmp_path / "out", 8)
    convert_to_skip_v1(tmp_path / "out", tmp_path / "skip")
    before = read_training_model(tmp_path / "out").model.state_dict()
    after = read_training_model(tmp_path / "skip").model.state_dict()
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(before[name], after[name])


def test_integer_numerics_load_a_directory_s_own_integers(tmp_path: Path) -> None:
    source, out = directory(tmp_path / "plain", TIED), tmp_path / "out"
    quantise(source, out, 4, calibration=CALIBRATION)
    seen: list[tuple[int, int]] = []
    loaded = load_model(str(out), numerics="integer", progress=lambda a, b: seen.append((a, b)))
    assert isinstance(loaded.model, IntegerLM)
    mask = loaded.model.logits(torch.zeros(1, 96)).isinf()[0]
    expected = logits(integer_lm(out, stored=True)).masked_fill(mask, float("-inf"))
    assert torch.equal(logits(loaded.model), expected)
    assert len(seen) > 10
    assert seen[-1][0] == seen[-1][1]
    assert seen == sorted(seen)
