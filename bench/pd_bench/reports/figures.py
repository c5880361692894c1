"""The figures of a report as plain data, drawn by both the page and the picture."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pd_bench.results.quantiles import quantiles
from pd_bench.results.result import RequestRecord, ResultDocument
from pd_bench.results.series import Timeline

__all__ = ["Curve", "CurveFigure", "Lane", "LaneFigure", "Mark", "figures"]

_POINTS = 200  # of a distribution's curve
_TIMELINES = 3  # rows that are shown token by token
_TICKS = 60  # tokens of a row that are shown


@dataclass(frozen=True, slots=True)
class Curve:
    """One line. Points are (x, y), x ascending; `series` chooses colour and dash.

    A scheme has the same series in every figure of a report, even where other schemes are missing.
    """

    name: str
    series: int
    points: tuple[tuple[float, float], ...]
    steps: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """A vertical line at x, with its label."""

    x: float
    text: str


@dataclass(frozen=True, slots=True)
class CurveFigure:
    """Lines over a common axis.

    Attributes:
        title: title of the figure.
        caption: how to read it.
        x_label: with its unit.
        y_label: with its unit.
        curves: one a scheme.
        log_x: whether x is logarithmic.
        marks: vertical lines.
        y_top: end of the y axis; None: the largest value.
    """

    title: str
    caption: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    log_x: bool = False
    marks: tuple[Mark, ...] = ()
    y_top: float | None = None


@dataclass(frozen=True, slots=True)
class Lane:
    """One scheme's tokens of a request.

    Attributes:
        name: the scheme.
        arrived_s: when each token was there.
        shown_s: when each was shown.
        sources: "c" or "d" of each.
    """

    name: str
    arrived_s: tuple[float, ...]
    shown_s: tuple[float, ...]
    sources: str


@dataclass(frozen=True, slots=True)
class LaneFigure:
    """One request in every scheme, token by token; x is seconds since its arrival."""

    title: str
    caption: str
    lanes: tuple[Lane, ...] = field(default=())


def figures(document: ResultDocument) -> list[CurveFigure | LaneFigure]:
    """Return all figures for which the document has data."""
    by_scheme: dict[str, list[RequestRecord]] = {name: [] for name in document.schemes}
    for r in document.requests:
        by_scheme.setdefault(r.scheme, []).append(r)
    drawn: list[CurveFigure | LaneFigure] = [
        figure
        for figure in (
            _ttft(document, by_scheme),
            _largest_gap(document, by_scheme),
            _gaps(document, by_scheme),
            _load(document),
        )
        if any(curve.points for curve in figure.curves)
    ]
    return [*drawn, *_capacity(document), *_timelines(document)]


def _ttft(document: ResultDocument, by_scheme: dict[str, list[RequestRecord]]) -> CurveFigure:
    values = {name: [r.ttft_s for r in records] for name, records in by_scheme.items()}
    return CurveFigure(
        "Time to the first token",
        "Share of the requests whose first token was shown by then. Further left is better.",
        "TTFT, s",
        "share of requests",
        _curves(document, "ttft_s", values),
        log_x=True,
        y_top=1.0,
    )


def _largest_gap(
    document: ResultDocument, by_scheme: dict[str, list[RequestRecord]]
) -> CurveFigure:
    values = {name: [r.largest_gap_s for r in records] for name, records in by_scheme.items()}
    return CurveFigure(
        "The largest gap of each request",
        "One stall among two hundred gaps hides in the pooled gaps; here it is seen.",
        "largest gap, s",
        "share of requests",
        _curves(document, "largest_gap_s", values),
        log_x=True,
        marks=(Mark(document.pace_s, "pace"), Mark(2 * document.pace_s, "stalled")),
        y_top=1.0,
    )


def _gaps(document: ResultDocument, by_scheme: dict[str, list[RequestRecord]]) -> CurveFigure:
    values = {
        name: list(itertools.chain.from_iterable(r.gaps_s for r in records))
        for name, records in by_scheme.items()
    }
    return CurveFigure(
        "Gaps between shown tokens",
        "Every gap of every request, pooled.",
        "gap, s",
        "share of gaps",
        _curves(document, "gap_s", values),
        log_x=True,
        marks=(Mark(document.pace_s, "pace"),),
        y_top=1.0,
    )


def _curves(
    document: ResultDocument, name: str, values: Mapping[str, Sequence[float | None]]
) -> tuple[Curve, ...]:
    """Return a distribution's curve per scheme: of all values, or of the document's quantiles."""
    curves = []
    for i, (scheme, result) in enumerate(document.schemes.items()):
        stored = result.quantiles_s.get(name)
        if stored:
            curves.append(Curve(scheme, i, _quantile_points(stored)))
        else:
            curves.append(Curve(scheme, i, _distribution_points(values.get(scheme, ()))))
    return tuple(curves)


def _quantile_points(stored: Sequence[float]) -> tuple[tuple[float, float], ...]:
    shares = np.linspace(0.0, 1.0, len(stored)).tolist()
    return tuple(zip(stored, shares, strict=True))


def _distribution_points(values: Iterable[float | None]) -> tuple[tuple[float, float], ...]:
    known = np.sort(np.array([v for v in values if v is not None], dtype=np.float64))
    if not len(known):
        return ()
    shares = np.linspace(0.0, 1.0, min(_POINTS, max(len(known), 2)))
    return tuple(zip(quantiles(known, shares).tolist(), shares.tolist(), strict=True))


def _load(document: ResultDocument) -> CurveFigure:
    curves = tuple(
        Curve(
            scheme,
            i,
            tuple((p.at_s, float(p.running + p.waiting)) for p in document.cloud_load[scheme]),
            steps=True,
        )
        for i, scheme in enumerate(document.schemes)
        if scheme in document.cloud_load
    )
    return CurveFigure(
        "The cloud's load over time",
        "Requests that hold a slot of the cloud or wait for one, in each scheme's first pass.",
        "time since the pass began, s",
        "requests",
        curves,
    )


def _capacity(document: ResultDocument) -> list[CurveFigure]:
    """One figure a regime."""
    regimes = dict.fromkeys(c.regime for curves in document.capacity.values() for c in curves)
    return [_capacity_of(document, regime) for regime in regimes]


def _capacity_of(document: ResultDocument, regime: str) -> CurveFigure:
    found = {
        scheme: curve
        for scheme, curves in document.capacity.items()
        for curve in curves
        if curve.regime == regime
    }
    # The document of a capacity search has only curves, and no requests of any scheme.
    names = dict.fromkeys((*document.schemes, *document.capacity))
    return CurveFigure(
        f"Capacity, bound by {regime}",
        "Share of promises kept at each arrival rate; the lines are the highest rates that keep "
        f"{max(c.target for c in found.values()):.4g} of 1. A rate that broke too many was left "
        "early: its share is the most it could have kept.",
        "requests a second",
        "promises kept",
        tuple(
            Curve(scheme, i, tuple((p.rate_per_s, p.kept) for p in found[scheme].points))
            for i, scheme in enumerate(names)
            if scheme in found
        ),
        marks=tuple(Mark(c.capacity_per_s, s) for s, c in found.items() if c.capacity_per_s),
        y_top=1.0,
    )


def _timelines(document: ResultDocument) -> list[LaneFigure]:
    """Three rows: the ones with the shortest, the middle and the longest prompt."""
    rows: dict[int, dict[str, Timeline]] = {}
    for timeline in document.timelines:
        if timeline.repeat == 0 and timeline.shown_at_s:
            rows.setdefault(timeline.id, {})[timeline.scheme] = timeline
    complete = [r for r in rows.values() if len(r) == max(len(other) for other in rows.values())]
    complete.sort(key=lambda r: next(iter(r.values())).prompt_tokens)
    last = len(complete) - 1
    picked = sorted({round(i * last / (_TIMELINES - 1)) for i in range(_TIMELINES)} - {-1})
    return [_lanes(document, complete[i]) for i in picked if complete]


def _lanes(document: ResultDocument, row: dict[str, Timeline]) -> LaneFigure:
    some = next(iter(row.values()))
    lanes = tuple(
        Lane(
            scheme,
            row[scheme].arrived_at_s[:_TICKS],
            row[scheme].shown_at_s[:_TICKS],
            row[scheme].sources[:_TICKS],
        )
        for scheme in document.schemes
        if scheme in row
    )
    num_tokens = max(len(t.shown_at_s) for t in row.values())
    part = f"the first {_TICKS} of {num_tokens}" if num_tokens > _TICKS else f"{num_tokens}"
    return LaneFigure(
        f"Request {some.id}: {some.prompt_tokens} prompt tokens",
        f"Each stroke is a token, {part}: above when it was there, below when it was shown.",
        lanes,
    )
