"""A comparison of controllers as a table, and one answer as a picture."""

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from pd_bench.pacing.comparison import CONTROLLERS, PacingComparison, PatternFigures, schedules
from pd_bench.pacing.recording import Recording
from pd_bench.reports.figures import Curve, CurveFigure
from pd_bench.reports.svg_chart import DASHES, curve_svg

__all__ = ["document_of", "picture", "print_comparison"]

_WIDTH = 110
_BEFORE, _AFTER = 5, 15  # tokens of the picture around the largest gap
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#6b6b6b", "#000000")


def print_comparison(comparison: PacingComparison, console: Console) -> None:
    """Print every pattern, and whether the goals are kept."""
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    title = f"largest gap over the best possible, p50 / p99; pace {comparison.pace_s:g} s"
    table = Table(title=title)
    table.add_column("pattern")
    table.add_column("answers", justify="right")
    for controller in CONTROLLERS[:-1]:
        table.add_column(controller, justify="right", no_wrap=True)
    table.add_column("delay, ms", justify="right")
    for figures in (*comparison.patterns, comparison.overall):
        table.add_row(*_cells(figures))
    console.print(table)
    for figures in comparison.patterns:
        out = "" if figures.counts else " (does not count for the goals)"
        console.print(f"- {figures.pattern}: {figures.what}{out}", soft_wrap=True, highlight=False)
    console.print(
        "- delay: of pd-device, against tokens shown as early as the pace allows, mean over tokens",
        soft_wrap=True,
    )
    verdict = "kept" if comparison.goals_kept else "MISSED"
    console.print(
        f"within 5 % of the best possible at the median and 50 % at p99: {verdict}",
        highlight=False,
    )


def _cells(figures: PatternFigures) -> list[str]:
    cells = [figures.pattern, str(figures.answers)]
    for controller in CONTROLLERS[:-1]:
        ratio = figures.controllers[controller].largest_gap_over_optimum
        cells.append(f"{ratio['p50']:.3f} / {ratio['p99']:.2f}")
    return [*cells, f"{figures.controllers['pd-device'].delay_s * 1000:.0f}"]


def document_of(comparison: PacingComparison) -> dict[str, Any]:
    """Return the document that `--json` writes."""
    overall = comparison.overall.controllers
    return {
        "largest_gap_over_optimum": {
            name: overall[name].largest_gap_over_optimum for name in CONTROLLERS
        },
        **asdict(comparison),
    }


def picture(recording: Recording) -> str:
    """Draw one answer around its largest gap as a standalone SVG: tokens against time."""
    shown = {"there": list(recording.arrived_at_s), **schedules(recording)}
    del shown["at once"]  # the same as "there"
    naive = shown["fixed pace"]
    widest = max(range(1, len(naive)), key=lambda i: naive[i] - naive[i - 1])
    end = min(widest + _AFTER, len(naive))
    start_s = recording.arrived_at_s[0]
    curves = tuple(
        Curve(name, i, tuple((at_s - start_s, float(n)) for n, at_s in enumerate(ats[:end])), True)
        for i, (name, ats) in enumerate(shown.items())
    )
    svg = curve_svg(
        CurveFigure(
            "One answer under each controller",
            "",
            "seconds since the first token",
            "tokens",
            curves,
        )
    )
    return _standalone(svg, [curve.name for curve in curves])


def _standalone(svg: str, names: list[str]) -> str:
    """Add what a page would: colours, a ground, and the legend."""
    rules = "".join(f".c{i}{{stroke:{colour}}}" for i, colour in enumerate(_COLOURS))
    style = (
        "<style>text{font:11px sans-serif;fill:#222}.grid{stroke:#ddd}"
        f".line{{fill:none;stroke-width:1.6}}{rules}</style>"
        '<rect width="100%" height="100%" fill="#fff"/>'
    )
    legend = []
    for i, name in enumerate(names):
        y = 148 + 15 * i
        dash = DASHES[i % len(DASHES)]
        dashed = f' stroke-dasharray="{dash}"' if dash else ""
        legend.append(
            f'<path class="line c{i}"{dashed} d="M296 {y}h28"/>'
            f'<text x="330" y="{y + 4}">{name}</text>'
        )
    opening, rest = svg.split("\n", 1)
    opening = opening.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ')
    return f"{opening}\n{style}\n{rest}".replace("</svg>", "\n".join(legend) + "\n</svg>")
