"""Rounding a weight to 4 bits so that its outputs err least, not its elements (GPTQ, 2210.17323).

Column by column: what rounding one column adds to the outputs is taken away by the columns that
are not yet rounded, as the inputs' second moments say.

Legend: N output features, K input features.
"""

import torch
from torch import Tensor

from pd_core.integer.group_rounding import lowest_terms, nearest_steps, row_scales
from pd_core.integer.weights import GROUP, IntegerWeight

__all__ = ["round_with_feedback"]

_DAMPING = 0.01  # as a share of the mean second moment


def round_with_feedback(weight: Tensor, moments: Tensor) -> IntegerWeight:
    """Round a weight to 4 bits; not padded.

    Args:
        weight: (N, K), float32.
        moments: (K, K), the sum of x^T x over inputs x.
    """
    size = weight.shape[1]
    importance = moments.diagonal().float()
    importance = importance / importance.mean().clamp_min(1e-30) + 1e-6
    scales, _ = row_scales(weight, importance)
    feedback = _feedback(moments)
    left = weight.clone()
    codes = torch.zeros(weight.shape, dtype=torch.int8)
    steps = []
    for begin in range(0, size, GROUP):
        end = min(begin + GROUP, size)
        block = left[:, begin:end]
        step = nearest_steps(block, importance[begin:end], scales)
        errors = _round_block(block, step * scales[:, None], feedback[begin:end], begin, codes)
        left[:, end:] -= errors @ feedback[begin:end, end:]
        steps.append(step)
    whole, scales = lowest_terms(torch.cat(steps, dim=1), scales)
    return IntegerWeight(codes, scales, steps=whole.to(torch.uint8))


def _feedback(moments: Tensor) -> Tensor:
    """Return the upper Cholesky factor (K, K) of the damped moments' inverse."""
    wide = moments.double()
    mean = wide.diagonal().mean().clamp_min(1e-30)
    damped = wide + _DAMPING * mean * torch.eye(len(wide), dtype=wide.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True).float()
    return factor


def _round_block(
    block: Tensor, scale: Tensor, feedback: Tensor, begin: int, codes: Tensor
) -> Tensor:
    """Round a group's columns (N, up to 32), in place, into `codes`; return what they leave."""
    factor = torch.where(scale > 0, 1.0 / scale.clamp_min(1e-30), 0.0)[:, 0]
    errors = torch.zeros_like(block)
    for i in range(block.shape[1]):
        code = torch.round(block[:, i] * factor).clamp(-8, 7)
        codes[:, begin + i] = code.to(torch.int8)
        rest = feedback[i, begin + i : begin + block.shape[1]]
        error = (block[:, i] - code * scale[:, 0]) / rest[0]
        block[:, i + 1 :] -= error[:, None] * rest[1:]
        errors[:, i] = error
    return errors
