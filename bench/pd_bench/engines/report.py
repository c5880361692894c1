"""The engines side by side: tables, and a picture against the limit."""

import io
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from pd_bench.engines.result import EngineDocument, EngineFigures, SubjectResult, ThreadsRun

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_engines", "print_engines"]

_PREFILL_GOAL = 2.0
_DECODE_GOALS = {"int8": 1.2, "int4": 1.0}
_SHARE_GOAL = 0.75
_MEMORY_GOAL = 1.2


def print_engines(document: EngineDocument, console: Console) -> None:
    """Print a table for each model and number of threads, and the figures that have a goal."""
    for subject in document.subjects:
        for run in subject.runs:
            console.print(_table(subject, run))
            console.print(_note(run, document), style="dim", highlight=False, soft_wrap=True)
        for line in _verdicts(subject):
            console.print(line, highlight=False, soft_wrap=True)


def _table(subject: SubjectResult, run: ThreadsRun) -> Table:
    weights = "random weights" if subject.random_weights else "its own weights"
    threads = f"{run.threads} thread{'s' if run.threads > 1 else ''}"
    table = Table(
        title=f"{subject.name}, {weights}, {threads}",
        caption="tokens/s, medians; (share of what the memory's bandwidth allows)",
    )
    table.add_column("", no_wrap=True)
    for name in run.engines:
        table.add_column(name, justify="right", no_wrap=True)
    columns = [_cells(figures) for figures in run.engines.values()]
    for row, cells in zip(_rows(run), zip(*columns, strict=True), strict=True):
        table.add_row(row, *cells)
    return table


def _rows(run: ThreadsRun) -> list[str]:
    first = next(iter(run.engines.values()))
    return [
        *(f"prefill {m.tokens:,}" for m in first.prefill),
        *(f"decode at {m.tokens:,}" for m in first.decode),
        "to load, s",
        "peak, MiB",
        "memory over weights",
    ]


def _cells(figures: EngineFigures) -> list[str]:
    cells = [_rate(m.tokens_per_s) for m in figures.prefill]
    cells += [f"{_rate(m.tokens_per_s)} ({m.limit_share:.0%})" for m in figures.decode]
    peak, ratio = figures.peak_bytes, figures.memory_ratio
    cells.append(f"{figures.load_s:.2f}")
    cells.append("-" if peak is None else str(peak >> 20))
    return [*cells, "-" if ratio is None else f"{ratio:.2f}"]


def _rate(tokens_per_s: float) -> str:
    return f"{tokens_per_s:,.0f}" if tokens_per_s >= 100 else f"{tokens_per_s:.1f}"


def _note(run: ThreadsRun, document: EngineDocument) -> str:
    note = f"bandwidth {run.bandwidth_bytes_per_s / 1e9:.1f} GB/s"
    if run.load_average is not None:
        before, after = run.load_average
        note += (
            f"; load average before {before:.1f}, after {after:.1f}, of "
            f"{document.hardware['cores']} cores: well above the threads means that other work ran "
            "besides"
        )
    return note


def _verdicts(subject: SubjectResult) -> list[str]:
    lines = []
    if subject.prefill_ratio is not None:
        name = subject.compared["int8"]
        lines.append(_verdict(f"prefill, {name} over Q8_0", subject.prefill_ratio, _PREFILL_GOAL))
    for bits, ratio in subject.decode_ratio.items():
        name, type_ = subject.compared[bits], {"int8": "Q8_0", "int4": "Q4_0"}[bits]
        lines.append(_verdict(f"decode, {name} over {type_}", ratio, _DECODE_GOALS[bits]))
    if subject.limit_share is not None:
        lines.append(_verdict("decode, share of the limit", subject.limit_share, _SHARE_GOAL))
    if (most := subject.memory_ratio) is not None:
        said = "met" if most <= _MEMORY_GOAL else "MISSED"
        lines.append(f"memory over the weights: {most:.2f} at most (goal {_MEMORY_GOAL:g}: {said})")
    return [f"{subject.name}: {line}" for line in lines]


def _verdict(what: str, least: float, goal: float) -> str:
    return f"{what}: {least:.2f} at least (goal {goal:g}: {'met' if least >= goal else 'MISSED'})"


def draw_engines(document: EngineDocument) -> bytes:
    """Return a picture as PNG: decode speed against the limit, for each model. Needs matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    runs = [(subject, run) for subject in document.subjects for run in subject.runs]
    figure = Figure(figsize=(5 * len(runs), 4.5), layout="constrained")
    places = figure.subplots(1, len(runs), squeeze=False)[0]
    for axes, (subject, run) in zip(places, runs, strict=True):
        _draw(axes, subject, run)
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture)  # type: ignore[no-untyped-call]
    return picture.getvalue()


def _draw(axes: "Axes", subject: SubjectResult, run: ThreadsRun) -> None:
    """Draw each engine's decode speed over the context, and the limit of its bytes, dashed."""
    for name, figures in run.engines.items():
        at = range(len(figures.decode))
        speeds = [m.tokens_per_s for m in figures.decode]
        (line,) = axes.plot(at, speeds, marker="o", label=name)
        limits = [m.tokens_per_s / m.limit_share for m in figures.decode if m.limit_share]
        if limits:
            axes.plot(at, limits, "--", color=line.get_color(), alpha=0.6)
    tokens = [str(m.tokens) for m in next(iter(run.engines.values())).decode]
    axes.set_xticks(range(len(tokens)), tokens)
    axes.set_yscale("log")
    axes.set_xlabel("tokens of context")
    axes.set_ylabel("decode, tokens/s (dashed: as the bandwidth allows)")
    axes.set_title(f"{subject.name}, {run.threads} thread{'s' if run.threads > 1 else ''}")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
