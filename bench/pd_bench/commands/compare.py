"""`pd-bench compare`: two results side by side; the exit code reports a regression."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pd_bench.commands.report import read_result

if TYPE_CHECKING:
    from pd_bench.results.compare import Comparison, Figure

__all__ = ["compare"]

_REGRESSION = 1
_WIDTH = 120
_STYLES = {"worse": "bold red", "better": "green", "same": "", "none": ""}


def compare(
    first: Annotated[Path, typer.Argument(help="A: the older result.", metavar="A.json")],
    second: Annotated[Path, typer.Argument(help="B: the newer result.", metavar="B.json")],
    tolerance: Annotated[
        float, typer.Option(help="Share of A by which a figure may grow before it is worse.")
    ] = 0.05,
    even_invalid: Annotated[
        bool,
        typer.Option(
            "--even-invalid",
            help="Show the figures of results that are not valid too, without a verdict.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of a table.")
    ] = False,
) -> None:
    """Compare two results row by row; exit with code 1 when B is worse beyond noise."""
    from pd_bench.results.compare import compare_results

    comparison = compare_results(
        read_result(first), read_result(second), tolerance, even_invalid=even_invalid
    )
    if as_json:
        fields = asdict(comparison) | {"regressions": len(comparison.regressions)}
        typer.echo(json.dumps(fields))
    else:
        _show(comparison, Console(), tolerance)
    for figure in comparison.regressions:
        typer.echo(f"regression: {figure.scheme}: {figure.name}: {figure.why}", err=True)
    if comparison.regressions:
        raise typer.Exit(_REGRESSION)


def _show(comparison: "Comparison", console: Console, tolerance: float) -> None:
    from rich.table import Table

    from pd_bench.results.compare import LEVEL

    table = Table(title=f"B against A over {comparison.rows} rows")
    for column in ("scheme", "figure", "A", "B", "B / A [interval]", "p", ""):
        left = column in ("scheme", "figure", "")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    for figure in comparison.figures:
        table.add_row(*_cells(figure), style=_STYLES[figure.verdict])
    # A pipe has no width of its own, and cut figures would be useless.
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    console.print(table)
    for note in comparison.notes:
        console.print(f"- {note}", soft_wrap=True, markup=False, highlight=False)
    if all(figure.verdict == "none" for figure in comparison.figures):
        console.print("no verdict: no figure of such a result is better or worse", soft_wrap=True)
        return
    console.print(
        f"worse: the whole interval of B / A above {1 + tolerance:g}, and the rows different by a "
        f"rank test (medians, totals); level {LEVEL:g} over all figures",
        soft_wrap=True,
        highlight=False,
    )


def _cells(figure: "Figure") -> list[str]:
    ratio = figure.ratio
    return [
        figure.scheme,
        figure.name,
        _value(figure, figure.first),
        _value(figure, figure.second),
        "-" if ratio is None else f"{ratio.value:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]",
        "-" if figure.p is None else f"{figure.p:.2g}",
        "" if figure.verdict in ("same", "none") else figure.verdict,
    ]


def _value(figure: "Figure", value: float | None) -> str:
    from pd_bench.results.headlines import MEASURES

    if value is None:
        return "-"
    if figure.name not in MEASURES or "tokens" in figure.name:
        return f"{value:.0f}"
    return f"{value * 1000:.1f} ms"
