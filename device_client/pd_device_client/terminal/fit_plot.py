"""A fit as a picture: in plain characters for a terminal, and as SVG."""

from collections.abc import Sequence
from html import escape

from pd_device_client.planning.speeds.fit_table import FitRow

__all__ = ["fit_svg", "text_plot"]

_WIDTH, _HEIGHT = 60, 12  # of the terminal's plot, in characters
_PLOT = (420, 200)  # of the SVG's, in pixels
_MARGIN = (64, 30)


def text_plot(title: str, rows: Sequence[FitRow], unit_s: float, unit: str) -> list[str]:
    """Return a plot's lines: o is measured, . is fitted, * is both.

    Args:
        title: what is plotted.
        rows: at least one, by rising tokens.
        unit_s: seconds in the unit of the axis.
        unit: the unit's name.
    """
    most_tokens = max(rows[-1].num_tokens, 1)
    most_s = max(max(row.measured_s, row.fitted_s) for row in rows) or 1.0
    cells = [[" "] * _WIDTH for _ in range(_HEIGHT)]

    def mark(tokens: float, seconds: float, letter: str) -> None:
        column = round(tokens / most_tokens * (_WIDTH - 1))
        line = _HEIGHT - 1 - round(seconds / most_s * (_HEIGHT - 1))
        taken = cells[line][column]
        cells[line][column] = "*" if taken not in (" ", letter) else letter

    for column in range(_WIDTH):
        tokens = column / (_WIDTH - 1) * most_tokens
        if tokens >= rows[0].num_tokens:
            mark(tokens, _between(rows, tokens), ".")
    for row in rows:
        mark(row.num_tokens, row.measured_s, "o")
    labels = [f"{most_s / unit_s:.4g}", *[""] * (_HEIGHT - 2), "0"]
    width = max(map(len, labels))
    lines = [
        f"{label:>{width}} |{''.join(cell).rstrip()}"
        for label, cell in zip(labels, cells, strict=True)
    ]
    axis = f"{'':>{width}} +{'-' * _WIDTH}"
    ends = f"{'':>{width}}  0{most_tokens:>{_WIDTH - 1},} tokens"
    return [f"{title}, {unit} (o measured, . fitted, * both)", *lines, axis, ends]


def fit_svg(plots: Sequence[tuple[str, Sequence[FitRow], float, str]]) -> str:
    """Return a picture with a plot for each title, rows, seconds of the unit, and the unit."""
    width, height = _PLOT[0] + 2 * _MARGIN[0], _PLOT[1] + 3 * _MARGIN[1]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height * len(plots)}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height * len(plots)}" fill="white"/>',
    ]
    for place, (title, rows, unit_s, unit) in enumerate(plots):
        parts.append(f'<g transform="translate({_MARGIN[0]} {place * height + _MARGIN[1]})">')
        parts += _svg_plot(title, rows, unit_s, unit)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>"])


def _svg_plot(title: str, rows: Sequence[FitRow], unit_s: float, unit: str) -> list[str]:
    width, height = _PLOT
    most_tokens = max(rows[-1].num_tokens, 1)
    most_s = max(max(row.most_s, row.fitted_s) for row in rows) or 1.0

    def x(tokens: float) -> str:
        return f"{tokens / most_tokens * width:.1f}"

    def y(seconds: float) -> str:
        return f"{height - seconds / most_s * height:.1f}"

    fitted = " ".join(f"{x(row.num_tokens)},{y(row.fitted_s)}" for row in rows)
    parts = [
        f'<text x="0" y="-8">{escape(title)}, {escape(unit)}: bars from the shortest to the '
        "longest, dots the median, line the fit</text>",
        f'<path d="M0 0 V{height} H{width}" fill="none" stroke="#888"/>',
        f'<text x="-6" y="10" text-anchor="end">{most_s / unit_s:.4g}</text>',
        f'<text x="-6" y="{height}" text-anchor="end">0</text>',
        f'<text x="0" y="{height + 18}">0</text>',
        f'<text x="{width}" y="{height + 18}" text-anchor="end">{most_tokens:,} tokens</text>',
        f'<polyline points="{fitted}" fill="none" stroke="#1565c0" stroke-width="2"/>',
    ]
    for row in rows:
        at = x(row.num_tokens)
        parts.append(
            f'<line x1="{at}" x2="{at}" y1="{y(row.least_s)}" y2="{y(row.most_s)}" stroke="#999"/>'
            f'<circle cx="{at}" cy="{y(row.measured_s)}" r="3" fill="#222"/>'
        )
    return parts


def _between(rows: Sequence[FitRow], tokens: float) -> float:
    """The fitted seconds at a length, on the line between its neighbours."""
    before = rows[0]
    for row in rows:
        if row.num_tokens >= tokens:
            gap = row.num_tokens - before.num_tokens
            share = (tokens - before.num_tokens) / gap if gap else 1.0
            return before.fitted_s + share * (row.fitted_s - before.fitted_s)
        before = row
    return before.fitted_s
