"""Cached prefixes and the account of blocks: what is found, what goes first, what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pd_core.errors import ConfigError
from pd_server.scheduling.block_budget import BlockBudget
from pd_server.scheduling.prefix_cache import PrefixCache, block_keys


def _filled(*prefixes: list[int]) -> PrefixCache[int]:
    """Cache prefixes in blocks of one token; a block's value is its token."""
    cache: PrefixCache[int] = PrefixCache()
    for ids in prefixes:
        keys = block_keys(ids, 1)
        for key, token in list(zip(keys, ids, strict=True))[len(cache.match(keys)) :]:
            cache.put(key, token)
        cache.match(keys)
    return cache


def test_keys_are_of_whole_blocks_and_of_everything_before() -> None:
    keys = block_keys(range(10), 4)
    assert len(keys) == 2
    assert block_keys(range(8), 4) == keys
    assert block_keys([9, *range(1, 8)], 4)[1] != keys[1], "the same block after another start"
    assert block_keys(range(8), 4, salt="x")[0] != keys[0]
    assert len(set(block_keys([0] * 8, 4))) == 2


@given(
    stored=st.lists(st.lists(st.integers(0, 2), max_size=6), max_size=6),
    asked=st.lists(st.integers(0, 2), max_size=6),
)
def test_the_longest_known_prefix_is_found(stored: list[list[int]], asked: list[int]) -> None:
    cache = _filled(*stored)
    known = max((n for s in stored for n in range(len(asked) + 1) if s[:n] == asked[:n]), default=0)
    assert cache.match(block_keys(asked, 1)) == asked[:known]


@given(stored=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=6))
def test_no_block_goes_before_those_after_it(stored: list[list[int]]) -> None:
    cache = _filled(*stored)
    while len(cache):
        cache.evict()
        reachable = {key for ids in stored for key in block_keys(ids, 1)[: _known(cache, ids)]}
        assert len(reachable) == len(cache), "a block is left that nothing finds"
    assert cache.evict() is None


def _known(cache: PrefixCache[int], ids: list[int]) -> int:
    keys = block_keys(ids, 1)
    return next((i for i, key in enumerate(keys) if key not in cache), len(keys))


def test_the_least_recently_used_goes_first() -> None:
    cache = _filled([1, 2], [3, 4])
    cache.match(block_keys([1, 2], 1))
    assert [cache.evict() for _ in range(4)] == [4, 3, 2, 1]


def test_held_blocks_push_cached_ones_out_and_never_each_other() -> None:
    evicted: list[int] = []

    def evict() -> bool:
        evicted.append(1)
        return True

    budget = BlockBudget(4, evict)
    assert all(budget.cache_one() for _ in range(4))
    assert budget.num_free == 0
    assert budget.hold(7, 3)
    assert (len(evicted), budget.num_cached) == (3, 1)
    assert budget.hold(7, 2), "less than it has changes nothing"
    assert not budget.hold(8, 2)
    assert (budget.num_cached, budget.held_by(8)) == (1, 0), "refused: nothing was evicted for it"
    assert budget.hold(8, 1)
    assert not budget.cache_one()
    assert (budget.release(7), budget.release(7)) == (3, 0)
    assert (budget.num_held, budget.num_free) == (1, 3)
    budget.check_integrity(0)
    with pytest.raises(AssertionError, match="miscounted"):
        budget.check_integrity(1)


def test_a_cache_without_blocks_is_refused() -> None:
    with pytest.raises(ConfigError, match="more memory"):
        BlockBudget(0)
