"""Memory for weights in pages of 2 MiB, where the system has them.

A decode reads every weight once, so with pages of 4 KiB it spends half its time on finding them.
"""

import contextlib
import math
import mmap
import sys
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["HugePages"]

_CHUNK_BYTES = 256 << 20  # untouched pages take no memory
_OTHERS_CHUNK_BYTES = 32 << 20  # elsewhere the system may count them
_ALIGNED = 64


class HugePages:
    """Gives out pieces of large chunks; they live as long as a tensor in them does.

    Small tensors are best held here too: on the heap they would lie between large ones that come
    and go, and keep the system from having those back.
    """

    def __init__(self) -> None:
        self._chunk = torch.empty(0, dtype=torch.uint8)
        self._used = 0

    def room(self, shape: Sequence[int]) -> Tensor:
        """Return bytes to be written, uint8, at an address that 64 divides."""
        size = math.prod(shape)
        if self._used + size > self._chunk.numel():
            self._chunk = _chunk(size)
            self._used = 0
        piece = self._chunk[self._used : self._used + size]
        self._used += -(-size // _ALIGNED) * _ALIGNED
        return piece.view(*shape)

    def hold(self, tensor: Tensor) -> Tensor:
        """Return a copy of a tensor."""
        place = self.room([tensor.nbytes]).view(tensor.dtype).view(tensor.shape)
        return place.copy_(tensor)


def _chunk(least: int) -> Tensor:
    """Return new memory; in ordinary pages where the system has no others.

    Raises:
        MemoryError: there is none.
    """
    if sys.platform != "linux":
        return torch.empty(max(least, _OTHERS_CHUNK_BYTES), dtype=torch.uint8)
    try:
        memory = _mapped(max(least, _CHUNK_BYTES))
    except MemoryError:  # the system promises no more than it has
        memory = _mapped(least)
    with contextlib.suppress(OSError, AttributeError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.uint8)


def _mapped(num_bytes: int) -> mmap.mmap:
    try:
        return mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise MemoryError(f"{num_bytes >> 20} MiB cannot be mapped: {error}") from error
