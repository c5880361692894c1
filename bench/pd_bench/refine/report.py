"""The quality of refined prompts, and the time they save, as tables."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from pd_bench.refine.handoff_time import ReadyTime
from pd_bench.refine.quality import Quality

__all__ = ["print_refined"]


def print_refined(quality: Quality, times: Sequence[ReadyTime], console: Console) -> None:
    """Print one table for the quality and one for the time, where they were measured."""
    if any(row.agreement or row.found for row in quality.rows):
        console.print(_quality_table(quality))
    if times:
        console.print(_time_table(times))


def _quality_table(quality: Quality) -> Table:
    table = Table(
        title="A refined prompt beside the full one",
        caption="agreement and perplexity: of the full prompt's answer; text: perplexity of the "
        "text that really follows; found: needles",
    )
    table.add_column("kept by")
    for column in ("rho", "kept", "agreement", "perplexity", "text", "found"):
        table.add_column(column, justify="right")
    for row in quality.figures():
        table.add_row(
            str(row["method"]),
            f"{row['keep_ratio']:g}",
            _shown(row["kept"], ".0%"),
            _shown(row["agreement"], ".1%"),
            _shown(row["answer_perplexity"], ".2f"),
            _shown(row["text_perplexity"], ".2f"),
            _shown(row["needles_found"], ".0%"),
        )
    return table


def _time_table(times: Sequence[ReadyTime]) -> Table:
    whole_s = times[0].ready_s
    table = Table(title="Until the device has its first token", caption="medians")
    for column in ("rho", "left out", "seconds", "gained"):
        table.add_column(column, justify="right")
    for time in times:
        gained = f"{1 - time.ready_s / whole_s:.0%}" if time.keep_ratio < 1.0 else "-"
        table.add_row(f"{time.keep_ratio:g}", f"{time.left_out:.0f}", f"{time.ready_s:.2f}", gained)
    return table


def _shown(value: float | str | None, form: str) -> str:
    return "-" if value is None or isinstance(value, str) else format(value, form)
