"""Rotary position embeddings, from tables that do not depend on chunking."""

import torch
from torch import Tensor

from pd_core.models.rope_scaling import RopeScaling

__all__ = ["RotaryEmbedding", "frequencies", "rotate", "rotate_pairs"]

_BLOCK = 2048


class RotaryEmbedding:
    """cos and sin of every angle, computed in whole blocks of positions and kept.

    Frequencies and angles are rounded to float32 as in `transformers`. Their cosines and sines are
    computed in float64 and rounded once, so that they are the same on every machine.
    """

    def __init__(
        self,
        head_dim: int,
        theta: float,
        scaling: RopeScaling | None = None,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._frequency = frequencies(head_dim, theta, scaling)
        self._dtype = dtype
        self._device = device
        self._cos = self._sin = torch.empty(0, head_dim // 2, dtype=dtype, device=device)

    def reserve(self, num_tokens: int) -> None:
        """Cover positions below num_tokens."""
        known = self._cos.shape[0]
        if num_tokens <= known:
            return
        angles = [
            (torch.arange(i, i + _BLOCK, dtype=torch.float32)[:, None] * self._frequency).double()
            for i in range(known, num_tokens, _BLOCK)
        ]
        cos = torch.cat([a.cos().float() for a in angles]).to(self._device, self._dtype)
        sin = torch.cat([a.sin().float() for a in angles]).to(self._device, self._dtype)
        self._cos = torch.cat([self._cos, cos])
        self._sin = torch.cat([self._sin, sin])

    def at(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cos and sin, (T, 1, D / 2) each, at reserved positions (T,)."""
        return self._cos[positions][:, None], self._sin[positions][:, None]


def frequencies(head_dim: int, theta: float, scaling: RopeScaling | None = None) -> Tensor:
    """Return the angles between neighbouring positions, (head_dim / 2,)."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    frequency = 1.0 / (theta ** exponent.double()).float()
    return frequency if scaling is None else scaling.apply(frequency)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x: (T, heads, D); a pair is element i of the first and of the second half."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate x: (T, heads, D); a pair is two neighbouring elements, as in DeepSeek-V2."""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)
