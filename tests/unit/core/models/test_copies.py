"""No inference step copies the values (or keys, or latents) of another layer.

torch's profiler counts the bytes of every allocation, those inside attention kernels too, and the
bytes that copies write, wherever they land. A copy of the first layer's values takes bytes in
proportion to the context; so what a step takes must grow with the context no faster than in the
plain transformer, which copies nothing. Tests with a copy put in show that the counting sees it.
"""

import json
import math
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pd_core.identity.numerics import Numerics, unchecked
from pd_core.models import CausalLM, KVCache, ModelConfig, Segment
from pd_core.models.attention import CachedHeads, Pass
from pd_core.models.grouped_attention import GroupedAttention
from pd_core.models.latent_attention import LatentAttention
from pd_core.models.latent_shape import LatentShape
from pd_core.models.numerics_probe import probe

SHORT, LONG = 512, 2048  # contexts
ITEM = 4  # bytes of a float32

MHA = ModelConfig(
    vocab_size=256,
    hidden_size=64,
    intermediate_size=96,
    num_layers=4,
    num_heads=4,
    num_kv_heads=4,
    head_dim=32,
    max_context_tokens=8192,
)
GQA = replace(MHA, num_heads=8)
MLA = replace(
    MHA,
    family="deepseek_v2",
    num_heads=2,
    num_kv_heads=2,
    head_dim=8,
    # A latent so wide that the scores' rows, which do grow with the context, are small beside it.
    latent=LatentShape(kv_rank=2048, nope_dim=8, value_dim=8),
)
PAIRS = {
    "skip": (replace(MHA, skip_v1=True), MHA),
    "yoco": (replace(MHA, skip_v1=True, skip_v1_k_source=1), MHA),
    "gqa-skip": (replace(GQA, skip_v1=True), GQA),
    "mla-skip": (replace(MLA, skip_v1=True), MLA),
    "uneven-skip": (replace(MHA, skip_v1=True, skip_v1_own=3), MHA),
    "uneven-mla-skip": (replace(MLA, skip_v1=True, skip_v1_own=512), MLA),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(params=["reproducible", "fast"])
def numerics(request: pytest.FixtureRequest) -> Numerics:
    return probe() if request.param == "reproducible" else unchecked("cpu")


def bytes_moved(work: Callable[[], object], trace: Path) -> int:
    """Bytes that the work allocates, freed again or not, and bytes that its copies write."""
    with profile(
        activities=[ProfilerActivity.CPU], profile_memory=True, record_shapes=True
    ) as watched:
        work()
    watched.export_chrome_trace(str(trace))
    allocated = written = 0
    for event in json.loads(trace.read_text())["traceEvents"]:
        if event["name"] == "[memory]":
            allocated += max(event["args"]["Bytes"], 0)
        elif event["name"] == "aten::copy_":
            written += math.prod(event["args"]["Input Dims"][0]) * ITEM
    return allocated + written


def growth(config: ModelConfig, numerics: Numerics, tokens: int, trace: Path) -> float:
    """Bytes that a step of so many tokens moves more, for each token of context more."""
    model = CausalLM(config, numerics)
    for tensor in model.tensors().values():
        tensor.fill_(0.01)
    ids = torch.arange(tokens)

    def moved(context: int) -> int:
        step = [Segment(model.make_cache(context), context - tokens, tokens)]
        return bytes_moved(lambda: model.forward(ids, step), trace)

    moved(LONG)  # tables of masks and positions grow once
    return (moved(LONG) - moved(SHORT)) / (LONG - SHORT)


def copy_of_a_layer(config: ModelConfig) -> int:
    """Bytes per token of what one layer reads of the first one's values, or of its latent."""
    if config.latent is not None:
        return (config.latent.kv_rank - config.own_rank(1)) * ITEM
    return (config.num_kv_heads - config.num_value_heads(1)) * config.head_dim * ITEM


def copies(name: str, numerics: Numerics, tokens: int, trace: Path) -> float:
    """How much faster the variant's bytes grow than the plain transformer's: in layers' copies."""
    config, plain = PAIRS[name]
    more = growth(config, numerics, tokens, trace) - growth(plain, numerics, tokens, trace)
    return more / copy_of_a_layer(config)


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.parametrize("tokens", [1, 8], ids=["decode", "chunk"])
@pytest.mark.parametrize("name", PAIRS)
def test_no_step_copies_what_another_layer_cached(
    name: str, tokens: int, numerics: Numerics, tmp_path: Path
) -> None:
    """A copy in each of the three later layers would make 3; temporary scores stay far below."""
    assert copies(name, numerics, tokens, tmp_path / "trace.json") < 0.3


@pytest.mark.parametrize("tokens", [1, 8], ids=["decode", "chunk"])
def test_grouped_steps_do_not_grow_with_the_context_at_all(tokens: int, tmp_path: Path) -> None:
    """Tiles and their masks are views, so the reproducible step takes the same bytes always."""
    assert growth(PAIRS["gqa-skip"][0], probe(), tokens, tmp_path / "trace.json") == 0


@pytest.mark.slow
@pytest.mark.parametrize("into_scratch", [False, True], ids=["cat", "scratch"])
@pytest.mark.parametrize("name", ["skip", "gqa-skip"])
def test_a_copy_of_values_would_be_seen(
    name: str, into_scratch: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """All values in one tensor, new or kept for the purpose: neither goes unnoticed."""
    scratch = torch.zeros(PAIRS[name][0].num_kv_heads, LONG, PAIRS[name][0].head_dim)

    sources = GroupedAttention._sources

    def sources_with_copies(self: GroupedAttention, batch: Pass) -> list[list[CachedHeads]]:
        (cache,) = (segment.cache for segment in batch.segments)
        own, values = self._num_value_heads, cache.values[self._index]
        if own == self._config.num_kv_heads:
            return sources(self, batch)
        if into_scratch:
            scratch[:own, : cache.capacity_tokens] = values
            scratch[own:, : cache.capacity_tokens] = cache.values[0][own:]
            values = scratch
        else:
            values = torch.cat((values, cache.values[0][own:]))
        return [[CachedHeads(cache.keys[self._index][None], values[None])]]

    monkeypatch.setattr(GroupedAttention, "_sources", sources_with_copies)
    assert copies(name, probe(), 1, tmp_path / "trace.json") > 3


@pytest.mark.slow
def test_a_copy_of_latents_would_be_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mix = LatentAttention._mix

    def mix_copies(
        self: LatentAttention, carried: Tensor, rotated: Tensor, cache: KVCache, *place: int
    ) -> Tensor:
        copied = copy(cache)
        if self._own < self._latent.kv_rank:
            copied.keys = [cache.keys[0].clone(), *cache.keys[1:]]
        return mix(self, carried, rotated, copied, *place)

    monkeypatch.setattr(LatentAttention, "_mix", mix_copies)
    assert copies("mla-skip", probe(), 1, tmp_path / "trace.json") > 3
