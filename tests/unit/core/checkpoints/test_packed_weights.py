"""Directories of quantised weights: what is read, as floats and integers, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from pd_core.checkpoints.loading import load_model, save_model
from pd_core.checkpoints.model_directory import ModelDirectory
from pd_core.checkpoints.packed_weights import pack, unpack
from pd_core.checkpoints.quantization_config import (
    PackedScheme,
    quantization_config,
    read_schemes,
)
from pd_core.errors import ModelError
from pd_core.integer.weights import round_rows

Tensors = dict[str, Tensor]
GATE = "model.layers.0.mlp.gate_proj.weight"
ROWS_8 = PackedScheme("int-quantized", 8, 0)
PACKED_8 = PackedScheme("pack-quantized", 8, 0)
GROUPS_4 = PackedScheme("pack-quantized", 4, 32)
WIDE_GROUPS_4 = PackedScheme("pack-quantized", 4, 64)
ROWS_4 = PackedScheme("pack-quantized", 4, 0)


def rounded(weight: Tensor, scheme: PackedScheme) -> tuple[Tensor, Tensor, Tensor]:
    """Return a weight's codes, scales (N, groups) and what they stand for, simply rounded."""
    most = 1 << scheme.bits - 1
    parts = torch.split(weight, scheme.group or weight.shape[1], dim=1)
    scales = torch.stack([part.abs().amax(1) / most for part in parts], dim=1).half().float()
    each = scales.repeat_interleave(scheme.group or weight.shape[1], 1)[:, : weight.shape[1]]
    codes = (weight / each).round().clamp(-most, most - 1).to(torch.int8)
    return codes, scales, codes.float() * each


def directory(folder: Path, scheme: PackedScheme) -> tuple[Path, Tensors]:
    """Write a small model in a scheme; return the directory, and the weights as floats."""
    plain = load_model("random-tiny")
    save_model(folder, plain.float_model, plain.tokenizer)
    stored, floats = load_file(folder / "model.safetensors"), dict[str, Tensor]()
    for name in [n for n in stored if n.endswith("_proj.weight")]:
        weight = stored.pop(name)
        codes, scales, floats[name] = rounded(weight, scheme)
        stored[f"{name}_scale"] = scales.to(torch.bfloat16 if scheme == PACKED_8 else torch.float32)
        if scheme == PACKED_8:
            floats[name] = codes.float() * stored[f"{name}_scale"].float()
        if scheme == ROWS_8:
            stored[name] = codes
        else:
            stored[f"{name}_packed"] = pack(codes, scheme.bits)
            stored[f"{name}_shape"] = torch.tensor(weight.shape)
    save_file(stored, folder / "model.safetensors")
    edit_config(folder, lambda raw: raw.update(quantization_config=config_of(scheme)))
    return folder, floats


def config_of(scheme: PackedScheme = GROUPS_4) -> dict[str, Any]:
    return quantization_config({scheme: ["gate_proj"]})


