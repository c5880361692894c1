"""Weights as integers: how a checkpoint's rows are rounded, and how the kernels want them to lie.

Legend: N output features, K input features, both padded with zeros to multiples of 32.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_core.models.config import ModelConfig

__all__ = [
    "EMBEDDING",
    "GROUP",
    "HEAD",
    "PADDED",
    "PANEL",
    "IntegerWeight",
    "LayerWeights",
    "Rounded",
    "Take",
    "layer_weights",
    "padded",
    "quotient",
    "round_parts",
    "round_rows",
    "scaled_rows",
]

PANEL = 16
"""Rows of a weight that the kernels compute together."""

GROUP = 32
"""Elements of a row that share a step, in weights of 4 bits."""

PADDED = 32
"""Both sizes of a weight are multiples of it."""

EMBEDDING = "model.embed_tokens.weight"
"""The embedding's name, as in Hugging Face's checkpoints."""

HEAD = "lm_head.weight"
"""The output layer's name; there is none where it is the embedding."""

_TOP = 127
_ZERO = 2.0**-100
_TOGETHER = 1 << 18  # numbers: what stays in a processor's cache is quickest, and takes no memory

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

    @property
    def panels_shape(self) -> tuple[int, ...]:
        """The shape of the codes in the kernels' order; see `write_panels`."""
        rows, cols = self.codes.shape
        if self.steps is None:
            return rows // PANEL, cols // 4, PANEL, 4
        return rows // PANEL, cols // GROUP, 4, PANEL, 4

    def write_panels(self, to: Tensor) -> None:
        """Write the codes in the kernels' order; see `pd_linear` in kernel.h.

        Args:
            to: uint8, contiguous. (N / 16, K / 4, 16, 4): codes plus 128; or of 4 bits
                (N / 16, K / 32, 4, 16, 4): two codes plus 8 in a byte, elements i and i + 16 of a
                group.
        """
        panels = max(1, _TOGETHER // (PANEL * self.codes.shape[1]))
        for part, codes in zip(
            torch.split(to, panels), torch.split(self.codes, panels * PANEL), strict=True
        ):
            fours = (codes if self.steps is None else _pairs(codes)).view(torch.int32)
            within = fours.view(-1, PANEL, part[0].numel() // (4 * PANEL)).transpose(1, 2)
            part.view(torch.int32).view(within.shape).copy_(within)
            if self.steps is None:
                part.bitwise_xor_(128)  # which adds 128

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
    return round_parts([weight], *weight.shape)


def round_parts(parts: Iterable[Tensor], rows: int, cols: int) -> IntegerWeight:
    """Round a weight as `round_rows`, of which a few rows are in memory as floats at a time.

    Args:
        parts: the weight's consecutive rows, of any dtype of floats.
        rows, cols: its shape.

    Returns:
        With scales that are not finite where a row is not.
    """
    codes = scales = torch.empty(0)
    row = 0
    for part in parts:
        if not row:
            codes = torch.empty(rows, cols, dtype=torch.int8, device=part.device)
            scales = torch.empty(rows, device=part.device)
        for some in torch.split(part, max(1, _TOGETHER // cols)):
            scaled, units = scaled_rows(some.float(), _TOP)
            end = row + len(some)
            codes[row:end] = scaled.round_()
            scales[row:end] = units[:, 0]
            row = end
    return IntegerWeight(codes, scales)


def padded(weight: IntegerWeight) -> IntegerWeight:
    """Pad a weight with zeros to multiples of 32."""
    rows, cols = weight.codes.shape
    more, wider = -rows % PADDED, -cols % PADDED
    if not more and not wider:
        return weight
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
    if len(weights) == 1:
        return weights[0]
    weights = _alike(weights)
    steps = [weight.steps for weight in weights if weight.steps is not None]
    return IntegerWeight(
        torch.cat([weight.codes for weight in weights]),
        torch.cat([weight.scales for weight in weights]),
        steps=torch.cat(steps) if steps else None,
    )


def _pairs(codes: Tensor) -> Tensor:
    """Put two codes of 4 bits (N, K) into a byte, (N, K / 2), plus 8 each."""
    halves = (codes + 8).view(torch.uint8).view(len(codes), -1, 2, GROUP // 2)
    return (halves[:, :, 0] | halves[:, :, 1] << 4).flatten(1)


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
        take: returns a tensor of the checkpoint by its name; they are taken sorted by name.
        rounded: returns the linear layers' weights; None: those that `take` returns are rounded to
            8 bits. Layers that are computed together have the larger of their bits.
    """
    own_keys, own_values = config.num_key_heads(index), config.num_value_heads(index)
    made = ["self_attn.q_proj", *["self_attn.k_proj"] * (own_keys > 0), "self_attn.v_proj"]
    biased = dict.fromkeys(made, config.qkv_bias)
    biased["self_attn.o_proj"] = config.attention_bias
    biased |= dict.fromkeys(("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"), config.mlp_bias)
    names = [f"{name}.weight" for name in (*biased, *_norms(config, own_keys))]
    names += [f"{name}.bias" for name in biased if biased[name]]
    weights: dict[str, IntegerWeight] = {}
    plain: dict[str, Tensor] = {}
    for name in sorted(names):
        full, layer = f"model.layers.{index}.{name}", name.removesuffix(".weight")
        if layer in biased:
            weights[layer] = round_rows(take(full)) if rounded is None else rounded(full)
        else:
            plain[layer] = take(full)

    def fused(*names: str) -> IntegerWeight:
        whole = _stacked([weights.pop(name) for name in names])
        biases = [plain[f"{name}.bias"] for name in names if biased[name]]
        return padded(replace(whole, bias=torch.cat(biases) if biases else None))

    return LayerWeights(
        qkv=fused(*made),
        out=fused("self_attn.o_proj"),
        gate_up=_interleaved(fused("mlp.gate_proj"), fused("mlp.up_proj")),
        down=fused("mlp.down_proj"),
        input_norm=plain["input_layernorm"],
        post_norm=plain["post_attention_layernorm"],
        query_norm=plain.get("self_attn.q_norm"),
        key_norm=plain.get("self_attn.k_norm"),
        own_keys=own_keys,
        own_values=own_values,
        key_layer=config.key_layer(index),
    )


def _norms(config: ModelConfig, own_keys: int) -> list[str]:
    heads = ["self_attn.q_norm", *["self_attn.k_norm"] * (own_keys > 0)]
    return ["input_layernorm", "post_attention_layernorm", *(heads if config.qk_norm else [])]


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
