"""The savings and costs of the KV cache as tables and as a picture."""

import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from pd_bench.harness.paired_timing import PairedTiming
from pd_bench.kv.cost import KvCost, PairCost, within_goal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_kv_cost", "print_kv_cost"]

_PHASES = ("decode", "prefill")


def print_kv_cost(cost: KvCost, console: Console) -> None:
    """Print the cache's sizes, then a table of times for each pair."""
    console.print(_cache_table(cost))
    for pair in cost.pairs:
        if pair.decode or pair.prefill:
            console.print(_time_table(pair))
    for line in _notes(cost):
        console.print(line, style="dim", highlight=False)


def _cache_table(cost: KvCost) -> Table:
    s = cost.settings.shape
    table = Table(
        title=f"KV cache, float32, {s.layers} layers, width {s.width}, {s.heads} heads "
        f"(GQA: {s.kv_heads})",
        caption="bytes per token",
    )
    table.add_column("")
    for column in ("allocated", "by formula", "saved"):
        table.add_column(column, justify="right")
    for cache in cost.caches:
        saved = f"{cache.saving:.1%}" if cache.saving else "-"
        table.add_row(cache.name, f"{cache.allocated_bytes:,g}", f"{cache.formula_bytes:,g}", saved)
    return table


def _time_table(pair: PairCost) -> Table:
    table = Table(
        title=f"{pair.name} beside {pair.plain_name}",
        caption="ms of a step or a prompt, medians; ratio: median of the rounds, 95 % interval",
    )
    table.add_column("")
    for column in ("context", pair.name, pair.plain_name, "ratio", "95 %", "goal"):
        table.add_column(column, justify="right")
    for phase, timings in _phases(pair):
        for t in timings:
            table.add_row(
                phase,
                str(t.context_tokens),
                f"{t.variant_s * 1000:.2f}",
                f"{t.plain_s * 1000:.2f}",
                f"{t.ratio:.3f}",
                f"{t.ratio_low:.3f} - {t.ratio_high:.3f}",
                "met" if within_goal(phase, t) else "MISSED",
            )
    return table


def _phases(pair: PairCost) -> Iterable[tuple[str, Sequence[PairedTiming]]]:
    return zip(_PHASES, (pair.decode, pair.prefill), strict=True)


def _notes(cost: KvCost) -> list[str]:
    s = cost.settings
    arithmetic = "reproducible" if cost.reproducible else "plain kernels (fast)"
    lines = [
        f"{arithmetic}; {s.num_threads} thread{'s' if s.num_threads > 1 else ''}; random weights; "
        f"{s.clock} clock; "
        f"{s.decode_rounds} rounds of decode, {s.prefill_rounds} of prefill",
        f"a SkipV1 layer's share of own values: {s.skip_v1_keep:g}, in whole heads",
        "goal: at most 1.05; decode below 4096 tokens of context 1.10",
    ]
    if cost.load_average is not None:
        before, after = cost.load_average
        lines.append(
            f"load average before {before:.1f}, after {after:.1f}, of {cost.hardware['cores']} "
            "cores: well above the threads means that other work ran besides"
        )
    return lines


def draw_kv_cost(cost: KvCost) -> bytes:
    """Return a picture as PNG: bytes per token, and both phases' ratios over the context.

    Needs matplotlib.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.5), layout="constrained")
    sizes, decode, prefill = figure.subplots(1, 3)
    _draw_sizes(sizes, cost)
    _draw_ratios(decode, "decode", cost)
    _draw_ratios(prefill, "prefill", cost)
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)  # type: ignore[no-untyped-call]
    return picture.getvalue()


def _draw_sizes(axes: "Axes", cost: KvCost) -> None:
    names = [cache.name for cache in cost.caches]
    axes.barh(names, [c.allocated_bytes for c in cost.caches], alpha=0.6, label="allocated")
    axes.plot([c.formula_bytes for c in cost.caches], names, "k|", ms=18, label="by formula")
    axes.invert_yaxis()
    axes.set_xlabel("bytes of KV cache per token (float32)")
    axes.legend()


def _draw_ratios(axes: "Axes", phase: str, cost: KvCost) -> None:
    axes.axhline(1.0, color="k", linewidth=0.8)
    axes.axhline(1.05, color="k", linewidth=0.8, linestyle=":", label="goal (5 %)")
    contexts = sorted({t.context_tokens for p in cost.pairs for t in getattr(p, phase)})
    for pair in cost.pairs:
        timings: tuple[PairedTiming, ...] = getattr(pair, phase)
        if timings:
            ratios = [t.ratio for t in timings]
            spread = (
                [t.ratio - t.ratio_low for t in timings],
                [t.ratio_high - t.ratio for t in timings],
            )
            at = [contexts.index(t.context_tokens) for t in timings]
            label = f"{pair.name} / {pair.plain_name}"
            axes.errorbar(at, ratios, yerr=spread, marker="o", capsize=3, label=label)
    axes.set_xticks(range(len(contexts)), [str(c) for c in contexts])
    axes.set_xlabel("tokens of context" if phase == "decode" else "tokens of prompt")
    axes.set_ylabel(f"{phase}: time over the plain model's")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
