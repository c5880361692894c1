"""Conversion to SkipV1Former: which heads become what, and what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from typer.testing import CliRunner

from pd_core.checkpoints.inspection import inspect_model
from pd_core.checkpoints.loading import load_model
from pd_core.checkpoints.random_tiny import random_tiny_tokenizer
from pd_core.errors import ConfigError, ModelError
from pd_core.models import ModelConfig
from pd_core.models.latent_shape import LatentShape
from pd_training.commands.app import app
from pd_training.model.conversion import convert_to_skip_v1, own_values
from pd_training.model.model import TrainingModel
from pd_training.model.model_directory import read_training_model, write_training_model
from pd_training.model.output_fit import ridge_update
from pd_training.recipe.settings import INITS

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


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.parametrize("config", [MHA, GQA], ids=["mha-biased", "gqa-tied"])
@pytest.mark.parametrize("init", INITS)
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
            elif init == "top":
                weight = heads(before[name.replace("bias", "weight")])
                best = sorted(range(4), key=lambda i: float(weight[i].square().sum()))[2:]
                assert torch.equal(own[j], old[sorted(best)[j]])
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


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize(("keep", "own"), [(0.5, 2), (0.25, 1), (0.7, 2), (0.99, 2)])
def test_a_model_of_three_kv_heads_keeps_any_share(
    keep: float, own: int, init: str, tmp_path: Path
) -> None:
    """SmolLM2-135M's heads: nine for queries, three for keys and values."""
    config = replace(GQA, num_heads=9, num_kv_heads=3)
    before = plain_directory(tmp_path / "plain", config, torch.float32).state_dict()
    facts = convert_to_skip_v1(tmp_path / "plain", tmp_path / "skip", keep=keep, init=init)
    after = read_training_model(tmp_path / "skip").model
    assert after.config == replace(config, skip_v1=True, skip_v1_own=own)
    assert facts.value_heads == (3, own)
    assert facts.kv_elements == (3 * 6 * 4, (6 + 2 * (3 + own)) * 4)
    name = "model.layers.1.self_attn.v_proj.weight"
    old, made = heads(before[name]), heads(after.state_dict()[name])
    assert len(made) == own
    groups = {
        "mean": {1: [[0, 1, 2]], 2: [[0, 2], [1]]},
        "adjacent": {1: [[0, 1, 2]], 2: [[0, 1], [2]]},
        "first": {1: [[0]], 2: [[0], [1]]},
    }
    for head, group in zip(made, groups.get(init, {own: []})[own], strict=init in groups):
        torch.testing.assert_close(head, torch.stack([old[i] for i in group]).mean(0))
    assert torch.equal(after.state_dict()[name.replace("1", "0")], before[name.replace("1", "0")])
    report = inspect_model(tmp_path / "skip")
    assert report.kv_bytes_per_token == report.kv_bytes_per_token_by_formula
    assert load_model(str(tmp_path / "skip"), fast=True).model.config.num_value_heads(1) == own


def test_a_user_is_told_what_a_share_was_rounded_to(tmp_path: Path) -> None:
    plain_directory(tmp_path / "three", replace(GQA, num_heads=9, num_kv_heads=3), torch.float32)
    plain_directory(tmp_path / "four", GQA, torch.float32)

    def printed(source: str, *options: str) -> str:
        out = tmp_path / f"{source}{len(list(tmp_path.iterdir()))}"
        done = CliRunner().invoke(app, ["convert", str(tmp_path / source), str(out), *options])
        assert done.exit_code == 0, done.output
        return done.output

    text = printed("three")
    assert "--skip-v1-keep 0.5 of 3 KV heads is rounded to 2 of a layer's own and 1" in text
    assert "KV heads with own values in later layers: 3 -> 2" in text
    assert "is rounded to 1 of a layer's own" in printed("three", "--skip-v1-keep", "0.3")
    text = printed("four", "--skip-v1-keep", "0.75")
    assert "rounded" not in text
    assert "in later layers: 4 -> 3" in text


def test_a_fit_of_uneven_parts_brings_the_original_closer(tmp_path: Path) -> None:
    config = replace(GQA, num_heads=9, num_kv_heads=3)
    plain_directory(tmp_path / "plain", config, torch.float32)
    batches = [torch.randint(0, 1024, (4, 64), generator=torch.Generator().manual_seed(1))]
    convert_to_skip_v1(tmp_path / "plain", tmp_path / "skip")
    convert_to_skip_v1(tmp_path / "plain", tmp_path / "fitted", calibration=batches)
    original, skip, fitted = (
        read_training_model(tmp_path / name).model for name in ("plain", "skip", "fitted")
    )
    with torch.no_grad():
        want = original.model(batches[0])
        before, after = ((m.model(batches[0]) - want).square().mean() for m in (skip, fitted))
    assert after < 0.8 * before


def test_equal_halves_lose_nothing() -> None:
    values = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(1)).repeat(2, 1, 1)
    own = own_values(values.flatten(0, 1), (4, 2), "mean", torch.Generator(), values.flatten(0, 1))
    assert torch.equal(own.view(2, 4, 16), values[:2])


def test_top_takes_the_largest_heads_in_their_order_and_of_equals_the_earlier() -> None:
    sizes = torch.tensor([1.0, 3.0, 3.0, 2.0, 3.0, 0.5])
    weight = sizes.repeat_interleave(2)[:, None] * torch.ones(12, 3)
    names = torch.arange(6.0).repeat_interleave(2)
    own = own_values(names, (6, 3), "top", torch.Generator(), weight)
    assert own.view(3, 2)[:, 0].tolist() == [1.0, 2.0, 4.0]
    own = own_values(names, (6, 3), "top", torch.Generator(), -weight.flip(0))
    assert own.view(3, 2)[:, 0].tolist() == [1.0, 3.0, 4.0]
    equal = own_values(names, (6, 3), "top", torch.Generator(), torch.ones(12, 3))
    assert equal.view(3, 2)[:, 0].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.slow
