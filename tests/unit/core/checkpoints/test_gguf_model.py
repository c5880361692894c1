"""GGUF files as models: the same numbers, tokens and fingerprints as a Hugging Face directory."""

import math
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch

from pd_core.checkpoints.any_model import read_model_files
from pd_core.checkpoints.gguf_weights import GgufWeights
from pd_core.checkpoints.inspection import inspect_model
from pd_core.checkpoints.loading import load_model, save_model
from pd_core.errors import ModelError
from pd_core.models import CausalLM, ModelConfig, Segment
from pd_core.models.rope_scaling import RopeScaling
from pd_core.store.model_names import model_directory
from tests.gguf_files import TEMPLATE, gguf_config, gguf_model, names_in_gguf, write_gguf

IDS = torch.arange(3, 40)
FAMILIES = {
    "llama": gguf_config(),
    "llama-tied": gguf_config(tie_word_embeddings=True),
    "llama-biased": gguf_config(attention_bias=True, mlp_bias=True, num_kv_heads=4),
    "qwen2": gguf_config(family="qwen2", head_dim=32),
    "qwen3": gguf_config(family="qwen3", tie_word_embeddings=True, head_dim=32),
}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def logits(model: CausalLM) -> torch.Tensor:
    hidden = model.forward(IDS, [Segment(model.make_cache(len(IDS)), 0, len(IDS))])
    return model.logits(hidden)


@pytest.mark.slow
@pytest.mark.parametrize("config", FAMILIES.values(), ids=FAMILIES.keys())
def test_a_model_is_the_same_from_gguf_and_from_safetensors(
    config: ModelConfig, tmp_path: Path
) -> None:
    made = gguf_model(config)
    path = tmp_path / "small.gguf"
    write_gguf(path, config, made.tensors())
    loaded = load_model(str(path))
    save_model(tmp_path / "dir", made, loaded.tokenizer, eos_token_ids=loaded.eos_token_ids)
    twin = load_model(str(tmp_path / "dir"))
    assert loaded.name == "small"
    assert loaded.model.config == config == twin.model.config
    assert torch.equal(logits(loaded.float_model), logits(twin.float_model))
    assert loaded.fingerprints.weights == twin.fingerprints.weights
    assert loaded.fingerprints.tokenizer == twin.fingerprints.tokenizer
    assert loaded.fingerprints.numerics_id == twin.fingerprints.numerics_id


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_was_read_of_a_file_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "small.gguf"
    write_gguf(path, gguf_config(), gguf_model(gguf_config()).tensors())
    checkpoint = read_model_files(path).checkpoint

    def resident_kib() -> int:
        of_file = Path("/proc/self/smaps").read_text().partition(str(path))[2]
        return int(of_file.partition("Rss:")[2].split()[0])

    assert torch.isfinite(next(checkpoint.parts("lm_head.weight"))).all()
    assert resident_kib() > 0
    checkpoint.integers("lm_head.weight")
    assert resident_kib() == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_quantised_rows_of_a_llama_are_put_back_in_order(kind: str, tmp_path: Path) -> None:
    config = gguf_config()
    made = gguf_model(config)
    path = tmp_path / "small.gguf"
    write_gguf(path, config, made.tensors(), kind=kind)
    files = read_model_files(path)
    stored = dict(files.checkpoint.stored(files.shapes))
    quantisation = gguf.GGMLQuantizationType[kind]
    for name, tensor in made.tensors().items():
        # A row's blocks do not depend on where the row is, so quantising commutes with the order.
        expected = tensor.numpy()
        if tensor.dim() > 1:
            blocks = gguf.quants.quantize(expected, quantisation)
            expected = gguf.quants.dequantize(blocks, quantisation)
        assert np.array_equal(stored[name].numpy(), expected), name
    report = inspect_model(path)
    assert report.stored_dtypes == tuple(sorted({"F32", kind}))
    assert report.stored_bytes == path.stat().st_size


def test_a_tensor_s_blocks_can_be_had_as_they_are_stored(tmp_path: Path) -> None:
    config = gguf_config()
    path = tmp_path / "small.gguf"
    write_gguf(path, config, gguf_model(config).tensors(), kind="Q8_0")
    files = read_model_files(path)
    assert isinstance(files.checkpoint, GgufWeights)
    for name in ("model.layers.1.self_attn.k_proj.weight", "model.layers.1.mlp.up_proj.weight"):
        stored = files.checkpoint.blocks(name)
        (_, tensor), *_ = files.checkpoint.stored([name])
        assert stored.kind.name == "Q8_0"
        assert stored.shape == tuple(tensor.shape)
        back = gguf.quants.dequantize(stored.blocks, gguf.GGMLQuantizationType.Q8_0)
        assert np.array_equal(back, tensor.numpy())


