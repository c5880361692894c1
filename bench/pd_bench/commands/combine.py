"""`pd-bench combine`: few real runs and many simulated ones, as one estimate with intervals."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pd_bench.commands.report import read_result

if TYPE_CHECKING:
    from pd_bench.results.bootstrap import Interval
    from pd_bench.results.combined import CombinedResult

__all__ = ["combine"]

_WIDTH = 130


def combine(
    real: Annotated[
        Path, typer.Argument(help="A replay: fidelity real or fleet.", metavar="REAL.json")
    ],
    simulated: Annotated[
        list[Path],
        typer.Argument(help="One or more simulations.", metavar="SIMULATED.json..."),
    ],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document instead of a table.")
    ] = False,
) -> None:
    """Estimate means over a whole trace from a real run of a random part and simulations of all.

    Each simulation is a predictor, however wrong: only how it varies with the real runs counts. The
    interval is never wider than that of the real runs alone.
    """
    from pd_bench.results.combined import combine_results

    found = combine_results(read_result(real), [read_result(path) for path in simulated])
    if as_json:
        typer.echo(json.dumps(asdict(found)))
    else:
        _show(found, Console())


def _show(found: "CombinedResult", console: Console) -> None:
    from rich.table import Table

    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    table = Table(title=f"means over {found.rows} rows, of which {found.real_rows} were measured")
    for column in ("scheme", "figure", "measured alone", "its bootstrap", "combined", "width"):
        left = column in ("scheme", "figure")
        table.add_column(column, justify="left" if left else "right", no_wrap=True)
    for figure in found.figures:
        alone, combined = figure.mean.alone, figure.mean.combined
        width = (combined.high - combined.low) / (alone.high - alone.low or 1.0)
        table.add_row(
            figure.scheme,
            figure.name,
            _interval(alone),
            _interval(figure.bootstrap),
            _interval(combined) if figure.mean.helped else "the same",
            f"{width:.0%}" if figure.mean.helped else "-",
        )
    console.print(table)
    console.print(
        "95 % intervals; width: of the combined one against the measured rows alone",
        highlight=False,
    )
    for note in found.notes:
        console.print(f"- {note}", soft_wrap=True, markup=False, highlight=False)


def _interval(interval: "Interval | None") -> str:
    if interval is None:
        return "-"
    return f"{interval.value:.4g} [{interval.low:.4g}, {interval.high:.4g}]"
