"""SkipV1 with any number of own KV heads: exact parts, exact bytes, and fingerprints that stay."""

from dataclasses import asdict, replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pd_core.checkpoints.hf_config import read_config, write_config
from pd_core.checkpoints.loading import load_model
from pd_core.errors import ConfigError, ModelError
from pd_core.models import KVCache, ModelConfig
from pd_core.models.attention import CachedHeads, CausalMask, PlainBatch, TiledBatch
from pd_core.models.keep_share import own_count, rounding_note
from pd_core.models.latent_shape import LatentShape
from pd_core.models.numerics_probe import probe
from pd_core.store.model_names import DEFAULT_MODEL

CPU = torch.device("cpu")
CONFIG = ModelConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=32,
    num_layers=4,
    num_heads=9,
    num_kv_heads=3,
    head_dim=8,
    max_context_tokens=4096,
    skip_v1=True,
    skip_v1_own=2,
)


@pytest.mark.parametrize(
    ("share", "whole", "own"),
    [
        (0.5, 3, 2),
        (0.5, 4, 2),
        (0.25, 8, 2),
        (0.75, 8, 6),
        (0.3, 5, 2),  # 1.5 as the digits say; as a binary number a little less
        (0.01, 3, 1),
        (0.99, 3, 2),
        (0.5, 2, 1),
        (0.5, 7, 4),
    ],
)
def test_a_share_is_the_nearest_whole_number_with_some_on_either_side(
    share: float, whole: int, own: int
) -> None:
    assert own_count(share, whole) == own


def test_a_user_hears_of_every_rounding_and_of_nothing_else() -> None:
    assert rounding_note(0.25, 8, "KV heads") is None
    note = rounding_note(0.5, 3, "KV heads")
    assert note is not None
    assert "0.5 of 3 KV heads is rounded to 2 of a layer's own and 1" in note
    assert rounding_note(0.01, 3, "KV heads") is not None


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, 2.0, float("nan"), float("inf")])
def test_what_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="above 0 and below 1"):
        own_count(share, 4)


@st.composite
def _layers(draw: st.DrawFn) -> ModelConfig:
    kv_heads = draw(st.integers(2, 6))
    return replace(
        CONFIG,
        num_heads=kv_heads * draw(st.sampled_from((1, 2, 3, 7))),
        num_kv_heads=kv_heads,
        head_dim=draw(st.sampled_from((8, 16, 32))),
        skip_v1_own=draw(st.integers(1, kv_heads - 1)),
        skip_v1_k_source=draw(st.sampled_from((None, 1))),
    )


def _cache(config: ModelConfig, num_tokens: int) -> KVCache:
    """A cache whose first tokens hold numbers; the rest is zero, as it always is."""
    cache = KVCache(
        config.layer_heads(), config.head_dim, num_tokens, dtype=torch.float32, device=CPU
    )
    numbers = torch.Generator().manual_seed(1)
    for tensor in (*cache.keys, *cache.values):
        tensor[:, :num_tokens].normal_(generator=numbers)
    return cache


def _in_place(config: ModelConfig, cache: KVCache) -> list[CachedHeads]:
    """What the last layer's heads read, cut as its values lie."""
    values = cache.values_read(3)
    sizes = [v.shape[0] * v.shape[1] for v in values]
    keys = torch.split(cache.keys[config.key_layer(3)], sizes)
    return [
        CachedHeads(torch.unflatten(k, 0, v.shape[:2]), v)
        for k, v in zip(keys, values, strict=True)
    ]


def _concatenated(config: ModelConfig, cache: KVCache) -> CachedHeads:
    values = torch.cat((cache.values[3], cache.values[0][config.num_value_heads(3) :]))
    return CachedHeads(cache.keys[config.key_layer(3)][None], values[None])


def _by_hand(q: Tensor, start: int, heads: CachedHeads) -> Tensor:
    """Attend token by token and head by head in float64."""
    keys, values = (t.flatten(0, 1).double() for t in heads)
    out = torch.zeros(q.shape, dtype=torch.float64)
    for t, g, j in torch.cartesian_prod(*(torch.arange(n) for n in q.shape[:3])).tolist():
        end = start + t + 1
        weights = (keys[g, :end] @ q[t, g, j].double() / q.shape[3] ** 0.5).softmax(0)
        out[t, g, j] = weights @ values[g, :end]
    return out.flatten(1)


