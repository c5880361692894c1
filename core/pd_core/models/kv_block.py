"""Keys and values of a run of tokens, all layers in one piece: the unit of the prefix cache.

The cache of a running sequence is contiguous. A block is copied out of it when its tokens are
computed, and into a sequence that begins with the same tokens once, at its admission. Keys and
values do not depend on how a prefix was cut into chunks, so the copy holds exactly the bits that a
prefill would compute.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from pd_core.models.kv_cache import KVCache

__all__ = ["KVBlock"]


class KVBlock:
    """Keys and values of consecutive tokens, including those that layers share.

    Attributes:
        num_tokens: number of tokens.
    """

    def __init__(self, cache: KVCache, first: int, num_tokens: int) -> None:
        """Copy tokens first .. first + num_tokens out of a cache that holds them."""
        assert first + num_tokens <= cache.capacity_tokens, "a block ends within its cache"
        parts = list(cache.parts(first, num_tokens))
        self.num_tokens = num_tokens
        self._storage = torch.empty(
            sum(part.nbytes for part in parts), dtype=torch.uint8, device=parts[0].device
        )
        for place, part in zip(self._views(parts), parts, strict=True):
            place.copy_(part)

    @property
    def allocated_bytes(self) -> int:
        """Bytes held by the tokens, without rounding to whole cache blocks."""
        return self._storage.untyped_storage().nbytes()

    def copy_into(self, cache: KVCache, first: int) -> None:
        """Write the tokens into a cache of the same model, from position `first` on."""
        parts = list(cache.parts(first, self.num_tokens))
        for place, part in zip(self._views(parts), parts, strict=True):
            part.copy_(place)

    def _views(self, parts: list[Tensor]) -> Iterator[Tensor]:
        """Cut the storage into pieces of the parts' types and shapes."""
        at = 0
        for part in parts:
            piece = self._storage[at : at + part.nbytes]
            yield piece.view(part.dtype).view(part.shape)
            at += part.nbytes
