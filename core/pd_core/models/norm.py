"""The normalisation of the Llama family."""

import torch
from torch import Tensor

__all__ = ["RMSNorm"]


class RMSNorm(torch.nn.Module):
    """x / rms(x) * weight, in float32."""

    def __init__(self, size: int, eps: float, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(
            torch.empty(size, dtype=dtype, device=device), requires_grad=False
        )
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x over its last axis: (..., size)."""
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self._eps)
        return self.weight * (wide * scale).to(x.dtype)
