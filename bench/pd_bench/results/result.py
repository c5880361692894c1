"""The result of a replay: one JSON document (DESIGN 8), derived from raw timestamps.

The terms are those of docs/reference/metrics.md. Every figure of a scheme is computed from the
records of its requests; a record keeps the instant of every shown token, so that all figures can be
computed again.
"""

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from typing import Literal, Self

from pydantic import Field

from pd_bench.results.document_part import DocumentPart
from pd_bench.results.quantiles import PERCENTILE_METHOD, quantiles
from pd_bench.results.series import CapacityCurve, LoadPoint, Timeline

__all__ = [
    "STALL_FACTOR",
    "CloudTotals",
    "CutRows",
    "Distribution",
    "EqualRows",
    "KvBytesPeak",
    "RequestRecord",
    "ResultDocument",
    "SchemeResult",
    "output_sha256",
]

STALL_FACTOR = 2.0
"""A request is stalled when a gap exceeds this many paces."""


class Distribution(DocumentPart):
    """Summary of `count` values; the figures are None if there are none."""

    count: int
    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    max: float | None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Self:
        """Summarise the values; None means "not measurable" and is not counted."""
        import numpy as np

        known = np.array([value for value in values if value is not None], dtype=np.float64)
        if not len(known):
            return cls(count=0, mean=None, p50=None, p90=None, p99=None, max=None)
        p50, p90, p99 = quantiles(known, (0.5, 0.9, 0.99)).tolist()
        mean, largest = float(known.mean()), float(known.max())
        return cls(count=len(known), mean=mean, p50=p50, p90=p90, p99=p99, max=largest)


def output_sha256(token_ids: Sequence[int]) -> str:
    """Return the hex sha256 of token ids as little-endian int32."""
    import numpy as np

    return hashlib.sha256(np.asarray(token_ids, dtype="<i4").tobytes()).hexdigest()


class RequestRecord(DocumentPart):
    """One request of one scheme.

    Attributes:
        id: index of the trace row among the replayed ones, from 0.
        line: line of the row in the trace.
        repeat: which pass over the trace, from 0.
        arrival_s: scheduled arrival since the scheme's start; 0 for sequential arrivals.
        dispatch_lag_s: seconds from the scheduled arrival to the submit.
        output_tokens: required length of the answer (the row's, after cuts).
        shown_at_s: instant of each shown token, in seconds since the scheduled arrival.
        output_sha256: digest of the shown token ids as little-endian int32.
        error: why the answer is incomplete, or None.
        notes: problems on the way that were recovered from.
    """

    id: int
    line: int
    repeat: int
    scheme: str
    arrival_s: float
    dispatch_lag_s: float
    prompt_tokens: int
    output_tokens: int
    planned_tokens: int
    handoff_position: int | None
    cloud_tokens: int
    cloud_tokens_generated: int
    device_tokens: int
    disagreed: int
    exactness: str
    ttft_s: float | None
    tpot_s: float | None
    e2e_s: float | None
    largest_gap_s: float | None
    handoff_gap_s: float | None
    shown_at_s: tuple[float, ...]
    output_sha256: str
    error: str | None
    notes: tuple[str, ...] = ()

    @property
    def gaps_s(self) -> list[float]:
        """Seconds between consecutive shown tokens."""
        return [b - a for a, b in itertools.pairwise(self.shown_at_s)]

    def stalled(self, pace_s: float) -> bool:
        """Whether a gap exceeded STALL_FACTOR paces."""
        return self.largest_gap_s is not None and self.largest_gap_s > STALL_FACTOR * pace_s


class KvBytesPeak(DocumentPart):
    """The most KV cache held at once: by the cloud, and by the worst single device."""

    cloud: int
    device: int


class CloudTotals(DocumentPart):
    """A scheme's cost for the cloud, from the server's own totals (including tokens after Stop)."""

    tokens_generated: int
    busy_s: float
    kv_byte_s: float
    kv_bytes_peak: int

    def plus(self, other: "CloudTotals") -> "CloudTotals":
        """Add the totals of another repeat; of the peaks the larger counts."""
        return CloudTotals(
            tokens_generated=self.tokens_generated + other.tokens_generated,
            busy_s=self.busy_s + other.busy_s,
            kv_byte_s=self.kv_byte_s + other.kv_byte_s,
            kv_bytes_peak=max(self.kv_bytes_peak, other.kv_bytes_peak),
        )