def test_a_directory_that_holds_one_gguf_file_is_that_model(tmp_path: Path) -> None:
    config = gguf_config()
    folder = tmp_path / "some-model"
    folder.mkdir()
    write_gguf(folder / "small.gguf", config, gguf_model(config).tensors())
    loaded = load_model(str(folder))
    assert loaded.name == "some-model"
    assert loaded.fingerprints == load_model(str(folder / "small.gguf")).fingerprints
    assert loaded.chat_template is not None
    assert loaded.chat_template.render([{"role": "user", "content": "hello"}]) == (
        "<|im_start|>user\nhello<|im_end|>\n"
    )
    assert loaded.eos_token_ids == (0, 2)
    assert inspect_model(folder).name == "some-model"
    with pytest.raises(ModelError, match=r"is a model in GGUF, .* Hugging Face directory"):
        model_directory(str(folder))


@pytest.mark.parametrize("extra", ["second.gguf", "model.safetensors"])
def test_of_several_forms_in_a_directory_one_must_be_named(extra: str, tmp_path: Path) -> None:
    config = gguf_config()
    write_gguf(tmp_path / "a.gguf", config, gguf_model(config).tensors())
    (tmp_path / extra).write_bytes(b"x")
    with pytest.raises(ModelError, match=r"name .*a\.gguf"):
        load_model(str(tmp_path))


def test_a_link_out_of_a_directory_is_refused(tmp_path: Path) -> None:
    config = gguf_config()
    write_gguf(tmp_path / "a.gguf", config, gguf_model(config).tensors())
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.gguf").symlink_to(tmp_path / "a.gguf")
    with pytest.raises(ModelError, match="is a link out of the model's directory"):
        load_model(str(tmp_path / "model"))
    assert load_model(str(tmp_path / "model" / "a.gguf")).name == "a"  # named itself, it may be one


def test_a_pipe_is_no_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.gguf")
    for spec in (tmp_path, tmp_path / "a.gguf"):
        with pytest.raises(ModelError):
            load_model(str(spec))


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3_s_stretched_positions_are_found_in_their_factors(
    factor: float, tmp_path: Path
) -> None:
    scaling = RopeScaling("llama3", factor)
    config = gguf_config(rope_theta=500000.0, head_dim=64, rope_scaling=scaling)
    exponent = np.arange(0, 64, 2, dtype=np.float64) / 64
    frequency = 1.0 / 500000.0**exponent
    factors = _llama3_factors(frequency, factor)
    path = tmp_path / "m.gguf"
    made = gguf_model(config)
    write_gguf(path, config, made.tensors(), keys=lambda w: _add_factors(w, factors))
    assert read_model_files(path).config == config
    factors[3] *= 1.5
    write_gguf(path, config, made.tensors(), keys=lambda w: _add_factors(w, factors))
    with pytest.raises(ModelError, match="other factors than a Llama's"):
        read_model_files(path)


def test_factors_of_an_odd_head_are_refused(tmp_path: Path) -> None:
    def keys(writer: gguf.GGUFWriter) -> None:
        _add_factors(writer, [1.0, 2.0])
        for name in ("attention.key_length", "attention.value_length", "rope.dimension_count"):
            writer.kv_data[0].pop(f"llama.{name}")
            writer.add_uint32(f"llama.{name}", 5)

    write_gguf(tmp_path / "m.gguf", gguf_config(), gguf_model(gguf_config()).tensors(), keys=keys)
    with pytest.raises(ModelError, match=r"2 numbers; heads of 5 need 2\.5"):
        read_model_files(tmp_path / "m.gguf")


def _add_factors(writer: gguf.GGUFWriter, factors: list[float]) -> None:
    writer.add_tensor("rope_freqs.weight", np.array(factors, np.float32))


def _llama3_factors(frequency: Any, factor: float) -> list[float]:
    """As llama.cpp's converter computes them."""
    low, high, first = 1.0, 4.0, 8192
    found = []
    for f in frequency:
        wavelength = 2 * math.pi / f
        if wavelength < first / high:
            found.append(1.0)
        elif wavelength > first / low:
            found.append(factor)
        else:
            smooth = (first / wavelength - low) / (high - low)
            found.append(1 / ((1 - smooth) / factor + smooth))
    return found


def test_a_linear_stretch_is_read(tmp_path: Path) -> None:
    def keys(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(2.0)

    config = gguf_config()
    write_gguf(tmp_path / "m.gguf", config, gguf_model(config).tensors(), keys=keys)
    found = read_model_files(tmp_path / "m.gguf").config
    assert found == replace(config, rope_scaling=RopeScaling("linear", 2.0))


Keys = Callable[[gguf.GGUFWriter], None]
_REFUSED: dict[str, tuple[Keys, str]] = {
    "yarn": (
        lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.YARN),
        "rope.scaling.type is 'yarn'.*supported are none and linear",
    ),
    "experts": (lambda w: w.add_expert_count(8), "llama.expert_count is set"),
    "window": (lambda w: w.add_sliding_window(64), "llama.attention.sliding_window is set"),
    "split": (lambda w: w.add_uint16("split.count", 3), "one of several files"),
}


