"""A report's figures as one picture, for places that show no HTML."""

import io
import math
import textwrap
from importlib.util import find_spec
from typing import TYPE_CHECKING

from pd_bench.reports.axis import Axis
from pd_bench.reports.figures import CurveFigure, Lane, LaneFigure, figures
from pd_bench.results.result import ResultDocument
from pd_core.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["check_can_draw", "report_png"]

_COLUMNS = 2
_INCHES = (5.2, 3.4)  # size of one figure
_DPI = 90
_COLOURS_KEPT = 128
_TITLE_WIDTH = 120  # letters; a label may be a whole sentence
_COLOURS = ("#5b6670", "#b3541e", "#0b6e99", "#6d3fa0", "#2c7a3f", "#a0266b")
_DASHES = ("-", "--", ":", "-.", (0, (4, 2)), (0, (8, 3)))
_SOURCES = {"c": "#0b6e99", "d": "#c2620f"}


def check_can_draw() -> None:
    """Check that a picture can be drawn, before anything is measured.

    Raises:
        ConfigError: matplotlib is missing.
    """
    if find_spec("matplotlib") is None:
        raise ConfigError("a PNG needs matplotlib; install pd-device[bench], or ask for HTML")


def report_png(document: ResultDocument) -> bytes:
    """Draw every figure of a document into one PNG.

    Raises:
        ConfigError: there is nothing to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = figures(document)
    if not drawn:
        raise ConfigError("the document holds nothing to draw: no requests, load or capacity")
    num_rows = math.ceil(len(drawn) / _COLUMNS)
    columns = min(_COLUMNS, len(drawn))
    canvas = Figure(
        figsize=(_INCHES[0] * columns, _INCHES[1] * num_rows + 0.5), layout="constrained"
    )
    FigureCanvasAgg(canvas)
    canvas.suptitle(_title(document), fontsize=9)
    grid = canvas.subplots(num_rows, columns, squeeze=False).flatten()
    for axes, figure in zip(grid, drawn, strict=False):
        if isinstance(figure, CurveFigure):
            _draw_curves(axes, figure)
        else:
            _draw_lanes(axes, figure)
    for axes in grid[len(drawn) :]:
        axes.set_axis_off()
    return _packed(canvas)


def _packed(canvas: "Figure") -> bytes:
    """Save a figure as a PNG with few colours, which looks the same at a fraction of the size."""
    from PIL import Image

    drawn, packed = io.BytesIO(), io.BytesIO()
    canvas.savefig(drawn, format="png", dpi=_DPI)
    with Image.open(drawn) as image:
        image.convert("RGB").quantize(_COLOURS_KEPT).save(packed, format="png", optimize=True)
    return packed.getvalue()


def _title(document: ResultDocument) -> str:
    state = "" if document.valid else (" - PARTIAL" if document.partial else " - NOT VALID")
    emulated = [label for label in document.labels if "emulated" in label or "throttled" in label]
    lines = [
        f"{document.trace}: {document.fidelity}, {document.arrivals} arrivals, "
        f"pace {document.pace_s:g} s{state}",
        *emulated,
    ]
    return "\n".join(textwrap.fill(line, _TITLE_WIDTH) for line in lines)


def _draw_curves(axes: "Axes", figure: CurveFigure) -> None:
    for curve in figure.curves:
        if not curve.points:
            continue
        xs, ys = zip(*curve.points, strict=True)
        axes.plot(
            xs,
            ys,
            label=curve.name,
            color=_COLOURS[curve.series % len(_COLOURS)],
            linestyle=_DASHES[curve.series % len(_DASHES)],
            drawstyle="steps-post" if curve.steps else "default",
        )
    for mark in figure.marks:
        axes.axvline(mark.x, color="#888888", linewidth=0.8, linestyle=":")
    if figure.log_x and any(x > 0 for curve in figure.curves for x, _ in curve.points):
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        ticks = Axis(low, high, log=True).ticks()
        axes.set_xticks(ticks, [Axis.label(tick) for tick in ticks])
        axes.set_xticks([], minor=True)
    if figure.y_top is not None:
        axes.set_ylim(0, figure.y_top * 1.02)
    axes.set_title(figure.title, fontsize=9)
    axes.set_xlabel(figure.x_label, fontsize=8)
    axes.set_ylabel(figure.y_label, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def _draw_lanes(axes: "Axes", figure: LaneFigure) -> None:
    for i, lane in enumerate(figure.lanes):
        top = 2.6 * (len(figure.lanes) - i)
        axes.text(0, top + 0.1, lane.name, fontsize=7)
        _draw_strokes(axes, lane, lane.arrived_s, top - 0.4)
        _draw_strokes(axes, lane, lane.shown_s, top - 1.4)
    axes.set_yticks([])
    axes.set_title(figure.title, fontsize=9)
    axes.set_xlabel(
        "time since the request, s (above: there; below: shown; blue: cloud, orange: device)",
        fontsize=7,
    )
    axes.tick_params(labelsize=7)


def _draw_strokes(axes: "Axes", lane: Lane, instants: tuple[float, ...], y: float) -> None:
    for source, colour in _SOURCES.items():
        own = [at for at, made_by in zip(instants, lane.sources, strict=False) if made_by == source]
        axes.vlines(own, y - 0.4, y + 0.4, colors=colour, linewidth=0.9)
