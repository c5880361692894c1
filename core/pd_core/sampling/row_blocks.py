"""The largest entries of long rows, found by the maxima of short blocks, with ties defined.

A vocabulary is long and a row's few largest entries are all that a choice needs. Maxima of blocks
cost one pass at the speed of memory; only the blocks that can hold an answer are looked into.
"""

import torch
from torch import Tensor

__all__ = ["BLOCK", "first_largest", "largest"]

BLOCK = 64


def first_largest(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's largest value and the lowest index that has it: (R,) and (R,).

    A row with NaN has the value NaN, and any index.
    """
    maxima = _block_maxima(rows)
    value = maxima.amax(1, keepdim=True)
    block = _first(maxima == value)
    ids = block[:, None] * BLOCK + torch.arange(BLOCK, device=rows.device)
    ids = ids.clamp_(max=rows.shape[1] - 1)  # past the end: the last one again
    return value[:, 0], ids.gather(1, _first(rows.gather(1, ids) == value)[:, None])[:, 0]


def largest(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return each row's `count` largest values, falling, and their indices; of equals, the lowest.

    Which of several entries equal to the last value are among them is not defined.
    """
    num_rows, width = rows.shape
    num_blocks = width // BLOCK
    if num_blocks <= 2 * count:
        ids = rows.topk(min(count, width), sorted=False).indices
    else:
        whole = rows[:, : num_blocks * BLOCK].view(-1, num_blocks, BLOCK)
        # The largest entries lie in the blocks with the largest maxima.
        blocks = whole.amax(2).topk(count, sorted=False).indices
        at = (blocks[:, :, None] * BLOCK + torch.arange(BLOCK, device=rows.device)).flatten(1)
        tail = torch.arange(num_blocks * BLOCK, width, device=rows.device).expand(num_rows, -1)
        at = torch.cat([at, tail], 1)
        ids = at.gather(1, rows.gather(1, at).topk(count, sorted=False).indices)
    ids = ids.sort().values
    values, order = rows.gather(1, ids).sort(descending=True, stable=True)
    return values, ids.gather(1, order)


def _block_maxima(rows: Tensor) -> Tensor:
    """Return the largest value of each block: (R, blocks); the last block may be shorter."""
    width = rows.shape[1]
    whole = width // BLOCK * BLOCK
    maxima = rows[:, :whole].view(-1, width // BLOCK, BLOCK).amax(2) if whole else None
    parts = [] if maxima is None else [maxima]
    if whole < width:
        parts.append(rows[:, whole:].amax(1, keepdim=True))
    return torch.cat(parts, 1)


def _first(found: Tensor) -> Tensor:
    """Return each row's first True; the last index where there is none."""
    width = found.shape[1]
    ids = torch.arange(width, device=found.device)
    return torch.where(found, ids, width - 1).amin(1)
