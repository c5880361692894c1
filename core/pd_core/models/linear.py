"""Linear layers whose rows do not depend on how many rows are computed together."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pd_core.identity.numerics import Numerics, unchecked

__all__ = [
    "Placement",
    "ReproducibleLinear",
    "add_linear",
    "can_pack",
    "linear",
    "pack",
    "packed_linear",
]

# MKL splits the columns of a result among its threads if it has more columns than rows, and uses
# different code for a share of fewer columns than this. With as many rows as columns it does not.
_NARROW = 12


def can_pack() -> bool:
    """Whether this torch can multiply by packed weights on this machine's CPU."""
    try:
        product = packed_linear(torch.ones(4, 8), pack(torch.ones(8, 8)), None, unchecked("cpu"))
    except (AttributeError, RuntimeError):
        return False
    return bool(torch.equal(product, torch.full((4, 8), 8.0)))


def pack(weight: Tensor) -> Tensor:
    """Return a float32 weight (out, in) in oneDNN's packed order; `to_dense` undoes it."""
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
    return packed


def packed_linear(x: Tensor, packed: Tensor, bias: Tensor | None, numerics: Numerics) -> Tensor:
    """Like `linear`, but two to three times as fast, and with different low-order bits.

    Args:
        x: (R, in), float32.
        packed: a packed weight (out, in).
        bias: (out,) or None.
        numerics: the number of rows x is padded to.
    """
    rows = x.shape[0]
    if pad := numerics.padded_rows(rows) - rows:
        x = F.pad(x, (0, 0, 0, pad))
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return product[:rows] if pad else product


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, numerics: Numerics) -> Tensor:
    """Return x @ weight.T + bias, each row bit-equal whatever the other rows.

    Args:
        x: (R, in).
        weight: (out, in).
        bias: (out,) or None.
        numerics: whether to pad to `min_rows` (to a square when narrow), or to cut into tiles of
            `tile_rows`.
    """
    rows = x.shape[0]
    if numerics.tile_rows:
        tile = numerics.tile_rows
        padded = F.pad(x, (0, 0, 0, -rows % tile))
        return torch.cat([F.linear(part, weight, bias) for part in torch.split(padded, tile)])[
            :rows
        ]
    wanted = numerics.min_rows
    if numerics.reproducible and weight.shape[0] < _NARROW * torch.get_num_threads():
        wanted = max(wanted, weight.shape[0])
    if rows < wanted:
        return F.linear(F.pad(x, (0, 0, 0, wanted - rows)), weight, bias)[:rows]
    return F.linear(x, weight, bias)


def add_linear(total: Tensor, x: Tensor, weight: Tensor, numerics: Numerics) -> Tensor:
    """Return total + x @ weight.T in one product, each row bit-equal whatever the other rows.

    Args:
        total: (R, out); may be overwritten.
        x: (R, in).
        weight: (out, in), with enough rows that no product is narrow.
        numerics: as for `linear`.
    """
    rows = x.shape[0]
    if numerics.tile_rows:
        tile, pad = numerics.tile_rows, (0, 0, 0, -rows % numerics.tile_rows)
        parts = zip(*(torch.split(F.pad(t, pad), tile) for t in (total, x)), strict=True)
        return torch.cat([torch.addmm(sums, part, weight.T) for sums, part in parts])[:rows]
    if rows < numerics.min_rows:
        pad = (0, 0, 0, numerics.min_rows - rows)
        return torch.addmm(F.pad(total, pad), F.pad(x, pad), weight.T)[:rows]
    return total.addmm_(x, weight.T)


class ReproducibleLinear(torch.nn.Module):
    """A linear layer for inference, computed as `Numerics` says.

    If that is with a packed weight, the first call packs it and frees the plain one.

    Attributes:
        out_features: rows of the weight.
        weight: (out, in); empty while packed, unless it is shared.
        bias: (out,) or None.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool,
        numerics: Numerics,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(
            torch.empty(out_features, in_features, dtype=dtype, device=device), requires_grad=False
        )
        self.bias = (
            torch.nn.Parameter(
                torch.empty(out_features, dtype=dtype, device=device), requires_grad=False
            )
            if bias
            else None
        )
        self.out_features = out_features
        self._numerics = numerics
        self._packed: Tensor | None = None
        self._shared = False

    def forward(self, x: Tensor) -> Tensor:
        """Map x: (R, in) to (R, out)."""
        if not self._numerics.packed:
            return linear(x, self.weight, self.bias, self._numerics)
        if self._packed is None:
            self._packed = pack(self.weight)
            if not self._shared:
                self.weight.data = self.weight.new_empty(0)
        return packed_linear(x, self._packed, self.bias, self._numerics)

    def share(self, weight: torch.nn.Parameter) -> None:
        """Use another layer's weight, (out, in), which is kept when this layer packs it."""
        self.weight, self._shared = weight, True

    def unpack(self) -> None:
        """Go back to the plain weight, as after construction; the next call packs it again."""
        if self._packed is not None and not self._shared:
            self.weight.data = self._packed.to_dense()
        self._packed = None

    def split(self, parts: Mapping[str, int]) -> dict[str, Tensor]:
        """Return views of the weights, and biases if any, of the layers fused into this one.

        They may be written to until the layer is called again.

        Args:
            parts: name and number of output rows of each layer, in order.
        """
        self.unpack()
        rows = list(parts.values())
        kinds = {"weight": self.weight} | ({} if self.bias is None else {"bias": self.bias})
        return {
            f"{name}.{kind}": view
            for kind, fused in kinds.items()
            for name, view in zip(parts, torch.split(fused.data, rows), strict=True)
        }


@dataclass(frozen=True, slots=True)
class Placement:
    """How and where a model's layers compute."""

    numerics: Numerics
    dtype: torch.dtype
    device: torch.device

    def linear(self, in_features: int, out_features: int, *, bias: bool) -> ReproducibleLinear:
        """Return a linear layer there, with weights not yet filled."""
        return ReproducibleLinear(
            in_features,
            out_features,
            bias=bias,
            numerics=self.numerics,
            dtype=self.dtype,
            device=self.device,
        )
