"""Computed prefixes in blocks, keyed by a hash of everything up to the block's end.

A block's key depends on its own tokens, on all tokens before it and on the request's salt. So equal
keys mean equal prefixes (SHA-256), and prefixes that begin alike share blocks. The caller decides
what is stored under a key: no torch here.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Generic, TypeVar

import numpy as np

from pd_server.scheduling.block_budget import BlockBudget

__all__ = ["Block", "PrefixCache", "block_keys", "remember"]

Block = TypeVar("Block")


def block_keys(
    token_ids: Sequence[int], block_tokens: int, salt: str = "", known: Sequence[bytes] = ()
) -> tuple[bytes, ...]:
    """Return the keys of all whole blocks of a sequence, in order.

    Args:
        token_ids: the sequence.
        block_tokens: tokens of one block.
        salt: different salts give different keys.
        known: keys already computed, from the first block on; surplus ones are ignored.
    """
    keys = list(known[: len(token_ids) // block_tokens])
    key = keys[-1] if keys else hashlib.sha256(salt.encode()).digest()
    ids = np.asarray(token_ids[len(keys) * block_tokens :], dtype="<i4")
    for end in range(block_tokens, len(ids) + 1, block_tokens):
        key = hashlib.sha256(key + ids[end - block_tokens : end].tobytes()).digest()
        keys.append(key)
    return tuple(keys)


class PrefixCache(Generic[Block]):
    """Blocks by key, evicted least recently used first, and never before their successors."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[bytes, Block] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def __contains__(self, key: bytes) -> bool:
        return key in self._blocks

    def match(self, keys: Sequence[bytes]) -> list[Block]:
        """Return the blocks of the longest cached prefix, and mark them as just used."""
        known = list(takewhile(self._blocks.__contains__, keys))
        # The last block is touched first, so that it is evicted before the blocks it depends on.
        for key in reversed(known):
            self._blocks.move_to_end(key)
        return [self._blocks[key] for key in known]

    def put(self, key: bytes, block: Block) -> None:
        """Store a block; after a prefix's last block, call `match` with all of its keys."""
        assert key not in self._blocks, "a block is stored twice"
        self._blocks[key] = block

    def evict(self) -> Block | None:
        """Remove the least recently used block and return it; None when there is none."""
        if not self._blocks:
            return None
        _, block = self._blocks.popitem(last=False)
        return block

    def clear(self) -> None:
        """Remove all blocks."""
        self._blocks.clear()


def remember(
    prefixes: PrefixCache[Block],
    budget: BlockBudget,
    keys: Sequence[bytes],
    make_block: Callable[[int], Block],
) -> None:
    """Cache a prefix's blocks as far as there is room, evicting blocks of other prefixes.

    Args:
        prefixes: the cache to store them in.
        budget: the block budget.
        keys: keys of the prefix's whole blocks.
        make_block: returns the block with a given index.
    """
    own = len(prefixes.match(keys))
    for index in range(own, len(keys)):
        # Only this prefix's own blocks are left to evict; as the latest used, they came last.
        if not budget.num_free and budget.num_cached <= own:
            break
        if not budget.cache_one():
            break
        prefixes.put(keys[index], make_block(index))
        own += 1
    prefixes.match(keys)
