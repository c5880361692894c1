"""The KV cache that the SkipV1 variants save, and its cost in time."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pd_bench.harness.paired_timing import WARM_UP_ROUNDS, PairedTiming, time_paired
from pd_bench.kv.settings import KvSettings
from pd_bench.kv.variants import Pair, Variant, build_model, variant_pair
from pd_bench.results.provenance import hardware, versions
from pd_core.identity.numerics import Numerics, unchecked
from pd_core.models import CausalLM, KVCache, Segment
from pd_core.models.linear import can_pack
from pd_core.models.numerics_probe import probe

__all__ = ["CacheSize", "KvCost", "PairCost", "measure_kv_cost", "total_weight", "within_goal"]

_CHUNK_TOKENS = 512  # of a prompt, as an engine cuts it; the two models take turns chunk by chunk
_GOAL = 1.05
_SHORT_GOAL = 1.10
_LONG_CONTEXT_TOKENS = 4096

Tick = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class CacheSize:
    """Bytes of the KV cache that one token takes.

    Attributes:
        allocated_bytes: bytes of a cache's distinct storages, divided by its tokens.
        formula_bytes: a plain model's of this shape, less the papers' saving.
        saving: the share of the plain model's cache that is not allocated.
    """

    name: str
    allocated_bytes: float
    formula_bytes: float
    saving: float


@dataclass(frozen=True, slots=True)
class PairCost:
    """Times of a SkipV1 variant and its plain model; decode is the step of one token."""

    name: str
    plain_name: str
    decode: tuple[PairedTiming, ...]
    prefill: tuple[PairedTiming, ...]


@dataclass(frozen=True, slots=True)
class KvCost:
    """The measurement.

    Attributes:
        settings: the inputs.
        reproducible: whether the models ran with equal bits; False in the fast mode, and on a
            machine where that is impossible.
        load_average: over the last minute, before and after; includes other processes and this
            measurement's own threads. None if the system does not report it.
        caches: cache sizes of every variant, including the plain ones.
    """

    settings: KvSettings
    reproducible: bool
    load_average: tuple[float, float] | None
    caches: tuple[CacheSize, ...]
    pairs: tuple[PairCost, ...]
    hardware: dict[str, str | int]
    versions: dict[str, str]


def within_goal(phase: str, timing: PairedTiming) -> bool:
    """Whether the median meets the goal: 5 %, or 10 % for decode below 4,096 tokens of context."""
    short = phase == "decode" and timing.context_tokens < _LONG_CONTEXT_TOKENS
    return timing.ratio <= (_SHORT_GOAL if short else _GOAL)


def total_weight(settings: KvSettings) -> int:
    """Return the sum of all weights that `measure_kv_cost` reports, for a progress bar."""
    decode = sum(_decode_weight(c) for c in settings.decode_contexts)
    decode *= settings.decode_rounds + WARM_UP_ROUNDS
    prefill = sum(settings.prefill_contexts) * (settings.prefill_rounds + WARM_UP_ROUNDS)
    return (decode + prefill) * len(settings.pairs)


def _decode_weight(context: int) -> int:
    """The approximate number of prefill tokens that take as long as a decode step."""
    return 16 + context // 128


def measure_kv_cost(settings: KvSettings, tick: Tick) -> KvCost:
    """Build the pairs one after the other and time them in turns.

    Sets torch's number of threads.

    Args:
        settings: what to measure.
        tick: called after every round with what is measured and the round's weight.

    Raises:
        ModelError: the shape has no such variants.
        ConfigError: the share of own values is none.
    """
    pairs = [variant_pair(settings.shape, n, settings.skip_v1_keep) for n in settings.pairs]
    before = _load_average()
    # The probe tries several thread counts, so the number is set after it.
    numerics = unchecked("cpu", packed=can_pack()) if settings.fast else probe()
    torch.set_num_threads(settings.num_threads)
    costs = tuple(_Pairwise(pair, settings, numerics, tick).measure() for pair in pairs)
    after = _load_average()
    variants = {v.name: v for pair in pairs for v in (pair.plain, pair.skip)}
    return KvCost(
        settings=settings,
        reproducible=numerics.reproducible,
        load_average=None if before is None or after is None else (before, after),
        caches=tuple(_cache_size(v, numerics) for v in variants.values()),
        pairs=costs,
        hardware=hardware(),
        versions=versions(),
    )


def _load_average() -> float | None:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _cache_size(variant: Variant, numerics: Numerics) -> CacheSize:
    """Measure a cache of one block, without allocating weights."""
    model = CausalLM(variant.config, numerics)
    cache = model.make_cache(1)
    plain = variant.config.plain_kv_elements() * model.dtype.itemsize
    allocated = cache.allocated_bytes / cache.capacity_tokens
    formula = float(plain * (1 - variant.config.kv_saving()))
    return CacheSize(variant.name, allocated, formula, 1 - allocated / plain)


class _Pairwise:
    """The two models of a pair, in memory while they are timed."""

    def __init__(self, pair: Pair, settings: KvSettings, numerics: Numerics, tick: Tick) -> None:
        self._pair = pair
        self._settings = settings
        self._tick = tick
        self._now_s = time.process_time if settings.clock == "cpu" else time.perf_counter
        self._models = tuple(
            build_model(v.config, numerics, settings.seed) for v in (pair.skip, pair.plain)
        )

    def measure(self) -> PairCost:
        """Time all contexts of both phases."""
        s = self._settings
        return PairCost(
            name=self._pair.skip.name,
            plain_name=self._pair.plain.name,
            decode=tuple(self._decode(context) for context in s.decode_contexts),
            prefill=tuple(self._prefill(context) for context in s.prefill_contexts),
        )

    def _decode(self, context: int) -> PairedTiming:
        """Time the step of the context's last token, repeatedly at the same position."""
        caches = self._full_caches(context)
        skip, plain = (
            [lambda m=model, c=cache: _step(m, c, context - 1, 1)]
            for model, cache in zip(self._models, caches, strict=True)
        )
        return time_paired(
            skip,
            plain,
            context_tokens=context,
            num_rounds=self._settings.decode_rounds,
            now_s=self._now_s,
            after_round=lambda: self._tick(self._doing("decode"), _decode_weight(context)),
        )

    def _prefill(self, context: int) -> PairedTiming:
        """Time a prompt in chunks, with its cache already allocated so that only work is timed."""
        caches = self._full_caches(context)
        places = [(i, min(_CHUNK_TOKENS, context - i)) for i in range(0, context, _CHUNK_TOKENS)]
        skip, plain = (
            [lambda m=model, c=cache, p=place: _step(m, c, *p) for place in places]
            for model, cache in zip(self._models, caches, strict=True)
        )
        return time_paired(
            skip,
            plain,
            context_tokens=context,
            num_rounds=self._settings.prefill_rounds,
            now_s=self._now_s,
            after_round=lambda: self._tick(self._doing("prefill"), context),
        )

    def _full_caches(self, context: int) -> list[KVCache]:
        """Return a cache of random contents for each model."""
        numbers = torch.Generator().manual_seed(self._settings.seed)
        caches = [model.make_cache(context) for model in self._models]
        for cache in caches:
            for tensor in (*cache.keys, *cache.values):
                tensor.normal_(generator=numbers)
        return caches

    def _doing(self, phase: str) -> str:
        return f"{self._pair.skip.name}, {phase}"


def _step(model: CausalLM, cache: KVCache, start: int, num_tokens: int) -> None:
    """Put tokens through the model, and the last one through the output layer."""
    ids = torch.arange(num_tokens) % model.config.vocab_size
    hidden = model.forward(ids, [Segment(cache, start, num_tokens)])
    model.logits(hidden[-1:])