@pytest.mark.parametrize(("keys", "said"), _REFUSED.values(), ids=_REFUSED.keys())
def test_settings_that_are_not_computed_are_refused_by_name(
    keys: Keys, said: str, tmp_path: Path
) -> None:
    config = gguf_config()
    write_gguf(tmp_path / "m.gguf", config, gguf_model(config).tensors(), keys=keys)
    with pytest.raises(ModelError, match=said):
        load_model(str(tmp_path / "m.gguf"))


def test_another_architecture_is_refused_by_name(tmp_path: Path) -> None:
    config = gguf_config()
    tensors = gguf_model(config).tensors()
    write_gguf(tmp_path / "m.gguf", config, tensors, architecture="gemma3")
    with pytest.raises(ModelError, match=r"m.gguf: the architecture 'gemma3' .* llama, qwen2"):
        load_model(str(tmp_path / "m.gguf"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("model.layers.1.mlp.up_proj.weight"), "lacks model.layers.1.mlp.up_proj"),
        (lambda t: t.pop("model.embed_tokens.weight"), "lacks the tensor token_embd.weight"),
        (
            lambda t: t.update({"model.layers.2.mlp.up_proj.weight": torch.zeros(2, 32)}),
            "no place for: model.layers.2",
        ),
        (
            lambda t: t.update({"model.norm.weight": torch.ones(32)}),
            r"model.norm.weight has shape \[32\]",
        ),
        (
            lambda t: t["model.layers.0.mlp.up_proj.weight"].fill_(math.nan),
            "model.layers.0.mlp.up_proj.weight holds NaN or infinite",
        ),
        (
            lambda t: t.update({"model.embed_tokens.weight": torch.zeros(299, 64)}),
            "300 tokens, and the embedding 299 rows",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    change: Callable[[dict[str, torch.Tensor]], object], said: str, tmp_path: Path
) -> None:
    config = gguf_config()
    tensors = gguf_model(config).tensors()
    names = [f"<t{i}>" for i in range(300)]
    change(tensors)
    write_gguf(tmp_path / "m.gguf", config, tensors, tokens=None if "rows" not in said else names)
    with pytest.raises(ModelError, match=said):
        load_model(str(tmp_path / "m.gguf"))


def test_a_bias_in_blocks_is_refused_by_name(tmp_path: Path) -> None:
    config = gguf_config(attention_bias=True)
    tensors = gguf_model(config).tensors()
    name = "model.layers.1.self_attn.k_proj.bias"
    bias, eight = tensors.pop(name).numpy(), gguf.GGMLQuantizationType.Q8_0

    def keys(writer: gguf.GGUFWriter) -> None:
        blocks = gguf.quants.quantize(bias, eight)
        writer.add_tensor(names_in_gguf(name), blocks, raw_dtype=eight)

    write_gguf(tmp_path / "m.gguf", config, tensors, keys=keys)
    for read in (load_model, inspect_model):
        with pytest.raises(ModelError, match=f"tensor {name} is a bias in blocks .Q8_0."):
            read(str(tmp_path / "m.gguf"))


def test_an_infinite_scale_is_found(tmp_path: Path) -> None:
    config = gguf_config()
    path = tmp_path / "m.gguf"
    write_gguf(path, config, gguf_model(config).tensors(), kind="Q4_0")
    files = read_model_files(path)
    assert isinstance(files.checkpoint, GgufWeights)
    name = "model.layers.1.self_attn.q_proj.weight"
    content = bytearray(path.read_bytes())
    rows = gguf.GGUFReader(path)
    at = next(t.data_offset for t in rows.tensors if t.name == "blk.1.attn_q.weight")
    content[at : at + 2] = b"\x00\x7c"
    path.write_bytes(bytes(content))
    for read in (load_model, inspect_model):
        with pytest.raises(ModelError, match=f"tensor {name} holds NaN or infinite"):
            read(str(path))


def test_the_model_s_own_sampling_is_read(tmp_path: Path) -> None:
    def keys(writer: gguf.GGUFWriter) -> None:
        writer.add_float32("general.sampling.temp", 0.7)
        writer.add_int32("general.sampling.top_k", 20)
        writer.add_float32("general.sampling.top_p", 0.8)

    config = gguf_config()
    write_gguf(tmp_path / "m.gguf", config, gguf_model(config).tensors(), keys=keys)
    found = read_model_files(tmp_path / "m.gguf")
    values = found.sampling_defaults
    assert (values.temperature, values.top_k, values.top_p) == (0.7, 20, 0.8)
    assert found.settings.chat_template == TEMPLATE
    assert dict(found.settings.special_tokens) == {
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
    }
