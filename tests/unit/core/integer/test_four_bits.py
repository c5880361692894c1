"""Weights of 4 bits: every way of computing gives the bits of the definition."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pd_core.integer import reference, torch_passes
from pd_core.integer.group_rounding import round_groups
from pd_core.integer.kernel_library import kernel_library
from pd_core.integer.native_passes import NativePasses
from pd_core.integer.weights import IntegerWeight, layer_weights, padded, round_rows
from pd_core.models.config import ModelConfig
from tests.integer_models import WAYS, way, weights_of

FOUR, EIGHT = 4, 8


def weight_of(
    rows: int, cols: int, bits: int, planes: int, seed: int, *, most: bool
) -> IntegerWeight:
    """Return a padded weight: random, or of the largest integers that there are."""
    generator = torch.Generator().manual_seed(seed)

    def whole(low: int, high: int, *shape: int) -> torch.Tensor:
        if most:
            return torch.full(shape, low if bits == FOUR and low < 0 else high)
        return torch.randint(low, high + 1, shape, generator=generator)

    scales = torch.rand(rows, generator=generator) + 0.5
    bias = torch.randn(rows, generator=generator) if seed % 2 else None
    if bits == EIGHT:
        codes = whole(-127, 127, rows, cols).to(torch.int8)
        return padded(IntegerWeight(codes, scales, bias, planes))
    steps = whole(1, 63, rows, -(-cols // 32)).to(torch.uint8)
    codes = whole(-8, 7, rows, cols).to(torch.int8)
    return padded(IntegerWeight(codes, scales, bias, planes, steps))


def by_reference(x: torch.Tensor, weight: IntegerWeight) -> torch.Tensor:
    whole = weight.codes.numpy().astype(np.int64)
    if weight.steps is not None:
        whole = whole * np.repeat(weight.steps.numpy().astype(np.int64), 32, axis=1)
    bias = None if weight.bias is None else weight.bias.numpy()
    cols = x.shape[1]
    out = reference.linear(
        x.numpy(), whole[:, :cols], weight.scales.numpy(), bias, planes=weight.planes
    )
    return torch.from_numpy(out)


def by_kernels(x: torch.Tensor, weight: IntegerWeight) -> torch.Tensor:
    """Compute as the output layer does: the kernels' one way to a single product."""
    library = kernel_library()
    assert library is not None, "the way at hand needs it"
    cols = weight.codes.shape[1]
    # No layers: what no model's config may say.
    shape = SimpleNamespace(hidden_size=cols, intermediate_size=32, num_layers=0, num_heads=1)
    config: Any = SimpleNamespace(**vars(shape), num_kv_heads=1, head_dim=16, rms_norm_eps=1e-5)
    passes = NativePasses(library, config, weight)
    rows = torch.nn.functional.pad(x, (0, cols - x.shape[1]))
    return passes.logits(rows)


def check(x: torch.Tensor, weight: IntegerWeight, name: str) -> None:
    expected = by_reference(x, weight)
    assert torch.equal(torch_passes.linear(x, weight), expected), "torch"
    with pytest.MonkeyPatch.context() as monkeypatch, way(monkeypatch, name):
        if name != "off":
            assert torch.equal(by_kernels(x, weight), expected), name


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("planes", [1, 2])
@pytest.mark.parametrize(("bits", "cols"), [(4, 2048), (4, 2112), (4, 6176), (8, 8192), (8, 8224)])
def test_the_largest_sums_fit(name: str, planes: int, bits: int, cols: int) -> None:
    """Groups whose sums 32 bits still hold, and one more group than those."""
    weight = weight_of(32, cols, bits, planes, seed=0, most=True)
    largest = torch.full((5, cols), -1.0)  # every integer of a row is the largest
    largest[1] = 1.0
    largest[2, ::2] = 0.0
    check(largest, weight, name)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_shape(data: st.DataObject) -> None:
    rows, cols = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 300))
    planes, bits = data.draw(st.sampled_from([1, 2])), data.draw(st.sampled_from([FOUR, EIGHT]))
    seed, count = data.draw(st.integers(0, 99)), data.draw(st.integers(1, 9))
    weight = weight_of(rows, cols, bits, planes, seed, most=False)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, cols, generator=generator)
    x *= (
        2.0
        ** torch.randint(-9, 9, (count, -(-cols // 32)), generator=generator).repeat_interleave(
            32, 1
        )[:, :cols]
    )
    if data.draw(st.booleans()):
        x[0] = 0.0
    for name in WAYS:
        try:
            check(x, weight, name)
        except pytest.skip.Exception:
            continue


def test_layers_computed_together_have_the_larger_of_their_bits() -> None:
    config = ModelConfig(100, 64, 96, 1, 4, 2, 16, 2048)
    tensors = weights_of(config)
    kept = {"q_proj": EIGHT, "gate_proj": EIGHT, "v_proj": FOUR}

    def rounded(name: str) -> IntegerWeight:
        eight = kept.get(name.split(".")[-2]) == EIGHT
        return round_rows(tensors[name]) if eight else round_groups(tensors[name])

    layer = layer_weights(config, 0, tensors.__getitem__, rounded)
    assert [w.bits for w in (layer.qkv, layer.out, layer.gate_up, layer.down)] == [8, 4, 8, 4]
    queries = round_rows(tensors["model.layers.0.self_attn.q_proj.weight"])
    assert torch.equal(layer.qkv.codes[:64], queries.codes)
    keys = tensors["model.layers.0.self_attn.k_proj.weight"]
    found = layer.qkv.codes[64:96].float() * layer.qkv.scales[64:96, None]
    largest = float(keys.abs().max())
    assert torch.allclose(found, keys, atol=largest / 6)
    gate = round_rows(tensors["model.layers.0.mlp.gate_proj.weight"])
    assert torch.equal(layer.gate_up.codes[:16], gate.codes[:16])
