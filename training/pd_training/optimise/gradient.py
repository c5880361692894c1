"""Statistics of a model's gradient, and clipping."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["GradientFacts", "clip_gradient"]


@dataclass(frozen=True, slots=True)
class GradientFacts:
    """Norms of all gradients as one vector of d entries, before clipping.

    Attributes:
        l2: its l2 norm.
        l1_ratio: |g|_1 / (sqrt(d) |g|_2), between 1/sqrt(d) (one nonzero entry) and 1 (all of the
            same size); AdamW's rate in the l1 norm depends on it.
    """

    l2: float
    l1_ratio: float


@torch.no_grad()
def clip_gradient(model: nn.Module, limit: float) -> GradientFacts:
    """Scale the gradient so that its l2 norm is at most `limit`; 0: do not scale.

    A gradient with NaN or infinite entries is not scaled; the returned norms show it.
    """
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    l1, l2 = _norm(gradients, 1), _norm(gradients, 2)
    length = float(l2)
    if limit and math.isfinite(length) and length > limit:
        for gradient in gradients:
            gradient.mul_(limit / length)
    size = sum(gradient.numel() for gradient in gradients)
    ratio = float(l1) / (math.sqrt(size) * length) if length else 0.0
    return GradientFacts(length, ratio)


def _norm(gradients: list[Tensor], order: int) -> Tensor:
    parts = torch.stack([torch.linalg.vector_norm(g, order) for g in gradients])
    norm: Tensor = torch.linalg.vector_norm(parts, order)
    return norm
