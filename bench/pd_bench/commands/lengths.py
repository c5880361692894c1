"""`pd-bench lengths`: how well the lengths of a trace's answers are forecast."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.table import Table

from pd_bench.commands.measuring import JsonOut, json_file
from pd_bench.results.result_file import refuse_same_file
from pd_bench.traces.columns import COLUMNS_HELP, parse_columns
from pd_core.settings.option import Argument, Option
from pd_core.settings.program import Read

__all__ = ["LengthsAsked", "lengths"]


@dataclass(frozen=True, slots=True)
class LengthsAsked:
    """The trace, and where the figures go."""

    trace: Annotated[
        Path, Argument("Azure or BurstGPT CSV; Mooncake, Qwen or our JSONL; may be gzip.")
    ]
    columns: Annotated[str | None, Option(COLUMNS_HELP)] = None
    limit: Annotated[int | None, Option("Only the first N rows.")] = None
    json_out: JsonOut = None


def lengths(asked: LengthsAsked, _: Read) -> None:
    """Forecast answers' lengths from their prompts', and compare with what came.

    A device plans on the 90 % quantile. What is learned of the first half of the trace is tried on
    the second.
    """
    from pd_bench.traces.length_forecasts import forecast_scores
    from pd_bench.traces.reader import read_trace

    refuse_same_file(("the trace", asked.trace), ("--json", asked.json_out))
    with json_file(asked.json_out) as write:
        rows = read_trace(asked.trace, asked.limit, columns=parse_columns(asked.columns))
        scores = forecast_scores(rows)
        write({"trace": asked.trace.name, "scores": [asdict(score) for score in scores]})
    table = Table(title=f"{asked.trace.name}: answers' lengths, forecast from their prompts'")
    table.add_column("half")
    for column in ("quantile", "rows", "coverage", "pinball, tokens", "of one for all"):
        table.add_column(column, justify="right")
    for s in scores:
        table.add_row(
            s.half,
            f"{s.quantile:.0%}",
            str(s.rows),
            f"{s.coverage:.1%}",
            f"{s.pinball_tokens:.2f}",
            f"{s.pinball_of_one:.2f}",
        )
    Console().print(table)
