"""The figures of `pd-bench schemas` as a table."""

from rich.table import Table

from pd_bench.exactness.schema_answers import SchemaFigures
from pd_bench.exactness.schema_settings import SchemaSettings

__all__ = ["schema_table"]


def schema_table(found: SchemaFigures, settings: SchemaSettings) -> Table:
    """Return what was found, beside what is aimed at."""
    answers, masks, first = found.answers, found.masks, found.first_tokens
    table = Table(title=f"{settings.model}: {answers.answers} answers to schemas, the cloud cut")
    table.add_column("")
    table.add_column("found", justify="right")
    table.add_column("aim", justify="right")
    of = answers.answers
    rows = [
        ("answers that are of their schema", f"{answers.valid} of {of}", "all"),
        ("answers equal to the whole one", f"{answers.equal} of {of}", "all"),
        ("made by both sides", f"{answers.by_both} of {of}", ""),
        ("cut off by the token limit", f"{answers.unfinished} of {of}", ""),
        (f"mask over {masks.vocab_size} ids, mean", f"{masks.mean_ms:.3f} ms", ""),
        ("mask, p99", f"{masks.p99_ms:.3f} ms", "0.5 ms"),
        (f"mask, share of a step of {masks.step_ms:.2f} ms", f"{masks.share:.1%}", "5 %"),
        ("first token without a form", f"{first.without_ms:.1f} ms", ""),
        ("what a new schema adds", f"{first.more_ms:.1f} ms", "10 ms"),
    ]
    for row in rows:
        table.add_row(*row)
    return table