def edit_config(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    raw = json.loads((folder / "config.json").read_text())
    change(raw)
    (folder / "config.json").write_text(json.dumps(raw))


@given(data=st.data())
def test_words_give_the_codes_back(data: st.DataObject) -> None:
    bits = data.draw(st.sampled_from([4, 8]))
    rows, cols = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    most = 1 << bits - 1
    codes = torch.randint(-most, most, (rows, cols), generator=generator).to(torch.int8)
    words = pack(codes, bits)
    assert words.shape == (rows, -(-cols * bits // 32))
    assert torch.equal(unpack(words, bits, cols), codes)


def test_the_first_code_lies_in_the_lowest_bits() -> None:
    codes = torch.tensor([[-8, -7, -6, -5, -4, -3, -2, 7]], dtype=torch.int8)
    assert pack(codes, 4).item() == 0xF6543210 - (1 << 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheme",
    [ROWS_8, PACKED_8, GROUPS_4, WIDE_GROUPS_4, ROWS_4],
    ids=lambda s: f"{s.bits} {s.group}",
)
def test_a_directory_is_read_as_what_its_numbers_stand_for(
    scheme: PackedScheme, tmp_path: Path
) -> None:
    folder, floats = directory(tmp_path / "model", scheme)
    tensors = load_model(str(folder)).float_model.tensors()
    for name, expected in floats.items():
        assert torch.equal(tensors[name], expected), name
    checkpoint = ModelDirectory(folder).checkpoint
    assert f"int{scheme.bits}" in checkpoint.verify(tensors, tied_head=True)
    for name, expected in floats.items():
        whole = checkpoint.integers(name)
        back = whole.integers().float() * whole.scales[:, None]
        if whole.bits == scheme.bits:
            assert torch.allclose(back, expected, rtol=1e-6, atol=0.0)
        else:  # groups whose scales are no multiples of their row's
            assert scheme.group
            assert torch.equal(whole.codes, round_rows(expected).codes)


def test_rows_of_eight_bits_are_taken_as_they_are(tmp_path: Path) -> None:
    folder, _ = directory(tmp_path / "model", ROWS_8)
    whole = ModelDirectory(folder).checkpoint.integers(GATE)
    stored = load_file(folder / "model.safetensors")
    assert torch.equal(whole.codes, stored[GATE])
    assert torch.equal(whole.scales, stored[f"{GATE}_scale"][:, 0])


def test_the_fingerprint_is_not_that_of_the_same_floats(tmp_path: Path) -> None:
    """In integer numerics the two compute different bits."""
    folder, floats = directory(tmp_path / "model", GROUPS_4)
    packed = load_model(str(folder))
    save_model(tmp_path / "floats", packed.float_model, packed.tokenizer)
    plain = load_model(str(tmp_path / "floats"))
    assert torch.equal(plain.float_model.tensors()[GATE], floats[GATE])
    assert plain.fingerprints.weights != packed.fingerprints.weights
    assert load_model(str(folder)).fingerprints == packed.fingerprints


def set_in(*path: str, to: Any) -> Callable[[dict[str, Any]], None]:
    """Return a change of a group's facts ("...") or of the whole config."""

    def change(raw: dict[str, Any]) -> None:
        place = raw
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = to

    return change


GROUP = ("config_groups", "group_0")
WEIGHTS = (*GROUP, "weights")
REFUSED: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "another method": (set_in("quant_method", to="gptq"), "'gptq'"),
    "no method": (set_in("quant_method", to=None), "quantization_config"),
    "another format": (set_in("format", to="marlin-24"), "'marlin-24'"),
    "floats": (set_in(*WEIGHTS, "type", to="float"), "type 'float'"),
    "two bits": (set_in(*WEIGHTS, "num_bits", to=2), "2 bits"),
    "asymmetric": (set_in(*WEIGHTS, "symmetric", to=False), "symmetric False"),
    "sorted": (set_in(*WEIGHTS, "actorder", to="static"), "actorder 'static'"),
    "blocks": (set_in(*WEIGHTS, "strategy", to="block"), "strategy 'block'"),
    "no group": (set_in(*WEIGHTS, "group_size", to=0), "strategy 'group' of 0"),
    "a group in words": (set_in(*WEIGHTS, "group_size", to="32"), "strategy 'group' of '32'"),
    "no weights": (set_in(*GROUP, "weights", to=None), "weights None"),
    "no groups": (set_in("config_groups", to=[]), "without config_groups"),
    "cached keys": (set_in("kv_cache_scheme", to={"num_bits": 8}), "kv_cache_scheme"),
    "rotated": (set_in("transform_config", to={"config_groups": 1}), "transform_config"),
    "fixed activations": (
        set_in(*GROUP, "input_activations", to={"dynamic": False}),
        "activations that are not dynamic",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_ways_are_refused_by_name(case: str) -> None:
    change, said = REFUSED[case]
    config = config_of()
    change(config)
    with pytest.raises(ModelError, match=said) as refused:
        read_schemes({"quantization_config": config})
    assert "which is not supported" in str(refused.value)


def test_what_is_written_is_read() -> None:
    schemes = {GROUPS_4: ["gate_proj"], PACKED_8: ["down_proj"]}
    config = quantization_config(schemes)
    assert read_schemes({"quantization_config": config}) == tuple(schemes)
    targets = [group["targets"] for group in config["config_groups"].values()]
    assert targets == [["re:.*\\.(gate_proj)$"], ["re:.*\\.(down_proj)$"]]
    assert read_schemes({}) == ()


def nan_scale(stored: Tensors) -> None:
    stored[f"{GATE}_scale"][0, 0] = float("nan")


def negative_scale(stored: Tensors) -> None:
    stored[f"{GATE}_scale"][0, 0] = -1.0


def narrow(stored: Tensors) -> None:
    stored[f"{GATE}_packed"] = stored[f"{GATE}_packed"][:, 1:].contiguous()


def few_scales(stored: Tensors) -> None:
    stored[f"{GATE}_scale"] = stored[f"{GATE}_scale"][:, 1:].contiguous()


def another_shape(stored: Tensors) -> None:
    stored[f"{GATE}_shape"] += 8


def huge_shape(stored: Tensors) -> None:
    stored[f"{GATE}_shape"][:] = 1 << 40


def no_shape(stored: Tensors) -> None:
    del stored[f"{GATE}_shape"]


def bytes_for_words(stored: Tensors) -> None:
    stored[f"{GATE}_packed"] = stored[f"{GATE}_packed"].to(torch.int64)


def zero_points(stored: Tensors) -> None:
    stored[f"{GATE}_zero_point"] = torch.zeros(1, 1, dtype=torch.int32)


def huge_scale(stored: Tensors) -> None:
    stored[f"{GATE}_scale"][0, 0] = 3e38  # finite, but what the codes stand for is not


def no_scale(stored: Tensors) -> None:
    del stored[f"{GATE}_scale"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (nan_scale, "NaN, infinite or negative"),
        (negative_scale, "NaN, infinite or negative"),
        (huge_scale, "or too large ones"),
        (narrow, "none of the ways"),
        (few_scales, "none of the ways"),
        (another_shape, "none of the ways|has shape"),
        (huge_shape, "none of the ways"),
        (no_shape, "weight_shape is missing"),
        (bytes_for_words, "none of the ways"),
        (zero_points, "not symmetric"),
        (no_scale, "quantised .*weight_packed"),
    ],
)
def test_broken_tensors_are_named(
    change: Callable[[Tensors], None], said: str, tmp_path: Path
) -> None:
    folder, _ = directory(tmp_path / "model", GROUPS_4)
    stored = load_file(folder / "model.safetensors")
    change(stored)
    save_file(stored, folder / "model.safetensors")
    with pytest.raises(ModelError, match=said):
        load_model(str(folder))
    with pytest.raises(ModelError, match=said):
        ModelDirectory(folder).checkpoint.integers(GATE)
