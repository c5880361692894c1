"""Weights as integers: how a checkpoint's rows are rounded, and how the kernels want them to lie.

Legend: N output features, K input features, both padded with zeros to multiples of 32.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_core.models.config import ModelConfig

__all__ = [
    "PANEL",
    "IntegerWeight",
    "LayerWeights",
    "Take",
    "layer_weights",
    "quotient",
    "round_rows",
]

PANEL = 16
"""Rows of a weight that the kernels compute together."""

_PADDED = 32
_TOP = 127
_ZERO = 2.0**-100

Take = Callable[[str], Tensor]
"""Returns a checkpoint's tensor by name, as float32."""


@dataclass(frozen=True, slots=True)
class IntegerWeight:
    """A linear layer's weight: codes times a scale for each row.

    Attributes:
        codes: (N, K), int8.
        scales: (N,), float32.
        bias: (N,), float32, or None.
        planes: bytes of its activations: 2 for 12 bits, 1 for 8 bits and a shift for each group.
    """

    codes: Tensor
    scales: Tensor
    bias: Tensor | None = None
    planes: int = 2

    def to_panels(self) -> Tensor:
        """Return the codes plus 128 in the kernels' order, (N / 16, K / 4, 16, 4), uint8."""
        rows, cols = self.codes.shape
        unsigned = self.codes.view(torch.uint8) ^ 128
        panels = unsigned.view(rows // PANEL, PANEL, cols // 4, 4)
        return panels.transpose(1, 2).contiguous()


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer.

    Attributes:
        qkv: queries, own keys and own values.
        out: the attention's output.
        gate_up: 16 rows of gate, then the same 16 of up, and so on.
        down: the MLP's output.
        input_norm, post_norm: (hidden,).
        query_norm, key_norm: (head_dim,), or None.
        own_keys, own_values: heads that the layer caches.
        key_layer: whose keys it reads.
    """

    qkv: IntegerWeight
    out: IntegerWeight
    gate_up: IntegerWeight
    down: IntegerWeight
    input_norm: Tensor
    post_norm: Tensor
    query_norm: Tensor | None
    key_norm: Tensor | None
    own_keys: int
    own_values: int
    key_layer: int


def quotient(a: Tensor | int, b: Tensor | int) -> Tensor:
    """Divide with one rounding; torch's own by or of a number may multiply by a reciprocal."""
    one = a if isinstance(a, Tensor) else b
    assert isinstance(one, Tensor), "one of the two is a tensor"
    a, b = (t if isinstance(t, Tensor) else torch.full_like(one, t) for t in (a, b))
    return a / b


def round_rows(weight: Tensor, bias: Tensor | None = None) -> IntegerWeight:
    """Round a float32 weight (N, K) to 8 bits, each row by its largest element."""
    most = weight.abs().amax(1, keepdim=True)
    factor = torch.where(most < _ZERO, torch.zeros_like(most), quotient(_TOP, most))
    codes = torch.round(weight * factor).to(torch.int8)
    scales = torch.where(most < _ZERO, torch.zeros_like(most), quotient(most, _TOP))[:, 0]
    rows, cols = weight.shape
    more = -rows % _PADDED
    return IntegerWeight(
        F.pad(codes, (0, -cols % _PADDED, 0, more)),
        F.pad(scales, (0, more)),
        None if bias is None else F.pad(bias.float(), (0, more)),
    )


def layer_weights(config: ModelConfig, index: int, take: Take) -> LayerWeights:
    """Round one layer of a checkpoint; its float tensors are held one layer at a time.

    Args:
        config: the model's; without a latent.
        index: the layer, from 0.
        take: returns a tensor of the checkpoint by its name.
    """

    def tensor(name: str) -> Tensor:
        return take(f"model.layers.{index}.{name}")

    def fused(names: Sequence[str], *, biased: bool) -> IntegerWeight:
        weight = torch.cat([tensor(f"{name}.weight") for name in names])
        bias = torch.cat([tensor(f"{name}.bias") for name in names]) if biased else None
        return round_rows(weight, bias)

    own_keys, own_values = config.num_key_heads(index), config.num_value_heads(index)
    made = ["self_attn.q_proj", *["self_attn.k_proj"] * (own_keys > 0), "self_attn.v_proj"]
    has_norms = config.qk_norm
    return LayerWeights(
        qkv=fused(made, biased=config.qkv_bias),
        out=fused(["self_attn.o_proj"], biased=config.attention_bias),
        gate_up=_interleaved(
            fused(["mlp.gate_proj"], biased=config.mlp_bias),
            fused(["mlp.up_proj"], biased=config.mlp_bias),
        ),
        down=fused(["mlp.down_proj"], biased=config.mlp_bias),
        input_norm=tensor("input_layernorm.weight"),
        post_norm=tensor("post_attention_layernorm.weight"),
        query_norm=tensor("self_attn.q_norm.weight") if has_norms else None,
        key_norm=tensor("self_attn.k_norm.weight") if has_norms and own_keys else None,
        own_keys=own_keys,
        own_values=own_values,
        key_layer=config.key_layer(index),
    )


def _interleaved(gate: IntegerWeight, up: IntegerWeight) -> IntegerWeight:
    """Lay gate and up so that a panel of each is computed together."""

    def woven(first: Tensor, second: Tensor) -> Tensor:
        panels = [t.view(-1, PANEL, *t.shape[1:]) for t in (first, second)]
        return torch.stack(panels, dim=1).flatten(0, 2)

    both_biased = gate.bias is not None and up.bias is not None
    return IntegerWeight(
        woven(gate.codes, up.codes),
        woven(gate.scales, up.scales),
        woven(gate.bias, up.bias) if both_biased else None,  # type: ignore[arg-type]
        planes=1,
    )
