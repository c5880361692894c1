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
    words = ~(masks[0][None] if len(masks) == 1 else np.stack(masks))
    bits = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")
    width = scores.shape[1]
    if bits.shape[1] < width:
        bits = np.pad(bits, ((0, 0), (0, width - bits.shape[1])), constant_values=1)
    forbidden = torch.from_numpy(bits).view(torch.bool)[:, :width]
    return scores.masked_fill(forbidden.to(scores.device), float("-inf"))
