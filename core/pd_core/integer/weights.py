"""Weights as integers: how a checkpoint's rows are rounded, and how the kernels want them to lie.

Legend: N output features, K input features, both padded with zeros to multiples of 32.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_core.models.config import ModelConfig

__all__ = [
    "GROUP",
    "PANEL",
    "IntegerWeight",
    "LayerWeights",
    "Rounded",
    "Take",
    "layer_weights",
    "padded",
    "quotient",
    "round_rows",
    "scaled_rows",
]

PANEL = 16
"""Rows of a weight that the kernels compute together."""

GROUP = 32
"""Elements of a row that share a step, in weights of 4 bits."""

_PADDED = 32
_TOP = 127
_ZERO = 2.0**-100

Take = Callable[[str], Tensor]
"""Returns a checkpoint's tensor by name, as float32."""


@dataclass(frozen=True, slots=True)
class IntegerWeight:
    """A linear layer's weight: integers times a scale for each row.

    Attributes:
        codes: (N, K), int8: the integers; or with steps -8 .. 7, which count a group's step.
        scales: (N,), float32.
        bias: (N,), float32, or None.
        planes: bytes of its activations: 2 for 12 bits, 1 for 8 bits and a shift for each group.
        steps: (N, K / 32), uint8, 1 .. 63; None: the codes have 8 bits.
    """

    codes: Tensor
    scales: Tensor
    bias: Tensor | None = None
    planes: int = 2
    steps: Tensor | None = None

    @property
    def bits(self) -> int:
        """Bits of a code: 8 or 4."""
        return 8 if self.steps is None else 4

    def integers(self) -> Tensor:
        """Return the weight's integers (N, K): int8, or of 4 bits int16 within -504 .. 441."""
        if self.steps is None:
            return self.codes
        each = self.steps.repeat_interleave(GROUP, 1)[:, : self.codes.shape[1]]
        return self.codes.to(torch.int16) * each

    def to_panels(self) -> Tensor:
        """Return the codes in the kernels' order, uint8; see `pd_linear` in kernel.h.

        Returns:
            (N / 16, K / 4, 16, 4): codes plus 128; or of 4 bits (N / 16, K / 32, 4, 16, 4): two
            codes plus 8 in a byte, elements i and i + 16 of a group.
        """
        rows, cols = self.codes.shape
        if self.steps is None:
            unsigned = self.codes.view(torch.uint8) ^ 128
            panels = unsigned.view(rows // PANEL, PANEL, cols // 4, 4)
            return panels.transpose(1, 2).contiguous()
        halves = (self.codes + 8).view(torch.uint8).view(rows, cols // GROUP, 2, GROUP // 2)
        pairs = halves[:, :, 0] | halves[:, :, 1] << 4
        panels = pairs.view(rows // PANEL, PANEL, cols // GROUP, 4, 4)
        return panels.permute(0, 2, 3, 1, 4).contiguous()

    def step_panels(self) -> Tensor | None:
        """Return the steps in the kernels' order, (N / 16, K / 32, 16), uint8."""
        if self.steps is None:
            return None
        rows, groups = self.steps.shape
        return self.steps.view(rows // PANEL, PANEL, groups).transpose(1, 2).contiguous()

    def to(self, device: torch.device) -> "IntegerWeight":
        """Return the same on a device."""
        return IntegerWeight(
            self.codes.to(device),
            self.scales.to(device),
            None if self.bias is None else self.bias.to(device),
            self.planes,
            None if self.steps is None else self.steps.to(device),
        )


Rounded = Callable[[str], IntegerWeight]
"""Returns a linear layer's weight by its tensor's name: integers, not padded, without bias."""


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


def scaled_rows(x: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Scale rows (..., K) to at most `top`; return those and what a unit stands for, (..., 1).

    A row whose largest element is below 2^-100 counts as zeros: its factor would overflow.
    """
    most = x.abs().amax(-1, keepdim=True)
    zero = most < _ZERO
    scaled = torch.where(zero, 0.0, x * torch.where(zero, 0.0, quotient(top, most)))
    return scaled, torch.where(zero, 0.0, quotient(most, top))


def round_rows(weight: Tensor) -> IntegerWeight:
    """Round a float32 weight (N, K) to 8 bits, each row by its largest element; not padded."""
    scaled, scales = scaled_rows(weight, _TOP)
    return IntegerWeight(torch.round(scaled).to(torch.int8), scales[:, 0])


def padded(weight: IntegerWeight) -> IntegerWeight:
    """Pad a weight with zeros to multiples of 32."""
    rows, cols = weight.codes.shape
    more, wider = -rows % _PADDED, -cols % _PADDED
    steps, bias = weight.steps, weight.bias
    return replace(
        weight,
        codes=F.pad(weight.codes, (0, wider, 0, more)),
        scales=F.pad(weight.scales, (0, more)),
        bias=None if bias is None else F.pad(bias, (0, more)),
        steps=None if steps is None else F.pad(steps, (0, 0, 0, more)),
    )


def _stacked(weights: Sequence[IntegerWeight]) -> IntegerWeight:
    """Lay the rows of weights below each other."""
    weights = _alike(weights)
    steps = [weight.steps for weight in weights if weight.steps is not None]
    return IntegerWeight(
        torch.cat([weight.codes for weight in weights]),
        torch.cat([weight.scales for weight in weights]),
        steps=torch.cat(steps) if steps else None,
    )


def _alike(weights: Sequence[IntegerWeight]) -> Sequence[IntegerWeight]:
    """Round those of 4 bits to 8 if others have 8."""
    if len({weight.bits for weight in weights}) == 1:
        return weights
    return [weight if weight.bits == 8 else _of_eight_bits(weight) for weight in weights]


def _of_eight_bits(weight: IntegerWeight) -> IntegerWeight:
    rounded = round_rows(weight.integers().float() * weight.scales[:, None])
    return replace(rounded, bias=weight.bias)


def layer_weights(
    config: ModelConfig, index: int, take: Take, rounded: Rounded | None = None
) -> LayerWeights:
    """Round one layer of a checkpoint; its float tensors are held one at a time.

    Args:
        config: the model's; without a latent.
        index: the layer, from 0.
        take: returns a tensor of the checkpoint by its name.
        rounded: returns the linear layers' weights; None: those that `take` returns are rounded to
            8 bits. Layers that are computed together have the larger of their bits.
    """

    def tensor(name: str) -> Tensor:
        return take(f"model.layers.{index}.{name}")

    def integers(name: str) -> IntegerWeight:
        full = f"model.layers.{index}.{name}.weight"
        return round_rows(take(full)) if rounded is None else rounded(full)

    def fused(names: Sequence[str], *, biased: bool) -> IntegerWeight:
        whole = _stacked([integers(name) for name in names])
        bias = torch.cat([tensor(f"{name}.bias") for name in names]) if biased else None
        return padded(replace(whole, bias=bias))

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

    gate, up = _alike((gate, up))
    both_biased = gate.bias is not None and up.bias is not None
    both_stepped = gate.steps is not None and up.steps is not None
    return IntegerWeight(
        woven(gate.codes, up.codes),
        woven(gate.scales, up.scales),
        woven(gate.bias, up.bias) if both_biased else None,  # type: ignore[arg-type]
        planes=1,
        steps=woven(gate.steps, up.steps) if both_stepped else None,  # type: ignore[arg-type]
    )
