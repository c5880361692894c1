"""What a trace holds, in one table."""

from collections.abc import Sequence

from rich.table import Table

from pd_bench.result import Distribution
from pd_bench.traces import TraceRow

__all__ = ["trace_table"]


def trace_table(name: str, rows: Sequence[TraceRow]) -> Table:
    """Return span, rate and lengths of the rows."""
    span_s = rows[-1].arrival_s
    rate = f"{(len(rows) - 1) / span_s:.2f} requests/s" if span_s > 0 else "all at once"
    hashed = sum(row.block_hashes is not None for row in rows)
    table = Table(
        title=f"{name}: {len(rows)} rows over {span_s:.1f} s, {rate}",
        caption=f"{hashed} rows with block hashes" if hashed else "no block hashes",
        min_width=76,
    )
    table.add_column("tokens")
    for column in ("mean", "p50", "p90", "p99", "max"):
        table.add_column(column, justify="right")
    for side, lengths in (
        ("prompt", [row.prompt_tokens for row in rows]),
        ("output", [row.output_tokens for row in rows]),
    ):
        d = Distribution.of(lengths)
        figures = (d.mean, d.p50, d.p90, d.p99, d.max)
        table.add_row(side, *("-" if f is None else f"{f:.0f}" for f in figures))
    return table
