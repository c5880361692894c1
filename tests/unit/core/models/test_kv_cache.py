"""The KV cache: what layers read in place, and that growing or copying keeps it."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from pd_core.models.kv_cache import KEY_BLOCK, KVCache, LayerHeads

_HEAD_DIM = 4
_WRITTEN = 5
# The first layer caches all the values, the others half of them, as SkipV1 does.
_SKIPV1 = [LayerHeads(4, 4), LayerHeads(4, 2), LayerHeads(4, 2)]
_UNEVEN = [LayerHeads(3, 3), LayerHeads(3, 2), LayerHeads(3, 2)]
_PLAIN = [LayerHeads(2, 2), LayerHeads(2, 2)]


def _cache(layers: Sequence[LayerHeads], capacity_tokens: int = 1) -> KVCache:
    return KVCache(
        layers, _HEAD_DIM, capacity_tokens, dtype=torch.float32, device=torch.device("cpu")
    )


def _filled(layers: Sequence[LayerHeads]) -> KVCache:
    """A cache whose first tokens are written, all numbers different."""
    cache = _cache(layers)
    for index, tensor in enumerate((*cache.keys, *cache.values)):
        part = tensor[:, :_WRITTEN]
        part.copy_(torch.arange(part.numel()).view_as(part) + 1000.0 * (index + 1))
    return cache


def _read_by_copy(cache: KVCache, layer: int) -> Tensor:
    """The reference: a layer's own values, then those of the first layer that it lacks."""
    own, first = cache.values[layer], cache.values[0]
    return torch.cat([own, first[own.shape[0] :]])


def _assert_reads(cache: KVCache) -> None:
    for layer in range(len(cache.values)):
        read = cache.values_read(layer)
        heads = torch.cat([parts.flatten(0, 1) for parts in read])
        assert torch.equal(heads, _read_by_copy(cache, layer))
        storage = cache.values[0].untyped_storage().data_ptr()
        assert {parts.untyped_storage().data_ptr() for parts in read} == {storage}


@pytest.mark.parametrize("layers", [_SKIPV1, _UNEVEN, _PLAIN, _PLAIN[:1]])
def test_layers_read_their_values_in_place(layers: list[LayerHeads]) -> None:
    cache = _filled(layers)
    _assert_reads(cache)


def test_equal_halves_are_read_as_one_and_unequal_parts_as_two() -> None:
    shapes = {
        name: [tuple(parts.shape[:2]) for parts in _filled(layers).values_read(1)]
        for name, layers in (("even", _SKIPV1), ("uneven", _UNEVEN), ("plain", _PLAIN))
    }
    assert shapes == {"even": [(2, 2)], "uneven": [(1, 2), (1, 1)], "plain": [(1, 2)]}


def test_what_is_written_later_is_read() -> None:
    cache = _filled(_SKIPV1)
    (read,) = cache.values_read(2)
    cache.values[0][3, 7] = -1.0
    cache.values[2][0, 7] = -2.0
    assert read[1, 1, 7].eq(-1.0).all()
    assert read[0, 0, 7].eq(-2.0).all()


@pytest.mark.parametrize("layers", [_SKIPV1, _UNEVEN, _PLAIN])
def test_growing_keeps_the_tokens_and_clears_the_rest(layers: list[LayerHeads]) -> None:
    cache, grown = _filled(layers), _filled(layers)
    grown.reserve(KEY_BLOCK + 1)
    assert grown.capacity_tokens == 2 * KEY_BLOCK
    _assert_reads(grown)
    for ours, theirs in ((grown.keys, cache.keys), (grown.values, cache.values)):
        for new, old in zip(ours, theirs, strict=True):
            assert torch.equal(new[:, :KEY_BLOCK], old)
            assert new[:, KEY_BLOCK:].eq(0).all()


def test_a_cache_never_shrinks() -> None:
    cache = _cache(_PLAIN, 3 * KEY_BLOCK)
    keys = cache.keys[0]
    cache.reserve(1)
    assert cache.keys[0] is keys


@pytest.mark.parametrize("layers", [_SKIPV1, _UNEVEN])
def test_a_copied_prefix_is_read_as_in_the_source(layers: list[LayerHeads]) -> None:
    source, target = _filled(layers), _cache(layers, KEY_BLOCK + 1)
    target.copy_prefix(source, 3)
    _assert_reads(target)
    for ours, theirs in ((target.keys, source.keys), (target.values, source.values)):
        for new, old in zip(ours, theirs, strict=True):
            assert torch.equal(new[:, :3], old[:, :3])
            assert new[:, 3:].eq(0).all()


def test_the_bytes_are_those_of_the_declared_heads() -> None:
    heads = sum(layer.num_key_heads + layer.num_value_heads for layer in _SKIPV1)
    assert _cache(_SKIPV1).allocated_bytes == heads * KEY_BLOCK * _HEAD_DIM * 4


def test_a_layer_of_latents_has_keys_of_its_own_width_and_no_values() -> None:
    cache = _cache([LayerHeads(1, 0, key_dim=6)] * 2)
    assert [tuple(k.shape) for k in cache.keys] == [(1, KEY_BLOCK, 6)] * 2
    assert [tuple(v.shape) for v in cache.values] == [(0, KEY_BLOCK, _HEAD_DIM)] * 2
