"""The report: one page that needs nothing else, says what must be said, and can be printed."""

import csv
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pd_bench.cli import main
from pd_bench.reports.axis import Axis, fitted_axis
from pd_bench.reports.csv_table import COLUMNS, report_csv
from pd_bench.reports.figures import Curve, CurveFigure, LaneFigure, figures
from pd_bench.reports.page import report_html
from pd_bench.reports.png import report_png
from pd_bench.reports.svg_chart import curve_svg
from pd_bench.results.result import Distribution, ResultDocument
from pd_core.errors import ConfigError
from tests.result_documents import document, full_document, record

VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Collects tags, words and what is fetched from elsewhere; refuses tags that do not close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.outside: list[str] = []
        self.words = ""
        self.feed(html)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.outside += [str(v) for k, v in attrs if k in ("src", "href", "xlink:href", "srcset")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def svgs(html: str) -> list[ElementTree.Element]:
    """Every chart of a page, as XML: what does not parse raises."""
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", html, re.S)]


def test_the_page_needs_nothing_else() -> None:
    html = report_html(full_document())
    page = Page(html)
    assert page.outside == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert "url(" not in html
    assert "@import" not in html
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    assert 'name="viewport"' in html


def test_the_page_says_what_was_compared_on_what() -> None:
    words = Page(report_html(full_document())).words
    assert "made <up> & more.csv" in words  # escaped on the way, whole at the end
    assert "real server process with real forward passes; the devices are emulated" in words
    assert "devices: emulated, slow (a test)" in words
    assert "cut of 30 rows: 1 prompts to 900 tokens" in words
    assert "Rows with equal answers in all schemes: 30 of 30" in words
    assert "TTFT p50, pd-device over device-only" in words
    assert "-90.0 %" in words
    assert "ratio 0.100 [0.100, 0.100] over 30 rows" in words
    assert "paired bootstrap" in words
    assert "ab" * 32 in words
    assert "decode_s 0.05" in words
    assert "Not valid" not in words


@pytest.mark.parametrize("partial", [True, False])
def test_a_result_that_must_not_be_quoted_says_so_first(partial: bool) -> None:
    bad = full_document().model_copy(
        update={"valid": False, "partial": partial, "invalid_because": ("the <reason>",)}
    )
    words = Page(report_html(bad)).words
    assert ("Partial, and not valid" if partial else "Not valid") in words
    assert words.index("the <reason>") < words.index("What was compared")


def test_every_figure_is_drawn_and_every_chart_is_well_formed() -> None:
    html = report_html(full_document())
    charts = [svg for svg in svgs(html) if svg.get("role") == "img"]
    titles = [svg.findtext("title") for svg in charts]
    assert titles == [
        "Time to the first token",
        "The largest gap of each request",
        "Gaps between shown tokens",
        "The cloud's load over time",
        "Capacity, bound by slots",
        "Request 0: 100 prompt tokens",
        "Request 19: 119 prompt tokens",
        "Request 29: 129 prompt tokens",
    ]
    for svg in charts:
        box = [float(v) for v in (svg.get("viewBox") or "").split()]
        for path in svg.iter("path"):
            numbers = [float(n) for n in re.findall(r"-?\d+\.?\d*", path.get("d") or "")]
            assert numbers
            assert all(0 <= n <= max(box) for n in numbers)


def test_a_scheme_keeps_its_colour_where_others_are_missing() -> None:
    series = {
        (figure.title, curve.name): curve.series
        for figure in figures(full_document())
        if isinstance(figure, CurveFigure)
        for curve in figure.curves
    }
    assert {s for (_, name), s in series.items() if name == "pd-device"} == {2}
    assert series["Capacity, bound by slots", "pd-device"] == 2


def test_distributions_are_those_of_the_requests() -> None:
    rows = [record(i, "pd-device", ttft_s=float(i + 1)) for i in range(5)]
    ttft = figures(document(rows))[0]
    assert isinstance(ttft, CurveFigure)
    assert ttft.curves[0].points == (
        (1.0, 0.0),
        (2.0, 0.25),
        (3.0, 0.5),
        (4.0, 0.75),
        (5.0, 1.0),
    )


def test_a_document_without_its_requests_is_drawn_from_its_quantiles() -> None:
    whole = document([record(i, "pd-device", ttft_s=float(i + 1)) for i in range(5)])
    scheme = whole.schemes["pd-device"].model_copy(update={"quantiles_s": {"ttft_s": (1.0, 3.0)}})
    bare = whole.model_copy(update={"requests": (), "schemes": {"pd-device": scheme}})
    (figure,) = figures(bare)
    assert isinstance(figure, CurveFigure)
    assert figure.curves[0].points == ((1.0, 0.0), (3.0, 1.0))
    assert "Time to the first token" in report_html(bare)


def test_headlines_of_a_part_of_the_requests_say_so() -> None:
    whole = full_document()
    part = tuple(r for r in whole.requests if r.id < 10)
    words = Page(report_html(whole.model_copy(update={"requests": part}))).words
    assert "The document holds 30 of 90 requests." in words
    assert "over 10 rows" in words


def test_lanes_show_what_was_there_and_what_was_shown() -> None:
    lanes = [f for f in figures(full_document()) if isinstance(f, LaneFigure)]
    pd_device = lanes[0].lanes[2]
    assert pd_device.name == "pd-device"
    assert pd_device.sources == "cdd"
    assert pd_device.shown_s[0] == pytest.approx(0.2)
    assert pd_device.arrived_s[0] == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "records",
    [
        [record(0, "pd-device")],
        [record(0, "pd-device", gaps_s=())],
        [record(i, "pd-device", ttft_s=0.0, gaps_s=(0.0, 0.0)) for i in range(3)],
        [record(0, "pd-device", error="QueueFull: full"), record(0, "cloud-only")],
    ],
    ids=["one", "one-token", "no-time", "failed"],
)
def test_small_and_odd_results_have_a_page_and_a_picture(records: list) -> None:  # type: ignore[type-arg]
    made = document(records)
    svgs(report_html(made))
    assert report_png(made).startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_picture_is_a_png_and_an_empty_result_has_none() -> None:
    png = report_png(full_document())
    assert png.startswith(b"\x89PNG\r\n")
    assert 20_000 < len(png) < 1_000_000
    empty = document([record(0, "pd-device")]).model_copy(update={"requests": ()})
    with pytest.raises(ConfigError, match="nothing to draw"):
        report_png(empty)


