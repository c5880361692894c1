"""How many KV blocks there are, which sequences hold them, and how many cache prefixes.

A block is room for BLOCK_TOKENS tokens in all layers. Running sequences hold blocks for their
whole (contiguous) cache; cached prefixes keep theirs until a sequence needs the room.
"""

from collections.abc import Callable

from pd_core.errors import ConfigError

__all__ = ["BLOCK_TOKENS", "BlockBudget"]

BLOCK_TOKENS = 64


class BlockBudget:
    """Counts blocks held, cached and free. Not thread-safe: the engine's thread owns it.

    Args:
        num_blocks: all blocks.
        evict: evicts one cached block; False when there is none.

    Raises:
        ConfigError: num_blocks is below 1.
    """

    def __init__(self, num_blocks: int, evict: Callable[[], bool] = lambda: False) -> None:
        if num_blocks < 1:
            raise ConfigError(f"the KV cache has {num_blocks} blocks; give it more memory")
        self.num_blocks = num_blocks
        self.num_cached = 0
        self._held: dict[int, int] = {}
        self._evict = evict

    @property
    def num_held(self) -> int:
        """Blocks of running sequences."""
        return sum(self._held.values())

    @property
    def num_free(self) -> int:
        """Blocks neither held nor cached."""
        return self.num_blocks - self.num_held - self.num_cached

    def held_by(self, request_id: int) -> int:
        """Blocks of one sequence."""
        return self._held.get(request_id, 0)

    def hold(self, request_id: int, num_blocks: int) -> bool:
        """Let a sequence hold at least num_blocks in all, evicting cached blocks for it.

        Returns:
            False when even an empty cache leaves no room; nothing has been evicted then.
        """
        missing = num_blocks - self.held_by(request_id)
        if missing <= 0:
            return True
        if missing > self.num_free + self.num_cached:
            return False
        while missing > self.num_free:
            self._evict_one()
        self._held[request_id] = num_blocks
        return True

    def release(self, request_id: int) -> int:
        """Free all blocks of a sequence; return how many it held."""
        return self._held.pop(request_id, 0)

    def cache_one(self) -> bool:
        """Make room for one more cached block, evicting another if none is free."""
        if self.num_free < 1 and not self._evict_one():
            return False
        self.num_cached += 1
        return True

    def check_integrity(self, num_cached: int) -> None:
        """Assert that the counts are right.

        Args:
            num_cached: blocks that the prefix cache actually has.
        """
        assert self.num_cached == num_cached, "cached blocks were miscounted"
        assert self.num_free >= 0, "more blocks are used than there are"
        assert all(held > 0 for held in self._held.values()), "a sequence holds nothing"

    def _evict_one(self) -> bool:
        if not self.num_cached or not self._evict():
            return False
        self.num_cached -= 1
        return True