@settings(max_examples=40, deadline=None)
@given(config=_layers(), start=st.integers(0, 1100), count=st.integers(1, 24), data=st.data())
def test_parts_of_any_size_give_the_bits_of_whole_values(
    config: ModelConfig, start: int, count: int, data: st.DataObject
) -> None:
    numerics, kv_heads = probe(), config.num_kv_heads
    cache = _cache(config, start + count)
    shape = (count, kv_heads, config.group, config.head_dim)
    q = torch.randn(shape, generator=torch.Generator().manual_seed(2))
    mask = CausalMask(
        config.group, numerics.key_steps, numerics.query_rows, dtype=torch.float32, device=CPU
    )
    parts, whole = _in_place(config, cache), _concatenated(config, cache)
    tiled = TiledBatch(mask, [(start, count)]).attend(q, [parts])
    assert torch.equal(tiled, TiledBatch(mask, [(start, count)]).attend(q, [[whole]]))
    cut = data.draw(st.integers(0, count - 1))
    chunks = [
        TiledBatch(mask, [(start + first, last - first)]).attend(q[first:last], [parts])
        for first, last in ((0, cut), (cut, count))
        if last > first
    ]
    assert torch.equal(torch.cat(chunks), tiled)
    plain = PlainBatch([(start, count)], torch.float32, CPU).attend(q, [parts])
    want = _by_hand(q, start, whole)
    for got in (tiled, plain):
        torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-5)


@given(config=_layers(), num_layers=st.sampled_from((2, 4, 8)), yoco=st.booleans())
def test_a_cache_takes_the_bytes_of_the_formula(
    config: ModelConfig, num_layers: int, yoco: bool
) -> None:
    source = num_layers // 2 - 1 if yoco else None
    config = replace(config, num_layers=num_layers, skip_v1_k_source=source)
    cache = _cache(config, 1)
    plain = config.plain_kv_elements() * 4 * cache.capacity_tokens
    assert cache.allocated_bytes == plain * (1 - config.kv_saving())


@given(rank=st.integers(2, 64), dim=st.sampled_from((2, 8)), data=st.data())
def test_a_cache_of_latents_takes_the_bytes_of_the_formula(
    rank: int, dim: int, data: st.DataObject
) -> None:
    config = replace(
        CONFIG,
        family="deepseek_v2",
        num_kv_heads=9,
        head_dim=dim,
        latent=LatentShape(rank, 8, 8),
        skip_v1_own=data.draw(st.integers(1, rank - 1)),
    )
    cache = _cache(config, 1)
    plain = config.plain_kv_elements() * 4 * cache.capacity_tokens
    assert cache.allocated_bytes == plain * (1 - config.kv_saving())


def test_the_saving_of_smollm2_and_of_the_papers_ablation() -> None:
    smol = replace(CONFIG, num_layers=30, head_dim=64)
    assert smol.kv_saving() == Fraction(29, 30) * Fraction(1, 6)
    assert replace(smol, skip_v1_own=1).kv_saving() == Fraction(29, 30) * Fraction(2, 6)
    sixteen = replace(smol, num_heads=32, num_kv_heads=32, num_layers=24)
    shares = [replace(sixteen, skip_v1_own=own).kv_saving() for own in (24, 16, 8)]
    assert shares == [Fraction(23, 24) * Fraction(shared, 8) for shared in (1, 2, 3)]


def test_half_is_the_same_model_however_it_is_written() -> None:
    four = replace(CONFIG, num_heads=8, num_kv_heads=4, skip_v1_own=None)
    said = replace(four, skip_v1_own=2)
    assert said == four
    assert said.semantic() == four.semantic()
    assert "skip_v1_own" not in write_config(said)
    assert read_config(write_config(four) | {"skip_v1_own": 2}) == four


def test_an_old_models_fingerprint_counts_nothing_new() -> None:
    old = replace(CONFIG, num_heads=8, num_kv_heads=4, skip_v1_own=None)
    assert replace(old, skip_v1_own=3).semantic() == old.semantic() | {"skip_v1_own": 3}
    assert set(asdict(old)) - set(old.semantic()) == {
        *("max_context_tokens", "family", "rope_scaling", "skip_v1_k_source", "skip_v1_own"),
        "latent",
    }


@pytest.mark.parametrize(
    ("model", "digest"),
    [
        ("random-tiny", "54ffeda792f895d63aa6fd3158ad1ab9628e6f9a0f8630b9cb4712f4796b7376"),
        (DEFAULT_MODEL, "d21b9055b4e8bed23b59237364f246793eed00ea66eedcfb7f11222b5e09af03"),
    ],
)
def test_models_from_before_keep_their_fingerprints(model: str, digest: str) -> None:
    assert load_model(model, fast=True).fingerprints.weights == digest


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_a_config_survives_being_written(family: str) -> None:
    config = replace(CONFIG, family=family)
    content = write_config(config)
    assert content["skip_v1_own"] == 2
    assert read_config(content) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"skip_v1_own": None}, "3 is not even; say how many in skip_v1_own, from 1 to 2"),
        ({"skip_v1_own": 3}, "3 of 3 KV heads; it must be from 1 to 2"),
        ({"skip_v1_own": 0}, "0 of 3 KV heads; it must be from 1 to 2"),
        ({"skip_v1": False}, "skip_v1_own is set, but skip_v1 is false"),
        ({"num_kv_heads": 1, "skip_v1_own": 1}, "there is 1 only; use a checkpoint with more"),
    ],
)
def test_what_cannot_be_shared_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        replace(CONFIG, **changes)
