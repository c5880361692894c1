"""The activation of the gated MLP."""

import torch
from torch import Tensor

__all__ = ["silu"]


def silu(x: Tensor) -> Tensor:
    """x * sigmoid(x) from operations whose last bits do not depend on the position in memory.

    torch's own SiLU uses different code for the end of a buffer (and of each thread's share), whose
    results differ in the last bit; exp does not.
    """
    return x / (1 + torch.exp(-x))
