"""Conversion to SkipV1Former: which heads become what, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pd_core.errors import ConfigError, ModelError
from pd_core.models import ModelConfig, load_model
from pd_core.models.random_tiny import random_tiny_tokenizer
from pd_training.conversion import convert_to_skip_v1, own_values
from pd_training.model import TrainingModel
from pd_training.model_directory import read_training_model, write_training_model
from pd_training.output_fit import ridge_update

TOKENIZER = random_tiny_tokenizer()
MHA = ModelConfig(
    vocab_size=TOKENIZER.vocab_size,
    hidden_size=16,
    intermediate_size=24,
    num_layers=3,
    num_heads=4,
    num_kv_heads=4,
    head_dim=4,
    max_context_tokens=64,
    attention_bias=True,
)
GQA = replace(MHA, num_heads=8, num_kv_heads=4, attention_bias=False, tie_word_embeddings=True)


def plain_directory(directory: Path, config: ModelConfig, dtype: torch.dtype) -> TrainingModel:
    directory.mkdir()
    model = TrainingModel(config, seed=2)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    write_training_model(
        directory,
        model,
        tokenizer=TOKENIZER.to_str(),
        eos_token_ids=(1,),
        dtype=dtype,
        notes={"trained_tokens": 77},
    )
    return model


def heads(values: Tensor) -> list[Tensor]:
    return list(torch.split(values, MHA.head_dim))


@pytest.mark.parametrize("config", [MHA, GQA], ids=["mha-biased", "gqa-tied"])
@pytest.mark.parametrize("init", ["mean", "adjacent", "first", "random"])
def test_only_the_later_layers_values_change(
    config: ModelConfig, init: str, tmp_path: Path
) -> None:
    before = plain_directory(tmp_path / "plain", config, torch.float32).state_dict()
    facts = convert_to_skip_v1(tmp_path / "plain", tmp_path / "skip", init=init)
    opened = read_training_model(tmp_path / "skip")
    after = opened.model.state_dict()
    assert opened.model.config == replace(config, skip_v1=True)
    assert opened.trained_tokens == 77
    assert opened.eos_token_ids == (1,)
    for name, tensor in after.items():
        if "v_proj" not in name or ".layers.0." in name:
            assert torch.equal(tensor, before[name]), name
            continue
        old, own = heads(before[name]), heads(tensor)
        assert len(own) == 2
        for j in range(2):
            if init == "mean":
                torch.testing.assert_close(own[j], (old[j] + old[j + 2]) / 2)
            elif init == "adjacent":
                torch.testing.assert_close(own[j], (old[2 * j] + old[2 * j + 1]) / 2)
            elif init == "first":
                assert torch.equal(own[j], old[j])
            elif name.endswith("bias"):
                assert not own[j].any()
            else:
                assert 0.5 < own[j].std() / before[name].std() < 2
    assert facts.parameters == (
        sum(t.numel() for t in before.values()),
        sum(t.numel() for t in after.values()),
    )
    assert facts.kv_elements == (3 * 8 * 4, (8 + 6 + 6) * 4)
    assert load_model(str(tmp_path / "skip"), fast=True).model.config.skip_v1


def test_equal_halves_lose_nothing() -> None:
    values = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(1)).repeat(2, 1, 1)
    own = own_values(values.flatten(0, 1), 4, "mean", torch.Generator())
    assert torch.equal(own.view(2, 4, 16), values[:2])


def test_the_stored_type_is_kept(tmp_path: Path) -> None:
    plain_directory(tmp_path / "plain", GQA, torch.bfloat16)
    convert_to_skip_v1(tmp_path / "plain", tmp_path / "skip")
    size = (tmp_path / "skip" / "model.safetensors").stat().st_size
    parameters = read_training_model(tmp_path / "skip").model.num_parameters()
    assert 2 * parameters < size < 2 * parameters + 8000


def test_what_cannot_be_converted_is_refused(tmp_path: Path) -> None:
    plain_directory(tmp_path / "plain", MHA, torch.float32)
    with pytest.raises(ConfigError, match="unknown --init 'best'"):
        convert_to_skip_v1(tmp_path / "plain", tmp_path / "skip", init="best")
    convert_to_skip_v1(tmp_path / "plain", tmp_path / "skip")
    with pytest.raises(ModelError, match="SkipV1Former already"):
        convert_to_skip_v1(tmp_path / "skip", tmp_path / "again")
    with pytest.raises(ConfigError, match="exists already"):
        convert_to_skip_v1(tmp_path / "plain", tmp_path / "skip")
    for count in (1, 3):
        odd = replace(MHA, num_heads=count * 2, num_kv_heads=count)
        plain_directory(tmp_path / f"odd{count}", odd, torch.float32)
        with pytest.raises(ModelError, match="not even"):
            convert_to_skip_v1(tmp_path / f"odd{count}", tmp_path / "new")
    config = tmp_path / "plain" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_key_value_heads": 2}))
    with pytest.raises(ModelError, match="the config asks for 2 x 4"):
        convert_to_skip_v1(tmp_path / "plain", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_ridge_update_is_least_squares() -> None:
    rng = np.random.default_rng(0)
    x, y, old = (rng.normal(size=shape) for shape in ((50, 6), (50, 3), (3, 6)))
    cross = (y - x @ old.T).T @ x
    change = ridge_update(torch.tensor(x.T @ x), torch.tensor(cross), 0.0).numpy()
    want, *_ = np.linalg.lstsq(x, y, rcond=None)
    np.testing.assert_allclose(old + change, want.T, atol=1e-10)
    # With a penalty: the same as more rows that ask for the old weights.
    weight = 0.1 * np.trace(x.T @ x) / 6
    tall = np.concatenate([x, np.sqrt(weight) * np.eye(6)])
    want, *_ = np.linalg.lstsq(tall, np.concatenate([y, np.sqrt(weight) * old.T]), rcond=None)
    change = ridge_update(torch.tensor(x.T @ x), torch.tensor(cross), 0.1).numpy()
    np.testing.assert_allclose(old + change, want.T, atol=1e-10)


def test_a_fit_brings_the_original_back_where_it_can(tmp_path: Path) -> None:
    config = replace(MHA, attention_bias=False, num_layers=2)
    plain_directory(tmp_path / "plain", config, torch.float32)
    batches = [
        torch.randint(0, 1024, (4, 64), generator=torch.Generator().manual_seed(i))
        for i in range(4)
    ]
    convert_to_skip_v1(tmp_path / "plain", tmp_path / "skip")
    convert_to_skip_v1(tmp_path / "plain", tmp_path / "fitted", calibration=batches)
    original, skip, fitted = (
        read_training_model(tmp_path / name).model for name in ("plain", "skip", "fitted")
    )
    for name, tensor in skip.state_dict().items():
        same = torch.equal(tensor, fitted.state_dict()[name])
        assert same != (name == "model.layers.1.self_attn.o_proj.weight"), name
    fresh = torch.randint(0, 1024, (4, 64), generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        want = original.model(fresh)
        before, after = ((m.model(fresh) - want).square().mean() for m in (skip, fitted))
    assert after < 0.8 * before
