"""A result as one page: self-contained, themed, printable (`assets/report.html.j2`)."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pd_bench.reports.figures import CurveFigure, LaneFigure, figures
from pd_bench.reports.svg_chart import DASHES, curve_svg, lane_svg
from pd_bench.reports.table import document_notes, scheme_rows
from pd_bench.results.bootstrap import CONFIDENCE, RESAMPLES
from pd_bench.results.headlines import Headline, headlines
from pd_bench.results.result import ResultDocument

__all__ = ["ReportPage", "report_html", "report_page"]

_FIDELITIES = {
    "real": "Real: a real server process, a real device process, real models on both sides.",
    "fleet": "Fleet: a real server process with real forward passes; the devices are emulated.",
    "simulated": "Simulated: cloud, devices and links are all emulated, on a virtual clock; the "
    "session, planner and controller are the product's own code.",
    "endpoint": "Endpoint: an OpenAI-compatible server, seen from outside.",
}


@dataclass(frozen=True, slots=True)
class Card:
    """One headline: its subject, the figure, and its interval in words."""

    what: str
    figure: str
    interval: str


@dataclass(frozen=True, slots=True)
class Key:
    """A scheme in the legend, with its dash."""

    name: str
    dash: str


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure and its SVG."""

    title: str
    caption: str
    svg: Markup


@dataclass(frozen=True, slots=True)
class ReportPage:
    """The content of the page; the template only lays it out."""

    title: str
    subtitle: str
    partial: bool
    problems: Sequence[str]
    fidelity: str
    labels: Sequence[str]
    cards: Sequence[Card]
    cards_note: str
    schemes: Sequence[str]
    rows: Sequence[tuple[str, list[str]]]
    exactness: str
    keys: Sequence[Key]
    curves: Sequence[Drawn]
    lanes: Sequence[Drawn]
    facts: Sequence[tuple[str, str]]


def report_html(document: ResultDocument) -> str:
    """Return the page as one self-contained file."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    source = resources.files("pd_bench") / "assets" / "report.html.j2"
    template = environment.from_string(source.read_text(encoding="utf-8"))
    return template.render(page=report_page(document))


def report_page(document: ResultDocument) -> ReportPage:
    """Return a document's content as text and figures."""
    drawn = figures(document)
    equal = document.equal_rows
    held = len(document.requests)
    total = sum(s.requests for s in document.schemes.values())
    sample = "" if held >= total else f" The document holds {held} of {total} requests."
    return ReportPage(
        title=document.trace,
        subtitle=f"{document.fidelity}, {document.arrivals} arrivals, "
        f"pace {document.pace_s:g} s, schemes: {', '.join(document.schemes)}",
        partial=document.partial,
        problems=document.invalid_because if not document.valid else (),
        fidelity=_FIDELITIES.get(document.fidelity, document.fidelity),
        labels=document_notes(document),
        cards=[_card(headline) for headline in headlines(document)],
        cards_note=f"Ratios over the same rows, with {CONFIDENCE:.0%} intervals from "
        f"{RESAMPLES} paired bootstrap resamples of the rows. They say how far these rows can be "
        "trusted, not how other machines or traces would do." + sample,
        schemes=list(document.schemes),
        rows=scheme_rows(document),
        exactness=f"Rows with equal answers in all schemes: {equal.equal} of {equal.rows}; "
        f"exactness promised: {document.exactness}.",
        keys=[Key(s, DASHES[i % len(DASHES)]) for i, s in enumerate(document.schemes)],
        curves=[_curve(f) for f in drawn if isinstance(f, CurveFigure)],
        lanes=[_lane(f) for f in drawn if isinstance(f, LaneFigure)],
        facts=_facts(document),
    )


def _card(headline: Headline) -> Card:
    ratio = headline.ratio
    change = round((ratio.value - 1) * 100, 1) + 0.0  # and no -0.0
    return Card(
        f"{headline.measure}, {headline.scheme} over {headline.against}",
        f"{change:+.1f} %",
        f"ratio {ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}] over {ratio.num_rows} rows",
    )


# The SVG contains only numbers and escaped text.


def _curve(figure: CurveFigure) -> Drawn:
    return Drawn(figure.title, figure.caption, Markup(curve_svg(figure)))


def _lane(figure: LaneFigure) -> Drawn:
    return Drawn(figure.title, figure.caption, Markup(lane_svg(figure)))


def _facts(document: ResultDocument) -> list[tuple[str, str]]:
    facts = [
        ("trace", f"{document.trace}, sha256 {document.trace_sha256}"),
        ("seed", str(document.seed)),
        ("percentiles", f"{document.percentile_method} (numpy)"),
    ]
    for kind, profile in document.profiles.items():
        words = ", ".join(f"{k} {v}" for k, v in profile.items() if v is not None)
        facts.append((f"profile of the {kind}", words))
    for name, values in (
        ("settings", document.settings),
        ("versions", document.versions),
        ("hardware", document.hardware),
        ("cores", document.cores),
    ):
        if values:
            facts.append((name, ", ".join(f"{k} {v}" for k, v in values.items())))
    return facts
