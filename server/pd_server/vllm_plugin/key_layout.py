"""The order in which vLLM's CPU kernels store the keys of a block.

The kernels rearrange keys for their instruction set (with AVX-512 a block of one head is stored
transposed, with AMX in tiles), and nothing says how. To find out, numbered elements are written
through the kernel and located in the block.
"""

import torch
from torch import Tensor
from vllm import _custom_ops as ops

from pd_core.errors import EngineError

__all__ = ["KeyLayout"]

_BASE = 128  # every cache dtype holds whole numbers below this exactly
_NUM_DIGITS = 3


class KeyLayout:
    """Reads keys back as they were before the kernel stored them.

    Args:
        block_tokens: tokens of one block.
        head_dim: D.
        dtype: the cache's dtype.
        isa: vLLM's name of the kernels' instruction set.

    Raises:
        EngineError: the kernel does more than reorder the elements.
    """

    def __init__(self, block_tokens: int, head_dim: int, dtype: torch.dtype, isa: str) -> None:
        count = block_tokens * head_dim
        assert count <= _BASE**_NUM_DIGITS, f"a block of {count} elements cannot be numbered"
        number = torch.arange(count)
        found = torch.zeros(count, dtype=torch.int64)
        for digit in range(_NUM_DIGITS):
            written = (number // _BASE**digit % _BASE).to(dtype)
            stored = _stored(written.view(block_tokens, 1, head_dim), isa)
            found += stored.to(torch.int64) * _BASE**digit
        self._order = found.argsort()
        if not torch.equal(found[self._order], number):
            raise EngineError(f"the {isa} kernels of vLLM do not store {dtype} keys as they are")

    def read(self, keys: Tensor, block_ids: Tensor, num_tokens: int) -> Tensor:
        """Return the first num_tokens keys of a sequence: (G, n, D).

        Args:
            keys: (num_blocks, G, block, D), the cache as the kernel left it.
            block_ids: (m,), the sequence's blocks in order; they hold n tokens or more.
        """
        blocks = keys[block_ids]  # (m, G, block, D), a copy
        ordered = blocks.flatten(2)[..., self._order].view(blocks.shape)
        return ordered.transpose(0, 1).flatten(1, 2)[:, :num_tokens]


def _stored(key: Tensor, isa: str) -> Tensor:
    """Write key: (block, 1, D) to an empty block; return the elements in their stored order."""
    block_tokens, _, head_dim = key.shape
    keys = torch.zeros(1, 1, block_tokens, head_dim, dtype=key.dtype)
    values = torch.zeros_like(keys)
    ops.cpu_attn_reshape_and_cache(
        key.contiguous(), torch.zeros_like(key), keys, values, torch.arange(block_tokens), isa
    )
    return keys.flatten()
