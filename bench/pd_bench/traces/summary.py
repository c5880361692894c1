"""What a trace holds: rate, lengths and sharing, counted in one pass and little memory."""

import hashlib
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict
from rich.table import Table

from pd_bench.results.result import Distribution
from pd_bench.traces.distinct import DistinctKeys
from pd_bench.traces.length_counts import LengthCounts
from pd_bench.traces.reader import SkippedRows, TraceRow

__all__ = ["Sharing", "TraceProfile", "profile_trace", "trace_table"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Sharing(_Model):
    """How much of a trace's prompts comes back.

    Attributes:
        rows_with_hashes: rows that have block hashes.
        block_tokens: prompt tokens per block; None without hashes.
        blocks: blocks of all rows.
        distinct_blocks: different ones among them.
        repeated_share: blocks that had come before, of all: what a prefix cache without bounds
            would save; None without hashes.
        sessions: different conversations; 0 when the trace has none.
        rows_with_session: rows that belong to one.
        exact: False if there were too many blocks or conversations, so that a sample was counted.
    """

    rows_with_hashes: int
    block_tokens: int | None
    blocks: int
    distinct_blocks: int
    repeated_share: float | None
    sessions: int
    rows_with_session: int
    exact: bool


class TraceProfile(_Model):
    """A trace in figures.

    Attributes:
        trace: the file's name.
        format: told by its content.
        rows: that were read.
        skipped_rows: broken ones that were left out.
        span_s: from the first arrival to the last.
        rate_per_s: arrivals a second; None when all come at once.
        gap_cv: standard deviation of the time between two arrivals over its mean; 1 for a Poisson
            process, more when they come in bursts; None for fewer than three rows or no span.
        prompt_tokens: lengths of the prompts.
        output_tokens: lengths of the answers.
    """

    trace: str
    format: str
    rows: int
    skipped_rows: int
    span_s: float
    rate_per_s: float | None
    gap_cv: float | None
    prompt_tokens: Distribution
    output_tokens: Distribution
    sharing: Sharing


class _Gaps:
    """Mean and deviation of the times between arrivals, without keeping them (Welford)."""

    def __init__(self) -> None:
        self.count = 0
        self._mean_s = 0.0
        self._squares = 0.0
        self.last_s = 0.0

    def add(self, arrival_s: float) -> None:
        gap_s, self.last_s = arrival_s - self.last_s, arrival_s
        self.count += 1
        if self.count == 1:
            return  # the first row has no gap
        n = self.count - 1
        delta = gap_s - self._mean_s
        self._mean_s += delta / n
        self._squares += delta * (gap_s - self._mean_s)

    @property
    def cv(self) -> float | None:
        n = self.count - 1
        if n < 2 or self._mean_s <= 0:
            return None
        return float((self._squares / n) ** 0.5 / self._mean_s)


def profile_trace(
    name: str, format_name: str, rows: Iterable[TraceRow], skipped: SkippedRows | None = None
) -> TraceProfile:
    """Count the rows.

    Args:
        name: of the trace.
        format_name: of its format.
        rows: read once, from first to last.
        skipped: where the reader of the rows counts broken ones.

    Raises:
        TraceError: a row is broken.
    """
    gaps, prompts, outputs = _Gaps(), LengthCounts(), LengthCounts()
    blocks, sessions = DistinctKeys(), DistinctKeys()
    rows_with_hashes = 0
    block_tokens: int | None = None
    for row in rows:
        gaps.add(row.arrival_s)
        prompts.add(row.prompt_tokens)
        outputs.add(row.output_tokens)
        if row.session is not None:
            digest = hashlib.blake2b(row.session.encode(), digest_size=8).digest()
            sessions.add(int.from_bytes(digest, "little"))
        if row.block_hashes is not None:
            rows_with_hashes += 1
            block_tokens = row.block_tokens
            for block in row.block_hashes:
                blocks.add(block)
    span_s = gaps.last_s
    return TraceProfile(
        trace=name,
        format=format_name,
        rows=gaps.count,
        skipped_rows=skipped.count if skipped is not None else 0,
        span_s=span_s,
        rate_per_s=(gaps.count - 1) / span_s if span_s > 0 else None,
        gap_cv=gaps.cv,
        prompt_tokens=prompts.distribution(),
        output_tokens=outputs.distribution(),
        sharing=Sharing(
            rows_with_hashes=rows_with_hashes,
            block_tokens=block_tokens,
            blocks=blocks.num_keys,
            distinct_blocks=blocks.distinct,
            repeated_share=blocks.repeated_share if rows_with_hashes else None,
            sessions=sessions.distinct,
            rows_with_session=sessions.num_keys,
            exact=blocks.exact and sessions.exact,
        ),
    )


def trace_table(profile: TraceProfile) -> Table:
    """Return the profile as a table."""
    rate = "all at once" if profile.rate_per_s is None else f"{profile.rate_per_s:.2f} requests/s"
    table = Table(
        title=f"{profile.trace}: {profile.rows} rows over {profile.span_s:.1f} s, {rate}",
        caption="\n".join(_notes(profile)),
        min_width=76,
    )
    table.add_column("tokens")
    for column in ("mean", "p50", "p90", "p99", "max"):
        table.add_column(column, justify="right")
    for side, d in (("prompt", profile.prompt_tokens), ("output", profile.output_tokens)):
        figures = (d.mean, d.p50, d.p90, d.p99, d.max)
        table.add_row(side, *("-" if f is None else f"{f:.0f}" for f in figures))
    return table


def _notes(profile: TraceProfile) -> list[str]:
    sharing = profile.sharing
    about = "" if sharing.exact else "about "
    notes = [f"format {profile.format}"]
    if profile.gap_cv is not None:
        notes[0] += f"; times between arrivals vary by {profile.gap_cv:.2f} of their mean"
    if sharing.repeated_share is None:
        notes.append("no block hashes")
    else:
        notes.append(
            f"{sharing.rows_with_hashes} rows with hashes of {sharing.block_tokens}-token blocks: "
            f"{about}{sharing.repeated_share:.1%} of {sharing.blocks} blocks had come before"
        )
    if sharing.rows_with_session:
        notes.append(
            f"{sharing.rows_with_session} rows belong to {about}{sharing.sessions} conversations"
        )
    if profile.skipped_rows:
        notes.append(f"{profile.skipped_rows} broken rows left out")
    return notes
