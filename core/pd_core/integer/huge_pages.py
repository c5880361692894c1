"""Memory for weights in pages of 2 MiB, where the system has them.

A decode reads every weight once, so with pages of 4 KiB it spends half its time on finding them.
"""

import contextlib
import mmap
import sys

import torch
from torch import Tensor

__all__ = ["HugePages"]

_CHUNK_BYTES = 32 << 20  # untouched pages take no memory
_ALIGNED = 64


class HugePages:
    """Gives out pieces of large chunks; they live as long as a tensor in them does."""

    def __init__(self) -> None:
        self._chunk = torch.empty(0, dtype=torch.uint8)
        self._used = 0

    def hold(self, tensor: Tensor) -> Tensor:
        """Return a copy of a tensor, at an address that 64 divides."""
        size = tensor.nbytes
        if self._used + size > self._chunk.numel():
            self._chunk = _chunk(max(size, _CHUNK_BYTES))
            self._used = 0
        piece = self._chunk[self._used : self._used + size]
        self._used += -(-size // _ALIGNED) * _ALIGNED
        held = piece.view(tensor.dtype).view(tensor.shape)
        return held.copy_(tensor)


def _chunk(num_bytes: int) -> Tensor:
    """Return new memory; in ordinary pages where the system has no others."""
    if sys.platform != "linux":
        return torch.empty(num_bytes, dtype=torch.uint8)
    memory = mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError, AttributeError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)
