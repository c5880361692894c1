"""Scores of the tokens that may come next, as a form of the answer allows them."""

import sys
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["only_allowed"]

assert sys.byteorder == "little", "a mask's words are read as bytes"


def only_allowed(scores: Tensor, masks: Sequence[NDArray[np.int32]]) -> Tensor:
    """Return the scores with -inf for every token that may not come next.

    Args:
        scores: (R, V).
        masks: R masks of (at most ceil(V / 32),) words: bit i % 32 of word i // 32 says whether
            token i may; ids behind the last word may not.
    """
    bits = np.unpackbits(np.stack(masks).view(np.uint8), axis=1, bitorder="little")
    width = scores.shape[1]
    if bits.shape[1] < width:
        bits = np.pad(bits, ((0, 0), (0, width - bits.shape[1])))
    allowed = torch.from_numpy(bits[:, :width]).bool()
    return scores.masked_fill(~allowed.to(scores.device), float("-inf"))
