"""A layer whose weight is packed: what it computes, gives back and keeps in memory."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pd_core.checkpoints.random_tiny import random_tiny_config
from pd_core.identity.numerics import Numerics, unchecked
from pd_core.models import CausalLM
from pd_core.models.linear import ReproducibleLinear, can_pack, linear

PACKED = unchecked("cpu", packed=True)

pytestmark = pytest.mark.skipif(not can_pack(), reason="this torch packs no weights here")


def layer(numerics: Numerics, *, bias: bool = True) -> ReproducibleLinear:
    made = ReproducibleLinear(
        24, 40, bias=bias, numerics=numerics, dtype=torch.float32, device=torch.device("cpu")
    )
    for tensor in made.split({"all": 40}).values():
        tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1)))
    return made


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [0, 1, 3, 4, 37, 130, 600])
def test_a_packed_layer_maps_as_a_plain_one(rows: int, bias: bool) -> None:
    x = torch.randn(rows, 24)
    plain, packed = layer(unchecked("cpu"), bias=bias), layer(PACKED, bias=bias)
    assert packed(x).shape == (rows, 40)
    torch.testing.assert_close(packed(x), plain(x))


def test_weights_come_back_to_the_bit_and_may_be_written_again() -> None:
    packed, x = layer(PACKED), torch.randn(5, 24)
    wanted = {name: tensor.clone() for name, tensor in packed.split({"a": 8, "b": 32}).items()}
    first = packed(x)
    assert packed.weight.numel() == 0, "two copies of the weight are kept"
    found = packed.split({"a": 8, "b": 32})
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    found["a.weight"].mul_(2)
    found["a.bias"].mul_(2)
    second = packed(x)
    torch.testing.assert_close(second[:, :8], 2 * first[:, :8])
    assert torch.equal(second[:, 8:], first[:, 8:])


def test_a_shared_weight_stays() -> None:
    packed, x = layer(PACKED, bias=False), torch.randn(5, 24)
    shared = torch.nn.Parameter(torch.randn(40, 24), requires_grad=False)
    packed.share(shared)
    torch.testing.assert_close(packed(x), linear(x, shared, None, unchecked("cpu")))
    assert shared.shape == (40, 24)
    packed.unpack()
    shared.data.mul_(2)
    torch.testing.assert_close(packed(x), linear(x, shared, None, unchecked("cpu")))


@given(rows=st.integers(0, 3000), least=st.sampled_from([1, 4, 8, 16]), packed=st.booleans())
def test_padding_is_enough_and_little(rows: int, least: int, packed: bool) -> None:
    padded = replace(PACKED, min_rows=least, packed=packed).padded_rows(rows)
    assert padded >= max(rows, least)
    assert padded - max(rows, least) < (max(rows / 4, 4) if packed else 1)


def test_kernels_are_few() -> None:
    assert len({PACKED.padded_rows(rows) for rows in range(1, 513)}) < 40


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_keeps_one_copy_of_what_it_packs(tied: bool) -> None:
    config = replace(random_tiny_config(1024), tie_word_embeddings=tied)
    model = CausalLM(config, PACKED)
    for tensor in model.tensors().values():
        tensor.fill_(0.01)
    plain = {name: parameter.numel() for name, parameter in model.named_parameters()}
    model.warm_up()
    packed = {name: parameter.numel() for name, parameter in model.named_parameters()}
    emptied = {name for name in plain if packed[name] == 0}
    assert emptied == {n for n in plain if n.endswith("_proj.weight") or n == "lm_head.weight"}
    model.tensors()
    assert {name: parameter.numel() for name, parameter in model.named_parameters()} == plain
