"""A result's requests as a table for spreadsheets and data frames: a line a request."""

import csv
import io
from collections.abc import Iterator

from pd_bench.results.result import RequestRecord, ResultDocument

__all__ = ["COLUMNS", "report_csv"]

# Without the times of tokens, one for each token: the document has them.
COLUMNS = tuple(name for name in RequestRecord.model_fields if name not in ("shown_at_s", "notes"))
"""The names of RequestRecord's fields, in order."""


def report_csv(document: ResultDocument) -> Iterator[str]:
    """Yield the table's lines without line ends; an unknown figure is empty."""
    yield ",".join(COLUMNS)
    for record in document.requests:
        buffer = io.StringIO()
        values = [getattr(record, name) for name in COLUMNS]
        csv.writer(buffer, lineterminator="").writerow(
            _safe(value) if isinstance(value, str) else value for value in values
        )
        yield buffer.getvalue()


def _safe(text: str) -> str:
    """Keep a spreadsheet from taking a text (such as an error message) for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