class SchemeResult(DocumentPart):
    """One scheme over all its requests.

    Distributions count the values they describe: failed requests have a TTFT and gaps only as far
    as tokens were shown, but always count in `failed` and `broken_promises`.

    Attributes:
        failed: requests without a whole answer, including refused ones.
        stalled_requests: requests with a gap of more than two paces.
        broken_promises: requests that failed or stalled; in a simulation with promised times, that
            broke these.
        gap_s: every gap, pooled.
        largest_gap_s: the largest gap of each request.
        cloud_tokens: shown tokens that the cloud generated.
        cloud_tokens_generated: all its tokens by the server's own count, including dropped ones.
        unused_tokens: tokens that either side generated and nobody was shown; None if not counted.
        cloud_busy_s: the engine's own working time; None if the cloud does not report it.
        cloud_kv_byte_s: integral over time of the KV bytes it held; None if not reported.
        kv_bytes_peak: most KV bytes held; None if neither side reports it.
        quantiles_s: in a document without all its requests: the values of "ttft_s", "gap_s",
            "largest_gap_s" and others at evenly spaced shares from 0 to 1.
    """

    requests: int
    failed: int
    stalled_requests: int
    broken_promises: int
    ttft_s: Distribution
    tpot_s: Distribution
    gap_s: Distribution
    largest_gap_s: Distribution
    handoff_gap_s: Distribution
    e2e_s: Distribution
    cloud_tokens: int
    cloud_tokens_generated: int
    device_tokens: int
    disagreed: int
    unused_tokens: int | None = None
    cloud_busy_s: float | None
    cloud_kv_byte_s: float | None
    kv_bytes_peak: KvBytesPeak | None
    quantiles_s: dict[str, tuple[float, ...]] = Field(default_factory=dict)

    @classmethod
    def of(
        cls,
        records: Sequence[RequestRecord],
        pace_s: float,
        cloud: CloudTotals | None,
        device_kv_bytes_peak: int,
    ) -> Self:
        """Summarise the requests of one scheme; cloud is None if it reports no totals."""
        failed = [r.error is not None for r in records]
        stalled = [r.stalled(pace_s) for r in records]
        return cls(
            requests=len(records),
            failed=sum(failed),
            stalled_requests=sum(stalled),
            broken_promises=sum(f or s for f, s in zip(failed, stalled, strict=True)),
            ttft_s=Distribution.of(r.ttft_s for r in records),
            tpot_s=Distribution.of(r.tpot_s for r in records),
            gap_s=Distribution.of(gap for r in records for gap in r.gaps_s),
            largest_gap_s=Distribution.of(r.largest_gap_s for r in records),
            handoff_gap_s=Distribution.of(r.handoff_gap_s for r in records),
            e2e_s=Distribution.of(r.e2e_s for r in records),
            cloud_tokens=sum(r.cloud_tokens for r in records),
            cloud_tokens_generated=(
                sum(r.cloud_tokens_generated for r in records)
                if cloud is None
                else cloud.tokens_generated
            ),
            device_tokens=sum(r.device_tokens for r in records),
            disagreed=sum(r.disagreed for r in records),
            cloud_busy_s=None if cloud is None else cloud.busy_s,
            cloud_kv_byte_s=None if cloud is None else cloud.kv_byte_s,
            kv_bytes_peak=(
                None
                if cloud is None
                else KvBytesPeak(cloud=cloud.kv_bytes_peak, device=device_kv_bytes_peak)
            ),
        )


class CutRows(DocumentPart):
    """Rows that were shortened to fit, and the limits.

    Attributes:
        rows: number of trace rows read.
        prompt: how many of them had a longer prompt.
        output: how many of them had a longer answer.
        max_context_tokens: room of both sides for prompt and answer together.
    """

    rows: int
    prompt: int
    output: int
    max_prompt_tokens: int
    max_output_tokens: int
    max_context_tokens: int


class EqualRows(DocumentPart):
    """Rows with the same answer in every scheme and repeat, of the rows that ran in all of them.

    A row that failed anywhere is not equal; one that an interruption left out does not count.
    """

    equal: int
    rows: int

    @classmethod
    def of(cls, records: Iterable[RequestRecord], num_passes: int) -> Self:
        """Compare the answers of each row over `num_passes` (schemes times repeats)."""
        answers: dict[int, list[str | None]] = {}
        for r in records:
            answers.setdefault(r.id, []).append(r.output_sha256 if r.error is None else None)
        through = [a for a in answers.values() if len(a) == num_passes]
        equal = sum(None not in a and len(set(a)) == 1 for a in through)
        return cls(equal=equal, rows=len(through))


class ResultDocument(DocumentPart):
    """A replay. DESIGN 8 names the fields without a note here.

    Attributes:
        trace: name of the trace file.
        trace_sha256: digest of its content, since a part of a published trace is a different trace.
        valid: False when the run cannot be trusted, or is partial; `invalid_because` says why.
        partial: the run ended early; the records are of the requests that had ended.
        labels: everything emulated or throttled, in words.
        settings: all inputs of the run that are not named elsewhere.
        cores: CPU cores the server and the client were pinned to; empty when not pinned.
        skipped_rows: broken rows of the trace that were skipped on request.
        timelines: a few rows token by token, in every scheme.
        cloud_load: per scheme, the cloud's requests over time in its first pass.
        capacity: per scheme, the arrival rates a cloud carries.
    """

    schema_version: Literal[1] = 1
    trace: str
    trace_sha256: str
    fidelity: str
    arrivals: str
    pace_s: float
    exactness: str
    valid: bool
    invalid_because: tuple[str, ...] = ()
    partial: bool = False
    labels: tuple[str, ...] = ()
    percentile_method: str = PERCENTILE_METHOD
    dispatch_lag_s: Distribution
    cut_rows: CutRows
    equal_rows: EqualRows
    profiles: dict[str, dict[str, str | float | None]]
    settings: dict[str, str | int | float | bool | None] = Field(default_factory=dict)
    cores: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    versions: dict[str, str]
    hardware: dict[str, str | int] = Field(default_factory=dict)
    seed: int
    skipped_rows: int = 0
    schemes: dict[str, SchemeResult]
    requests: tuple[RequestRecord, ...]
    timelines: tuple[Timeline, ...] = ()
    cloud_load: dict[str, tuple[LoadPoint, ...]] = Field(default_factory=dict)
    capacity: dict[str, tuple[CapacityCurve, ...]] = Field(default_factory=dict)
