"""Charts as inline SVG: no script, no external asset, colours by class so that the page has themes.

Shapes have the classes c0, c1, ... of their series, and besides the colour a dash pattern of their
own, so that a chart is readable in grey and by colour-blind people.
"""

from collections.abc import Iterable, Sequence
from html import escape

from pd_bench.reports.axis import Axis, fitted_axis
from pd_bench.reports.figures import Curve, CurveFigure, Lane, LaneFigure, Mark

__all__ = ["DASHES", "curve_svg", "lane_svg"]

DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "12 4")
"""Stroke patterns of series 0, 1, ...; they repeat."""

_WIDTH, _HEIGHT = 440, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 14, 40
_LANE_HEIGHT = 46
_TICK_HEIGHT = 13
_LETTER = 6  # largest width of a letter in a mark
_SOURCES = {"c": "cloud", "d": "device"}


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


class _Plot:
    """The area between the axes."""

    def __init__(self, x: Axis, y: Axis, height: int = _HEIGHT) -> None:
        self.x_axis = x
        self.y_axis = y
        self.height = height
        self.bottom = height - _BOTTOM

    def x(self, value: float) -> float:
        return _LEFT + self.x_axis.share(value) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return self.bottom - self.y_axis.share(value) * (self.bottom - _TOP)

    def x_grid(self, label: str) -> Iterable[str]:
        for value in self.x_axis.ticks():
            x = _number(self.x(value))
            yield f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP}" y2="{self.bottom}"/>'
            yield (
                f'<text x="{x}" y="{self.bottom + 14}" text-anchor="middle">'
                f"{Axis.label(value)}</text>"
            )
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        yield (
            f'<text x="{_number(middle)}" y="{self.height - 6}" text-anchor="middle">'
            f"{escape(label)}</text>"
        )

    def y_grid(self, label: str) -> Iterable[str]:
        for value in self.y_axis.ticks():
            y = _number(self.y(value))
            yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>'
            yield (
                f'<text x="{_LEFT - 5}" y="{_number(self.y(value) + 4)}" text-anchor="end">'
                f"{Axis.label(value)}</text>"
            )
        middle = _number((_TOP + self.bottom) / 2)
        yield (
            f'<text transform="rotate(-90 11 {middle})" x="11" y="{middle}" '
            f'text-anchor="middle">{escape(label)}</text>'
        )


def _svg(title: str, height: int, parts: Iterable[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{escape(title)}">\n'
        f"<title>{escape(title)}</title>\n{body}\n</svg>"
    )


def curve_svg(figure: CurveFigure) -> str:
    """Draw lines over a common axis."""
    xs = [x for curve in figure.curves for x, _ in curve.points]
    xs += [mark.x for mark in figure.marks]
    ys = [y for curve in figure.curves for _, y in curve.points]
    plot = _Plot(
        fitted_axis(min(x for x in xs if x > 0 or not figure.log_x), max(xs), log=figure.log_x)
        if any(x > 0 for x in xs) or not figure.log_x
        else fitted_axis(0.0, 0.0, log=True),
        fitted_axis(0.0, max(ys) if figure.y_top is None else figure.y_top),
    )
    parts = [*plot.y_grid(figure.y_label), *plot.x_grid(figure.x_label)]
    parts += _marks(plot, figure.marks)
    for curve in figure.curves:
        parts += _curve(plot, curve)
    return _svg(figure.title, _HEIGHT, parts)


def _marks(plot: _Plot, marks: Sequence[Mark]) -> Iterable[str]:
    free_from = 0.0
    for mark in sorted(marks, key=lambda m: m.x):
        at, half = plot.x(mark.x), _LETTER * len(mark.text) / 2
        x = _number(at)
        yield f'<line class="mark" x1="{x}" x2="{x}" y1="{_TOP}" y2="{plot.bottom}"/>'
        if at - half < free_from:
            continue  # its label would overlap that of the mark before
        free_from = at + half
        middle = _number(min(at, _WIDTH - half))
        yield (
            f'<text class="mark" x="{middle}" y="{_TOP - 3}" text-anchor="middle">'
            f"{escape(mark.text)}</text>"
        )


def _curve(plot: _Plot, curve: Curve) -> Iterable[str]:
    if not curve.points:
        return
    path = []
    last_y = 0.0
    for i, (x, y) in enumerate(curve.points):
        at_x, at_y = plot.x(x), plot.y(y)
        if not i:
            path.append(f"M{_number(at_x)} {_number(at_y)}")
        elif curve.steps:
            path.append(f"H{_number(at_x)}" + (f"V{_number(at_y)}" if at_y != last_y else ""))
        else:
            path.append(f"L{_number(at_x)} {_number(at_y)}")
        last_y = at_y
    dash = DASHES[curve.series % len(DASHES)]
    style = f' stroke-dasharray="{dash}"' if dash else ""
    yield f'<path class="line c{curve.series % len(DASHES)}"{style} d="{"".join(path)}"/>'


def lane_svg(figure: LaneFigure) -> str:
    """Draw one request in every scheme, a stroke a token."""
    ends = [at for lane in figure.lanes for at in (*lane.arrived_s, *lane.shown_s)]
    height = _TOP + _LANE_HEIGHT * len(figure.lanes) + _BOTTOM
    plot = _Plot(fitted_axis(0.0, max(ends)), Axis(0.0, 1.0), height)
    parts = [*plot.x_grid("time since the request, s")]
    for index, lane in enumerate(figure.lanes):
        parts += _lane(plot, lane, _TOP + _LANE_HEIGHT * index)
    return _svg(figure.title, height, parts)


def _lane(plot: _Plot, lane: Lane, top: float) -> Iterable[str]:
    yield f'<text x="{_LEFT}" y="{_number(top + 9)}">{escape(lane.name)}</text>'
    rows = ((lane.arrived_s, "there", top + 13), (lane.shown_s, "shown", top + 29))
    for instants, name, y in rows:
        yield (
            f'<text x="{_LEFT - 5}" y="{_number(y + 10)}" text-anchor="end" class="small">'
            f"{name}</text>"
        )
        yield from _strokes(plot, instants, lane.sources, y, name)


def _strokes(
    plot: _Plot, instants: Sequence[float], sources: str, y: float, kind: str
) -> Iterable[str]:
    """Yield one path a source, so that a request needs two shapes instead of hundreds."""
    for source, name in _SOURCES.items():
        path = "".join(
            f"M{_number(plot.x(at))} {_number(y)}v{_TICK_HEIGHT}"
            for at, made_by in zip(instants, sources, strict=False)
            if made_by == source
        )
        if path:
            yield f'<path class="stroke {name} {kind}" d="{path}"/>'
