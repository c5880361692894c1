"""The few figures of a model that have a goal, from all its runs."""

from collections.abc import Iterator, Sequence

from pd_bench.engines.contenders import Contender, counterpart
from pd_bench.engines.result import Summary, ThreadsRun

__all__ = ["summary"]

_PREFILL_BITS = 8  # prompts are compared with llama.cpp's Q8_0


def summary(tested: Sequence[Contender], runs: Sequence[ThreadsRun]) -> Summary:
    """Return the lowest ratios and limit shares over all lengths and numbers of threads."""
    ours = [t for t in tested if t.kind == "torch"]
    theirs = {t.bits: t for t in tested if t.kind != "torch"}
    narrowest = min(ours, key=lambda t: t.bits)
    compared = {f"int{bits}": counterpart(ours, bits) for bits in theirs}
    decode = {
        f"int{bits}": list(_ratios("decode", compared[f"int{bits}"], them, runs))
        for bits, them in theirs.items()
    }
    prefill: list[float] = []
    if (them := theirs.get(_PREFILL_BITS)) is not None:
        prefill = list(_ratios("prefill", counterpart(ours, _PREFILL_BITS), them, runs))
    own = [run.engines[narrowest.name] for run in runs]
    memory = [figures.memory_ratio for figures in own if figures.memory_ratio is not None]
    shares = [
        measured.limit_share
        for figures in own
        for measured in figures.decode
        if measured.limit_share is not None
    ]
    return Summary(
        prefill_ratio=min(prefill, default=None),
        decode_ratio={name: min(ratios) for name, ratios in decode.items() if ratios},
        compared={name: engine.name for name, engine in compared.items()},
        limit_share=min(shares, default=None),
        memory_ratio=max(memory, default=None),
    )


def _ratios(
    phase: str, ours: Contender, theirs: Contender, runs: Sequence[ThreadsRun]
) -> Iterator[float]:
    for run in runs:
        pair = (getattr(run.engines[engine.name], phase) for engine in (ours, theirs))
        yield from (a.over(b) for a, b in zip(*pair, strict=True))