@pytest.mark.parametrize("named", [True, False], ids=["named", "by-model-type"])
@pytest.mark.parametrize(
    "config",
    [
        replace(MHA, family="qwen2", attention_bias=False),
        replace(GQA, family="qwen3"),
    ],
    ids=["qwen2", "qwen3-gqa-tied"],
)
def test_other_families_are_converted_and_fitted(
    config: ModelConfig, named: bool, tmp_path: Path
) -> None:
    plain_directory(tmp_path / "plain", config, torch.float32)
    if not named:
        file = tmp_path / "plain" / "config.json"
        raw = json.loads(file.read_text())
        del raw["architectures"]
        file.write_text(json.dumps(raw))
    batches = [torch.randint(0, 1024, (4, 64), generator=torch.Generator().manual_seed(1))]
    convert_to_skip_v1(tmp_path / "plain", tmp_path / "skip")
    convert_to_skip_v1(tmp_path / "plain", tmp_path / "fitted", calibration=batches)
    original, skip, fitted = (
        read_training_model(tmp_path / name).model for name in ("plain", "skip", "fitted")
    )
    assert skip.config == fitted.config == replace(config, skip_v1=True)
    assert load_model(str(tmp_path / "fitted"), fast=True).model.config.skip_v1
    with torch.no_grad():
        want = original.model(batches[0])
        before, after = ((m.model(batches[0]) - want).square().mean() for m in (skip, fitted))
    assert after < 0.8 * before


def test_what_belongs_to_a_model_goes_along(tmp_path: Path) -> None:
    plain_directory(tmp_path / "plain", GQA, torch.float32)
    companions = {
        "generation_config.json": '{"eos_token_id": [3, 4]}',
        "tokenizer_config.json": '{"bos_token": "<eos>"}',
        "chat_template.jinja": "{{ messages }}",
    }
    for name, content in companions.items():
        (tmp_path / "plain" / name).write_text(content)
    tensors = load_file(tmp_path / "plain" / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
    save_file(tensors, tmp_path / "plain" / "model.safetensors")
    facts = convert_to_skip_v1(tmp_path / "plain", tmp_path / "skip")
    report = inspect_model(tmp_path / "skip")
    assert report.eos_token_ids == (3, 4)
    assert report.has_chat_template
    # A tied weight counts once, and what is computed from the config is no weight.
    counts = (inspect_model(tmp_path / "plain").num_parameters, report.num_parameters)
    assert facts.parameters == counts


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
    for keep in (0.0, 1.0, -0.5, float("nan")):
        with pytest.raises(ConfigError, match="above 0 and below 1"):
            convert_to_skip_v1(tmp_path / "plain", tmp_path / "new", keep=keep)
    plain_directory(tmp_path / "one", replace(MHA, num_kv_heads=1), torch.float32)
    with pytest.raises(ModelError, match="there is 1 only"):
        convert_to_skip_v1(tmp_path / "one", tmp_path / "new")
    config = tmp_path / "plain" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_key_value_heads": 2}))
    with pytest.raises(ModelError, match=r"settings ask for \[8\]"):
        convert_to_skip_v1(tmp_path / "plain", tmp_path / "new")
    latent = replace(MHA, family="deepseek_v2", latent=LatentShape(4, 4, 4))
    plain_directory(tmp_path / "mla", latent, torch.float32)
    with pytest.raises(ModelError, match="latent attention"):
        convert_to_skip_v1(tmp_path / "mla", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def set_nan(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = torch.nan
    save_file(tensors, directory / "model.safetensors")


def lose_a_tensor(directory: Path) -> None:
    tensors = load_file(directory / "model.safetensors")
    del tensors["model.layers.2.self_attn.k_proj.weight"]
    save_file(tensors, directory / "model.safetensors")


def link_out(directory: Path) -> None:
    outside = directory.parent / "outside"
    (directory / "tokenizer.json").rename(outside)
    (directory / "tokenizer.json").symlink_to(outside)


def ask_for_code(directory: Path) -> None:
    (directory / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": "x.Y"}}')


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (set_nan, "up_proj.weight holds NaN"),
        (lose_a_tensor, "lacks .*k_proj"),
        (link_out, "link out of"),
        (ask_for_code, "auto_map"),
        (lambda directory: (directory / "tokenizer.json").unlink(), "tokenizer"),
    ],
    ids=["nan", "missing", "link", "code", "no-tokenizer"],
)
def test_what_cannot_be_served_is_neither_converted_nor_trained(
    breaks: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    plain_directory(tmp_path / "plain", MHA, torch.float32)
    breaks(tmp_path / "plain")
    with pytest.raises(ModelError, match=message):
        convert_to_skip_v1(tmp_path / "plain", tmp_path / "skip")
    assert not (tmp_path / "skip").exists()
    with pytest.raises(ModelError, match=message):
        read_training_model(tmp_path / "plain")


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


def test_a_tied_model_that_stores_its_output_layer_alone_is_converted(tmp_path: Path) -> None:
    plain_directory(tmp_path / "plain", GQA, torch.float32)
    convert_to_skip_v1(tmp_path / "plain", tmp_path / "want")
    file = tmp_path / "plain" / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, file)
    convert_to_skip_v1(tmp_path / "plain", tmp_path / "found")
    want, found = (load_file(tmp_path / d / "model.safetensors") for d in ("want", "found"))
    assert want.keys() == found.keys()
    assert all(torch.equal(want[name], found[name]) for name in want)
