"""The KV memory of the embedded engine: contiguous caches of running sequences, cached prefixes.

A prefix hit is copied once, at admission; nothing is gathered in a step. What a sequence has
computed is copied out once, after its prompt and again when it ends.
"""

from collections.abc import Callable, Sequence

from pd_core.models import KVCache
from pd_core.models.kv_block import KVBlock
from pd_server.scheduling.block_budget import BLOCK_TOKENS, BlockBudget
from pd_server.scheduling.prefix_cache import PrefixCache, block_keys, remember
from pd_server.scheduling.schedule import Admission

__all__ = ["KVStore"]


class KVStore:
    """Makes KV caches and remembers prefixes, within a budget of blocks.

    Args:
        make_cache: returns an empty KV cache with room for so many tokens.
        num_blocks: for running sequences and cached prefixes together.

    Attributes:
        budget: the account; the scheduler holds blocks in it.
        prefixes: the cached blocks; the scheduler looks prefixes up in it.
        num_hit_tokens: tokens that were copied instead of computed.

    Raises:
        ConfigError: there is no block.
    """

    def __init__(self, make_cache: Callable[[int], KVCache], num_blocks: int) -> None:
        self.prefixes: PrefixCache[object] = PrefixCache()
        self.budget = BlockBudget(num_blocks, lambda: self.prefixes.evict() is not None)
        self.num_hit_tokens = 0
        self._make_cache = make_cache

    def admit(self, admission: Admission) -> KVCache:
        """Return a cache for a sequence that got a slot, its known prefix copied into it."""
        cache = self._make_cache(admission.num_room_tokens)
        for index, block in enumerate(admission.prefix):
            assert isinstance(block, KVBlock), "only KV blocks are cached"
            block.copy_into(cache, index * BLOCK_TOKENS)
        self.num_hit_tokens += len(admission.prefix) * BLOCK_TOKENS
        return cache

    def keep(self, cache: KVCache, token_ids: Sequence[int], salt: str) -> None:
        """Remember the whole blocks of computed tokens, as far as there is room for them.

        Args:
            cache: holds at least these tokens.
            token_ids: from the start of the prompt.
            salt: of the request.
        """
        keys = block_keys(token_ids, BLOCK_TOKENS, salt)
        remember(
            self.prefixes,
            self.budget,
            keys,
            lambda index: KVBlock(cache, index * BLOCK_TOKENS, BLOCK_TOKENS),
        )
