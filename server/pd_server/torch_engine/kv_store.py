"""The KV memory of the embedded engine: contiguous caches of running requests, cached prefixes.

A prefix hit is copied once, when its request gets a slot, so a step gathers nothing. A request's
blocks are copied into the prefix cache after its prompt, and the rest when it ends.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from pd_core.errors import ConfigError
from pd_core.host.free_memory import available_bytes
from pd_core.models import KVCache
from pd_core.models.kv_block import KVBlock
from pd_server.engine.live_request import LiveRequest
from pd_server.scheduling.block_budget import BLOCK_TOKENS, BlockBudget
from pd_server.scheduling.prefix_cache import PrefixCache
from pd_server.scheduling.schedule import Placement
from pd_server.torch_engine.model_runner import model_failed

__all__ = ["KVStore", "num_blocks"]


@dataclass(slots=True)
class _Held:
    """A running request's KV cache, and the time up to which its bytes are counted."""

    request: LiveRequest
    cache: KVCache
    num_bytes: int
    counted_to_s: float


class KVStore:
    """See `KVMemory` for the contract.

    Args:
        make_cache: returns an empty KV cache with room for N tokens.
        num_blocks: blocks for running requests and cached prefixes together.

    Attributes:
        budget: the block budget, from which the scheduler takes blocks.
        prefixes: the cached blocks, in which the scheduler looks up prefixes.
        byte_s: integral over time of the bytes held by running requests.
        bytes_peak: most bytes held by them at once.

    Raises:
        ConfigError: num_blocks is below 1.
    """

    def __init__(self, make_cache: Callable[[int], KVCache], num_blocks: int) -> None:
        self.prefixes: PrefixCache[KVBlock] = PrefixCache()
        self.budget = BlockBudget(num_blocks, lambda: self.prefixes.evict() is not None)
        self.byte_s = 0.0
        self.bytes_peak = 0
        self._make_cache = make_cache
        self._held: dict[int, _Held] = {}

    def hold(self, placement: Placement[KVBlock], now_s: float) -> None:
        """Make a cache for a request that got a slot, and copy its cached prefix into it.

        Raises:
            EngineError: there is no memory for it.
        """
        try:
            cache = self._make_cache(placement.num_room_tokens)
            for index, block in enumerate(placement.prefix):
                block.copy_into(cache, index * BLOCK_TOKENS)
        except (MemoryError, RuntimeError) as error:
            raise model_failed("has no memory for it", error) from error
        request = placement.request
        self._held[request.request_id] = _Held(request, cache, cache.allocated_bytes, now_s)

    def grow(self, request: LiveRequest, now_s: float) -> None:
        """Grow a request's cache to the tokens it holds blocks for.

        Room for the whole prefix comes with the slot, room for the answer block by block, so a high
        token limit alone takes no memory.

        Raises:
            EngineError: there is no memory for it.
        """
        held = self._held[request.request_id]
        num_tokens = self.budget.held_by(request.request_id) * BLOCK_TOKENS
        if num_tokens <= held.cache.capacity_tokens:
            return
        self._count(held, now_s)
        try:
            held.cache.reserve(num_tokens)
        except (MemoryError, RuntimeError) as error:
            raise model_failed("could not allocate its KV cache", error) from error
        held.num_bytes = held.cache.allocated_bytes

    def cache_of(self, request: LiveRequest) -> KVCache:
        """Return a running request's cache."""
        return self._held[request.request_id].cache

    def block(self, request: LiveRequest, index: int) -> KVBlock:
        """Return a copy of a whole block that a running request has computed."""
        return KVBlock(self.cache_of(request), index * BLOCK_TOKENS, BLOCK_TOKENS)

    def drop(self, request: LiveRequest, now_s: float) -> None:
        """Free a request's cache, if it has one."""
        held = self._held.pop(request.request_id, None)
        if held is not None:
            self._count(held, now_s)

    def count(self, now_s: float) -> None:
        """Count the bytes of all caches up to now."""
        for held in self._held.values():
            self._count(held, now_s)
        num_bytes = sum(held.num_bytes for held in self._held.values())
        self.bytes_peak = max(self.bytes_peak, num_bytes)

    def check_integrity(self) -> None:
        """Assert that every cache is accounted for."""
        for request_id, held in self._held.items():
            room = self.budget.held_by(request_id) * BLOCK_TOKENS
            assert held.cache.capacity_tokens <= room, "unaccounted KV"
            assert held.num_bytes == held.cache.allocated_bytes, "KV bytes were miscounted"

    def _count(self, held: _Held, now_s: float) -> None:
        byte_s = held.num_bytes * (now_s - held.counted_to_s)
        held.request.kv_byte_s += byte_s
        held.counted_to_s = now_s
        self.byte_s += byte_s


def num_blocks(
    make_cache: Callable[[int], KVCache],
    kv_cache_bytes: int | None,
    max_num_seqs: int,
    context_tokens: int,
) -> int:
    """Return how many KV blocks an amount of memory holds.

    Args:
        make_cache: returns an empty KV cache with room for N tokens.
        kv_cache_bytes: the memory; None: for max_num_seqs whole contexts, but at most half of what
            is free.
        max_num_seqs: requests at once.
        context_tokens: the longest context.

    Raises:
        ConfigError: it cannot hold the smallest request; or it exceeds the free memory, counting
            the second copy that the largest cache needs while it grows.
    """
    least = make_cache(1)
    blocks_of_least = least.capacity_tokens // BLOCK_TOKENS
    block_bytes = least.allocated_bytes // blocks_of_least
    free_bytes = _free_bytes(least.keys[0].device)
    if kv_cache_bytes is None:
        wanted = -(-max_num_seqs * context_tokens // BLOCK_TOKENS) * block_bytes
        kv_cache_bytes = min(wanted, free_bytes // 2)
    else:
        of_context = -(-context_tokens // least.capacity_tokens)
        largest = min(of_context, kv_cache_bytes // least.allocated_bytes)
        growth_bytes = max(0, largest - 1) * least.growth_bytes
        if kv_cache_bytes + growth_bytes > free_bytes:
            raise ConfigError(
                f"the KV cache is to have {kv_cache_bytes >> 20} MiB, and {growth_bytes >> 20} MiB "
                f"more while its longest sequence grows, and of the memory {free_bytes >> 20} MiB "
                "are free; lower --kv-cache-mib"
            )
    blocks = kv_cache_bytes // block_bytes
    if blocks < blocks_of_least:
        raise ConfigError(
            f"{kv_cache_bytes} bytes of KV cache hold no sequence: the least one takes "
            f"{least.allocated_bytes}, for {least.capacity_tokens} tokens; raise --kv-cache-mib"
        )
    return blocks


def _free_bytes(device: torch.device) -> int:
    """Return the free memory of a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_bytes()
