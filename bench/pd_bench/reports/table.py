"""The table at the end of a replay: schemes side by side, with what is emulated below."""

import re
from collections import Counter
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pd_bench.results.result import Distribution, KvBytesPeak, ResultDocument, SchemeResult

__all__ = ["document_notes", "print_result", "scheme_rows"]

_NUMBER = re.compile(r"\d+(\.\d+)?")
_NAME_WIDTH, _SCHEME_WIDTH = 28, 18  # a table's column widths without a terminal
_NOTES = 10  # most distinct notes of requests, and distinct failures, that are printed


def _ms(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.0f}" if value >= 1 else f"{value * 1000:.1f}"


def _pair(distribution: Distribution) -> str:
    return f"{_ms(distribution.p50)} / {_ms(distribution.p99)}"


def _known(value: float | None, unit: float, decimals: int) -> str:
    return "-" if value is None else f"{value / unit:.{decimals}f}"


def _peak(peak: KvBytesPeak | None) -> str:
    return "-" if peak is None else f"{peak.cloud / 1e6:.1f} / {peak.device / 1e6:.1f}"


# Percentiles are over the requests that have the figure; the documents hold their counts.
_ROWS: tuple[tuple[str, Callable[[SchemeResult], str]], ...] = (
    ("requests", lambda s: str(s.requests)),
    ("failed", lambda s: str(s.failed)),
    ("stalled (gap > 2 paces)", lambda s: str(s.stalled_requests)),
    ("broken promises", lambda s: str(s.broken_promises)),
    ("TTFT p50/p99, ms", lambda s: _pair(s.ttft_s)),
    ("TPOT p50, ms", lambda s: _ms(s.tpot_s.p50)),
    ("largest gap p50/p99, ms", lambda s: _pair(s.largest_gap_s)),
    ("handoff gap p50/max, ms", lambda s: f"{_ms(s.handoff_gap_s.p50)} / "
     f"{_ms(s.handoff_gap_s.max)}"),
    ("handoffs", lambda s: str(s.handoff_gap_s.count)),
    ("cloud tokens shown", lambda s: str(s.cloud_tokens)),
    ("cloud tokens generated", lambda s: str(s.cloud_tokens_generated)),
    ("device tokens shown", lambda s: str(s.device_tokens)),
    ("cloud busy, s", lambda s: _known(s.cloud_busy_s, 1, 2)),
    ("cloud KV, MB s", lambda s: _known(s.cloud_kv_byte_s, 1e6, 1)),
    ("KV peak cloud/device, MB", lambda s: _peak(s.kv_bytes_peak)),
)  # fmt: skip


def print_result(document: ResultDocument, console: Console) -> None:
    """Print the comparison and everything a reader must know to judge it."""
    table = Table(title=_title(document))
    table.add_column("", no_wrap=True)
    for scheme in document.schemes:
        table.add_column(scheme, justify="right", no_wrap=True)
    for name, cells in scheme_rows(document):
        table.add_row(name, *cells)
    # A pipe has no width, and cut figures would be useless there.
    if not console.is_terminal:
        needed = _NAME_WIDTH + _SCHEME_WIDTH * len(document.schemes)
        console.width = max(console.width, needed)
    console.print(table)
    for line in document_notes(document):
        console.print(f"- {line}", soft_wrap=True, markup=False, highlight=False)
    equal = document.equal_rows
    console.print(f"rows with equal answers in all schemes: {equal.equal}/{equal.rows}")
    if not document.valid:
        console.print(Text("INVALID: " + "; ".join(document.invalid_because), style="bold red"))


def scheme_rows(document: ResultDocument) -> list[tuple[str, list[str]]]:
    """Return every figure's name and its text in each scheme, in order."""
    return [(name, [cell(s) for s in document.schemes.values()]) for name, cell in _ROWS]


def document_notes(document: ResultDocument) -> list[str]:
    """Return everything a reader must know to judge the figures."""
    return [*_notes(document), *_request_notes(document)]


def _title(document: ResultDocument) -> str:
    partial = " (PARTIAL)" if document.partial else ""
    return (
        f"{document.trace}: {document.fidelity}, {document.arrivals} arrivals, "
        f"pace {document.pace_s:g} s{partial}"
    )


def _notes(document: ResultDocument) -> list[str]:
    cut = document.cut_rows
    lag = document.dispatch_lag_s
    # The room of a server that is not ours is unknown.
    known = document.fidelity != "endpoint"
    room = f" (room for both: {cut.max_context_tokens} tokens)" if known else ""
    return [
        *document.labels,
        f"cut of {cut.rows} rows: {cut.prompt} prompts to {cut.max_prompt_tokens} tokens, "
        f"{cut.output} answers to {cut.max_output_tokens} tokens{room}",
        f"dispatch lag p50 / p99: {_pair(lag)} ms; exactness: {document.exactness}; "
        f"percentiles: {document.percentile_method} (numpy)",
    ]


def _request_notes(document: ResultDocument) -> list[str]:
    """Return why requests failed, and their notes."""
    errors = [(f"{r.scheme}: {r.error}",) for r in document.requests if r.error is not None]
    notes = [r.notes for r in document.requests]
    return [
        *_counted("why {} failed", "reasons", errors),
        *_counted("noted by {}", "notes", notes),
    ]


def _counted(heading: str, kind: str, of_requests: Sequence[Sequence[str]]) -> list[str]:
    """Return the requests' texts, most frequent first, with the number of requests.

    Texts that differ only in their numbers are counted as one; the first represents them.

    Args:
        heading: comes before each, with a placeholder for the number of requests.
        kind: what the texts are.
        of_requests: the texts of each request.
    """
    sayings: dict[str, dict[str, None]] = {}  # by shape, in order
    counts: Counter[str] = Counter()
    for said in of_requests:
        shapes = [(_NUMBER.sub("#", saying), saying) for saying in said]
        counts.update({shape for shape, _ in shapes})
        for shape, saying in shapes:
            sayings.setdefault(shape, {})[saying] = None
    lines = []
    for shape, num in counts.most_common(_NOTES):
        such = ", such as" if len(sayings[shape]) > 1 else ""
        requests = f"{num} request{'s' if num > 1 else ''}"
        lines.append(f"{heading.format(requests)}{such}: {_printable(next(iter(sayings[shape])))}")
    if len(counts) > _NOTES:
        lines.append(f"and {len(counts) - _NOTES} {kind} more, in the document's requests")
    return lines


def _printable(text: str) -> str:
    """Return text without control characters, since it may come from a server."""
    return "".join(c if c.isprintable() else " " for c in text)