def test_the_table_has_a_line_a_request_and_no_formula() -> None:
    rows = [record(0, "pd-device"), record(1, "pd-device", error='=1+1,"x"\nsecond line')]
    lines = list(csv.DictReader(io.StringIO("\n".join(report_csv(document(rows))))))
    assert [line["id"] for line in lines] == ["0", "1"]
    assert lines[0]["ttft_s"] == "1.0"
    assert lines[0]["error"] == ""
    assert lines[1]["error"] == '\'=1+1,"x"\nsecond line'
    assert "shown_at_s" not in COLUMNS


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["pd-bench", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.fixture
def result(tmp_path: Path) -> Path:
    path = tmp_path / "result.json"
    path.write_text(full_document().model_dump_json())
    return path


@pytest.mark.slow
def test_the_command_writes_what_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, result: Path, tmp_path: Path
) -> None:
    outs = {name: tmp_path / f"out.{name}" for name in ("html", "png", "csv")}
    options = [part for name, path in outs.items() for part in (f"--{name}", str(path))]
    assert run(monkeypatch, "report", str(result), *options) == 0
    assert outs["html"].read_text().startswith("<!doctype html>")
    assert outs["png"].read_bytes().startswith(b"\x89PNG")
    assert outs["csv"].read_text().count("\n") == 91
    assert sorted(tmp_path.iterdir()) == sorted([result, *outs.values()])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["report", "{result}"], "say what to write"),
        (["report", "{tmp}/none", "--html", "{tmp}/x"], "the result cannot be read"),
        (["report", "{tmp}", "--html", "{tmp}/x"], "the result cannot be read"),
        (["report", "{trace}", "--html", "{tmp}/x"], "is no result of pd-bench"),
        (["report", "{result}", "--html", "{tmp}/none/x"], "name another file with --html"),
        (["report", "{result}", "--png", "{tmp}"], "name another file with --png"),
        (["report", "{result}", "--csv", "{tmp}/none/x"], "name another file with --csv"),
        (
            ["replay", "{trace}", "--device-profile", "slow", "--report", "{tmp}/none/x"],
            "name another file with --report",
        ),
    ],
)
def test_a_wrong_path_is_found_before_the_work(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    result: Path,
    arguments: list[str],
    why: str,
) -> None:
    trace = result.with_name("trace.csv")
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.0,4,4\n")
    places = {"result": str(result), "tmp": str(result.parent), "trace": str(trace)}
    monkeypatch.setattr("pd_bench.replay.replay.own_server", None)  # starting one would be an error
    assert run(monkeypatch, *(a.format(**places) for a in arguments)) == 2
    error = capsys.readouterr().err
    assert why in error
    assert error.count("\n") == 1


def test_ticks_are_round_and_lie_on_the_axis() -> None:
    assert Axis(0.0, 1.0).ticks() == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert Axis(0.0, 23.0).ticks() == [0, 5, 10, 15, 20]
    assert Axis(0.04, 0.6, log=True).ticks() == pytest.approx([0.05, 0.1, 0.2, 0.5])
    assert Axis(1e-3, 1e3, log=True).ticks() == pytest.approx([10.0**e for e in range(-3, 4)])
    assert Axis(1.0, 100.0, log=True).share(10.0) == pytest.approx(0.5)
    assert Axis(0.0, 10.0).share(25.0) == 1.0


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (0.1, 0.1), (1e-9, 5.0), (3.0, 4.0)])
@pytest.mark.parametrize("log", [True, False])
def test_any_values_have_an_axis_with_ticks(low: float, high: float, log: bool) -> None:
    axis = fitted_axis(low, high, log=log)
    assert axis.low < axis.high
    assert len(axis.ticks()) >= 2
    assert len(axis.ticks()) <= 12


def test_words_in_a_chart_are_escaped() -> None:
    curve = Curve("<b>", 0, ((1.0, 0.0), (2.0, 1.0)))
    svg = curve_svg(CurveFigure("a < b & c", "", "x > 0", '"y"', (curve,)))
    assert ElementTree.fromstring(svg).findtext("title") == "a < b & c"


def test_old_documents_without_the_new_fields_can_be_shown() -> None:
    fields = full_document().model_dump(mode="json")
    for name in ("timelines", "cloud_load", "capacity", "skipped_rows"):
        del fields[name]
    for scheme in fields["schemes"].values():
        del scheme["quantiles_s"]
    old = ResultDocument.model_validate(fields)
    assert old.timelines == ()
    assert "Time to the first token" in report_html(old)
    assert isinstance(old.schemes["pd-device"].ttft_s, Distribution)
