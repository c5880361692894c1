"""Computed prefixes, block by block, found by the hash of everything up to a block's end.

A block's key depends on its own tokens, on all tokens before it and on the request's salt; so an
equal key means an equal prefix (SHA-256), and blocks are shared by all prefixes that begin alike.
What is stored under a key is the caller's: no torch here.
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
    """Return the keys of all whole blocks of a sequence, from its start on.

    Args:
        token_ids: of the sequence.
        block_tokens: tokens of one block.
        salt: other salts give other keys.
        known: keys of its first blocks, or of more, that need no hashing any more.
    """
    keys = list(known[: len(token_ids) // block_tokens])
    key = keys[-1] if keys else hashlib.sha256(salt.encode()).digest()
    ids = np.asarray(token_ids[len(keys) * block_tokens :], dtype="<i4")
    for end in range(block_tokens, len(ids) + 1, block_tokens):
        key = hashlib.sha256(key + ids[end - block_tokens : end].tobytes()).digest()
        keys.append(key)
    return tuple(keys)


class PrefixCache(Generic[Block]):
    """Blocks by key; the least recently used goes first, and no block before those after it."""

    def __init__(self) -> None:
        self._blocks: OrderedDict[bytes, Block] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def __contains__(self, key: bytes) -> bool:
        return key in self._blocks

    def match(self, keys: Sequence[bytes]) -> list[Block]:
        """Return the blocks of the longest known prefix, and count them as used."""
        known = list(takewhile(self._blocks.__contains__, keys))
        # The last block is touched first: it will be evicted before those that it needs.
        for key in reversed(known):
            self._blocks.move_to_end(key)
        return [self._blocks[key] for key in known]

    def put(self, key: bytes, block: Block) -> None:
        """Store a block; call `match` with all of its prefix's keys when the last one is stored."""
        assert key not in self._blocks, "a block is stored twice"
        self._blocks[key] = block

    def evict(self) -> Block | None:
        """Let go of the least recently used block and return it; None when there is none."""
        if not self._blocks:
            return None
        _, block = self._blocks.popitem(last=False)
        return block

    def clear(self) -> None:
        """Let go of all."""
        self._blocks.clear()


def remember(
    prefixes: PrefixCache[Block],
    budget: BlockBudget,
    keys: Sequence[bytes],
    make_block: Callable[[int], Block],
) -> None:
    """Cache a prefix's blocks as far as there is room for them; others are evicted for it.

    Args:
        prefixes: where to.
        budget: the account of the blocks.
        keys: of the prefix's whole blocks.
        make_block: returns the block of an index.
    """
    own = len(prefixes.match(keys))
    for index in range(own, len(keys)):
        # The prefix's own blocks are the latest used: they would go when no others are left.
        if not budget.num_free and budget.num_cached <= own:
            break
        if not budget.cache_one():
            break
        prefixes.put(keys[index], make_block(index))
        own += 1
    prefixes.match(keys)
